"""The simulated Wi-Fi behaves as the two drivers do, in the virtual board and in CPython.

Each behaviour that a Wi-Fi supervisor has to live with has a test here; board_simulation.py says
where each is from. A program runs piece by piece (consoles.py), and the test changes the world
between the pieces.
"""

import socket
import threading
import time

import pytest
from consoles import BoardFailed, InProcess, RawRepl
from virtual_board import ESP32

PRELUDE = """
import network
try:
    from time import sleep_ms, ticks_diff, ticks_ms
    import select, socket
except ImportError:
    from shim_time import sleep_ms, ticks_diff, ticks_ms
    import shim_select as select, shim_socket as socket

def wait_for(is_so, timeout_ms=5000):
    start_ms = ticks_ms()
    while not is_so():
        assert ticks_diff(ticks_ms(), start_ms) < timeout_ms, wlan.status()
        sleep_ms(1)

wlan = network.WLAN(network.STA_IF)
"""

JOIN = "wlan.active(True)\nwlan.connect('home', 'password1')\n"
BE_UP = JOIN + "wait_for(wlan.isconnected)\n"


@pytest.fixture(params=["virtual", "CPython"])
def console(request, board_kind):
    """A console of a board that hears the network "home"."""
    if request.param == "virtual":
        board = request.getfixturevalue("virtual_board")(board_kind)
        # At the prompt: what is sent before is lost with the board's own first steps.
        board.wait_for_output(">>> ")
        console = RawRepl(board)
    else:
        console = InProcess(board_kind)
    console.world.add_network("home", "password1", rssi=-61)
    # Quicker than by default, so that a test is over sooner. The waits below go by these.
    console.world.update(join_ms=10, dhcp_ms=5, scan_ms=15, beacon_ms=30, esp32_pause_ms=80)
    console.is_esp32 = board_kind == ESP32
    with console:
        console.run(PRELUDE)
        yield console


only_esp32 = pytest.mark.parametrize("board_kind", ["ESP32"], indirect=True)
only_rp2 = pytest.mark.parametrize("board_kind", ["Pico W"], indirect=True)


def status_of(console):
    return int(console.run("print(wlan.status())"))


# ---------------------------------------------------------------------------
# Up
# ---------------------------------------------------------------------------


def test_an_interface_that_was_never_used_is_idle(console):
    idle = "False %d False ('0.0.0.0', '0.0.0.0', '0.0.0.0', '0.0.0.0')\n"
    found = console.run("print(wlan.active(), wlan.status(), wlan.isconnected(), wlan.ifconfig())")
    assert found == idle % (1000 if console.is_esp32 else 0)


def test_connect_joins_and_brings_an_address(console):
    console.run(BE_UP)
    assert status_of(console) == (1010 if console.is_esp32 else 3)
    assert console.run("print(wlan.ifconfig())") == (
        "('192.168.4.20', '255.255.255.0', '192.168.4.1', '192.168.4.1')\n"
    )
    assert console.run("print(wlan.status('rssi'), wlan.config('ssid'))") == "-61 home\n"
    assert console.run("print(wlan.ipconfig('addr4'), wlan.ipconfig('gw4'))") == (
        "('192.168.4.20', '255.255.255.0') 192.168.4.1\n"
    )
    assert console.run("print(network.ipconfig('dns'))") == "192.168.4.1\n"


def test_wlan_is_one_object(console):
    assert console.run("print(network.WLAN() is wlan, network.WLAN(network.STA_IF) is wlan)") == (
        "True True\n"
    )


def test_the_access_point_can_be_switched_off_and_no_more(console):
    console.run("ap = network.WLAN(network.AP_IF)\nap.active(False)")
    assert console.run("print(ap.active(), ap.isconnected())") == "False False\n"
    with pytest.raises(BoardFailed, match="NotImplementedError"):
        console.run("ap.active(True)")
    with pytest.raises(BoardFailed, match="ValueError"):
        console.run("network.WLAN(2)")


