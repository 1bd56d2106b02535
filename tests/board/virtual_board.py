"""A board without hardware: real MicroPython behind a pseudo-terminal, for mpremote and for tests.

    with VirtualBoard(folder, machine="Generic ESP32 module with ESP32") as board:
        board.world.add_network("home", "password1")
        subprocess.run(["mpremote", "connect", board.port, "fs", "cp", "main.py", ":"])
        board.reset_button()
        board.wait_for_output("online", timeout_s=10)

Theory
------
    mpremote <-> pseudo-terminal <-> VirtualBoard <-> pseudo-terminal <-> MicroPython (vm/)
                                          |       <---- calls, a page of memory ---->
                                    Hardware, World (cpython_shim/board/board_simulation.py)

- The interpreter is a process: the unix port, 32-bit as a board is, with a heap of a board's
  size. vm/board_boot.py makes a board of it. Each reset kills it and starts the next one; a soft
  reset lets it end by itself. So nothing outlives a reset that would not on a board.
- A thread of ours is the rest of the board: it carries bytes between the two terminals, turns a
  Ctrl-C into an interrupt when the program is to be interrupted (as the receiver's interrupt
  handler does on a board), answers the calls of the simulated modules, and looks every
  TICK_MS at the World, the watchdog and the process.
- The port is a symbolic link to the outer terminal. It comes and goes as a real one does: the USB
  of a Pico W is made by its processor, and vanishes for a moment with every reset; an ESP32 sits
  behind a converter, whose port stays. With the power off both are gone. (mpremote treats a
  device below /dev/pts/ as an emulator's, and a link elsewhere as a serial port.)
- Nobody listens: what is printed is lost, as it is on a board. `output` has all of it.

Linux only (pseudo-terminals, memfd, /proc).

Not as on a board: the speed; the stack; TLS goes by this machine's clock; 32-bit x86 loads
.mpy files of bytecode only, as every board does, but native code for it as well.
"""

import contextlib
import hashlib
import mmap
import os
import pathlib
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SIMULATION = ROOT / "cpython_shim" / "board"
for _folder in (ROOT / "tools", ROOT / "cpython_shim"):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))
# board_simulation alone: the folder itself on the path would give this process a `network`.
sys.path.append(str(SIMULATION))
import board_simulation  # noqa: E402

sys.path.remove(str(SIMULATION))
import get_micropython  # noqa: E402

World = board_simulation.World

ESP32 = "Generic ESP32 module with ESP32"
PICO_W = "Raspberry Pi Pico W with RP2040"
PICO_2_W = "Raspberry Pi Pico 2 W with RP2350"

TICK_MS = 10

# What the simulation itself takes of the heap of a 32-bit board (a test looks).
SIMULATION_HEAP_BYTES = 46 * 1024

# Flash for files: esp32/partitions-4MiB.csv of 1.25; MICROPY_HW_FLASH_STORAGE_BYTES of the two
# others (rp2/boards/).
DISK_BYTES = {
    "ESP32_GENERIC": 2 * 1024 * 1024,
    "RPI_PICO_W": 848 * 1024,
    "RPI_PICO2_W": 2560 * 1024,
}

# The port of a board that makes its own USB is away for so long at a reset.
USB_AWAY_S = 0.05

# What is kept for a host that has the port open and does not read.
UNREAD_BYTES_MAX = 1 << 16

READS_PER_STEP = 16

# A Ctrl-C waits so long for a program that computes to sleep.
BUSY_S = 0.3

EXIT_SOFT_RESET = 75

# Places in the page: vm/board_bus.py says what they are.
INTERRUPT = 0
REPL_MODE = 1
FED = 2
FLOWS = 3
CONNECTED = 4
GENERATION = 5
INTERRUPT_HOLD = 0
INTERRUPT_IS_DATA = 1
INTERRUPT_IS_SIGNAL = 3

CTRL_C = 3

