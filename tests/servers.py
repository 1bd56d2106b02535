"""Start a real MQTT broker for the tests, on this machine or in a container, and stop it again.

    broker = servers.choose("auto")     what --broker= says: auto, docker, mosquitto or a URI
    print(broker.description)           which one it is, and why
    with broker:                        started; answers CONNECT; stopped and cleaned up at the end
        ... broker.host, broker.port, broker.uri ...
        broker.stop()                   and start() and restart(): on the same port
        broker.kill()                   and start(); pause() and go_on()
    print(broker.log())             what it wrote

    with broker.another("password_file {folder}/users", files={"users": text}) as second:
        ...                             one more of the same kind, with lines added to its settings
    with broker.another(tls=servers.Tls(certificates.make(folder).server)) as third:
        ...                             the same, which speaks TLS only: third.uri is mqtts://...

- `docker`: the image eclipse-mosquitto:2 with tests/mosquitto/mosquitto.conf mounted.
- `mosquitto`: the local program with the same settings, on a free port of 127.0.0.1.
- a URI, `mqtt://[user:password@]host[:port]`: a broker that runs already. It is not ours: stop(),
  restart() and another() raise NotOurs.
- `auto`: docker if its daemon answers and has the image or can pull it; else mosquitto; else
  mosquitto after installing Debian's package, where that may be done.
"""

import base64
import contextlib
import hashlib
import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tools"))

from setup_env import (  # noqa: E402
    SetupError,
    dying_with_us,
    ensure_debian_package,
    find_program,
    run,
)

IMAGE = "eclipse-mosquitto:2"
CONFIGURATION = pathlib.Path(__file__).resolve().parent / "mosquitto" / "mosquitto.conf"
LISTENER = "listener 1883\n"  # the line of CONFIGURATION that holds the port

# Below what Linux (32768) and macOS (49152) give to outgoing connections. In that range, a client
# that tries a stopped broker's port again and again may be given that port for its own end,
# connect to itself, and keep the broker from coming back.
PORTS = range(20000, 30000)
PORT_TRIES = 10

DOCKER_TIMEOUT_S = 30
PULL_TIMEOUT_S = 300
CONNECT_TIMEOUT_S = 2
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 5

# MQTT 3.1.1, section 3.1: clean session, keep alive of 5 s, empty client identifier.
CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00"
DISCONNECT = b"\xe0\x00"

# Read by OpenSSL itself, whoever uses it, from where this variable says.
OPENSSL_VARIABLE = "OPENSSL_CONF"
OPENSSL_FILE = "openssl.cnf"
OPENSSL_VERSION_TEXT = """\
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = versions
[versions]
MinProtocol = %s
MaxProtocol = %s
"""


class BrokerError(Exception):
    """No broker; the message is one line that says why, and the broker's log if there is one."""


class NotOurs(BrokerError):
    """Asked to stop, start or multiply a broker that was given as a URI."""


class PortTaken(Exception):
    """Somebody else took the port between our choosing it and the broker's."""


def free_port():
    """Return a port that nobody listens on just now. Somebody may a moment later: be ready."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise BrokerError("no free port among %d to %d" % (PORTS[0], PORTS[-1]))


def password_line(user, password):
    """Return a line of mosquitto's password file, as mosquitto_passwd makes it."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    parts = [base64.b64encode(part).decode() for part in (salt, digest)]
    return "%s:$7$101$%s$%s\n" % (user, *parts)


class Tls:
    """How a broker speaks TLS. What it needs is written into its folder.

    Args:
        pair: its certificate (others that lead to the authority may follow in it) and key, a
            certificates.Pair or what else has .cert_pem and .key_pem.
        client_ca: only clients are let in that have a certificate from this Authority.
        version: "TLSv1.2" or "TLSv1.3" and no other.
    """

    def __init__(self, pair, client_ca=None, version=None):
        self.wants_certificate = client_ca is not None
        self.files = {"tls-cert.pem": pair.cert_pem, "tls-key.pem": pair.key_pem}
        self.lines = "certfile {folder}/tls-cert.pem\nkeyfile {folder}/tls-key.pem\n"
        if client_ca:
            self.files["tls-client-ca.pem"] = client_ca.cert_pem
            self.lines += "cafile {folder}/tls-client-ca.pem\nrequire_certificate true\n"
        assert version in (None, "TLSv1.2", "TLSv1.3"), version  # OpenSSL would ignore others
        if version:
            # mosquitto 2.0.11 takes `tls_version tlsv1.2` for "or higher". So OpenSSL is told.
            self.files[OPENSSL_FILE] = OPENSSL_VERSION_TEXT % (version, version)


