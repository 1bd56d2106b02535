"""Start an emulated board: MicroPython on lwIP in QEMU, with a serial port for your tools.

    python3 tools/emulated_board.py                     a blank board; Ctrl-C ends it
    python3 tools/emulated_board.py --flash board.img   one whose files are kept in that file
    python3 tools/emulated_board.py --suite sid         with a newer MicroPython

It prints the port, and commands to try. The board has a network card and gets an address as soon
as `network.WLAN().active(True)` is called: any Wi-Fi and password will do. This machine's
127.0.0.1 is 10.0.2.2 there, so a broker here is mqtt://10.0.2.2. tools/get_lwip_board.py builds
it, once, and says what it is.

For other tools and for tests:

    with Board() as board:
        board.put("/mqttpipe.mpy", data)
        board.go_online()
        print(board.run("import mqttpipe; print(mqttpipe.__version__)"))

Not as on a board: Wi-Fi, a second core, flash that takes time, caches. Real lwIP, modlwip, mbedTLS
and littlefs, a real raw REPL, 32-bit words, a heap of 188 KiB.
"""

import ast
import contextlib
import json
import mmap
import os
import pathlib
import random
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import commands
import get_lwip_board
import setup_env

HOST = "10.0.2.2"  # the board's name for this machine's 127.0.0.1
NOBODY = "10.0.2.99"  # an address that answers no ARP
DEAF_PORT = 9  # of HOST, where nobody listens

# Virtual time: each instruction takes 16 ns, whatever this machine's load.
NS_PER_INSTRUCTION = 16
CLOCKS = {
    "real": [],
    "steady": ["-icount", "shift=4"],
    # As steady, but asleep the board does not wait: an hour passes in a moment. The network's
    # other end is real, and looks slow from there.
    "jump": ["-icount", "shift=4,sleep=off"],
}

# The 16 MiB of PSRAM are a file here. The ROMFS is at its begin, then a mailbox: what this program
# writes into the file is in the board's memory at once. The file system is behind it, and at the
# end what the firmware reads at its start (tests/lwip/firmware/lan/lan.h).
PSRAM = 0x21000000
PSRAM_BYTES = 0x1000000
MAILBOX = 0x300000
MAILBOX_BYTES = 0x100000
HOST_SEED = 0xFFFFF8
HOST_TIME = 0xFFFFFC

START_TIMEOUT_S = 20
ANSWER_TIMEOUT_S = 20
RUN_TIMEOUT_S = 60
TYPED_MAX = 200  # the serial line takes some 50 us for each letter

RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"


class BoardError(Exception):
    """The board did not do what it was asked for; what it said instead is in the message."""


def open_flash(path):
    """Return a file for a board's file system, made if it lacks: open, it is one board's alone.

    A new one nobody else may read: secrets.py will be in it.

    Raises: BoardError: it can't be written, another board has it, which would write into the same
    files, or there is something else: that would be lost.
    """
    try:
        file = open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
        setup_env.fcntl.flock(file, setup_env.fcntl.LOCK_EX | setup_env.fcntl.LOCK_NB)
    except BlockingIOError:
        raise BoardError("another board has %s: name another file" % path) from None
    except OSError as error:
        raise BoardError("can't write %s: %s" % (path, error.strerror)) from error
    if not os.path.isfile(path) or file.tell() not in (0, PSRAM_BYTES):
        raise BoardError("%s has not the files of an emulated board: name another file" % path)
    return file


