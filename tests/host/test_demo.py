"""tools/demo.py, run for real: that it shows what it says, and that it can't be deceived."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

import setup_env

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEMO = ROOT / "tools" / "demo.py"

sys.path.append(str(ROOT / "tools" / "demo"))

from demo_wire import PacketFinder  # noqa: E402

# Seconds. The first run may have to install what tools/requirements-demo.txt has.
RUN_TIMEOUT_S = 200
pytestmark = pytest.mark.timeout(RUN_TIMEOUT_S + 20)


def start_demo(*options, **popen_options):
    return subprocess.Popen(
        [sys.executable, str(DEMO), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **popen_options,
    )


def run_demo(*options, **popen_options):
    """Run the demo to its end; return its exit status and the lines that it printed."""
    with start_demo(*options, **popen_options) as demo:
        try:
            output, _ = demo.communicate(timeout=RUN_TIMEOUT_S)
        except BaseException:
            demo.terminate()  # it ends what it has started
            raise
    print(output.decode())
    return demo.returncode, output.decode().splitlines()


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# ---------------------------------------------------------------------------
# All goes well
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("broker", ["amqtt", "mosquitto"])
def test_the_demo_ends_with_ok(broker, request, tmp_path):
    if broker == "mosquitto" and not setup_env.find_program("mosquitto"):
        pytest.skip("no mosquitto program here")
    left_out = ["--no-micropython"] if request.config.getoption("--no-micropython") else []
    status, lines = run_demo("--broker=" + broker, *left_out, cwd=str(tmp_path))
    assert (status, lines[-1]) == (0, "demo: ok")
    text = "\n".join(lines)
    assert "Traceback" not in text
    assert "\033" not in text, "colours, but not on a terminal"
    if not left_out:
        assert re.search(r"MicroPython (32|64)-bit +online and subscribed", text)
        assert "stands in" not in text
    assert text.count("has lost the connection") == 4
    assert text.count("online again and subscribed again") == 4
    assert text.count("has all 10, in order") == 8
    assert text.count("has all 60, in order") == 2
    for account in re.findall(r"(\d) connections, (\d) SUBSCRIBE packets .* (\d) calls of", text):
        assert account == ("3", "6", "2"), "each filter has a SUBSCRIBE of its own"
    assert list(tmp_path.iterdir()) == []


def test_a_second_cpython_stands_in_for_micropython_and_that_is_said():
    status, lines = run_demo("--no-micropython", "--broker=amqtt")
    assert (status, lines[-1]) == (0, "demo: ok")
    assert lines[-2] == "--no-micropython: a second CPython stands in for it."
    assert not any("MicroPython 32-bit" in line or "MicroPython 64-bit" in line for line in lines)


# ---------------------------------------------------------------------------
# It fails, and says what to do
# ---------------------------------------------------------------------------


def test_a_closed_port_is_named_with_what_to_do():
    port = closed_port()
    status, lines = run_demo("--no-micropython", "--broker=mqtt://127.0.0.1:%d" % port)
    assert status == 1
    assert lines[-1].startswith("demo: failed: no broker at 127.0.0.1, port %d (" % port)
    assert "start one there, or leave --broker away" in lines[-1]
    assert "Traceback" not in "\n".join(lines)


@pytest.mark.parametrize("option", ["http://127.0.0.1", "mqtt://127.0.0.1:99999", "mosquito", ""])
def test_a_wrong_broker_option_is_refused_with_the_rule(option):
    status, lines = run_demo("--broker=" + option)
    assert status == 2
    assert lines[-1].endswith(
        "must be auto, mosquitto, amqtt or a URI such as mqtt://127.0.0.1:1883"
    )


def test_a_wrong_broker_option_shows_no_password():
    status, lines = run_demo("--broker=mqtts://jo:secret@broker.example")
    assert status == 2 and "'mqtts://broker.example': must be" in lines[-1]
    assert "secret" not in "".join(lines)


def test_the_timeout_ends_it():
    status, lines = run_demo("--no-micropython", "--broker=amqtt", "--timeout=1")
    assert status == 1
    assert lines[-1].startswith("demo: failed: ")
    assert lines[-1].endswith("before --timeout, 1 s, was over")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_everything(tmp_path):
    with start_demo("--no-micropython", "--broker=amqtt") as demo:
        for line in demo.stdout:
            port = re.search(rb"started for this demo on 127.0.0.1, port (\d+)", line)
            if port:
                break
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read().decode()
        assert demo.wait(RUN_TIMEOUT_S) == 130
    assert rest.splitlines()[-1] == "demo: stopped by SIGINT; everything is ended"
    assert "Traceback" not in rest
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", int(port.group(1)))) != 0, "the broker still runs"


# ---------------------------------------------------------------------------
# It can't be deceived
# ---------------------------------------------------------------------------


class Meddler:
    """A TCP relay before a broker that changes one PUBLISH on its way to a client.

    `change` gets the bytes of the packet and answers those to send in its place. That packet is
    the first one that ends with `payload`.
    """

    def __init__(self, broker, payload, change):
        self._broker = (broker.host, broker.port)
        self._payload = payload
        self._change = change
        self.has_changed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = "mqtt://127.0.0.1:%d" % self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._listener.close()  # the connections end with the demo

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(self._broker)
                for ends in ((client, broker, False), (broker, client, True)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source, sink, is_watched):
        with contextlib.suppress(OSError):
            while True:
                data = self._read_packet(source) if is_watched else source.recv(4096)
                if not data:
                    break
                if is_watched and not self.has_changed and data.endswith(self._payload):
                    self.has_changed = True
                    data = self._change(data)
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _read_packet(self, source):
        packet = bytearray()
        length = 0
        # Section 2.2.3: seven bits a byte, the last one below 0x80.
        while len(packet) < 2 or packet[-1] >= 0x80:
            byte = source.recv(1)
            if not byte:
                return b""
            packet += byte
            if len(packet) > 1:
                length += (byte[0] & 0x7F) << 7 * (len(packet) - 2)
        end = len(packet) + length
        while len(packet) < end:
            chunk = source.recv(end - len(packet))
            if not chunk:
                return b""
            packet += chunk
        return bytes(packet)


DECEPTIONS = {
    "lost at QoS 0": (
        b"second round, QoS 0, 7 of 10: 20.7 \xc2\xb0C",
        lambda packet: b"",
        r"did not get 1 of 10 messages at QoS 0 from .*'second round, QoS 0, 7 of 10",
    ),
    "lost at QoS 1": (
        b"second round, QoS 1, 10 of 10: 21.0 \xc2\xb0C",
        lambda packet: b"",
        r"did not get 1 of 10 messages at QoS 1 from .*'second round, QoS 1, 10 of 10",
    ),
    "lost at QoS 1 around a cut": (
        b"QoS 1, 50 of 60: 25.0 \xc2\xb0C",
        lambda packet: b"",
        r"did not get 1 of 60 messages at QoS 1 from .*, QoS 1, 50 of 60",
    ),
    "altered": (
        b"first round, QoS 1, 2 of 10: 20.2 \xc2\xb0C",
        lambda packet: packet[:-1] + b"F",
        r"got 'first round, QoS 1, 2 of 10: 20.2 .F', which nobody sent",
    ),
    "twice at QoS 0": (
        b"first round, QoS 0, 2 of 10: 20.2 \xc2\xb0C",
        lambda packet: packet * 2,
        r"got 1 message twice at QoS 0",
    ),
    "at another QoS": (
        b"first round, QoS 0, 2 of 10: 20.2 \xc2\xb0C",
        lambda packet: packet.replace(b"/qos0", b"/qos1"),
        r"on \S+/qos1 at QoS 0, but it was sent on \S+/qos0 at QoS 0",
    ),
}


@pytest.mark.parametrize("name", DECEPTIONS)
def test_the_demo_fails_if_a_message_is(name, broker):
    payload, change, reason = DECEPTIONS[name]
    with Meddler(broker, payload, change) as meddler:
        status, lines = run_demo("--no-micropython", "--broker=" + meddler.uri)
    assert meddler.has_changed
    assert status == 1
    assert "demo: ok" not in lines
    assert re.match("demo: failed: .*" + reason, lines[-1])


# ---------------------------------------------------------------------------
# Its parts
# ---------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_colors_are_for_terminals_and_not_with_no_color(no_color):
    import pty

    ours, theirs = pty.openpty()
    env = dict(os.environ, NO_COLOR=no_color, TERM="xterm")
    command = [sys.executable, str(DEMO), "--no-micropython"]
    command.append("--broker=mqtt://127.0.0.1:%d" % closed_port())
    subprocess.run(command, stdout=theirs, stderr=theirs, env=env, timeout=RUN_TIMEOUT_S)
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # Linux: EIO, the other end is closed
        while not text.endswith(b"own\r\n"):
            text += os.read(ours, 4096)
    os.close(ours)
    assert (b"\033[" in text) == (not no_color)


def test_the_wire_finds_packets_however_they_are_cut():
    # PINGREQ; PUBLISH with 200 bytes, thus two bytes of length; PUBACK.
    wire = b"\xc0\x00" + b"\x32\xc8\x01" + bytes(200) + b"\x40\x02\x00\x01"
    for size in (1, 2, 3, 7, 100, len(wire)):
        finder = PacketFinder()
        found = []
        for at in range(0, len(wire), size):
            found += finder.feed(wire[at : at + size])
        assert found == [0xC0, 0x32, 0x40], size