def answers_connect(host, port, timeout_s=None, tls=None):
    """Tell whether what listens there answers an MQTT CONNECT (be it with a refusal).

    Args:
        tls: of the broker, a Tls. One that wants a certificate, and gets none from us, has
            answered with the alert that says so.
    """
    timeout_s = timeout_s or CONNECT_TIMEOUT_S
    try:
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.create_connection((host, port), timeout=timeout_s))
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False  # whose certificate it is, is for the tests to say
                context.verify_mode = ssl.CERT_NONE
                sock = stack.enter_context(context.wrap_socket(sock))
            if not tls or not tls.wants_certificate:
                sock.sendall(CONNECT)  # else it would meet RST, and that would eat the alert
            answer = sock.recv(4)
            sock.sendall(DISCONNECT)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
    return answer[:2] == b"\x20\x02"


class Broker:
    """What the three kinds have in common. choose() and another() make one, start() is yours."""

    description = ""
    start_timeout_s = START_TIMEOUT_S

    def __init__(self, extra_config="", files=None, tls=None):
        self.host = "127.0.0.1"
        self.port = None  # chosen at the first start(), and kept
        self.is_running = False
        self._tls = tls
        # The lines of the listener must follow it at once, before those of another one.
        self._extra_config = tls.lines + extra_config if tls else extra_config
        self._files = {**tls.files, **(files or {})} if tls else files or {}
        self._folder = None  # made by the first start(), removed by close()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    def uri(self):
        # By its name with TLS: that is what certificates are made for.
        return ("mqtts://localhost:%d" if self._tls else "mqtt://127.0.0.1:%d") % self.port

    def another(self, extra_config="", files=None, tls=None):
        """Return one more broker of this kind, not started yet.

        Args:
            extra_config: lines to add to tests/mosquitto/mosquitto.conf. In them {folder} is the
                folder with `files`, and {data} one that the broker may write to and that survives
                stop() and start().
            files: file name -> text or bytes.
            tls: a Tls: that is all it speaks then.
        """
        raise NotImplementedError

    def start(self):
        """Start it and wait until it answers a CONNECT. Nothing happens if it runs."""
        if self.is_running:
            return
        if self.port is not None:
            self._start_on(self.port)
            return
        for _ in range(PORT_TRIES):
            port = free_port()
            try:
                self._start_on(port)
                self.port = port
                return
            except PortTaken:
                continue
        raise BrokerError("%d ports in a row were taken by others" % PORT_TRIES)

    def _start_on(self, port):
        deadline = time.monotonic() + self.start_timeout_s
        try:
            self._launch(port)
            while not (
                answers_connect(self.host, port, tls=self._tls)
                and self._is_the_one_that_answered()
            ):
                self._check_alive()
                if time.monotonic() > deadline:
                    raise BrokerError(
                        "%s does not answer within %d s on port %d\n%s"
                        % (self.description, self.start_timeout_s, port, self.log())
                    )
                time.sleep(0.02)
        except BaseException:
            self._kill()
            raise
        self.is_running = True

    def stop(self):
        """Stop it as a person would, so that it saves what it has to; keep port and data."""
        self.is_running = False
        self._stop()

    def restart(self):
        self.stop()
        self.start()

    def kill(self):
        """End it at once: it says nothing to its clients, and saves nothing. start() as ever."""
        self.is_running = False
        self._crash()

    def pause(self):
        """Freeze it: its connections stay, it does nothing until go_on()."""
        raise NotImplementedError

    def go_on(self):
        raise NotImplementedError

    def use(self, tls):
        """Show another certificate, from the next start() on; it has to speak TLS already."""
        self._tls = tls
        self._files.update(tls.files)
        for name, content in tls.files.items():
            self._write_file(name, content)

    def forget(self):
        """While it does not run: remove what it has kept in {data}."""
        for file in (self._folder / "data").iterdir():
            file.unlink()

    def close(self):
        """Stop it and remove everything that was made for it."""
        self.is_running = False
        self._stop()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def log(self):
        """Return what the broker wrote so far, all starts together."""
        return ""

    def _make_folder(self):
        """Make a folder with the files in it, which the broker can read whatever user it is."""
        if self._folder is None:
            self._folder = pathlib.Path(tempfile.mkdtemp(prefix="mqttpipe-broker-"))
            self._folder.chmod(0o755)
            (self._folder / "data").mkdir()
            for name, content in self._files.items():
                self._write_file(name, content)

    def _write_file(self, name, content):
        content = content if isinstance(content, bytes) else content.encode()
        (self._folder / name).write_bytes(content)
        (self._folder / name).chmod(0o644)

    def _is_the_one_that_answered(self):
        return True

    # What a kind has to supply -------------------------------------------

    def _launch(self, port):
        raise NotImplementedError

    def _check_alive(self):
        """Raise PortTaken or BrokerError if it ended by itself."""
        raise NotImplementedError

    def _stop(self):
        raise NotImplementedError

    def _kill(self):
        """Make sure that nothing of a failed start runs on."""
        raise NotImplementedError

    def _crash(self):
        self._kill()


