"""What the main.py of every board does: join the Wi-Fi, go to the server, tell how the board is.

    import secrets, service
    service.run(secrets, begin, work, led=LED)

It prints what happens, in lines that tools/deploy.py reads: `wifi: up`, `wifi: down: REASON`,
`clock: ...`, `mqtt: online`, `mqtt: offline: REASON`. Nothing of secrets.py is in them but for the
server's name.
"""

import gc

# What is loaded lies between what loading throws away. Without this the largest free piece of a
# heap of 184 KiB is then 18 KB at worst, and TLS needs 17 KB in one piece twice, on ports where it
# takes them from there.
_GARBAGE_MAX = 16_384
if hasattr(gc, "threshold"):
    _threshold = gc.threshold()
    gc.threshold(_GARBAGE_MAX)

from station import Station  # noqa: E402
from wifi import Wifi  # noqa: E402

from mqttpipe import MQTTClient, QueueFull  # noqa: E402

if hasattr(gc, "threshold"):
    gc.threshold(_threshold)

try:
    from time import gmtime, ticks_add, ticks_diff, ticks_ms

    from micropython import const
except ImportError:  # CPython, with the simulated board of cpython_shim/
    from shim_micropython import const
    from shim_time import gmtime, ticks_add, ticks_diff, ticks_ms

_ROUND_MS = const(100)
_UPTIME_EVERY_MS = const(60_000)
_YEAR_MIN = const(2024)  # a clock that is behind was never set


class _Settings:
    """secrets.py, with None for what it does not say."""

    def __init__(self, secrets):
        self._secrets = secrets

    def __getattr__(self, name):
        return getattr(self._secrets, name, None)


def _publish(client, topic, name, value, qos=0, retain=False):
    """Publish if there is room beside what the program has queued; tell whether there was."""
    try:
        client.publish(topic + name, str(value), qos, retain)
        return True
    except QueueFull:
        return False
    except MemoryError:  # not one tuple of both: that would take memory
        return False


def run(
    secrets,
    begin=None,
    work=None,
    led=None,
    led_on: int = 1,
    watchdog_s: int = 0,
    reset_after_s: int = 0,
) -> None:
    """Keep a board in service, for ever.

    Args:
        secrets: the module, with WIFI, SERVER and NAME; what else secrets_example.py has may be
            missing.
        begin: begin(client) is called once, before the client connects: the place to subscribe.
        work: work(client) is called about ten times a second. It must not wait.
        led, led_on, watchdog_s, reset_after_s: see Station.

    Raises: what begin() and work() raise, and ValueError or LocalError for a wrong setting.
    """
    secrets = _Settings(secrets)
    topic = "boards/%s/" % secrets.NAME
    wifi = Wifi(
        secrets.WIFI,
        address=secrets.ADDRESS,
        country=secrets.COUNTRY,
        hostname=secrets.NAME,
        ntp=secrets.NTP or (),
    )
    client = MQTTClient(
        secrets.SERVER,
        client_id=secrets.CLIENT_ID,
        user=secrets.USER,
        password=secrets.PASSWORD,
        ca=secrets.CA,
        cert=secrets.CERT,
        key=secrets.KEY,
        tls=secrets.TLS,
        will=(topic + "status", "offline", 1, True),
        link=wifi,
    )

    is_status_due = False

    def on_wifi_up(wifi):
        print("wifi: up, %s, %s dBm" % (wifi.address(), wifi.signal_dbm))
        if secrets.NTP and gmtime()[0] < _YEAR_MIN:
            print("clock: not set: no time server of NTP has answered")

    def on_online(client):
        nonlocal is_status_due
        print("mqtt: online")
        is_status_due = True

    wifi.on_up = on_wifi_up
    wifi.on_down = lambda wifi, reason: print("wifi: down: %s" % reason)
    client.on_online = on_online
    client.on_offline = lambda client, error: print("mqtt: offline: %s" % error)
    if begin is not None:
        begin(client)
    station = Station(client, wifi, led, led_on, watchdog_s, reset_after_s)
    wifi.start()
    client.connect()
    uptime_s = 0
    due_ms = ticks_add(ticks_ms(), _UPTIME_EVERY_MS)
    was_asking = False
    while True:
        station.step(_ROUND_MS)
        if is_status_due and client.is_online():
            is_status_due = not _publish(client, topic, "status", "online", 1, True)
        if work is not None:
            work(client)
        is_asking = wifi.state_name == "CLOCK"
        if is_asking and not was_asking:
            print("clock: asking the time servers (NTP)")
        was_asking = is_asking
        if ticks_diff(ticks_ms(), due_ms) >= 0:
            due_ms = ticks_add(due_ms, _UPTIME_EVERY_MS)
            uptime_s += _UPTIME_EVERY_MS // 1000
            if client.is_online():
                _publish(client, topic, "uptime", uptime_s)
