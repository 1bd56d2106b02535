"""Clouds that can't be had here, played by a gateway before a real broker.

    gateway = Gateway(broker, Aws("lamp"), server_context(pair, client_ca))
    with gateway:
        ... a client connects to mqtts://...:gateway.port, by the host's name ...
    gateway.broken      what it did that the cloud would not take, in words

The gateway ends TLS, holds the rules that the vendor's documents state (each class names them),
and passes all else on to the broker: sessions, acknowledgements and delivery are the broker's.
What a cloud does beyond that (shadows) is done by a client of the broker. None of this is the
cloud itself: what its documents do not say, nobody has tried here.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import re
import select
import socket
import ssl
import threading
import time
import urllib.parse

import paho.mqtt.client as paho

import servers

WAIT_S = 20
CHUNK_BYTES = 4096
PACKET_BYTES_MAX = 128 * 1024

CONNECT, PUBLISH, SUBSCRIBE = 0x10, 0x30, 0x80
NOT_AUTHORIZED = b"\x20\x02\x00\x05"  # CONNACK, return code 5


class Broken(Exception):
    """The client has broken a rule. The cloud says `answer`, if anything, and closes."""

    def __init__(self, what, answer=b""):
        super().__init__(what)
        self.answer = answer


def server_context(pair, client_ca=None, alpn=()):
    """Return an SSLContext that shows a certificates.Pair that was saved.

    Args:
        client_ca: only clients with a certificate of this Authority, saved as well, are let in.
        alpn: the protocols' names that a client may offer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_pem_file, pair.key_pem_file)
    if client_ca:
        context.load_verify_locations(client_ca.cert_pem_file)
        context.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def two_bytes(data, at):
    return data[at] << 8 | data[at + 1]


def field(body, at):
    """Return (bytes with a length before them, where the next one is)."""
    end = at + 2 + two_bytes(body, at)
    return body[at + 2 : end], end


class Connect:
    """A CONNECT: client_id, user, password (str or None), keep_alive_s, clean_session."""

    def __init__(self, body):
        flags = body[7]
        self.keep_alive_s = two_bytes(body, 8)
        self.clean_session = bool(flags & 2)
        data, at = field(body, 10)
        self.client_id = data.decode()
        self.will_topic = None
        if flags & 4:
            data, at = field(body, at)
            self.will_topic = data.decode()
            _, at = field(body, at)
        self.user = self.password = None
        if flags & 0x80:
            data, at = field(body, at)
            self.user = data.decode()
        if flags & 0x40:
            self.password = field(body, at)[0].decode()


class Rules:
    """What a vendor allows. A method raises Broken."""

    ends_s = None  # time.time() when the connection just made ends by itself

    def check_tls(self, server_name, alpn):
        """The names that the client has sent and chosen."""

    def on_connect(self, connect):
        pass

    def on_publish(self, topic_name, qos, retain):
        pass

    def on_subscribe(self, filters):
        """The filters of one SUBSCRIBE."""


