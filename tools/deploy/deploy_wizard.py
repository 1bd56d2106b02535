"""Asks a person for what secrets.py has, and tries the server before anything is written.

For tools/deploy.py --wizard. Passwords are not shown while they are typed, and nowhere later.
"""

import contextlib
import ipaddress
import pathlib
import re
import socket
import sys
import time

import deploy_certificates as certs
from deploy_talk import DeployError, ask, confirm, is_somebody_there, say

import setup_env

# What servers call themselves in the local network (RFC 6763): plain, and over TLS.
SERVICES = {"_mqtt._tcp.local.": "mqtt", "_secure-mqtt._tcp.local.": "mqtts"}
SEARCH_S = 2
INFO_MS = 1_000
FOUND_MAX = 9

TRY_MS = 15_000  # in which the server must have accepted us; the client has 10 s for each attempt
ENTRIES_MAX = 3  # of a server, until one is good

DEFAULT_NAME = "mqttpipe-1"
NTP = ("pool.ntp.org",)

CERTIFICATE_QUESTION = (
    "Its certificate is signed by: the FILE of your own authority's certificate; "
    "`public`, a well-known authority; `insecure`, do not verify it"
)


# ---------------------------------------------------------------------------
# Servers
# ---------------------------------------------------------------------------


def find_servers(search_s=SEARCH_S, **options):
    """Return the URIs of the MQTT servers that announce themselves by mDNS in this network.

    Args:
        search_s: how long to listen for them. options: of zeroconf.Zeroconf.
    """
    import zeroconf

    heard = []

    class Listener(zeroconf.ServiceListener):
        def add_service(self, _, kind, name):
            heard.append((kind, name))

        def update_service(self, *_):
            pass

        remove_service = update_service

    try:
        network = zeroconf.Zeroconf(**options)
    except OSError:  # no network, or none with multicast
        return []
    with contextlib.closing(network):
        browsers = [zeroconf.ServiceBrowser(network, kind, Listener()) for kind in SERVICES]
        time.sleep(search_s)
        for browser in browsers:
            browser.cancel()
        found = []
        for kind, name in sorted(heard)[:FOUND_MAX]:
            try:
                info = network.get_service_info(kind, name, INFO_MS)
            except zeroconf.Error:  # somebody's answer had what can be no service's name
                continue
            # A name from the network: what is no host name is no server.
            if info and info.server and re.fullmatch(r"[A-Za-z0-9.-]{1,253}", info.server):
                uri = make_uri(SERVICES[kind], info.server.rstrip("."), info.port)
                if uri not in found:
                    found.append(uri)
    return found


def make_uri(scheme, host, port=None):
    host = "[%s]" % host if ":" in host else host
    usual = {"mqtt": 1883, "mqtts": 8883}[scheme]
    return "%s://%s%s" % (scheme, host, "" if port in (None, usual) else ":%d" % port)


def client_module():
    """Return the client, for CPython."""
    for folder in ("micropython", "cpython_shim"):
        path = str(setup_env.ROOT / folder)
        if path not in sys.path:
            sys.path.append(path)
    import mqttpipe

    return mqttpipe


