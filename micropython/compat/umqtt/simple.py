"""umqtt.simple's class on top of mqttpipe, for programs that exist: a drop-in.

    umqtt/simple.py of this folder in the place of micropython-lib's, and mqttpipe beside it.

The calls and their arguments are those of micropython-lib's umqtt.simple 1.8.0, and so is what
they raise: OSError for the network's sake, MQTTException for the server's refusal. What a program
gains:

- After a lost connection it is connected and subscribed again, whichever call it is in.
- No call but wait_msg() takes longer than TIMEOUT_MS; that one has to wait, and says PINGREQ
  meanwhile, so that a dead connection is noticed.
- Long topics, large messages, a server that sends something unexpected: see mqttpipe.

What differs: what MQTT forbids, or what is larger than PACKET_BYTES_MAX, raises
mqttpipe.LocalError, where umqtt.simple sent it; the number in an OSError may be another, as
ETIMEDOUT for a name that nobody knows; there is no `sock`; keepalive=0 asks for pings every 300 s,
as who only waits would never learn of a dead connection; one call of connect() while connected
to this server keeps the connection. server, port, user, pswd, keepalive, client_id and the will
may be set before each connect(), as ever: else it makes a new client of mqttpipe if one of them or
clean_session has changed since the last.
Callbacks are called as ever, by wait_msg(), check_msg() and whatever waits for an answer, so they
may publish and subscribe. While one runs, what else comes waits until it has returned. At QoS 1
and 2 the server keeps the others meanwhile: each call reads one, and disconnect() leaves none.
"""

from errno import ECONNRESET, ETIMEDOUT
from time import sleep_ms, ticks_add, ticks_diff, ticks_ms

import mqttpipe

_SILENCE_S = 300  # keepalive=0
_SLEEP_MS = 1_000
_NAP_MS = 10  # while another thread is in step()
_PACKET_BYTES_LEAST = 1024
_UNSENT_MAX = 24  # a step() reads 16 packets: so the messages that wait become fewer


class MQTTException(Exception):
    pass


# Programs write the same topic as str here and as bytes there.
def _to_bytes(topic):
    return topic.encode() if isinstance(topic, str) else bytes(topic)


# ... and their server as bytes, as a socket takes it.
def _to_str(name):
    return name.decode() if isinstance(name, bytes) else name