class Board:
    """A board, switched on when it is made, off by close() or at the end of a `with`.

    Args:
        firmware: Path; None: the one that get_lwip_board.find() finds.
        flash: Path of a file for its file system, made if it lacks: 16 MiB. None: a blank one,
            which nobody keeps.
        romfs: Path of an image for its ROMFS.
        clock: "real", "steady" or "jump", see CLOCKS.
        has_port: True: `port` is the name of a serial port for other programs, and run() and the
            like are not for you. False: the other way round.

    Attributes: port; qmp(command, ...) asks QEMU's monitor.
    """

    def __init__(self, firmware=None, flash=None, romfs=None, clock="real", has_port=False):
        firmware = firmware or get_lwip_board.find()
        if firmware is None:
            raise BoardError("no firmware: python3 tools/get_lwip_board.py builds it")
        self._flash = open_flash(flash) if flash else None
        self.port = None
        self._serial = None
        self._pending = b""
        self._memory = self._qmp = None
        self._last_output = ""
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="mqttpipe-board-"))
        command = [setup_env.find_program(get_lwip_board.QEMU), "-nographic", "-monitor", "none"]
        command += ["-semihosting", "-kernel", str(firmware), *CLOCKS[clock]]
        self._make_memory(flash or self._folder / "psram", romfs)
        backend = "memory-backend-file,id=psram,share=on,size=%d" % PSRAM_BYTES
        command += ["-object", "%s,mem-path=%s" % (backend, flash or self._folder / "psram")]
        command += ["-machine", "mps2-an385,memory-backend=psram"]
        # Each board has an address of its own, of which its unique_id() is made.
        mac = "52:54:00:%02x:%02x:%02x" % tuple(os.urandom(3))
        command += ["-netdev", "user,id=n0"]
        command += ["-net", "nic,model=lan9118,netdev=n0,macaddr=" + mac]
        backend = "pty" if has_port else "socket,path=%s/serial,server=on,wait=off" % self._folder
        command += ["-chardev", "%s,id=serial0,logfile=%s/output" % (backend, self._folder)]
        command += ["-serial", "chardev:serial0"]
        command += ["-qmp", "unix:%s/qmp,server=on,wait=off" % self._folder]
        with open(self._folder / "log", "wb") as log:
            # Its own group: the Ctrl-C of a terminal is for the program that started it.
            self._process = subprocess.Popen(
                setup_env.dying_with_us(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._qmp = self._connect("qmp")
            self._qmp_lines = self._qmp.makefile("rb")
            self.qmp("qmp_capabilities")
            if has_port:
                devices = {each["label"]: each["filename"] for each in self.qmp("query-chardev")}
                self.port = devices["serial0"].replace("pty:", "")
            else:
                self._serial = self._connect("serial")
                self.enter_raw_repl()
        except BaseException:
            self.close()
            raise

    def _make_memory(self, path, romfs):
        image = pathlib.Path(romfs).read_bytes() if romfs else b""
        if len(image) > MAILBOX:
            raise BoardError("%s has more than %d bytes" % (romfs, MAILBOX))
        try:
            path.touch()
            with open(path, "r+b") as file:
                # No holes: where the disk is full, who writes into one gets SIGBUS, and so QEMU.
                os.posix_fallocate(file.fileno(), 0, PSRAM_BYTES)
                self._memory = mmap.mmap(file.fileno(), PSRAM_BYTES)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise BoardError("can't write %s: %s" % (path, error.strerror)) from error
        self._memory[: max(len(image), 4)] = image or bytes(4)  # no old one
        self._set_seed()
        self.set_clock()

    def _set_seed(self):
        struct.pack_into("<I", self._memory, HOST_SEED, random.getrandbits(31))

    def set_clock(self):
        """Let the clock have been this machine's when the board was started or reset last."""
        struct.pack_into("<I", self._memory, HOST_TIME, int(time.time()))

    def _connect(self, name):
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(ANSWER_TIMEOUT_S)
            try:
                sock.connect("%s/%s" % (self._folder, name))
                return sock
            except OSError:
                sock.close()
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BoardError("QEMU does not start: " + self.log())
            time.sleep(0.005)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Switch it off, as by pulling the plug. What is in its flash is safe."""
        self._process.kill()
        self._process.wait()
        self._last_output = self.output()
        for each in (self._serial, self._qmp, self._memory, self._flash):
            if each:
                each.close()
        self._serial = self._qmp = self._memory = self._flash = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def is_on(self):
        return self._process.poll() is None

    def log(self):
        """Return what QEMU itself has said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)  # if it is about to end, its last words are to come
        return (self._folder / "log").read_text(errors="replace")

    def output(self):
        """Return all that the board has printed so far."""
        file = self._folder / "output"
        if not file.exists():
            return self._last_output
        return file.read_text(errors="replace").replace("\r\n", "\n")

    # Around the board -----------------------------------------------------

    def qmp(self, command, **arguments):
        """Send a command to QEMU's monitor and return its answer."""
        words = {"execute": command, "arguments": arguments}
        try:
            self._qmp.sendall(json.dumps(words).encode() + b"\n")
            return self._qmp_answer(command)
        except OSError as error:
            raise BoardError("QEMU does not answer: " + self.log()) from error

    def _qmp_answer(self, command):
        while True:
            line = self._qmp_lines.readline()
            if not line:
                raise BoardError("QEMU does not answer: " + self.log())
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise BoardError("%s: %s" % (command, answer["error"]["desc"]))
            if answer.get("event") == "RESET":  # it counts from the begin
                self.set_clock()

    def watch(self, timeout_s):
        """Wait so long; a board that is reset has the right time again, and other random numbers.

        With the same it would connect from the port of its last connection, which QEMU does not
        know to be over. That it was reset is told too late for them: this is for the next time.
        """
        self._set_seed()
        if select.select([self._qmp], [], [], timeout_s)[0] and self.is_on():
            self.qmp("query-status")  # the events come before its answer

    def pull_cable(self):
        """Let no frame through. The board sees it, but not after config(watch_phy=False)."""
        self.qmp("set_link", name="n0", up=False)

    def plug_cable(self):
        self.qmp("set_link", name="n0", up=True)

    def delay_frames(self, ms):
        """Hold back all frames, and let them through together every `ms` milliseconds; 0: not."""
        if ms:
            values = {"id": "delay", "netdev": "n0", "queue": "all", "interval": ms * 1000}
            self.qmp("object-add", **{"qom-type": "filter-buffer"}, **values)
        else:
            self.qmp("object-del", id="delay")

    def pause(self):
        """Stop the processor. For the board no time passes until go_on()."""
        self.qmp("stop")

    def go_on(self):
        self.qmp("cont")

    def reset_button(self):
        """Start it anew; flash keeps what it has."""
        self.qmp("system_reset")

    # At its REPL ----------------------------------------------------------

    def read_until(self, end, timeout_s=RUN_TIMEOUT_S):
        """Return what it prints until `end` (bytes) comes, which is taken away."""
        deadline = time.monotonic() + timeout_s
        while end not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._serial], [], [], left)[0]:
                tail = self._pending[-2000:].decode(errors="replace")
                raise BoardError("no %r within %s s, but: %s" % (end, timeout_s, tail))
            data = self._serial.recv(65536)
            if not data:
                raise BoardError("QEMU has ended: " + self.log())
            self._pending += data
        found, self._pending = self._pending.split(end, 1)
        return found

    def write(self, data):
        """Type `data` (bytes) at its serial port."""
        self._serial.sendall(data)

    def enter_raw_repl(self):
        """Stop whatever runs, and be ready for run()."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            # Until the firmware has its clock and interrupts, what is typed may be lost.
            self.write(b"\r\x03\x03\r\x01")
            try:
                self.read_until(RAW_PROMPT, 0.3)
                break
            except BoardError:
                if time.monotonic() > deadline or not self.is_on():
                    raise
        # It may have been asked twice, and answer twice.
        self.write(b"print('ready')\x04")
        self.read_until(b"OKready\r\n\x04\x04>", ANSWER_TIMEOUT_S)

    def soft_reset(self):
        """Begin with an empty heap; the network card keeps what it has."""
        self.write(b"\x04")
        self.read_until(RAW_PROMPT, ANSWER_TIMEOUT_S)

    def start(self, code):
        """Let it run `code`; finish() waits for its end."""
        if len(code) > TYPED_MAX:
            code = "from uctypes import bytearray_at\nexec(str(%s, 'utf-8'))" % self._mail(
                code.encode()
            )
        self.write(code.encode() + b"\x04")
        self.read_until(b"OK", ANSWER_TIMEOUT_S)

    def finish(self, timeout_s=RUN_TIMEOUT_S):
        """Return what the code of start() has printed. BoardError if it has raised."""
        printed = self.read_until(b"\x04", timeout_s)
        error = self.read_until(b"\x04", ANSWER_TIMEOUT_S)
        self.read_until(b">", ANSWER_TIMEOUT_S)
        text = (printed + error).decode(errors="replace").replace("\r\n", "\n")
        if error:
            raise BoardError(text)
        return text

    def run(self, code, timeout_s=RUN_TIMEOUT_S):
        """Run `code` and return what it has printed."""
        self.start(code)
        return self.finish(timeout_s)

    def evaluate(self, expression, timeout_s=RUN_TIMEOUT_S):
        """Return its value. What is printed meanwhile is passed over."""
        printed = self.run("print(repr((%s)))" % expression, timeout_s)
        return ast.literal_eval(printed.splitlines()[-1])

    def put(self, path, data):
        """Write a file on the board."""
        code = "from uctypes import bytearray_at\nwith open(%r, 'wb') as f: f.write(%s)"
        self.run(code % (path, self._mail(data)))

    # Put data into the mailbox, and return the expression that is them on the board.
    def _mail(self, data):
        if len(data) > MAILBOX_BYTES:
            raise BoardError("%d bytes are more than %d" % (len(data), MAILBOX_BYTES))
        self._memory[MAILBOX : MAILBOX + len(data)] = data
        return "bytearray_at(%d, %d)" % (PSRAM + MAILBOX, len(data))

    def get(self, path):
        """Return a file of the board."""
        return self.evaluate("open(%r, 'rb').read()" % path)

    def go_online(self):
        """Switch its network on, wait for an address; return ifconfig()."""
        return ast.literal_eval(self.run(GO_ONLINE))


GO_ONLINE = """\
import network, time
lan = network.LAN()
lan.active(True)
start = time.ticks_ms()
while not lan.isconnected():
    time.sleep_ms(2)
    if time.ticks_diff(time.ticks_ms(), start) > 15000: raise OSError('no DHCP')