class Gateway:
    """Listens on 127.0.0.1:port. Each connection is a thread."""

    def __init__(self, broker, rules, context):
        self.broken = []
        self.names = []  # the server names that clients have sent (SNI)
        self.connections = 0
        self._broker = broker
        self._rules = rules
        self._context = context
        context.sni_callback = lambda sock, name, _: self.names.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = []
        self._threads = []

    def __enter__(self):
        self._begin(self._accept)
        return self

    def __exit__(self, *exception):
        # shutdown() wakes who waits in accept() and recv().
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(WAIT_S)

    def story(self):
        return "%d connections, SNI %s, broken: %s" % (self.connections, self.names, self.broken)

    def _begin(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._begin(self._serve, plain)

    def _serve(self, client):
        client.settimeout(WAIT_S)
        server = None
        named = len(self.names)
        try:
            client = self._context.wrap_socket(client, server_side=True)
            self._sockets.append(client)
            name = self.names[named] if len(self.names) > named else None
            self._rules.check_tls(name, client.selected_alpn_protocol())
            server = socket.create_connection((self._broker.host, self._broker.port), WAIT_S)
            self._sockets.append(server)
            self._pass(client, server)
        except Broken as error:
            self.broken.append(str(error))
            with contextlib.suppress(OSError):
                client.sendall(error.answer)
        except (OSError, EOFError, ValueError) as error:  # ValueError: closed by the test's end
            if not isinstance(error, EOFError) and server is None:
                self.broken.append("TLS: %s" % error)
        finally:
            for sock in filter(None, (server, client)):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()

    def _pass(self, client, server):
        """Both ways in one thread: OpenSSL does not allow two in one connection at once."""
        buf = b""
        ends_s = None
        while True:
            left_s = WAIT_S * 10 if ends_s is None else ends_s - time.time()
            if left_s <= 0:
                raise EOFError  # the token has run out: no rule is broken
            ready, _, _ = select.select([client, server], [], [], left_s)
            if server in ready:
                client.sendall(some_of(server))
            while client in ready and len(buf) <= PACKET_BYTES_MAX:
                client.settimeout(0)  # what is there may be no data, or half a record
                try:
                    buf += some_of(client)
                except ssl.SSLWantReadError:
                    break
                finally:
                    client.settimeout(WAIT_S)
            packet, buf = split(buf)
            while packet:
                self._check(packet)
                if packet[0] & 0xF0 == CONNECT:
                    ends_s = self._rules.ends_s
                server.sendall(packet)
                packet, buf = split(buf)
            if len(buf) > PACKET_BYTES_MAX:
                raise EOFError

    def _check(self, packet):
        first, body = packet[0], packet[body_at(packet) :]
        if first & 0xF0 == CONNECT:
            self._rules.on_connect(Connect(body))
        elif first & 0xF0 == PUBLISH:
            self._rules.on_publish(field(body, 0)[0].decode(), first >> 1 & 3, first & 1)
        elif first & 0xF0 == SUBSCRIBE:
            self._rules.on_subscribe(filters_of(body))


def some_of(sock):
    """Some bytes of a socket; EOFError at its end."""
    data = sock.recv(CHUNK_BYTES)
    if not data:
        raise EOFError
    return data


def body_at(packet):
    at = 1
    while packet[at] & 0x80:
        at += 1
    return at + 1


def split(buf):
    """Return (the first packet, or None if it is not whole; the rest)."""
    length = 0
    for at in range(1, min(len(buf), 5)):
        length |= (buf[at] & 0x7F) << 7 * (at - 1)
        if not buf[at] & 0x80:
            end = at + 1 + length
            return (buf[:end], buf[end:]) if len(buf) >= end else (None, buf)
    return None, buf


def filters_of(body):
    at, filters = 2, []
    while at < len(body):
        data, at = field(body, at)
        filters.append(data.decode())
        at += 1
    return filters


# ---------------------------------------------------------------------------
# The vendors
# ---------------------------------------------------------------------------


class Aws(Rules):
    """AWS IoT Core, for one thing whose policy allows its own shadow and nothing else.

    - docs.aws.amazon.com/iot/latest/developerguide/protocols.html: a client certificate on port
      8883; on 443 as well, with the ALPN name x-amzn-mqtt-ca.
    - .../mqtt.html: SNI is needed; QoS 2 is not answered; what the policy does not allow ends the
      connection.
    - docs.aws.amazon.com/general/latest/gr/iot-core.html: 8 filters in a SUBSCRIBE.
    All as stored in November 2026.
    """

    def __init__(self, thing, alpn=None):
        self.thing = thing
        self.alpn = alpn

    def check_tls(self, server_name, alpn):
        if not server_name:
            raise Broken("no SNI")
        if self.alpn != alpn:
            raise Broken("ALPN is %r" % alpn)

    def on_connect(self, connect):
        if connect.client_id != self.thing:
            raise Broken("the policy does not allow the client id %r" % connect.client_id)

    def on_publish(self, topic_name, qos, retain):
        if qos == 2:
            raise Broken("QoS 2")
        if retain:
            raise Broken("the policy does not allow iot:RetainPublish")
        if topic_name not in [
            "$aws/things/%s/shadow/%s" % (self.thing, w) for w in ("get", "update")
        ]:
            raise Broken("the policy does not allow " + topic_name)

    def on_subscribe(self, filters):
        if len(filters) > 8:
            raise Broken("%d filters in a SUBSCRIBE" % len(filters))
        for each in filters:
            if not each.startswith("$aws/things/%s/shadow/" % self.thing):
                raise Broken("the policy does not allow " + each)


class Shadow:
    """The shadow of a thing, kept by a client of the broker.

    .../device-shadow-mqtt.html and .../device-shadow-document.html: get, get/accepted,
    get/rejected (code 404 while there is none), update, update/accepted, update/delta.
    """

    def __init__(self, broker, thing):
        self.state = {}
        self._changed = threading.Condition()
        self._prefix = "$aws/things/%s/shadow/" % thing
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(self._prefix + word, 1) for word in ("get", "update")]
        )
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda client, _, message: self._on_message(message)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()

    def __enter__(self):
        assert self._ready.wait(WAIT_S)
        return self

    def __exit__(self, *exception):
        servers.end_paho(self._client)

    def desire(self, **wanted):
        """What an application of the cloud does."""
        self._update({"desired": wanted})

    def wait_for_reported(self, timeout_s=WAIT_S, **state):
        with self._changed:
            is_so = lambda: self.state.get("reported") == state  # noqa: E731
            assert self._changed.wait_for(is_so, timeout_s), self.state

    def _say(self, words, what):
        self._client.publish(self._prefix + words, json.dumps(what), qos=1)

    def _on_message(self, message):
        if message.topic.endswith("/get"):
            if self.state:
                self._say("get/accepted", {"state": self.state, "version": 1, "timestamp": 1})
            else:
                self._say("get/rejected", {"code": 404, "message": "No shadow exists"})
        else:
            self._update(json.loads(message.payload)["state"])

    def _update(self, part):
        with self._changed:
            for kind, values in part.items():
                self.state.setdefault(kind, {}).update(values)
            desired, reported = (self.state.get(kind, {}) for kind in ("desired", "reported"))
            delta = {name: each for name, each in desired.items() if reported.get(name) != each}
            self._changed.notify_all()
        self._say("update/accepted", {"state": part})
        if delta:
            self._say("update/delta", {"state": delta, "version": 2, "timestamp": 2})