# What the first loader of an ESP32 prints, by reset cause.
ROM_TEXT = {
    board_simulation.PWRON_RESET: "rst:0x1 (POWERON_RESET)",
    board_simulation.HARD_RESET: "rst:0xc (SW_CPU_RESET)",
    board_simulation.WDT_RESET: "rst:0xc (SW_CPU_RESET)",
    board_simulation.DEEPSLEEP_RESET: "rst:0x5 (DEEPSLEEP_RESET)",
}


class BoardTimeout(AssertionError):
    """What a test waited for did not come; the message shows the end of the output."""


class VirtualBoard:
    """A board. Make it, use it as a context manager: that switches it on, and off at the end."""

    def __init__(
        self,
        folder,
        bits=32,
        disk_bytes=None,
        heap="128k",
        machine=ESP32,
        firmware=(1, 25, 0),
        mpy=None,
        world=None,
        unique_id=None,
        build=None,
        built_on="2025-04-15",
        has_own_usb=None,
    ):
        """
        Args:
            folder: the board's place on this machine; its flash is `files` in there, and survives.
            bits: 32 or 64, the width of MicroPython.
            disk_bytes: size of the flash; None: as large as such a board's.
            heap: what a program has of it, "128k". The simulation's own need is added.
            machine: as sys.implementation._machine has it; "ESP32" in it makes an ESP32.
            firmware: the version that the board says it has; MicroPython is what is installed.
            mpy: sys.implementation._mpy; None: a board's of this MicroPython. With a version
                below that of a .mpy file the board refuses to import the file.
            world: World; None: an empty one.
            unique_id: bytes, 6 for ESP32 and 8 for rp2; None: made from the folder's name.
            has_own_usb: the port vanishes at a reset; None: as with such a board.
        """
        self.folder = pathlib.Path(folder)
        self.files = self.folder / "files"
        (self.folder / "unfinished").mkdir(parents=True, exist_ok=True)
        # Who puts files there before the first start has formatted the flash.
        self._is_blank = not self.files.exists() or not any(self.files.iterdir())
        self.files.mkdir(exist_ok=True)
        self.world = World() if world is None else world
        if unique_id is None:
            id_bytes = 6 if "ESP32" in machine.upper() else 8
            unique_id = hashlib.sha256(str(self.folder).encode()).digest()[:id_bytes]
        self.hardware = board_simulation.Hardware(
            machine, self.world, firmware, unique_id, self._ask_for_reset
        )
        is_esp32 = self.hardware.port == "esp32"
        self.has_own_usb = not is_esp32 if has_own_usb is None else has_own_usb
        self.port = str(self.folder / ("ttyACM0" if self.has_own_usb else "ttyUSB0"))
        self._command = get_micropython.find(bits)
        if not self._command:
            raise RuntimeError("no MicroPython of %d bits" % bits)
        self._heap_bytes = _parse_size(heap) * (1 if bits == 32 else 2)
        self._heap_bytes += SIMULATION_HEAP_BYTES * (1 if bits == 32 else 2)
        usual_build = "RPI_PICO2_W" if self.hardware.is_rp2350 else "RPI_PICO_W"
        if is_esp32:
            usual_build = "ESP32_GENERIC"
        self._config = {
            "port": self.hardware.port,
            "machine": machine,
            "firmware": tuple(firmware),
            "folder": str(self.folder),
            "disk_bytes": disk_bytes or DISK_BYTES[usual_build],
            "mpy": mpy,
            "native_arch": 10 if is_esp32 else 7 if self.hardware.is_rp2350 else 4,
            "build": build or usual_build,
            "built_on": built_on,
        }
        self._output = bytearray()
        self._changed = threading.Condition()
        self._requests = []  # functions for the thread to run, each with an Event to set
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = None
        self._is_ending = False
        self._failure = None

        # The thread's own:
        self._process = None
        self._process_fd = None
        self._outer = None  # our side of the terminal that mpremote opens
        self._inner = None  # our side of MicroPython's
        self._inner_slave = None
        self._call_socket = None
        self._page = None
        self._page_fd = None
        self._is_host_there = False
        self._for_host = bytearray()
        self._for_board = bytearray()
        self._reset_asked = None
        self._interrupt = None  # (processor time, switches) of the process at the last SIGINT
        self._busy_since_s = None  # a SIGINT is due, and the process computes
        self._outer_is_due_s = None

    # -- for tests --

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, name="virtual board", daemon=True)
        self._thread.start()
        self.power_on()
        return self

    def __exit__(self, *_):
        self._is_ending = True
        self._wake()
        self._thread.join(10)
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    @property
    def log(self):
        """Return the events of the hardware: (seconds, kind, details...) each."""
        return list(self.hardware.log)

    def events(self, kind):
        """Return the details of all events of one kind, oldest first."""
        return self.hardware.events(kind)

    @property
    def output(self):
        """Return all that the board has printed, since it was made."""
        with self._changed:
            return self._output.decode(errors="replace").replace("\r\n", "\n")

    def wait_for_output(self, pattern, timeout_s=10, since=0):
        """Wait until `pattern` (a regular expression) is in the output; return the match.

        Args:
            since: where in `output` to begin to look: len(board.output) at some moment.
        """
        return self._wait(
            lambda: re.search(pattern, self.output[since:]), timeout_s, "output %r" % pattern
        )

    def wait_for_event(self, kind, *details, timeout_s=10, count=1):
        """Wait until an event is in the log for the `count`-th time; return its details."""

        def look():
            found = [event for event in self.events(kind) if event[: len(details)] == details]
            return found[count - 1] if len(found) >= count else None

        return self._wait(look, timeout_s, "event %r" % ((kind, *details),))

    def _wait(self, look, timeout_s, what):
        end_s = time.monotonic() + timeout_s
        while True:
            found = look()
            if found is not None and found is not False:
                return found
            if self._failure:
                raise BoardTimeout("the virtual board has failed:\n%s" % self._failure)
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise BoardTimeout(
                    "no %s within %s s; log %s; output ends with\n%s"
                    % (what, timeout_s, self.log[-8:], self.output[-2000:])
                )
            with self._changed:
                self._changed.wait(min(left_s, TICK_MS / 1000))

    def power_on(self):
        """Switch on, if it is off."""
        self._do(self._power_on)

    def power_off(self):
        """Pull the plug: whatever the board is just doing ends, its port vanishes."""
        self._do(self._power_off)

    def reset_button(self):
        """Press the reset button."""
        self._do(lambda: self._start(board_simulation.PWRON_RESET))

    def sync(self):
        """Return when a change of the world has reached the board."""
        self._do(self._tick)

    def is_on(self):
        """Return whether the board has power."""
        return self._inner is not None

    # -- the thread --

    def _do(self, function):
        done = threading.Event()
        with self._changed:
            self._requests.append((function, done))
        self._wake()
        while not done.wait(0.1):
            if not self._thread.is_alive():
                raise BoardTimeout("the virtual board has failed:\n%s" % self._failure)

    def _wake(self):
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"\0")

    # Called by Hardware, in the thread, in the middle of a call or a tick.
    def _ask_for_reset(self, cause):
        self._reset_asked = cause

    def _run(self):
        try:
            while not self._is_ending:
                self._step()
        except Exception:
            self._failure = traceback.format_exc()  # for the test, which waits for us
        finally:
            self._power_off()

    def _step(self):
        with self._changed:
            requests, self._requests = self._requests, []
        for function, done in requests:
            try:
                function()
            finally:
                done.set()
        self._tick()
        poller = select.poll()
        poller.register(self._wake_reader, select.POLLIN)
        if self._inner is not None:
            if len(self._for_host) < UNREAD_BYTES_MAX:
                poller.register(self._inner, select.POLLIN)
            poller.register(self._call_socket, select.POLLIN)
            if self._process_fd is not None:
                poller.register(self._process_fd, select.POLLIN)
        if self._outer is not None and self._is_host_there:
            wanted = select.POLLIN if not self._for_board else 0
            poller.register(self._outer, wanted | (select.POLLOUT if self._for_host else 0))
        for fd, _ in poller.poll(TICK_MS):
            if fd == self._wake_reader:
                os.read(fd, 4096)
        # Each in turn, whatever poll() said: all of it is non-blocking, and a reset may have
        # closed what was ready a moment ago.
        self._answer_calls()
        self._take_output()
        self._feed_host()
        self._take_input()
        self._feed_board()
        self._look_at_process()

    def _tick(self):
        if self._inner is None:
            return
        if self._page is not None:
            # Looked at before the watchdog: when we are late, and not the board, it is not reset.
            if self._page[FED]:
                self._page[FED] = 0
                self.hardware.feed()
        self.hardware.tick()
        self._show()
        if self._reset_asked is not None:
            self._start(self._reset_asked)
        if self._outer_is_due_s is not None and time.monotonic() >= self._outer_is_due_s:
            self._open_outer()
        if self._outer is not None:
            events = _events_of(self._outer)
            was_there, self._is_host_there = self._is_host_there, not events & select.POLLHUP
            if was_there and not self._is_host_there:
                self._for_host.clear()

    # What the program looks at without asking.
    def _show(self):
        if self._page is not None:
            self._page[FLOWS] = self.hardware.does_traffic_flow()
            self._page[CONNECTED] = self.hardware.is_connected()
            self._page[GENERATION] = self.hardware.radio.generation & 0xFF

    # -- power and resets --

    def _power_on(self):
        if self._inner is None:
            self._start(board_simulation.PWRON_RESET)

    def _power_off(self):
        if self._inner is not None:
            self._kill()
            self._close_outer()
            self.hardware.log_event("power off")

    def _start(self, cause):
        self._reset_asked = None
        self._kill()
        if self.has_own_usb and self._outer is not None:
            self._close_outer()
            self._outer_is_due_s = time.monotonic() + USB_AWAY_S
        elif self._outer is None and self._outer_is_due_s is None:
            self._open_outer()
        self.hardware.start(cause)
        self._for_board.clear()
        if not self.has_own_usb:
            self._print(ROM_TEXT[cause] + ",boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n")
        self._inner, self._inner_slave = pty.openpty()
        _make_console(self._inner_slave)
        os.set_blocking(self._inner, False)
        self._page_fd = os.memfd_create("board")
        os.ftruncate(self._page_fd, 4096)
        self._page = _Page(self._page_fd)
        for name in os.listdir(self.folder / "unfinished"):
            os.remove(self.folder / "unfinished" / name)
        self._spawn()

    def _spawn(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        # 50 ms, as vm/board_bus.py says: struct timeval.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
        self._call_socket = ours
        self._page[INTERRUPT] = INTERRUPT_HOLD
        self._show()
        self._interrupt = self._busy_since_s = None
        config = dict(
            self._config,
            call_fd=theirs.fileno(),
            page_fd=self._page_fd,
            is_blank=self._is_blank,
        )
        self._is_blank = False
        environment = {
            "VIRTUAL_BOARD": repr(config),
            "MICROPYPATH": "%s:%s:.frozen" % (HERE / "vm", SIMULATION),
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "TZ": "UTC",
        }
        self._process = subprocess.Popen(
            [
                *self._command,
                "-X",
                "heapsize=%d" % self._heap_bytes,
                "-c",
                "import board_boot; board_boot.main()",
            ],
            stdin=self._inner_slave,
            stdout=self._inner_slave,
            stderr=self._inner_slave,
            env=environment,
            cwd=self.folder,
            pass_fds=(theirs.fileno(), self._page_fd),
            start_new_session=True,
        )
        theirs.close()
        with contextlib.suppress(OSError, AttributeError):
            self._process_fd = os.pidfd_open(self._process.pid)

    def _end_process(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._process_fd is not None:
            os.close(self._process_fd)
            self._process_fd = None
        if self._call_socket is not None:
            self._call_socket.close()
            self._call_socket = None

    def _kill(self):
        self._end_process()
        if self._inner is None:
            return
        self._take_output()
        self._feed_host()
        self._page.close()
        for fd in (self._inner, self._inner_slave, self._page_fd):
            os.close(fd)
        self._inner = self._inner_slave = self._page = self._page_fd = None

    def _look_at_process(self):
        if self._process is None or self._process.poll() is None:
            return
        status = self._process.returncode
        self._take_output()
        self._end_process()
        if status == EXIT_SOFT_RESET:
            self.hardware.soft_reset()
            self._spawn()
        else:
            # The interpreter itself has failed. A board would be reset by a panic handler.
            self.hardware.log_event("crash", status)
            self._reset_asked = board_simulation.HARD_RESET

    def _open_outer(self):
        self._outer_is_due_s = None
        self._outer, slave = pty.openpty()
        _make_raw(slave)
        os.set_blocking(self._outer, False)
        name = os.ttyname(slave)
        os.close(slave)  # then POLLHUP says whether anybody else has it open
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.port)
        os.symlink(name, self.port)

    def _close_outer(self):
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.port)
        if self._outer is not None:
            os.close(self._outer)
        self._outer = self._outer_is_due_s = None
        self._is_host_there = False
        self._for_host.clear()

    # -- calls --

    def _answer_calls(self):
        while self._call_socket is not None:
            try:
                packet = self._call_socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                return
            if not packet:
                return  # it ends; _look_at_process() sees to that
            number = int(packet[1 : packet.index(b",")])
            error, value = None, None
            try:
                # Not literal_eval(): where another thread calls ast.parse() at that moment,
                # CPython 3.11 raises SystemError. It is of our own vm/board_bus.py.
                _, name, arguments = eval(packet, {"__builtins__": {}})
                value = self.hardware.call(name, *arguments)
            except board_simulation.BoardError as exc:
                error, value = exc.name, exc.arguments
            except (TypeError, ValueError, SyntaxError, AttributeError, NameError) as exc:
                # The program has passed on an argument of a kind that no board takes.
                error, value = "TypeError", ("%s: %s" % (packet[:200].decode(), exc),)
            self._show()
            if self._reset_asked is not None:
                return  # it waits for its end, which comes with the next tick
            with contextlib.suppress(OSError):
                self._call_socket.send(repr((number, error, value)).encode())

    # -- bytes --

    def _print(self, text):
        self._on_output(text.encode())

    def _on_output(self, data):
        with self._changed:
            self._output += data
            self._changed.notify_all()
        if self._is_host_there:
            self._for_host += data

    def _take_output(self):
        for _ in range(READS_PER_STEP):  # a program may print faster than we can read
            if self._inner is None or len(self._for_host) >= UNREAD_BYTES_MAX:
                return
            try:
                data = os.read(self._inner, 4096)
            except OSError:
                return
            if not data:
                return
            self._on_output(data)

    def _feed_host(self):
        if self._outer is not None and self._for_host:
            with contextlib.suppress(OSError):
                count = os.write(self._outer, self._for_host[:4096])
                del self._for_host[:count]

    def _take_input(self):
        while self._outer is not None and not self._for_board:
            try:
                data = os.read(self._outer, 4096)
            except OSError:
                return
            if not data:
                return
            self._for_board += data

    # Bytes go on as long as the board may have them: a Ctrl-C not before it is known what it
    # means now. A real board in that state (between boot.py and main.py, say) loses it at times.
    def _feed_board(self):
        while self._for_board and self._inner is not None and self._process is not None:
            meaning = self._page[INTERRUPT]
            if meaning == INTERRUPT_HOLD:
                return
            end = self._for_board.find(CTRL_C)
            if end == 0 and meaning == INTERRUPT_IS_SIGNAL:
                if not self._send_interrupt():
                    return
                # Several at once are one: the first waits to be raised, and there is one place.
                while self._for_board[:1] == b"\x03":
                    del self._for_board[:1]
                continue
            if meaning == INTERRUPT_IS_DATA:
                # What is behind a Ctrl-C may have to wait for what it does.
                end += 1
            # Few at a time: a command among them may start a program, and a Ctrl-C behind it
            # interrupts that.
            count = min(end if end > 0 else len(self._for_board), 256)
            try:
                sent = os.write(self._inner, self._for_board[:count])
            except OSError:
                return  # the board does not read; the tick comes again
            del self._for_board[:sent]
            if meaning == INTERRUPT_IS_DATA and end > 0:
                return

    # The unix port dies of a second SIGINT that comes before it has looked at the first
    # (unix_mphal.c, sighandler()). So the next one waits until the process has run, or slept,
    # since. And it raises the exception out of the signal handler, wherever that is: out of an
    # allocation, which leaves the heap locked for ever. No board does that. So it is best to wait
    # until the program sleeps; one that never does must be hit somewhere.
    def _send_interrupt(self):
        now = _progress_of(self._process.pid)
        if self._interrupt is not None and now is not None:
            cpu_ns, switches = self._interrupt
            has_run = now[0] - cpu_ns > 5_000_000
            has_slept = now[2] and now[1] > switches
            if not has_run and not has_slept:
                return False
        if now is not None and not now[2]:
            now_s = time.monotonic()
            if self._busy_since_s is None:
                self._busy_since_s = now_s
            if now_s - self._busy_since_s < BUSY_S:
                return False
        self._busy_since_s = None
        self._interrupt = now[:2] if now else None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGINT)
        return True


