"""Runs on a blank board, for tools/deploy.py --doctor: try what secrets.py says, and report.

With nothing but the firmware: join the Wi-Fi, ask for the time and the server's name, connect, do
TLS, log in. No file is made. It waits where the client would not, as nothing else is to be done.

The lines are those of doctor.py. Before this stand `SECRETS`, the text of secrets.py; `FILES`, a
dict: setting -> the certificates or the key that it stands for, a list of bytes, DER; and
`REASONS`, what the numbers of the Wi-Fi's status mean.
"""

import gc
import socket
from errno import EAGAIN
from time import gmtime, sleep_ms, ticks_add, ticks_diff, ticks_ms

from machine import unique_id

JOIN_MS = 30_000
SETTLE_MS = 3_000  # for so long a failure must stand: a first one is often taken back
ANSWER_MS = 10_000
NTP_S = 3
BEAT_MS = 4_000  # a sign of life for the one who waits
YEAR_MIN = 2024
WEAK_DBM = -80
REFUSALS = (
    "",
    "unacceptable protocol version",
    "identifier rejected",
    "server unavailable",
    "bad user or password",
    "not authorized",
)


def until(act, timeout_ms):
    """Call act() until it returns something; return that, or None if it took too long."""
    deadline_ms = ticks_add(ticks_ms(), timeout_ms)
    beat_ms = ticks_add(ticks_ms(), BEAT_MS)
    while True:
        try:
            result = act()
        except OSError as error:
            if error.errno != EAGAIN:
                raise
            result = None
        now_ms = ticks_ms()
        if result is not None or ticks_diff(deadline_ms, now_ms) <= 0:
            return result
        if ticks_diff(beat_ms, now_ms) <= 0:
            beat_ms = ticks_add(now_ms, BEAT_MS)
            print("...")
        sleep_ms(20)


def read_secrets():
    values = {"__name__": "secrets"}
    try:
        exec(SECRETS, values)  # noqa: F821
        return values
    except Exception as error:  # a person's file: whatever is in it
        print("- secrets.py: it can not be run: %s" % type(error).__name__)


# ---------------------------------------------------------------------------
# Wi-Fi and clock
# ---------------------------------------------------------------------------


def join(wlan, name, password):
    """Join one network; return the reason why not, or None."""
    failed_ms = [None]
    before = wlan.status()

    # True: it is in; a str: why not.
    def look():
        if wlan.isconnected() and wlan.ifconfig()[0] != "0.0.0.0":
            return True
        status = wlan.status()
        if status == before or status not in REASONS:  # noqa: F821
            failed_ms[0] = None
        elif failed_ms[0] is None:
            failed_ms[0] = ticks_ms()
        elif ticks_diff(ticks_ms(), failed_ms[0]) >= SETTLE_MS:
            return REASONS[status]  # noqa: F821

    if password is None:
        wlan.connect(name)
    else:
        wlan.connect(name, password)
    result = until(look, JOIN_MS)
    if result is True:
        return None
    wlan.disconnect()
    sleep_ms(1_000)
    return result or REASONS.get(wlan.status(), "no answer within the time allowed")  # noqa: F821


def look_at_wifi(network, secrets):
    """Report the Wi-Fi; return whether it is joined."""
    wlan = network.WLAN(network.STA_IF)
    networks = secrets["WIFI"]
    if isinstance(networks[0], str):
        networks = [networks]
    if secrets.get("COUNTRY"):
        network.country(secrets["COUNTRY"])
    wlan.active(True)
    if secrets.get("ADDRESS"):
        wlan.ifconfig(secrets["ADDRESS"])
    number = 0
    for name, password in networks:
        number += 1
        reason = join(wlan, name, password)
        if reason is None:
            break
        print("- Wi-Fi: not joined: %s (network %d)" % (reason, number))
    else:
        return False
    try:
        rssi = wlan.status("rssi")
        signal = "%d dBm%s" % (rssi, ", which is weak" if rssi < WEAK_DBM else "")
    except Exception:
        signal = "signal not told"
    address = wlan.ifconfig()
    print("+ Wi-Fi: joined, %s, address %s" % (signal, address[0]))
    print("%s DNS: server %s" % ("-" if address[3] == "0.0.0.0" else "+", address[3]))
    return True


def look_at_clock(secrets, is_needed):
    servers = secrets.get("NTP") or ()
    if isinstance(servers, str):
        servers = (servers,)
    for server in servers:
        if gmtime()[0] >= YEAR_MIN:
            break
        try:
            import ntptime

            ntptime.host = server
            ntptime.timeout = NTP_S
            ntptime.settime()
        except Exception as error:
            print("- clock: the time server %s (NTP): %s" % (server, error))
    text = "clock: %d-%02d-%02d %02d:%02d UTC" % gmtime()[:5]
    if gmtime()[0] >= YEAR_MIN:
        print("+ " + text)
    elif is_needed:
        print("- %s: never set, so that no certificate is valid: see NTP" % text)
    else:
        print("  %s: never set; it is not needed without verification" % text)


# ---------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------


class Failed(Exception):
    """What ends the way to the server, in words."""


def parse_uri(uri):
    """Return (host, port, user, password, whether it is over TLS)."""
    scheme, _, rest = uri.partition("://")
    is_tls = scheme.lower() in ("mqtts", "ssl")
    secret, at, rest = rest.rstrip("/").rpartition("@")
    host, bracket, port = rest.partition("]")
    if bracket:
        host = host[1:]
        port = port[1:]
    else:
        host, _, port = rest.partition(":")
    fields = [None, None]
    if at:
        for number, field in enumerate(secret.split(":", 1)):
            parts = field.split("%")
            fields[number] = parts[0].encode()
            for part in parts[1:]:
                fields[number] += bytes((int(part[:2], 16),)) + part[2:].encode()
    return host, int(port or (8883 if is_tls else 1883)), fields[0], fields[1], is_tls