def settings(extra_config, listener, folder, data):
    """Return the text of a mosquitto.conf: the tests' own, with the listener and lines given."""
    text = CONFIGURATION.read_text()
    assert LISTENER in text, "tests/servers.py must know the listener line"
    extra = extra_config.replace("{folder}", str(folder)).replace("{data}", str(data))
    return text.replace(LISTENER, listener) + "\n" + extra + "\n"


class ProcessBroker(Broker):
    """A broker that is one process of this machine: `_process`, with its output in `log`."""

    stop_timeout_s = STOP_TIMEOUT_S

    def __init__(self, extra_config="", files=None, tls=None):
        super().__init__(extra_config, files, tls)
        self._process = None

    def pause(self):
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def _stop(self):
        if self._process:
            self.go_on()
            if self._process.stdin:
                self._process.stdin.close()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_timeout_s)
        self._kill()

    def _kill(self):
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self):
        file = self._folder and self._folder / "log"
        return file.read_text(errors="replace") if file and file.exists() else ""


class MosquittoBroker(ProcessBroker):
    """The program on this machine, started by us and ended by its process."""

    def __init__(self, program, extra_config="", files=None, tls=None):
        super().__init__(extra_config, files, tls)
        self.description = "mosquitto (%s)" % program
        self._program = program
        self._log_seen = 0  # where the log of the latest start begins

    def another(self, extra_config="", files=None, tls=None):
        return MosquittoBroker(self._program, extra_config, files, tls)

    def _launch(self, port):
        self._make_folder()
        listener = "listener %d 127.0.0.1\n" % port
        text = settings(self._extra_config, listener, self._folder, "%s/data/" % self._folder)
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # As root it would become the user `mosquitto`, who may not enter the folder.
            text += "user root\n"
        self._write_file("mosquitto.conf", text)
        self._log_seen = len(self.log())
        environment = dict(os.environ)
        if OPENSSL_FILE in self._files:
            environment[OPENSSL_VARIABLE] = str(self._folder / OPENSSL_FILE)
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                dying_with_us([self._program, "-c", str(self._folder / "mosquitto.conf")]),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _is_the_one_that_answered(self):
        # A stranger on the port would have answered, while ours is about to fail.
        return "New c" in self.log()[self._log_seen :]  # "New connection", "New client connected"

    def _check_alive(self):
        if self._process.poll() is None:
            return
        latest = self.log()[self._log_seen :]
        if self.port is None and "Address already in use" in latest:
            raise PortTaken
        raise BrokerError("%s ended (%d)\n%s" % (self.description, self._process.poll(), latest))


class DockerBroker(Broker):
    """A container of the official image, with our settings mounted."""

    _numbers = itertools.count(1)

    def __init__(self, extra_config="", files=None, tls=None):
        super().__init__(extra_config, files, tls)
        self.description = "%s in a container" % IMAGE
        self._name = "mqttpipe-tests-%d-%d" % (os.getpid(), next(self._numbers))
        self._exists = False

    def another(self, extra_config="", files=None, tls=None):
        return DockerBroker(extra_config, files, tls)

    def _launch(self, port):
        if self._exists:
            docker("start", self._name)
            return
        self._make_folder()
        configuration = CONFIGURATION
        if self._extra_config:
            configuration = self._folder / "mosquitto.conf"
            text = settings(self._extra_config, LISTENER, "/mosquitto/files", "/mosquitto/data/")
            self._write_file("mosquitto.conf", text)
        command = ["run", "--detach", "--pull=never", "--name", self._name]
        command += ["--publish", "127.0.0.1:%d:1883" % port]
        command += ["--volume", "%s:/mosquitto/config/mosquitto.conf:ro" % configuration]
        command += ["--volume", "%s:/mosquitto/files:ro" % self._folder]
        if OPENSSL_FILE in self._files:
            command += ["--env", "%s=/mosquitto/files/%s" % (OPENSSL_VARIABLE, OPENSSL_FILE)]
        self._exists = True  # it is made even when it can't be started
        try:
            docker(*command, IMAGE)
        except SetupError as error:
            taken = ("port is already allocated", "address already in use")
            if any(words in str(error).lower() for words in taken):
                raise PortTaken from error
            raise BrokerError(str(error)) from error

    def _check_alive(self):
        if docker("inspect", "--format", "{{.State.Running}}", self._name).strip() != "true":
            raise BrokerError("%s ended\n%s" % (self.description, self.log()))

    def pause(self):
        docker("pause", self._name)

    def go_on(self):
        docker("unpause", self._name)

    def _crash(self):
        docker("kill", self._name)  # the container stays, to be started again

    def _stop(self):
        if self._exists:
            docker("stop", "-t", str(STOP_TIMEOUT_S), self._name)

    def _kill(self):
        if self._exists:
            docker("rm", "--force", "--volumes", self._name)
            self._exists = False

    def close(self):
        self._kill()
        super().close()

    def log(self):
        return docker("logs", self._name) if self._exists else ""


