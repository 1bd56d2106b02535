"""Non-blocking MQTT client for MicroPython, in one file: MQTT 3.1.1, and 5.0 if asked for.

Theory of operation
-------------------
    publish()     -->  Pipe (a ring)  --+
    subscribe()   -->  Filters (a table) -->  step()  -->  Outbox   -->  stream  -->  server
    callbacks     <-----------------------    step()  <--  Decoder  <--  stream  <--  server

Only `step()` touches the stream: the socket, or TLS on top of it. It does what is ready now and
returns; nothing below it waits. If nothing is ready, step(timeout_ms) sleeps in one `select.poll`
on the socket and the Pipe, so a publish() in another thread wakes it.

The ring is the session. A slot of the Pipe holds a message from publish() until it is written
(QoS 0), or until PUBACK (QoS 1) or PUBCOMP (QoS 2) arrives: _on_ack(). Four positions in the ring
are the whole state:

    head <= left <= sent <= tail
    [head, left)   written to the stream: waits for its acknowledgement, or is free already
    [left, sent)   in the Outbox; its last byte is not written yet
    [sent, tail)   queued

When a connection breaks, Pipe.rewind() sets `left` and `sent` back to `head`. The next connection
resends these slots, with DUP if the server still has the session (Pipe.resume()). A QoS 0 message
that was written is gone; one that was written in part is resent whole. The packet identifier is
computed from the token that publish() returned, so Pipe.find_id() finds the slot of an
acknowledgement without a second table.

A connection is one life: two generators that read from top to bottom like blocking code
and yield wherever blocking code would wait.

    _connect()   pause -> link -> addresses -> TCP -> TLS -> CONNACK
    _serve()     subscriptions -> online -> drain -> DISCONNECT

Whatever ends a life (network, protocol, memory, disconnect(), Ctrl-C), _close() cleans up, and
allocates nothing until all is closed. Then the next life begins.

The order of this file: constants, errors, the parts of the drawing, a life (sections Connecting
to Closing), the application's calls (Driving, The client).

Rules for this file
-------------------
1. Only step() moves head, left and sent. Writers move tail, under the Pipe's lock. Neither waits
   for the other, unless a writer drops or moves queued messages (see Pipe).
2. Encoding, Outbox, Decoder and Filters do no I/O of their own and read no clock.
3. The steady state allocates nothing. A function that allocates says so.
4. Only the portability block knows the platform.
5. Each wait for the network has a deadline: in _connect() next to the wait, in _serve() in
   `_timers`. step() sleeps only in _sleep().
6. No function on the path of a message has more than 11 words of locals and operand stack:
   MicroPython allocates a larger frame on the heap at each call. (tools/list_frames.py)

Section numbers and [MQTT-x.y.z-n] tags refer to MQTT Version 3.1.1, OASIS standard,
29 October 2014; [MQTT5-x.y.z-n] and [5: x.y.z] to MQTT Version 5.0, OASIS standard, 7 March
2019, where the same numbers mean something else.
"""

__version__ = "0.1.0"

# ---------------------------------------------------------------------------
# Switches
# ---------------------------------------------------------------------------
try:
    from micropython import const
except ImportError:  # CPython
    from mqttpipe_host import const  # not found? pip install mqttpipe; in a clone: pip install .

# Parts that a smaller build leaves out: mpy-cross drops the body of an `if` whose constant is 0.
# An argument of such a part has its own line, which ends in `# _MQTT5` or the like.
_TLS = const(1)  # mqtts:// and ssl://
_QOS2 = const(1)  # exactly once; without it QoS 2 is refused
_FAILOVER = const(1)  # more than one server
_ASYNCIO = const(1)  # run(), publish_wait(), messages(), Message.copy()
_BACKGROUND = const(1)  # start() and stop()
_ISR = const(1)  # publish_isr()
_STATS = const(1)  # counters
_OFFLINE = const(1)  # messages while offline: policies, limits, expiry
_RESOLVER = const(1)  # host names without blocking; without it getaddrinfo() blocks
_HINTS = const(1)  # errors that say what is likely wrong
_MQTT5 = const(1)  # MQTT 5.0, for protocol=5

# ---------------------------------------------------------------------------
# Portability
# ---------------------------------------------------------------------------
# A MicroPython board has these names. On CPython, cpython_shim/ provides them, with the board's
# behaviour.
from sys import implementation  # noqa: E402

if implementation.name == "micropython":
    import select
    import socket
    from errno import EAGAIN, EINPROGRESS
    from io import IOBase
    from os import urandom
    from sys import print_exception
    from time import sleep_ms, ticks_add, ticks_diff, ticks_ms

    try:
        from _thread import allocate_lock, get_ident
    except ImportError:  # a port without threads

        class allocate_lock:
            state = False

            def acquire(self, state):
                is_held = self.state
                self.state = True
                return not is_held

            def release(self):
                self.state = False

            def locked(self):
                return self.state

        if _BACKGROUND or _ASYNCIO:

            def get_ident():
                return 1

    if _TLS:
        import gc
        from time import gmtime

        # The C module: `ssl` is a Python module around it, which costs memory.
        try:
            import tls
        except ImportError:  # a port without TLS
            tls = None

        def wrap_tls(context, sock, host):
            gc.collect()  # the library may need 17 KB in one piece
            # Never the blocking handshake: it has no end on a dead connection.
            return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)

    if _BACKGROUND:
        from sys import platform

        # On rp2 a timer drives step() in the background, elsewhere a thread. On rp2 a thread would
        # run on the second core, and no lock keeps the two interpreters apart. A timer's callback
        # runs between two bytecodes of the main program (before MicroPython 1.24 on either core,
        # if the program has a thread: py/scheduler.c).
        if platform == "rp2":
            from machine import Timer
        else:
            Timer = None

        def start_thread(function):
            from _thread import stack_size, start_new_thread

            if platform == "esp32":
                stack_size(16 * 1024)  # 4 KiB are too few for a TLS handshake; not tried there
            start_new_thread(function, ())

    # Loops that wait for another thread call it. On MicroPython that thread runs on another core,
    # or gets its turn after a few bytecodes.
    def pass_on():
        pass

    if _ASYNCIO:
        # Sleep under asyncio until client._is_ready(), which asyncio's poll asks through the
        # pipe's ioctl. (On MicroPython a generator is a coroutine.)
        #
        # asyncio registers a stream for each wait and unregisters it afterwards. If register()
        # runs out of memory, it leaves an entry without an object, and the next poll crashes the
        # VM (extmod/modselect.c, which says so; seen in 1.25 and 1.26.1). So we register the pipe
        # once, in a new poll object that replaces asyncio's when it is complete. A dummy writer
        # in the entry keeps the pipe registered: each wait is only a modify().
        def wait_ready(client, pipe):
            from asyncio import core

            queue = core._io_queue
            entry = queue.map.get(id(pipe))
            if entry is None:
                entry = [None, pipe, pipe]  # reader, (dummy) writer, stream
                poll = core.select.poll()
                poll.register(pipe, 0)
                for reader, writer, stream in queue.map.values():
                    events = (reader is not None) * core.select.POLLIN
                    events |= (writer is not None) * core.select.POLLOUT
                    poll.register(stream, events)
                poll.ipoll(0)  # the first call allocates the result tuple
                queue.map[id(pipe)] = entry
                queue.poller = poll
            pipe.is_ready = client._is_ready
            try:
                yield queue.queue_read(pipe)
            finally:
                # queue_read() may have failed half way: its id() needs memory.
                pipe.is_ready = entry[0] = None

        # Identifies the event loop: asyncio.new_event_loop() replaces this object.
        def get_loop():
            from asyncio import core

            return core._io_queue

        # Has a new loop replaced this one? Then the old loop's tasks never run again.
        def is_left(loop):
            return loop is not get_loop()

        # Take the pipe out of asyncio's poll after the last wait_ready().
        def wait_no_more(pipe):
            from asyncio import core

            core._io_queue.remove(pipe)

        try:
            import mqttpipe_unix as select  # type: ignore
            from mqttpipe_unix import pass_on, wait_no_more, wait_ready  # type: ignore
        except ImportError:  # only the unix port has this file
            pass

    # extmod/modlwip.c (rp2, ESP8266 and others): a write blocks for 10 s when lwIP is out of
    # memory (see _SEGMENTS_MAX). An abandoned connection holds its memory for as long.
    _linger_ms = 10_500 if hasattr(socket, "print_pcbs") else 0

    # Nagle's algorithm and the peer's delayed ACK would cost 40 ms for each second small write.
    # IPPROTO_TCP is 6 everywhere, and TCP_NODELAY is 1 where it has no name.
    def set_nodelay(sock):
        try:
            sock.setsockopt(6, getattr(socket, "TCP_NODELAY", 1), 1)
        except OSError:
            pass  # no such option here; one write per packet avoids most of the delay

    try:
        from machine import unique_id
    except ImportError:  # the unix port has none: an identity for this run only

        def unique_id():
            return urandom(8)

    if _RESOLVER or _BACKGROUND:  # mqttpipe_repl.py uses it, too
        try:
            from network import STA_IF, WLAN
        except ImportError:  # the operating system's files name the DNS servers
            WLAN = None
else:
    from mqttpipe_host import *  # noqa: F403  all the names above, of shim_board.py

__all__ = (
    "MQTTClient",
    "MQTTError",
    "LocalError",
    "QueueFull",
    "ServerError",
    "Refused",
    "TransportError",
    "TimedOut",
    "STATE_NAMES",
    "parse_uri",
)

# ---------------------------------------------------------------------------
# Constants
# ---------------------------------------------------------------------------
# Control packet types (section 2.2.1, table 2.1): the first byte with its fixed flags (table 2.2)
# [MQTT-2.2.2-1] [MQTT5-2.1.3-1].
_TYPE_MASK = const(0xF0)
_CONNECT = const(0x10)
_CONNACK = const(0x20)
_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_PUBREC = const(0x50)
_PUBREL = const(0x62)  # [MQTT-3.6.1-1] [MQTT5-3.6.1-1]
_PUBCOMP = const(0x70)
_SUBSCRIBE = const(0x82)  # [MQTT-3.8.1-1] [MQTT5-3.8.1-1]
_SUBACK = const(0x90)
_UNSUBSCRIBE = const(0xA2)  # [MQTT-3.10.1-1] [MQTT5-3.10.1-1]
_UNSUBACK = const(0xB0)
_PINGRESP = const(0xD0)
_DISCONNECT = const(0xE0)
_AUTH = const(0xF0)  # [MQTT5-3.15.1-1]

# Whole packets that need no encoding (sections 3.12 and 3.14).
_PINGREQ_PACKET = const(b"\xc0\x00")
_DISCONNECT_PACKET = const(b"\xe0\x00")

# Flags of PUBLISH (section 3.3.1).
_DUP = const(0x08)
_QOS_MASK = const(0x06)
_QOS_SHIFT = const(1)
_RETAIN = const(0x01)
_QOS_MAX = const(1 + _QOS2)

# What a server sends besides PUBLISH and SUBACK. The remaining length is 2; of PINGRESP 0.
_RECEIVED = const(b"\x20\x40\x50\x62\x70\xb0\xd0")

# Connect flags (section 3.1.2.3, figure 3.4).
_CLEAN_SESSION = const(0x02)
_WILL = const(0x04)
_WILL_QOS_SHIFT = const(3)
_WILL_RETAIN = const(0x20)
_HAS_PASSWORD = const(0x40)
_HAS_USER = const(0x80)

# Connect return codes (section 3.2.2.3, table 3.1).
_REFUSALS = const(
    "protocol version not accepted;client id not accepted;server unavailable;"
    "bad user or password;not authorized;reserved"
)
_REFUSALS_LAST = const(6)

# Limits of the protocol: a two-byte length (section 1.5.3), and the largest packet, with four
# bytes of remaining length (section 2.2.3).
_STRING_BYTES_MAX = const(65535)
_PACKET_BYTES_LIMIT = const(268435460)
# PUBLISH without topic name and payload: fixed header, length of the name, identifier.
_PUBLISH_HEADER_MAX = const(9)
_ACK_BYTES = const(4)  # PUBACK, PUBREC, PUBREL, PUBCOMP
_ACK_ROOM = const(4 + _MQTT5)  # MQTT 5.0 may add a reason code

# Reason codes [5: 2.4].
_FAILED = const(0x80)  # and all above it
_MALFORMED = const(0x81)
_PROTOCOL_ERROR = const(0x82)
_CLIENT_ERROR = const(0x83)  # implementation specific
_ID_IN_USE = const(0x91)
_ID_NOT_FOUND = const(0x92)
_RECEIVE_MAXIMUM_EXCEEDED = const(0x93)
_ALIAS_INVALID = const(0x94)
_PACKET_TOO_LARGE = const(0x95)
_USE_ANOTHER_SERVER = const(0x9C)
_SERVER_MOVED = const(0x9D)
_CONTINUE_AUTH = const(0x18)
_REAUTHENTICATE = const(0x19)
_ALIASES = const(8)  # the most in use each way, even if the server allows more
_ALIAS = const(0x23)  # the property topic_alias
_ALIAS_TOPIC_MIN = const(4)  # bytes; an alias for a shorter topic name saves nothing
_ALIAS_BYTES = const(3)
_EXPIRY_BYTES = const(5)
_EXPIRY_ID = const(0x02)  # the property message_expiry_interval
# Kinds of subscription that the server lacks: bits of MQTTClient._lacks.
_LACKS_WILDCARDS = const(1)
_LACKS_IDENTIFIERS = const(2)
_LACKS_SHARED = const(4)
# Options of a subscription [5: 3.8.3.1].
_NO_LOCAL = const(0x04)
_RETAIN_AS_PUBLISHED = const(0x08)
_RETAIN_HANDLING_SHIFT = const(4)
# The most requests that wait for responses at once.
_REQUESTS = const(8)
_REFERENCE_BYTES_MAX = const(255)  # of a name in a Server Reference
_REFERENCES_MAX = const(8)  # of its names are looked at

if _MQTT5:
    # The properties [5: 2.2.2.2, table 2-4]. Each row: identifier, kind, packets in which the
    # application may send it / in which the server may, name. A packet is the first hex digit of
    # its first byte; 0: a will. Kinds: b: 0 or 1; h, i: two or four bytes; v: a variable byte
    # integer; a capital: not 0; s: text; d: bytes; p: pairs of texts.
    # (Not const(), which would put this long text into each function that reads it.)
    _PROPERTIES = (
        ";01b30/3:payload_format_indicator;02i30/3:message_expiry_interval;03s30/3:content_type"
        ";08s30/3:response_topic;09d30/3:correlation_data;0bV8/3:subscription_identifier"
        ";11ie/2:session_expiry_interval;12s/2:assigned_client_identifier;13h/2:server_keep_alive"
        ";15s/2f:authentication_method;16d/2f:authentication_data;17b1/:request_problem_information"
        ";18i0/:will_delay_interval;19b1/:request_response_information;1as/2:response_information"
        ";1cs/2e:server_reference;1fse/245679bef:reason_string;21H1/2:receive_maximum"
        ";22h1/2:topic_alias_maximum;23H/3:topic_alias;24b/2:maximum_qos;25b/2:retain_available"
        ";26p0138aef/2345679bef:user_property;27I1/2:maximum_packet_size"
        ";28b/2:wildcard_subscription_available;29b/2:subscription_identifier_available"
        ";2ab/2:shared_subscription_available;"
    )

    # Reason codes from 0x80 on [5: 2.4, table 2-6]. Without blanks: a build compresses texts with
    # blanks, and looking up one code would then take 5 KB.
    _REASONS = const(
        "unspecified_error;malformed_packet;protocol_error;implementation_specific_error;"
        "unsupported_protocol_version;client_identifier_not_valid;bad_user_name_or_password;"
        "not_authorized;server_unavailable;server_busy;banned;server_shutting_down;"
        "bad_authentication_method;keep_alive_timeout;session_taken_over;topic_filter_invalid;"
        "topic_name_invalid;packet_identifier_in_use;packet_identifier_not_found;"
        "receive_maximum_exceeded;topic_alias_invalid;packet_too_large;message_rate_too_high;"
        "quota_exceeded;administrative_action;payload_format_invalid;retain_not_supported;"
        "QoS_not_supported;use_another_server;server_moved;shared_subscriptions_not_supported;"
        "connection_rate_exceeded;maximum_connect_time;subscription_identifiers_not_supported;"
        "wildcard_subscriptions_not_supported"
    )

    _FROM_CLIENT = const(b"\x10\x82\xa2\xc0")  # CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ
    # The reason codes of a client's DISCONNECT [5: 3.14.2.1].
    _GOODBYES = const(b"\x00\x04\x80\x81\x82\x83\x90\x93\x94\x95\x96\x97\x98\x99")

# Packet identifiers 1..65279 belong to messages, those above to SUBSCRIBE and UNSUBSCRIBE, so
# the two never collide [MQTT-2.3.1-2].
_MESSAGE_IDS = const(65279)
_FILTER_ID_MIN = const(0xFF00)

# Small packets share one write of at most this many bytes, and never more than packet_bytes_max.
# A larger payload is written from where it lies, without a copy.
_OUTBOX_BYTES = const(1460)

# lwIP has 8,000 bytes and 32 segments for data that its peers have not acknowledged. When either
# is used up, a write blocks for seconds. One connection may have 6,400 bytes in flight. A segment
# takes 80 bytes more than it holds (with Nagle's algorithm 880 in all), and each write takes at
# least one segment. We don't see TCP's acknowledgements; only a PINGRESP proves that the server
# has received all before its PINGREQ. So count segments: above _SEGMENTS_PING send a PINGREQ,
# above _SEGMENTS_MAX nothing more until its PINGRESP. A large message takes eight at once.
_SEGMENT_BYTES = const(400)  # half of one: when packets are lost, the memory lies in pieces
_SEGMENTS_LARGE = const(6)
_SEGMENTS_PING = const(13)
_SEGMENTS_MAX = const(16)
# ECONNABORTED, ECONNRESET, as mbedTLS negates them: lwIP has dropped the connection.
_RESETS = const((103, 104, -103, -104))
_RESET_MS = const(300)  # the least time to wait for a reset

# One step() does a bounded amount of work: neither a flood from the server nor a callback that
# always publishes may keep the caller from its own loop.
_PACKETS_PER_STEP = const(16)
_READS_PER_STEP = const(64)  # discarding a packet of 256 MiB takes many steps
_FLUSHES_PER_STEP = const(32)
_LINES_PER_STEP = const(64)  # of /etc/hosts
# A longer new topic name that is not ASCII ends the step; so do longer properties.
_SLOW_BYTES = const(64)
# With more filters, each new topic name ends the step (with fewer, a long one), and so does each
# UNSUBACK and each subscription identifier.
_SLOW_FILTERS = const(16)
_PUT_OFFS_MAX = const(18)  # how often half of connect_timeout_ms is added to a deadline
_SLOW_MS = const(50)  # after callbacks this slow, packets due are sent before the next callback

# Topic names cached, each way: a cached name is not checked and matched again.
_KNOWN_TOPICS = const(8)
_KNOWN_TOPIC_BYTES_MAX = const(128)

# Packet identifiers of incoming QoS 2 messages held until their PUBREL. Servers keep 10 (HiveMQ),
# 20 (mosquitto) or 32 (EMQX) in flight to one client by default, more when connections break again
# and again. One message more ends the connection before that message is delivered; by then the
# server has PUBRECs to answer. Identifiers of earlier connections are forgotten instead.
_RECEIVED_MAX = const(256)

# Tokens and counters stay below 2**30: a larger integer is a heap object on a 32-bit board. A
# difference below half of the range means "after".
_COUNT_MASK = const(0x3FFFFFFF)
_COUNT_HALF = const(0x20000000)

# How long publish() waits for another thread, which needs far less.
_LOCK_WAIT_MS = const(20)
_LOCK_WAITS = const(10_000)
_LOCK_STALE_MS = const(1000)  # mend() releases a lock that one call holds for longer

# Resolver (RFC 1035, RFC 6762). After _DNS_RETRY_MS without an answer it asks again, or asks the
# next server, _DNS_TRIES times in all. An address is kept for a day at most.
_DNS_PORT = const(53)
_MDNS_PORT = const(5353)
_MDNS_ADDRESS = const("224.0.0.251")
_DNS_A = const(1)
_DNS_AAAA = const(28)
_DNS_NO_SUCH_NAME = const(3)
_DNS_RETRY_MS = const(1500)
_DNS_TRIES = const(4)
_DNS_TTL_MAX_S = const(86400)
_DNS_ANSWER_MAX = const(512)

_DRIVE_MS = const(1000)  # start(): the thread sleeps at most this long
_TICK_MS = const(10)  # start() on rp2: the timer calls step() this often
_NAP_MS = const(5)  # between two looks at another thread
_ISR_SLOTS = const(16)  # one more than the messages that interrupts may queue
_ISR_FIELDS = const(3)
# Errors for which some ports have no name.
_ERRNO_WORDS = const(
    ";23=no free socket;24=no free file;32=closed by the server;101=network is unreachable"
)
# Texts of the TLS libraries of MicroPython and CPython, and their meaning; empty: that of the
# next entry. A wrong clock causes several of these errors at once, so its entries come first.
_TLS_WORDS = const(
    "expired=the certificate has expired, or the clock is wrong;"
    "future=;"
    "not yet valid=the certificate is not valid yet: is the clock set?;"
    "match=the certificate is for another host name (tls_name=);"
    "self=;"
    "correctly=;"
    "issuer=the certificate is not trusted by ca=;"
    "-30592=;"
    "-28160=the server refused the handshake (client certificate, TLS version or name);"
    "-29184=no TLS behind this port"
)
_LINK_CHECK_MS = const(250)  # between two checks of a link that is down
_STABLE_MS = const(10_000)  # a connection that lasted this long ends the back-off
_DROPS_PER_CALL = const(1000)  # as many as a pipe can hold
_EXPIRY_MAX_S = const(259_200)  # 3 days: less than half a period of ticks_ms()
_YEAR_MIN = const(2024)  # an earlier clock was never set: boards start in 2000 or 2021
_TLS_EOF = const(-0x7280)  # MBEDTLS_ERR_SSL_CONN_EOF: the peer closed without close_notify
_TLS_ERRNO_MAX = const(-256)  # mbedTLS's own error numbers are below
_TLS_ALERT = const(-0x7780)  # MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE
_ALERT = const(0x15)  # record type of an alert; its last byte is the reason (RFC 5246 7.2)
_ALERT_BYTES = const(7)
_FAMILY = const(5)  # index into a server, after parse_uri()'s fields: the record type to try first
_ADDRESS = const(6)  # ... which of its addresses to try first
_NO_ADDRESS = const(-1)  # MQTTError.errno: the name has no address of this family
_POLLNVAL = const(0x20)  # closed; not exported by `select`
_BACK_OFF_MS = const(50)  # the least that is doubled: reconnect_min_ms may be 0
_KICKS_MIN = const(3)  # this many short connections in a row are no accident
# Return codes and reason codes that no one message or filter causes: refused as a whole; busy,
# shutting down, keep alive, another client, rate, an administrator, another server, too long.
_SAYS_ALL = const(b"\x01\x02\x03\x04\x89\x8b\x8d\x8e\x96\x98\x9c\x9d\x9f\xa0")
_MS_MAX = const(0x0FFFFFFF)  # 3.1 days: well inside half a period of ticks_ms()
_AHEAD_MAX_MS = const(0x18000000)  # 4.7 days: no deadline is farther ahead

# The states of the connection, as in `MQTTClient.state`.
_DOWN = const(0)  # no connection, and none wanted
_WAITING = const(1)  # the pause before the next attempt, or the link is down
_RESOLVING = const(2)  # host name to addresses
_TCP_CONNECTING = const(3)  # until the first byte of CONNECT, or of TLS, is accepted
_TLS_HANDSHAKE = const(4)  # until the first byte of CONNECT is accepted
_AWAITING_CONNACK = const(5)  # CONNECT sent. 3.1.4 would let us send more; we wait
_SUBSCRIBING = const(6)  # filters and messages in flight are sent again
_ONLINE = const(7)  # in service
_CLOSING = const(8)  # draining; then DISCONNECT, then the socket is closed

STATE_NAMES = (
    "DOWN",
    "WAITING",
    "RESOLVING",
    "TCP_CONNECTING",
    "TLS_HANDSHAKE",
    "AWAITING_CONNACK",
    "SUBSCRIBING",
    "ONLINE",
    "CLOSING",
)
# The stages of errors: one word for each state, then one for each timer that ends a connection.
# One string is one object; a tuple would take 13 more.
_STAGE_WORDS = const(
    "DOWN LINK DNS TCP TLS CONNACK SUBACK ONLINE DISCONNECT PINGRESP ACK PACKET WRITE"
)

# Deadlines while in service: index into `_timers`. Those from _TIMER_PINGRESP on end the
# connection, with their word of _STAGE_WORDS as the stage.
_TIMER_STATE = const(0)  # ONLINE: the connection is stable now; CLOSING: draining ends
_TIMER_PING = const(1)  # keep alive: check when the last packet was sent
_TIMER_EXPIRY = const(2)  # a queued message has expired
_TIMER_PINGRESP = const(3)
_TIMER_ACK = const(4)  # check the oldest unacknowledged packet
_TIMER_PACKET = const(5)  # a half-received packet makes no progress
_TIMER_WRITE = const(6)  # the socket accepts nothing
_TIMERS = const(7)
_DUE = const(7)  # after the timers: the earliest of them, or an earlier time
_NO_ANSWER = const("nothing came within the time allowed")
_TIMER_WORDS = const(6)  # a timer plus this is the index of its word in _STAGE_WORDS

# Flags of a slot, above the first byte of its PUBLISH.
_SENT = const(0x100)  # put into the outbox, in this session: a resumed session resends with DUP
_FLYING = const(0x200)  # QoS 1, 2: sent on this connection, and not acknowledged in full
_RELEASED = const(0x400)  # QoS 2: PUBREC came, PUBREL is due or sent
_MUTE = const(0x800)  # cancelled or expired after it was sent: on_dropped was its last callback
_COUNTED = const(0x1000)  # sent at least once, in any session
_EXPIRES = const(0x2000)  # has an expiry: so _sending() takes the slow path
_HAS_PROPERTIES = const(0x4000)  # has properties: so _sending() takes the slow path
_TURN_SHIFT = const(15)  # bits above, QoS 2: the turn of its PUBREC, 1.._TURNS; 0: none
_TURNS = const(0x7FFF)
_LASTING = const(0x7AFF)  # what a new session keeps: all but _SENT, _RELEASED and the turn

# A row of the table of filters: a list of eight, or nine.
_FILTER = const(0)
_CALLBACK = const(1)
_QOS = const(2)  # asked for; negative: an UNSUBSCRIBE
_TOKEN = const(3)  # negative: the application knows the answer
_STATE = const(4)
_ID = const(5)
_IS_LAST = const(6)  # no later row replaces this one
_MARK = const(7)  # _QUEUED: `sent_count` of the outbox once it is written; _ASKED: ticks_ms() then
_OPTIONS = const(8)  # MQTT 5.0: (bits of the options, properties, subscription identifier or 0)
# Values of _STATE: below _UNSENT it is answered, above it waits for its answer.
_GRANTED = const(0)
_REFUSED = const(1)  # the next connection asks again
_UNSENT = const(2)
_QUEUED = const(3)  # its packet is in the outbox
_ASKED = const(4)  # its packet is written

# What happens to a message that finds no room in the pipe, in the words of the API. "latest":
# while offline, only the newest message of each topic name stays queued.
_REFUSE = const(0)
_DROP_OLDEST = const(1)
_LATEST = const(2)
_POLICIES = const(("refuse", "drop_oldest", "latest"))

_HEX_DIGITS = const("0123456789abcdefABCDEF")
_HASH = const(0x23)
_PLUS = const(0x2B)
_DOLLAR = const(0x24)

# Counters of the client: indices; `stats` has their names.
_N_ATTEMPTS = const(0)  # to connect, failed ones included
_N_CONNECTIONS = const(1)  # CONNACK accepted
_N_FILTERS = const(2)  # tokens not given to messages
_N_SENT = const(3)  # messages: QoS 0, written; QoS 1, 2, put into the outbox the first time
_N_AGAIN = const(4)  # messages sent again, PUBREL included
_N_ACKNOWLEDGED = const(5)  # QoS 1 and 2
_N_DROPPED = const(6)
_N_RECEIVED = const(7)  # messages delivered to the application
_N_DUP = const(8)  # received with DUP
_N_SUPPRESSED = const(9)  # QoS 2: duplicates, not delivered again
_N_TOO_LARGE = const(10)  # received, larger than packet_bytes_max
_N_IGNORED = const(11)  # unexpected acknowledgements, messages dropped
_N_PING_MS = const(12)  # from the last PINGREQ to its PINGRESP
_COUNTS = const(13)

# `io.IOBase.ioctl` (py/stream.h of MicroPython).
_IOCTL_POLL = const(3)

# step() is not reentrant: not from a callback, a coroutine, or beside start().
_IS_DRIVEN = const("step() runs already: by start(), run() or around a callback")

# `x is _ZERO` excludes False and 0.0, which are equal to it.
_ZERO = const(0)

# Builtins that every message needs, as globals: MicroPython searches the builtins one by one.
_len = len
_isinstance = isinstance
_bytes = bytes
_NAMES = (str, bytes)  # a tuple in a call is allocated each time
if _MQTT5:
    _NO_PROPERTIES = {}
    _NO_TOPIC = b"\x00\x00"  # the empty topic name of a PUBLISH with only a topic alias


class _KeyOf:
    def __getitem__(self, key):
        return key


# Slices made once: `buf[:] = b""` allocates a slice each time. On MicroPython an emptied bytearray
# keeps its memory: append() and extend() allocate nothing until it is longer than ever before.
_EVERYTHING = _KeyOf()[:]
_NAME = _KeyOf()[4:]  # of a small PUBLISH, behind its header
del _KeyOf  # a class takes more than 100 bytes


# How many ms are left until end_ms; 0 or less: none. No deadline is more than _AHEAD_MAX_MS ahead:
# one that seems to be has passed, and nobody called step() for a week (ticks_ms() wraps).
def _left_of(end_ms, now_ms):
    left_ms = ticks_diff(end_ms, now_ms)
    return left_ms if left_ms <= _AHEAD_MAX_MS else -_MS_MAX


# The earlier of two deadlines; the other one may be None.
def _earlier(at_ms, other_ms, now_ms):
    if other_ms is None or _left_of(at_ms, now_ms) < _left_of(other_ms, now_ms):
        return at_ms
    return other_ms


# ---------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------
class MQTTError(Exception):
    """Base of every error that this module raises on purpose.

    MQTTError
      LocalError       your call breaks a rule of MQTT or of this client
      QueueFull        no room in the pipe now; try again after step()
      ServerError      the server broke the protocol; the connection is closed
      Refused          CONNACK with `.return_code` 1..5 (section 3.2.2.3). MQTT 5.0: any packet
                       with a reason code of a failure
      TransportError   the network failed: `.stage` of the work, `.errno` or None
      TimedOut         a deadline passed: `.stage` tells which one

    The stages are the states LINK, DNS, TCP, TLS, CONNACK, SUBACK, ONLINE and DISCONNECT, and
    the timeouts PINGRESP, ACK, PACKET and WRITE.

    MQTT 5.0 adds, each possibly None: `.reason_code` (int), `.reason` (the same in words),
    `.properties` of the server's packet (dict), `.token` of the call that failed.

    The call that causes a LocalError or a QueueFull raises it. The others never leave step():
    on_offline gets them, or on_error if the connection goes on.
    """

    def __init__(self, text, stage=None, errno=None, return_code=None):
        super().__init__(text if stage is None else "%s: %s" % (stage, text))
        self.stage = stage
        self.errno = errno
        self.return_code = return_code

    if _MQTT5:
        reason_code = reason = properties = token = None


class LocalError(MQTTError):
    pass


class QueueFull(MQTTError):
    pass


class ServerError(MQTTError):
    if _MQTT5:
        reason_code = _MALFORMED
        reason = "malformed packet"


class Refused(MQTTError):
    pass


class TransportError(MQTTError):
    pass


class TimedOut(MQTTError):
    pass


# Texts that several errors share.
_NOT_BUILT = const("%s is not in this build")
_SERVER_CLOSED = const("closed by the server")
_ID_0 = const("a packet with packet id 0 [MQTT-2.3.1-1]")
_OUT_OF_MEMORY = const("out of memory")
_IN_USE = const("the pipe is in use by a call that was interrupted: call step()")
_TOO_LARGE = const("%s of %d bytes does not fit: raise packet_bytes_max, %d")
_IN_VAIN = const("%s would wait for nothing")
if _MQTT5:
    _NEEDS_5 = const("%s: for protocol=5")
_ALL_TAKEN = const("all %d slots are taken (pipe_slots)")

# Errors after which the next address is tried. Made here, because `except (A, B)` allocates its
# tuple while the exception is handled: in a full heap, that raises MemoryError out of the handler.
if _RESOLVER or _TLS:
    _FAILURES = (OSError, ValueError, MQTTError)

# Made in advance: nobody can make it when memory is used up.
_NO_MEMORY = TransportError(_OUT_OF_MEMORY)
if _ASYNCIO:
    # Raised again and again: each time MicroPython adds to its traceback, which only a builtin
    # exception lets go of.
    _NOT_KEPT = MemoryError(_OUT_OF_MEMORY)

# Stands for "none" where None could be an argument.
_NOTHING = object()


# ---------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------
# Each argument of the application is checked here, once, and becomes bytes or an integer in range.


def _integer(name, value, start, end):
    # A bool is no number here, though CPython says so: publish("t", "x", True) meant retain.
    if not _isinstance(value, int) or value is True or value is False or not start <= value <= end:
        raise LocalError("%s is %r, must be an int in %d..%d" % (name, value, start, end))
    return value


# A bool; 0 and 1 will do.
def _flag(name, value):
    if value not in (0, 1) or _isinstance(value, float):
        raise LocalError("%s is %r, must be a bool" % (name, value))
    return value


# Text or binary to bytes. A bytearray or memoryview is copied: its owner may change it before the
# packet is sent. Lone surrogates are encoded, as a board does; _to_field() rejects them.
def _to_bytes(name, value):
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytearray, memoryview)):
        try:
            return bytes(value)
        except ValueError:  # CPython: it was released
            raise LocalError("%s is a released memoryview" % name)
    advice = ": use str() or json.dumps()" if name == "payload" else ""
    raise LocalError("%s must be str or bytes, not %s%s" % (name, type(value).__name__, advice))