class Azure(Rules):
    """Azure IoT Hub, for one device with a symmetric key.

    learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub (text of 27 June 2023, and as stored
    in 2026) and .../iot-hub/iot-hub-dev-guide-sas: client id, user name, SAS token and its end,
    topics, filters (five at most), no QoS 2.
    """

    def __init__(self, hub, device, key):
        self.hub = hub
        self.device = device
        self.key = base64.b64decode(key)
        self.tokens = []  # the `se` of each

    def on_connect(self, connect):
        user = "%s/%s/?api-version=2021-04-12" % (self.hub, self.device)
        if connect.client_id != self.device or connect.user != user:
            raise Broken("who is %r, %r?" % (connect.client_id, connect.user), NOT_AUTHORIZED)
        found = re.fullmatch(r"SharedAccessSignature (.*)", connect.password or "")
        if not found:
            raise Broken("no SAS token", NOT_AUTHORIZED)
        parts = dict(part.split("=", 1) for part in found.group(1).split("&"))
        resource = "%s/devices/%s" % (self.hub, self.device)
        if urllib.parse.unquote(parts["sr"]) != resource:
            raise Broken("a token for %s" % parts["sr"], NOT_AUTHORIZED)
        signed = ("%s\n%s" % (urllib.parse.quote(resource, safe=""), parts["se"])).encode()
        right = base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        if urllib.parse.unquote(parts["sig"]) != right:
            raise Broken("a token with a wrong signature", NOT_AUTHORIZED)
        if int(parts["se"]) <= time.time():
            raise Broken("a token of the past", NOT_AUTHORIZED)
        self.tokens.append(int(parts["se"]))
        self.ends_s = int(parts["se"])

    def on_publish(self, topic_name, qos, retain):
        if qos == 2:
            raise Broken("QoS 2")
        events = "devices/%s/messages/events/" % self.device
        if not topic_name.startswith((events, "$iothub/methods/res/", "$iothub/twin/")):
            raise Broken("there is no topic " + topic_name)

    def on_subscribe(self, filters):
        known = {"devices/%s/messages/devicebound/#" % self.device, "$iothub/methods/POST/#"}
        known |= {"$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"}
        for each in filters:
            if each not in known:
                raise Broken("there is no filter " + each)


class Cloud(Rules):
    """HiveMQ Cloud and EMQX Cloud (Serverless): the host's name is needed, which tells the shared
    servers whose it is; users and passwords are the broker's behind it.

    docs.hivemq.com/hivemq-cloud/, docs.emqx.com/en/cloud/latest/deployments/port_guide_serverless:
    TLS only, port 8883, as stored in November 2026. That SNI is needed is what both share servers
    for; their documents were not found to say it in so many words.
    """

    def __init__(self, host):
        self.host = host

    def check_tls(self, server_name, alpn):
        if server_name != self.host:
            raise Broken("SNI is %r" % server_name)
