"""The board files and the client in CPython, on a simulated board, with a real broker.

The same files as on a board (boards/, micropython/), the same simulation as in the virtual board,
and a debugger or coverage would work: cpython_shim/board/simulated_board.py.
"""

import contextlib
import gc
import os
import sys
import threading
import time
import types

import pytest
from consoles import ROOT, InProcess
from peers import Peer
from virtual_board import ESP32, PICO_W

WAIT_S = 20

FOLDERS = {ESP32: "esp32", PICO_W: "rp2_pico_w"}


@pytest.fixture
def console(board_kind, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "boards" / "common"))
    monkeypatch.syspath_prepend(str(ROOT / "boards" / FOLDERS[board_kind]))
    # The client asks for a `network` at its import. Another test's has found none.
    for name in ("mqttpipe", "shim_board", "wifi", "wifi_core", "station", "service"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with InProcess(board_kind) as console:
        console.world.add_network("home", "password1", rssi=-70)
        yield console


def step_until(is_so, *steps):
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s
        for step in steps:
            step()
        time.sleep(0.002)


def test_wifi_and_client_go_online_and_come_back(console, broker, board_kind):
    from wifi import Wifi

    from mqttpipe import WLAN, MQTTClient

    assert WLAN is not None, "the client has not seen the simulated network"
    console.world["routes"]["192.168.4.2", 1883] = (broker.host, broker.port)
    wifi = Wifi(("home", "password1"), hostname="shed", country="CH")
    wifi.PAUSE_MS = wifi.REJOIN_MS = 100
    console.world["esp32_pause_ms"] = 50
    client = MQTTClient("mqtt://192.168.4.2", client_id="in-process", link=wifi)
    client.reconnect_min_ms = 50
    heard = []
    client.subscribe("in-process/#", lambda _, message: heard.append(message.payload), qos=1)
    wifi.start()
    client.connect()
    steps = (wifi.step, client.step)
    step_until(client.is_online, *steps)
    assert wifi.signal_dbm == -70 and console.events("hostname") == [("shed",)]

    console.world.switch_off()
    step_until(lambda: not wifi.is_up() and not client.is_online(), *steps)
    console.world.switch_on()
    step_until(client.is_online, *steps)
    client.publish("in-process/word", b"back again", qos=1)
    step_until(lambda: heard, *steps)
    assert heard == [b"back again"] and wifi.is_up()

    # The server's absence is no fault of the Wi-Fi: that stays as it is.
    events = console.events("wlan")
    broker.restart()
    step_until(lambda: not client.is_online(), *steps)
    step_until(client.is_online, *steps)
    assert console.events("wlan") == events
    client.disconnect()
    step_until(lambda: client.state_name == "DOWN", *steps)


def test_a_wrong_password_is_told_and_mended(console):
    from wifi import Wifi

    console.world["esp32_pause_ms"] = 50
    wifi = Wifi([("home", "password2"), ("home", "password1")])
    wifi.PAUSE_MS = 100
    wifi.SETTLE_MS = 0
    reasons = []
    wifi.on_down = lambda _, reason: reasons.append(reason)
    wifi.start()
    step_until(wifi.is_up, wifi.step)
    assert "password" in reasons[0] and "password2" not in repr(reasons)


def test_the_main_program_runs_here_as_on_a_board(console, broker, board_kind, monkeypatch, capfd):
    """From the safe-boot window to the answer to a command; then the reset line is pulled."""
    import board_bus

    secrets = types.ModuleType("secrets")
    secrets.WIFI = [("home", "password1")]
    secrets.SERVER = "mqtt://192.168.4.2"
    secrets.NAME = "in-process"

    # What else secrets_example.py has may be missing.
    monkeypatch.setitem(sys.modules, "secrets", secrets)
    console.world["routes"]["192.168.4.2", 1883] = (broker.host, broker.port)
    nobody_types, keyboard = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(nobody_types))
    text = (ROOT / "boards" / FOLDERS[board_kind] / "main.py").read_text()
    for old, new in (("SAFE_BOOT_S = 2", "SAFE_BOOT_S = 0"), ("WATCHDOG_S = 0", "WATCHDOG_S = 5")):
        assert old in text
        text = text.replace(old, new)
    peer = Peer(broker, "in-process")
    troubles = []

    def talk():
        try:
            peer.wait_for("boards/in-process/status", "online")
            peer.ask("hello")
        except BaseException as error:
            troubles.append(error)
        board_bus.on_reset(1)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        with pytest.raises(board_bus.BoardReset):
            exec(compile(text, "main.py", "exec"), {"__name__": "__main__"})
    finally:
        gc.collect()  # a client that is in the middle of its life closes its socket with this
        thread.join(2 * WAIT_S)
        peer.close()
        sys.stdin.close()
        os.close(keyboard)
    assert troubles == []
    printed = capfd.readouterr().out
    assert "wifi: up, 192.168.4.20, -70 dBm" in printed and "mqtt: online" in printed
    assert console.events("watchdog started") == [(5000,)] and console.events("pin")


def test_a_full_queue_keeps_neither_the_board_nor_its_status_back(console, broker, monkeypatch):
    """What begin() and work() publish fills the queue: no status is lost, and nothing raises."""
    import service

    from mqttpipe import QueueFull

    secrets = types.SimpleNamespace(
        WIFI=[("home", "password1")], SERVER="mqtt://192.168.4.2", NAME="full-queue"
    )
    console.world["routes"]["192.168.4.2", 1883] = (broker.host, broker.port)
    monkeypatch.setattr(service, "_UPTIME_EVERY_MS", 1)

    class Done(Exception):
        pass

    def fill(client):
        with contextlib.suppress(QueueFull):
            while True:
                client.publish("full-queue/filler", "x", qos=1)

    rounds = []
    deadline_s = time.monotonic() + 60

    def work(client):
        fill(client)
        rounds.append(client.is_online())
        if sum(rounds) > 20 and ("boards/full-queue/status", "online") in peer.heard:
            raise Done
        assert time.monotonic() < deadline_s, (peer.heard, len(rounds))

    peer = Peer(broker, "full-queue")
    try:
        with pytest.raises(Done):
            service.run(secrets, fill, work)
    finally:
        peer.client.publish("boards/full-queue/status", "", retain=True).wait_for_publish(WAIT_S)
        peer.close()
        gc.collect()