print(lan.ifconfig())
"""

COMMANDS = """\
    python3 tools/deploy.py --port {port}    all that a board needs
    python3 tools/repl.py --port {port}      MQTT by hand, on a board with all that
    {mpremote} connect {port}    its bare REPL
"""


def main():
    parser = commands.argument_parser(__doc__)
    parser.add_argument(
        "--flash", type=pathlib.Path, metavar="FILE", help="keep the board's files in this one"
    )
    parser.add_argument(
        "--suite",
        choices=get_lwip_board.SUITES,
        default=get_lwip_board.SUITE,
        help="the release of Debian whose MicroPython it has (default: %(default)s)",
    )
    options = parser.parse_args()
    firmware = get_lwip_board.ensure(options.suite)
    if not firmware:
        return 1
    try:
        mpremote = setup_env.find_python("requirements-deploy.txt").with_name("mpremote")
    except setup_env.SetupError as error:
        sys.exit("setup: %s" % error)
    ended = []

    # Python passes over what is raised while it gives memory back.
    def end(number, frame):
        ended.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        with Board(firmware, flash=options.flash, has_port=True) as board:
            commands.put("board: %s, at %s" % (get_lwip_board.describe(options.suite), board.port))
            quoted = shlex.quote(str(mpremote))
            texts = commands.said(COMMANDS).format(port=board.port, mpremote=quoted)
            commands.put("try, from another terminal:\n" + texts)
            commands.put("any Wi-Fi and password will do in its secrets.py")
            commands.put("this machine's 127.0.0.1 is %s there; Ctrl-C ends it" % HOST)
            while board.is_on():
                board.watch(0.2)
                if ended:
                    raise KeyboardInterrupt
            commands.put("board: QEMU has ended: " + board.log())
            return 1
    except (BoardError, OSError) as error:
        commands.put("board: failed: %s" % error)
        return 1
    except KeyboardInterrupt:
        commands.put("board: off")
        return 0


if __name__ == "__main__":
    commands.exit_with(main)