def test_active_answers_as_the_port_does(console):
    answers = "True True False\n" if console.is_esp32 else "None True None\n"
    assert console.run("print(wlan.active(True), wlan.active(), wlan.active(False))") == answers


def test_connecting_is_told_from_joined_without_an_address_on_rp2_only(console):
    console.world["dhcp_ms"] = None
    if console.is_esp32:
        console.run(JOIN + "sleep_ms(100)")
        assert status_of(console) == 1001
    else:
        console.world["join_ms"] = 60_000
        console.run(JOIN)
        assert status_of(console) == 1
        console.world["join_ms"] = 10
        console.run("wlan.disconnect()\n" + JOIN + "wait_for(lambda: wlan.status() == 2)")
    assert console.run("print(wlan.isconnected())") == "False\n"
    console.world["dhcp_ms"] = 0
    console.run("wait_for(wlan.isconnected)")


def test_an_open_network_needs_no_password(console):
    console.world.add_network("cafe")
    console.run("wlan.active(True)\nwlan.connect('cafe')\nwait_for(wlan.isconnected)")


def test_a_static_address_is_used_without_dhcp(console):
    console.world["dhcp_ms"] = None
    console.run("wlan.active(True)")
    console.run("wlan.ifconfig(('10.0.0.9', '255.0.0.0', '10.0.0.1', '10.0.0.2'))")
    console.run("wlan.connect('home', 'password1')\nwait_for(wlan.isconnected)")
    assert console.run("print(wlan.ifconfig())") == (
        "('10.0.0.9', '255.0.0.0', '10.0.0.1', '10.0.0.2')\n"
    )


def test_rp2_forgets_a_static_address_with_the_interface(console):
    console.run("wlan.active(True)")
    console.run("wlan.ifconfig(('10.0.0.9', '255.0.0.0', '10.0.0.1', '10.0.0.2'))")
    console.run("wlan.active(False)\n" + BE_UP)
    expected = "10.0.0.9\n" if console.is_esp32 else "192.168.4.20\n"
    assert console.run("print(wlan.ifconfig()[0])") == expected


def test_scan_lists_what_is_heard_strongest_first(console):
    console.world.add_network("far", "password2", rssi=-80)
    console.world.add_network("off", "password2", present=False)
    console.run("wlan.active(True)\nfound = wlan.scan()")
    names = console.run("print([(f[0], f[3]) for f in found], len(found[0]))")
    assert names == "[(b'home', -61), (b'far', -80)] 6\n"


# ---------------------------------------------------------------------------
# Not up
# ---------------------------------------------------------------------------


def test_connect_before_active_is_an_error(console):
    with pytest.raises(BoardFailed, match="Wifi Not Started" if console.is_esp32 else "EPERM|1"):
        console.run("wlan.connect('home', 'password1')")


def test_a_wrong_password_has_its_status(console):
    console.run("wlan.active(True)\nwlan.connect('home', 'guess')")
    status = 202 if console.is_esp32 else -3
    console.run("wait_for(lambda: wlan.status() == %d)" % status)


def test_a_network_that_is_not_there_has_its_status(console):
    console.run("wlan.active(True)\nwlan.connect('nowhere', 'password1')")
    status = 201 if console.is_esp32 else -2
    console.run("wait_for(lambda: wlan.status() == %d)" % status)


def test_a_signal_that_is_too_weak_is_no_network(console):
    console.world.add_network("far", "password1", rssi=-96)
    console.run("wlan.active(True)\nwlan.connect('far', 'password1')")
    status = 201 if console.is_esp32 else -2
    console.run("wait_for(lambda: wlan.status() == %d)" % status)


def test_an_access_point_may_refuse(console):
    console.world.add_network("full", "password1", refuses=True)
    console.run("wlan.active(True)\nwlan.connect('full', 'password1')")
    if console.is_esp32:  # the driver tries on, and says so; 203 only when it has given up
        console.run("wlan.disconnect()\nwlan.config(reconnects=0)\nsleep_ms(120)")
        console.run("wlan.connect('full', 'password1')")
    status = 203 if console.is_esp32 else -1
    console.run("wait_for(lambda: wlan.status() == %d)" % status)


