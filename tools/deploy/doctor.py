"""Runs on the board, for tools/deploy.py --doctor: look at the way to the server, and report.

Each line is `+ subject: text` (well), `- subject: text` (not well) or `  subject: text` (for
information). Nothing is changed on the board, but for the connections that it makes. Nothing of
secrets.py is printed; the client's errors name the server.
"""

import gc
import sys
from time import gmtime, sleep_ms, ticks_add, ticks_diff, ticks_ms

WIFI_TIMEOUT_MS = 45_000
BROKER_TIMEOUT_MS = 30_000
BEAT_MS = 4_000  # a sign of life for the one who waits
YEAR_MIN = 2024
# Below this packets begin to be lost, by what networks are planned for; not measured here.
WEAK_DBM = -80


def feed():
    station = sys.modules.get("station")
    if station is not None:
        station.feed()


def wait(is_done, step, timeout_ms):
    """Call step() until is_done(); True if that came in time."""
    deadline_ms = ticks_add(ticks_ms(), timeout_ms)
    beat_ms = ticks_add(ticks_ms(), BEAT_MS)
    while not is_done():
        now_ms = ticks_ms()
        if ticks_diff(deadline_ms, now_ms) <= 0:
            return False
        if ticks_diff(beat_ms, now_ms) <= 0:
            beat_ms = ticks_add(now_ms, BEAT_MS)
            print("...")
        step()
        feed()
        sleep_ms(10)
    return True


def load(name):
    """Import a module of the board; report why not, and return None."""
    gc.collect()
    try:
        return __import__(name)
    except ImportError:
        print("- board: %s is not on it: deploy first" % name)
    except MemoryError:
        print("- board: not enough memory to load %s" % name)
    except Exception as error:  # secrets.py is a person's: whatever is in it
        print("- board: %s can not be loaded: %s" % (name, type(error).__name__))


class Link:
    """The link as it is, for a board that is on its Wi-Fi already."""

    def __init__(self, wlan):
        self.wlan = wlan

    def is_up(self):
        return self.wlan.isconnected()

    def step(self):
        pass

    def stop(self):
        pass


def look_at_wifi(network, secrets):
    """Report the Wi-Fi, joining it if need be; return a link, or None."""
    wlan = network.WLAN(network.STA_IF)
    if wlan.active() and wlan.isconnected():
        link = Link(wlan)
    else:
        wifi = load("wifi")
        if wifi is None:
            return None
        try:
            link = wifi.Wifi(
                secrets.WIFI,
                getattr(secrets, "ADDRESS", None),
                getattr(secrets, "COUNTRY", None),
                ntp=getattr(secrets, "NTP", ()),
            )
        except Exception as error:
            print("- Wi-Fi: secrets.py: %s" % error)
            return None
        reasons = []
        link.on_down = lambda link, reason: reasons.append(reason)
        count = 1 if isinstance(secrets.WIFI[0], str) else len(secrets.WIFI)
        link.start()
        wait(lambda: link.is_up() or len(reasons) == count, link.step, WIFI_TIMEOUT_MS)
        if not link.is_up():
            for reason in reasons or [link.state_name]:
                print("- Wi-Fi: not joined: %s" % reason)
            link.stop()
            return None
    try:
        rssi = wlan.status("rssi")
        signal = "%d dBm%s" % (rssi, ", which is weak" if rssi < WEAK_DBM else "")
    except Exception:
        signal = "signal not told"
    address = wlan.ifconfig()
    print("+ Wi-Fi: joined, %s, address %s" % (signal, address[0]))
    is_dns = address[3] != "0.0.0.0"
    print("%s DNS: server %s" % ("+" if is_dns else "-", address[3]))
    return link


def look_at_clock(secrets):
    now = gmtime()
    text = "%d-%02d-%02d %02d:%02d UTC" % now[:5]
    servers = str(secrets.SERVER).lower()
    is_tls = "mqtts://" in servers or "ssl://" in servers
    if now[0] >= YEAR_MIN:
        print("+ clock: " + text)
    elif is_tls and getattr(secrets, "TLS", None) != "insecure":
        print("- clock: %s: never set, so that no certificate is valid: see NTP" % text)
    else:
        what = 'TLS = "insecure"' if is_tls else "mqtt://"
        print("  clock: %s: never set; %s does without" % (text, what))


def make_client(mqttpipe, link, secrets, uri):
    # The program's own identifier, if it has one: a server may take no other from this user. What
    # the server keeps for it stays there. Else the client's, and one letter more: as the program
    # itself we would throw out what it left, and be thrown out.
    client_id = getattr(secrets, "CLIENT_ID", None)
    client = mqttpipe.MQTTClient(
        uri,
        client_id=client_id,
        user=getattr(secrets, "USER", None),
        password=getattr(secrets, "PASSWORD", None),
        clean_session=not client_id,
        ca=getattr(secrets, "CA", None),
        cert=getattr(secrets, "CERT", None),
        key=getattr(secrets, "KEY", None),
        tls=getattr(secrets, "TLS", None),
        link=link,
    )
    if client_id is None:
        client.client_id += b"d"
    return client


def why_not(client, where):
    """Connect; return why the server does not accept us, or None, and say so, if it does."""
    errors = []
    accepted_ms = []
    resolved_ms = []
    began_ms = ticks_ms()

    def on_connect(client, session_present):
        accepted_ms.append(ticks_diff(ticks_ms(), began_ms))

    def step():
        state = client.state_name
        client.link.step()
        client.step(20)
        if state == "RESOLVING" and client.state_name == "TCP_CONNECTING":
            resolved_ms.append(ticks_diff(ticks_ms(), began_ms))

    client.on_connect = on_connect
    client.on_offline = lambda client, error: errors.append(error)
    client.connect()
    wait(lambda: accepted_ms or errors, step, BROKER_TIMEOUT_MS)
    took_ms = ticks_diff(ticks_ms(), began_ms)
    # A kept session may have messages for the program. In a disconnect() in good order they would
    # be acknowledged here, so no step follows: the connection ends with the client.
    if client.clean_session:
        client.disconnect()
        wait(lambda: client.state_name == "DOWN", step, 3_000)
    if resolved_ms:
        print("+ DNS: the server's name was resolved in %d ms" % resolved_ms[0])
    if accepted_ms:
        print("+ broker: accepted us in %d ms%s" % (accepted_ms[0], where))
        return None
    error = str(errors[0]) if errors else "no answer in %d s" % (took_ms // 1000)
    return error if where in error else error + where


def look_at_broker(link, secrets):
    mqttpipe = load("mqttpipe")
    if mqttpipe is None:
        return
    try:
        make_client(mqttpipe, link, secrets, secrets.SERVER)
    except Exception as error:
        print("- broker: secrets.py: %s" % error)
        return
    uris = secrets.SERVER
    if isinstance(uris, str):
        uris = [uris]
    reasons = []
    for uri in uris:
        where = ", %s port %d" % mqttpipe.parse_uri(uri)[:2] if len(uris) > 1 else ""
        gc.collect()  # the client before this one
        reasons.append(why_not(make_client(mqttpipe, link, secrets, uri), where))
    # One of several is enough: the program goes on to it by itself.
    mark = " " if None in reasons else "-"
    for reason in reasons:
        if reason is not None:
            print("%s broker: %s" % (mark, reason))


def main():
    try:
        import network
    except ImportError:
        print("- Wi-Fi: this firmware has none")
        return
    secrets = load("secrets")
    if secrets is None:
        return
    link = look_at_wifi(network, secrets)
    look_at_clock(secrets)
    if link is not None:
        look_at_broker(link, secrets)


main()