def is_this_computer_only(host):
    host = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def own_address():
    """Return what to call this computer in the network, in words."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(
                ("192.0.2.1", 9)
            )  # nothing is sent: the system says which way it would go
            return "in the network this computer is %s" % sock.getsockname()[0]
        except OSError:
            return "give this computer's address in the network"


def try_server(uri, user, password, ca, tls):
    """Connect to a server as the board will; return None, or why it did not work."""
    mqttpipe = client_module()
    errors = []
    try:
        client = mqttpipe.MQTTClient(uri, user=user, password=password, ca=ca, tls=tls)
    except (mqttpipe.MQTTError, ValueError) as error:
        return str(error)
    client.on_offline = lambda client, error: errors.append(error)
    client.on_error = lambda client, error: None  # else it is printed among the questions
    deadline_s = time.monotonic() + TRY_MS / 1000
    client.connect()
    while not client.is_online() and not errors and time.monotonic() < deadline_s:
        client.step(100)
    if client.is_online():
        client.disconnect()
        client.wait_offline(1_000)
        return None
    return str(errors[0]) if errors else "no answer within %d s" % (TRY_MS // 1000)


# ---------------------------------------------------------------------------
# Answers
# ---------------------------------------------------------------------------


def checked_ssid(text):
    if not 0 < len(text.encode()) <= 32:
        raise ValueError("a Wi-Fi's name has 1 to 32 bytes")
    return text


def checked_wifi_password(text):
    if text and not 8 <= len(text.encode()) <= 64:
        raise ValueError("a Wi-Fi's password has 8 to 64 bytes; none: an open network")
    return text or None


def checked_name(text):
    if not re.fullmatch(r"[A-Za-z0-9-]{1,32}", text):
        raise ValueError("letters, digits and -, 1 to 32 of them")
    return text


def checked_server(text, found):
    """Return the URI that is meant by a number of the list, a host name, or a URI."""
    if text.isdecimal() and found:
        if not 0 < int(text) <= len(found):
            raise ValueError("a number of the list, 1 to %d, or an address" % len(found))
        return found[int(text) - 1]
    if "@" in text:
        raise ValueError("without user and password: they are asked for next, and not shown")
    mqttpipe = client_module()
    uri = text if "://" in text else "mqtt://" + text
    if "://" not in text and text.endswith(":8883"):
        uri = "mqtts://" + text
    try:
        mqttpipe.parse_uri(uri)
    except mqttpipe.MQTTError as error:
        raise ValueError(str(error)) from None
    return uri


def checked_ca(text):
    """Return "public", "insecure", or the path of a file with a certificate."""
    if text in ("public", "insecure"):
        return text
    if not text:
        raise ValueError("a file, `public` or `insecure`")
    path = pathlib.Path(text).expanduser()
    try:
        certs.read_authorities(path)
    except DeployError as error:
        raise ValueError(str(error)) from None
    return path


# ---------------------------------------------------------------------------
# The questions
# ---------------------------------------------------------------------------


class Answers:
    """What was answered.

    Attributes:
        settings: setting of secrets.py -> its value.
        ca: the path of an authority's certificate; "public"; or None.
    """

    def __init__(self):
        self.settings = {}
        self.ca = None


def ask_for_server(answers, found):
    for number, uri in enumerate(found, 1):
        say("  %d  %s" % (number, uri))
    question = "Its number, or the address of your server" if found else "Address of your server"
    default = "1" if len(found) == 1 else None
    uri = ask(
        question + " (host, mqtt://host or mqtts://host)",
        lambda text: checked_server(text, found),
        default,
    )
    tls = None
    ca = None
    if uri.lower().startswith(("mqtts://", "ssl://")):
        ca = ask(CERTIFICATE_QUESTION, checked_ca)
        if ca == "insecure":
            tls, ca = "insecure", None
    user = ask("User (none: leave it empty)") or None
    password = None
    if user is not None:
        password = ask("Its password (not shown)", is_secret=True)
    answers.ca = ca
    answers.settings.update(SERVER=uri, USER=user, PASSWORD=password, TLS=tls)
    answers.settings["NTP"] = NTP if ca is not None else ()
    return uri, user, password, ca, tls


def run():
    """Ask for everything; return the Answers.

    Raises:
        DeployError: there is no terminal, or nobody answers.
    """
    if not is_somebody_there():
        raise DeployError("--wizard asks questions: it needs a terminal")
    answers = Answers()
    say("what your board needs to know; Ctrl-C ends this, and nothing is written")
    ssid = ask("Name of your Wi-Fi", checked_ssid)
    password = ask("Its password (not shown)", checked_wifi_password, is_secret=True)
    answers.settings["WIFI"] = [(ssid, password)]
    say("looking for MQTT servers in this network")
    found = find_servers()
    if not found:
        say("  none announces itself")
    for left in reversed(range(ENTRIES_MAX)):
        uri, user, password, ca, tls = ask_for_server(answers, found)
        if ca == "public":
            ca = certs.read_file(certs.public_bundle(), certs.BUNDLE_BYTES_MAX)
        elif ca is not None:
            ca = certs.read_authorities(ca)
        say("trying %s" % uri)
        reason = try_server(uri, user, password, ca, tls)
        if reason is not None:
            say("  it does not work from here: %s" % reason)
        else:
            say("  it accepts us")
            host = client_module().parse_uri(uri)[0]
            if not is_this_computer_only(host):
                break
            say("  but %s would be the board itself there; %s" % (host, own_address()))
        if confirm("take it all the same?"):
            break
        if not left:
            raise DeployError("no server; nothing was written")
    answers.settings["NAME"] = ask("Name of the board, for its topics", checked_name, DEFAULT_NAME)
    return answers