class _Page:
    # The page of memory that both processes see.

    def __init__(self, fd):
        self._map = mmap.mmap(fd, 4096)

    def __getitem__(self, place):
        return self._map[place]

    def __setitem__(self, place, value):
        self._map[place] = int(value)

    def close(self):
        self._map.close()


def _parse_size(text):
    number, unit = re.fullmatch(r"(\d+)([kKmM]?)", str(text)).groups()
    return int(number) * {"": 1, "k": 1024, "m": 1024 * 1024}[unit.lower()]


def _events_of(fd):
    poller = select.poll()
    poller.register(fd, 0)
    for _, events in poller.poll(0):
        return events
    return 0


# (nanoseconds on a processor, voluntary switches, is asleep) of a process's main thread.
def _progress_of(pid):
    try:
        with open("/proc/%d/task/%d/schedstat" % (pid, pid)) as file:
            cpu_ns = int(file.read().split()[0])
        switches, is_asleep = 0, False
        with open("/proc/%d/task/%d/status" % (pid, pid)) as file:
            for line in file:
                if line.startswith("voluntary_ctxt_switches"):
                    switches = int(line.split()[1])
                elif line.startswith("State"):
                    is_asleep = line.split()[1] == "S"
                elif line.startswith(("SigPnd", "ShdPnd")):
                    if int(line.split()[1], 16) & 1 << (signal.SIGINT - 1):
                        return cpu_ns, -1, False  # not even delivered
        return cpu_ns, switches, is_asleep
    except (OSError, IndexError, ValueError):
        return None


# A terminal that hands on every byte as it is.
def _make_raw(fd):
    mode = termios.tcgetattr(fd)
    mode[0] = mode[1] = mode[3] = 0
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[6][termios.VMIN] = 1
    mode[6][termios.VTIME] = 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)


# The same, but "\n" comes out as "\r\n".
def _make_console(fd):
    _make_raw(fd)
    mode = termios.tcgetattr(fd)
    mode[1] = termios.OPOST | termios.ONLCR
    termios.tcsetattr(fd, termios.TCSANOW, mode)