def field(value):
    data = value.encode() if isinstance(value, str) else bytes(value)
    return len(data).to_bytes(2, "big") + data


def make_connect(client_id, user, password):
    """Return a CONNECT packet (MQTT 3.1.1, section 3.1).

    The identifier is what doctor.py takes. With CLIENT_ID the session is not a clean one: another
    board may have it, and what the server keeps for it stays there.
    """
    flags = 0 if client_id else 2
    if client_id is None:
        client_id = "mqtt%sd" % unique_id()[-8:].hex()
    flags |= (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    data = b"\x00\x04MQTT\x04" + bytes((flags, 0, 60)) + field(client_id)
    for value in (user, password):
        if value is not None:
            data += field(value)
    length = bytearray()
    count = len(data)
    while True:
        length.append(count & 0x7F | (0x80 if count > 0x7F else 0))
        count >>= 7
        if not count:
            return b"\x10" + bytes(length) + data


def make_context(secrets):
    import tls

    def load(name, function, *settings):
        values = [FILES.get(one) or [secrets.get(one)] for one in settings]  # noqa: F821
        if values[0] == [None]:
            return
        try:
            for parts in zip(*values):
                function(*parts)
        except (OSError, ValueError, TypeError) as error:
            raise Failed("%s can not be used: %s" % (name, error))

    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_NONE if secrets.get("TLS") else tls.CERT_REQUIRED
    load("CA", context.load_verify_locations, "CA")
    load("CERT or KEY", context.load_cert_chain, "CERT", "KEY")
    return context


def talk(sock, stage, packet):
    """Send CONNECT; return the return code of CONNACK."""
    if until(lambda: sock.write(packet), ANSWER_MS) != len(packet):
        raise Failed("%s: no answer within the time allowed" % stage)
    answer = b""
    while len(answer) < 4:
        data = until(lambda: sock.read(1), ANSWER_MS)
        if not data:
            raise Failed("CONNACK: %s" % ("no answer" if data is None else "closed by the server"))
        answer += data
    if answer[:2] != b"\x20\x02":
        raise Failed("CONNACK: this is no MQTT server")
    sock.write(b"\xe0\x00")
    return answer[3]


def look_at_broker(uri, secrets, told):
    """Go the way to a server; report that it has accepted us, or raise Failed.

    Args:
        told: which server it is, if there are several.
    """
    host, port, user, password, is_tls = parse_uri(uri)
    if secrets.get("USER") is not None:
        user = secrets["USER"]
    if secrets.get("PASSWORD") is not None:
        password = secrets["PASSWORD"]
    if callable(password):
        password = password()
    if password is not None and user is None:
        raise Failed("password without user [MQTT-3.1.2-22]")
    where = ", %s port %d" % (host, port)
    began_ms = ticks_ms()
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except OSError:
        found = ()
    if not found:
        if host.endswith(".local"):
            raise Failed(
                "DNS: %s can be found by mqttpipe only: deploy, then --doctor again" % host
            )
        raise Failed("DNS: no address for the name %s" % host)
    if host != found[0][4][0]:
        print("+ DNS: %s was found in %d ms" % (host, ticks_diff(ticks_ms(), began_ms)))
    gc.collect()
    sock = plain = socket.socket(found[0][0], socket.SOCK_STREAM)
    stage = "TCP"
    try:
        plain.settimeout(ANSWER_MS // 1000)
        plain.connect(found[0][4])
        plain.setblocking(False)
        if is_tls:
            stage = "TLS"
            sock = make_context(secrets).wrap_socket(
                plain, server_hostname=host, do_handshake_on_connect=False
            )
        code = talk(sock, stage, make_connect(secrets.get("CLIENT_ID"), user, password))
    except Failed:
        raise
    except Exception as error:
        words = str(error).replace("\n", "; ")
        if is_tls and gmtime()[0] < YEAR_MIN:
            words += "; the clock is not set (NTP)"
        raise Failed("%s: %s%s" % (stage, words, where))
    finally:
        sock.close()
        plain.close()
    if code:
        words = REFUSALS[code] if code < len(REFUSALS) else "reserved"
        raise Failed("CONNACK: return code %d, %s" % (code, words))
    print("+ broker: accepted us in %d ms%s" % (ticks_diff(ticks_ms(), began_ms), told))


def main():
    try:
        import network
    except ImportError:
        print("- Wi-Fi: this firmware has none")
        return
    secrets = read_secrets()
    if secrets is None:
        return
    try:
        uris = secrets["SERVER"]
        uris = [uris] if isinstance(uris, str) else uris
        is_tls = any([parse_uri(uri)[4] for uri in uris])
        is_up = look_at_wifi(network, secrets)
        look_at_clock(secrets, is_tls and not secrets.get("TLS"))
    except Exception as error:  # a wrong setting; its text might show it
        print("- secrets.py: a setting can not be used: %s" % type(error).__name__)
        return
    reasons = []
    mark = "-"
    for uri in uris if is_up else ():
        told = ", %s port %d" % parse_uri(uri)[:2] if len(uris) > 1 else ""
        try:
            look_at_broker(uri, secrets, told)
            mark = " "  # one of several is enough: the program goes on to it by itself
        except Failed as error:
            reason = str(error)
            reasons.append(reason if told in reason else reason + told)
        except Exception as error:  # password() is a person's, too
            print("- secrets.py: a setting can not be used: %s" % type(error).__name__)
    for reason in reasons:
        print("%s broker: %s" % (mark, reason))


main()