# A payload may also be a number: as str() writes it.
def _to_payload(value):
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
    except ValueError as error:  # CPython writes no int of 4,300 digits
        raise LocalError("payload: %s: use str() or json.dumps()" % error)
    return _to_bytes("payload", value)


# True if `buf[start:end]` is UTF-8 that MQTT allows (section 1.5.3): well formed, and without
# surrogates [MQTT-1.5.3-1] and U+0000 [MQTT-1.5.3-2]. MicroPython's own decoder accepts surrogates
# and overlong forms. EF BB BF is a character like any other and is kept
# [MQTT-1.5.3-3] [MQTT5-1.5.4-3]. Allocates nothing.
def _is_utf8(buf, start, end):
    more = least = character = 0  # `more` bytes of the character follow
    for i in range(start, end):
        byte = buf[i]
        if more:
            if byte & 0xC0 != 0x80:
                return False
            character = character << 6 | byte & 0x3F
            more -= 1
            # U+D800..U+DFFF are surrogates, U+10FFFF is the last character.
            if not more and (character < least or character >> 11 == 0x1B or character > 0x10FFFF):
                return False
        elif byte > 0x7F:
            # Bytes that follow, the lowest code point that needs so many, and this character's
            # first bits (Unicode, tables 3-6 and 3-7). A stray 0x80..0xBF makes these bits
            # negative: below `least`, so refused.
            if byte < 0xE0:
                more = 1
                least = 0x80
                character = byte - 0xC0
            elif byte < 0xF0:
                more = 2
                least = 0x800
                character = byte - 0xE0
            else:
                more = 3
                least = 0x10000
                character = byte - 0xF0
        elif not byte:
            return False
    return not more


# A UTF-8 encoded string or a binary field of the protocol (section 1.5.3), as bytes.
def _to_field(name, value, text=True):
    data = _to_bytes(name, value)
    if len(data) > _STRING_BYTES_MAX:
        raise LocalError("%s is %d bytes long, at most 65535 fit [1.5.3]" % (name, len(data)))
    if text and not _is_utf8(data, 0, len(data)):
        raise LocalError("%s is not UTF-8 without U+0000 [MQTT-1.5.3-1, -2]: %r" % (name, data))
    return data


# A topic name [MQTT-3.3.2-1, -2] [MQTT-4.7.1-1] or a topic filter [MQTT-3.8.3-1] [MQTT-3.10.3-1]
# [MQTT-4.7.1-2, -3]; for both [MQTT-4.7.3-1, -2, -3]. MQTT 5.0: [MQTT5-3.3.2-1, -2]
# [MQTT5-3.8.3-1] [MQTT5-3.10.3-1] [MQTT5-4.7.0-1] [MQTT5-4.7.1-1, -2] [MQTT5-4.7.3-1, -2, -3].
def _to_topic(value, filter=False, name="topic name"):
    if filter:
        name = "topic filter"
    data = _to_field(name, value)
    rule = None if data else "is empty [MQTT-4.7.3-1]"
    if b"+" in data or b"#" in data:
        levels = data.split(b"/")
        if not filter:
            rule = "holds a wildcard [MQTT-3.3.2-2]"
        elif b"#" in levels[:-1]:
            rule = "has # before its last level [MQTT-4.7.1-2]"
        else:
            for level in levels:
                if len(level) > 1 and (b"+" in level or b"#" in level):
                    rule = "has a wildcard not alone in its level [MQTT-4.7.1-3]"
    if rule:
        raise LocalError("%s %s: %r" % (name, rule, value))
    return data


# str.isdigit() accepts the digits of other scripts as well.
def _is_number(text, start, end):
    return 0 < len(text) < 6 and not text.strip("0123456789") and start <= int(text) <= end


def is_literal(host: str) -> bool:
    """True if `host` is an IPv4 address, or has the colons of an IPv6 address.

    Allocates: its parts. Blocks: never.
    """
    parts = host.split(".")
    for part in parts:
        # To some ports' getaddrinfo() "010" is octal.
        if not _is_number(part, 0, 255) or len(part) > 1 and part[0] == "0":
            return host.count(":") > 1
    return len(parts) == 4


# An IPv6 address as RFC 4291 writes it: up to eight groups, perhaps one "::" for groups of zero,
# perhaps an IPv4 address as the last two. DNS would look a malformed one up as a name.
def _is_ipv6(text):
    last = text.rpartition(":")[2]
    if is_literal(last):
        text = text[: -len(last)] + "0:0"
    head, gap, tail = text.partition("::")
    parts = head.split(":") if head else []
    parts += tail.split(":") if tail else []
    for part in parts:
        if not 0 < len(part) < 5 or part.strip(_HEX_DIGITS):
            return False
    return len(parts) < 8 if gap else len(parts) == 8


def parse_uri(uri: str) -> tuple:
    """Split a server's URI into its parts.

    Args:
        uri: str, `mqtt://[user[:password]@]host[:port]` or the same with `tcp://`;
            `mqtts://` and `ssl://` mean TLS. host: a name, an IPv4 address, or an IPv6
            address in brackets. User and password may contain percent-encoded bytes.

    Returns: (host: str, port: int, user: bytes or None, password: bytes or None, is_tls: bool)

    Raises:
        LocalError: the URI is wrong. Its text leaves out user and password.

    Allocates: the parts. Blocks: never.
    """
    if not isinstance(uri, str):
        raise LocalError("URI must be str, not %s" % type(uri).__name__)
    scheme, _, rest = uri.partition("://")
    secret, at, rest = rest.rpartition("@")
    scheme = scheme.lower()
    is_tls = scheme in ("mqtts", "ssl")
    if rest[-1:] == "/":
        rest = rest[:-1]
    literal, bracket, rest = rest.rpartition("]")
    host, colon, port = rest.partition(":")
    if bracket:  # only a port may follow it
        is_host = not host and literal[:1] == "[" and _is_ipv6(literal[1:])
        host = literal[1:] if is_host else ""
    if not colon:
        port = "8883" if is_tls else "1883"
    forbidden = '/[]\\"<>?#%\x7f'
    for character in host:
        if character <= " " or 127 < ord(character) < 161 or character in forbidden:
            host = ""
    fields = []  # user and password, if given
    rule = None
    if not is_tls and scheme not in ("mqtt", "tcp"):
        rule = "must begin with mqtt://, tcp://, mqtts:// or ssl://"
    elif is_tls and not (_TLS and tls):
        rule = _NOT_BUILT % "needs TLS, which"
    elif not host or not _is_number(port, 1, 65535):
        rule = "has no host[:port] as broker.example or [::1]:1883, port 1..65535"
    elif at:
        try:
            if min(secret + " ") < " " or 127 in secret.encode():
                raise ValueError
            for text in secret.split(":", 1):
                parts = text.split("%")  # RFC 3986
                field = parts[0].encode()
                for part in parts[1:]:
                    if not part[1:] or part[:2].strip(_HEX_DIGITS):
                        raise ValueError
                    field += bytes((int(part[:2], 16),)) + part[2:].encode()
                fields.append(_to_field("", field, not fields))
        except ValueError:
            rule = "has a control character, or a % without two hex digits"
        except LocalError:  # its own text would show user or password
            rule = "has a user that is not UTF-8 without U+0000 [MQTT-1.5.3-1, -2]"
    if rule:
        raise LocalError(
            "URI %s: %r" % (rule, "***@" + uri.rpartition("@")[2] if "@" in uri else uri)
        )
    if _RESOLVER and not is_literal(host):
        encode_query(0, host, _DNS_A)  # raises if DNS cannot carry this name
    fields += (None, None)
    return host, int(port), fields[0], fields[1], is_tls


# ---------------------------------------------------------------------------
# Packets (section 3): encoding
# ---------------------------------------------------------------------------
# The Outbox encodes PUBLISH and acknowledgements in its buffer. Rare packets become bytes here.


def append_remaining_length(buf, value):
    """Append `value` as a Remaining Length.

    Args:
        buf: bytearray, 1 to 4 bytes are appended.
        value: bytes that follow the fixed header, 0..268,435,455. Not checked: the check
            against `packet_bytes_max` comes before.

    Allocates: nothing while `buf` has room. Spec: section 2.2.3.
    """
    while value > 0x7F:
        buf.append(value & 0x7F | 0x80)
        value >>= 7
    buf.append(value)


# A string or binary field with its two byte length (section 1.5.3).
def _field(data):
    return len(data).to_bytes(2, "big") + data


def _packet(first_byte, body):
    head = bytearray((first_byte,))
    append_remaining_length(head, len(body))
    return bytes(head) + body


def encode_connect(
    client_id,
    clean_session,
    keep_alive_s,
    user,
    password,
    will,
    properties=None,  # _MQTT5
    will_properties=b"",  # _MQTT5
):
    """Return a CONNECT packet.

    Args:
        client_id, user, password: bytes; user and password may be None: absent.
        clean_session: bool. keep_alive_s: 0..65535.
        will: None or (topic_name: bytes, payload: bytes, qos: 0..2, retain: bool).
        properties, will_properties: bytes, without their length; None: MQTT 3.1.1.

    Allocates: the packet and its parts. Spec: section 3.1.
    """
    flags = _CLEAN_SESSION if clean_session else 0
    # The order of the payload's fields [MQTT-3.1.3-1, -3] [MQTT5-3.1.3-1, -3].
    body = _field(client_id)
    # Without a will, none of its flags and fields
    # [MQTT-3.1.2-9, -11, -13, -15] [MQTT5-3.1.2-9, -11, -13].
    if will:
        topic_name, payload, qos, retain = will
        flags |= _WILL | qos << _WILL_QOS_SHIFT | (_WILL_RETAIN if retain else 0)
        if _MQTT5 and properties is not None:
            body += _with_length(will_properties)
        body += _field(topic_name) + _field(payload)
    if user is not None:  # [MQTT-3.1.2-18, -19] [MQTT5-3.1.2-16, -17]
        flags |= _HAS_USER
        body += _field(user)
    if password is not None:  # [MQTT-3.1.2-20, -21] [MQTT5-3.1.2-18, -19]
        flags |= _HAS_PASSWORD
        body += _field(password)
    head = b"\x00\x04MQTT\x04" + bytes((flags,)) + keep_alive_s.to_bytes(2, "big")
    if _MQTT5 and properties is not None:  # [MQTT5-3.1.2-1] [MQTT5-2.2.2-1]
        head = b"\x00\x04MQTT\x05" + head[7:] + _with_length(properties)
    return _packet(_CONNECT, head + body)


def encode_filter(
    packet_id,
    topic_filter,
    qos,
    options=None,  # _MQTT5
):
    """Return a SUBSCRIBE for one filter, or an UNSUBSCRIBE (qos: -1).

    Args:
        packet_id: 1..65535. topic_filter: bytes.
        options: _OPTIONS of the row of Filters; None: MQTT 3.1.1.

    Allocates: the packet and its parts. Spec: sections 3.8 and 3.10.
    """
    # One filter: [MQTT-3.8.3-3] [MQTT-3.10.3-2] [MQTT5-3.8.3-2] [MQTT5-3.10.3-2]
    body = packet_id.to_bytes(2, "big") + _field(topic_filter)
    if _MQTT5 and options is not None:
        body = body[:2] + _with_length(options[1]) + body[2:]
        if qos >= 0:
            qos |= options[0]  # the reserved bits are 0 [MQTT5-3.8.3-5]
    if qos < 0:
        return _packet(_UNSUBSCRIBE, body)
    return _packet(_SUBSCRIBE, body + bytes((qos,)))


# ---------------------------------------------------------------------------
# Properties (MQTT 5.0, section 2.2.2)
# ---------------------------------------------------------------------------
# The application sees them as a dict; the keys are the specification's names in snake_case.
# `user_property` is a list of pairs of str, `subscription_identifier` of a message a list of int.

if _MQTT5:
    # The row of _PROPERTIES that begins at `at`: (identifier, kind, given in, received in, name).
    def _property(at):
        row, _, name = _PROPERTIES[at + 1 : _PROPERTIES.find(";", at + 1)].partition(":")
        given, _, received = row[3:].partition("/")
        return int(row[:2], 16), row[2], given, received, name

    # The value of the property with this identifier.
    def _value(properties, identifier, default=None):
        return properties.get(_property(_PROPERTIES.find(";%02x" % identifier))[4], default)

    # Prefix `data` with its length, a variable byte integer.
    def _with_length(data):
        head = bytearray()
        append_remaining_length(head, len(data))  # [MQTT5-1.5.5-1]
        return bytes(head) + data

    # What payload_format_indicator says has to be true [5: 3.1.3.2.3, 3.3.2.3.2]. U+0000 may be.
    def _check_format(properties, payload):
        if properties and _value(properties, 0x01):
            try:
                is_right = len(str(payload, "utf-8")) == len(payload)  # ASCII
                if not is_right:
                    data = bytes(payload).replace(b"\0", b" ")
                    is_right = _is_utf8(data, 0, len(data))
            except ValueError:
                is_right = False
            if not is_right:
                raise LocalError("payload_format_indicator is 1, but the payload is not UTF-8")

    # An error to raise: a packet that could be read, but the protocol does not allow it.
    def _breach(text):
        return _server_error(_PROTOCOL_ERROR, text)

    # An error to raise: the server broke the protocol (text), or lacks what we need (no text).
    def _server_error(reason_code, text=None, about=""):
        reason = _reason(reason_code)
        error = ServerError(text) if text else LocalError("the server says: " + reason + about)
        error.reason_code = reason_code
        error.reason = reason
        return error

    def _reason(reason_code):
        at = 0
        if reason_code == 0 or reason_code == 4:  # of the server's DISCONNECT
            return "normal disconnection" if not reason_code else "disconnect with will message"
        for _ in range(_FAILED, reason_code):
            at = _REASONS.find(";", at) + 1
            if not at:
                break
        if not at and reason_code != _FAILED:
            return "reason code 0x%02x" % reason_code
        return _REASONS[at:].partition(";")[0].replace("_", " ")

    # The error for a packet whose reason code means failure.
    def _refusal(kind, reason_code, properties, stage=None):
        reason = _reason(reason_code)
        words = "%s, %s (0x%02x)" % (kind, reason, reason_code)
        said = _value(properties, 0x1F)
        for more in (said, _value(properties, 0x1C)):  # 0x1C: server_reference
            if more:
                words += ": %r" % more  # %r: the text may hold control characters
        error = Refused(words, stage, None, reason_code)
        error.reason_code = reason_code
        error.reason = said or reason
        error.properties = properties
        return error

    def encode_properties(properties, first_byte):
        """Return an application's properties as bytes, without their length.

        Args: properties: dict or None. first_byte: of the packet; 0: a will.

        Raises:
            LocalError: a name is unknown or not allowed in this packet, or a value is wrong.

        Allocates: the bytes. Spec: [5: 2.2.2].
        """
        data = b""
        if properties is None:
            return data
        if not isinstance(properties, dict):
            raise LocalError("properties is %r, must be a dict" % (properties,))
        for name in properties:
            at = _PROPERTIES.find(":%s;" % (name,))
            row = _property(_PROPERTIES.rfind(";", 0, max(at, 1)))
            identifier, kind, given, _, known = row
            if name != known or "%x" % (first_byte >> 4) not in given:
                raise LocalError("%r is no property that can be given here" % (name,))
            value = properties[name]
            if kind == "p":
                if not isinstance(value, (list, tuple)):
                    raise LocalError("user_property is %r, must be a list of pairs" % (value,))
            else:
                value = (value,)
            for one in value:
                data += bytes((identifier,))
                if kind == "p":
                    if not isinstance(one, (list, tuple)) or len(one) != 2:
                        raise LocalError("user_property has %r, must be pairs" % (one,))
                    data += _field(_to_field(name, one[0])) + _field(_to_field(name, one[1]))
                elif kind == "s" or kind == "d":  # [MQTT5-3.3.2-19]
                    one = _to_field(name, one, kind == "s")
                    if name == "response_topic":
                        _to_topic(one, False, name)  # [MQTT5-3.3.2-13, -14]
                    data += _field(one)
                else:
                    data += _encode_number(name, kind, one)
        return data

    def _encode_number(name, kind, value):
        if kind == "b":
            value = int(value) if value is True or value is False else value
            return bytes((_integer(name, value, 0, 1),))
        least = int(kind < "a")
        if kind == "V":
            buf = bytearray()
            append_remaining_length(buf, _integer(name, value, least, 0x0FFFFFFF))
            return bytes(buf)
        size = 2 if kind in "hH" else 4
        return _integer(name, value, least, (1 << 8 * size) - 1).to_bytes(size, "big")

    # A variable byte integer [5: 1.5.5]: (value, end). IndexError: malformed.
    def _decode_number(data, at):
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift == 28:
                raise IndexError
        if shift and not byte:  # longer than necessary [MQTT5-1.5.5-1]
            raise IndexError
        return value, at

    def decode_properties(buf, at, end, first_byte):
        """Return (properties, end of the properties) of a packet of the server.

        Args:
            buf: the packet; at: index of the length of its properties; end: of the packet.
            first_byte: of the packet.

        Raises:
            ServerError, with a reason code: a property is malformed, unknown, repeated, or not
                allowed in this packet.

        Allocates: the dict and its values. Spec: [5: 2.2.2].
        """
        properties = {}
        name = "length"
        try:
            size, at = _decode_number(memoryview(buf)[:end], at)
            if size > end - at:
                raise IndexError
            data = bytes(memoryview(buf)[at : at + size])
            end = at + size
            at = 0
            row = other = (None, "", "")
            while at < size:
                # Only two kinds may be repeated: of these, look up the first one.
                if data[at] != row[0]:
                    row, other = other, row
                if data[at] != row[0]:
                    name = "0x%02x" % data[at]
                    row = _PROPERTIES.find(";" + name[2:])
                    if row < 0:
                        raise IndexError
                    identifier, kind, _, received, name = _property(row)
                    if "%x" % (first_byte >> 4) not in received:
                        raise _server_error(_MALFORMED, "property %s in a wrong packet" % name)
                    row = identifier, kind, name
                identifier, kind, name = row
                at += 1
                value, at = _decode_value(data, at, kind)
                if kind == "p":
                    second, at = _decode_value(data, at, kind)
                    value = value, second
                elif kind < "a" and not value or kind == "b" and value > 1:
                    raise _breach("property %s is %d" % (name, value))
                if kind == "p" or identifier == 0x0B:
                    properties.setdefault(name, []).append(value)
                elif name in properties:
                    raise _breach("property %s twice" % name)
                else:
                    properties[name] = value
        except IndexError:
            raise _server_error(_MALFORMED, "malformed property: " + name)
        return properties, end

    def _decode_value(data, at, kind):
        if kind == "V":
            return _decode_number(data, at)
        size = "b_h_i".find(kind.lower())
        if size < 0:
            size = data[at] << 8 | data[at + 1]
            at += 2
        else:
            size = size or 1
        value = data[at : at + size]
        if len(value) < size:
            raise IndexError
        if kind == "s" or kind == "p":
            data = value
            try:
                value = str(data, "utf-8")
            except ValueError:
                raise IndexError
            # ASCII needs no check byte by byte. [MQTT5-1.5.4-1, -2] [MQTT5-1.5.7-1]
            if data.find(b"\0") >= 0 or len(value) != size and not _is_utf8(data, 0, size):
                raise IndexError
        elif kind != "d":
            value = int.from_bytes(value, "big")
        return value, at + size


# ---------------------------------------------------------------------------
# Pipe: messages from publish() to their end
# ---------------------------------------------------------------------------
# A ring of slots in parallel lists; slot `at` is one item of each:
#
#   firsts    first byte of its PUBLISH, the flags above it (_SENT, ...), and the turn of its
#             PUBREC; 0: free. Valid only in head..tail
#   tokens    what publish() returned
#   topics, payloads   bytes
#   marks     while in the Outbox: the `sent_count` at which its last byte is written; after that,
#             at QoS 1 and 2: ticks_ms() of that write
#   extras    ticks_ms() of its expiry, or None. With _RELEASED, if it was given up before its
#             PUBREC: how often its PUBREL was resent
#   properties   MQTT 5.0: bytes, without their length, a topic alias and an expiry; or None.
#             Valid only with _HAS_PROPERTIES: Ctrl-C may leave those of another message
#
# The top of this file explains head, left, sent and tail, and who moves them. step() sets
# `is_looking` while it takes messages or handles an acknowledgement. A writer that drops or moves
# queued messages sets `is_dropping`, waits until `is_looking` is clear, and step() leaves the ring
# alone until `is_dropping` is clear.
#
# A poll sees `is_signalled`: publish() sets it, and step() clears it before it reads the ring.
# publish() sets it last, because the CPython shim then wakes a sleeping poll. `has_chores` makes
# step() do more than move messages: set it after the change that it announces, and before
# `is_signalled`.
#
# The ring has one slot more than asked for: one is always empty, or a full ring would look empty.


class Pipe(IOBase):
    def __init__(
        self,
        size,
        packet_bytes_max,
        bytes_max=_COUNT_MASK,  # _OFFLINE
        policy=_REFUSE,  # _OFFLINE
    ):
        self._lock = allocate_lock()
        self._acquire = self._lock.acquire  # bound once: every message needs them
        self._release = self._lock.release
        self._held_ms = None  # since when mend() has found the lock taken
        self._held_token = 0  # last_token at _held_ms
        self.packet_bytes_max = packet_bytes_max
        size += 1
        self.size = size
        self.after = list(range(1, size)) + [0]  # the next slot of each
        self.firsts = [0] * size
        self.tokens = [0] * size
        self.topics = [None] * size
        self.payloads = [None] * size
        self.marks = [0] * size
        self.head = self.left = self.sent = self.tail = 0
        self.last_token = 0
        self.is_signalled = False
        self.has_chores = False
        # A message of at most this many bytes always fits a packet. -1: place() checks each.
        self.easy_bytes = -1 if _OFFLINE and policy else packet_bytes_max - _PUBLISH_HEADER_MAX
        if _QOS2:
            self.last_turn = 0
        if _OFFLINE:
            self.extras = [None] * size
            self.fields = (  # what _copy() copies: here, as a tuple takes memory each time
                self.tokens,
                self.topics,
                self.payloads,
                self.marks,
                self.extras,
                self.firsts,
            )
        if _MQTT5:
            self.properties = None  # a list for MQTT 5.0
            self.our_bytes_max = packet_bytes_max  # packet_bytes_max may be the server's, if lower
        if _ASYNCIO:
            self.is_ready = None  # a function of run(), which ioctl() also asks
        if _OFFLINE:
            self.policy = policy
            self.bytes_max = bytes_max  # of topic names and payloads
            self.is_online = False  # True: "latest" drops nothing
            self.is_dropping = self.is_looking = False
            self.is_mixed = False  # "latest" replaced a message: tokens are not in order
            self.next_expiry_ms = None  # the earliest of queued messages, or an earlier time
            if _STATS:
                self.expired_count = 0  # total, modulo 2**30
            self.dropped = []  # tokens for on_dropped
            self.bytes_left = bytes_max  # free bytes, at least; counted again when too few

    def ioctl(self, request, value):
        """Answer a poll (MicroPython's stream protocol). Allocates: nothing."""
        if request == _IOCTL_POLL:
            if self.is_signalled or _ASYNCIO and self.is_ready is not None and self.is_ready():
                return value & select.POLLIN
            return 0
        return -1  # nothing else is supported; there is no file descriptor

    # -- writers ------------------------------------------------------------

    def place(
        self,
        policy=None,  # _OFFLINE
        expiry_ms=None,  # _OFFLINE
    ):
        """Queue the message in the slot at tail under a new token, and release the lock.

        The caller has taken the lock and filled the slot: nobody sees it before tail moves.

        Args: policy: for this message; None: that of the pipe. expiry_ms: ticks_ms() or None.

        Returns: The token, 1..2**30-1.

        Raises:
            QueueFull: no slot is free, or too many bytes are queued; nothing has changed.
            LocalError: it would never fit.

        Blocks: for some microseconds while another thread holds the lock. If a function run by
        micropython.schedule() interrupts publish() in its own thread (or step(), if the policy
        drops messages), the lock cannot come free: QueueFull after 20 ms.
        """
        at = self.tail
        token = 0
        try:
            if _OFFLINE and expiry_ms is not None:
                self.firsts[at] |= _EXPIRES
                self.extras[at] = expiry_ms
                if _earlier(expiry_ms, self.next_expiry_ms, ticks_ms()) == expiry_ms:
                    self.next_expiry_ms = expiry_ms
                self.has_chores = True
            size = self.packet_bytes_of(at)
            if size > self.packet_bytes_max:
                if _MQTT5:
                    raise self.why_too_large("message", size)
                else:
                    raise LocalError(_TOO_LARGE % ("message", size, self.packet_bytes_max))
            if _OFFLINE:
                at = self._make_room(self.policy if policy is None else policy)
            elif self.after[at] == self.head:
                raise QueueFull(_ALL_TAKEN % (self.size - 1))
            token = self.last_token = self.last_token + 1 & _COUNT_MASK or 1
            self.tokens[at] = token
            if at == self.tail:
                self.tail = self.after[at]
        finally:
            if not token:
                self.free(self.tail)
            self.release_lock(token)
        return token

    if _MQTT5:

        def why_too_large(self, what, size):
            """The error for a packet of ours that is larger than packet_bytes_max."""
            if self.packet_bytes_max < self.our_bytes_max:
                about = ": %s of %d bytes, at most %d" % (what, size, self.packet_bytes_max)
                return _server_error(_PACKET_TOO_LARGE, None, about)
            return LocalError(_TOO_LARGE % (what, size, self.packet_bytes_max))

    # Bytes of topic name, payload and properties. (`or b""`: step() may free the slot meanwhile.)
    def _bytes_of(self, at):
        size = _len(self.topics[at] or b"") + _len(self.payloads[at] or b"")
        if _MQTT5 and self.firsts[at] & _HAS_PROPERTIES:
            size += _len(self.properties[at] or b"")
        return size

    def packet_bytes_of(self, at):
        """The exact size of the packet of the message at `at`, without a topic alias."""
        first = self.firsts[at]
        size = self._bytes_of(at) + (4 if first & _QOS_MASK else 2)
        if _MQTT5 and self.properties:
            more = _len(self.properties[at] or b"") if first & _HAS_PROPERTIES else 0
            if first & _EXPIRES:
                more += _EXPIRY_BYTES
                size += _EXPIRY_BYTES
            size += 1 + (more > 0x7F) + (more > 0x3FFF) + (more > 0x1FFFFF)
        return size + 2 + (size > 0x7F) + (size > 0x3FFF) + (size > 0x1FFFFF)

    # Take the lock; the caller calls release_lock() in a `finally`. With `is_dropping` the caller
    # has the lock already and will drop or move queued messages: keep step() off the ring. Waits
    # at most 20 ms. (_LOCK_WAITS ends the wait if the clock stands still.)
    def wait_for_lock(
        self,
        is_dropping=False,  # _OFFLINE
    ):
        if _OFFLINE and is_dropping:
            self.is_dropping = True
        begin_ms = ticks_ms()
        for _ in range(_LOCK_WAITS):
            if not self.is_looking if _OFFLINE and is_dropping else self._acquire(False):
                return
            pass_on()
            if ticks_diff(ticks_ms(), begin_ms) > _LOCK_WAIT_MS:
                break
        self.has_chores = self.is_signalled = True  # step() calls mend()
        raise QueueFull(_IN_USE)

    def release_lock(self, has_news=True):
        if _OFFLINE:
            self.is_dropping = False
        self._held_ms = None
        if self._lock.locked():
            self._release()
        if has_news:
            self.is_signalled = True

    def mend(self):
        """Release the lock if one call has held it for more than _LOCK_STALE_MS.

        Only a call that Ctrl-C ended holds it for so long. Calls of other threads in a row are
        told apart: each of them changes last_token, or clears _held_ms in release_lock().
        """
        held_ms = self._held_ms
        if not self._lock.locked():
            self._held_ms = None
            return
        now_ms = ticks_ms()
        if held_ms is None or self._held_token != self.last_token:  # another call holds it now
            self._held_ms = now_ms
            self._held_token = self.last_token
        elif _left_of(held_ms, now_ms) < -_LOCK_STALE_MS and self._held_ms == held_ms:
            self.release_lock()
        self.has_chores = self.is_signalled = True

    if _OFFLINE:

        def _count_bytes(self):
            count = 0
            at = self.head
            while at != self.tail:
                if self.firsts[at]:
                    count += self._bytes_of(at)
                at = self.after[at]
            return count

        # The messages of one topic name (None: of all) that were never sent, so that the server
        # need not know if they are dropped: (their bytes, first slot, last slot). -1: none; last
        # slot also -1 if a message that was sent follows it.
        def _survey(self, topic):
            count = 0
            first = last = -1
            at = self.sent
            while at != self.tail:
                if self.firsts[at] & _SENT:
                    last = -1
                elif self.firsts[at] and (topic is None or self.topics[at] == topic):
                    count += self._bytes_of(at)
                    last = at
                    if first < 0:
                        first = at
                at = self.after[at]
            return count, first, last

        # Make room for the message in the slot at tail, or raise. Returns its new slot: tail, or
        # with "latest" that of the last queued message with the same topic name. That message and
        # all earlier ones of the topic name are dropped, so nothing older follows the newest.
        # (Also tail if a message that will be resent follows: _survey().)
        def _make_room(self, policy):
            size = self._bytes_of(self.tail)
            topic = None
            if self.head == self.tail:
                self.is_mixed = False
            if policy == _LATEST and not self.is_online:
                topic = self.topics[self.tail]
            if size > self.bytes_max:
                raise LocalError(
                    "message of %d bytes, pipe_bytes_max is %d" % (size, self.bytes_max)
                )
            while True:
                is_full = self.after[self.tail] == self.head
                if topic is None and not is_full:
                    if size > self.bytes_left:  # count again: messages may have gone
                        self.bytes_left = self.bytes_max - self._count_bytes()
                    if size <= self.bytes_left:
                        self.bytes_left -= size
                        return self.tail
                if not self.is_dropping:  # once: rewind() may set is_looking and wait for us
                    self.wait_for_lock(True)
                if self._squeeze():
                    continue
                waiting = self._count_bytes()
                count, at, last = self._survey(topic)
                if at >= 0 and waiting + size - count <= self.bytes_max:
                    # Dropping these makes enough room; otherwise nothing is dropped.
                    if topic is not None:
                        while at != self.tail:
                            if self.topics[at] == topic and not self.firsts[at] & _SENT:
                                self.give_up(at)
                            at = self.after[at]
                        if last < 0:
                            topic = None  # it must follow the message that was sent: at tail
                            continue
                        self._copy(self.tail, last)
                        self.free(self.tail)
                        self.bytes_left = 0
                        self.is_mixed = True
                        return last
                    if policy == _DROP_OLDEST:
                        self.give_up(at)
                        continue
                if topic is not None:
                    topic = None
                elif is_full:
                    raise QueueFull(_ALL_TAKEN % (self.size - 1))
                elif waiting + size > self.bytes_max:
                    raise QueueFull(
                        "%d bytes wait, %d more are above pipe_bytes_max, %d"
                        % (waiting, size, self.bytes_max)
                    )

        # Close the gaps between the queued messages. True: there was a gap. Needs the lock and
        # `is_dropping`. step() still reads the slots before `sent`, so those stay in place.
        def _squeeze(self):
            tail = self.tail
            to = at = self.sent
            while at != tail:
                if self.firsts[at]:
                    if to != at:
                        self._copy(at, to)
                    to = self.after[to]
                at = self.after[at]
            if to == tail:
                return False
            self._copy(tail, to)  # the new message
            self.tail = to
            at = to
            while at != tail:
                at = self.after[at]
                self.free(at)
            return True

        def _copy(self, source, target):
            if _MQTT5 and self.properties:
                self.properties[target] = self.properties[source]
            for field in self.fields:
                field[target] = field[source]
            self.firsts[source] = 0  # Ctrl-C behind this line leaves no message there twice

        def drop_expired(self, now_ms):
            """Drop queued messages that have expired, and find the next expiry.

            A message that was sent and not acknowledged expires only between two connections:
            the server may have delivered it. PUBREL then finishes a QoS 2 exchange.
            """
            self.next_expiry_ms = None
            least_ms = _MS_MAX
            at = self.sent
            while at != self.tail:
                first = self.firsts[at]
                # MQTT 5.0: at QoS 2 nothing expires that was sent [MQTT5-4.3.3-7].
                if first & (_EXPIRES | _RELEASED | _MUTE) == _EXPIRES and not (
                    _MQTT5 and self.properties and first & _SENT and first & 0x04
                ):
                    left_ms = _left_of(self.extras[at], now_ms)
                    if left_ms <= 0:
                        self.give_up(at)
                        if _STATS:
                            self.expired_count = self.expired_count + 1 & _COUNT_MASK
                    elif left_ms < least_ms:
                        least_ms = left_ms
                        self.next_expiry_ms = self.extras[at]
                at = self.after[at]

        def give_up(self, at):
            """Take back a message, sent or not; on_dropped gets its token.

            The server may have a QoS 2 message that was sent: its exchange goes on without
            callbacks, and its identifier stays in use to the end. The same for QoS 1 in flight.
            """
            flags = self.firsts[at]
            self.dropped.append(self.tokens[at])
            if flags & _FLYING or _QOS2 and flags & _SENT and flags & 0x04:
                self.firsts[at] |= _MUTE
            else:
                self.free(at)

        def cancel(self, token):
            """Take back the message with this token. True: it will not be sent (again).

            False: there is none, it is QoS 0 and in the outbox, or its PUBREC has come.
            """
            self.wait_for_lock()
            try:
                if self.find(token) < 0:
                    return False
                self.wait_for_lock(True)
                head = self.head  # before find(): head may move while find() runs
                at = self.find(token)  # again: step() may have freed it while we waited
                if at < 0 or self.firsts[at] & _RELEASED:
                    return False
                is_taken = (at - head) % self.size < (self.sent - head) % self.size
                if is_taken and not self.firsts[at] & _QOS_MASK:
                    return False
                self.give_up(at)
                return True
            finally:
                self.release_lock()

    def find(self, token):
        """The slot of the message with this token, or -1. Raises: LocalError: not a token."""
        if token.__class__ is not int or not 0 <= token <= _COUNT_MASK:
            _integer("token", token, 0, _COUNT_MASK)
        # From tail to head: a writer that makes room moves messages towards head, to slots that
        # this loop has not passed yet.
        at = self.tail
        head = self.head
        while at != head:
            at = (at or self.size) - 1
            if self.tokens[at] == token and self.firsts[at] and not self.firsts[at] & _MUTE:
                return at
        return -1

    # -- step() -------------------------------------------------------------

    def free(self, at):
        """Free the slot of a message whose exchange has ended, and move head over free slots.

        Writers also clear slots from tail on with it, where head never is but in an empty ring:
        there it stays. Returns its token; 0 with _MUTE: no callback. Allocates: nothing.
        """
        firsts = self.firsts
        token = 0 if firsts[at] & _MUTE else self.tokens[at]
        self.payloads[at] = self.topics[at] = None
        if _OFFLINE:
            self.extras[at] = None
        if _MQTT5 and self.properties:
            self.properties[at] = None
        firsts[at] = 0  # last: after a Ctrl-C before this line, rewind() does it
        if at == self.head:
            self.move_head()
        return token

    def move_head(self):
        """Move head over free slots, so that writers can fill them. Allocates: nothing."""
        firsts = self.firsts
        left = self.left
        at = self.head
        while at != left and not firsts[at]:
            at += 1
            if at == self.size:
                at = 0
        self.head = at

    def find_id(self, packet_id, end=None):
        """The slot of the message sent with this packet identifier, or -1. Allocates: nothing.

        Args: end: the slot up to which to look; None: all.
        """
        tokens = self.tokens
        at = self.head
        if end is None:
            end = self.tail
        while at != end:
            if (tokens[at] - 1) % _MESSAGE_IDS + 1 == packet_id and self.firsts[at] & _SENT:
                return at
            at = self.after[at]
        return -1

    def rewind(self):
        """The connection is lost: the next one resends every message whose exchange is open.

        QoS 0 messages that were written are freed already. Allocates: nothing. Calling it twice
        is harmless.
        """
        if _OFFLINE:
            self.is_online = False
            self.is_looking = True
            begin_ms = ticks_ms()
            for _ in range(_LOCK_WAITS):  # a writer in another thread needs microseconds
                if not self.is_dropping or ticks_diff(ticks_ms(), begin_ms) > _LOCK_WAIT_MS:
                    break
                pass_on()
        at = self.head
        while at != self.tail:
            first = self.firsts[at]
            if self.payloads[at] is None:  # Ctrl-C interrupted free() or _sending()
                self.firsts[at] = 0
            elif first & _QOS_MASK:
                self.firsts[at] = first & ~(_FLYING | _DUP)
                if first & _MUTE and not (_QOS2 and first & 0x04):
                    self.free(at)  # QoS 1: no PUBACK can come on another connection
            at = self.after[at]
        self.left = self.sent = self.head
        if _OFFLINE:
            self.is_looking = False

    def resume(self, session_present):
        """A connection was accepted: decide how to resend each message that was sent before.

        Args:
            session_present: bool. True: the server resumes this session: resend PUBLISH with
                DUP and the same identifier, or PUBREL if PUBREC had come [MQTT-2.3.1-3]
                [MQTT-4.4.0-1] [MQTT5-4.4.0-1] [MQTT5-4.3.2-3] [MQTT5-4.3.3-3, -5, -6]. False: a
                new session: all exchanges begin again [MQTT5-3.2.2-5].

        Returns:
            (turn, packet identifier) of each whose PUBREL goes first, in the order of their
            PUBRECs [MQTT-4.6.0-4].

        Needs the lock. Allocates: that list.
        """
        if _QOS2:
            released = []
        at = self.head
        while at != self.tail:
            first = self.firsts[at]
            if first & _SENT:
                if not session_present:
                    if first & _MUTE:
                        self.free(at)
                    else:
                        self.firsts[at] = first & _LASTING
                elif _QOS2 and first & (_RELEASED | _MUTE):
                    packet_id = (self.tokens[at] - 1) % _MESSAGE_IDS + 1
                    turn = first >> _TURN_SHIFT
                    if turn:
                        turn = turn - self.last_turn - 1 & _TURNS  # the newest: _TURNS
                    elif _OFFLINE:
                        turn = _TURNS + 1  # given up before its PUBREC came: after all others
                        if not first & _RELEASED:
                            self.extras[at] = 0
                            self.firsts[at] = first | _RELEASED
                        self.extras[at] += 1
                        if self.extras[at] > _KICKS_MIN:
                            self.free(at)  # stop: RabbitMQ closes the connection at this PUBREL
                    released.append((turn, packet_id))
            at = self.after[at]
        if _QOS2:
            released.sort()
            return released