def test_esp32_tries_by_itself_until_the_network_is_there(console):
    console.world.switch_off()
    console.run(JOIN + "wait_for(lambda: wlan.status() < 0 or wlan.status() == 201)")
    console.world.switch_on()
    if console.is_esp32:
        console.run("wait_for(wlan.isconnected)")
    else:
        console.run("sleep_ms(80)")
        assert status_of(console) == -2  # rp2 has tried once
        console.run("wlan.connect('home', 'password1')\nwait_for(wlan.isconnected)")


def test_esp32_stops_after_as_many_reconnects_as_it_was_given(console):
    if not console.is_esp32:
        with pytest.raises(BoardFailed, match="ValueError"):
            console.run("wlan.config(reconnects=2)")
        return
    console.world["scan_ms"] = 5
    console.world.switch_off()
    console.run("wlan.config(reconnects=2)\n" + JOIN)

    def attempts():
        return sum(event[0] == "failed" for event in console.events("wlan"))

    deadline_s = time.monotonic() + 10
    while attempts() < 3:
        assert time.monotonic() < deadline_s, console.events("wlan")
        time.sleep(0.005)
    console.run("sleep_ms(80)")
    assert attempts() == 3 and console.events("wlan")[-1][0] == "failed"
    assert console.run("print(wlan.config('reconnects'))") == "2\n"


@only_esp32
def test_esp32_tells_of_the_last_failure_until_there_is_an_address(console):
    console.run("wlan.active(True)\nwlan.connect('nowhere', 'password1')")
    console.run("wait_for(lambda: wlan.status() == 201)\nwlan.disconnect()")
    assert status_of(console) == 1000
    console.world["dhcp_ms"] = None
    console.world.switch_off()
    console.run("sleep_ms(120)\nwlan.connect('home', 'password1')")
    console.run("wait_for(lambda: wlan.status() == 201)")
    console.world.switch_on()
    console.run("sleep_ms(100)")
    assert console.events("wlan")[-1] == ("joined", "home")
    assert status_of(console) == 201  # all the same


@only_esp32
def test_esp32_refuses_connect_while_the_driver_tries(console):
    console.world.switch_off()
    console.run(JOIN + "wait_for(lambda: wlan.status() == 201)")
    with pytest.raises(BoardFailed, match="OSError: Wifi Internal Error"):
        console.run("wlan.connect('home', 'password1')")


@only_esp32
def test_esp32_gets_stuck_at_202_when_connect_comes_too_early(console):
    console.world["esp32_pause_ms"] = 60_000
    console.run(BE_UP + "wlan.disconnect()\nwlan.connect('home', 'password1')\nsleep_ms(80)")
    assert status_of(console) == 202
    console.world["esp32_pause_ms"] = 20
    console.run("wlan.disconnect()\nsleep_ms(40)\nwlan.connect('home', 'password1')")
    console.run("wait_for(wlan.isconnected)")


@only_rp2
def test_rp2_needs_its_interface_restarted_after_a_wrong_password(console):
    console.run("wlan.active(True)\nwlan.connect('home', 'guess')")
    console.run("wait_for(lambda: wlan.status() == -3)")
    console.run("wlan.connect('home', 'password1')\nsleep_ms(150)")
    assert status_of(console) == 1
    console.run("wlan.disconnect()\nwlan.active(False)\n" + BE_UP)


def test_disconnect_ends_the_link_and_keeps_the_driver_quiet(console):
    console.run(BE_UP + "wlan.disconnect()")
    assert status_of(console) == (1000 if console.is_esp32 else 0)
    console.run("sleep_ms(150)")
    assert console.run("print(wlan.isconnected())") == "False\n"


# ---------------------------------------------------------------------------
# Lost
# ---------------------------------------------------------------------------


