"""The Wi-Fi supervisor in real MicroPython, on the simulated drivers of both ports, in real time.

tests/board/portable/ has its rules, on a driver that does what a test says. Here the driver has a
mind of its own, as the real ones have. The deadlines are shorter than the ports', so that nobody
waits for them; which they are is a test of the ports' files.
"""

import pytest
import virtual_board as virtual
from time_server import TimeServer

import deploy

KIND_OF = {virtual.ESP32: "esp32", virtual.PICO_W: "rp2_pico_w"}
PASSWORD = "the right password"

PROGRAM = """
from time import gmtime, sleep_ms, ticks_diff, ticks_ms
from wifi import Wifi

class Quick(Wifi):
    JOIN_MS = 3_000
    ADDRESS_MS = 1_000
    PAUSE_MS = 600
    REJOIN_MS = 500
    SETTLE_MS = 200

wifi = Quick(%r, %s)
wifi.on_up = lambda wifi: print("up", wifi.number, wifi.address(), wifi.dns_servers(), gmtime()[0])
wifi.on_down = lambda wifi, reason: print("down:", reason)
wifi.start()
longest_ms = 0
while True:
    began_ms = ticks_ms()
    wifi.step()
    took_ms = ticks_diff(ticks_ms(), began_ms)
    if took_ms > longest_ms:
        longest_ms = took_ms
        print("longest", longest_ms)
    sleep_ms(10)
"""


class Bench:
    def __init__(self, board):
        self.board = board
        self.world = board.world
        self._seen = 0

    def wait(self, pattern, timeout_s=15):
        """Wait for the next line like this, after those that were waited for."""
        found = self.board.wait_for_output(pattern, timeout_s, self._seen)
        self._seen += found.end()
        return found

    def radio(self, word):
        return [event[1:] for event in self.board.events("wlan") if event[0] == word]


@pytest.fixture
def start(virtual_board, board_kind):
    """A function that starts the supervisor on a board where these access points are."""
    kind = KIND_OF[board_kind]
    sources = [*(deploy.BOARDS / "common").glob("*.py"), deploy.BOARDS / kind / "wifi.py"]
    files = {path.stem + ".mpy": deploy.compile_file(path) for path in sources}
    # For names of time servers.
    files["mqttpipe.mpy"] = deploy.build.compile_mpy(deploy.build.read_source())

    def make(points, networks=(("home", PASSWORD),), options="", **world):
        # Switched on when its surroundings are there.
        board_world = virtual.World(**world)
        for name, password in points.items():
            board_world.add_network(name, password)
        files["main.py"] = PROGRAM % (list(networks), options)
        return Bench(virtual_board(board_kind, files, world=board_world, heap="96k"))

    return make


def test_it_joins_and_says_where_it_is(start):
    bench = start({"home": PASSWORD})
    bench.wait(r"up 1 192\.168\.4\.20 \['192\.168\.4\.1'\]")
    assert bench.radio("joining") == [("home",)]


def test_an_access_point_that_comes_later_is_joined(start):
    bench = start({})
    bench.wait(r"down: no access point of this name \(network 1\)")
    bench.world.add_network("home", PASSWORD)
    bench.wait("up 1 ")


def test_a_password_that_was_wrong_may_become_right(start):
    bench = start({"home": "another one"})
    bench.wait(r"down: refused: wrong password\? \(network 1\)")
    bench.world["networks"]["home"]["password"] = PASSWORD
    bench.wait("up 1 ")


def test_a_dhcp_server_that_is_silent_does_not_hold_it_for_ever(start):
    bench = start({"home": PASSWORD}, dhcp_ms=None)
    bench.wait(r"down: (joined, but got no address|no answer within the time allowed)")
    bench.world["dhcp_ms"] = 20
    bench.wait("up 1 ")


def test_a_dhcp_server_that_is_slow_is_waited_for(start):
    bench = start({"home": PASSWORD}, dhcp_ms=800)
    bench.wait("up 1 ")
    assert "down" not in bench.board.output


def test_a_link_that_drops_again_and_again_comes_back_each_time(start):
    bench = start({"home": PASSWORD})
    bench.wait("up 1 ")
    for _ in range(2):
        bench.world.switch_off()
        bench.wait("down: the link broke\n")
        bench.world.switch_on()
        bench.wait("up 1 ")


def test_a_link_that_is_gone_for_long_comes_back(start):
    bench = start({"home": PASSWORD})
    bench.wait("up 1 ")
    bench.world.switch_off()
    bench.wait("down: the link broke\n")
    for _ in range(2):
        bench.wait(r"down: .* \(network 1\)")
    bench.world.switch_on()
    bench.wait("up 1 ")


def test_of_two_networks_the_one_that_is_there_is_taken(start):
    bench = start({"shed": PASSWORD}, networks=(("home", PASSWORD), ("shed", PASSWORD)))
    bench.wait("up 2 ")
    bench.world.add_network("home", PASSWORD)
    bench.world.switch_off("shed")
    bench.wait("up 1 ")


def test_a_static_address_is_taken_each_time(start):
    address = ("192.168.4.77", "255.255.255.0", "192.168.4.1", "192.168.4.2")
    bench = start({"home": PASSWORD}, options="address=%r" % (address,), dhcp_ms=None)
    bench.wait(r"up 1 192\.168\.4\.77 \['192\.168\.4\.2'\]")
    bench.world.switch_off()
    bench.wait(r"down: .* \(network 1\)")  # on the Pico W the interface was off since
    bench.world.switch_on()
    bench.wait(r"up 1 192\.168\.4\.77")


def test_a_link_that_stands_is_left_alone_though_nothing_comes_through(start):
    """Whether the server answers is none of its business."""
    bench = start({"home": PASSWORD})
    bench.wait("up 1 ")
    bench.world["networks"]["home"]["deaf"] = True
    with pytest.raises(virtual.BoardTimeout):
        bench.wait("down", timeout_s=2)
    assert bench.radio("joining") == [("home",)]


def test_no_step_waits_for_a_scan_or_a_join_or_an_address(start):
    """In the simulation, where a driver's call takes a message to another process and back."""
    times = dict(scan_ms=1_500, join_ms=1_000, dhcp_ms=700)
    bench = start({}, **times)
    bench.wait("down: ")
    bench.world.add_network("home", PASSWORD)
    bench.wait("up 1 ")
    bench.world.switch_off()
    bench.wait("down: the link broke\n")  # what the step that came up took was printed before
    times_ms = [int(line[8:]) for line in bench.board.output.splitlines() if "longest" in line]
    assert max(times_ms, default=0) < min(times.values()), times_ms


# ---------------------------------------------------------------------------
# The time
# ---------------------------------------------------------------------------


@pytest.fixture
def time_server():
    server = TimeServer(3_996_131_696)  # 19 August 2026
    yield server
    server.close()


def test_the_clock_is_set_before_the_link_counts_as_up(start, time_server):
    bench = start(
        {"home": PASSWORD},
        options="ntp=('192.168.4.9',)",
        routes={("192.168.4.9", 123): time_server.address},
    )
    bench.wait(r"up 1 .* 2026\n")
    assert len(time_server.requests) == 1 and time_server.requests[0][0] == 0x23