# ---------------------------------------------------------------------------
# Filters: the table of subscriptions
# ---------------------------------------------------------------------------
# A row is one call of subscribe() or unsubscribe(), and one packet: SUBSCRIBE or UNSUBSCRIBE with
# one filter (AWS IoT closes the connection at more than eight). Rows are sent in order, many in
# one write. A later subscribe() of the same filter replaces an earlier row, which is removed once
# it is answered. A change of length makes a new table, under the Pipe's lock: another thread may
# be reading the table, or adding a row.


class Filters:
    def __init__(self):
        self.rows = []
        self.is_unsent = False  # some row may have to be sent
        self.is_changed = False  # the cache of topic names is out of date
        self.asked_count = 0  # rows that wait for their answer
        self.last_id = 0
        self.is_doubtful = False  # the server may have started a new session: no CONNACK seen

    def put(
        self,
        topic_filter,
        callback,
        qos,
        token,
        is_lost,
        options=None,  # _MQTT5
    ):
        """Add a row. Needs the Pipe's lock. Allocates: the row, and a new table.

        Args: is_lost: there is no connection, so no row waits for its answer.
        """
        row = [topic_filter, callback, qos, token, _UNSENT, 0, True, 0]
        if _MQTT5:
            row.append(options)
        rows = self.rows + [row]
        # Remove replaced rows after the last allocation, and with one assignment: step() may look
        # for callbacks at any moment. A row that waits for its answer stays.
        for one in self.rows:
            if one[_FILTER] == topic_filter and (qos < 0) == (one[_QOS] < 0):
                if is_lost or one[_STATE] < _UNSENT:
                    rows.remove(one)
        self.is_changed = self.is_unsent = True  # here too: Ctrl-C may interrupt what follows
        self.rows = rows
        for one in rows:
            if one[_FILTER] == topic_filter and qos >= 0 and one[_QOS] >= 0 and one is not row:
                one[_IS_LAST] = False
        self.is_changed = self.is_unsent = True

    def callbacks(
        self,
        buf,
        start,
        end,
        identifiers=(),  # _MQTT5
    ):
        """The callbacks of all filters that match the topic name in `buf[start:end]`, in order.

        MQTT 5.0: `identifiers` are the message's subscription identifiers. A filter with one of
        them matches without a comparison [MQTT5-3.3.4-4], unless filters share that identifier.
        A filter without an identifier is compared: the message may be for it, too. A filter with
        another identifier [MQTT5-3.3.4-3, -5] is compared, and counts if no other filter matches:
        the server may have sent the message before it knew that identifier.

        Allocates: the list.
        """
        rows = None
        while rows is not self.rows:  # again if put() in another thread replaced the table
            rows = self.rows
            found = []
            if _MQTT5:
                others = []
                counts = {}  # identifier: how many filters have it
                for row in rows if identifiers else ():
                    if row[_IS_LAST] and row[_OPTIONS][2] in identifiers:
                        counts[row[_OPTIONS][2]] = counts.get(row[_OPTIONS][2], 0) + 1
                for row in rows:
                    if row[_IS_LAST] and row[_QOS] >= 0:
                        callback = row[_CALLBACK]
                        given = row[_OPTIONS] and row[_OPTIONS][2]
                        count = counts.get(given, 0)
                        # None: the message is for on_message, and not for `others`.
                        if count == 1 or (
                            (callback is not None or count or given == 0 and not identifiers)
                            and topic_matches(row[_FILTER], buf, start, end)
                        ):
                            (others if given and not count else found).append(callback)
                found = found or others
                while None in found:
                    found.remove(None)
            else:
                for row in rows:
                    if row[_CALLBACK] is not None and row[_IS_LAST]:
                        if topic_matches(row[_FILTER], buf, start, end):
                            found.append(row[_CALLBACK])
        return found

    def find(self, token):
        """The row of this token, answered or not; or None."""
        for row in self.rows:
            if row[_TOKEN] == token or row[_TOKEN] == -token:
                return row
        return None

    def next_unsent(self):
        """The first row that must be sent, with a new identifier; or None."""
        self.is_unsent = False  # before the loop: another thread may set it meanwhile
        for row in self.rows:
            if row[_STATE] == _UNSENT:
                # A later row asks for the same filter (on_connect adds such rows). Asking twice
                # would bring each retained message twice.
                if not row[_IS_LAST] and row[_TOKEN] < 0:
                    row[_STATE] = _GRANTED
                    continue
                self.is_unsent = True
                row[_ID] = self.last_id % 255 + 1
                # Only the next in turn: to look for a free one would compare all with all.
                if self.asked_count < 255 and self.find_asked(row[_ID]) is None:
                    return row
                break  # until that answer has come
        return None

    def find_asked(self, last_id):
        """The row that waits for its answer under this identifier (1..255), or None."""
        for row in self.rows:
            if row[_ID] == last_id and row[_STATE] > _UNSENT:
                return row
        return None

    def on_answer(self, row, state):
        """The answer for `row` has come. Allocates: nothing."""
        # UNSUBACK ends the earlier subscriptions (section 3.10.4). Before its own row: Ctrl-C in
        # between would leave them in force.
        if row[_QOS] < 0 and state == _GRANTED:
            for earlier in self.rows:
                if earlier is row:
                    break
                if earlier[_FILTER] == row[_FILTER]:
                    earlier[_IS_LAST] = False
        row[_STATE] = state
        self.asked_count -= 1
        self.is_changed = True

    def prune(self):
        """Remove rows that are over. Needs the Pipe's lock. Allocates: a new table."""
        rows = []
        for row in self.rows:
            if row[_STATE] >= _UNSENT or row[_QOS] >= 0 and row[_IS_LAST]:
                rows.append(row)
        self.rows = rows

    def resume(self, session_present, is_ours):
        """A connection was accepted: mark every row that must be sent (again).

        Args: session_present: bool, the server has a session. is_ours: bool, and it is this one.

        A row that is not granted is always resent. A granted row is resent if the session is
        lost [MQTT-3.1.2-4] [MQTT-4.1.0-1, -2], or if the row follows an unanswered UNSUBSCRIBE
        of the same filter. Allocates: a new table.
        """
        is_lost = not is_ours or self.is_doubtful
        self.prune()
        rows = []
        ends = {}  # filter: its last UNSUBSCRIBE; None: the loop is there, or past it
        for row in self.rows:
            if row[_QOS] < 0 and row[_IS_LAST]:
                ends[row[_FILTER]] = row
        for row in self.rows:
            topic_filter = row[_FILTER]
            if row is ends.get(topic_filter):
                ends[topic_filter] = None
            is_ended = ends.get(topic_filter) is not None
            # Without a session the server has forgotten the UNSUBSCRIBE and the rows before it.
            if row[_IS_LAST] and (session_present or not is_ended and row[_QOS] >= 0):
                if is_ended and row[_TOKEN] < 0:
                    # Don't ask again for earlier rows that were answered. Their callbacks stay
                    # until UNSUBACK.
                    row[_STATE] = _GRANTED
                elif is_lost or row[_STATE] != _GRANTED or topic_filter in ends:
                    row[_STATE] = _UNSENT
                rows.append(row)
        self.rows = rows
        self.asked_count = 0
        self.is_changed = self.is_unsent = True


# Level by level, each compared in C: byte by byte it would take long. Allocates the levels.
def _matches_long(topic_filter, buf, start, end):
    for level in topic_filter.split(b"/"):
        if level == b"#":
            return True  # "a/#" also matches its parent "a" (section 4.7.1.2)
        if start > end:
            return False
        stop = buf.find(b"/", start, end)
        if stop < 0:
            stop = end
        if level != b"+" and (stop - start != len(level) or not buf.startswith(level, start)):
            return False
        start = stop + 1
    return start > end


def topic_matches(topic_filter, buf, start, end):
    """True if the topic name in `buf[start:end]` matches the filter.

    Args:
        topic_filter: bytes, a legal one. Of "$share/group/filter" only the filter counts.
        buf: bytes or bytearray. start, end: indices.

    Allocates: nothing, but of a filter of more than 64 bytes its levels. Spec: section 4.7.
    """
    if _len(topic_filter) == end - start and buf.find(topic_filter, start, end) == start:
        return True  # the same bytes: compared in C
    i = 0
    if topic_filter[0] == _DOLLAR and topic_filter.find(b"$share/") == 0:
        i = topic_filter.find(b"/", 7) + 1  # 0: no group, so a plain filter
    if buf[start] == _DOLLAR and (i or topic_filter[0] != _DOLLAR):
        if i == 0 or i == _len(topic_filter) or topic_filter[i] != _DOLLAR:
            return False  # [MQTT-4.7.2-1]
    if _len(topic_filter) > _SLOW_BYTES:
        return _matches_long(topic_filter[i:], buf, start, end)
    while i < _len(topic_filter):
        byte = topic_filter[i]
        if byte == _HASH:
            return True
        if byte == _PLUS:
            start = buf.find(b"/", start, end)
            if start < 0:
                start = end
        elif start == end:
            # "a/#" also matches its parent "a" (section 4.7.1.2).
            return topic_filter.find(b"/#", i) == i
        elif buf[start] == byte:
            start += 1
        else:
            return False
        i += 1
    return start == end


# ---------------------------------------------------------------------------
# Outbox: bytes on their way to the socket
# ---------------------------------------------------------------------------
# Two parts, written in this order:
#
#   buf   small packets in a row, written together
#   tail  a packet, or a payload whose header ends `buf`; too large for `buf`, and written from
#         where it lies
#
# part[0:at]    accepted by the stream      `part` is the one of the two that is being written
# part[at:end]  offered, and not accepted; end is 0: nothing was offered
# part[at:]     not accepted yet
#
# Bytes that the stream did not accept are offered again up to exactly the same end: the TLS
# library has already encrypted them, and would report a longer second offer as written in full.
#
# `room` is 0 while `buf` is written before a tail: what is appended would overtake the tail. Once
# `part` is the tail, `buf` is empty and takes packets again. `sent_count` is the total of bytes
# written, modulo 2**30: one comparison tells whether a packet has left.


class Outbox:
    def __init__(self, capacity):
        self.capacity = capacity
        self.buf = bytearray(capacity)  # reserves the memory; clear() empties it
        self.sent_count = 0
        if _STATS:
            self.packet_count = 0  # modulo 2**30, without those in _N_SENT and _N_AGAIN
        if _MQTT5:
            self.properties = b""  # of the next PUBLISH, with their length
        self.clear()

    def clear(self):
        self.buf[_EVERYTHING] = b""
        self.tail = None
        self.part = self.buf
        self.at = self.end = 0
        self.pending = 0  # bytes of both parts, not accepted yet
        self.room = self.capacity  # bytes that may be appended now

    def put_packet(self, packet):
        """Take an encoded packet of any size. False: no room yet, a tail is pending.

        Allocates: nothing.
        """
        size = len(packet)
        if size <= self.room:
            self.buf.extend(packet)
            self.room -= size
        elif self.tail is None:
            self.tail = packet
            if self.buf:
                self.room = 0
            else:
                self.part = packet
        else:
            return False
        self.pending += size
        if _STATS:
            self.packet_count = self.packet_count + 1 & _COUNT_MASK
        return True

    # MQTT 5.0: an acknowledgement without a reason code means success [MQTT5-2.2.1-5]
    # [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.7.2-1].
    def put_ack(self, first_byte, packet_id):
        """Append PUBACK, PUBREC, PUBREL or PUBCOMP. The caller has checked `room` (4 bytes)."""
        buf = self.buf
        buf.append(first_byte)
        buf.append(2)
        buf.append(packet_id >> 8)
        buf.append(packet_id & 0xFF)
        self.room -= _ACK_BYTES
        self.pending += _ACK_BYTES
        if _STATS:
            self.packet_count = self.packet_count + 1 & _COUNT_MASK

    def put_publish(self, first_byte, topic_name, payload, size, packet_id):
        """Take a PUBLISH of any size. False: no room yet.

        A packet that fits `buf` is copied there. The payload of a larger one becomes the tail, or
        the whole packet if its topic name is too long for `buf`.

        Args: size: bytes of topic_name and payload. packet_id: 0 at QoS 0 [MQTT-2.3.1-5].
        Allocates: nothing, or the packet if its topic name is too long. Spec: section 3.3.
        """
        if self.tail is not None:
            return False
        size += 4 if packet_id else 2  # the remaining length
        if _MQTT5:
            size += _len(self.properties)
        buf = 2 + (size > 0x7F) + (size > 0x3FFF) + (size > 0x1FFFFF)  # of fixed header
        if (
            buf + 4 + _len(topic_name) + _len(self.properties)
            if _MQTT5
            else buf + 4 + _len(topic_name)
        ) > self.capacity:
            buf = bytearray()
        else:
            buf += size  # bytes of the packet (one variable for two uses: rule 6)
            if buf > self.room:
                if buf <= self.capacity or buf - size + 4 + _len(topic_name) > self.room:
                    return False
                if _MQTT5 and (
                    buf - size + 4 + _len(topic_name) + _len(self.properties) > self.room
                ):
                    return False
                self.tail = payload
            self.pending += buf
            self.room = self.room - buf if self.tail is None else 0
            buf = self.buf
        buf.append(first_byte)
        append_remaining_length(buf, size)
        buf.append(_len(topic_name) >> 8)
        buf.append(_len(topic_name) & 0xFF)
        buf.extend(topic_name)
        if packet_id:
            buf.append(packet_id >> 8)
            buf.append(packet_id & 0xFF)
        if _MQTT5:
            buf.extend(self.properties)
        if buf is not self.buf:
            self.put_packet(bytes(buf) + payload)
            if _STATS:
                self.packet_count -= 1  # put_packet() has counted a PUBLISH
            return True
        if self.tail is None:
            buf.extend(payload)
        return True

    def flush(self, write, count=-1):
        """Write what the stream accepts now. Returns: count of bytes.

        Args:
            write: write(buf, offset, length) returns a count or None.
            count: the result of a first write() of all of `buf`; -1: none was made.

        Allocates: nothing. Raises: what the stream raises.
        """
        written = 0
        while self.pending > 0:
            part = self.part
            end = self.end or _len(part)
            size = end - self.at
            if count < 0:
                count = write(part, self.at, size) or 0
            written += count
            self.at += count
            self.pending -= count
            self.sent_count = self.sent_count + count & _COUNT_MASK
            self.end = end
            if count < size or not count:
                break
            count = -1
            self.end = 0
            if end == _len(part):  # else packets were appended after the refused offer
                self.at = 0
                if part is self.buf:
                    part[_EVERYTHING] = b""
                    self.room = self.capacity
                    self.part = self.tail or part
                else:
                    self.tail = None
                    self.part = self.buf
        return written


# ---------------------------------------------------------------------------
# Decoder: bytes on their way from the socket
# ---------------------------------------------------------------------------
# It reads no further than the current packet and the first two bytes of the next one (no packet is
# shorter). So each small message of a stream costs one read, and each body begins at buf[0]:
# nothing is moved or allocated.
#
#   buf[0:length]    the body of a complete packet
#
# Of a body larger than `body_max` only the first `body_max` bytes are kept (have < length): the
# decoder yields the packet, then reads and discards the rest. The packet identifier of such a
# PUBLISH may be anywhere in the body: set `late_at` to its index, and the decoder yields a second
# time at the end of the packet, with the identifier in `late_id`.

# What Decoder.packets() yields besides the first byte of a packet.
_IDLE = const(0)  # no data; the last packet is complete
_STUCK = const(-1)  # no more data of a half-received packet
_MOVES = const(-2)  # more data of a packet, not all of it
_LATE = const(0x100)  # added to the first byte of a packet that is yielded again


class Decoder:
    def __init__(self, packet_bytes_max):
        self.buf = bytearray(packet_bytes_max)  # a body, and two bytes of the next packet
        self.length = self.late_at = self.late_id = 0
        self.have = _COUNT_MASK  # bytes kept of a packet that is too large; else above any length
        if _MQTT5:
            self.is_mqtt5 = False  # True: more kinds of packets, and lengths that vary
        if _STATS:
            self.packet_count = self.byte_count = 0  # totals, modulo 2**30

    def packets(self, read):
        """A generator: the packets of one connection.

        Args: read: read(buf, count) returns a count, None or 0, as a stream's readinto().

        Yields:
            The first byte of a complete packet; `length`, `have` and `buf` describe it until the
            generator resumes. Or _IDLE, _STUCK, _MOVES.

        Raises:
            ServerError: the bytes break the protocol (sections 2.2.1-2.2.3).
            TransportError: the server has closed. What the stream raises.

        Allocates: the generator; a memoryview when a body comes in pieces.
        """
        buf = self.buf
        view = memoryview(buf)
        body_max = len(buf) - 2  # longest body kept: two bytes are for the next fixed header
        at = have = 0  # buf[at:have] was read together with the last body
        reads = 0
        if _STATS:
            packet_count = self.packet_count
            byte_count = self.byte_count
        self.late_at = self.late_id = 0
        self.have = _COUNT_MASK
        while True:
            # -- fixed header: is this packet legal from a server? (sections 2.2.1, 2.2.2)
            if at == have:
                at = 0
                have = read(buf, 2)
                while have is None:  # most steps end here
                    yield _IDLE
                    reads = 0
                    have = read(buf, 2)
                if not have:
                    raise TransportError(_SERVER_CLOSED)
                reads += 1
            first_byte = buf[at]
            if not first_byte:
                raise ServerError("control packet type 0 is reserved [2.2.1]")
            at += 1
            length = shift = 0
            while True:
                while at == have:
                    at = 0
                    have = read(buf, 1)
                    reads += 1
                    if not have:
                        if have is not None:
                            raise TransportError(_SERVER_CLOSED)
                        have = 0
                        yield _MOVES if reads > 1 else _STUCK
                        reads = 0
                byte = buf[at]
                at += 1
                if byte < 0x80:
                    break
                length |= (byte & 0x7F) << shift
                shift += 7
                if _STATS:
                    byte_count += 1
                if shift == 28:
                    raise ServerError("remaining length goes on after four bytes [2.2.3]")
            if shift:
                length |= byte << shift
            else:
                length = byte
            # QoS 3 is illegal [MQTT-3.3.1-4] [MQTT5-3.3.1-4]. So is QoS 0 with DUP [MQTT-3.3.1-2],
            # but aedes sends it, and it does no harm: accepted.
            if first_byte & (_TYPE_MASK | _QOS_MASK) != _PUBLISH and (
                first_byte & _QOS_MASK == _QOS_MASK
                if first_byte & _TYPE_MASK == _PUBLISH
                else length < 2
                if first_byte == _SUBACK
                else first_byte not in _RECEIVED  # [MQTT-2.2.2-2]
                or length != (0 if first_byte == _PINGRESP else 2)
            ):
                # MQTT 5.0 adds two, both without flags [MQTT5-3.14.1-1] [MQTT5-3.15.1-1].
                if not (
                    _MQTT5
                    and self.is_mqtt5
                    and (
                        first_byte == _DISCONNECT
                        or first_byte == _AUTH
                        or length > 1
                        and first_byte != _PINGRESP
                        and first_byte in _RECEIVED
                    )
                ):
                    words = "illegal packet 0x%02x with remaining length %d [2.2]"
                    words %= first_byte, length
                    if _MQTT5 and first_byte in _FROM_CLIENT:
                        raise _breach(words)
                    raise ServerError(words)

            # -- body
            self.length = kept = length
            spare = 2
            if length > body_max:
                self.have = kept = body_max
                spare = 0
            # Read on into the next packet only behind a PUBLISH: if a reset comes behind this
            # packet, a read that asks for more raises, and what it has read is lost.
            ahead = spare if first_byte & _TYPE_MASK == _PUBLISH else 0
            have = 0
            while have < kept:
                at = read(view[have:] if have else buf, kept - have + ahead)
                reads += 1
                if at:
                    have += at
                    if have >= kept or reads <= _READS_PER_STEP:
                        continue
                elif at is not None:
                    raise TransportError(_SERVER_CLOSED)
                yield _MOVES if reads > 1 or at else _STUCK
                reads = 0
            if _STATS:
                self.packet_count = packet_count = packet_count + 1 & _COUNT_MASK
                self.byte_count = byte_count = byte_count + length + 2 & _COUNT_MASK
            yield first_byte
            at = length
            if spare:
                continue

            # -- the rest of a packet that is too large: buf[0:have] is body[at : at + have]
            at = 0
            while True:
                for late_at in range(self.late_at, self.late_at + 2):
                    if self.late_at and at <= late_at < at + have:
                        self.late_id = self.late_id << 8 | buf[late_at - at]
                at += have
                if at == length:
                    break
                have = 0
                while not have:
                    have = read(buf, min(length - at, kept))
                    reads += 1
                    if not have:
                        if have is not None:
                            raise TransportError(_SERVER_CLOSED)
                        have = 0
                    if not have or reads > _READS_PER_STEP:
                        yield _MOVES if reads > 1 or have else _STUCK
                        reads = 0
            at = have
            if self.late_at:
                yield first_byte | _LATE
                self.late_at = self.late_id = 0
            self.have = _COUNT_MASK


class Message:
    """A received application message (section 3.3). The client reuses one object for all.

    Attributes: topic_name (str), qos (0..2), retain and dup (bool); payload: bytes, a new copy
    each time you read it; view: a memoryview of the payload in the client's buffer.

    Valid only during the callback. Keep the attributes that you need, or a copy() (profile full),
    not the object. Don't assign to the attributes, and don't release the view (as CPython's
    `with message.view` does): later messages would show it.

    Allocates: payload: the bytes. view: nothing if the last message had a topic name and a payload
    of the same lengths, else a memoryview.

    MQTT 5.0: properties (dict), as the server sent them; without any, always the same empty dict.
    """

    payload: bytes
    view: memoryview

    def __init__(self, buf):
        self._buf = memoryview(buf)
        self._start = self._end = None
        self.topic_name = ""
        self.qos = 0
        self.retain = self.dup = False
        if _MQTT5:
            self.properties = _NO_PROPERTIES

    if _ASYNCIO:

        def copy(self):
            """Return a Message that stays valid. Allocates: the Message and its payload."""
            kept = Message(self.payload)
            kept._start = 0
            kept._end = len(kept._buf)
            kept.topic_name = self.topic_name
            kept.qos = self.qos
            kept.retain = self.retain
            kept.dup = self.dup
            if _MQTT5:
                kept.properties = self.properties
            return kept

    # No @property: MicroPython then searches the class and its bases at each assignment to an
    # attribute, which takes ten times as long. The view is made on demand.
    def __getattr__(self, name):
        if name == "payload":
            return _bytes(self.view)
        if name != "view":
            raise AttributeError(name)
        name = self.view = self._buf[self._start : self._end]
        return name


# ---------------------------------------------------------------------------
# Resolver (RFC 1035, RFC 6762): a host name to addresses, in one datagram each way
# ---------------------------------------------------------------------------
# getaddrinfo() blocks for the network, on some boards for ever (rp2 with the link down): call it
# with literal addresses only. An answer must have our identifier and our question; the connected
# socket drops what other servers send. A name in ".local" is asked by multicast (a one-shot
# query, RFC 6762 section 5.1); if nobody answers, and it has more than two labels, the DNS servers
# are asked as well. Names in the answer are skipped, never followed, so no loop is possible; a
# CNAME's address counts as the name's own.


if _RESOLVER:
    # A generator: the word at index `at` of each line of a text file that has `word` at another
    # index; and "" after some lines, as a list of blocked hosts has 100,000. Read as bytes: a
    # comment may be in any encoding.
    def _look_up(path, word, at):
        count = 0
        try:
            with open(path, "rb") as file:
                for line in file:
                    words = line.lower().split(b"#")[0].split()
                    for one in words[at : at + 1]:
                        if word in words and one != word:
                            yield str(one, "utf-8")
                    count += 1
                    if not count % _LINES_PER_STEP:
                        yield ""
        except (OSError, ValueError):
            pass  # no such file, or not UTF-8

    def dns_servers():
        """Return the addresses of the DNS servers in use, as a list of str.

        A board's Wi-Fi interface knows them; on an operating system resolv.conf does.
        """
        if WLAN is not None:
            return [WLAN(STA_IF).ifconfig()[3]]
        return [one for one in _look_up("/etc/resolv.conf", b"nameserver", 1) if one]

    def hosts(name):
        """Yield the addresses of a name in /etc/hosts, or of localhost; "": more steps, please."""
        name = name.lower().rstrip(".")
        is_found = name != "localhost"
        for one in _look_up("/etc/hosts", name.encode(), 0):
            if not one:
                yield one
            elif is_literal(one):
                is_found = True
                yield one
        if not is_found:
            yield "127.0.0.1"

    def encode_query(query_id, host, kind):
        """Return a DNS query for one name.

        Args: query_id: 0..65535. host: str. kind: record type, _DNS_A or _DNS_AAAA.
        Raises: LocalError: a label is empty or above 63 bytes, or the name above 253.
        Allocates: the query. Spec: RFC 1035, sections 4.1.1 and 4.1.2.
        """
        # Recursion desired, one question, no records.
        query = query_id.to_bytes(2, "big") + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        if host[-1:] == ".":
            host = host[:-1]
        for label in _to_bytes("host", host).split(b"."):
            # 12 bytes of header, then 255 at most, the length bytes of labels and root included.
            if not 0 < len(label) < 64 or len(query) + len(label) > 265:
                raise LocalError(
                    "host name must have labels of 1..63 bytes, 253 in all: %r" % host
                )
            query += bytes((len(label),)) + label
        return query + bytes((0, 0, kind, 0, 1))

    def decode_answer(data, query):
        """Decode the answer to `query`.

        Args: data: the datagram, bytes. query: from encode_query().

        Returns:
            None if it is no answer to this query. Else (code, addresses, ttl_s): the response
            code, a list of str, and how many seconds they are valid; 0 if the records are broken
            and have none.

        Allocates: the list. Spec: RFC 1035, section 4.1.
        """
        at = len(query)
        if (
            len(data) < at
            or data[:2] != query[:2]
            or not data[2] & 0x80
            or data[4:6] != query[4:6]
            or data[12 : at - 2].lower() != query[12:-2].lower()
            # Multicast uses the top bit of the class as a flag (RFC 6762 section 10.2).
            or data[at - 2] & 0x7F
            or data[at - 1] != 1
        ):
            return None
        addresses = []
        ttl_s = _DNS_TTL_MAX_S
        kind = query[-3]
        try:
            for _ in range(data[6] << 8 | data[7]):
                while 0 < data[at] < 0xC0:
                    at += data[at] + 1
                at += 2 if data[at] else 1  # pointer or root
                start = at + 10
                end = start + (data[at + 8] << 8 | data[at + 9])
                if end > len(data):
                    raise IndexError
                if (
                    data[at : at + 2] == bytes((0, kind))
                    and data[at + 2] & 0x7F == 0
                    and data[at + 3] == 1
                ):
                    field = tuple(data[start:end])
                    if kind == _DNS_A and len(field) == 4:
                        addresses.append("%d.%d.%d.%d" % field)
                    elif kind == _DNS_AAAA and len(field) == 16:
                        addresses.append(("%02x%02x:" * 8)[:-1] % field)
                # A TTL with the top bit set means 0 (RFC 2181 section 8).
                field = data[at + 4 : at + 8] if data[at + 4] < 0x80 else b""
                ttl_s = min(ttl_s, int.from_bytes(field, "big"))
                at = end
        except IndexError:  # cut off in the middle of a record
            if not addresses:
                ttl_s = 0  # of no use
        return data[3] & 0x0F, addresses, ttl_s


# ---------------------------------------------------------------------------
# TLS: one context for each client, kept for all its connections
# ---------------------------------------------------------------------------
# The constructor makes it and raises for a wrong file or key. Certificates are parsed once: a
# reconnection needs memory for the connection only.

if _TLS:
    from binascii import a2b_base64

    # Load certificates or keys into the library. Each is a PEM text, PEM or DER data, or the name
    # of a file with either.
    def _load(name, load, *values):
        data = []
        failed = ": can't read the file: errno"
        try:
            for value in values:
                if isinstance(value, str) and "-----BEGIN" not in value:
                    with open(value, "rb") as file:
                        value = file.read()
                data.append(_to_bytes(name, value))
            failed = " can not be used:"
            try:
                load(*data)
            except (OSError, ValueError):
                # Some boards' libraries (rp2) read DER only: decode PEM here, and skip the curve
                # name that may stand before a key. A list of certificates becomes several calls;
                # of our own chain only the first certificate is loaded.
                lists = []
                for pem in data:
                    blocks = []
                    for part in pem.split(b"-----BEGIN ")[1:]:
                        if not part.startswith(b"EC PARAM"):
                            blocks.append(a2b_base64(part.split(b"-----")[1]))
                    if not blocks:
                        raise
                    lists.append(blocks)
                for blocks in zip(*lists):
                    load(*blocks)
            return
        except (OSError, ValueError, IndexError) as error:
            # Raise outside of `except`, without the file name that CPython's error shows: if key=
            # holds the key itself by mistake, that would show the key.
            reason = error.args[0]
        raise LocalError("%s%s %s" % (name, failed, reason))

    def _tls_context(ca, cert, key, how):
        """Make the context that a client's TLS connections share.

        Args: ca, cert, key, how: as ca, cert, key, tls of MQTTClient.
        Returns: An SSLContext of the port.
        Raises: LocalError: a file cannot be read or used, or there is no CA to verify with.
        Allocates: the files, and the library's copies. Blocks: while it reads files.
        """
        if how is not None and how != "insecure":
            if not hasattr(how, "wrap_socket") or (ca, cert, key) != (None, None, None):
                kind = type(how).__name__  # not its value, which may be a key
                raise LocalError(
                    "tls is a %s, must be 'insecure' or an SSLContext: load ca, cert and key "
                    "into that" % kind
                )
            return how
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        # Set it always: MicroPython's `ssl` does not verify by default, its `tls` does.
        context.verify_mode = tls.CERT_NONE if how else tls.CERT_REQUIRED
        if ca is not None:
            _load("ca", context.load_verify_locations, ca)
        elif not how:
            if not hasattr(context, "load_default_certs"):
                raise LocalError("mqtts:// needs ca= here (or tls='insecure': none is verified)")
            context.load_default_certs()
        if (cert, key) != (None, None):
            _load("cert or key", context.load_cert_chain, cert, key)
        return context

    def _explain_tls(reason):
        """Add plain words to the library's reason."""
        if _HINTS:
            is_it = False
            for pair in _TLS_WORDS.split(";"):
                sign, words = pair.split("=", 1)
                is_it = is_it or sign in reason
                if is_it and words:
                    reason = "%s (%s)" % (words, reason)
                    break
        if gmtime()[0] < _YEAR_MIN:
            reason += "; the clock says %d and is not set (NTP), so none is valid" % gmtime()[0]
        return reason