def test_an_access_point_that_vanishes_is_missed_after_some_beacons(console):
    console.world["beacon_ms"] = 60_000
    console.run(BE_UP)
    console.world.switch_off()
    console.sync()
    assert console.run("print(wlan.isconnected())") == "True\n"
    console.world["beacon_ms"] = 30
    console.run("wait_for(lambda: not wlan.isconnected())")
    if console.is_esp32:
        console.run("wait_for(lambda: wlan.status() == 201)")
    else:
        console.run("sleep_ms(150)")
        assert status_of(console) == 1  # as if it were joining, for ever


def test_esp32_comes_back_by_itself_and_rp2_after_a_restart_of_its_interface(console):
    console.run(BE_UP)
    console.world.switch_off()
    console.run("wait_for(lambda: not wlan.isconnected())")
    console.world.switch_on()
    if not console.is_esp32:
        console.run("sleep_ms(150)")
        assert status_of(console) == 1
        console.run("wlan.connect('home', 'password1')\nsleep_ms(150)")
        assert status_of(console) == 1
        console.run("wlan.active(False)\n" + JOIN)
    console.run("wait_for(wlan.isconnected)")


@only_rp2
def test_rp2_without_that_whim_needs_connect_alone(console):
    console.world["rp2_needs_restart"] = False
    console.run(BE_UP)
    console.world.switch_off()
    console.run("wait_for(lambda: not wlan.isconnected())")
    console.world.switch_on()
    console.run("wlan.connect('home', 'password1')\nwait_for(wlan.isconnected)")


@only_rp2
def test_rp2_may_come_back_by_itself(console):
    console.world["rp2_rejoins"] = True
    console.run(BE_UP)
    console.world.switch_off()
    console.run("wait_for(lambda: not wlan.isconnected())")
    console.run("sleep_ms(80)")
    assert status_of(console) == 1
    console.world.switch_on()
    console.run("wait_for(wlan.isconnected)")


def test_a_right_password_may_be_called_wrong_at_first(console):
    console.world["networks"]["home"]["doubts"] = 1
    console.world["rp2_needs_restart"] = False
    console.run(JOIN)
    if not console.is_esp32:  # whose driver tries again by itself, at once
        console.run("wait_for(lambda: wlan.status() == -3)")
        console.run("wlan.connect('home', 'password1')")
    console.run("wait_for(wlan.isconnected)")
    assert ("failed", "wrong password") in console.events("wlan")


def test_switching_the_interface_off_drops_the_link(console):
    console.run(BE_UP + "wlan.active(False)")
    expected = "False %d 0.0.0.0\n" % (1000 if console.is_esp32 else 0)
    assert console.run("print(wlan.isconnected(), wlan.status(), wlan.ifconfig()[0])") == expected


def test_rssi_without_a_link_is_an_error_on_esp32_and_rubbish_on_rp2(console):
    console.run("wlan.active(True)")
    if console.is_esp32:
        with pytest.raises(BoardFailed, match="OSError: Wifi Not Connected"):
            console.run("wlan.status('rssi')")
    else:
        assert console.run("print(wlan.status('rssi'))") == "0\n"


# ---------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------


def test_settings_are_kept_and_unknown_ones_refused(console):
    console.run("wlan.config(pm=0)\nwlan.config(hostname='shed')")
    assert console.run("print(wlan.config('pm'), network.hostname())") == "0 shed\n"
    for program in ("wlan.config(power=1)", "wlan.config('power')"):
        with pytest.raises(BoardFailed, match="ValueError: unknown config param"):
            console.run(program)
    with pytest.raises(BoardFailed, match="ValueError"):
        console.run("wlan.status('power')")
    with pytest.raises(BoardFailed, match="ValueError"):
        console.run("network.hostname('x' * 33)")
    with pytest.raises(BoardFailed, match="ValueError"):
        console.run("network.country('CHE')")
    console.run("network.country('CH')")
    assert console.run("print(network.country(), len(wlan.config('mac')))") == "CH 6\n"


def test_the_passwords_are_not_in_the_log(console):
    console.run(BE_UP)
    assert console.events("wlan") and "password1" not in repr(console.events("wlan"))


# ---------------------------------------------------------------------------
# Sockets
# ---------------------------------------------------------------------------