class MQTTClient:
    TIMEOUT_MS = 10_000  # for an answer of the server, a reconnection included
    # Of the largest message, either way. So much memory is taken; half of it, or a quarter, if the
    # heap has no such piece.
    PACKET_BYTES_MAX = 4096
    _offline = "refuse"
    _goes_on = False  # after a connect() that has failed
    _is_delivering = False  # the callback runs
    _is_pinged = False  # and nobody waits for something else
    _unsent = 0  # how many it has published and not waited for

    def __init__(
        self,
        client_id,
        server,
        port=0,
        user=None,
        password=None,
        keepalive=0,
        ssl=None,
        ssl_params={},  # noqa: B006  as it always was; it is only read
    ):
        self.client_id = client_id
        self.server = server
        self.port = port or (8883 if ssl else 1883)
        self.user = user
        self.pswd = password
        self.keepalive = keepalive
        self.ssl = ssl
        self.ssl_params = ssl_params
        self.cb = None
        self.lw_topic = self.lw_msg = None
        self.lw_qos = 0
        self.lw_retain = False
        self._client = None
        self._made = None  # _settings() of that
        self._filters = {}  # topic filter as bytes: QoS
        self._messages = []  # (topic, payload, first byte) that wait for check_msg()
        self._error = None  # why we are offline
        self._session_present = 0

    def set_callback(self, f):
        self.cb = f

    def set_last_will(self, topic, msg, retain=False, qos=0):
        assert 0 <= qos <= 2
        assert topic
        self.lw_topic = topic
        self.lw_msg = msg
        self.lw_qos = qos
        self.lw_retain = retain

    def connect(self, clean_session=True, timeout=None):
        """Connect, and wait for that. Returns whether the server has kept the session.

        Raises: MQTTException with the server's return code; OSError.
        """
        client = self._client
        # With the same settings the old one goes on: it knows its filters, and what is queued.
        settings = self._settings(clean_session)
        made = self._made
        if made and client.is_online() and settings["uri"] == made["uri"]:
            settings = made  # the connection stays as it is
        if settings != made:
            if client is not None:
                client.disconnect()
                client.wait_offline(_NAP_MS)  # DISCONNECT leaves
                client._drop_socket()  # nobody waits for its server
            client = self._client = self._make(settings)
            self._made = settings
            for topic_filter in self._filters:
                client.subscribe(topic_filter, None, self._filters[topic_filter])
        if clean_session and not client.is_online():
            # A new session has none: who connects subscribes again, and perhaps to others.
            while self._filters:
                client.unsubscribe(self._filters.popitem()[0])
        self._error = None
        client.connect()
        timeout_ms = self.TIMEOUT_MS if timeout is None else int(timeout * 1000)
        if self._wait(lambda: client.is_online() or self._error, timeout_ms, False):
            if client.is_online():
                return self._session_present
        error = self._error
        if not self._goes_on:
            client.disconnect()  # who has given up is not connected behind their back
            client.wait_offline(0)
        if isinstance(error, mqttpipe.Refused):
            raise MQTTException(error.return_code)
        raise OSError(getattr(error, "errno", None) or ETIMEDOUT)

    # The arguments for a client of mqttpipe.
    def _settings(self, clean_session):
        scheme = "mqtts" if self.ssl else "mqtt"
        host = _to_str(self.server)
        if ":" in host:
            host = "[%s]" % host
        options = {
            "uri": "%s://%s:%s" % (scheme, host, self.port),
            "client_id": self.client_id,
            "clean_session": bool(clean_session),
            "keep_alive_s": self.keepalive or _SILENCE_S,
            "packet_bytes_max": self.PACKET_BYTES_MAX,
            "connect_timeout_ms": self.TIMEOUT_MS,
            "offline": self._offline,
        }
        if self.lw_topic:
            options["will"] = (self.lw_topic, self.lw_msg, int(self.lw_qos), bool(self.lw_retain))
        if self.user:
            options["user"] = self.user
            options["password"] = self.pswd
        if self.ssl is True:
            params = self.ssl_params
            options["tls_name"] = _to_str(params.get("server_hostname"))
            options["cert"] = params.get("cert")
            options["key"] = params.get("key")
            ca = params.get("cadata") or params.get("ca_certs")
            if ca and params.get("cert_reqs", 1):  # there, CERT_NONE was the default
                options["ca"] = ca
            else:
                options["tls"] = "insecure"
        elif self.ssl:
            options["tls"] = self.ssl
        return options

    def _make(self, settings):
        options = dict(settings)
        while True:
            try:
                client = mqttpipe.MQTTClient(**options)
                break
            except MemoryError:
                # Compiling this file on the board leaves its heap in small pieces.
                options["packet_bytes_max"] //= 2
                if options["packet_bytes_max"] < _PACKET_BYTES_LEAST:
                    raise
        client.on_connect = self._on_connect
        client.on_offline = self._on_offline
        client.on_message = self._on_message
        return client

    # Called by step().
    def _on_connect(self, client, session_present):
        self._session_present = int(session_present)

    def _on_offline(self, client, error):
        self._error = error

    def _on_message(self, client, message):
        flags = 0x30 | message.qos << 1 | message.retain
        self._messages.append((message.topic_name.encode(), message.payload, flags))
        if message.qos:  # it is acknowledged, and lost in a reset: no more in this step
            client._is_enough = True

    def disconnect(self):
        """Send what is queued and DISCONNECT, and close. Deliver what was acknowledged."""
        client = self._client
        client.disconnect()
        try:
            client.wait_offline(self.TIMEOUT_MS)
        except mqttpipe.LocalError:
            pass  # in a timer's function: see _drive()
        self._messages = [one for one in self._messages if one[2] & 6]
        while self._messages and not self._is_delivering:
            try:
                self._deliver()
            except OSError:  # an answer of the callback's: there is no connection for it
                pass

    def ping(self):
        """Not needed: pings are sent by themselves, as long as any of these calls is made.

        The next wait_msg() returns None if no message waits but the connection stands, as ever
        when PINGRESP came.

        Raises: OSError: behind disconnect(), or a connect() that has failed.
        """
        self._is_pinged = True
        self._step(0)

    def publish(self, topic, msg, retain=False, qos=0):
        """Publish, and wait: at QoS 0 until it has left, at 1 and 2 for the acknowledgement.

        In the callback, at QoS 0, it waits if no other message does, and now and then. In a
        function of a timer's, or another thread, it does not wait while one of these calls is at
        work: that one sends it.

        Raises: OSError: not within TIMEOUT_MS, or at once behind disconnect(); it is taken back
        then, and was perhaps delivered. mqttpipe.LocalError: see above.
        """
        client = self._client
        token = client.publish(topic, msg, int(qos), bool(retain))
        # Each wait reads more than the one message that is being answered: in a burst, at QoS 0,
        # the next answers take this one along.
        if self._is_delivering and self._messages and not qos and self._unsent < _UNSENT_MAX:
            self._unsent += 1
            return
        self._unsent = 0
        if qos:
            self._is_pinged = False
        if not self._wait(lambda: client.is_done(token), self.TIMEOUT_MS):
            self._on_unsent(token)

    def _on_unsent(self, token):
        self._client.cancel(token)
        self._give_up()

    def subscribe(self, topic, qos=0):
        """Subscribe, now and after each reconnection, and wait for the answer.

        Raises: MQTTException: the server refuses; OSError: no answer within TIMEOUT_MS.
        """
        assert self.cb is not None, "Subscribe callback is not set"
        client = self._client
        token = client.subscribe(topic, None, int(qos))
        self._filters[_to_bytes(topic)] = int(qos)  # it was taken: connect() may ask for it again
        self._is_pinged = False  # PINGRESP comes before this answer
        if not self._wait(lambda: client.is_done(token), self.TIMEOUT_MS):
            self._on_unanswered()
        elif client.was_refused(token):
            raise MQTTException(0x80)

    def unsubscribe(self, topic):
        client = self._client
        token = client.unsubscribe(topic)
        self._filters.pop(_to_bytes(topic), None)
        self._is_pinged = False
        if not self._wait(lambda: client.is_done(token), self.TIMEOUT_MS):
            self._on_unanswered()

    def _on_unanswered(self):
        self._give_up()

    def _give_up(self):
        raise OSError(ECONNRESET if self._client.state_name == "DOWN" else ETIMEDOUT)

    def wait_msg(self):
        """Wait for a message and give it to the callback. Returns its first byte on the wire."""
        while not self._messages:
            if self._is_pinged and self._client.is_online():
                self._is_pinged = False
                return None
            self._step(_SLEEP_MS)
        return self._deliver()

    def check_msg(self):
        """The same if there is a message; else return None at once."""
        # While one waits nothing is read; while more do, when a ping is due.
        count = len(self._messages)
        if not count or count > 1 and self._client.next_deadline_ms() == 0:
            self._step(0)
        if self._messages:
            return self._deliver()
        self._is_pinged = False
        return None

    def _step(self, timeout_ms):
        client = self._client
        if client.state_name == "DOWN":  # disconnect(), or a connect() that has failed
            raise OSError(ECONNRESET)
        if not self._drive(timeout_ms):
            sleep_ms(min(timeout_ms, _NAP_MS))

    # False: it runs already. This is a timer's function that has come in between, or a thread.
    def _drive(self, timeout_ms):
        try:
            self._client.step(timeout_ms)
        except mqttpipe.LocalError:
            return False
        return True

    # The callback is not called in step(), where it could not wait for an answer.
    def _deliver(self):
        try:
            topic, payload, flags = self._messages.pop(0)
        except IndexError:
            return None  # a timer's function has come in between, and delivered it
        was_delivering = self._is_delivering  # the callback has called check_msg()
        self._is_delivering = True
        try:
            self.cb(topic, payload)
        finally:
            self._is_delivering = was_delivering
        return flags

    # step() until is_so(), for timeout_ms at most. What comes meanwhile is delivered, but not to a
    # callback that is running: each message would be one more call deep.
    def _wait(self, is_so, timeout_ms, delivers=True):
        end_ms = ticks_add(ticks_ms(), timeout_ms)
        while not is_so():
            left_ms = ticks_diff(end_ms, ticks_ms())
            if left_ms <= 0 or delivers and self._client.state_name == "DOWN":
                return False  # DOWN: behind disconnect() nobody connects
            if not delivers:
                self._client.step(min(left_ms, _SLEEP_MS))
            elif not self._drive(min(left_ms, _SLEEP_MS)):
                return True  # who drives it goes on with this, too
            while delivers and self._messages and not self._is_delivering:
                self._deliver()
        return True