# ---------------------------------------------------------------------------
# Connecting: pause, link, addresses, TCP, TLS, CONNACK
# ---------------------------------------------------------------------------
# A life of the client, from here to "Closing". In this section each wait is a loop
#
#     while not <it worked>:
#         yield self._rest(deadline_ms)
#
# It yields what step() returns: did anything happen? (Each section of a life is a class, derived
# from the one before it. A build makes one class of them: tools/shrink.py.)


class _Connecting:
    # -- waiting ------------------------------------------------------------

    def _move(self, state):
        self.state = state
        self._happened = True

    # Prepare to wait. Returns whether anything has happened in this step. Raises TimedOut one step
    # after the deadline: if step() was called late, the answer may be there.
    def _rest(self, deadline_ms):
        if deadline_ms is not None:
            if _left_of(deadline_ms, self._now_ms) > 0:
                self._is_late = False
            elif self._is_late:
                raise TimedOut(_NO_ANSWER, self._stage())
            else:
                self._is_late = self._happened = True
        self._pipe.is_signalled = False
        # connect() or disconnect() was called meanwhile: keep the signal.
        if self._is_wanted == (deadline_ms is None):
            self._pipe.is_signalled = True
        timers = self._timers
        timers[_TIMER_EXPIRY] = timers[_DUE] = None
        happened = self._do_chores()  # also sets the timer of the next expiry
        due_ms = timers[_DUE]
        if deadline_ms is not None:
            due_ms = _earlier(deadline_ms, due_ms, self._now_ms)
        timers[_DUE] = self._now_ms if self._is_late else due_ms
        return happened

    def _stage(self):
        return _STAGE_WORDS.split()[self.state]

    # -- one life after the other -------------------------------------------

    # All that step() does. Only Ctrl-C, or a MemoryError at the worst moment, ends it: _revive()
    # then begins it again, and it closes what is still open.
    def _live(self):
        while True:
            error = None
            try:
                if not self._is_open:
                    while not self._is_wanted:
                        if self._dying is not None:
                            self._bury()
                        if self.state != _DOWN:  # disconnect() in on_offline, or right after it
                            self._pause_end_ms = None
                            if _MQTT5:
                                self._is_clean = self.clean_session
                            self._move(_DOWN)
                        self._now_ms = ticks_ms()
                        yield self._rest(None)
                    self._is_open = True
                    for happened in self._connect():
                        yield happened
                        if not self._is_wanted:
                            break
                        self._now_ms = ticks_ms()
                    else:
                        yield from self._serve()
                else:
                    error = self._failed or TransportError("interrupted", self._stage())
            except Exception as failure:
                error = failure
            self._close(error)
            yield True

    def _connect(self):
        self._now_ms = ticks_ms()

        # -- pause, then wait for the link
        is_up = False
        is_first = True
        while not is_up:
            end_ms = self._pause_end_ms
            while end_ms is not None and _left_of(end_ms, self._now_ms) > 0:
                if self.state != _WAITING:
                    self._move(_WAITING)
                yield self._rest(end_ms)
            self._pause_end_ms = None
            try:
                is_up = self.link is None or self.link.is_up()
            except Exception as error:  # the link counts as down; report it once
                if is_first:
                    is_first = False
                    self._report(error)
            if not is_up:
                self._pause_end_ms = ticks_add(self._now_ms, _LINK_CHECK_MS)
                if _RESOLVER:
                    self._known.clear()  # the next network may have other addresses
            else:
                if self._dying is not None:
                    self._bury()
                if 0 < _left_of(self._free_ms, self._now_ms) <= _linger_ms:
                    is_up = False
                    self._pause_end_ms = self._free_ms

        # -- one attempt: from here to CONNACK within connect_timeout_ms
        self._now_ms = ticks_ms()  # is_up() may be slow
        if _STATS:
            self._count(_N_ATTEMPTS)
        self._is_stable = False
        self._move(_RESOLVING)
        server = self._server
        host = server[0]
        password = server[3]
        if callable(password):
            try:
                password = password()
            except Exception as error:
                raise LocalError("password: %s %s" % (type(error).__name__, error))
            password = _to_field("password", password, False)
            self._now_ms = ticks_ms()
        self._password = password
        if _MQTT5 and self._auth:
            self._wants_auth = False  # connecting authenticates
            self._auth_data = self._authenticate(None)
        self._attempt_end_ms = ticks_add(self._now_ms, self.connect_timeout_ms)
        if not _RESOLVER and not _TLS:
            yield from self._open(host, self._attempt_end_ms)
        elif not _RESOLVER or is_literal(host):
            yield from self._connect_to((host,), 1)
        else:
            # Try the other family if the first has no address, or none that accepts us; not if
            # the name server failed.
            failed = None
            first = server[_FAMILY]
            for kind in (first, _DNS_A + _DNS_AAAA - first):
                addresses = None
                try:
                    addresses = yield from self._resolve(host, kind)
                    yield from self._connect_to(addresses, 2 if kind == first else 1)
                    server[_FAMILY] = kind
                    break
                except _FAILURES as error:
                    if addresses is None:
                        server[_FAMILY] = _DNS_A
                    if failed is None or failed.errno == _NO_ADDRESS:
                        failed = self._explain(error)
                    # (Some name servers fail for AAAA only: RFC 4074.)
                    if (
                        kind != first
                        or addresses is None
                        and kind == _DNS_A
                        and failed.errno != _NO_ADDRESS
                        or _left_of(self._attempt_end_ms, self._now_ms) <= 0
                    ):
                        raise failed
                    self._drop_socket()
                    self._move(_RESOLVING)

        # -- CONNACK (section 3.2)
        self._move(_AWAITING_CONNACK)
        self._packets = self._decoder.packets(self._read)
        outbox = self._outbox
        while True:
            # Read first: the TLS library tells only a reader why the server refused.
            first_byte = next(self._packets)
            # AUTH goes on. DISCONNECT raises: NanoMQ refuses with it.
            if _MQTT5 and first_byte >= _DISCONNECT:
                self._on_packet_5(first_byte)
                first_byte = _MOVES
            if first_byte > 0:
                break
            if first_byte == _MOVES:
                self._happened = True
            if outbox.pending and outbox.flush(self._write):
                self._sent_ms = self._now_ms
            yield self._rest(self._attempt_end_ms)
        if first_byte != _CONNACK:
            words = "0x%02x before CONNACK [MQTT-3.2.0-1]" % first_byte
            raise _breach(words) if _MQTT5 else ServerError(words)
        answer = self._decoder.buf
        if _MQTT5 and self._is_5:
            self._read_connack(answer[1])
        elif answer[0] == 1 and not answer[1] and self.clean_session:
            answer[0] = 0  # treat the session as new
            self._report(ServerError("session present, not asked for: ignored [MQTT-3.2.2-1]"))
        pipe = self._pipe
        while not pipe._acquire(False):  # another thread holds the lock
            happened = self._rest(self._attempt_end_ms)
            pipe.is_signalled = True  # poll again: a publish() that raises does not signal
            yield happened
        try:
            self._on_connack(answer[0], answer[1])
        finally:
            pipe.release_lock()
        if _MQTT5:
            self._tell_refused()
        if _OFFLINE:
            self._tell_dropped()
            self._ping_meanwhile()
        self._emit(self.on_connect, answer[0] == 1)

    if _RESOLVER:
        # A generator: the addresses of a host, as a list of str. Raises if there is none.
        def _resolve(self, host, kind):
            known = self._known.get(host)
            if known and known[2] != kind:
                known = None
            if known and known[0] is not None and _left_of(known[0], self._now_ms) > 0:
                return known[1]
            # Keep time to try the cached addresses if no DNS server answers.
            kept_ms = self.connect_timeout_ms // 3 if known else 0
            found = []
            error = None
            for one in hosts(host):
                if not one:
                    left_ms = _left_of(self._attempt_end_ms, self._now_ms)
                    yield True
                    # The time is the servers': a slow program may read for longer.
                    self._attempt_end_ms = ticks_add(self._now_ms, left_ms)
                elif (":" in one) == (kind == _DNS_AAAA):
                    found.append(one)
                else:
                    error = TransportError("none of this family", "DNS", _NO_ADDRESS)
            if found:
                return found
            if error:  # /etc/hosts has the name, but only in the other family
                raise error
            turn = 0
            servers = self._name_servers(host)
            for server in servers:
                turn += 1
                # A new socket, so a new port: with the identifier a forger must guess 32 bits.
                query = urandom(2) + encode_query(0, host, kind)[2:]
                try:
                    self._dial(server[0], server[1], query)
                    left_ms = _left_of(self._attempt_end_ms, self._now_ms) - kept_ms
                    # Each server gets its share.
                    wait_ms = min(_DNS_RETRY_MS, self.connect_timeout_ms // len(set(servers)))
                    if turn == _DNS_TRIES:  # a slow link may have delayed the other answers
                        wait_ms = max(wait_ms, self.connect_timeout_ms // 3)
                    end_ms = ticks_add(self._now_ms, min(left_ms, wait_ms))
                    while True:
                        answer = self._answer(query)
                        # Of multicast answers, which anybody may send, ignore error codes (RFC
                        # 6762 section 18.11) and those without an address.
                        if answer and (server[0] != _MDNS_ADDRESS or answer[1] and not answer[0]):
                            break
                        yield self._rest(end_ms)
                    code, addresses, ttl_s, is_cut = answer
                    if addresses:
                        # Many servers turn the order round each time: in a new one _ADDRESS
                        # might come to the same address again and again.
                        if known and set(known[1]) == set(addresses):
                            addresses = known[1]
                        until_ms = ticks_add(self._now_ms, ttl_s * 1000)
                        self._known[host] = [until_ms, addresses, kind]
                        return addresses
                    error = TransportError(
                        "no address for the name %s, the DNS server answers with code %d"
                        % (host, code),
                        "DNS",
                    )
                    # Raise if there is no such name or address. Otherwise this server failed, or
                    # its answer was cut off or broken (ttl_s is 0, then each is asked once): ask
                    # the next one.
                    if code == _DNS_NO_SUCH_NAME:
                        raise error
                    if not code and not is_cut:
                        error.errno = _NO_ADDRESS
                        if ttl_s or turn >= len(set(servers)):
                            raise error
                except OSError as failure:  # nobody listens at that address
                    error = self._explain(failure)
                except TimedOut as failure:
                    if _left_of(self._attempt_end_ms, self._now_ms) <= 0:
                        raise
                    error = failure
                    if server[0] == _MDNS_ADDRESS:
                        error.errno = _NO_ADDRESS  # a host without this family stays silent
                finally:
                    self._drop_socket()
                yield True  # one server a step: without a network each fails at once
            # If no server answers, use the addresses that were good the last time.
            if known:
                return known[1]
            raise error or TransportError("no DNS server is known", "DNS")

        # The servers to ask, in turn: a list of (address, port), with repeats.
        def _name_servers(self, host):
            servers = []
            labels = host.lower().rstrip(".").split(".")
            if len(labels) > 1 and labels[-1] == "local":
                servers.append((_MDNS_ADDRESS, _MDNS_PORT))
                if len(labels) == 2:
                    return servers * (_DNS_TRIES // 2)  # for each family
                # A DNS server may know mqtt.company.local or mqtt.default.svc.cluster.local.
            try:
                # link.dns_servers() may return any collection, or None.
                for server in getattr(self.link, "dns_servers", dns_servers)() or ():
                    try:
                        address, port = (server, _DNS_PORT) if isinstance(server, str) else server
                        if is_literal(address):
                            servers.append((address, port))
                            continue
                    except Exception:
                        pass
                    self._report(LocalError("DNS server %r is no address" % (server,)))
            except Exception as error:  # the interface is not ready, or the link's code failed
                self._report(error)
            return (servers * _DNS_TRIES)[:_DNS_TRIES]

        # The answer to this query: that of decode_answer() + (is it cut off,); or None.
        def _answer(self, query):
            for _ in range(_PACKETS_PER_STEP):
                # recv() returns one datagram; readinto() would join several.
                try:
                    data = self._socket.recv(_DNS_ANSWER_MAX)
                except OSError as error:
                    if error.errno == EAGAIN:
                        return None
                    raise
                self._happened = True
                answer = decode_answer(data, query)
                if answer is not None:  # else a stranger's datagram: ignored
                    return answer + (data[2] & 0x02,)
            return None

    # Make a socket and connect it to a literal address: TCP for MQTT, or UDP for a DNS query.
    def _dial(self, literal, port, query):
        # Never blocks for a literal address. (ESP32 returns None as the address of an IPv6 one.)
        found = socket.getaddrinfo(literal, port, 0, socket.SOCK_STREAM)[0]
        address = found[-1] or (literal, port)
        kind = socket.SOCK_DGRAM
        if not (_RESOLVER and query):
            # A stream that loses no byte and keeps their order [MQTT-7.1.2-1] [MQTT5-4.2.0-1].
            kind = socket.SOCK_STREAM
            self._move(_TCP_CONNECTING)
        self._poll = None
        sock = self._socket = socket.socket(found[0], kind)
        sock.setblocking(False)
        if _RESOLVER and query and literal == _MDNS_ADDRESS:
            sock.sendto(query, address)  # not connected: answers come from other addresses
            return sock
        try:
            sock.connect(address)
        except OSError as error:
            if error.errno != EINPROGRESS:
                raise
        if _RESOLVER and query:
            sock.write(query)
        else:
            set_nodelay(sock)
        return sock

    if _RESOLVER or _TLS:
        # A generator: connect to the first of the addresses that accepts us, up to the first byte
        # of CONNECT. Each address gets an equal share of the time for TCP; with `shares` 2 the
        # other family gets one, too. TLS may use all that is left of the attempt. If no time is
        # left for the other family, the next attempt begins with that family.
        def _connect_to(self, addresses, shares):
            count = len(addresses)
            if _RESOLVER:
                self._address_count = count
            server = self._server
            first = server[_ADDRESS] % count
            for i in range(count):
                literal = addresses[(first + i) % count]
                # The next attempt begins with the next address, unless CONNACK comes from this
                # one: it may accept TCP and never answer.
                server[_ADDRESS] = first + i + 1
                left_ms = _left_of(self._attempt_end_ms, self._now_ms)
                share_ms = left_ms // (count - i + shares - 1)
                if self._longest_ms:
                    # An attempt has failed, perhaps because the link is slow and the shares were
                    # too short: try fewer addresses; the next attempt begins with the others.
                    share_ms = min(left_ms, max(share_ms, self.connect_timeout_ms // 4))
                try:
                    yield from self._open(literal, ticks_add(self._now_ms, share_ms))
                    return
                except _FAILURES:
                    is_late = _left_of(self._attempt_end_ms, self._now_ms) <= 0
                    if i == count - 1 or is_late:
                        if (
                            _RESOLVER
                            and is_late
                            and shares > 1
                            and self.state == _TCP_CONNECTING
                            and server[_ADDRESS] >= count
                        ):
                            server[_FAMILY] = _DNS_A + _DNS_AAAA - server[_FAMILY]
                        # A server that refuses us sends an alert before it closes (TLS 1.2: in
                        # clear). If our write failed first, the library has not read the alert: do
                        # it here.
                        if _TLS and self.state == _TLS_HANDSHAKE:
                            reason = self._decoder.buf
                            count = 0
                            try:
                                count = self._raw.readinto(reason, _ALERT_BYTES)
                            except Exception:
                                pass
                            if count == _ALERT_BYTES and reason[0] == _ALERT:
                                raise OSError(_TLS_ALERT, "alert %d" % reason[_ALERT_BYTES - 1])
                        raise
                    self._drop_socket()
                yield True  # one address a step: each may refuse at once

    # A generator: TCP, TLS, and the first byte of CONNECT.
    def _open(self, literal, deadline_ms):
        server = self._server
        sock = self._dial(literal, server[1], None)
        if _TLS and server[4]:
            # The TLS library writes the first bytes, so no write of ours shows that TCP is up.
            probe = select.poll()
            probe.register(sock)  # may fail: assign self._probe only after it
            self._probe = probe
            self._raw = sock
            while not self._is_tcp_up(sock):
                yield self._rest(deadline_ms)
            if self._is_insecure:
                self._is_insecure = False
                self._report(LocalError("tls is 'insecure': anybody may be the server"))
            sock = self._socket = wrap_tls(
                self._tls, sock, (self.tls_name or server[0]).rstrip(".")
            )
            self._poll = None
            self._move(_TLS_HANDSHAKE)
            deadline_ms = self._attempt_end_ms
            self._is_late = False
            yield self._rest(deadline_ms)
        # CONNECT is the first packet [MQTT-3.1.0-1] [MQTT5-3.1.0-1]. Before CONNACK only AUTH may
        # follow it [MQTT5-3.1.2-30].
        self._read = sock.readinto
        self._write = self._write_to_lwip if _linger_ms else sock.write
        self._outbox.clear()
        self._outbox.put_packet(
            encode_connect(
                self.client_id,
                self._is_clean_start() if _MQTT5 and self._is_5 else self.clean_session,
                self.keep_alive_s,
                server[2],
                self._password,
                self.will,
                self._connect_properties(),  # _MQTT5
                self._will_properties,  # _MQTT5
            )
        )
        while not self._outbox.flush(sock.write):
            yield self._rest(deadline_ms)
        self._is_late = False
        self._sent_ms = self._now_ms

    if _TLS:
        # Is TCP, below TLS, connected? If the poll reports anything but "writable" (a refused
        # connection is also readable on ESP32, and only an error on rp2), reading tells.
        def _is_tcp_up(self, sock):
            events = 0
            for _, found in self._probe.ipoll(0):
                events = found
            if not events:
                return False
            if events != select.POLLOUT:
                count = sock.readinto(self._decoder.buf, 1)
                if count is not None:
                    raise TransportError(
                        "it speaks before TLS begins" if count else _SERVER_CLOSED, "TCP"
                    )
            return events & select.POLLOUT

    def _on_connack(self, flags, return_code):
        if not _MQTT5 or not self._is_5:
            self._check_return_code(return_code)
        # Only bit 0 may be set, and not after a clean start [MQTT5-3.2.2-1, -4].
        if _MQTT5 and flags == 1 and self._is_5 and self._is_clean_start():
            raise _breach("a session after a clean start [5: 3.2.2]")
        if flags > 1:
            raise ServerError("CONNACK flags 0x%02x [MQTT-3.2.2-1]" % flags)
        if _MQTT5 and self._is_5 and self.session_expiry_s:
            self._is_clean = False  # resume from now on [MQTT5-3.1.2-4, -23]
        if _STATS:
            self._count(_N_CONNECTIONS)
        session_present = is_ours = flags == 1  # [MQTT5-4.1.0-1]
        if _FAILOVER or _MQTT5:
            # Another server of the list, or a referred one, has another session (section 4.1).
            server = self._server[:3]  # host, port, user
            is_ours = session_present and server == self._session_server
            self._session_server = server
        # If there is no memory for what follows, the next CONNACK counts as a new session.
        is_ours = is_ours and self._is_resumed
        self._is_resumed = is_ours
        self._filters.resume(session_present, is_ours)
        # Also messages that were sent may expire: this server may close the connection at one.
        if _OFFLINE and is_ours:
            self._pipe.drop_expired(self._now_ms)
        again = self._pipe.resume(is_ours)
        if _OFFLINE and not is_ours:
            self._pipe.drop_expired(self._now_ms)  # now no session knows of any
        if _MQTT5 and self._is_5:
            self._on_connack_5()
        if _QOS2:
            self._again = again
            if not is_ours:  # [MQTT-3.1.2-6]
                self._received = []
            # A 0 separates the identifiers of earlier connections, which come first. They don't
            # count against our receive maximum: the server counts from 0 on each connection
            # [5: 4.9]. _is_first() may forget them.
            received = self._received
            if 0 in received:
                received.remove(0)
            received.append(0)
        self._is_resumed = True
        if _RESOLVER:
            self._server[_ADDRESS] -= 1  # this address works: the next attempt begins with it
        self._is_resending = True
        self._move(_SUBSCRIBING)
        if self.keep_alive_s:
            self._arm(_TIMER_PING, self.keep_alive_s * 1000)

    def _check_return_code(self, return_code):
        if return_code:
            reason = _REFUSALS.split(";")[min(return_code, _REFUSALS_LAST) - 1]
            reason = "return code %d, %s" % (return_code, reason)
            if _MQTT5 and self._is_5 and return_code == 1:
                reason += ": leave protocol=5 out"
            raise Refused(reason, "CONNACK", None, return_code)

    # -- MQTT 5.0 -----------------------------------------------------------

    if _MQTT5:
        # Clean Start also where another server has our session: what this one may have is older.
        def _is_clean_start(self):
            return self._is_clean or (
                self.clean_session and self._server[:3] != self._session_server
            )

        # The properties of CONNECT, as bytes without their length; None: MQTT 3.1.1.
        def _connect_properties(self):
            if not self._is_5:
                return None
            data = self._properties
            said_s = self._said_expiry_s = self.session_expiry_s
            if said_s:
                data = b"\x11" + said_s.to_bytes(4, "big") + data
            return data + self._auth_fields(self._auth_data)

        # Method and data, as properties [5: 3.1.2.11.9, 3.1.2.11.10, 3.15.2.2].
        def _auth_fields(self, data):
            if not self._auth:
                return b""
            fields = b"\x15" + _field(self._auth[0])  # [MQTT5-4.12.0-5]
            return fields if data is None else fields + b"\x16" + _field(data)

        # The application's answer to the server's data; None: begin.
        def _authenticate(self, data):
            begin_ms = ticks_ms()
            try:
                data = self._auth[1](data)
            except Exception as error:  # [MQTT5-4.12.1-2]
                raise LocalError("auth: %s %s" % (type(error).__name__, error))
            self._ping_meanwhile()
            now_ms = self._now_ms = ticks_ms()
            # The callback's time does not count against the server.
            self._attempt_end_ms = ticks_add(self._attempt_end_ms, ticks_diff(now_ms, begin_ms))
            return data if data is None else _to_field("auth", data, False)

        # Raise if the method is not that of CONNECT [MQTT5-4.12.0-5, -6].
        def _check_auth(self, properties):
            if _value(properties, 0x15) != (self._auth and str(self._auth[0], "utf-8")):
                raise _breach("not the authentication method of CONNECT")

        # Read the properties of CONNACK; raise if they are wrong or the server refuses. Never
        # under the lock: it calls the application.
        def _read_connack(self, reason_code):
            decoder = self._decoder
            if decoder.have < decoder.length:
                raise _server_error(_PACKET_TOO_LARGE, "CONNACK of %d bytes" % decoder.length)
            if decoder.length < 3:  # the server knows MQTT 3.1.1 only
                self._check_return_code(reason_code)
                raise _server_error(_MALFORMED, "CONNACK without properties [5: 3.2.2]")
            properties, at = decode_properties(decoder.buf, 2, decoder.length, _CONNACK)
            if at != decoder.length:
                raise _server_error(_MALFORMED, "CONNACK goes on behind its properties")
            if reason_code:
                raise _refusal("refused", reason_code, properties, "CONNACK")
            self._check_auth(properties)
            if self._auth:
                self._authenticate(_value(properties, 0x16, b""))
            self.server_properties = properties

        # Apply the limits that the server sets in CONNACK.
        def _on_connack_5(self):
            properties = self.server_properties
            self.client_id = _value(properties, 0x12, self.client_id)  # [MQTT5-3.2.2-16]
            if isinstance(self.client_id, str):
                self.client_id = self.client_id.encode()
            # Its keep alive replaces ours [MQTT5-3.1.2-21] [MQTT5-3.2.2-21].
            self._asked_keep_alive_s = self.keep_alive_s
            self._server_keep_alive_s = _value(properties, 0x13)
            if self._server_keep_alive_s is not None:
                self.keep_alive_s = self._server_keep_alive_s
            # Its receive maximum [MQTT5-3.3.4-7, -9] [MQTT5-4.9.0-1, -2].
            self._flying_max = min(self.in_flight_max, _value(properties, 0x21, _STRING_BYTES_MAX))
            # The highest topic alias that it accepts [MQTT5-3.2.2-17, -18].
            self._alias_max = min(_value(properties, 0x22, 0), _ALIASES)
            pipe = self._pipe
            # The largest packet that it accepts [MQTT5-3.2.2-15].
            pipe.packet_bytes_max = min(
                pipe.our_bytes_max, _value(properties, 0x27, pipe.our_bytes_max)
            )
            self._set_easy_bytes()
            # Flags of a PUBLISH that it does not accept [MQTT5-3.2.2-11, -14].
            qos_max = _value(properties, 0x24, 2)
            self._forbidden = _QOS_MASK & ~(2 * qos_max + 1) if qos_max < 2 else 0
            if not _value(properties, 0x25, 1):
                self._forbidden |= _RETAIN
            self._lacks = 0
            for i in range(3):
                if not _value(properties, 0x28 + i, 1):
                    self._lacks |= 1 << i
            at = pipe.head
            while at != pipe.tail:
                first = pipe.firsts[at]
                if first and not first & (_RELEASED | _MUTE):
                    reason_code = 0
                    if first & self._forbidden:
                        reason_code = self._why_not(first)
                    elif pipe.packet_bytes_of(at) > pipe.packet_bytes_max:
                        reason_code = _PACKET_TOO_LARGE
                    if reason_code:
                        self._refused.append((pipe.tokens[at], reason_code))
                        if _OFFLINE:
                            pipe.give_up(at)
                        else:
                            pipe.free(at)
                at = pipe.after[at]

        # Messages of so many bytes skip the check of the exact packet size in publish().
        def _set_easy_bytes(self):
            pipe = self._pipe
            if pipe.easy_bytes >= 0:
                pipe.easy_bytes = max(
                    0, pipe.packet_bytes_max - _PUBLISH_HEADER_MAX - _ALIAS_BYTES - 1
                )

        # The reason code for a PUBLISH whose first byte has forbidden flags [MQTT5-3.2.2-11, -14].
        def _why_not(self, first_byte):
            return 0x9A if first_byte & _RETAIN & self._forbidden else 0x9B

        # The error if this server cannot accept this SUBSCRIBE (qos -1: UNSUBSCRIBE) of `size`
        # bytes; or 0.
        def _lacks_for(self, topic_filter, qos, options, size):
            pipe = self._pipe
            if size > pipe.packet_bytes_max:
                kind = "SUBSCRIBE" if qos >= 0 else "UNSUBSCRIBE"
                return pipe.why_too_large(kind, size)
            lacks = self._lacks if qos >= 0 else 0
            reason_code = 0
            if lacks & _LACKS_SHARED and topic_filter.startswith(b"$share/"):
                reason_code = 0x9E
            elif lacks & _LACKS_WILDCARDS and (b"+" in topic_filter or b"#" in topic_filter):
                reason_code = 0xA2
            elif lacks & _LACKS_IDENTIFIERS and options[2]:
                reason_code = 0xA1
            return reason_code and _server_error(reason_code, None, ": %r" % topic_filter)

        # Report queued messages that this server refuses, a few a step. Never under the lock.
        def _tell_refused(self):
            refused = self._refused
            left = _PACKETS_PER_STEP
            while refused and left > 0:
                left -= 1
                token, reason_code = refused[0]
                error = _server_error(reason_code, None, ": message %d" % token)
                error.token = token
                refused.pop(0)
                self._happened = True
                self._report(error)
                if self._is_enough:  # on_error was slow
                    self._is_enough = False
                    left = 0
            if refused or _OFFLINE and self._pipe.dropped:
                self._pipe.has_chores = self._pipe.is_signalled = True

        # The server that this one refers to [5: 4.11], or None: host and port from the reference,
        # all else as with this one. A reference of the referred server is not followed.
        def _refer(self, error):
            if error.reason_code not in (_USE_ANOTHER_SERVER, _SERVER_MOVED):
                return None
            server = self._server
            if server is self._referred:
                return None
            failure = found = None
            names = (_value(error.properties, 0x1C) or "").split(None, _REFERENCES_MAX)
            for name in names[:_REFERENCES_MAX]:
                if not found and "@" not in name and len(name) <= _REFERENCE_BYTES_MAX:
                    try:
                        found = parse_uri(("mqtts://" if server[4] else "mqtt://") + name)
                    except LocalError as wrong:
                        failure = wrong
            if not found:
                if failure:
                    self._report(failure)
                return None
            found = [found[0], found[1], server[2], server[3], server[4]]
            referred = self._referred
            if not referred or referred[:_FAMILY] != found:
                if _RESOLVER and referred:  # each reference may be a new name: keep one
                    self._known.pop(referred[0], None)
                self._referred = found + [_DNS_A, 0]
            return self._referred


# ---------------------------------------------------------------------------
# Serving: what each step() does while there is a connection
# ---------------------------------------------------------------------------
# _serve() is the loop: read (_receiving()), do chores (_do_chores(), _phases()), write
# (_sending()), check the earliest deadline. `_timers` holds all deadlines: _arm() sets one,
# _on_due() acts on those that have passed.


class _Serving(_Connecting):
    # A generator, and the hot loop: most steps end after a few comparisons. All rare work is
    # behind `has_chores`.
    def _serve(self):
        pipe = self._pipe
        timers = self._timers
        outbox = self._outbox
        now = ticks_ms
        since = ticks_diff
        next_packet = self._packets.send
        receive = self._receiving(next_packet).send
        transmit = self._sending().send
        next_phase = self._phases().send
        receive(None)
        transmit(None)
        first_byte = 0
        self._ping_meanwhile()  # on_connect may have been slow
        pipe.has_chores = pipe.is_signalled = True
        yield True  # CONNACK is enough for one step
        sent_ms = self._sent_ms
        long_ago_ms = -_AHEAD_MAX_MS  # see _left_of()
        is_held = is_partial = happened = False
        heard = is_busy = True  # more packets may follow CONNACK
        while True:
            if not is_held:
                first_byte = next_packet(None)
            if first_byte or is_busy or pipe.is_signalled:
                happened = heard
                if first_byte:
                    if receive(first_byte):
                        heard = happened = True
                    is_held = self._is_held
                    first_byte = is_held
                    is_partial = timers[_TIMER_PACKET] is not None
                elif is_partial:
                    timers[_TIMER_PACKET] = None  # the rest of a too large packet is discarded
                    is_partial = False
                now_ms = now()
                if heard and since(now_ms, self._now_ms) >= _SLOW_MS:
                    self._ping_meanwhile()
                self._now_ms = now_ms
                pipe.is_signalled = False
                is_rare = pipe.has_chores
                if is_rare and self._do_chores():
                    happened = True
                    self._ping_meanwhile()
                if transmit(is_rare):
                    happened = True
                    sent_ms = now_ms
                    if is_rare:
                        pipe.is_signalled = True  # messages of publish_isr() may have room now
                if is_rare:
                    if next_phase(None):
                        return
                    if self._happened:
                        self._happened = False
                        happened = True
                        self._ping_meanwhile()
                    if self._has_said_bye:
                        is_held = True  # stop reading; _phases() discards what still arrives
                        first_byte = 0
                    if self.state != _ONLINE or self._filters.is_unsent or self._has_marks:
                        pipe.has_chores = True
                is_busy = is_partial or outbox.pending
            else:
                now_ms = now()
            due_ms = timers[_DUE]
            if due_ms is not None and not long_ago_ms <= since(now_ms, due_ms) < 0:
                self._now_ms = now_ms
                if since(sent_ms, self._sent_ms) > 0:  # else _ping_meanwhile() sent later
                    self._sent_ms = sent_ms
                if self._on_due(heard):
                    happened = is_busy = pipe.has_chores = True
                    if transmit(True):
                        sent_ms = now_ms
            yield happened
            heard = happened = False

    # Callbacks took timeout_ms, in which we did not read: extend the deadline of each answer by
    # it. Returns how many ms the oldest unacknowledged packet may still wait, or None.
    def _allow(self, timeout_ms):
        pipe = self._pipe
        timers = self._timers
        for timer in range(_TIMER_PINGRESP, _TIMER_WRITE):
            if timers[timer] is not None:
                timers[timer] = ticks_add(timers[timer], timeout_ms)
        oldest_ms = None
        now_ms = self._now_ms
        at = pipe.head
        kind = _FLYING
        left = self._flying  # how many are to be found
        while at != pipe.tail and (left > 0 or kind == _FLYING):
            if at == pipe.left:
                kind = _FLYING | _RELEASED  # behind it only resent PUBRELs have left
            if pipe.firsts[at] & kind == kind:
                left -= 1
                at_ms = pipe.marks[at] = ticks_add(pipe.marks[at], timeout_ms)
                oldest_ms = _earlier(at_ms, oldest_ms, now_ms)
            at = pipe.after[at]
        if _MQTT5 and self._is_5 and self._auth_ms is not None:
            at_ms = self._auth_ms = ticks_add(self._auth_ms, timeout_ms)
            oldest_ms = _earlier(at_ms, oldest_ms, now_ms)
        for row in self._filters.rows:
            if row[_STATE] == _ASKED:
                at_ms = row[_MARK] = ticks_add(row[_MARK], timeout_ms)
                oldest_ms = _earlier(at_ms, oldest_ms, now_ms)
        if timeout_ms:
            self._now_ms = ticks_ms()
            self._on_ping_time(True)
        if oldest_ms is not None:
            return _left_of(ticks_add(oldest_ms, self.connect_timeout_ms), self._now_ms)

    # The chores of all stages of a life. True: something happened.
    def _do_chores(self):
        pipe = self._pipe
        pipe.has_chores = False
        pipe.mend()
        if pipe.head != pipe.left:
            pipe.move_head()
        poll = self._bad_poll
        if poll is not None:
            self._bad_poll = None
            poll.ipoll(0)
        if _ISR and self._isr_head != self._isr_tail:
            if pipe._lock.locked():  # it would wait for a call that was interrupted
                pipe.has_chores = pipe.is_signalled = True
            else:
                self._take_isr()
        if _OFFLINE and pipe.next_expiry_ms is not None:
            is_due = _left_of(pipe.next_expiry_ms, self._now_ms) <= 0
            if is_due and pipe._acquire(False):  # else another thread has the lock
                try:
                    pipe.drop_expired(self._now_ms)
                finally:
                    pipe.release_lock()
            if pipe.next_expiry_ms is not None:
                self._arm(_TIMER_EXPIRY, _left_of(pipe.next_expiry_ms, self._now_ms))
        if _OFFLINE and pipe.dropped:
            self._ping_meanwhile()
            self._tell_dropped()
        if _MQTT5 and self._is_5:
            self._do_chores_5()
        happened = self._happened
        self._happened = False
        return happened

    # A generator: the phases of a connection in service. Each step with chores resumes it. Yields
    # False until disconnect() has done its work, then True.
    def _phases(self):
        pipe = self._pipe
        outbox = self._outbox
        filters = self._filters
        while self._is_wanted and (filters.is_unsent or filters.asked_count or self._is_resending):
            yield False
        if self._is_wanted:
            self._move(_ONLINE)
            if _OFFLINE:
                pipe.is_online = True
            self._arm(_TIMER_STATE, _STABLE_MS)
            pipe.is_signalled = True  # messages may go now
            if _MQTT5:
                pipe.has_chores = True  # and so may the AUTH of reauthenticate()
            self._emit(self.on_online, _NOTHING)
        while self._is_wanted:
            yield False

        # -- disconnect(): drain, and DISCONNECT [MQTT-3.14.4-1, -2] [MQTT5-3.14.2-1]
        self._move(_CLOSING)
        self._arm(_TIMER_STATE, self.connect_timeout_ms)
        pipe.is_signalled = True  # messages may go now, even without ONLINE
        while not self._is_time_up and (
            pipe.head != pipe.tail or outbox.pending or filters.is_unsent or filters.asked_count
        ):
            yield False
        # Best effort: if DISCONNECT has not left when the time is up, the server publishes the
        # will. Accepted.
        while (
            not outbox.put_packet(self._bye if _MQTT5 else _DISCONNECT_PACKET)
            and not self._is_time_up
        ):
            yield False
        # After DISCONNECT we send and read nothing [MQTT5-3.14.4-1, -2].
        self._has_said_bye = self._is_held = self._happened = pipe.is_signalled = True
        while True:
            yield False
            if not outbox.pending or self._is_time_up:
                break
        # Discard what the server has sent meanwhile. Closing with unread bytes would reset the
        # connection: the server might lose DISCONNECT and publish the will.
        try:
            for _ in range(_PACKETS_PER_STEP):
                if not self._read(self._decoder.buf, len(self._decoder.buf)):
                    break
        except Exception:
            pass  # the server has closed already
        yield True

    # (Without timeout_ms: connect_timeout_ms, and not if it runs already.)
    def _arm(self, timer, timeout_ms=None):
        if timeout_ms is None:
            if self._timers[timer] is not None:
                return
            timeout_ms = self.connect_timeout_ms
        at_ms = ticks_add(self._now_ms, timeout_ms)
        self._timers[timer] = at_ms
        self._timers[_DUE] = _earlier(at_ms, self._timers[_DUE], self._now_ms)

    # Act on the deadlines that have passed. True: something happened. A deadline is extended by
    # one step, once, if we heard the server in this step. Traffic alone does not save a server
    # that never answers: a longer extension needs unread data that may hold the answer. Behind one
    # packet it lasts as long as that moves; behind many, up to _PUT_OFFS_MAX times.
    def _on_due(self, heard):
        timers = self._timers
        now_ms = self._now_ms
        happened = is_put_off = False
        moves_ms = 0
        if timers[_TIMER_PACKET] is not None:
            moves_ms = _left_of(timers[_TIMER_PACKET], now_ms) - self.connect_timeout_ms // 2
        for timer in range(_TIMERS):
            at_ms = timers[timer]
            if at_ms is None or _left_of(at_ms, now_ms) > 0:
                continue
            happened = True
            timers[timer] = None
            left_ms = 0
            if self.state == _CLOSING and timer != _TIMER_WRITE:
                left_ms = None  # draining has a deadline of its own, and ends with DISCONNECT
            elif timer == _TIMER_ACK:
                left_ms = self._allow(0)
            if timer == _TIMER_PING:
                self._on_ping_time()
            elif timer < _TIMER_PINGRESP:
                if timer == _TIMER_EXPIRY:
                    self._pipe.has_chores = True
                elif self.state == _CLOSING:
                    self._is_time_up = True  # stop draining
                else:
                    self._is_stable = True
                self._pipe.is_signalled = True
            elif left_ms is None or self._is_time_up:
                self._put_offs = 0  # no packet waits for an answer, or draining is over
            elif left_ms > 0:
                self._put_offs = 0
                self._arm(timer, left_ms)
            elif (
                timer < _TIMER_PACKET
                and (moves_ms > 0 or heard and self._packets_left <= 0)
                and (self._packets_left == _PACKETS_PER_STEP or self._put_offs < _PUT_OFFS_MAX)
            ):
                self._put_offs += 1
                self._packets_left = _PACKETS_PER_STEP  # until the next packet is complete
                self._arm(timer, self.connect_timeout_ms // 2)
            elif self._is_held and timer != _TIMER_WRITE:
                # While a packet is held we do not read, so no answer can be late.
                self._arm(timer)
            elif heard and not self._is_late:
                is_put_off = True
                timers[timer] = now_ms
            else:
                if timer == _TIMER_ACK and self.state == _SUBSCRIBING:
                    timer = _SUBSCRIBING - _TIMER_WORDS
                raise TimedOut(_NO_ANSWER, _STAGE_WORDS.split()[timer + _TIMER_WORDS])
        self._is_late = is_put_off
        timers[_DUE] = None
        for at_ms in timers:
            if at_ms is not None:
                timers[_DUE] = _earlier(at_ms, timers[_DUE], now_ms)
        return happened

    # The keep alive counts from the last packet sent, of any kind [MQTT-3.1.2-23]
    # [MQTT5-3.1.2-20]. Sending does not move the timer: when it expires, we check when that was.
    # If no packet came since it last expired, send PINGREQ anyway, as writing alone detects a dead
    # connection late; but not while bytes are pending, as _TIMER_WRITE watches these.
    def _on_ping_time(self, is_slow=False):
        limit_ms = self.keep_alive_s * 1000
        if _MQTT5 and self._server_keep_alive_s:  # what the application has set since may be less
            limit_ms = min(limit_ms or _MS_MAX, self._server_keep_alive_s * 1000)
        if not limit_ms:  # the application has set it to 0
            return
        left_ms = _left_of(ticks_add(self._sent_ms, limit_ms), self._now_ms)
        if is_slow and left_ms > 0:
            return
        if left_ms <= 0 or self._is_quiet and not self._outbox.pending:
            left_ms = limit_ms
            if is_slow or self._is_held or self._timers[_TIMER_PINGRESP] is None:
                self._put_ping()
        if not is_slow:
            if _ASYNCIO and self._full and not self._waiting:
                # The application may have left the loop without close(). Report the third expiry:
                # the first may be chance, and the second may follow it at once.
                messages = self._full[0]
                messages._idle += 1
                if messages._idle == 3:
                    words = (
                        "messages() of %r is full: nothing is read until it is emptied or closed"
                    )
                    self._report(LocalError(words % messages._filter))
            self._is_quiet = True
        self._arm(_TIMER_PING, left_ms)

    # Send one PINGREQ at a time, and none after DISCONNECT. Callers await the last PINGRESP first,
    # unless unread data may delay it. Without room the socket is stuck: _TIMER_WRITE runs.
    def _put_ping(self):
        outbox = self._outbox
        if self._ping_mark is None and outbox.room >= 2 and not self._has_said_bye:
            if self._timers[_TIMER_PINGRESP] is None:
                # PINGRESP proves nothing that follows PINGREQ, even in the same write.
                self._proving = self._unproven + 1 + outbox.pending // _SEGMENT_BYTES
            outbox.put_packet(_PINGREQ_PACKET)
            self._ping_mark = outbox.sent_count + outbox.pending & _COUNT_MASK
            self._has_marks = self._pipe.has_chores = True

    # True: this large packet must wait for PINGRESP, or it would not fit lwIP's memory.
    def _is_too_early(self, size):
        if (
            self._unproven <= _SEGMENTS_LARGE
            or size <= self._outbox.capacity
            or (_ASYNCIO and self._full and self._is_held)  # as in _sending()
        ):
            return False
        if self._timers[_TIMER_PINGRESP] is None and not self._is_held:
            self._put_ping()
        return True

    # Replaces the socket's write() on lwIP: instead of filling lwIP's memory, which blocks, it
    # refuses and waits for PINGRESP, which has a deadline.
    def _write_to_lwip(self, data, at, size):
        self._is_refused = (
            self._unproven > _SEGMENTS_MAX
            and self._timers[_TIMER_PINGRESP] is not None
            and not self._is_held
        )
        if self._is_refused:
            return None
        count = self._socket.write(data, at, size)
        if count:
            self._unproven += 1 + count // _SEGMENT_BYTES
        return count

    # After slow callbacks: extend the server's deadlines by their time, and flush what we owe,
    # with a PINGREQ if one is due, before the next callback. _sending() frees the slots.
    def _ping_meanwhile(self):
        took_ms = ticks_diff(ticks_ms(), self._now_ms)
        if took_ms >= _SLOW_MS and self.state >= _SUBSCRIBING and self._failed is None:
            self._allow(took_ms)
            self._pipe.has_chores = True
            try:
                if self._outbox.flush(self._write):
                    self._sent_ms = self._now_ms
                    self._timers[_TIMER_WRITE] = None
                    self._on_left()
            except Exception as error:
                self._failed = error  # a part may have left: _sending() ends the connection


# ---------------------------------------------------------------------------
# Receiving: a packet of the server, from the Decoder to a callback
# ---------------------------------------------------------------------------
# _receiving() delivers a PUBLISH and puts its answer into the Outbox. _on_ack() finds the slot of
# a PUBACK, PUBREC or PUBCOMP, _on_suback() the row of a SUBACK or UNSUBACK. _on_packet() handles
# the rest, _on_packet_5() what only MQTT 5.0 has.


class _Receiving(_Serving):
    # A generator: handles up to 16 packets. Send it the first byte of the first packet, _STUCK or
    # _MOVES; while a packet is held, anything. Yields True if we heard the server. All packets but
    # a QoS 0 PUBLISH must find room for an answer (even PUBACK, which needs none). Without room
    # the packet is held, and so are all that follow.
    def _receiving(self, next_packet):
        decoder = self._decoder
        outbox = self._outbox
        filters = self._filters
        timers = self._timers
        buf = decoder.buf
        begins_with = buf.startswith
        message = self._message
        if _OFFLINE:
            pipe = self._pipe
        now = ticks_ms
        since = ticks_diff
        length_of = len
        if _STATS:
            counts = self._counts
        on_ack = self._on_ack  # bound once: every QoS 1 message needs it
        # Of the last topics: (length and name as on the wire, name as str, callbacks, size of the
        # first item).
        topics = []
        if _MQTT5:
            is_5 = self._is_5
            # The first three of these, by alias [MQTT5-3.3.2-10]. _NOTHING: find callbacks again.
            aliases = [None] * (_ALIASES + 1)
            alias = at = 0
            identifiers = None
        known = turn = held = 0  # number of topics; index of the last one found
        key = text = callbacks = last_byte = None
        default = [None]
        qos = 0
        start = end = -1  # of the payload; start -1: not known yet
        set_start = -1  # that of `message`
        key_len = _COUNT_MASK  # no topic name is known
        heard = False
        is_new = True  # False: a QoS 2 message that is repeated
        while True:
            first_byte = yield heard
            if held:
                first_byte = held
                held = 0
            self._now_ms = now_ms = now()
            heard = self._is_held = False
            free = _PUBLISH | _RETAIN  # packets up to this first byte need no answer, and no room
            if _ASYNCIO and self._full and not self._waiting:
                free = 0
            left = _PACKETS_PER_STEP
            while first_byte > 0:
                if filters.is_changed:  # also by a callback or a SUBACK of this step
                    filters.is_changed = False
                    topics = []
                    known = 0
                    key_len = _COUNT_MASK
                    if _MQTT5:
                        for at in range(len(aliases)):
                            if aliases[at] and aliases[at][2] != ():
                                aliases[at] = aliases[at][0], aliases[at][1], _NOTHING
                if (
                    first_byte > free
                    and (outbox.room < _ACK_ROOM or not free and first_byte & ~0x0F == _PUBLISH)
                    and not (_MQTT5 and first_byte == _DISCONNECT)  # the server's needs no answer
                ):
                    held = first_byte
                    self._is_held = True
                    break
                left -= 1
                length = decoder.length
                if (
                    first_byte != last_byte
                    and first_byte & ~0x0F != _PUBLISH
                    or decoder.have < length
                ):
                    if (not _MQTT5 or length < 3) and first_byte == _PUBACK:
                        token = on_ack(_PUBACK, buf[0] << 8 | buf[1])
                    else:
                        if _MQTT5 and is_5 and decoder.have < length:
                            if first_byte < _LATE and not begins_with(_NO_TOPIC):
                                self._forget_alias(first_byte, aliases)
                        token = self._on_packet(first_byte)
                    if _OFFLINE:
                        pipe.is_looking = False
                        if token is None:  # another thread has the pipe: retry in the next step
                            held = first_byte
                            self._is_held = pipe.has_chores = pipe.is_signalled = True
                            break
                    if token and self.on_published is not None:
                        try:
                            self.on_published(self, token)
                        except Exception as error:
                            self._report(error)
                        except BaseException as error:
                            self._interrupt = error
                            left = 0
                        if since(now(), self._now_ms) >= _SLOW_MS:
                            left = 0
                else:
                    # -- PUBLISH (section 3.3): the topic name. Messages in a row with the same
                    # name look it up once.
                    if _MQTT5 and is_5:
                        # The payload follows the properties. Most messages have none, or an alias.
                        at = buf[0] << 8 | buf[1] if length > 2 else length
                        end_5 = at + (4 if first_byte & _QOS_MASK else 2)
                        if end_5 >= length:
                            raise _server_error(
                                _MALFORMED, "PUBLISH of %d bytes [5: 3.3]" % length
                            )
                        alias = identifiers = None
                        if not buf[end_5]:
                            end_5 += 1
                            message.properties = _NO_PROPERTIES
                        elif (
                            buf[end_5] == _ALIAS_BYTES
                            and buf[end_5 + 1] == _ALIAS
                            and end_5 + _ALIAS_BYTES < length
                        ):
                            alias = buf[end_5 + 2] << 8 | buf[end_5 + 3]
                            end_5 += 1 + _ALIAS_BYTES
                            message.properties = _NO_PROPERTIES
                        else:
                            if buf[end_5] > _SLOW_BYTES:
                                self._is_enough = True
                            message.properties, end_5 = decode_properties(
                                buf, end_5, length, _PUBLISH
                            )
                            alias = message.properties.pop("topic_alias", None)
                            identifiers = _value(message.properties, 0x0B)
                        # [MQTT5-3.3.2-7, -8, -9]
                        if alias is not None and not 0 < alias <= self._alias_limit:
                            raise _server_error(_ALIAS_INVALID, "topic alias %d" % alias)
                        if not at:
                            at = aliases[alias or 0]
                            if at is None:
                                raise _breach("topic alias without topic")
                            if at[2] is _NOTHING:
                                self._is_enough = True
                                aliases[alias] = (
                                    at[0],
                                    at[1],
                                    filters.callbacks(at[0], 2, len(at[0])) or None,
                                )
                                at = aliases[alias]
                            key = _NO_TOPIC
                            key_len = 2
                            message.topic_name = text = at[1]
                            callbacks = at[2]
                    if length < key_len or not begins_with(key):
                        for _ in topics:
                            turn += 1
                            if turn == known:
                                turn = 0
                            key, text, callbacks, key_len = topics[turn]
                            if length >= key_len and begins_with(key):
                                break
                        else:
                            key_len = 2 + (buf[0] << 8 | buf[1]) if length > 1 else 0
                            if key_len < 2 or key_len > length:
                                raise ServerError(
                                    "PUBLISH of %d bytes is too short [3.3]" % length
                                )
                            key, text, callbacks = self._new_topic(key_len)
                            if key_len < _KNOWN_TOPIC_BYTES_MAX:
                                turn = (turn + 1) % _KNOWN_TOPICS
                                if known < _KNOWN_TOPICS:
                                    turn = known
                                    topics.append(None)
                                    known += 1
                                topics[turn] = (key, text, callbacks, key_len)
                        message.topic_name = text
                        start = -1
                    if _MQTT5 and is_5 and alias and key_len > 2:
                        if aliases[alias] is None or aliases[alias][0] != key:
                            aliases[alias] = key, text, callbacks
                    if first_byte != last_byte:
                        last_byte = first_byte
                        qos = first_byte & _QOS_MASK
                        message.qos = qos >> _QOS_SHIFT
                        message.retain = first_byte & _RETAIN != 0
                        message.dup = qos != 0 and first_byte & _DUP != 0
                        start = -1
                    if _MQTT5 and is_5:
                        start = end_5
                        if start != set_start:
                            message._start = set_start = start
                            end = -1
                    elif start < 0:
                        start = key_len + 2 if qos else key_len
                        if start != set_start:
                            message._start = set_start = start
                            end = -1
                    # -- the packet identifier. Ctrl-C here ends the connection; _close() forgets
                    # the identifier that is `_arriving`, so that the resent message counts as new.
                    if qos:
                        packet_id = buf[key_len] << 8 | buf[key_len + 1]
                        if start > length or not packet_id:  # [MQTT-2.3.1-1]
                            words = "PUBLISH of %d bytes, packet id 0 or none" % length
                            raise (
                                _breach(words)
                                if _MQTT5 and start <= length
                                else ServerError(words)
                            )
                        if _STATS and first_byte & _DUP:
                            self._count(_N_DUP)
                        if qos == 4:
                            if not _QOS2:
                                raise ServerError(_NOT_BUILT % "PUBLISH at QoS 2, which")
                            is_new = self._is_first(packet_id)
                    # -- deliver
                    if is_new:
                        if length != end:
                            message.view = None
                            del message.view
                            end = message._end = length
                        takers = callbacks
                        if _MQTT5 and identifiers and takers != ():
                            if length_of(filters.rows) > _SLOW_FILTERS:
                                self._is_enough = True
                            at = message.topic_name.encode()
                            takers = filters.callbacks(at, 0, len(at), identifiers) or None
                        if takers is None:
                            default[0] = self.on_message
                            takers = () if default[0] is None else default
                        if _STATS:
                            if takers or callbacks is None:
                                counts[_N_RECEIVED] = counts[_N_RECEIVED] + 1 & _COUNT_MASK
                            else:
                                self._count(_N_IGNORED)
                        to_tell = length_of(takers)
                        while to_tell:
                            # Ctrl-C in this `try` loses no message for any callback: no
                            # interpreter checks for Ctrl-C between the countdown and the call.
                            try:
                                if _QOS2 and qos:
                                    self._arriving = 0
                                while True:
                                    # ~0 is the last callback, ~1 the one before it.
                                    takers[~(to_tell := to_tell - 1)](self, message)
                                    if not to_tell or since(now(), self._now_ms) >= _SLOW_MS:
                                        break
                            except Exception as error:
                                if _ASYNCIO and qos and error is _NOT_KEPT:
                                    # No memory in messages(): unacknowledged, it comes again.
                                    if qos == 4:
                                        self._arriving = packet_id
                                    raise
                                self._report(error)
                            except BaseException as error:
                                self._interrupt = error
                                left = 0
                            # Ctrl-C here loses it for the callbacks that follow.
                            if to_tell:
                                self._ping_meanwhile()
                                left = 0
                    # Acknowledge after the callback: a reset in between then repeats the message
                    # instead of losing it. Acknowledge it even if no callback took it
                    # [MQTT-3.3.4-1] [MQTT-4.5.0-2], in the order of arrival [MQTT-4.6.0-2, -3].
                    # MQTT 5.0: [MQTT5-3.3.4-1] [MQTT5-4.5.0-2] [MQTT5-4.6.0-2, -3]
                    # [MQTT5-4.3.2-4, -5] [MQTT5-4.3.3-8, -10, -13].
                    if qos:  # [MQTT-2.3.1-6] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
                        if _QOS2:
                            self._arriving = 0  # also without callbacks
                        outbox.put_ack(_PUBREC if qos == 4 else _PUBACK, packet_id)
                        is_new = True
                    # After slow callbacks, send what we owe before the next message.
                    if since(now(), now_ms) >= _SLOW_MS:
                        left = 0
                if self._is_enough:
                    self._is_enough = False
                    left = 0
                if left <= 0:
                    first_byte = _IDLE
                    break
                first_byte = next_packet(None)
            if left != _PACKETS_PER_STEP:
                heard = True
                self._packets_left = left
                self._is_quiet = False
            if first_byte >= 0:
                timers[_TIMER_PACKET] = None
            else:
                if first_byte == _MOVES:
                    heard = True
                if heard:
                    timers[_TIMER_PACKET] = None
                self._arm(_TIMER_PACKET)

    if _QOS2:
        # True: this QoS 2 message is new since its identifier was released. A repeated message has
        # DUP [MQTT-3.3.1-1] [MQTT5-3.3.1-1], but not all servers set it. So check DUP only where
        # the server may have begun a new session, which reuses identifiers.
        def _is_first(self, packet_id):
            received = self._received
            is_again = packet_id in received
            if is_again and not self._message.dup and self._filters.is_doubtful:
                received.remove(packet_id)
                is_again = False
            if is_again:
                received.append(packet_id)  # behind the 0: of this connection
                received.remove(packet_id)
                if _STATS:
                    self._count(_N_SUPPRESSED)
                return False
            if _MQTT5 and self._is_5:
                # See _on_connack() for the 0.
                if len(received) - received.index(0) > self._received_max:
                    raise _server_error(_RECEIVE_MAXIMUM_EXCEEDED, "more than our receive maximum")
            if len(received) > _RECEIVED_MAX:
                # Some servers forget a PUBREL that they owe when the connection breaks.
                if not received.pop(0):  # the 0; the next CONNACK adds it again
                    raise TransportError(
                        "more than %d QoS 2 messages without PUBREL" % _RECEIVED_MAX
                    )
            self._arriving = packet_id
            received.append(packet_id)
            return True

    # A new topic name: the first `end` bytes of the packet, with its length. Returns (these bytes,
    # name as str, callbacks). Callbacks None: on_message; empty tuple: ignore the message.
    def _new_topic(self, end):
        buf = self._decoder.buf
        key = bytes(memoryview(buf)[:end])
        if len(self._filters.rows) * max(end, _SLOW_BYTES) > _SLOW_FILTERS * _SLOW_BYTES:
            self._is_enough = True
        text = ""
        try:
            text = str(key[2:], "utf-8")
        except ValueError:
            pass
        is_ascii = len(text) == end - 2
        if not is_ascii and end > _SLOW_BYTES:  # _is_utf8() checks byte by byte
            self._is_enough = True
        if buf.find(b"\x00", 2, end) >= 0 or not is_ascii and not _is_utf8(buf, 2, end):
            raise ServerError("topic name is not UTF-8 without U+0000 [MQTT-1.5.3-1, -2]")
        if not text:
            raise ServerError("topic name is empty [MQTT-4.7.3-1]")
        if buf.find(b"+", 2, end) >= 0 or buf.find(b"#", 2, end) >= 0:
            # ActiveMQ sends these. Stream and session are intact, so ignore the message.
            if not self._is_topic_told:
                self._is_topic_told = True
                self._report(
                    ServerError("topic name holds a wildcard, ignored [MQTT-3.3.2-2]: %r" % text)
                )
            return key, text, ()
        return key, text, self._filters.callbacks(buf, 2, end) or None

    # All packets but a PUBLISH that fits the buffer. Returns as _on_ack().
    def _on_packet(self, first_byte):
        buf = self._decoder.buf
        kind = first_byte & _TYPE_MASK
        if (
            _MQTT5
            and self._is_5
            and kind != _PUBLISH
            and (
                self._decoder.length > 2
                or kind > _PINGRESP
                or kind == _SUBACK
                or kind == _UNSUBACK
            )
        ):
            return self._on_packet_5(kind)
        if first_byte & ~0x0F == _PUBLISH:
            self._on_large(first_byte)
        elif kind == _PINGRESP:
            if self._more_pings:  # the last PINGRESP proves what left before the first PINGREQ
                self._more_pings -= 1
                self._arm(_TIMER_PINGRESP, self.connect_timeout_ms)
            else:
                self._timers[_TIMER_PINGRESP] = None
                self._unproven -= self._proving
                self._proving = 0
            self._put_offs = 0
            if _STATS:
                self._counts[_N_PING_MS] = ticks_diff(self._now_ms, self._ping_ms)
        elif kind == _CONNACK:
            self._check_return_code(buf[1])
            raise ServerError("a second CONNACK [3.2]")
        else:
            packet_id = buf[0] << 8 | buf[1]
            if kind == _PUBLISH:  # the end of a too large one
                packet_id = self._decoder.late_id
            if not packet_id:
                raise _breach(_ID_0) if _MQTT5 else ServerError(_ID_0)
            if kind == _PUBLISH:
                received = self._received if _QOS2 and first_byte & 0x04 else (packet_id,)
                if packet_id not in received and len(received) <= _RECEIVED_MAX:
                    received.append(packet_id)  # in use until PUBREL [MQTT5-4.3.3-10]
                self._outbox.put_ack(_PUBREC if first_byte & 0x04 else _PUBACK, packet_id)
            elif kind == _SUBACK or kind == _UNSUBACK:
                self._on_suback(kind == _SUBACK, packet_id)
            elif _QOS2 and kind == _PUBREL & _TYPE_MASK:
                return self._on_pubrel(packet_id)
            else:
                return self._on_ack(kind, packet_id)
        return 0

    if _QOS2:
        # PUBREL: the server will not resend this message, so its identifier is free. (Ctrl-C in
        # _is_first() may have left it there twice.)
        def _on_pubrel(self, packet_id):
            received = self._received
            if _MQTT5 and self._is_5 and packet_id not in received:
                return self._put_not_found(_PUBCOMP, packet_id)
            while packet_id in received:
                received.remove(packet_id)
            self._outbox.put_ack(_PUBCOMP, packet_id)  # [MQTT-4.3.3-2] [MQTT5-4.3.3-11, -12]
            return 0

    # A message larger than the buffer: report it and discard it. At QoS 1 and 2 _on_packet()
    # acknowledges it at its end, when its identifier is known.
    def _on_large(self, first_byte):
        decoder = self._decoder
        end = topic_end = 2 + (decoder.buf[0] << 8 | decoder.buf[1])
        if first_byte & _QOS_MASK:
            decoder.late_at = topic_end
            end += 2
        if topic_end < (3 - self._is_5 if _MQTT5 else 3) or end > decoder.length:
            raise ServerError("PUBLISH of %d bytes is too short [3.3]" % decoder.length)
        if _STATS:
            self._count(_N_TOO_LARGE)
        self._report(
            LocalError(_TOO_LARGE % ("received message", decoder.length, len(decoder.buf)))
        )

    if _MQTT5:
        # A PUBLISH that is too large may redefine an alias: no later message may get the old topic
        # name. If it can't be read which alias, forget all.
        def _forget_alias(self, first_byte, aliases):
            decoder = self._decoder
            at = 2 + (decoder.buf[0] << 8 | decoder.buf[1])
            try:
                if first_byte & _QOS_MASK:
                    at += 2
                properties, _ = decode_properties(decoder.buf, at, decoder.have, _PUBLISH)
                aliases[_value(properties, _ALIAS, 0)] = None  # aliases[0]: none
            except Exception:
                for at in range(len(aliases)):
                    aliases[at] = None

    # PUBACK, PUBREC or PUBCOMP (sections 4.3.2 and 4.3.3). If no message waits for it, ignore and
    # count it: it may be from before a reset of this device. Returns the token of a message whose
    # exchange has ended, or 0. None: retry, another thread is in cancel(), perhaps for this
    # message. The caller clears pipe.is_looking.
    def _on_ack(self, kind, packet_id):
        pipe = self._pipe
        if _OFFLINE:
            pipe.is_looking = True  # keeps out cancel() of other threads
            if pipe.is_dropping:
                return None
        at = pipe.find_id(packet_id)
        first = pipe.firsts[at] if at >= 0 else 0
        if _QOS2 and kind == _PUBREC:
            # Send PUBREL at once [MQTT-4.3.3-1], so in the order of the PUBRECs [MQTT-4.6.0-4].
            # Answer an unknown PUBREC, too: the server would keep its identifier for ever.
            if _MQTT5 and self._is_5 and not first & 0x04:
                self._put_not_found(_PUBREL, packet_id)
            else:
                self._outbox.put_ack(_PUBREL, packet_id)
            if first & 0x04:
                # Keep the payload: a server that lost the session gets the whole message again.
                if not first & _RELEASED:
                    pipe.last_turn = pipe.last_turn % _TURNS + 1
                    pipe.firsts[at] = first | _RELEASED | pipe.last_turn << _TURN_SHIFT
                    pipe.marks[at] = self._now_ms
                    if self._outbox.tail is not None:
                        self._mark_pubrel()
                return 0
        elif kind == (_PUBCOMP if _QOS2 and first & _RELEASED else _PUBACK) and first & _QOS_MASK:
            if first & _FLYING:
                self._flying -= 1
            if _STATS:
                packet_id = self._counts
                packet_id[_N_ACKNOWLEDGED] = packet_id[_N_ACKNOWLEDGED] + 1 & _COUNT_MASK
            at = pipe.free(at)
            if _QOS2 and kind == _PUBACK and first & 0x04 and not self._is_qos1_told:
                self._is_qos1_told = True
                if _OFFLINE:
                    pipe.is_looking = False  # on_error may drop messages
                self._report(
                    ServerError("the server does not do QoS 2: PUBACK for a QoS 2 message")
                )
            return at
        if _STATS:
            self._count(_N_IGNORED)
        if not packet_id:
            raise _breach(_ID_0) if _MQTT5 else ServerError(_ID_0)
        return 0

    if _MQTT5:
        # PUBREL or PUBCOMP for an unknown identifier [MQTT5-3.6.2-1] [MQTT5-3.7.2-1].
        def _put_not_found(self, first_byte, packet_id):
            self._outbox.put_packet(
                bytes((first_byte, 3, packet_id >> 8, packet_id & 0xFF, _ID_NOT_FOUND))
            )
            return 0

        # Packets with a reason code, or properties. Returns as _on_packet().
        def _on_packet_5(self, kind):
            decoder = self._decoder
            buf = decoder.buf
            end = decoder.length
            at = 0
            packet_id = code = 0
            properties = _NO_PROPERTIES
            if decoder.have < end:
                raise _server_error(_PACKET_TOO_LARGE, "packet 0x%02x of %d bytes" % (kind, end))
            if end > _SLOW_BYTES:
                self._is_enough = True
            if kind == _CONNACK:
                raise _breach("a second CONNACK [5: 3.2]")
            if kind < _PINGRESP:
                packet_id = buf[0] << 8 | buf[1]
                at = 2
                if not packet_id:
                    raise _breach(_ID_0)
            if kind == _SUBACK or kind == _UNSUBACK:
                properties, at = decode_properties(buf, at, end, kind)
                if at != end - 1:
                    words = "packet 0x%02x with %d reason codes for one filter"
                    raise _server_error(_MALFORMED, words % (kind, end - at))
                self._on_suback(kind == _SUBACK, packet_id, properties)
                return 0
            if at < end:
                code = buf[at]
                if at + 1 < end:
                    properties, at = decode_properties(buf, at + 1, end, kind)
                    if at != end:
                        raise _server_error(_MALFORMED, "packet 0x%02x is too long" % kind)
            if kind == _DISCONNECT:  # [MQTT5-4.13.2-1]
                raise _refusal("DISCONNECT", code, properties, self._stage())
            if kind == _AUTH:
                self._on_auth(code, properties)
            elif code < _FAILED or kind >= _PUBREL & _TYPE_MASK:
                # 0x92 in PUBREL or PUBCOMP ends the exchange, too
                if _QOS2 and kind == _PUBREL & _TYPE_MASK:
                    return self._on_pubrel(packet_id)
                return self._on_ack(kind, packet_id)
            else:
                return self._on_failed(kind, packet_id, code, properties)
            return 0

        # PUBACK or PUBREC with a reason code of 0x80 or above ends the exchange: the message is
        # not sent again [MQTT5-4.3.3-4] [MQTT5-4.4.0-2]. Returns as _on_ack().
        def _on_failed(self, kind, packet_id, code, properties):
            pipe = self._pipe
            # The lock guards pipe.dropped, and keeps writers from dropping messages meanwhile.
            if _OFFLINE and not pipe._acquire(False):
                return None
            error = None
            is_there = False
            try:
                at = pipe.find_id(packet_id)
                first = pipe.firsts[at] if at >= 0 else 0
                if first & _RELEASED or not first & (0x02 if kind == _PUBACK else 0x04):
                    if _STATS:
                        self._count(_N_IGNORED)
                elif code == _ID_IN_USE and kind != _PUBACK and first & _DUP:
                    is_there = True  # EMQX has it from an earlier connection
                else:
                    error = _refusal(
                        "message %d to %r" % (pipe.tokens[at], pipe.topics[at]), code, properties
                    )
                    error.token = pipe.tokens[at]
                    alias = self._aliases.pop(pipe.topics[at], None)
                    if alias:  # the server may not have taken it in
                        self._alias_topics[alias[-1]] = None
                        pipe.has_chores = True  # see _sending()
                    if first & _FLYING:
                        self._flying -= 1
                    if not pipe.free(at):
                        error = None
                    elif _OFFLINE:
                        pipe.dropped.append(error.token)
            finally:
                if _OFFLINE:
                    pipe.release_lock(False)
            if is_there:
                return self._on_ack(kind, packet_id)
            if error:
                pipe.has_chores = pipe.is_signalled = True
                self._report(error)
            return 0

        def _on_auth(self, code, properties):
            is_due = self._is_authenticating or self.state == _AWAITING_CONNACK and code
            if self._auth is None or not is_due or code not in (0, _CONTINUE_AUTH):
                # [MQTT5-4.12.0-6] [MQTT5-3.15.2-1]
                raise _breach("AUTH that was not asked for")
            if self._decoder.length:  # else success, in the short form [5: 3.15.2.1]
                self._check_auth(properties)
            self._auth_ms = None
            data = self._authenticate(_value(properties, 0x16, b""))
            if code:  # [MQTT5-4.12.0-3]
                self._put_auth(code, data)
            else:
                self._is_authenticating = False
                self._pipe.has_chores = True  # reauthenticate() may have been called again
                self._emit(self.on_authenticated, _NOTHING)

        def _put_auth(self, code, data):
            packet = _packet(_AUTH, bytes((code,)) + _with_length(self._auth_fields(data)))
            if self.state >= _SUBSCRIBING and len(packet) > self._pipe.packet_bytes_max:
                raise self._pipe.why_too_large("AUTH", len(packet))
            self._auth_packet = packet
            self._send_auth()

        # Send AUTH now, or after the large message before it. _on_left() starts the deadline of
        # the answer; before CONNACK the deadline is that of the attempt.
        def _send_auth(self):
            outbox = self._outbox
            packet = self._auth_packet
            if not self._is_too_early(len(packet)) and outbox.put_packet(packet):
                self._auth_packet = None
                if self._is_authenticating:
                    self._auth_mark = outbox.sent_count + outbox.pending & _COUNT_MASK
                    self._has_marks = True
            self._pipe.has_chores = True

        # The chores of MQTT 5.0: reauthenticate(), errors to report, requests that time out.
        def _do_chores_5(self):
            if self._wants_auth and self.state == _ONLINE and not self._is_authenticating:
                self._wants_auth = False
                self._is_authenticating = True
                # [MQTT5-4.12.1-1]
                self._put_auth(_REAUTHENTICATE, self._authenticate(None))
            elif self._auth_packet is not None and not self._has_said_bye:
                self._send_auth()
            if self._refused:
                self._tell_refused()
            now_ms = self._now_ms
            for at in range(len(self._requests)):
                request = self._requests[at]
                if request is not None:
                    left_ms = _left_of(request[2], now_ms)
                    if left_ms <= 0:
                        if _OFFLINE and not self._expire(request[3]):
                            continue
                        self._requests[at] = None
                        self._happened = True
                        self._emit(request[1], None)
                        if self._is_enough:  # it was slow
                            self._is_enough = False
                            self._pipe.has_chores = self._pipe.is_signalled = True
                            break
                    else:
                        due_ms = self._timers[_TIMER_EXPIRY]
                        if _earlier(request[2], due_ms, now_ms) != due_ms:
                            self._arm(_TIMER_EXPIRY, left_ms)

    if _MQTT5 and _OFFLINE:
        # The message with this token expires now. False: not yet, another thread has the lock.
        def _expire(self, token):
            pipe = self._pipe
            pipe.has_chores = pipe.is_signalled = True
            if not pipe._acquire(False):
                return False
            try:
                at = pipe.find(token)
                # (At QoS 2 nothing expires that was sent.)
                if at >= 0 and not (pipe.firsts[at] & _SENT and pipe.firsts[at] & 0x04):
                    pipe.firsts[at] |= _EXPIRES
                    pipe.extras[at] = self._now_ms
                    pipe.drop_expired(self._now_ms)  # now: its way may be free in this step
            finally:
                pipe.release_lock()
            return True

    # SUBACK or UNSUBACK (sections 3.9 and 3.11).
    def _on_suback(
        self,
        is_suback,
        packet_id,
        properties=None,  # _MQTT5
    ):
        decoder = self._decoder
        filters = self._filters
        row = filters.find_asked(packet_id - _FILTER_ID_MIN)
        if row is None or (row[_QOS] >= 0) != is_suback:
            if _STATS:
                self._count(_N_IGNORED)
            return
        code = decoder.buf[2] if is_suback else 0
        if _MQTT5 and properties is not None:
            code = decoder.buf[decoder.length - 1]
            if 2 < code < _FAILED and (is_suback or code != 0x11):
                words = "SUBACK" if is_suback else "UNSUBACK"
                raise _breach("%s with code 0x%02x [5: 3.9, 3.11]" % (words, code))
            if code >= _FAILED:
                error = _refusal("filter %r" % row[_FILTER], code, properties)
                error.token = abs(row[_TOKEN])
        elif is_suback and decoder.length != 3:  # [MQTT-3.9.3-1]
            raise ServerError("SUBACK with code 0x%02x, %d bytes [3.9]" % (code, decoder.length))
        granted = bytes((code,))  # first: if this runs out of memory, nothing has changed
        token = row[_TOKEN]
        row[_TOKEN] = -abs(token)
        # Also a reserved code [MQTT-3.9.3-2]. An UNSUBSCRIBE that is refused ends no subscription.
        is_refused = code > 2 and (is_suback or code >= _FAILED)
        filters.on_answer(row, _REFUSED if is_refused else _GRANTED)
        pipe = self._pipe
        # Prune only if this answer may end a row, or is the last: each prune goes through all
        # rows. If another thread has the lock, or memory is short, the next answer does it.
        is_over = row[_QOS] < 0 or not row[_IS_LAST] or not filters.asked_count
        if is_over and pipe._acquire(False):
            if len(filters.rows) > _SLOW_FILTERS:
                self._is_enough = True
            try:
                filters.prune()
            except MemoryError:
                pass
            finally:
                pipe.release_lock(False)
        if _MQTT5 and properties is not None and code >= _FAILED:
            self._report(error)
        # Tell each first answer, and each refusal after a reconnection.
        if is_suback and (token > 0 or is_refused):
            self._emit(self.on_subscribed, abs(token), granted)


# ---------------------------------------------------------------------------
# Sending: a message, from the Pipe to the stream
# ---------------------------------------------------------------------------
# _sending() moves messages from the ring to the Outbox (it moves `sent`) and writes. It frees what
# leaves at once; _leaving() frees the rest (it moves `left`).


class _Sending(_Receiving):
    # A generator: writes what is ready. Yields True if anything left. The order: PUBRELs, as their
    # PUBRECs came [MQTT-4.6.0-4]; filters; messages in the order of publish(), those sent before
    # again [MQTT-4.6.0-1] [MQTT5-4.6.0-1, -4]. No receive maximum delays PUBRELs and filters
    # [MQTT5-3.3.4-8] [MQTT5-4.9.0-3]. New messages wait for ONLINE: then the subscriptions are in
    # service.
    #
    # What each message needs is in local variables: they cost a fifth of an attribute's time.
    def _sending(self):
        pipe = self._pipe
        outbox = self._outbox
        filters = self._filters
        timers = self._timers
        firsts = pipe.firsts
        topics = pipe.topics
        payloads = pipe.payloads
        marks = pipe.marks
        after = pipe.after
        if _STATS:
            counts = self._counts
        size = pipe.size
        buf = outbox.buf
        extend = buf.extend
        length_of = len
        write = self._socket.write
        free = self._leaving().send
        free(None)
        next_id = self._next_id
        again = self._again if _QOS2 else ()
        if _MQTT5:
            # aliases: topic name -> its alias as properties [MQTT5-3.3.2-8], of this connection
            # [MQTT5-3.3.2-7]. wire: the last topic name as sent; more: the bytes that this adds.
            is_5 = self._is_5
            aliases = self._aliases = {}
            self._alias_topics = [None] * (_ALIASES + 1)
            self._next_alias = 1
            wire = properties = None
            more = 0
            alias_topic_min = _ALIAS_TOPIC_MIN if self._alias_max else _PACKET_BYTES_LIMIT
            need_max = min(0x81, pipe.packet_bytes_max)  # else an alias may not fit
        # The start of the last small PUBLISH, up to its topic name: kept for the next one like it.
        head = bytearray(0x81)  # reserves the memory
        last_topic = last_first = last_size = None
        qos = need = 0
        is_lwip = _linger_ms > 0
        moved = is_away = is_full = False
        while True:
            is_rare = yield moved
            moved = False
            for _ in range(_FLUSHES_PER_STEP):
                is_full = is_lwip and self._unproven > _SEGMENTS_PING
                if is_full:
                    # PINGRESP proves that the server has received what left before PINGREQ.
                    if timers[_TIMER_PINGRESP] is None and not self._is_held:
                        self._put_ping()
                    is_rare = is_rare or self._has_marks
                    # While messages() is full we read no PINGRESP, and its task may wait for us.
                    is_full = self._unproven > _SEGMENTS_MAX and not (
                        _ASYNCIO and self._full and self._is_held
                    )
                if is_rare:
                    if _MQTT5:
                        last_topic = None  # its alias may be forgotten
                    free(not outbox.pending)  # what _ping_meanwhile() has sent
                    if self._failed is not None:
                        raise self._failed
                    if _QOS2 and again:
                        if _OFFLINE:
                            pipe.is_looking = True  # no writer may move the messages
                        while again and outbox.room >= _ACK_BYTES:
                            if _OFFLINE and pipe.is_dropping:  # retry
                                pipe.has_chores = pipe.is_signalled = True
                                break
                            at = pipe.find_id(again.pop(0)[1])
                            if at >= 0:
                                self._send_pubrel(at)
                        if _OFFLINE:
                            pipe.is_looking = False
                    if filters.is_unsent and not self._has_said_bye and not is_full:
                        self._send_filters()

                # -- messages: from the ring to the outbox. is_stuck: they wait, but not for room
                pending = outbox.pending
                if not is_rare and not pending and pipe.sent == pipe.tail:
                    break
                is_stuck = (
                    is_full or is_rare and (again or self._has_said_bye or filters.is_unsent)
                )
                if _OFFLINE:
                    pipe.is_looking = True  # first: no writer may move `sent` from here on
                    is_away = pipe.is_dropping
                    if is_away:  # a writer drops messages, or Ctrl-C ended it: retry
                        pipe.is_looking = False
                        is_stuck = pipe.has_chores = pipe.is_signalled = True
                at = begin = pipe.sent
                tail = pipe.tail
                # Fast path: small messages that are sent for the first time, as nearly all are.
                is_qos_0 = True
                limit = room = outbox.room
                end = tail
                if is_stuck or is_rare and (self._is_resending or self.state != _ONLINE):
                    end = at
                while at != end:
                    first = firsts[at]
                    if first != last_first:
                        if first & ~(_QOS_MASK | _RETAIN) != _PUBLISH:
                            break
                        last_first = head[0] = first
                        last_size = None
                        qos = first & _QOS_MASK
                    if topics[at] is not last_topic:
                        last_topic = topics[at]
                        last_size = None
                        head[2] = length_of(last_topic) >> 8
                        head[3] = length_of(last_topic) & 0xFF
                        if _MQTT5:
                            wire = last_topic
                            if is_5:
                                properties = aliases.get(wire)
                                if properties is not None:
                                    head[2] = head[3] = 0
                                    wire = b""
                                    more = 1 + _ALIAS_BYTES - length_of(last_topic)
                                elif length_of(wire) < alias_topic_min:
                                    properties = b"\x00"
                                    more = 1
                                else:  # it gets an alias when it is sent
                                    more = 1 + _ALIAS_BYTES
                    payload = payloads[at]
                    if length_of(payload) != last_size:
                        last_size = length_of(payload)
                        need = last_size + length_of(last_topic) + (6 if qos else 4)
                        if _MQTT5:
                            need += more
                        if need > (need_max if _MQTT5 else 0x81):
                            last_size = None
                            break
                        head[1] = need - 2
                        head[_NAME] = wire if _MQTT5 else last_topic  # [MQTT-3.3.2-1]
                    if room < need:
                        break
                    if qos:
                        is_qos_0 = False
                        packet_id = next_id(at)
                        if packet_id < 0:
                            is_stuck = True
                            break
                        extend(head)
                        buf.append(packet_id >> 8)  # [MQTT-2.3.1-5]
                        buf.append(packet_id & 0xFF)
                        self._flying += 1
                        firsts[at] = first | _SENT | _FLYING | _COUNTED
                        if _STATS:
                            counts[_N_SENT] = counts[_N_SENT] + 1 & _COUNT_MASK
                    else:
                        extend(head)
                    if _MQTT5:
                        marks[at] = need
                        if is_5:
                            if properties is None:
                                properties = self._give_alias(last_topic)
                                last_topic = None  # the next one goes by its alias
                            extend(properties)
                    extend(payload)
                    room -= need
                    at = after[at]
                # Write at once if no more fit or wait, and the outbox holds nothing else, or only
                # acknowledgements and a PINGREQ that the socket was not offered yet.
                count = -1
                if (
                    at != begin
                    and (at == tail or is_stuck or room < need)
                    and (
                        not pending or not outbox.end and outbox.part is buf and pipe.left == begin
                    )
                ):
                    pipe.sent = at
                    if _OFFLINE:
                        pipe.is_looking = False
                    limit += pending - room
                    if is_lwip:  # as _write_to_lwip() does; this write has two segments at most
                        self._unproven += 1 + (limit >= _SEGMENT_BYTES)
                    count = write(buf, 0, limit) or 0
                    if count == limit:
                        buf[_EVERYTHING] = b""
                        outbox.sent_count = outbox.sent_count + count & _COUNT_MASK
                        if pending:
                            outbox.pending = 0
                            outbox.room = outbox.capacity
                        if is_qos_0 and self.on_published is None:
                            moved = True
                            pipe.left = at
                            count = at - begin if at > begin else at - begin + size
                            if _STATS:
                                counts[_N_SENT] = counts[_N_SENT] + count & _COUNT_MASK
                            # Drop only the payload: the next message in this slot overwrites the
                            # rest.
                            for first in range(at - count, at):  # negative: from the lists' ends
                                payloads[first] = None
                            if pipe.head == begin:
                                pipe.head = at
                            else:
                                for first in range(at - count, at):
                                    firsts[first] = 0
                            if is_rare and self._has_marks:
                                self._on_left()
                            if at == tail:
                                break
                            continue
                        begin = at
                # Account in the outbox for what has not left.
                while begin != at:
                    if _MQTT5:
                        first = marks[begin]
                    else:
                        first = 6 if firsts[begin] & _QOS_MASK else 4
                        first += length_of(topics[begin]) + length_of(payloads[begin])
                    outbox.room -= first
                    outbox.pending += first
                    marks[begin] = outbox.sent_count + outbox.pending & _COUNT_MASK
                    begin = after[begin]

                # -- all other messages, and the write
                failure = None
                if count < 0:
                    while at != tail and not is_stuck:
                        first = firsts[at]
                        if first:
                            packet_id = 0
                            if first & _QOS_MASK:
                                packet_id = next_id(at)
                                if first & _SENT:
                                    first |= _DUP  # [MQTT-3.3.1-1] [MQTT5-3.3.1-1]
                            elif self.state == _SUBSCRIBING:
                                packet_id = -1
                            if packet_id < 0:
                                is_stuck = True
                                break
                            if packet_id or not first & _QOS_MASK:  # 0: its PUBREL was sent
                                payload = payloads[at]
                                if is_lwip and self._is_too_early(
                                    pipe.packet_bytes_of(at)
                                    if _MQTT5
                                    else length_of(topics[at]) + length_of(payload)
                                ):
                                    break
                                if _MQTT5:
                                    wire = self._topic_to_send(at) if is_5 else topics[at]
                                    last_topic = None
                                    count = length_of(wire) + length_of(payload)
                                else:
                                    count = length_of(topics[at]) + length_of(payload)
                                if not outbox.put_publish(
                                    first & 0xFF,
                                    wire if _MQTT5 else topics[at],
                                    payload,
                                    count,
                                    packet_id,
                                ):
                                    break
                                marks[at] = outbox.sent_count + outbox.pending & _COUNT_MASK
                                if _MQTT5 and self._is_alias_new:
                                    self._give_alias(topics[at])
                            if packet_id:
                                self._flying += 1
                                firsts[at] |= first & _DUP | _SENT | _FLYING | _COUNTED
                                if _STATS:
                                    self._count(_N_AGAIN if first & _COUNTED else _N_SENT)
                        at = after[at]
                    if not is_away:
                        pipe.sent = at
                        if not outbox.pending and pipe.left != at:  # only free slots remain
                            pipe.left = at
                            pipe.move_head()
                        if _OFFLINE:
                            pipe.is_looking = False
                        if is_rare and self._is_resending and not again:
                            self._is_resending = at != tail and firsts[at] & _SENT
                    if not outbox.pending:
                        break
                    try:
                        count = outbox.flush(self._write)
                    except BaseException as error:
                        # Free what left before the error, so that no QoS 0 is sent twice.
                        failure = error
                        count = 1
                elif outbox.pending:
                    count = outbox.flush(self._write, count)

                # -- what has left
                is_all = not outbox.pending
                if count:
                    moved = True
                    self._sent_ms = self._now_ms
                    timers[_TIMER_WRITE] = None
                    free(is_all)
                    if self._has_marks:
                        self._on_left()
                    is_all = not outbox.pending  # a callback was slow: see _ping_meanwhile()
                if failure is not None:
                    raise failure
                if not is_all:
                    if timers[_TIMER_WRITE] is None and not self._is_refused:
                        self._arm(_TIMER_WRITE)
                    break
                # (With is_full, go on: there is room for a PINGREQ now.)
                if (
                    is_stuck
                    and not is_full
                    or at == pipe.tail
                    and not (is_rare and filters.is_unsent)
                ):
                    break
            else:
                pipe.is_signalled = True  # the next step goes on

    # A generator, beside _sending(): frees the slots of what has left, and calls on_published.
    # Send it True if the whole outbox has left.
    def _leaving(self):
        pipe = self._pipe
        outbox = self._outbox
        timers = self._timers
        firsts = pipe.firsts
        tokens = pipe.tokens
        topics = pipe.topics
        payloads = pipe.payloads
        marks = pipe.marks
        if _OFFLINE:
            extras = pipe.extras
        if _MQTT5:
            properties = pipe.properties
        if _STATS:
            counts = self._counts
        after = pipe.after
        now = ticks_ms
        since = ticks_diff
        while True:
            is_all = yield
            if pipe.left == pipe.sent:
                continue
            sent_count = outbox.sent_count
            sent = pipe.sent
            told = self.on_published
            at = pipe.left
            while at != sent:
                first = firsts[at]
                token = 0
                if first and not first & _RELEASED:
                    if not is_all and sent_count - marks[at] & _COUNT_MASK >= _COUNT_HALF:
                        break
                    if first & _QOS_MASK:  # the slot stays until its exchange ends in _on_ack()
                        marks[at] = self._now_ms
                        if timers[_TIMER_ACK] is None:
                            self._arm(_TIMER_ACK)
                    else:
                        token = tokens[at]
                        firsts[at] = 0
                        topics[at] = payloads[at] = None
                        if _OFFLINE:
                            extras[at] = None
                        if _MQTT5 and properties:
                            properties[at] = None
                        if _STATS:
                            counts[_N_SENT] = counts[_N_SENT] + 1 & _COUNT_MASK
                begin = at
                at = after[at]
                if token and told is not None:
                    pipe.left = at
                    if pipe.head == begin:
                        pipe.head = at
                    try:
                        told(self, token)
                    except Exception as error:
                        self._report(error)
                    except BaseException as error:
                        self._interrupt = error
                    if since(now(), self._now_ms) >= _SLOW_MS:
                        self._ping_meanwhile()
                        sent_count = outbox.sent_count
            pipe.left = at
            if pipe.head != at and not firsts[pipe.head]:
                pipe.move_head()

    # The packet identifier with which to send the QoS 1 or 2 message at `at` [MQTT-4.3.2-1]
    # [MQTT5-2.2.1-2] [MQTT5-4.3.2-2] [MQTT5-4.3.3-2]. 0: no PUBLISH needed. -1: it must wait.
    def _next_id(self, at):
        pipe = self._pipe
        first = pipe.firsts[at]
        if first & _FLYING:
            return 0  # its PUBREL was sent
        if _QOS2 and first & (_RELEASED | _MUTE):
            if self._outbox.room < _ACK_BYTES:
                return -1
            self._send_pubrel(at)
            return 0
        if self._flying >= (self._flying_max if _MQTT5 and self._is_5 else self.in_flight_max):
            return -1
        if self.state == _SUBSCRIBING and not first & _SENT:
            return -1
        # Closed again and again: one at a time, so that the others end and _suspect() is right.
        # (A server that closes with unread data takes back what it has just sent: TCP's RST.)
        if _HINTS and self._kicks > 1 and self._flying and not self._is_stable:
            return -1
        token = pipe.tokens[at]
        packet_id = (token - 1) % _MESSAGE_IDS + 1
        # Tokens that lie far apart, or have wrapped, may share an identifier: after 65,279 tokens
        # while one message was stuck [MQTT-2.3.1-2] [MQTT5-2.2.1-3] [MQTT5-4.3.2-1]
        # [MQTT5-4.3.3-1]. This one waits until the exchange of the earlier message has ended.
        if (
            _OFFLINE
            and pipe.is_mixed
            or not 0 <= token - pipe.tokens[pipe.head] <= _MESSAGE_IDS - 1000
        ) and pipe.find_id(packet_id, at) >= 0:
            return -1
        return packet_id

    if _QOS2:

        def _send_pubrel(self, at):
            pipe = self._pipe
            self._outbox.put_ack(_PUBREL, (pipe.tokens[at] - 1) % _MESSAGE_IDS + 1)
            if _OFFLINE and not pipe.firsts[at] & _RELEASED:
                pipe.extras[at] = 0  # given up: counts PUBRELs, see Pipe.resume()
            pipe.firsts[at] |= _RELEASED | _FLYING
            pipe.marks[at] = self._now_ms
            if self._outbox.tail is not None:
                self._mark_pubrel()
            self._flying += 1
            self._arm(_TIMER_ACK)
            if _STATS:
                self._count(_N_AGAIN)
                self._outbox.packet_count -= 1  # `stats` adds _N_AGAIN to it

        # PUBREL follows a large message, which may leave slowly: see _on_left().
        def _mark_pubrel(self):
            outbox = self._outbox
            self._pubrel_mark = outbox.sent_count + outbox.pending & _COUNT_MASK
            self._has_marks = self._pipe.has_chores = True

    if _MQTT5:
        # Give this topic name the next alias, if need be that of the oldest name. Returns the
        # properties that define it.
        def _give_alias(self, topic_name):
            alias = self._next_alias
            self._next_alias = alias % self._alias_max + 1
            self._is_alias_new = False
            old = self._alias_topics[alias]
            if old is not None:
                del self._aliases[old]
            self._alias_topics[alias] = topic_name
            properties = bytes((_ALIAS_BYTES, _ALIAS, 0, alias))
            self._aliases[topic_name] = properties
            return properties

        # The topic name of a message as put_publish() sends it; sets Outbox.properties to match.
        # _is_alias_new: if the message is sent, its topic name gets an alias.
        def _topic_to_send(self, at):
            pipe = self._pipe
            topic_name = pipe.topics[at]
            alias = self._aliases.get(topic_name)
            self._is_alias_new = (
                alias is None
                and self._alias_max
                and len(topic_name) >= _ALIAS_TOPIC_MIN
                and pipe.packet_bytes_of(at) + 2 * _ALIAS_BYTES <= pipe.packet_bytes_max
            )
            first = pipe.firsts[at]
            more = first & _HAS_PROPERTIES and pipe.properties[at] or b""
            if _OFFLINE and first & _EXPIRES:
                # The server is told the time that remains, in whole seconds.
                left_s = (_left_of(pipe.extras[at], self._now_ms) + 999) // 1000
                more = bytes((_EXPIRY_ID,)) + max(1, left_s).to_bytes(4, "big") + more
            if self._is_alias_new:
                more = bytes((_ALIAS, 0, self._next_alias)) + more
            elif alias is not None:
                topic_name = b""
                if not more:
                    self._outbox.properties = alias
                    return topic_name
                more = alias[1:] + more
            self._outbox.properties = _with_length(more) if more else b"\x00"
            return topic_name

    # One SUBSCRIBE or UNSUBSCRIBE for each row that needs it, many in one write. Each search goes
    # through all rows: so limit them for one step. Messages wait until none is unsent.
    def _send_filters(self):
        filters = self._filters
        outbox = self._outbox
        for _ in range(_PACKETS_PER_STEP):
            row = filters.next_unsent()
            if row is None:
                return
            # As in _next_id(): not behind another one, nor behind PUBRELs.
            if _HINTS and self._kicks > 1 and not self._is_stable:
                if filters.asked_count or self._flying:
                    return
            packet = encode_filter(
                row[_ID] + _FILTER_ID_MIN,
                row[_FILTER],
                row[_QOS],
                row[_OPTIONS],  # _MQTT5
            )
            # The row may be older than the CONNACK that says what this server lacks.
            if _MQTT5 and self._is_5:
                error = self._lacks_for(row[_FILTER], row[_QOS], row[_OPTIONS], len(packet))
                if error:
                    # _GRANTED: the UNSUBSCRIBE is over, and prune() removes it.
                    row[_STATE] = _REFUSED if row[_QOS] >= 0 else _GRANTED
                    error.token = abs(row[_TOKEN])
                    row[_TOKEN] = -error.token  # it was told, as in _on_suback()
                    self._pipe.is_signalled = self._happened = True
                    self._report(error)
                    if self._is_enough:  # on_error was slow
                        return
                    continue
            if self._is_too_early(len(packet)) or not outbox.put_packet(packet):
                return
            row[_MARK] = outbox.sent_count + outbox.pending & _COUNT_MASK
            row[_STATE] = _QUEUED
            filters.asked_count += 1
            filters.last_id = row[_ID]
            self._has_marks = True

    # A PINGREQ, AUTH, PUBREL, SUBSCRIBE or UNSUBSCRIBE has left: start the answer's deadline.
    def _on_left(self):
        sent_count = self._outbox.sent_count
        self._has_marks = False
        if _QOS2 and self._pubrel_mark is not None:
            pipe = self._pipe
            for at in range(pipe.size):
                if pipe.firsts[at] & _RELEASED:
                    pipe.marks[at] = self._now_ms
            if sent_count - self._pubrel_mark & _COUNT_MASK < _COUNT_HALF:
                self._pubrel_mark = None
            else:
                self._has_marks = True
        if self._ping_mark is not None:
            if sent_count - self._ping_mark & _COUNT_MASK < _COUNT_HALF:
                self._ping_mark = None
                if self._timers[_TIMER_PINGRESP] is None:
                    if _STATS:
                        self._ping_ms = self._now_ms
                    self._arm(_TIMER_PINGRESP)
                elif _linger_ms:
                    self._more_pings += 1
            else:
                self._has_marks = True
        if _MQTT5 and self._is_5 and self._auth_mark is not None:
            if sent_count - self._auth_mark & _COUNT_MASK < _COUNT_HALF:
                self._auth_mark = None
                self._auth_ms = self._now_ms
                self._arm(_TIMER_ACK)
            else:
                self._has_marks = True
        for row in self._filters.rows:
            if row[_STATE] == _QUEUED:
                if sent_count - row[_MARK] & _COUNT_MASK < _COUNT_HALF:
                    row[_STATE] = _ASKED
                    row[_MARK] = self._now_ms
                    self._arm(_TIMER_ACK)
                else:
                    self._has_marks = True


# ---------------------------------------------------------------------------
# Closing: the end of a life, and its report
# ---------------------------------------------------------------------------


class _Closing(_Sending):
    # Ends every life, whatever the cause: network, protocol error of the server [MQTT-4.8.0-1],
    # lack of memory [MQTT-4.8.0-2], disconnect(), Ctrl-C. Allocates nothing until all is closed.
    # After an interruption it may run again.
    def _close(self, error):
        state = self.state
        self._failed = error
        if _MQTT5:
            if error is None or not self._is_wanted:
                self._is_clean = self.clean_session  # the next CONNECT is as the application asked
            # The server's keep alive ends here, unless the application has set another since.
            if self.keep_alive_s == self._server_keep_alive_s:
                self.keep_alive_s = self._asked_keep_alive_s
            self._server_keep_alive_s = None
        is_short = isinstance(error, MemoryError)
        at_ms = self._timers[_TIMER_STATE]
        if state == _ONLINE and at_ms is not None and _left_of(at_ms, ticks_ms()) <= 0:
            self._is_stable = True  # the timer is due, but was not handled yet
        if state == _AWAITING_CONNACK and error is None and not self._outbox.pending:
            # The server may have accepted us, and would publish the will.
            try:
                packet = self._bye if _MQTT5 else _DISCONNECT_PACKET
                self._write(packet, 0, len(packet))
                # Closing with an unread CONNACK would reset the connection: see _phases().
                self._read(self._decoder.buf, len(self._decoder.buf))
            except Exception:
                pass
        if _MQTT5 and self._is_5 and state >= _AWAITING_CONNACK:
            if isinstance(error, ServerError) or isinstance(error, LocalError):
                self._say_why(error)
        # lwIP keeps what the peer has not acknowledged, up to 10 s after we close. Without that
        # memory a write of the next connection blocks, also after disconnect() and connect(). A
        # reset frees it. A peer that has closed sends one, as its answer to one more packet.
        is_late = state == _CLOSING and at_ms is None  # the time for draining is over
        if is_late or state > _TCP_CONNECTING and isinstance(error, TimedOut):
            self._free_ms = ticks_add(ticks_ms(), _linger_ms)
        elif error and self._unproven > 1:
            reason = error.args[0] if error.args else None
            if _MQTT5 and isinstance(error, Refused):  # it has said why
                reason = _SERVER_CLOSED
            if reason == _SERVER_CLOSED and self._socket is not None and not (_TLS and self._raw):
                try:
                    self._socket.write(_PINGREQ_PACKET, 0, 2)
                except Exception:
                    pass
                self._dying = self._socket
                self._socket = None
            elif reason == _SERVER_CLOSED or isinstance(error, OSError) and reason not in _RESETS:
                self._free_ms = ticks_add(ticks_ms(), _linger_ms)
        self._drop_socket()
        self._read = self._write = self._packets = None
        if _QOS2 and self._arriving in self._received:
            # Ctrl-C before a callback had it: the server resends it. (Or this removes the 0.)
            self._received.remove(self._arriving)
        self._pipe.rewind()
        if _OFFLINE:
            # What was in flight waits again and may have expired: check at the next chance.
            self._pipe.next_expiry_ms = self._now_ms
        self._outbox.clear()
        for timer in range(_TIMERS + 1):
            self._timers[timer] = None
        self._flying = self._unproven = self._proving = self._more_pings = 0
        self._is_refused = False
        self._ping_mark = None
        if _QOS2:
            self._pubrel_mark = None
        self._is_held = self._has_said_bye = self._is_time_up = False
        self._put_offs = 0
        self._has_marks = False
        if _MQTT5:
            self._is_authenticating = self._wants_auth = False
            self._auth_packet = self._auth_mark = self._auth_ms = None
            self._outbox.properties = b""
        if state >= _AWAITING_CONNACK:
            self._filters.is_doubtful = state == _AWAITING_CONNACK
        if error is not None:
            try:
                error = self._explain(error)
                if _HINTS and state >= _SUBSCRIBING and not is_short:
                    error = self._suspect(error)
            except Exception:
                error = _NO_MEMORY  # no memory for the full text
        if _RESOLVER and (self._is_stable or not self._is_wanted):
            # Resolve names again, however late: ticks_ms() may wrap before that.
            for host in self._known:
                self._known[host][0] = None
        if self._is_wanted:
            if error is None:
                self._pause_end_ms = None  # connect() while it drained: nothing has failed
            elif state != _WAITING:
                self._pause(error, state, is_short)
            self.state = _WAITING
        else:
            self.state = _DOWN
            self._pause_end_ms = None
            if self._dying is not None:
                self._bury()
        if _MQTT5 and self._server is self._referred and (error is None or not self._is_wanted):
            # The next life begins at a server of ours, also after disconnect() at the referred.
            self._server = self._servers[self._turn] if _FAILOVER else self._home
        self._happened = self._is_open = False
        self._failed = None
        if state > _WAITING:
            self._emit(self.on_offline, error)
            if (_BACKGROUND or _ASYNCIO) and self._is_stopping and self._driver is not None:
                self._is_wanted = False  # a connect() in on_offline: stop() would wait in vain
        elif error is not None:  # no connection has ended: mostly the poll failed
            self._report(error)

    if _MQTT5:
        # Tell the server how it broke the protocol, or that we can't go on, if we can at once
        # [5: 4.13.1]. Not behind half a packet: the server would take DISCONNECT for its rest.
        def _say_why(self, error):
            try:
                outbox = self._outbox
                # Send this step's acknowledgements first, but no messages: these count as unsent.
                if self._pipe.left == self._pipe.sent:
                    outbox.flush(self._write)
                if not outbox.pending and not self._has_said_bye and self._write:
                    is_theirs = isinstance(error, ServerError)
                    code = error.reason_code if is_theirs else _CLIENT_ERROR
                    packet = bytes((_DISCONNECT, 1, code))
                    self._write(packet, 0, len(packet))
            except Exception:
                pass

    # lwIP: close the socket that the server had closed. If no reset has come, wait for its memory.
    def _bury(self):
        sock = self._dying
        is_free = False
        try:
            sock.readinto(self._decoder.buf, 1)
        except Exception as error:
            is_free = isinstance(error, OSError)
        self._free_ms = ticks_add(ticks_ms(), 0 if is_free else _linger_ms)
        try:
            self._dying = sock.close()  # None
        except Exception:
            self._dying = None

    def _drop_socket(self):
        # Drop the poll with the socket, and a bad poll too: if its register() ran out of memory,
        # it may crash the VM.
        self._poll = self._bad_poll = self._interest = None
        self._is_late = False  # what follows has a deadline of its own
        sock = self._socket
        if sock is not None:
            try:
                # close() returns None. In one line, so that Ctrl-C cannot cause a second close().
                self._socket = sock.close()
            except Exception:
                self._socket = None
        if _TLS and self._raw is not None:
            # A TLS stream closes the socket below it, unless its handshake has failed: then it no
            # longer refers to that socket. On the unix port a second close() may close somebody
            # else's descriptor, so we ask the poll first.
            raw = self._raw
            is_closed = raw is sock
            for _ in range(2):
                try:
                    for _, events in self._probe.ipoll(0):
                        if events & _POLLNVAL:
                            is_closed = True
                    break
                except Exception:
                    pass  # this port cannot tell; there a second close() does no harm
            if not is_closed:
                try:
                    raw.close()
                except Exception:
                    pass
            self._raw = self._probe = None

    # How long to wait before the next attempt, and at which server.
    def _pause(self, error, state, is_short):
        if self._is_stable:
            self._longest_ms = 0
        pause_ms = 0
        # Resolve the name again if the address did not lead to the server.
        if _RESOLVER and state <= _AWAITING_CONNACK:
            server = self._server
            known = self._known.get(server[0])
            if known:
                known[0] = None
            # All addresses of this family accepted TCP, and none answered: begin with the other.
            is_mute = _TCP_CONNECTING < state <= _AWAITING_CONNACK
            if is_mute and server[_ADDRESS] >= self._address_count:
                server[_FAMILY] = _DNS_A + _DNS_AAAA - server[_FAMILY]
        elif _RESOLVER and _HINTS and self._kicks >= _KICKS_MIN:
            self._server[_ADDRESS] += 1  # it accepts us and closes, again and again: the next one
        # After a stable connection begin with the first server. Try the others without a pause;
        # pause after the last. A server that another one names is tried in between.
        if _MQTT5:
            referred = self._refer(error) if self._is_5 else None
        if _MQTT5 and referred:
            self._server = referred
        elif _FAILOVER:
            self._turn = 0 if self._is_stable else (self._turn + 1) % len(self._servers)
            self._server = self._servers[self._turn]
        elif _MQTT5:
            self._server = self._home
        if (not _MQTT5 or not referred) and (not _FAILOVER or not self._turn):
            # A random pause. Its upper bound doubles with each failure in a row. Even the first is
            # random, or a thousand devices would return to a restarted server at once.
            lowest_ms = self.reconnect_min_ms
            pause_ms = max(lowest_ms, _BACK_OFF_MS)
            if not is_short:  # out of memory: not the server's fault, and soon over
                pause_ms = min(2 * max(pause_ms, self._longest_ms), self.reconnect_max_ms)
                self._longest_ms = pause_ms
            try:
                draw = int.from_bytes(urandom(2), "big")
                pause_ms = lowest_ms + (pause_ms - lowest_ms) * draw // 65535
            except Exception:
                pass  # without random numbers: the longest
        if self._dying is not None:
            pause_ms = max(pause_ms, _RESET_MS)
        self._pause_end_ms = ticks_add(ticks_ms(), pause_ms)

    # Turn any exception into an MQTTError that names the stage and the server.
    def _explain(self, error):
        stage = self._stage()
        server = self._server
        if isinstance(error, MQTTError):
            if error.stage is None and isinstance(error, TransportError):
                error = TransportError(str(error), stage)
            elif (
                _HINTS
                and self.state == _AWAITING_CONNACK
                and type(error) is ServerError
                and str(error).startswith("illegal packet")
            ):
                words = "%s; is %s port %d an MQTT server%s?"
                plain = "" if server[4] else ", without TLS"
                words %= error, server[0], server[1], plain
                if _MQTT5:
                    error = _server_error(error.reason_code, words)
                else:
                    error = ServerError(words)
            return error
        errno = None
        reason = error
        if isinstance(error, OSError):
            errno = error.args[0] if error.args else None
            if not isinstance(errno, int):
                errno = None
            # (While resolving, errno is that of getaddrinfo().)
            if _TLS and server[4] and self.state > _RESOLVING and (errno or 0) < 0:
                if errno == _TLS_EOF:
                    reason = _SERVER_CLOSED
                elif errno > _TLS_ERRNO_MAX:  # the socket's errno, which mbedTLS negates
                    errno = -errno
                    reason = OSError(errno)
                else:  # the TLS library's; up to CONNACK the server refuses us
                    stage = "TLS"
                    if self.state <= _AWAITING_CONNACK:
                        reason = _explain_tls(str(error))
            if _HINTS and str(reason) == str(errno):  # the port has no name for it
                words = _ERRNO_WORDS.partition(";%s=" % errno)[2]
                if words:
                    reason = "errno %d, %s" % (errno, words.partition(";")[0])
        elif isinstance(error, MemoryError):
            reason = _OUT_OF_MEMORY
        elif _TLS and self._server[4] and isinstance(error, ValueError):  # of a certificate
            stage = "TLS"
            reason = _explain_tls(str(error).strip().replace("\n", "; "))
        else:
            reason = "%s %s" % (type(error).__name__, error)
        return TransportError("%s, %s port %d" % (reason, server[0], server[1]), stage, errno)

    if _HINTS:
        # Three short connections in a row are no accident: the server rejects a message or a
        # filter, or it prefers another client with our client_id [MQTT-3.1.4-2].
        def _suspect(self, error):
            pipe = self._pipe
            is_offence = isinstance(error, ServerError)
            # No guess for a stable connection, or an error that explains itself.
            if (
                "topic name" not in str(error)
                if is_offence
                else self._is_stable or (error.return_code or 0) in _SAYS_ALL
            ):
                self._kicks = 0
                return error
            words = None
            if isinstance(error, TransportError):  # it was closed without a word
                words = "has another client the client_id %r?" % self.client_id
            asked = None
            for row in self._filters.rows:
                # Rather one that was never answered: a server that closes may take back what it
                # has just sent (TCP's RST), and another filter would be named each time.
                if row[_STATE] > _UNSENT:
                    if asked is None or asked[_TOKEN] < 0 < row[_TOKEN]:
                        asked = row
                        words = "is it the filter %r?" % row[_FILTER]
            # A message goes behind the filters. One that was sent was sent when all were granted,
            # but those that are new: the server may not have come to it.
            is_pubrel = asked is None
            at = pipe.tail if asked and asked[_TOKEN] > 0 else pipe.head
            while at != pipe.tail:
                if pipe.firsts[at] & (_SENT | _RELEASED | _MUTE) == _SENT:
                    is_pubrel = False
                    words = "is it message %d to %r? cancel() takes it back"
                    words %= (pipe.tokens[at], pipe.topics[at])
                    break
                at = pipe.after[at]
            # PUBRELs go first. One at a time, filters and messages wait behind them: if one of
            # these was the suspect before, the PUBREL was there, too.
            if _QOS2 and (is_pubrel or self._kicks > 1):
                at = pipe.head
                while at != pipe.tail and not pipe.firsts[at] & _RELEASED:
                    at = pipe.after[at]
                if at != pipe.tail:
                    words = "is it the PUBREL of message %d?" % pipe.tokens[at]
                    if (self._suspected or "")[:7] in ("is it t", "is it m"):
                        self._suspected = words
            if is_offence:
                words = "is it a (retained) message with a bad topic name?"
            if words != self._suspected or words is None:
                self._suspected = words
                self._kicks = 0
            self._kicks += 1
            if self._kicks < _KICKS_MIN:
                return error
            words = "%s; %d times in a row: %s" % (error, self._kicks, words)
            told = type(error)(words, None, error.errno, error.return_code)
            told.stage = error.stage
            if _MQTT5:
                told.reason_code = error.reason_code
                told.reason = error.reason
                told.properties = error.properties
            return told

    # -- callbacks ----------------------------------------------------------

    # A callback that raises is reported and breaks nothing else. step() raises its Ctrl-C when the
    # step's work is done.
    def _emit(self, callback, value, another=None):
        if callback is None:
            return
        try:
            if another is not None:
                callback(self, value, another)
            elif value is _NOTHING:
                callback(self)
            else:
                callback(self, value)
        except Exception as error:
            self._report(error)
        except BaseException as error:
            self._interrupt = error
            self._happened = True  # else step() does not raise it
        if ticks_diff(ticks_ms(), self._now_ms) >= _SLOW_MS:
            self._is_enough = True  # send what we owe before the next callback

    def _report(self, error):
        try:
            if self.on_error is not None:
                self.on_error(self, error)
                if ticks_diff(ticks_ms(), self._now_ms) >= _SLOW_MS:
                    self._is_enough = True
                return
        except Exception as another:
            error = another
        except BaseException as another:
            self._interrupt = another
            self._happened = True
        try:
            print_exception(error)
        except Exception:  # its output is closed
            pass

    if _STATS:

        def _count(self, index):
            self._counts[index] = self._counts[index] + 1 & _COUNT_MASK


# ---------------------------------------------------------------------------
# Driving: step(), and what calls it
# ---------------------------------------------------------------------------


class _Driving(_Closing):
    # For type checkers: attributes that MQTTClient sets.
    _driver: "int | None"
    _is_drop_told: bool
    _isr_tail: int
    isr_dropped: int

    # No @property: step() assigns to attributes, which it would slow (as in Message).
    def __getattr__(self, name):
        if name == "state_name":
            return STATE_NAMES[self.state]
        # Counts since the client was made, modulo 2**30. Allocates: the dict.
        if _STATS and name == "stats":
            counts = self._counts
            return {
                "attempts": counts[_N_ATTEMPTS],
                "connections": counts[_N_CONNECTIONS],
                "reconnections": max(0, counts[_N_CONNECTIONS] - 1),
                "queued": self._pipe.last_token - counts[_N_FILTERS] & _COUNT_MASK,
                "sent": counts[_N_SENT],
                "retransmitted": counts[_N_AGAIN],
                "acknowledged": counts[_N_ACKNOWLEDGED],
                "dropped": counts[_N_DROPPED],
                "expired": self._pipe.expired_count if _OFFLINE else 0,
                "received": counts[_N_RECEIVED],
                "too_large": counts[_N_TOO_LARGE],
                "duplicates_received": counts[_N_DUP],
                "duplicates_suppressed": counts[_N_SUPPRESSED],
                "ignored": counts[_N_IGNORED],
                "packets_sent": self._outbox.packet_count + counts[_N_SENT] + counts[_N_AGAIN]
                & _COUNT_MASK,
                "bytes_sent": self._outbox.sent_count,
                "packets_received": self._decoder.packet_count,
                "bytes_received": self._decoder.byte_count,
                "ping_ms": counts[_N_PING_MS],
            }
        raise AttributeError(name)

    def step(self, timeout_ms: int = 0) -> bool:
        """Do what is ready. If nothing is, wait up to timeout_ms for something.

        Call it in a loop: all work is done in here.

        Returns: True if anything happened: bytes moved, a state changed, a deadline passed.

        Raises:
            LocalError: called inside a callback, or while start() or run() drives the client;
                or timeout_ms is not an int.
            KeyboardInterrupt and the like: from a callback.
            Never a network error: on_offline gets it.

        Allocates: nothing in the steady state. Blocks: up to timeout_ms.
        """
        if (_BACKGROUND or _ASYNCIO) and self._driver is not None:
            self._check_driver()
        if timeout_ms is not _ZERO:
            _integer("timeout_ms", timeout_ms, 0, _MS_MAX)
            return self._step(timeout_ms)
        try:
            if not self._advance():
                return False  # most steps
        except StopIteration:
            self._revive()
        except ValueError:
            raise LocalError(_IS_DRIVEN)
        except Exception:
            self._on_bad_poll()
        return self._interrupt is None or self._has_happened()

    # step() for start(), run() and timeout_ms. The life is a generator that cannot be re-entered:
    # step() in a callback ends as ValueError here.
    def _step(self, timeout_ms):
        try:
            if not self._advance():
                if not timeout_ms:
                    return False
                self._sleep(timeout_ms)
                if not self._advance():
                    return False
        except StopIteration:
            self._revive()
        except ValueError:
            self._on_bad_poll(True)
        except Exception:
            self._on_bad_poll()
        return self._has_happened()

    # True; or raises the Ctrl-C of a callback.
    def _has_happened(self):
        error = self._interrupt
        if error is not None:
            self._interrupt = None
            raise error
        return True

    # Ctrl-C has ended the life. The next step() begins another, which first closes what the old
    # one left. Without memory for it, the next step() retries.
    def _revive(self):
        try:
            self._advance = self._live().__next__
        except MemoryError:
            pass

    # Sleep until the socket or the pipe is ready, or a deadline passes. Ignore the poll's answers:
    # ports differ in what they report of a socket (ESP32 never says POLLERR). Reading and writing
    # show it.
    def _sleep(self, timeout_ms):
        left_ms = self.next_deadline_ms()
        if left_ms is not None and left_ms < timeout_ms:
            timeout_ms = left_ms
        self._watch()
        self._poll.ipoll(timeout_ms)

    # Something failed outside the life, or closing ran out of memory. The next step() polls the
    # old poll, if there is one: another failure ends the life. A new poll replaces it, as one
    # whose register() ran out of memory is broken. With `may_run` the life may run already.
    def _on_bad_poll(self, may_run=False):
        if may_run:
            try:
                self._advance()
            except StopIteration:
                self._revive()
            except ValueError:
                raise LocalError(_IS_DRIVEN)
            except Exception:
                pass  # closing ran out of memory
        self._bad_poll = self._poll
        self._poll = None
        self._pipe.has_chores = self._pipe.is_signalled = True

    # Make the poll if there is none, and watch the socket for what we want now. Returns that.
    def _watch(self):
        sock = self._socket
        poll = self._poll
        if poll is None:
            poll = select.poll()  # stored only when complete
            if not _ASYNCIO or not self._is_running:
                poll.register(self._pipe, select.POLLIN)
            if sock is not None:
                poll.register(sock)
            self._interest = None
            self._poll = poll
        # While connecting: both events. But a datagram socket (DNS) is always writable.
        interest = select.POLLOUT
        if (
            self._packets is not None
            and (self._is_refused or not self._outbox.pending)
            or self.state == _RESOLVING
        ):
            interest = 0
        if not self._is_held:
            interest |= select.POLLIN
        if sock is not None and interest != self._interest:
            poll.modify(sock, interest)
            self._interest = interest
        return interest

    # -- other ways to drive it ---------------------------------------------
    #
    # Threads. Any thread may call the methods of the section "The client" while one thread is in
    # step(): they share only the Pipe and the Filters. With a GIL (CPython, ESP32) that is enough.
    # Without one (the two cores of rp2, all threads of the unix port) the Pipe's lock keeps
    # writers apart, and the order of its assignments protects step(). Callbacks run where step()
    # does.

    def pollables(self) -> list:
        """What to watch in a poll of your own. Call step() when any of it is ready.

        Returns:
            A list of (object, events) for select.poll.register(). It is valid until the next
            step(); then ask again. Before you sleep, call step() until it returns False.

        Allocates: the list. Blocks: never.
        """
        found = [(self._pipe, select.POLLIN)]
        sock = self._socket
        if sock is not None:
            events = self._watch()
            # The shim's TLS stream may need the other direction. (MicroPython's polls know that.)
            ioctl = getattr(sock, "ioctl", None)
            found.append((sock, ioctl(_IOCTL_POLL, events) if ioctl else events))
        return found

    def next_deadline_ms(self):
        """How many ms you may sleep before step() has work to do; None: no limit.

        Allocates: nothing. Blocks: never.
        """
        if self._pipe.is_signalled:
            return 0
        due_ms = self._timers[_DUE]
        if due_ms is None:
            return None
        return max(0, _left_of(due_ms, ticks_ms()))

    if _BACKGROUND:

        def start(self) -> None:
            """connect(), and call step() in the background until stop().

            A thread does that; on rp2 a timer, every 10 ms. Callbacks run there, too. Meanwhile
            step() raises LocalError, and wait_online() and the like only watch.

            Raises: LocalError: something else drives the client already.
            Allocates: the thread's stack. Blocks: never.
            """
            self._check_driver()
            self._step(0)  # raises in a callback
            self.connect()
            self._is_stopping = False
            self._driver = 0  # taken, until the thread puts its own
            try:
                if Timer:
                    self._timer = Timer(period=_TICK_MS, mode=Timer.PERIODIC, callback=self._drive)
                else:
                    start_thread(self._drive)
            except BaseException:
                self._driver = None
                raise

        def stop(self, timeout_ms=None) -> bool:
            """disconnect(), and end what start() began.

            Args: timeout_ms: int; None: as long as disconnect() may take.

            Returns:
                True: the connection is closed. False: not within timeout_ms; the background, or
                your next step(), goes on closing it.

            Raises: LocalError: called in a callback. Blocks: up to timeout_ms.
            """
            if self._driver is None:  # nothing in the background, but perhaps a connection
                self._step(0)  # raises in a callback
                self.disconnect()
            if timeout_ms is None:
                timeout_ms = min(2 * self.connect_timeout_ms + _DRIVE_MS, _MS_MAX)
            return self._wait(timeout_ms, self._has_stopped)

        # Repeat the request: a step() that began before it may miss it and sleep.
        def _has_stopped(self):
            self._is_stopping = True
            self.disconnect()
            if self._driver is not None:
                return False
            if self.state != _DOWN:  # the driver ended before the connection
                self._step(0)
            return self.state == _DOWN

        # The thread, from start() to stop(); or one tick of the timer.
        def _drive(self, timer=None):
            # This tick has interrupted a publish(), which holds the lock: publish() in a callback
            # would wait in vain. The next tick comes in 10 ms. mend() releases the lock if Ctrl-C
            # has ended that call.
            if timer and self._pipe._lock.locked():
                self._pipe.mend()
                return
            is_over = False
            try:
                while not is_over:
                    try:
                        if not self._driver:
                            self._driver = get_ident()  # it allocates on some ports
                        self._is_ticking = True
                        self._step(0 if timer else _DRIVE_MS)
                    except KeyboardInterrupt:
                        pass  # the unix port gives a Ctrl-C to any thread: ignore it here
                    except BaseException as error:
                        self._report(error)
                        if not isinstance(error, Exception):  # SystemExit of a callback
                            self._quit()
                    self._is_ticking = False
                    is_over = self._is_stopping and self.state == _DOWN and not self._is_wanted
                    if timer:
                        break
            finally:
                if is_over and timer:
                    timer.deinit()
                    self._timer = None
                if is_over or not timer:
                    self._driver = None

    if _ASYNCIO or _BACKGROUND:
        # Raises if something else drives the client. If Ctrl-C or an error has ended the loop of a
        # run(), clears away what that left.
        def _check_driver(self):
            if self._driver is None:
                return
            if (
                not _ASYNCIO
                or not self._is_running
                or self._driver != get_ident()
                or not is_left(self._loop)
            ):
                raise LocalError(_IS_DRIVEN)
            else:
                self._driver = self._loop = self._poll = self._changed = None
                self._pipe.is_ready = None
                self._is_running = False
                for messages in self._full:
                    messages._filter = None  # closed: no task is left to take from it
                self._full = []
                self._waiting = []

        # run() was cancelled, or the thread must end: disconnect without waiting for anything.
        def _quit(self):
            self._is_stopping = True
            self.disconnect()
            if self._is_open:
                self._is_time_up = True
            for _ in range(_PACKETS_PER_STEP):
                self._step(0)
                if self.state == _DOWN:
                    break

    if _ASYNCIO:

        def _is_ready(self):
            """For the port's asyncio: has step() anything to do? Allocates: nothing."""
            if self.next_deadline_ms() == 0:
                return True
            try:
                self._watch()
                for _ in self._poll.ipoll(0):
                    return True
            except Exception:
                self._on_bad_poll()
                return True
            return False

        async def run(self) -> None:
            """connect(), and call step() whenever there is work, beside your other tasks.

            Returns after disconnect(). If it is cancelled, it sends DISCONNECT if it can do so at
            once, and closes the connection.

            Raises: LocalError: something else drives the client already.
            """
            self._check_driver()
            changed = self._event()
            from asyncio import sleep

            loop = self._loop = get_loop()
            self._driver = get_ident()
            self._is_running = True
            self._is_stopping = False
            self.connect()
            self._poll = None  # _is_ready() polls only the socket: asyncio polls the pipe
            try:
                while self._loop is loop and (self._is_wanted or self.state != _DOWN):
                    try:
                        if self._step(0) or self._is_drop_told:
                            self._is_drop_told = False
                            changed.set()  # wake all waiters
                            changed.clear()
                        else:
                            self._watch()
                            await wait_ready(self, self._pipe)
                            continue
                    except OSError:
                        self._on_bad_poll()
                    except MemoryError:
                        self._on_bad_poll()
                    await sleep(0)
            finally:
                if self._loop is loop:  # else _check_driver() has done this
                    self._poll = None
                    self._is_running = False
                    self._changed = None  # the next run() may be another loop's
                    try:
                        self._quit()
                    finally:
                        self._driver = None
                        wait_no_more(self._pipe)
                        changed.set()  # last: if the loop is closed, CPython raises
                        changed.clear()

        def _event(self):
            if not self._is_running and self._loop is not get_loop():
                self._loop = get_loop()
                self._changed = None  # that Event belongs to another loop
            if self._changed is None:
                from asyncio import Event

                self._changed = Event()
            return self._changed

        async def publish_wait(self, topic_name, payload, qos=0, retain=False) -> bool:
            """Wait for room in the pipe, publish(), and wait until is_done().

            Args: as for publish().

            Returns:
                True: acknowledged (QoS 0: handed to the socket). False: dropped by a policy, or
                run() ended first.

            Raises: LocalError: an argument is wrong, or there is no run() to wait for.
            """
            if not self._is_running:
                from asyncio import sleep

                await sleep(0)  # the task of run() may be about to begin
                if not self._is_running:
                    raise LocalError(_IN_VAIN % "publish_wait() without run()")
            changed = self._event()
            token = 0
            try:
                self._waiting.append(changed)
                self._pipe.is_signalled = True
                while True:
                    if not token:
                        # Until the token is in the table, on_dropped must wait.
                        self._is_unlisted = True
                        try:
                            token = self.publish(topic_name, payload, qos, retain)
                            self._awaited[token] = False
                        except QueueFull:
                            pass
                        finally:
                            self._is_unlisted = False
                        if _OFFLINE:
                            self._tell_dropped()
                    if token and self.is_done(token):
                        if _OFFLINE and token in self._pipe.dropped:  # not told yet
                            return False
                        return not self._awaited[token]
                    await changed.wait()
                    if changed is not self._changed:  # a later run() has its own
                        return False
            finally:
                self._awaited.pop(token, None)
                if changed in self._waiting:  # else _check_driver() has emptied it
                    self._waiting.remove(changed)

        def messages(self, topic_filter, qos=0, queue_max=16):
            """Subscribe, for `async for message in client.messages(...)`.

            Args:
                topic_filter, qos: as for subscribe(). queue_max: how many messages wait until
                    you take them. While the queue is full, the client does not read: the server
                    keeps what follows, but may drop QoS 0. The queue may exceed queue_max while a
                    task is in publish_wait() or request_wait(), whose answer may come later.

            Returns:
                A Messages. Call its close() after the loop, or use it in `async with`. The loop
                ends by itself when run() has ended.

            Raises: as subscribe(). Allocates: a copy of each message. Blocks: as subscribe().
            """
            return Messages(self, topic_filter, qos, _integer("queue_max", queue_max, 1, 1000))

    if _ISR:

        def publish_isr(self, topic_name: bytes, payload: bytes, qos: int = 0) -> bool:
            """Queue a message from an interrupt. step() publishes it.

            Args:
                topic_name, payload: bytes that exist already. step() tells on_error what is
                    wrong with them. qos: 0, 1 or 2.

            Returns:
                True. False, counted in `isr_dropped`: there is no room, or this call has
                interrupted another publish_isr().

            Allocates: nothing. Blocks: never; it waits for no lock.
            """
            if self._isr_lock.acquire(False):
                ring = self._isr_ring
                tail = self._isr_tail
                after = tail + _ISR_FIELDS
                if after == _ISR_SLOTS * _ISR_FIELDS:
                    after = 0
                is_taken = after != self._isr_head
                if is_taken:
                    ring[tail] = topic_name
                    ring[tail + 1] = payload
                    ring[tail + 2] = qos
                    self._isr_tail = after
                self._isr_lock.release()
                if is_taken:
                    self._pipe.has_chores = True
                    self._pipe.is_signalled = True
                    return True
            self.isr_dropped = self.isr_dropped + 1 & _COUNT_MASK
            return False

        # Publish what interrupts have queued. What finds no room stays.
        def _take_isr(self):
            ring = self._isr_ring
            for _ in range(_ISR_SLOTS):
                at = self._isr_head
                if at == self._isr_tail:
                    return
                try:
                    self.publish(ring[at], ring[at + 1], ring[at + 2])
                except Exception as error:
                    if isinstance(error, QueueFull) or isinstance(error, MemoryError):
                        self._pipe.has_chores = True  # retry in the next step with work
                        return
                    self._report(error)
                ring[at] = ring[at + 1] = None
                at += _ISR_FIELDS
                self._isr_head = 0 if at == _ISR_SLOTS * _ISR_FIELDS else at
                if self._is_enough or self._happened:  # a callback was slow; or room was made
                    self._is_enough = False
                    self._happened = True
                    self._pipe.has_chores = self._pipe.is_signalled = True
                    return


# ---------------------------------------------------------------------------
# Calls: what MQTT 5.0 adds
# ---------------------------------------------------------------------------
# What protocol=5 adds to the constructor, disconnect(), publish() and subscribe(), and the calls
# that only MQTT 5.0 has. (A class of its own for the reader; a build merges it.)


class _Calls5(_Driving):
    if _MQTT5:
        on_authenticated = response_topic = None  # to be set by the application

        def _set_protocol(self, protocol, session_expiry_s, properties, auth, packet_bytes_max):
            self._is_5 = self._decoder.is_mqtt5 = _integer("protocol", protocol, 4, 5) == 5
            self.session_expiry_s = _integer("session_expiry_s", session_expiry_s, 0, 0xFFFFFFFF)
            given = session_expiry_s or properties is not None or auth is not None
            if given and not self._is_5:
                raise LocalError(_NEEDS_5 % "session_expiry_s, properties or auth")
            self._said_expiry_s = session_expiry_s  # in the last CONNECT, or the first to come
            if auth is not None:
                if not isinstance(auth, (tuple, list)) or len(auth) != 2 or not callable(auth[1]):
                    raise LocalError("auth is %r, must be (method, function)" % (auth,))
                auth = _to_field("auth method", auth[0]), auth[1]
            self._auth = auth
            self._auth_data = None
            self._wants_auth = False  # reauthenticate() was called
            self._is_authenticating = False  # and its exchange goes on
            self._auth_packet = None  # AUTH that waits for room
            self._auth_mark = None  # as _ping_mark, for an AUTH in the outbox
            self._auth_ms = None  # ticks_ms() when it left; None: no answer is due
            # Our limits, which CONNECT announces. `properties` may lower them.
            data = encode_properties(properties, _CONNECT)
            limits = []
            for identifier, limit in (
                (0x21, _RECEIVED_MAX),
                (0x27, packet_bytes_max),
                (0x22, _ALIASES),
            ):
                name = _property(_PROPERTIES.find(";%02x" % identifier))[4]
                value = (properties or _NO_PROPERTIES).get(name)
                if value is None:
                    data += encode_properties({name: limit}, _CONNECT)
                else:
                    limit = _integer(name, value, int(identifier != 0x22), limit)
                limits.append(limit)
            self._received_max, _, self._alias_limit = limits
            self._properties = data
            # Of the current server, or the last one: see _on_connack_5().
            self.server_properties = _NO_PROPERTIES
            self._asked_keep_alive_s = self._server_keep_alive_s = None
            self._flying_max = self.in_flight_max
            self._alias_max = self._forbidden = self._lacks = 0
            self._refused = []  # to report: (token, reason code) of what this server refuses
            if not _FAILOVER:
                self._home = self._server
            self._referred = None  # the server that another one has named
            self._is_clean = self.clean_session
            self._bye = _DISCONNECT_PACKET
            self._is_alias_new = False
            self._aliases = self._alias_topics = self._next_alias = None  # see _sending()
            # For each open request: [correlation data, callback, ticks_ms() of its end, token].
            self._requests = ()
            self._last_request = 0
            self._request_seed = None
            if self._is_5:
                self._pipe.properties = [None] * self._pipe.size
                self._set_easy_bytes()

        def _set_bye(self, reason_code, properties):
            if not self._is_5:
                raise LocalError(_NEEDS_5 % "reason_code or properties")
            if _integer("reason_code", reason_code, 0, 255) not in tuple(_GOODBYES):
                raise LocalError("a client can't say reason code %r [5: 3.14.2]" % (reason_code,))
            data = encode_properties(properties, _DISCONNECT)
            if not self._said_expiry_s and data:
                if properties.get("session_expiry_interval"):
                    raise LocalError("it was 0 in CONNECT: session_expiry_interval [5: 3.14.2]")
            data = _with_length(data) if data else b""
            data = _packet(_DISCONNECT, bytes((reason_code,)) + data)
            if len(data) > self._pipe.packet_bytes_max:  # [MQTT5-3.14.2-3, -4]
                raise self._pipe.why_too_large("DISCONNECT", len(data))
            self._bye = data

        # publish() with `offline`, `expiry_s` or `properties`.
        def _put_wish_5(self, message, wish):
            offline, expiry_s, properties = wish
            if not _OFFLINE and (offline is not None or expiry_s is not None):
                raise LocalError(_NOT_BUILT % "offline or expiry_s")
            if properties is not None and not self._is_5:
                raise LocalError(_NEEDS_5 % "properties")
            data = encode_properties(properties, _PUBLISH)
            _check_format(properties, message[1])
            if _OFFLINE:
                if offline is not None:
                    offline = _policy(offline)
                interval_s = _value(properties or _NO_PROPERTIES, _EXPIRY_ID)
                if interval_s is not None and expiry_s is not None:  # one packet has one of them
                    raise LocalError("both expiry_s and message_expiry_interval")
                if interval_s and interval_s <= _EXPIRY_MAX_S:  # we count it, and send the rest
                    expiry_s = interval_s
                    properties = dict(properties)
                    del properties[_property(_PROPERTIES.find(";02"))[4]]
                    data = encode_properties(properties, _PUBLISH)
                if expiry_s is not None:
                    expiry_s = _integer("expiry_s", expiry_s, 1, _EXPIRY_MAX_S) * 1000
                    expiry_s = ticks_add(ticks_ms(), expiry_s)
            pipe = self._pipe
            pipe.wait_for_lock()
            at = pipe.tail
            pipe.topics[at], pipe.payloads[at], pipe.firsts[at] = message
            if data:
                pipe.properties[at] = data
                pipe.firsts[at] |= _HAS_PROPERTIES
            return pipe.place(
                offline,  # _OFFLINE
                expiry_s,  # _OFFLINE
            )

        # The request with this token, if it is one, is refused, dropped or taken back: its time is
        # over.
        def _end_request(self, token):
            for request in self._requests:
                if request is not None and request[3] == token:
                    request[2] = self._now_ms
                    self._pipe.has_chores = self._pipe.is_signalled = True

        # The _OPTIONS of a row.
        def _options_of(self, topic_filter, qos, options, properties):
            if not self._is_5:
                if options or properties is not None:
                    raise LocalError(_NEEDS_5 % "an option or properties")
                return None
            if topic_filter.startswith(b"$share/"):
                group, _, rest = topic_filter[7:].partition(b"/")
                if not group or not rest or b"+" in group or b"#" in group:
                    raise LocalError(
                        "%r is not $share/group/filter [MQTT5-4.8.2-1, -2]" % topic_filter
                    )
                if options & _NO_LOCAL:
                    raise LocalError("no_local of a shared subscription [MQTT5-3.8.3-4]")
            data = encode_properties(properties, _SUBSCRIBE if qos >= 0 else _UNSUBSCRIBE)
            options = options, data, properties and _value(properties, 0x0B, 0) or 0
            size = len(encode_filter(0, topic_filter, qos, options))
            error = self._lacks_for(topic_filter, qos, options, size)
            if error:
                raise error
            return options

        def _on_response(self, client, message):
            mark = _value(message.properties, 0x09)
            for at in range(len(self._requests)):
                request = self._requests[at]
                if request is not None and request[0] == mark:
                    self._requests[at] = None
                    request[1](self, message)
                    return
            if _STATS:
                self._count(_N_IGNORED)  # a late response

        def reauthenticate(self) -> None:
            """Authenticate again, with `auth`, on the open connection. Returns at once.

            If it succeeds, on_authenticated is called. If it fails, or an answer takes longer than
            connect_timeout_ms, the connection ends. Without a connection there is no need for it:
            each CONNECT authenticates.

            Raises: LocalError: without auth. Allocates: nothing. Blocks: never. Spec: [5: 4.12.1].
            """
            if self._auth is None:  # [MQTT5-4.12.0-7]
                raise LocalError(_IN_VAIN % "reauthenticate() without auth")
            self._wants_auth = True
            self._pipe.has_chores = self._pipe.is_signalled = True

        def request(
            self,
            topic_name: "str | bytes",
            payload: "str | bytes | bytearray | memoryview | int | float",
            callback,
            timeout_ms: int,
            qos: int = 0,
            properties: "dict | None" = None,
        ) -> int:
            """Publish a message, and wait for the one that answers it.

            The first request subscribes to `response_topic`, by default "response/" and the
            client_id, or random digits if that is empty or holds a wildcard. Whoever answers
            publishes to the message's response_topic with its correlation_data.

            Args:
                topic_name, payload, qos, properties: as for publish(), but response_topic and
                    correlation_data are the client's own.
                callback: callback(client, message) with the response, or callback(client, None) if
                    none came within timeout_ms (int). The message is dropped then, if it still
                    waits here.

            Returns: A token, as publish() does.

            Raises:
                LocalError: an argument is wrong, or this is not MQTT 5.0. QueueFull: eight
                    requests wait already, or the pipe is full.

            Allocates: the properties. Blocks: see Pipe.place(). Spec: [5: 4.10].
            """
            if not self._is_5:
                raise LocalError(_NEEDS_5 % "request()")
            if not callable(callback):
                raise LocalError("callback is %r, must be callable" % (callback,))
            _integer("timeout_ms", timeout_ms, 1, _MS_MAX)
            encode_properties(properties, _PUBLISH)  # raises if they are wrong
            if not self._requests:
                if self.response_topic is None:
                    mark = self.client_id
                    # No client_id yet, or one with wildcards: digits that no other client has.
                    if not mark or b"+" in mark or b"#" in mark:
                        mark = urandom(8).hex().encode()
                    self.response_topic = b"response/" + mark
                self._request_seed = urandom(2)
                self.subscribe(_to_topic(self.response_topic), self._on_response, qos)
            pipe = self._pipe
            pipe.wait_for_lock()  # another thread may ask, too
            try:
                requests = self._requests or [None] * _REQUESTS
                if None not in requests:
                    raise QueueFull("%d requests wait for their responses" % _REQUESTS)
                at = requests.index(None)
                self._last_request = self._last_request + 1 & _COUNT_MASK
                mark = self._request_seed + self._last_request.to_bytes(4, "big")
                request = requests[at] = [mark, callback, ticks_add(ticks_ms(), timeout_ms), 0]
                self._requests = requests  # last: the table is complete
            finally:
                pipe.release_lock(False)
            token = 0
            try:
                properties = dict(properties or _NO_PROPERTIES)
                properties["response_topic"] = self.response_topic
                properties["correlation_data"] = mark
                request[3] = token = self.publish(topic_name, payload, qos, properties=properties)
            finally:
                if not token and requests[at] is request:
                    requests[at] = None
            pipe.has_chores = pipe.is_signalled = True
            return token

    if _MQTT5 and _ASYNCIO:

        async def request_wait(self, topic_name, payload, timeout_ms, qos=0, properties=None):
            """request(), and wait for the response.

            Args: as for request().

            Returns:
                The response, a Message that stays valid; None: none came in time, run() ended
                first, or there was no memory for it.

            Raises: as request(); LocalError: there is no run() to wait for.
            """
            if not self._is_running:
                from asyncio import sleep

                await sleep(0)  # as in publish_wait()
                if not self._is_running:
                    raise LocalError(_IN_VAIN % "request_wait() without run()")
            changed = self._event()
            found = [None, False]

            def keep(client, message):
                found[1] = True  # first: copy() may run out of memory; no second response comes
                found[0] = message and message.copy()

            try:
                self._waiting.append(changed)
                self.request(topic_name, payload, keep, timeout_ms, qos, properties)
                while not found[1]:
                    await changed.wait()
                    if changed is not self._changed:
                        break
                return found[0]
            finally:
                if changed in self._waiting:  # see publish_wait()
                    self._waiting.remove(changed)
                for at in range(len(self._requests)):
                    request = self._requests[at]
                    if request is not None and request[1] is keep:
                        self._requests[at] = None  # cancelled: nobody waits for it


# ---------------------------------------------------------------------------
# The client: what the application calls
# ---------------------------------------------------------------------------


class MQTTClient(_Calls5):
    """MQTT client that never blocks: MQTT 3.1.1, or 5.0 with protocol=5.

    Example:
        client = MQTTClient("mqtt://broker.example")
        client.subscribe("lamp/set", lambda client, message: print(message.payload))
        client.connect()
        while True:
            client.step(100)

    Args:
        uri: str or list of str, see parse_uri(). The client tries several in turn.
        client_id: str or bytes; None: made from machine.unique_id(); "": the server
            assigns one (needs clean_session) [MQTT-3.1.3-6].
        user, password: str, bytes or None; they override the URI's. None is absent, b"" is
            present and empty. password may be a function without arguments that returns str or
            bytes: the client calls it once, at the start of each attempt.
        clean_session: bool (section 3.1.2.4).
        keep_alive_s: int, 0..65535; 0: off (section 3.1.2.10).
        will: (topic_name, payload, qos, retain) or None (section 3.1.2.5).
        ca: the certificates to trust with mqtts:// and ssl://, PEM or DER: bytes, or the name of
            a file as str. None: those of the system, if it has any. The client verifies the
            server's certificate and host name, unless tls says otherwise.
        cert, key: the client's own certificate and its key, if the server asks for one.
        tls: an SSLContext, which the client uses as it is; or "insecure": it verifies nothing.
        tls_name: str, the name to verify and to send as SNI, if it is not the URI's host.
        link: an object with is_up(). While that returns False, the client makes no attempt. It
            may also have dns_servers(), which returns a list of addresses (str) or of (address,
            port) to use instead of those of the Wi-Fi interface.
        packet_bytes_max: int, 64..268,435,460: the largest packet in either direction, except
            CONNECT. A larger message that arrives is acknowledged, dropped and reported.
        pipe_slots: int, 1..1000: messages that may wait, for step() or for their acknowledgement.
        in_flight_max: int, 1..200: QoS 1 and 2 messages in flight at once.
        connect_timeout_ms: int: time limit from the start of an attempt to CONNACK, and for each
            other answer that the server owes.
        reconnect_min_ms, reconnect_max_ms: int: bounds of the back-off.
        pipe_bytes_max: int: bytes of topic names and payloads in the pipe; None: 16 times
            packet_bytes_max.
        offline: what to do if the pipe has no room for a message: "refuse" (QueueFull),
            "drop_oldest", or "latest": while offline, the client keeps only the newest message of
            each topic name. publish() can override it.
        protocol: 4: MQTT 3.1.1; 5: MQTT 5.0, which adds:
        session_expiry_s: int, 0..4,294,967,295 (for ever): how long the server keeps the session
            without a connection. clean_session then means Clean Start. It counts for the first
            CONNECT after connect(), and for another server of a list; all others resume the
            session.
        properties: dict, of CONNECT: name -> value. The names are the specification's, in
            snake_case; user_property is a list of pairs. The client always sends
            maximum_packet_size, receive_maximum and topic_alias_maximum.
        will: may have a fifth item, its properties.
        auth: (method, function). The client calls function(None) first, then function(data) with
            each answer of the server, which may be b""; the last one is its acceptance. The
            function returns the bytes to send, or None. It raises if it does not trust the server.

    Attributes to set: on_connect(client, session_present), on_online(client),
        on_offline(client, error): None if disconnect() ended it; on_message(client, message),
        on_published(client, token), on_dropped(client, token), on_subscribed(client, token,
        granted): granted is bytes, the SUBACK's code; on_error(client, error): something went
        wrong, but the connection goes on; user_data. MQTT 5.0: on_authenticated(client):
        reauthenticate() has succeeded; response_topic, for request().

    Attributes to read: state (an index into STATE_NAMES), state_name, stats (dict). MQTT 5.0:
        server_properties (dict), of the last CONNACK.

    Raises: LocalError: an argument that MQTT or this client forbids.

    Allocates: packet_bytes_max bytes to receive, the same to send but at most 1,460, and 28
    bytes for each slot of the pipe (32-bit; MQTT 5.0: 32). Blocks: only to read files of `ca`,
    `cert` and `key`.
    """

    state_name: str
    if _STATS:
        stats: dict

    # The application sets these. Most stay None, so each client does not store them.
    on_connect = on_online = on_offline = on_dropped = on_subscribed = on_error = user_data = None
    _made = 0  # number of clients, for different client_ids

    def __init__(
        self,
        uri: "str | list | tuple",
        client_id: "str | bytes | None" = None,
        user: "str | bytes | None" = None,
        password=None,
        clean_session: bool = True,
        keep_alive_s: int = 60,
        will: "tuple | None" = None,
        ca: "str | bytes | None" = None,
        cert: "str | bytes | None" = None,
        key: "str | bytes | None" = None,
        tls=None,
        link=None,
        packet_bytes_max: int = 1024,
        pipe_slots: int = 32,
        in_flight_max: int = 8,
        connect_timeout_ms: int = 10_000,
        reconnect_min_ms: int = 1_000,
        reconnect_max_ms: int = 60_000,
        pipe_bytes_max: "int | None" = None,
        offline: str = "refuse",
        tls_name: "str | None" = None,
        protocol: int = 4,  # _MQTT5
        session_expiry_s: int = 0,  # _MQTT5
        properties: "dict | None" = None,  # _MQTT5
        auth: "tuple | None" = None,  # _MQTT5
    ) -> None:
        # What every message or step reads comes first: the instance dict is a nearly full hash
        # table, and later entries lie far from their place. `step` and `publish` are in it, too:
        # else MicroPython searches all of it in vain before the class.
        self.step = self.step  # type: ignore
        self.publish = self.publish  # type: ignore
        self._advance = self._live().__next__
        self._interrupt = None  # KeyboardInterrupt of a callback: step() raises it
        self._now_ms = self._attempt_end_ms = self._sent_ms = 0
        # lwIP's segments that are not proven free; how many of them the PINGRESP will prove; how
        # many PINGRESPs come before that one.
        self._unproven = self._proving = self._more_pings = 0
        self._is_refused = False  # by _write_to_lwip()
        self._has_marks = False  # True: a PINGREQ, PUBREL, AUTH or filter has not left
        if not isinstance(uri, (list, tuple)):
            uri = (uri,)
        elif not _FAILOVER:
            raise LocalError(_NOT_BUILT % "uri is a list, which")
        elif not uri:
            raise LocalError("uri is an empty list, must name a server")
        if user is not None:
            user = _to_field("user", user)  # [MQTT-3.1.3-11] [MQTT5-3.1.3-12]
        if password is not None and not callable(password):
            password = _to_field("password", password, False)
        servers = []  # (host, port, user, password, is_tls) of each
        is_tls = False
        for one in uri:
            server = list(parse_uri(one) + (_DNS_A, 0))
            if user is not None:
                server[2] = user
            if password is not None:
                server[3] = password
                if (not _MQTT5 or protocol != 5) and server[2] is None:
                    raise LocalError("password without user [MQTT-3.1.2-22]")
            is_tls = is_tls or server[4]
            servers.append(server)
        if _FAILOVER:
            self._servers = servers
            self._turn = 0  # index of the current one
        if _FAILOVER or _MQTT5:
            self._session_server = servers[0][:3]  # the one with the session
        self._server = servers[0]  # the current one
        if _TLS:
            self._raw = self._tls = self._probe = None
            self.tls_name = tls_name
            if tls_name is not None and (not isinstance(tls_name, str) or not tls_name):
                raise LocalError("tls_name is %r, must be a str that is a name" % (tls_name,))
        if _TLS and is_tls:
            self._tls = _tls_context(ca, cert, key, tls)
            self._is_insecure = tls == "insecure"  # True until that was reported
        elif (ca, cert, key, tls, tls_name) != (None, None, None, None, None):
            raise LocalError("ca, cert, key, tls and tls_name are for mqtts:// and ssl://")
        if client_id is None:
            # Up to 23 letters and digits are safe with any server [MQTT-3.1.3-5].
            client_id = "mqtt%s%s" % (unique_id()[-8:].hex(), MQTTClient._made or "")
        MQTTClient._made += 1
        # The session belongs to the client_id [MQTT-3.1.3-2, -4] [MQTT5-3.1.3-2, -4].
        self.client_id = _to_field("client_id", client_id)
        if (not _MQTT5 or protocol != 5) and not self.client_id and not clean_session:
            raise LocalError("client_id '' needs clean_session=True [MQTT-3.1.3-7]")
        self.clean_session = _flag("clean_session", clean_session)
        if _MQTT5:
            self._will_properties = b""
            if protocol == 5 and isinstance(will, (tuple, list)) and len(will) == 5:
                self._will_properties = encode_properties(will[4], 0)
                _check_format(will[4], _to_payload(will[1]))
                will = will[:4]
        if will is not None:
            if not isinstance(will, (tuple, list)) or len(will) != 4:
                raise LocalError(
                    "will is %r, must be (topic_name, payload, qos, retain)" % (will,)
                )
            will = (  # [MQTT-3.1.2-14] [MQTT-3.1.3-10] [MQTT5-3.1.2-12] [MQTT5-3.1.3-11]
                _to_topic(will[0]),
                _to_field("will payload", _to_payload(will[1]), False),
                will[2],
                will[3],
            )
            _publish_flags(will[2], will[3], "will qos")
        self.will = will
        if link is not None and not hasattr(link, "is_up"):
            raise LocalError("link is %r, must have is_up()" % (link,))
        self.link = link
        self.keep_alive_s = _integer("keep_alive_s", keep_alive_s, 0, 65535)
        _integer("packet_bytes_max", packet_bytes_max, 64, _PACKET_BYTES_LIMIT)
        _integer("pipe_slots", pipe_slots, 1, 1000)
        self.in_flight_max = _integer("in_flight_max", in_flight_max, 1, 200)
        self.connect_timeout_ms = _integer("connect_timeout_ms", connect_timeout_ms, 1, _MS_MAX)
        self.reconnect_min_ms = _integer("reconnect_min_ms", reconnect_min_ms, 0, _MS_MAX)
        self.reconnect_max_ms = _integer(
            "reconnect_max_ms", reconnect_max_ms, reconnect_min_ms, _MS_MAX
        )
        if _OFFLINE:
            if pipe_bytes_max is None:
                pipe_bytes_max = min(16 * packet_bytes_max, _COUNT_HALF)
            _integer("pipe_bytes_max", pipe_bytes_max, 1, _COUNT_HALF)
            self._pipe = Pipe(pipe_slots, packet_bytes_max, pipe_bytes_max, _policy(offline))
            self._is_telling = False
        elif offline != "refuse" or pipe_bytes_max is not None:
            raise LocalError(_NOT_BUILT % "offline or pipe_bytes_max")
        else:
            self._pipe = Pipe(pipe_slots, packet_bytes_max)
        self._filters = Filters()
        self._outbox = Outbox(min(packet_bytes_max, _OUTBOX_BYTES))
        self._decoder = Decoder(packet_bytes_max)
        self._message = Message(self._decoder.buf)
        self._topics = {}  # checked topic names: see _known_topic()
        self._last = (_NOTHING,)  # the last one of them
        self.on_message = self.on_published = None  # in the instance: every message reads them
        if _STATS:
            self._counts = [0] * _COUNTS
            self._ping_ms = 0  # ticks_ms() of the last PINGREQ
        if _BACKGROUND or _ASYNCIO:
            self._is_stopping = False  # stop(), or the end of run(): no connect() from on_offline
        if _BACKGROUND:
            self._timer = None
        if _ASYNCIO:
            self._changed = None  # asyncio.Event: something happened in step()
            self._is_running = False  # True: run() is active
            self._is_drop_told = False  # publish_wait() must look: run() wakes it
            self._is_unlisted = False  # publish_wait() is in publish(): tell no drop
            self._awaited = {}  # token of publish_wait(): has it been dropped?
            self._full = []  # full Messages: we read nothing until they have room, except
            self._waiting = []  # while publish_wait() and the like wait: the answer may be behind
        if _ISR:
            self.isr_dropped = 0  # messages that publish_isr() had no room for
            self._isr_ring = [None] * (_ISR_SLOTS * _ISR_FIELDS)
            self._isr_lock = allocate_lock()
            self._isr_head = self._isr_tail = 0
        self._is_topic_told = False  # True: we reported a topic name that holds a wildcard
        if _RESOLVER:
            self._known = {}  # host name: [ticks_ms() of its end, or None, addresses, record type]
        # These outlive a connection. With the Pipe and Filters they are the session (section 4.1).
        if _QOS2:
            self._received = []  # packet_id of each QoS 2 message that awaits PUBREL; and a 0
            self._arriving = 0  # packet_id of the QoS 2 message that no callback has had yet
            self._again = None  # (turn, packet_id) of each whose PUBREL is to be sent again
            self._is_qos1_told = False  # True: we reported that the server does not do QoS 2
            if _MQTT5 and session_expiry_s or not clean_session:
                # The server may still hold a message from before a reset of this device. It would
                # take a new one with the same identifier for a repetition. (MQTT 5.0: only the
                # first CONNECT is clean, and several servers may share a name.)
                token = int.from_bytes(urandom(2), "big")
                self._pipe.last_token = token
                if _STATS:
                    self._counts[_N_FILTERS] = token
        self._is_resumed = True  # no session was lost for want of memory
        self._longest_ms = 0  # upper bound of the last random pause; the next one's is double
        self._pause_end_ms = None
        # lwIP: ticks_ms() when it has given the last connection's memory back; that connection's
        # socket, until a reset has freed the memory or we give up waiting for it.
        self._free_ms = 0
        self._dying = None
        if _RESOLVER:
            self._address_count = 1
        if _HINTS:
            self._suspected = None  # why the server closes soon after CONNACK,
            self._kicks = 0  # and how often in a row
        self._password = None  # of this attempt
        # The life: see _live(). (All attributes are made in here: without a GIL, no thread may
        # read a dict that grows.)
        self.state = _DOWN
        self._is_wanted = False  # True between connect() and disconnect()
        self._is_open = False  # a life has begun and is not closed
        self._is_stable = False  # the connection has lasted for _STABLE_MS
        self._is_late = False  # a deadline was extended by one step: the next step times out
        self._put_offs = 0  # number of longer extensions: see _on_due()
        self._packets_left = 0  # packets a step may still read; all: none came since an extension
        self._is_quiet = False  # no packet has come since _TIMER_PING ran out the last time
        self._failed = None  # why a life ended, until on_offline knows
        self._happened = False
        self._is_enough = False  # read no more in this step: slow callback, much work, full queue
        if _BACKGROUND or _ASYNCIO:
            self._driver = None  # get_ident() of the thread that drives step() for the application
        self._socket = self._poll = self._interest = None
        self._bad_poll = None  # it failed, and is polled again
        # A connection in service.
        self._timers = [None] * (_TIMERS + 1)  # ticks_ms() of each deadline, or None; and _DUE
        self._is_held = False  # a packet waits for room for its answer
        self._flying = 0  # QoS 1 and 2 messages in flight
        self._is_resending = False
        # Positions in the outbox of a PINGREQ and the last PUBREL that have not left.
        self._ping_mark = None
        if _QOS2:
            self._pubrel_mark = None
        self._has_said_bye = False  # DISCONNECT is in the outbox, or sent
        self._is_time_up = False  # draining must stop
        self._read = self._write = self._packets = None
        if _BACKGROUND or _ASYNCIO:
            self._is_ticking = False  # True while _drive() is in step()
        if _ASYNCIO:
            self._loop = None  # the event loop of run()
        if _MQTT5:
            self._set_protocol(protocol, session_expiry_s, properties, auth, packet_bytes_max)

    def connect(self) -> None:
        """Connect, and stay connected until disconnect(). Returns at once.

        step() does the work. A second call changes nothing.
        Allocates: nothing. Blocks: never. Spec: section 3.1.
        """
        self._is_wanted = True
        self._pipe.is_signalled = True

    def disconnect(
        self,
        reason_code: int = 0,  # _MQTT5
        properties: "dict | None" = None,  # _MQTT5
    ) -> None:
        """Close the connection in good order. Returns at once.

        step() then sends what is queued, waits up to connect_timeout_ms for the acknowledgements,
        sends DISCONNECT and closes the connection; wait_offline() waits for that. Without a
        connection, what is queued stays queued.

        Args:
            reason_code: MQTT 5.0. 0: normal; 4: the server publishes the will; 0x80..: an error.
            properties: dict, of DISCONNECT: session_expiry_interval, reason_string, user_property.

        Allocates: nothing, without arguments. Blocks: never. Spec: section 3.14.
        """
        if _MQTT5:
            if reason_code is not _ZERO or properties is not None:
                self._set_bye(reason_code, properties)
            elif self._is_wanted:
                self._bye = _DISCONNECT_PACKET
        self._is_wanted = False
        self._pipe.has_chores = self._pipe.is_signalled = True

    def publish(
        self,
        topic_name: "str | bytes",
        payload: "str | bytes | bytearray | memoryview | int | float",
        qos: int = 0,
        retain: bool = False,
        offline: "str | None" = None,
        expiry_s: "int | None" = None,
        properties: "dict | None" = None,  # _MQTT5
    ) -> int:
        """Queue a message for publication.

        Args:
            topic_name: str or bytes without wildcards, 1..65535 bytes of UTF-8.
            payload: bytes or str; bytearray and memoryview are copied; a number is sent as
                str() writes it.
            qos: 0, 1 or 2. retain: bool: the server keeps it for later subscribers.
            offline: overrides the constructor's for this message; None: the constructor's.
            expiry_s: int, 1..259,200 (3 days) or None: the message is dropped if it still waits
                after that time. One that was sent but not acknowledged is given up once the
                connection has ended; it may have been delivered. With MQTT 5.0 the server is told
                how much time is left.
            properties: dict, with MQTT 5.0: payload_format_indicator, message_expiry_interval
                (like expiry_s, but it may be 0, or longer: then the time spent waiting here
                does not count), content_type, response_topic, correlation_data, user_property.

        Returns: A token for is_done(), wait_for(), cancel() and on_published, 1..2**30-1.

        Raises:
            LocalError: an argument is wrong, or the packet would be larger than packet_bytes_max
                or pipe_bytes_max. QueueFull: the pipe is full. In both cases nothing is queued.

        The client calls on_dropped at once for what it dropped to make room. If that callback is
        slow, the next steps report the rest.

        Allocates: nothing, if both are bytes and the client remembers the topic name. It remembers
        eight; a ninth clears the table. The same object again costs least. Blocks: see
        Pipe.place(). Spec: section 3.3.
        """
        # No DUP [MQTT-3.3.1-2] [MQTT-4.3.1-1] [MQTT5-3.3.1-2] [MQTT5-4.3.1-1], and no subscription
        # identifier [MQTT5-3.3.4-6].
        if qos is _ZERO and retain is False:
            qos = _PUBLISH
        else:
            qos = _publish_flags(qos, retain)
            if _MQTT5 and qos & self._forbidden:
                qos = self._why_not(qos)  # in two lines: rule 6
                raise _server_error(qos)
        retain = self._last  # read once: another thread may change it
        if topic_name is not retain[0]:
            retain = self._topics.get(topic_name) if topic_name.__class__ is _bytes else None
            if retain is None:
                retain = self._known_topic(topic_name)
            else:
                self._last = retain
        topic_name = retain[1]
        if payload.__class__ is not _bytes:
            payload = _to_payload(payload)
        if (not _MQTT5 or properties is None) and offline is None and expiry_s is None:
            # The easy case of _put_wish(), inlined: the call alone would be a tenth of a message's
            # cost. No new variable and no `try`: they would move the frame to the heap (rule 6).
            # So arguments are reused: retain is the pipe, offline the slot, topic_name the slot
            # after it, expiry_s the size and then the token, qos what bytes_left will be.
            expiry_s = retain[2] + _len(payload)  # type: ignore
            retain = self._pipe
            if not retain._acquire(False):
                retain.wait_for_lock()
            # If Ctrl-C ends this call, step() releases the lock: see Pipe.mend().
            offline = retain.tail
            retain.topics[offline] = topic_name
            retain.payloads[offline] = payload
            retain.firsts[offline] = qos
            topic_name = retain.after[offline]
            if _OFFLINE:
                qos = retain.bytes_left - expiry_s
            if (
                topic_name != retain.head
                and expiry_s <= retain.easy_bytes
                and (not _OFFLINE or qos >= 0)
            ):
                if _OFFLINE:
                    retain.bytes_left = qos
                expiry_s = retain.last_token + 1 & _COUNT_MASK or 1
                retain.last_token = expiry_s
                retain.tokens[offline] = expiry_s
                retain.tail = topic_name
                retain._release()
                retain.is_signalled = True
                return expiry_s
            expiry_s = retain.place()
        elif _MQTT5:
            payload = topic_name, payload, qos
            offline = offline, expiry_s, properties
            qos = self._put_wish_5
            expiry_s = qos(payload, offline)
        elif _OFFLINE:
            payload = topic_name, payload, qos
            qos = self._put_wish  # bound first: rule 6
            expiry_s = qos(payload, offline, expiry_s)
        else:
            raise LocalError(_NOT_BUILT % "offline or expiry_s")
        if _OFFLINE and self._pipe.dropped:
            self._tell_dropped()
        return expiry_s

    # Returns (topic_name as given, checked bytes, their length), and remembers the last few. The
    # table is replaced, never changed: another thread may read it.
    def _known_topic(self, topic_name):
        is_lasting = topic_name.__class__ in _NAMES
        known = self._topics.get(topic_name) if is_lasting else None
        if known is None:
            known = _to_topic(topic_name)
            known = (topic_name, known, _len(known))
            if not is_lasting:
                return known  # mutable: check it each time
            if known[2] < _KNOWN_TOPIC_BYTES_MAX:
                topics = {}
                if _len(self._topics) < _KNOWN_TOPICS:
                    topics.update(self._topics)
                topics[topic_name] = known
                self._topics = topics
        self._last = known
        return known

    if _OFFLINE and not _MQTT5:

        def _put_wish(self, message, offline, expiry_s):
            if offline is not None:
                offline = _policy(offline)
            if expiry_s is not None:
                expiry_s = _integer("expiry_s", expiry_s, 1, _EXPIRY_MAX_S) * 1000
                expiry_s = ticks_add(ticks_ms(), expiry_s)
            pipe = self._pipe
            pipe.wait_for_lock()
            at = pipe.tail
            pipe.topics[at], pipe.payloads[at], pipe.firsts[at] = message
            return pipe.place(offline, expiry_s)

    if _OFFLINE:
        # on_dropped may publish, and so drop more: report that after it returns, not inside it.
        def _tell_dropped(self):
            pipe = self._pipe
            # (Of what this server refuses on_error is told first.)
            if self._is_telling or _MQTT5 and self._refused:
                return
            begin_ms = ticks_ms()
            try:
                self._is_telling = True  # in the `try`, or Ctrl-C could leave it set
                for _ in range(_DROPS_PER_CALL):
                    # The lock guards this list. If another thread has it, step() reports the rest.
                    if not pipe.dropped or not pipe._acquire(False):
                        break
                    token = 0
                    if pipe.dropped and not (_ASYNCIO and self._is_unlisted):
                        token = pipe.dropped.pop(0)
                        if _ASYNCIO and token in self._awaited:
                            self._awaited[token] = True
                            self._is_drop_told = True
                            pipe.is_signalled = True
                    pipe.release_lock(False)
                    if not token:  # another thread has told it, or will
                        break
                    if _MQTT5:
                        self._end_request(token)
                    self._happened = True
                    if _STATS:
                        self._count(_N_DROPPED)
                    self._emit(self.on_dropped, token)
                    if ticks_diff(ticks_ms(), begin_ms) >= _SLOW_MS:
                        break  # send what we owe first
            finally:
                self._is_telling = False
                # step() tells the rest, or what was dropped just now, and raises a Ctrl-C.
                if pipe.dropped or self._happened:
                    pipe.has_chores = pipe.is_signalled = True

        def cancel(self, token: int) -> bool:
            """Take a message back.

            Args: token: from publish().

            Returns:
                True: it will not be sent (again), and on_dropped is called. If it was sent before,
                it may have been delivered. False: there is nothing to take back: it is done, or it
                is QoS 0 and on its way, or the server has it for good (QoS 2 past PUBREC).

            Raises: LocalError: not an int. QueueFull: another call holds the pipe for too long.

            Allocates: very little. Blocks: see Pipe.place().
            """
            is_taken_back = self._pipe.cancel(token)
            self._tell_dropped()
            return is_taken_back

    def subscribe(
        self,
        topic_filter: "str | bytes",
        callback=None,
        qos: int = 0,
        no_local: bool = False,  # _MQTT5
        retain_as_published: bool = False,  # _MQTT5
        retain_handling: int = 0,  # _MQTT5
        properties: "dict | None" = None,  # _MQTT5
    ) -> int:
        """Subscribe now and after every reconnection, until unsubscribe().

        The client sends the SUBSCRIBE before any message that waits.

        Args:
            topic_filter: str or bytes, may contain + and # (section 4.7). With
                "$share/group/filter", the filter decides which messages the callback gets.
            callback: callback(client, message) gets the messages that match; None: on_message.
            qos: 0, 1 or 2: the highest that you want.
            no_local: bool, MQTT 5.0: do not send back what this client publishes itself.
            retain_as_published: bool, MQTT 5.0: keep RETAIN as the publisher set it.
            retain_handling: MQTT 5.0: send retained messages 0: at each SUBSCRIBE, 1: only if the
                server has no such subscription yet, 2: never.
            properties: dict, with MQTT 5.0: subscription_identifier, user_property. A message
                that comes with the identifier goes to this callback; no topics are compared,
                unless another filter has it, too.

        Returns: A token for is_done(), wait_for(), was_refused() and on_subscribed.

        Raises:
            LocalError: an argument is wrong. QueueFull: another call holds the pipe for too long.

        Allocates: a row of the table, about 64 bytes. Blocks: see Pipe.place(). Spec: section 3.8.
        """
        if _MQTT5:
            options = 0
            if _flag("no_local", no_local):
                options = _NO_LOCAL
            if _flag("retain_as_published", retain_as_published):
                options |= _RETAIN_AS_PUBLISHED
            options |= _integer("retain_handling", retain_handling, 0, 2) << _RETAIN_HANDLING_SHIFT
            return self._put_filter(
                topic_filter,
                callback,
                _integer("qos", qos, 0, _QOS_MAX),
                options,
                properties,
            )
        else:
            return self._put_filter(topic_filter, callback, _integer("qos", qos, 0, _QOS_MAX))

    def unsubscribe(
        self,
        topic_filter: "str | bytes",
        properties: "dict | None" = None,  # _MQTT5
    ) -> int:
        """Unsubscribe. The subscription need not exist.

        Args:
            topic_filter: str or bytes, exactly as given to subscribe().
            properties: dict, with MQTT 5.0: user_property.

        Returns: A token for is_done() and wait_for().

        Raises:
            LocalError: the filter is wrong. QueueFull: another call holds the pipe for too long.

        Allocates: a row of the table. Blocks: see Pipe.place(). Spec: section 3.10.
        """
        if _MQTT5:
            return self._put_filter(topic_filter, None, -1, 0, properties)
        else:
            return self._put_filter(topic_filter, None, -1)

    def _put_filter(
        self,
        topic_filter,
        callback,
        qos,
        options=0,  # _MQTT5
        properties=None,  # _MQTT5
    ):
        topic_filter = _to_topic(topic_filter, True)
        if callback is not None and not callable(callback):
            raise LocalError("callback is %r, must be callable" % (callback,))
        pipe = self._pipe
        if _MQTT5:
            options = self._options_of(topic_filter, qos, options, properties)
        # (MQTT 5.0: _options_of() has checked the exact size.)
        if (not _MQTT5 or options is None) and len(topic_filter) + 10 > pipe.packet_bytes_max:
            raise LocalError(
                _TOO_LARGE % ("topic filter", len(topic_filter), pipe.packet_bytes_max)
            )
        pipe.wait_for_lock()
        try:
            token = pipe.last_token = pipe.last_token + 1 & _COUNT_MASK or 1
            self._filters.put(
                topic_filter,
                callback,
                qos,
                token,
                self.state < _SUBSCRIBING,  # the lock keeps CONNACK out
                options,  # _MQTT5
            )
            if _STATS:
                self._count(_N_FILTERS)
        finally:
            pipe.has_chores = True
            pipe.release_lock()
        return token

    def is_online(self) -> bool:
        """True while the connection is in service (state ONLINE)."""
        return self.state == _ONLINE

    def is_done(self, token: int) -> bool:
        """True when nothing more will happen for this token.

        QoS 0: handed to the socket. QoS 1, 2, subscribe, unsubscribe: acknowledged (see
        was_refused()), or replaced by a later call for the same filter. Or dropped by a policy,
        cancel() or expiry; then on_dropped was called, or will be in a moment.

        Raises: LocalError: not an int. Allocates: nothing. Blocks: never.
        """
        if self._pipe.find(token) >= 0:
            return False
        row = self._filters.find(token)
        return row is None or row[_TOKEN] < 0

    def was_refused(self, token: int) -> bool:
        """True if the server has refused this subscription: SUBACK with a code above 2.

        Raises: LocalError: not an int. Allocates: nothing. Blocks: never. Spec: section 3.9.3.
        """
        row = self._filters.find(_integer("token", token, 0, _COUNT_MASK))
        return row is not None and row[_STATE] == _REFUSED

    def wait_online(self, timeout_ms: int) -> bool:
        """Call step() until is_online(). False: not within timeout_ms, or disconnect() was called.

        Blocks: up to timeout_ms. Raises: LocalError inside a callback, or without connect().
        """
        if not self._is_wanted:
            raise LocalError(_IN_VAIN % "wait_online() without connect()")
        self._wait(timeout_ms, self._is_settled)
        return self.is_online()

    # True also when a callback has called disconnect(): nothing is left to wait for.
    def _is_settled(self):
        return self.is_online() or not self._is_wanted and self.state == _DOWN

    def wait_offline(self, timeout_ms: int) -> bool:
        """Call step() until the connection is closed, after disconnect(). False: not in time.

        Blocks: up to timeout_ms. Raises: LocalError inside a callback, or without disconnect().
        """
        if self._is_wanted:
            raise LocalError(_IN_VAIN % "wait_offline() without disconnect()")
        return self._wait(timeout_ms)

    def wait_for(self, token: int, timeout_ms: int) -> bool:
        """Call step() until is_done(token). False: it took longer than timeout_ms.

        Blocks: up to timeout_ms. Raises: LocalError inside a callback.
        """
        return self._wait(timeout_ms, self.is_done, token)

    # Call step() until the condition holds. While something else drives it, only watch; and once
    # watching, never call it, as a second watcher might, too. Raise in the thread that drives
    # step(): it would wait for itself. (rp2's timer uses the main program's thread: raise only
    # while the timer is in step().)
    def _wait(self, timeout_ms, is_done=None, *arguments):
        deadline_ms = ticks_add(ticks_ms(), _integer("timeout_ms", timeout_ms, 0, _MS_MAX))
        if (_BACKGROUND or _ASYNCIO) and self._driver == get_ident():
            if self._is_ticking or not _BACKGROUND or self._timer is None:
                self._check_driver()
        left_ms = is_driven = 0
        while True:
            if (_BACKGROUND or _ASYNCIO) and self._driver is not None:
                is_driven = 1
            if (_BACKGROUND or _ASYNCIO) and is_driven:
                sleep_ms(min(left_ms, _NAP_MS))
            else:
                self.step(left_ms)
            if is_done(*arguments) if is_done else self.state == _DOWN:
                return True
            left_ms = _left_of(deadline_ms, ticks_ms())
            if left_ms <= 0:
                return False


# The first byte of a PUBLISH with this QoS and RETAIN.
def _publish_flags(qos, retain, name="qos"):
    first_byte = _PUBLISH | _integer(name, qos, 0, _QOS_MAX) << _QOS_SHIFT
    if retain is not False and _flag("retain", retain):
        first_byte |= _RETAIN
    return first_byte


if _OFFLINE:

    def _policy(offline):
        if offline not in _POLICIES:
            raise LocalError("offline is %r, must be one of %r" % (offline, _POLICIES))
        return _POLICIES.index(offline)


if _ASYNCIO:

    class Messages:
        """The messages of one filter, for `async for`; MQTTClient.messages() makes it.

        Each message is a copy and stays valid. After run() has ended or close() was called, the
        loop ends as soon as you have taken all that arrived. A new loop goes on with the next
        run().
        """

        def __init__(self, client, topic_filter, qos, queue_max):
            self._client = client
            self._changed = client._changed  # CPython 3.9 makes no Event outside a task
            self._filter = topic_filter
            self._idle = 0  # how often _TIMER_PING has run out since one was taken
            self._queue = []
            self._queue_max = queue_max
            self._token = client.subscribe(topic_filter, self._on_message, qos)

        def _on_message(self, client, message):
            if self._filter is None:
                return  # closed, but more may come before UNSUBACK
            try:
                self._queue.append(message.copy())
            except MemoryError:
                _NOT_KEPT.__traceback__ = None
                raise _NOT_KEPT
            if len(self._queue) >= self._queue_max and self not in client._full:
                client._full.append(self)
                client._is_enough = True  # for this step

        def __aiter__(self):
            self._changed = self._client._event()  # each run() has its own
            return self

        async def __anext__(self):
            if self._changed is None:  # made before run()
                self._changed = self._client._event()
            while not self._queue:
                if self._filter is None or self._changed is not self._client._changed:
                    raise StopAsyncIteration
                await self._changed.wait()
            client = self._client
            self._idle = 0
            if self in client._full and len(self._queue) <= self._queue_max:
                client._full.remove(self)
                client._pipe.is_signalled = True
            return self._queue.pop(0)

        def close(self):
            """Unsubscribe, and end the loop. Raises: QueueFull: call it again."""
            client = self._client
            if self._filter is not None:
                row = client._filters.find(self._token)
                if row is not None and row[_IS_LAST]:  # else a later subscribe() has the filter
                    client.unsubscribe(self._filter)
                self._filter = None
                if self in client._full:
                    client._full.remove(self)
                    client._pipe.is_signalled = True  # also without that unsubscribe()
                if self._changed:
                    self._changed.set()
                    self._changed.clear()

        async def __aenter__(self):
            return self

        async def __aexit__(self, *exception):
            self.close()