class EchoServer:
    """Sends back what it gets, on a free port of loopback."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.received = b""
        self._accepted = []
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def _run(self):
        try:
            while True:
                sock = self._listener.accept()[0]
                self._accepted.append(sock)
                while True:
                    data = sock.recv(4096)
                    if not data:
                        break
                    self.received += data
                    sock.sendall(data)
        except OSError:
            pass  # the end of the test

    def __exit__(self, *_):
        for sock in [self._listener, *self._accepted]:
            sock.close()


@pytest.fixture
def echo():
    with EchoServer() as server:
        yield server


CONNECT = """
def connect(host, port):
    address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0][-1]
    sock = socket.socket()
    sock.setblocking(False)
    try:
        sock.connect(address)
    except OSError as error:
        if error.errno not in (115, 119):
            raise
    poller = select.poll()
    poller.register(sock, 5)
    wait_for(lambda: any(event & 4 for _, event in poller.poll(1)))
    return sock

def read(length):
    got = []
    def look():
        data = sock.read(length)
        if data:
            got.append(data)
        return b"".join(got) and len(b"".join(got)) >= length
    wait_for(look)
    return b"".join(got)
"""


def test_a_connection_passes_bytes_while_the_link_is_up(console, echo):
    console.run(BE_UP + CONNECT + "sock = connect(%r, %d)" % echo.address)
    assert console.run("print(sock.write(b'xhello', 1, 5), read(5))") == "5 b'hello'\n"
    console.run("sock.close()")


def test_connect_without_a_link_is_unreachable(console, echo):
    console.run("wlan.active(True)\nsock = socket.socket()")
    console.run("address = socket.getaddrinfo(%r, %d)[0][-1]" % echo.address)
    with pytest.raises(BoardFailed, match="EHOSTUNREACH|113"):
        console.run("sock.connect(address)")
    console.run("sock.close()")


def test_a_connection_falls_silent_with_the_link_and_goes_on_after_it(console, echo):
    console.world["esp32_pause_ms"] = 0
    console.world["rp2_needs_restart"] = False
    console.run(BE_UP + CONNECT + "sock = connect(%r, %d)" % echo.address)
    console.run("sock.write(b'one')\nread(3)")
    console.world.switch_off()
    console.run("wait_for(lambda: not wlan.isconnected())")
    assert console.run("print(sock.read(3), sock.write(b'two'))") == "None 3\n"
    # The send buffer of a board is full some time, and then a poll says so.
    console.run("while sock.write(b'x' * 1000):\n    pass")
    assert console.run(
        "poller = select.poll()\npoller.register(sock, 5)\nprint(poller.poll(20))"
    ) == ("[]\n")
    assert echo.received == b"one"
    console.world.switch_on()
    if not console.is_esp32:
        console.run("wlan.connect('home', 'password1')")
    console.run("wait_for(wlan.isconnected)")
    assert console.run("print(read(3))") == "b'two'\n"
    console.run("sock.close()")


def test_a_deaf_network_keeps_the_link_and_passes_nothing(console, echo):
    console.run(BE_UP + CONNECT + "sock = connect(%r, %d)" % echo.address)
    console.world["networks"]["home"]["deaf"] = True
    console.sync()
    console.run("sock.write(b'one')\nsleep_ms(50)")
    assert console.run("print(wlan.isconnected(), sock.read(3))") == "True None\n"
    console.world["networks"]["home"]["deaf"] = False
    assert console.run("print(read(3))") == "b'one'\n"
    console.run("sock.close()")


def test_switching_the_interface_off_aborts_connections(console, echo):
    console.run(BE_UP + CONNECT + "sock = connect(%r, %d)" % echo.address)
    console.run("wlan.active(False)\nsleep_ms(20)")
    assert console.run(
        "poller = select.poll()\npoller.register(sock, 1)\nprint(poller.poll(20)[0][1] & 24)"
    ) == ("24\n")
    with pytest.raises(BoardFailed, match="ECONNABORTED|103"):
        console.run("sock.write(b'one')")
    console.run("sock.close()")


def test_another_address_aborts_connections(console, echo):
    console.world["rp2_needs_restart"] = False
    console.run(BE_UP + CONNECT + "sock = connect(%r, %d)" % echo.address)
    console.world.switch_off()
    console.run("wait_for(lambda: not wlan.isconnected())")
    console.world["lease"] = ("192.168.4.21",) + console.world["lease"][1:]
    console.world.switch_on()
    if not console.is_esp32:
        console.run("wlan.connect('home', 'password1')")
    console.run("wait_for(wlan.isconnected)\nsleep_ms(20)")
    with pytest.raises(BoardFailed, match="ECONNABORTED|103"):
        console.run("sock.write(b'one')")
    console.run("sock.close()")


def test_a_connection_with_bytes_to_send_is_given_up_at_last(console, echo):
    console.world["tcp_give_up_ms"] = 100
    console.run(BE_UP + CONNECT + "sock = connect(%r, %d)" % echo.address)
    console.world.switch_off()
    console.run("wait_for(lambda: not wlan.isconnected())\nsock.write(b'one')\nsleep_ms(150)")
    with pytest.raises(BoardFailed, match="ECONNABORTED|103"):
        console.run("sock.read(1)")
    console.run("sock.close()")


def test_names_and_addresses_lead_where_the_world_says(console, echo):
    console.world["hosts"]["broker.lan"] = "192.168.4.2"
    console.world["routes"]["192.168.4.2", 1883] = echo.address
    console.run(BE_UP + CONNECT + "sock = connect('broker.lan', 1883)\nsock.write(b'one')")
    assert console.run("print(read(3))") == "b'one'\n"
    console.run("sock.close()")


def test_datagrams_pass_with_the_link_and_are_refused_without(console):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        console.world["routes"]["192.168.4.1", 53] = server.getsockname()
        console.run("sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
        console.run("address = socket.getaddrinfo('192.168.4.1', 53, 0, socket.SOCK_DGRAM)[0][-1]")
        with pytest.raises(BoardFailed, match="EHOSTUNREACH|113"):
            console.run("sock.sendto(b'ask', address)")
        console.run(BE_UP + "sock.setblocking(False)\nsock.connect(address)\nsock.write(b'ask')")
        question, asker = server.recvfrom(100)
        server.sendto(b"answer", asker)
        console.run(
            "poller = select.poll()\npoller.register(sock, 1)\nwait_for(lambda: poller.poll(1))"
        )
        assert (question, console.run("print(sock.recv(100))")) == (b"ask", "b'answer'\n")
        console.run("sock.close()")


@only_esp32
def test_names_without_a_link_fail_on_esp32(console):
    # On rp2 they wait for ever: test_virtual_board.py has that, with a Ctrl-C.
    with pytest.raises(BoardFailed, match="-202"):
        console.run("socket.getaddrinfo('broker.lan', 1883)")


# ---------------------------------------------------------------------------
# The clock
# ---------------------------------------------------------------------------


def test_ntptime_sets_the_clock(console):
    console.world["ntp"] = 1_750_000_000  # 15 June 2025, 15:06:40
    console.run("import machine, ntptime")
    assert console.run("print(machine.RTC().datetime()[0])") == (
        "2000\n" if console.is_esp32 else "2021\n"
    )
    with pytest.raises(BoardFailed, match="OSError"):
        console.run("ntptime.settime()")  # no link
    console.run(BE_UP + "ntptime.settime()")
    assert console.run("print(machine.RTC().datetime()[:6])") == "(2025, 6, 15, 6, 15, 6)\n"
    console.world["ntp"] = False
    with pytest.raises(BoardFailed, match="ETIMEDOUT|110"):
        console.run("ntptime.timeout = 0\nntptime.settime()")


def test_the_clock_can_be_set(console):
    console.run("import machine\nmachine.RTC().datetime((2024, 2, 29, 3, 23, 59, 57, 0))")
    assert console.run("print(machine.RTC().datetime()[:6])") == "(2024, 2, 29, 3, 23, 59)\n"