class GivenBroker(Broker):
    """A broker that somebody else runs."""

    def __init__(self, uri):
        super().__init__()
        parts = urllib.parse.urlsplit(uri)
        self.host = parts.hostname
        self.port = parts.port or 1883
        self._uri = uri
        self.description = "the broker at %s:%d" % (self.host, self.port)

    @property
    def uri(self):
        return self._uri

    def another(self, extra_config="", files=None, tls=None):
        raise NotOurs("%s is not ours: no second one with other settings" % self.description)

    def _launch(self, port):
        pass

    def _check_alive(self):
        pass

    def stop(self):
        raise NotOurs("%s is not ours: it can't be stopped" % self.description)

    def _stop(self):
        pass

    def _kill(self):
        pass

    def _not_ours(self):
        raise NotOurs("%s is not ours: it can't be stopped" % self.description)

    kill = pause = go_on = _not_ours


# ---------------------------------------------------------------------------
# Which one
# ---------------------------------------------------------------------------


def docker(*arguments, timeout_s=DOCKER_TIMEOUT_S):
    """Run a docker command and return its output; SetupError if it fails."""
    return run(["docker", *arguments], timeout_s)


def check_docker():
    """Return None if containers of IMAGE can be started here, else the reason why not."""
    if not shutil.which("docker"):
        return "no docker program"
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except SetupError:
        return "docker's daemon does not answer"
    with contextlib.suppress(SetupError):
        docker("image", "inspect", "--format", "{{.Id}}", IMAGE)
        return None
    print("broker: pulling %s" % IMAGE, flush=True)
    try:
        docker("pull", "--quiet", IMAGE, timeout_s=PULL_TIMEOUT_S)
    except SetupError as error:
        return "the image %s is not there and can't be pulled: %s" % (IMAGE, error)
    return None


def check_option(option):
    """Raise BrokerError unless `option` is something that --broker= may be."""
    if option in ("auto", "docker", "mosquitto"):
        return
    with contextlib.suppress(ValueError):  # raised by .port, too, for what is no port
        parts = urllib.parse.urlsplit(option)
        if parts.scheme in ("mqtt", "tcp") and parts.hostname and parts.port != 0:
            return
    rule = "must be auto, docker, mosquitto or a URI such as mqtt://127.0.0.1:1883"
    # Without user and password: it may go into a log.
    raise BrokerError("--broker=%s: %s" % (re.sub("^([a-z]+://)?.*@", r"\1", option), rule))


def choose(option):
    """Return the broker that `--broker=option` asks for, not started yet.

    Raises:
        BrokerError: there is none; the message is one line that says what to install.
    """
    check_option(option)
    if option not in ("auto", "docker", "mosquitto"):
        given = GivenBroker(option)
        if not answers_connect(given.host, given.port):
            raise BrokerError("%s does not answer a CONNECT" % given.description)
        return given

    why = "asked for"
    if option in ("auto", "docker"):
        lack = check_docker()
        if lack is None:
            broker = DockerBroker()
            broker.description += ", " + (why if option == "docker" else "found")
            return broker
        if option == "docker":
            raise BrokerError("--broker=docker: " + lack)
        why = "as " + lack

    try:
        program = find_program("mosquitto")
        if not program:
            program = ensure_debian_package("mosquitto", "mosquitto")
    except SetupError as error:
        raise BrokerError(
            "no broker for the tests (%s); start docker or install mosquitto: %s" % (why, error)
        ) from error
    broker = MosquittoBroker(program)
    broker.description += ", " + why
    return broker


def end_paho(client):
    """Disconnect a client of paho-mqtt, and wait for its thread.

    A thread that ends just now has taken itself off between loop_stop()'s look and its join().
    """
    client.disconnect()
    with contextlib.suppress(AttributeError):
        client.loop_stop()
