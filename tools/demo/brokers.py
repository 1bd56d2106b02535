"""The demo's brokers: somebody else's, or a process of ours: mosquitto, or amqtt from PyPI."""

import contextlib
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

# Seconds.
START_TIMEOUT_S = 15  # on a slow machine
PROBE_TIMEOUT_S = 3
END_TIMEOUT_S = 3

# Below the ports that Linux and macOS give to outgoing connections, where a client that tries a
# port again and again may meet itself.
PORTS = range(20000, 30000)
PORT_TRIES = 5

# MQTT 3.1.1, section 3.1: clean session, keep alive of 5 s, empty client identifier.
CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00"
DISCONNECT = b"\xe0\x00"

AMQTT_SCRIPT = pathlib.Path(__file__).resolve().parent / "amqtt_broker.py"


class DemoError(Exception):
    """What failed, in one line that one can act on."""


def free_port():
    """Return a port that nobody listens on just now. Somebody may a moment later: be ready."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise DemoError("no free port among %d to %d on 127.0.0.1" % (PORTS[0], PORTS[-1]))


def probe(host, port):
    """Return None if an MQTT server answers there (be it with a refusal), else what is wrong."""
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as sock:
            sock.sendall(CONNECT)
            answer = sock.recv(4)
            sock.sendall(DISCONNECT)
    except OSError as error:
        return error.strerror or str(error)
    return None if answer[:2] == b"\x20\x02" else "what answers is not MQTT 3.1.1"


def end_process(process):
    """End a process within a few seconds, whatever state it is in."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
    if process.poll() is None:
        process.kill()
        process.wait()


class Broker:
    """A broker given by its URI. Nothing is started, nothing is ended."""

    def __init__(self, uri):
        parts = urllib.parse.urlsplit(uri)
        self.host = parts.hostname
        self.port = parts.port or 1883
        self.secret = uri.partition("://")[2].rpartition("@")[0]  # "user:password" or ""
        self.description = "the one at %s, port %d" % (self.host, self.port)

    def start(self, deadline, on_wait):
        """Return when it answers; raise DemoError if it does not.

        Args:
            deadline: of time.monotonic().
            on_wait: called again and again meanwhile; what it raises ends the waiting.
        """
        lack = probe(self.host, self.port)
        if lack:
            raise DemoError(
                "no broker at %s, port %d (%s): start one there, or leave --broker away and the "
                "demo brings its own" % (self.host, self.port, lack)
            )

    def check(self):
        """Raise DemoError if it has ended."""

    def log(self):
        """Return what it wrote, as far as we know."""
        return ""

    def close(self):
        pass


class OwnBroker(Broker):
    """A broker process on a free port of this machine, for this demo alone."""

    program = ""  # for people

    def __init__(self):
        self.host = "127.0.0.1"
        self.port = None
        self.secret = ""
        self._folder = None
        self._process = None

    def start(self, deadline, on_wait):
        self._folder = tempfile.TemporaryDirectory(prefix="mqttpipe-demo-")
        for tries_left in reversed(range(PORT_TRIES)):
            self.port = free_port()
            self._launch()
            try:
                self._wait_ready(min(deadline, time.monotonic() + START_TIMEOUT_S), on_wait)
                return
            except DemoError:
                end_process(self._process)
                # Did somebody take the port between our choosing it and the broker's?
                if not tries_left or "address already in use" not in self.log().lower():
                    raise

    def _launch(self):
        command = self._command(pathlib.Path(self._folder.name))
        try:
            with open(self._log_file(), "wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,  # amqtt's script ends with it
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for us: we end it
                )
        except OSError as error:
            raise DemoError("%s does not start: %s" % (self.program, error)) from error

    def _wait_ready(self, deadline, on_wait):
        while True:
            self.check()  # first: a stranger on the port would answer while ours gives up
            lack = probe(self.host, self.port)
            if not lack:
                self.check()
                return
            if time.monotonic() > deadline:
                reason = "%s does not answer (%s); try another --broker"
                raise DemoError(reason % (self.program, lack))
            on_wait()
            time.sleep(0.02)

    def check(self):
        if self._process.poll() is not None:
            reason = "%s ended by itself (%d); try another --broker"
            raise DemoError(reason % (self.program, self._process.returncode))

    def log(self):
        file = self._folder and self._log_file()
        return file.read_text(errors="replace") if file and file.exists() else ""

    def _log_file(self):
        return pathlib.Path(self._folder.name) / "log"

    def close(self):
        if self._process:
            self._process.stdin.close()
            end_process(self._process)
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    @property
    def description(self):
        return "%s, started for this demo on 127.0.0.1, port %d" % (self.program, self.port)

    def _command(self, folder):
        raise NotImplementedError


class Mosquitto(OwnBroker):
    def __init__(self, program, settings=()):
        super().__init__()
        self.program = "mosquitto (%s)" % program
        self._file = program
        self._settings = list(settings)  # more lines for its configuration

    def _command(self, folder):
        lines = ["listener %d 127.0.0.1" % self.port, "allow_anonymous true", "log_dest stderr"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # As root it would become the user `mosquitto`, who may not enter the folder.
            lines.append("user root")
        configuration = folder / "mosquitto.conf"
        configuration.write_text("\n".join(lines + self._settings) + "\n")
        return [self._file, "-c", str(configuration)]


class Amqtt(OwnBroker):
    program = "amqtt (pure Python)"

    def _command(self, folder):
        return [sys.executable, str(AMQTT_SCRIPT), str(self.port)]
