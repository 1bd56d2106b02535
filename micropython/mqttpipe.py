"""Non-blocking MQTT 3.1.1 client for MicroPython, in one file.

Theory of operation
-------------------
    publish() subscribe() ...  -->  Pipe  -->  step()  -->  Outbox   -->  socket
    callbacks                  <--  Session  <--  step()  <--  Decoder  <--  socket

`step()` is the only function that touches the socket. It does what is ready now
and returns; with a timeout it first sleeps in one `select.poll` that watches the
socket and the Pipe together, so that a publish from a callback or another thread
wakes it. Nothing below `step()` can wait, and every state in which the server
owes us something has a deadline.

A call of the application becomes a command: references in a preallocated slot of
the Pipe, and a token to ask for it later. `step()` takes commands in order,
encodes each packet into the Outbox, and writes the Outbox with one write for many
packets. QoS 1 and 2 messages stay in the Session until the server has acknowledged
them, through as many connections as that takes.

A packet is decoded as its bytes come. The Decoder says where the next bytes
belong and how many it wants; `step()` reads just those, straight to their place.
So a packet's body always starts at index 0 of one buffer: nothing is moved,
nothing is allocated, and a packet too large for the buffer is read past.

Rules for this file
-------------------
1. The connection's state changes only in `MQTTClient._move()`, along _NEXT_STATE.
2. Packets, Outbox, Decoder and Session do no I/O of their own and read no clock.
3. The steady state allocates nothing; a function that allocates says so.
4. Only the portability block knows where it runs.
5. A wait is a deadline in `_timers`. step() sleeps only in `_work()`; other threads only
   in `_wait()` and, for 20 ms at most, in the Pipe.

Section numbers and [MQTT-x.y.z-n] tags refer to MQTT Version 3.1.1, OASIS
standard, 29 October 2014.
"""

__version__ = "0.1.0"

# ---------------------------------------------------------------------------
# Switches
# ---------------------------------------------------------------------------
try:
    from micropython import const
except ImportError:  # CPython
    from shim_board import const

# Parts that a smaller build leaves out: mpy-cross drops the body of an `if` whose
# constant is 0. They go from the optional to the more and more missed.
_TLS = const(1)  # mqtts:// and ssl://
_QOS2 = const(1)  # exactly once; without it QoS 2 is refused
_FAILOVER = const(1)  # more than one server
_ASYNCIO = const(1)  # run(), publish_wait(), messages()
_BACKGROUND = const(1)  # start() and stop()
_ISR = const(1)  # publish_isr()
_STATS = const(1)  # counters
_OFFLINE = const(1)  # what becomes of messages while offline: policies, limits, expiry
_RESOLVER = const(1)  # host names without waiting; without it getaddrinfo() waits

# ---------------------------------------------------------------------------
# Portability
# ---------------------------------------------------------------------------
# A MicroPython board has these names. CPython gets the same names, with the
# board's behaviour, from cpython_shim/. Nothing below asks which one it is.
try:
    import select
    import socket
    from _thread import allocate_lock, get_ident
    from errno import EAGAIN, EINPROGRESS
    from io import IOBase
    from os import urandom
    from sys import print_exception
    from time import sleep_ms, ticks_add, ticks_diff, ticks_ms

    if _TLS:
        import gc
        from time import gmtime

        # The C module itself: `ssl` is a Python module around it, which only costs memory.
        try:
            import tls
        except ImportError:  # a port without TLS
            tls = None

        def wrap_tls(context, sock, host):
            gc.collect()  # the library may need 17 KB in one piece
            # Never the blocking handshake: that has no end on a dead connection.
            return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)

    if _BACKGROUND:
        from _thread import stack_size, start_new_thread
        from sys import platform

        # What drives step() in the background. On rp2 a second thread would run on the second
        # core, with no lock between the two interpreters: in the middle of anything the first
        # one does. A timer's callback runs between two bytecodes of the main program instead
        # (before MicroPython 1.24 on either core, if the program has a thread: py/scheduler.c).
        if platform == "rp2":
            from machine import Timer
        else:
            Timer = None

        def start_thread(function):
            if platform == "esp32":
                stack_size(16 * 1024)  # 4 KiB are too few for a TLS handshake; not tried there
            start_new_thread(function, ())

    # In a loop that waits for another thread. Here that goes on by itself: on another core, or
    # after some bytecodes of ours.
    def pass_on():
        pass

    if _ASYNCIO:
        # Under asyncio: sleep until client._is_ready(). asyncio's own poll asks that through
        # the ioctl of the pipe. (On MicroPython a generator is a coroutine.)
        def wait_ready(client, pipe):
            from asyncio import core

            pipe.is_ready = client._is_ready
            try:
                yield core._io_queue.queue_read(pipe)
            finally:
                pipe.is_ready = None

        try:
            import mqttpipe_unix as select  # type: ignore
            from mqttpipe_unix import wait_ready  # type: ignore
        except ImportError:  # no board has such a file, or needs it
            pass

    try:
        from machine import unique_id
    except ImportError:  # the unix port has none: an identity for this run only

        def unique_id():
            return urandom(8)

except ImportError:
    from shim_board import *  # noqa: F403  all the names above

if _RESOLVER or _BACKGROUND:  # the commands of mqttpipe_repl.py look at it, too
    try:
        from network import STA_IF, WLAN
    except ImportError:  # no interface of our own: the system's files know the DNS servers
        WLAN = None

# ---------------------------------------------------------------------------
# Constants
# ---------------------------------------------------------------------------
# Control packet types (section 2.2.1, table 2.1): the first byte with its fixed
# flags (table 2.2) [MQTT-2.2.2-1], so that encoding adds nothing and decoding needs
# one mask.
_TYPE_MASK = const(0xF0)
_CONNECT = const(0x10)
_CONNACK = const(0x20)
_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_PUBREC = const(0x50)
_PUBREL = const(0x62)  # [MQTT-3.6.1-1]
_PUBCOMP = const(0x70)
_SUBSCRIBE = const(0x82)  # [MQTT-3.8.1-1]
_SUBACK = const(0x90)
_UNSUBSCRIBE = const(0xA2)  # [MQTT-3.10.1-1]
_UNSUBACK = const(0xB0)
_PINGRESP = const(0xD0)

# The two that are always the same, whole (sections 3.12 and 3.14).
_PINGREQ_PACKET = const(b"\xc0\x00")
_DISCONNECT_PACKET = const(b"\xe0\x00")

# Flags of PUBLISH (section 3.3.1).
_DUP = const(0x08)
_QOS_SHIFT = const(1)
_RETAIN = const(0x01)

_QOS_MAX = const(1 + _QOS2)

# How a packet may begin that a server sends, beside PUBLISH and SUBACK. Their remaining length
# is 2; that of PINGRESP is 0.
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
    "accepted;protocol version not accepted;client id not accepted;server unavailable;"
    "bad user or password;not authorized;reserved"
)
_REFUSALS_LAST = const(6)
_SUBACK_FAILURE = const(0x80)  # return code in SUBACK (section 3.9.3)

# Limits of the protocol: a two byte length (section 1.5.3), four bytes of
# remaining length (section 2.2.3), and the largest packet these make.
_STRING_BYTES_MAX = const(65535)
_PACKET_BYTES_LIMIT = const(268435460)
# Longest fixed header: type and four bytes of remaining length.
_FIXED_HEADER_MAX = const(5)
# PUBLISH less topic name and payload: that, the name's length and the identifier.
_PUBLISH_HEADER_MAX = const(9)
_ACK_BYTES = const(4)  # PUBACK, PUBREC, PUBREL, PUBCOMP

# Many small packets leave in one write: so many bytes, and never more than packet_bytes_max, so
# 1 KiB by default. 1460 is a whole TCP segment of lwIP on the ESP32 (on rp2 it is 800). A larger
# payload is not copied at all but written from where it lies.
_OUTBOX_BYTES = const(1460)

# Packets handled by one step(), so that a flood from the server can not keep the
# caller from its own loop, nor our own publishes from the socket.
_PACKETS_PER_STEP = const(16)

# The same for reading what is no packet yet: a packet of 256 MiB is read away in many steps.
_READS_PER_STEP = const(64)

# The same for writing: a callback that publishes each time it is told of a message
# that has left would keep one step() going for ever.
_FLUSHES_PER_STEP = const(32)

# Packet identifiers of incoming QoS 2 messages held until their PUBREL, 4 bytes each.
# Servers keep 10 (HiveMQ), 20 (mosquitto) or 32 (EMQX) in flight to one client by
# default, more when connections break again and again. One more than this ends the
# connection before it is delivered; by then the server has PUBRECs to go on with.
_RECEIVED_MAX = const(256)

# Tokens and counters stay below 2**30: a larger integer is a heap object on a
# 32-bit board. Half of the range tells "before" from "after".
_COUNT_MASK = const(0x3FFFFFFF)
_COUNT_HALF = const(0x20000000)

# For how long put() waits for another thread: far more than that needs.
_LOCK_WAIT_MS = const(20)

# Resolver (RFC 1035): record types; a server that is silent is asked again, or the
# next one, after _DNS_RETRY_MS, _DNS_TRIES times in all; an address is not kept for
# longer than a day.
_DNS_PORT = const(53)
_DNS_A = const(1)
_DNS_AAAA = const(28)
_DNS_NO_SUCH_NAME = const(3)
_DNS_RETRY_MS = const(1500)
_DNS_TRIES = const(4)
_DNS_TTL_MAX_S = const(86400)
_DNS_ANSWER_MAX = const(512)

_DRIVE_MS = const(1000)  # a thread sleeps this long at most: a timer drives step() that often:
_TICK_MS = const(10)
_NAP_MS = const(5)  # between two looks at what another thread does
_ISR_SLOTS = const(16)  # one more than the messages of interrupts that may wait for step()
_ISR_FIELDS = const(3)
_LINK_CHECK_MS = const(250)  # how often a link that is down is looked at
_STABLE_MS = const(10_000)  # a connection that lasted this long ends the back-off
_DROPS_PER_CALL = const(1000)  # told at once: as many as a pipe can hold
_EXPIRY_MAX_S = const(259_200)  # 3 days: less than half a period of ticks_ms()
_YEAR_MIN = const(2024)  # a clock that is behind it was never set: boards begin in 2000 or 2021
_TLS_EOF = const(-0x7280)  # MBEDTLS_ERR_SSL_CONN_EOF: the peer has closed without a word
# The same numbers on lwIP, Linux, macOS and Windows; the unix port has no names for them.
_IPPROTO_TCP = const(6)
_TCP_NODELAY = const(1)
_TLS_ERRNO_MAX = const(-256)  # what mbedTLS itself has to say is below
_POLLNVAL = const(0x20)  # closed; not exported by `select`
_BACK_OFF_MS = const(50)  # the least that doubles: with reconnect_min_ms=0, too, it must grow
_KICKS_MIN = const(3)  # so many short connections in a row are no accident
_MS_MAX = const(0x0FFFFFFF)  # 3.1 days: well inside half a period of ticks_ms()

# The states of the connection, as in `MQTTClient.state`.
_DOWN = const(0)  # no connection, and none wanted
_RESOLVING = const(1)  # host name to addresses
_TCP_CONNECTING = const(2)  # until the first byte of CONNECT, or of TLS, is accepted
_TLS_HANDSHAKE = const(3)  # until the first byte of CONNECT has been accepted
_AWAITING_CONNACK = const(4)  # CONNECT sent. 3.1.4 would let us send more; we wait
_SUBSCRIBING = const(5)  # what was in flight is sent again, then all filters
_ONLINE = const(6)  # in service
_CLOSING = const(7)  # draining; then DISCONNECT, then the socket is closed
_WAITING = const(8)  # back-off until the next attempt

STATE_NAMES = (
    "DOWN",
    "RESOLVING",
    "TCP_CONNECTING",
    "TLS_HANDSHAKE",
    "AWAITING_CONNACK",
    "SUBSCRIBING",
    "ONLINE",
    "CLOSING",
    "WAITING",
)

# The stage that an error names, for each state: words of one text, which is one object; as a
# tuple they would be ten.
_STAGE_WORDS = const("DOWN DNS TCP TLS CONNACK SUBACK ONLINE DISCONNECT LINK")

# The events that move it: the columns of _NEXT_STATE.
_ATTEMPT = const(0)  # a connection is wanted, and it is time
_RESOLVED = const(1)  # there is an address to try (or the next one)
_CONNECTED = const(2)  # TCP stands, TLS begins
_SECURED = const(3)  # the transport carries our bytes
_ACCEPTED = const(4)  # CONNACK with return code 0
_SUBSCRIBED = const(5)  # every subscription answered, nothing left to send again
_FINISH = const(6)  # disconnect() was called
_BACK_OFF = const(7)  # the attempt or the connection failed, or the link is down
_CLOSED = const(8)  # asked for, and done
_EVENTS = const(9)

# Row: state. Column: event. Cell: next state; _X: the event is illegal there.
_X = const(0xFF)
_NEXT_STATE = const(
    b"\x01\xff\xff\xff\xff\xff\xff\x08\xff"  # DOWN
    b"\xff\x02\xff\xff\xff\xff\xff\x08\x00"  # RESOLVING
    b"\xff\x02\x03\x04\xff\xff\xff\x08\x00"  # TCP_CONNECTING
    b"\xff\x02\xff\x04\xff\xff\xff\x08\x00"  # TLS_HANDSHAKE
    b"\xff\xff\xff\xff\x05\xff\xff\x08\x00"  # AWAITING_CONNACK
    b"\xff\xff\xff\xff\xff\x06\x07\x08\xff"  # SUBSCRIBING
    b"\xff\xff\xff\xff\xff\xff\x07\x08\xff"  # ONLINE
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x00"  # CLOSING
    b"\x01\xff\xff\xff\xff\xff\xff\x08\x00"  # WAITING
)

# Timers of a client: index into `_timers`. In ONLINE the first one ends the back-off.
# Those with a stage end the connection when
# they run out; it is the stage of the TimedOut.
_TIMER_STATE = const(0)  # the state's own deadline; end of the back-off in WAITING
_TIMER_PING = const(1)  # keep alive: time to look at the last packet sent
_TIMER_PINGRESP = const(2)
_TIMER_ACK = const(3)  # time to look at the oldest unacknowledged packet
_TIMER_PACKET = const(4)  # a half-received packet makes no progress
_TIMER_WRITE = const(5)  # the socket accepts nothing
_TIMER_DNS = const(6)  # no answer: ask again
_TIMERS = const(6 + _RESOLVER)
_NO_ANSWER = const("nothing came within the time allowed")
_TIMER_WORDS = const("PINGRESP ACK PACKET WRITE DNS")  # from _TIMER_PINGRESP on

# A subscription: a list of seven. _STATE is the packet that it needs, or what came of that.
_FILTER = const(0)
_CALLBACK = const(1)
_QOS = const(2)
_TOKEN = const(3)  # of the last command; negative: the answer has been reported
_STATE = const(4)  # _SUBSCRIBE, _UNSUBSCRIBE or one of these:
_GRANTED = const(3)
_REFUSED = const(4)  # asked for again at the next connection
_ASKED = const(5)  # the _TOKEN whose packet is on the way, or None
_MATCHES = const(6)  # the topic name of the last message; None: not known

# What becomes of a message for which the pipe has no room, in the words of the API;
# "latest": while offline only the newest message of each topic name waits.
_REFUSE = const(0)
_DROP_OLDEST = const(1)
_LATEST = const(2)
_POLICIES = const(("refuse", "drop_oldest", "latest"))

# In flight: a row of the session, a list of eight; _TOKEN is as above.
_AWAITS = const(0)
_ID = const(1)
_TURN = const(2)  # of its PUBREC among them, modulo 65535
_FIRST_BYTE = const(4)
_TOPIC = const(5)
_PAYLOAD = const(6)
_SENT_MS = const(7)  # ticks_ms() of the last sending
_ROW_FIELDS = const(8)
# What _AWAITS is: the type of the packet that must come, so that one comparison
# serves all acknowledgements.
_FREE = const(0)
_AWAITING_PUBACK = const(0x40)
_AWAITING_PUBREC = const(0x50)
_AWAITING_PUBCOMP = const(0x70)  # PUBREL sent (section 4.3.3)
_AWAITING_SUBACK = const(0x90)
_AWAITING_UNSUBACK = const(0xB0)

_HASH = const(0x23)
_PLUS = const(0x2B)
_DOLLAR = const(0x24)

# Counters of the client: index of each; their names stand in `stats`.
_N_ATTEMPTS = const(0)  # to connect, whatever became of them
_N_CONNECTIONS = const(1)  # CONNACK accepted
_N_FILTERS = const(2)  # commands of the pipe that were no messages
_N_ACKNOWLEDGED = const(3)  # QoS 1 and 2
_N_EXPIRED = const(4)  # of those dropped
_N_RECEIVED = const(5)  # messages given to the application
_N_DUP = const(6)  # received with DUP
_N_SUPPRESSED = const(7)  # QoS 2: not given a second time
_N_TOO_LARGE = const(8)  # received, larger than packet_bytes_max
_N_PING_MS = const(9)  # from the last PINGREQ to its PINGRESP
_COUNTS = const(10)

# `io.IOBase.ioctl` (py/stream.h of MicroPython).
_IOCTL_POLL = const(3)

# What drives step() can not be entered twice: by a callback, a coroutine, or beside start().
_IS_DRIVEN = const("step() runs already: by start(), run() or around a callback")


# Names that every message needs: MicroPython looks for a builtin among the globals first,
# then, one by one, among the builtins.
_len = len
_isinstance = isinstance
_bytes = bytes


class _KeyOf:
    def __getitem__(self, key):
        return key


# The slice [:] made once: `buf[:] = b""` would allocate a slice for each call.
# An emptied bytearray keeps its memory on MicroPython, so that append() and
# extend() allocate nothing until it is as long as it ever was.
_EVERYTHING = _KeyOf()[:]
del _KeyOf  # a class takes more than 100 bytes


# ---------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------
class MQTTError(Exception):
    """Base of every error that this module raises on purpose.

    MQTTError
      LocalError       you asked for what MQTT or this client forbids
      QueueFull        no free slot in the pipe now; try again after step()
      ServerError      the server broke the protocol; the connection is closed
      Refused          CONNACK with `.return_code` 1..5 (section 3.2.2.3)
      TransportError   the network failed: `.stage` of the work, `.errno` or None
      TimedOut         a deadline passed: `.stage` tells what was waited for

    The stages: DNS, TCP, TLS, CONNACK, SUBACK, ONLINE, DISCONNECT, as the state is, and
    PINGRESP, ACK, PACKET, WRITE for what did not come in time.

    LocalError and QueueFull are raised by the call that causes them. The others
    never leave step(): they are the `error` of on_offline.
    """

    def __init__(self, text, stage=None, errno=None, return_code=None):
        super().__init__(text if stage is None else "%s: %s" % (stage, text))
        self.stage = stage
        self.errno = errno
        self.return_code = return_code


class LocalError(MQTTError):
    pass


class QueueFull(MQTTError):
    pass


class ServerError(MQTTError):
    pass


class Refused(MQTTError):
    pass


class TransportError(MQTTError):
    pass


class TimedOut(MQTTError):
    pass


# Texts of more than one error.
_NOT_BUILT = const("%s is not in this build")
_PACKET_SIZE = const("packet size (packet_bytes_max)")
_SERVER_CLOSED = const("closed by the server")
_OUT_OF_MEMORY = const("out of memory")

# Made before it is needed: then there is no memory for the text of another.
_NO_MEMORY = TransportError(_OUT_OF_MEMORY)


# ---------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------
# Everything that an application passes in is looked at here, once, and becomes
# bytes or an integer within its range.


def _integer(name, value, lowest, highest):
    if not isinstance(value, int) or not lowest <= value <= highest:
        raise LocalError("%s is %r, must be an int in %d..%d" % (name, value, lowest, highest))
    return value


# Call what may fail, and need not succeed.
def _try(function, *arguments):
    try:
        function(*arguments)
    except (OSError, MemoryError):
        pass


# Text or binary to bytes. A bytearray or memoryview is copied: its owner may
# change it before the packet is sent. Text is encoded as a board does it, which knows no
# lone surrogates; where they are not allowed, _to_field() finds them.
def _to_bytes(name, value):
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise LocalError("%s must be str or bytes, not %s" % (name, type(value).__name__))


# True if `buf[start:end]` is UTF-8 that MQTT allows (section 1.5.3): well formed, and without
# surrogates [MQTT-1.5.3-1] and U+0000 [MQTT-1.5.3-2]. MicroPython's own decoder takes surrogates
# and characters written longer than need be. EF BB BF is a character like any other
# and stays where it is [MQTT-1.5.3-3]. Allocates nothing.
def _is_utf8(buf, start, end):
    more = least = character = 0  # `more` bytes of the character are still to come
    for i in range(start, end):
        byte = buf[i]
        if more:
            if byte & 0xC0 != 0x80:
                return False
            character = character << 6 | byte & 0x3F
            more -= 1
            # U+D800..U+DFFF are surrogates, U+10FFFF is the last one.
            if not more and (character < least or character >> 11 == 0x1B or character > 0x10FFFF):
                return False
        elif byte > 0x7F:
            # How many bytes follow, the least character that needs so many, and the first bits
            # of this one (Unicode, tables 3-6 and 3-7). Of 0x80..0xBF they are negative: below.
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
def _to_field(name, value, is_text=True):
    data = _to_bytes(name, value)
    if len(data) > _STRING_BYTES_MAX:
        raise LocalError("%s is %d bytes long, at most 65535 fit [1.5.3]" % (name, len(data)))
    if is_text and not _is_utf8(data, 0, len(data)):
        raise LocalError("%s is not UTF-8 without U+0000 [MQTT-1.5.3-1, -2]: %r" % (name, data))
    return data


# A topic name [MQTT-3.3.2-1, -2] [MQTT-4.7.1-1], or a topic filter [MQTT-3.8.3-1]
# [MQTT-3.10.3-1] [MQTT-4.7.1-2, -3]; for both [MQTT-4.7.3-1, -2, -3].
def _to_topic(value, is_filter=False):
    name = "topic filter" if is_filter else "topic name"
    data = _to_field(name, value)
    rule = None if data else "is empty [MQTT-4.7.3-1]"
    if b"+" in data or b"#" in data:
        levels = data.split(b"/")
        if not is_filter:
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


def parse_uri(uri: str) -> tuple:
    """Take a server's URI apart.

    Args:
        uri: str, `mqtt://[user[:password]@]host[:port]` or the same with `tcp://`; with
            `mqtts://` or `ssl://` over TLS. host: a name, an IPv4 address, or an IPv6
            address in brackets. User and password may hold percent-encoded bytes.

    Returns:
        (host: str, port: int, user: bytes or None, password: bytes or None, is_tls: bool)

    Raises:
        LocalError: with the URI less what stands before an @, which belongs in no log.

    Allocates: the parts. Blocks: never.
    """
    if not isinstance(uri, str):
        raise LocalError("URI must be str, not %s" % type(uri).__name__)
    scheme, _, rest = uri.partition("://")
    secret, at, rest = rest.rpartition("@")
    scheme = scheme.lower()
    is_tls = scheme == "mqtts" or scheme == "ssl"
    literal, bracket, rest = rest.rstrip("/").rpartition("]")
    host, colon, port = rest.partition(":")
    if bracket:  # what stands there before the colon is no host, but too much
        host = literal[1:] if not host and literal[:1] == "[" and ":" in literal else ""
    if not colon:
        port = "8883" if is_tls else "1883"
    fields = []  # user and password, as far as they are there
    rule = None
    if not is_tls and scheme != "mqtt" and scheme != "tcp":
        rule = "must begin with mqtt://, tcp://, mqtts:// or ssl://"
    elif is_tls and not (_TLS and tls):
        rule = _NOT_BUILT % "needs TLS, which"
    elif (
        not host
        or "/" in host
        or " " in host
        or "[" in host
        or not port.isdigit()
        or not 0 < int(port) < 65536
    ):
        rule = "has no host[:port] as broker.example or [::1]:1883, port 1..65535"
    elif at:
        try:
            for text in secret.split(":", 1):
                parts = text.split("%")  # of RFC 3986
                field = parts[0].encode()
                for part in parts[1:]:
                    field += bytes((int(part[0] + part[1], 16),)) + part[2:].encode()
                fields.append(_to_field("user or password", field, not fields))
        except (ValueError, IndexError):
            # Told below: what int() has said of two letters of the password is not.
            rule = "has a % without two hex digits"
    if rule:
        raise LocalError(
            "URI %s: %r" % (rule, "***@" + uri.rpartition("@")[2] if "@" in uri else uri)
        )
    if _RESOLVER and not is_literal(host):
        encode_query(0, host, _DNS_A)  # can this name be asked for at all?
    fields += (None, None)
    return host, int(port), fields[0], fields[1], is_tls


# ---------------------------------------------------------------------------
# Packets (section 3): encoding
# ---------------------------------------------------------------------------
# Packets of every day are appended to a bytearray that has room for them. The
# rare ones (CONNECT, SUBSCRIBE, UNSUBSCRIBE) are made as bytes of their own.


def append_remaining_length(buf, value):
    """Append `value` as a Remaining Length.

    Args:
        buf: bytearray, 1 to 4 bytes are appended.
        value: bytes that follow the fixed header, 0..268,435,455. Not checked:
            what is published has passed `packet_bytes_max`.

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


def encode_connect(client_id, clean_session, keep_alive_s, user, password, will):
    """Return a CONNECT packet.

    Args:
        client_id, user, password: bytes; user and password may be None: absent.
        clean_session: bool. keep_alive_s: 0..65535.
        will: None or (topic_name: bytes, payload: bytes, qos: 0..2, retain: bool).

    Allocates: the packet and its parts. Spec: section 3.1.
    """
    flags = _CLEAN_SESSION if clean_session else 0
    body = _field(client_id)  # [MQTT-3.1.3-1, -3]: the order of the payload's fields
    if will:  # [MQTT-3.1.2-9]; else neither flag nor field [MQTT-3.1.2-11, -13, -15]
        topic_name, payload, qos, retain = will
        flags |= _WILL | qos << _WILL_QOS_SHIFT | (_WILL_RETAIN if retain else 0)
        body += _field(topic_name) + _field(payload)
    if user is not None:  # [MQTT-3.1.2-18, -19]
        flags |= _HAS_USER
        body += _field(user)
    if password is not None:  # [MQTT-3.1.2-20, -21]
        flags |= _HAS_PASSWORD
        body += _field(password)
    head = b"\x00\x04MQTT\x04" + bytes((flags,)) + keep_alive_s.to_bytes(2, "big")
    return _packet(_CONNECT, head + body)


def encode_subscriptions(first_byte, packet_id, subscriptions):
    """Return a SUBSCRIBE (with QoS) or UNSUBSCRIBE (without) for some filters.

    Allocates: the packet and its parts. Spec: sections 3.8 and 3.10.
    """
    body = packet_id.to_bytes(2, "big")
    for subscription in subscriptions:
        body += _field(subscription[_FILTER])
        if first_byte == _SUBSCRIBE:
            body += bytes((subscription[_QOS],))
    return _packet(first_byte, body)


# ---------------------------------------------------------------------------
# Resolver (RFC 1035): a host name to addresses, in one datagram each way
# ---------------------------------------------------------------------------
# getaddrinfo() waits for the network, on some boards for ever (rp2 with the link
# down), so it is given literal addresses only. An answer is taken if its identifier
# and its question are ours; that it comes from the server asked is seen to by the
# connected socket. Names in the answer are skipped, never followed: there is no loop
# to fall into, and a CNAME's address counts as the name's own.


if _RESOLVER:
    # The word at index `at` of each line of a text file that has `word` elsewhere.
    def _look_up(path, word, at):
        found = []
        try:
            with open(path) as file:
                for line in file:
                    words = line.split("#")[0].split()
                    if word in words and words[at] != word:
                        found.append(words[at])
        except (OSError, IndexError):
            pass  # no such file, or an odd one
        return found

    def dns_servers():
        """Return the addresses of the DNS servers in use, as a list of str.

        A board's Wi-Fi interface knows them; a system with files has resolv.conf.
        """
        if WLAN is not None:
            return [WLAN(STA_IF).ifconfig()[3]]
        return _look_up("/etc/resolv.conf", "nameserver", 1)

    def hosts(name):
        """Return the addresses that this machine itself knows for a name, as a list of str."""
        return _look_up("/etc/hosts", name, 0) or (["127.0.0.1"] if name == "localhost" else [])

    def is_literal(host):
        """True if `host` (str) is an IPv4 address, or can only be an IPv6 one."""
        parts = host.split(".")
        for part in parts:
            if not part.isdigit() or int(part) > 255:
                return ":" in host
        return len(parts) == 4

    def encode_query(query_id, host, kind):
        """Return a DNS query for one name.

        Args:
            query_id: 0..65535. host: str. kind: record type, _DNS_A or _DNS_AAAA.

        Raises:
            LocalError: a label of the name is empty or longer than 63 bytes.

        Allocates: the query. Spec: RFC 1035, sections 4.1.1 and 4.1.2.
        """
        # Recursion desired, one question, no records.
        query = query_id.to_bytes(2, "big") + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        for label in _to_bytes("host", host.rstrip(".")).split(b"."):
            if not 0 < len(label) < 64:
                raise LocalError("host name must have labels of 1..63 bytes: %r" % host)
            query += bytes((len(label),)) + label
        return query + bytes((0, 0, kind, 0, 1))

    def decode_answer(data, query):
        """Read what came back for `query`.

        Args:
            data: the datagram, bytes. query: from encode_query().

        Returns:
            None if it is no answer to this query. Else (code, addresses, ttl_s): the
            response code, a list of str, and for how many seconds they hold.

        Allocates: the list. Spec: RFC 1035, section 4.1.
        """
        at = len(query)
        if (
            len(data) < at
            or data[:2] != query[:2]
            or not data[2] & 0x80
            or data[4:6] != query[4:6]
            or data[12:at].lower() != query[12:].lower()
        ):
            return None
        addresses = []
        ttl_s = _DNS_TTL_MAX_S
        try:
            for _ in range(data[6] << 8 | data[7]):
                while 0 < data[at] < 0xC0:
                    at += data[at] + 1
                at += 2 if data[at] else 1  # a pointer, or the root
                start = at + 10
                end = start + (data[at + 8] << 8 | data[at + 9])
                field = tuple(data[start:end])
                if end > len(data):
                    break
                if data[at : at + 4] == query[-4:]:
                    if len(field) == 4:
                        addresses.append("%d.%d.%d.%d" % field)
                    elif len(field) == 16:
                        addresses.append(("%02x%02x:" * 8)[:-1] % field)
                ttl_s = min(ttl_s, int.from_bytes(data[at + 4 : at + 8], "big"))
                at = end
        except IndexError:
            pass  # it ends in the middle of a record
        return data[3] & 0x0F, addresses, ttl_s


# ---------------------------------------------------------------------------
# TLS: one context for each client, kept for all its connections
# ---------------------------------------------------------------------------
# Made by the constructor, so that a wrong file or key is told there, and never again:
# certificates are parsed once, and a reconnection needs memory for the connection only.

if _TLS:
    from binascii import a2b_base64

    # Have the library take certificates or keys. Each is a PEM text, PEM or DER data, or the
    # name of a file that holds either.
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
                # Some boards' libraries (rp2) read DER only: PEM is then taken apart here, less
                # the name of a curve that may stand before a key. A list of certificates
                # becomes several calls; of a chain of our own only the first one is left.
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
            # Without the file's name, which CPython shows with the error and with what comes
            # from it: who mistakes key= for data would show the key.
            reason = error.args[0]
        raise LocalError("%s%s %s" % (name, failed, reason))

    def _tls_context(ca, cert, key, how):
        """Make the context that a client's TLS connections share.

        Args:
            ca, cert, key, how: as ca, cert, key, tls of MQTTClient.

        Returns:
            An SSLContext of the port.

        Raises:
            LocalError: a file can not be read or used, or nothing to verify with.

        Allocates: the files, and what the library makes of them. Blocks: while it
        reads files.
        """
        if how is not None and how != "insecure":
            if not hasattr(how, "wrap_socket") or (ca, cert, key) != (None, None, None):
                kind = type(how).__name__  # not what it is: it may be a key
                raise LocalError(
                    "tls is a %s, must be 'insecure' or an SSLContext: load ca, cert and key "
                    "into that" % kind
                )
            return how
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        # Said each time: `ssl` of MicroPython begins with no verification, `tls` with.
        context.verify_mode = tls.CERT_NONE if how else tls.CERT_REQUIRED
        if ca is not None:
            _load("ca", context.load_verify_locations, ca)
        elif not how:
            if not hasattr(context, "load_default_certs"):
                raise LocalError("mqtts:// needs ca= here (or tls='insecure': none is verified)")
            context.load_default_certs()
        if (cert, key) != (None, None):
            _load("cert or key", context.load_cert_chain, cert, key)
        if hasattr(context, "set_alpn_protocols"):
            context.set_alpn_protocols(["mqtt"])  # as registered with IANA
        return context


# ---------------------------------------------------------------------------
# Outbox: bytes on their way to the socket
# ---------------------------------------------------------------------------
# Two parts, written in this order:
#
#   buf   small packets, one behind the other, written together
#   tail  one packet, or one payload whose header ends `buf`, written from where
#         it lies: it is larger than `buf` may grow
#
# part[0:at]    accepted by the socket      `part` is the one that is being written
# part[at:end]  offered, and not accepted; 0: nothing
# part[at:]     waiting
#
# What was offered and refused is offered again to just the same end: the TLS library has
# encrypted it already, and would take the answer for all that is offered the second time.
#
# While `buf` is written before a tail, nothing may be appended (it would leave
# before the tail): there is no room. As soon as the tail is the part, `buf` is empty and takes
# what follows. `sent_count` is what has left since ever, modulo 2**30, so that "has this
# packet left" is one comparison.


class Outbox:
    def __init__(self, capacity):
        self.capacity = capacity
        self.buf = bytearray(capacity)  # reserves the memory; emptied by clear()
        self.sent_count = 0
        if _STATS:
            self.packet_count = 0  # since ever, modulo 2**30
        # How a PUBLISH with this topic name, size and first byte begins: mostly that of the
        # next one is the same.
        self.head = bytearray()
        self.head_of = None
        self.head_size = self.packet_size = 0
        self.clear()

    def clear(self):
        self.buf[_EVERYTHING] = b""
        self.tail = None
        self.part = self.buf
        self.at = self.end = 0
        self.pending = 0  # bytes that wait, of both parts
        self.room = self.capacity  # bytes that may be appended now

    def put_packet(self, packet):
        """Take a ready-made packet of any size. False: not now, a tail is pending.

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

    def put_ack(self, first_byte, packet_id):
        """Append PUBACK, PUBREC, PUBREL or PUBCOMP. The caller has seen room for 4 bytes."""
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
        """Take a PUBLISH. False: not now, there is no room.

        Args: size: bytes of topic name and payload.

        Allocates: nothing, unless the topic name alone is too long for `buf`.
        """
        if topic_name is not self.head_of or size != self.head_size or first_byte != self.head[0]:
            self._make_head(first_byte, topic_name, size)
        size = self.packet_size
        if size > self.room:
            return self._put_large(first_byte, payload, packet_id)
        self.buf.extend(self.head)
        if first_byte & 0x06:
            self.buf.append(packet_id >> 8)
            self.buf.append(packet_id & 0xFF)
        self.buf.extend(payload)
        self.room -= size
        self.pending += size
        if _STATS:
            self.packet_count = self.packet_count + 1 & _COUNT_MASK
        return True

    # It will fit when what is before it has left. Or it never will: then the payload is the tail;
    # with a topic name that is too long, all of it.
    def _put_large(self, first_byte, payload, packet_id):
        buf = self.buf
        head_bytes = len(self.head) + 2
        if self.tail is not None or self.packet_size <= self.capacity:
            return False
        if head_bytes > self.capacity:
            buf = bytearray()
        elif head_bytes > self.room:
            return False
        buf.extend(self.head)
        if first_byte & 0x06:
            buf.append(packet_id >> 8)
            buf.append(packet_id & 0xFF)
        if buf is not self.buf:
            self.head = bytearray()  # do not keep so long a topic name
            self.head_of = None
            return self.put_packet(bytes(buf) + payload)
        self.tail = payload
        self.room = 0
        self.pending += self.packet_size
        if _STATS:
            self.packet_count = self.packet_count + 1 & _COUNT_MASK
        return True

    # What stands before the packet identifier. The topic name comes first [MQTT-3.3.2-1].
    def _make_head(self, first_byte, topic_name, size):
        head = self.head
        self.head_of = None  # until it is whole
        head[_EVERYTHING] = b""
        head.append(first_byte)
        # The identifier only at QoS 1 and 2 [MQTT-2.3.1-5].
        length = size + (4 if first_byte & 0x06 else 2)
        append_remaining_length(head, length)
        self.packet_size = _len(head) + length
        head.append(_len(topic_name) >> 8)
        head.append(_len(topic_name) & 0xFF)
        head.extend(topic_name)
        self.head_of = topic_name
        self.head_size = size

    def flush(self, stream):
        """Write what the stream takes now and return how many bytes that was.

        Args:
            stream: its write(buf, offset, length) answers a count or None.

        Allocates: nothing. Raises: what the stream raises.
        """
        written = 0
        while self.pending > 0:
            part = self.part
            end = self.end or len(part)
            size = end - self.at
            count = stream.write(part, self.at, size) or 0
            written += count
            self.at += count
            self.pending -= count
            self.sent_count = self.sent_count + count & _COUNT_MASK
            self.end = end
            if count < size or not count:
                break
            self.end = 0
            if end == len(part):  # else something has come behind what was refused
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
# It never asks for more than the packet at hand and the first two bytes of the
# next one (no packet is shorter). So in a stream of small messages each costs one
# read, and a body always begins at buf[0]:
#
#   buf[0:have]                 what has come of the body (and of the next header)
#   buf[0:remaining_length]     the body, when the packet is whole
#
# A packet that is larger than `body_max` is called whole when `body_max` bytes of it are there
# (have < remaining_length); the rest is read away afterwards. The packet identifier of a PUBLISH
# that is dropped so may be anywhere in it: whoever sets `late_at`, its index in the body,
# finds it in `late_id` when the packet is "whole" a second time, at its end.
#
# The decoder is a generator: where it stands in a packet is where it stands in its code. It is
# sent the number of bytes that have come, which lie at the start of `target`.


class Decoder:
    def __init__(self, packet_bytes_max):
        # Longest body kept: the packet less two bytes of fixed header.
        self.body_max = packet_bytes_max - 2
        self.buf = bytearray(packet_bytes_max)  # two more: the next header's start
        if _STATS:
            self.packet_count = self.byte_count = 0  # since ever, modulo 2**30
        self.reset()

    def reset(self):
        """Forget what was received: a new connection begins. Allocates: a generator.

        `on_bytes(count)` then takes `count` bytes that were put at the start of `target`, as many
        as `wanted` or less. Afterwards `is_whole` tells if a packet is there: see `first_byte`,
        `remaining_length`, `buf`, and call on_bytes(0) when it has been dealt with: `buf` is free
        again, and the next packet may be whole already. It raises ServerError if the bytes break
        the protocol (sections 2.2.1-2.2.3). It allocates nothing, but for a memoryview when a
        body comes in pieces.
        """
        self.on_bytes = self._decode().send
        self.on_bytes(None)

    def _decode(self):
        buf = self.target = self.buf
        view = memoryview(buf)
        body_max = self.body_max
        at = have = 0  # buf[at:have] came with the last body
        self.late_at = self.late_id = 0
        while True:
            # -- fixed header. May a server send this at all? (sections 2.2.1, 2.2.2)
            first_byte = self.first_byte = 0  # 0: between two packets
            self.is_whole = False
            length = shift = 0
            while True:
                if at == have:
                    self.wanted = 1 if first_byte else 2
                    have = yield
                    at = 0
                byte = buf[at]
                at += 1
                if not first_byte:
                    first_byte = self.first_byte = byte
                    if not byte:
                        raise ServerError("control packet type 0 is reserved [2.2.1]")
                    continue
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
                if shift == 28:
                    raise ServerError("remaining length goes on after four bytes [2.2.3]")
            if first_byte & _TYPE_MASK == _PUBLISH:
                # QoS 3 [MQTT-3.3.1-4]; DUP at QoS 0 [MQTT-3.3.1-2].
                is_legal = first_byte & 0x06 != 0x06 and first_byte & 0x0E != _DUP
            elif first_byte == _SUBACK:
                is_legal = True
            else:  # [MQTT-2.2.2-2]
                is_legal = first_byte in _RECEIVED
                is_legal = is_legal and length == (0 if first_byte == _PINGRESP else 2)
            if not is_legal:
                raise ServerError(
                    "illegal packet 0x%02x with remaining length %d [2.2]" % (first_byte, length)
                )

            # -- body
            self.remaining_length = length
            kept = length
            spare = 2
            if length > body_max:
                kept = body_max
                spare = 0
            have = 0
            while have < kept:
                self.wanted = kept - have + spare
                if have:
                    self.target = view[have:]
                have += yield
            self.target = buf
            self.have = have
            self.is_whole = True
            if _STATS:
                self.packet_count = self.packet_count + 1 & _COUNT_MASK
            yield
            at = length
            if spare:
                continue

            # -- the rest of a packet that is too large: buf[0:have] is the body from `at` on
            self.is_whole = False
            at = 0
            while True:
                for late_at in range(self.late_at, self.late_at + 2):
                    if self.late_at and at <= late_at < at + have:
                        self.late_id = self.late_id << 8 | buf[late_at - at]
                at += have
                if at == length:
                    break
                self.wanted = min(length - at, kept)
                have = yield
            at = have
            if self.late_at:
                self.is_whole = True
                yield
                self.late_at = self.late_id = 0


# ---------------------------------------------------------------------------
# Messages
# ---------------------------------------------------------------------------


class Message:
    """A received application message (section 3.3). One object serves them all.

    Attributes: qos (0..2), retain and dup (bool).

    Valid only during the callback: keep what you need of it, not the object, or a copy().
    """

    def __init__(self, buf):
        self._buf = memoryview(buf)
        self._start = self._end = self._view = None
        self.set(0, 0, 0, 0)

    def set(self, first_byte, topic_end, start, end):
        self.qos = first_byte >> _QOS_SHIFT & 3
        self.retain = first_byte & _RETAIN != 0
        self.dup = first_byte & _DUP != 0
        self.topic_end = topic_end  # of the topic name, which begins at index 2
        if start != self._start or end != self._end:
            self._view = None
            self._start = start  # of the payload
            self._end = end

    if _ASYNCIO:

        def copy(self):
            """Return a Message that stays valid. Allocates: it, topic name and payload."""
            kept = Message(bytes(self._buf[: self._end]))
            first_byte = self.dup << 3 | self.qos << _QOS_SHIFT | self.retain
            kept.set(first_byte, self.topic_end, self._start, self._end)
            return kept

    @property
    def topic_name(self) -> str:
        """The topic name. Allocates: the str."""
        return str(self._buf[2 : self.topic_end], "utf-8")

    @property
    def payload(self) -> bytes:
        """The payload, copied. Allocates: the bytes."""
        return bytes(self.view)

    @property
    def view(self):
        """The payload where it lies: a memoryview, no copy.

        Allocates: nothing if the last message had a topic name and a payload of the
        same lengths, else a memoryview.
        """
        if self._view is None:
            self._view = self._buf[self._start : self._end]
        return self._view


def topic_matches(topic_filter, buf, start, end):
    """True if the topic name in `buf[start:end]` matches the filter.

    Args:
        topic_filter: bytes, legal. buf: bytes or bytearray. start, end: indices.

    Allocates: nothing. Spec: section 4.7.
    """
    if _len(topic_filter) == end - start and buf.find(topic_filter, start, end) == start:
        return True  # the same bytes: compared in C
    if buf[start] == _DOLLAR and topic_filter[0] != _DOLLAR:
        return False  # [MQTT-4.7.2-1]
    i = 0
    while i < _len(topic_filter):
        byte = topic_filter[i]
        if byte == _HASH:
            return True
        if byte == _PLUS:
            start = buf.find(b"/", start, end)
            if start < 0:
                start = end
        elif start == end:
            # "a/#" matches its parent "a", too (section 4.7.1.2).
            return topic_filter.find(b"/#", i) == i
        elif buf[start] == byte:
            start += 1
        else:
            return False
        i += 1
    return start == end


# ---------------------------------------------------------------------------
# Session (section 4.1): what outlives a connection
# ---------------------------------------------------------------------------
# A packet that waits for its acknowledgement is a row, a preallocated list, which never moves
# (another thread may look for a token in it): the last one is for SUBSCRIBE and UNSUBSCRIBE, one
# at a time, the others are for PUBLISH. `pending` is what a new connection begins with: the rows
# that have to be sent once more, in order.
#
# The topic name and payload stay until the exchange has ended, not only until
# PUBREC: a server that has lost the session gets the message again.


class Session:
    def __init__(self, outbox, in_flight_max):
        self.outbox = outbox
        self.rows = [[None] * _ROW_FIELDS for _ in range(in_flight_max + 1)]
        self.count = 0  # of rows in use
        self.pending = []
        self.flags_again = 0  # of a PUBLISH that is sent once more
        if _STATS:
            self.sent_count = self.retransmitted_count = 0  # messages, modulo 2**30
        self.subscriptions = []  # see _FILTER and so on; searched in order
        self.is_unsent = False  # one may wait for its SUBSCRIBE or UNSUBSCRIBE
        self.asked = ()  # the subscriptions in the one on the way
        self.received = []  # packet_id of each QoS 2 message that awaits its PUBREL
        self.last_packet_id = self.last_turn = 0
        self.is_whole = True  # no resume() has failed in its middle
        self.is_doubtful = False  # the server may have begun another session unheard

    # The next identifier that is not in use [MQTT-2.3.1-2]. It goes on counting through
    # connections, so that an identifier rests as long as can be.
    def _next_id(self):
        packet_id = self.last_packet_id
        while True:
            packet_id = packet_id % 65535 + 1
            for row in self.rows:
                if row[_ID] == packet_id:
                    break
            else:
                return packet_id

    def is_empty(self):
        """True if no packet waits to be sent or acknowledged."""
        return not self.count

    def has_token(self, token):
        """True if the exchange of this token has not ended."""
        for row in self.rows:
            if row[_TOKEN] == token:
                return True
        for subscription in self.subscriptions:
            # Both: a later command may have taken the place of the one on the way.
            if subscription[_TOKEN] == token or subscription[_ASKED] == token:
                return True
        return False

    # The exchange is over: its identifier and its references are given up. Returns its token.
    def _free(self, row):
        token = row[_TOKEN]
        row[_AWAITS] = row[_ID] = row[_TOKEN] = row[_TOPIC] = row[_PAYLOAD] = None
        self.count -= 1
        return token

    # -- outgoing messages ---------------------------------------------------

    def start(self, token, first_byte, topic_name, payload, now_ms):
        """Send a QoS 1 or 2 message and keep it in a row. False: no row or no room for it.

        Allocates: nothing. Spec: sections 4.3.2 and 4.3.3 [MQTT-4.3.2-1] [MQTT-4.3.3-1].
        """
        for row in self.rows:
            if not row[_ID]:
                break
        if row is self.rows[-1]:
            return False
        packet_id = self._next_id()
        if not self.outbox.put_publish(
            first_byte, topic_name, payload, _len(topic_name) + _len(payload), packet_id
        ):
            return False
        self.last_packet_id = row[_ID] = packet_id
        row[_AWAITS] = _AWAITING_PUBREC if _QOS2 and first_byte & 0x04 else _AWAITING_PUBACK
        row[_TOKEN] = token
        row[_FIRST_BYTE] = first_byte
        row[_TOPIC] = topic_name
        row[_PAYLOAD] = payload
        row[_SENT_MS] = now_ms
        self.count += 1
        if _STATS:
            self.sent_count = self.sent_count + 1 & _COUNT_MASK
        return True

    def send_pending(self, now_ms):
        """Send what is pending, in order. False: something is left, there is no room.

        Allocates: nothing. Spec: section 4.6.
        """
        outbox = self.outbox
        pending = self.pending
        while pending:
            row = pending[0]
            if _QOS2 and row[_AWAITS] == _AWAITING_PUBCOMP:
                if outbox.room < _ACK_BYTES:
                    return False
                outbox.put_ack(_PUBREL, row[_ID])
            elif not outbox.put_publish(
                row[_FIRST_BYTE] | self.flags_again,
                row[_TOPIC],
                row[_PAYLOAD],
                _len(row[_TOPIC]) + _len(row[_PAYLOAD]),
                row[_ID],
            ):
                return False
            row[_SENT_MS] = now_ms
            pending.pop(0)
            if _STATS:
                self.retransmitted_count = self.retransmitted_count + 1 & _COUNT_MASK
        return True

    def on_ack(self, first_byte, packet_id, now_ms):
        """Take an acknowledgement. The caller has seen 4 bytes free in the outbox.

        Returns:
            The token of a message whose exchange has ended, else 0.

        Raises:
            ServerError: nothing waits for it.

        Allocates: nothing. Spec: sections 4.3.2 and 4.3.3.
        """
        awaited = _FREE
        for row in self.rows:
            if row[_ID] == packet_id:
                awaited = row[_AWAITS]
                break
        if first_byte == awaited:
            if row in self.pending:
                # It answers what was sent on the connection before: that need not go again.
                self.pending.remove(row)
            if not _QOS2 or first_byte != _PUBREC:
                return self._free(row)
            row[_SENT_MS] = now_ms
            self.last_turn = row[_TURN] = self.last_turn % 65535 + 1
            row[_AWAITS] = _AWAITING_PUBCOMP
        elif not _QOS2 or first_byte == _PUBACK or awaited in (_AWAITING_PUBACK, _AWAITING_PUBREC):
            raise ServerError(
                "0x%02x for packet id %d, which awaits 0x%02x [4.3]"
                % (first_byte, packet_id, awaited)
            )
        if _QOS2 and first_byte == _PUBREC:
            # [MQTT-4.3.3-1]; at once, so in the order of the PUBRECs [MQTT-4.6.0-4]. Also if it
            # was sent again, or is from before a reset of this device: without its PUBREL the
            # server would keep the identifier for ever. (The PUBCOMP of that is let pass.)
            self.outbox.put_ack(_PUBREL, packet_id)
        return 0

    # -- subscriptions ---------------------------------------------------------

    def on_command(self, first_byte, token, topic_filter, callback, qos):
        """Take a SUBSCRIBE or UNSUBSCRIBE command into the table.

        A filter stands in the table once; a later command takes the place of an
        earlier one that has been sent. Sending is up to send_subscriptions().

        Returns:
            False: an earlier command for this filter has not been sent yet.

        Allocates: a new row of the table.
        """
        for subscription in self.subscriptions:
            if subscription[_FILTER] == topic_filter:
                if (
                    subscription[_STATE] > _REFUSED
                    and subscription[_TOKEN] != subscription[_ASKED]
                ):
                    return False
                break
        else:
            subscription = [topic_filter, None, 0, 0, 0, None, None]
            # A new list: another thread may be looking for a token in this one, and append()
            # may move what it looks at.
            self.subscriptions = self.subscriptions + [subscription]
        # It stays in the table until UNSUBACK: what the server still sends
        # belongs to its callback (section 3.10.4).
        if first_byte == _SUBSCRIBE:
            subscription[_CALLBACK] = callback
            subscription[_QOS] = qos
        subscription[_STATE] = first_byte
        subscription[_TOKEN] = token
        self.is_unsent = True
        return True

    def send_subscriptions(self, packet_bytes_max, now_ms):
        """Send one SUBSCRIBE or UNSUBSCRIBE for as many filters as fit in a packet.

        Returns:
            True: no filter is left to send. False: some wait for their turn.

        Allocates: the packet, if there is any. Spec: sections 3.8 and 3.10.
        """
        row = self.rows[-1]
        if not self.is_unsent:
            return True
        if row[_AWAITS]:
            return False
        chosen = []  # [MQTT-3.8.3-3] [MQTT-3.10.3-2]: no packet without any
        is_more = False
        room = packet_bytes_max - 7
        for subscription in self.subscriptions:
            if subscription[_STATE] > _REFUSED and subscription[_TOKEN] != subscription[_ASKED]:
                room -= len(subscription[_FILTER]) + 3
                if chosen and (room < 0 or subscription[_STATE] != chosen[0][_STATE]):
                    is_more = True
                    break
                chosen.append(subscription)
        if chosen:
            first_byte = chosen[0][_STATE]
            packet_id = self._next_id()
            if not self.outbox.put_packet(encode_subscriptions(first_byte, packet_id, chosen)):
                return False
            self.last_packet_id = row[_ID] = packet_id
            # Table 2.1: an acknowledgement's type follows its packet's.
            row[_AWAITS] = (first_byte & _TYPE_MASK) + 0x10
            row[_SENT_MS] = now_ms
            self.count += 1
            self.asked = chosen
            for subscription in chosen:
                subscription[_ASKED] = subscription[_TOKEN]
        self.is_unsent = is_more
        return not is_more

    def on_suback(self, first_byte, packet_id, payload):
        """Take SUBACK (payload: a return code for each filter) or UNSUBACK.

        Returns:
            A list of (token, granted) to report: every first answer, and every
            refusal of what had been granted before. granted: bytes of length 1.

        Raises:
            ServerError: the packet answers nothing we asked, or not all of it.

        Allocates: the list, and the table anew. Spec: sections 3.9 and 3.11.
        """
        ask = self.rows[-1]
        asked = self.asked
        is_suback = first_byte == _SUBACK
        if (
            ask[_ID] != packet_id
            or ask[_AWAITS] != first_byte
            # [MQTT-3.9.3-1, -2]. What is left without the return codes that there are?
            or is_suback
            and (len(payload) != len(asked) or payload.strip(b"\x00\x01\x02\x80"))
        ):
            raise ServerError(
                "0x%02x for packet id %d, %r: not as asked [3.9, 3.11]"
                % (first_byte, packet_id, payload)
            )
        report = []
        # A new list: another thread may be looking for a token in this one.
        table = list(self.subscriptions)
        for i in range(len(asked)):
            subscription = asked[i]
            token = subscription[_ASKED]
            is_last = token == subscription[_TOKEN]  # no later command has taken its place
            if is_suback:
                is_refused = payload[i] == _SUBACK_FAILURE
                if token > 0 or is_refused:
                    report.append((abs(token), payload[i : i + 1]))
                if is_last:
                    subscription[_STATE] = _REFUSED if is_refused else _GRANTED
                    subscription[_TOKEN] = -abs(token)
            elif is_last:
                table.remove(subscription)
        self.subscriptions = table
        self.forget_asked()
        return report

    def forget_asked(self):
        """The SUBSCRIBE or UNSUBSCRIBE on the way is answered, or the connection is lost.

        Without its answer it is asked again whatever the server remembers: it may not have
        come to it. All else stays as it is [MQTT-3.1.2-4] [MQTT-4.1.0-1, -2].
        """
        for subscription in self.asked:
            subscription[_ASKED] = None
        self.asked = ()
        if self.rows[-1][_AWAITS]:
            self._free(self.rows[-1])

    # -- connections -----------------------------------------------------------

    def resume(self, session_present):
        """A connection was accepted: mark everything that must be sent (again).

        Args:
            session_present: bool. True: the server goes on with the same session:
                PUBLISH with DUP and the same identifier, PUBREL where PUBREC had
                come [MQTT-2.3.1-3] [MQTT-4.4.0-1]. False: it knows nothing: all exchanges begin
                anew with new identifiers, all filters are subscribed again.

        Allocates: `pending` and the table anew.
        """
        # PUBRELs go first, as their PUBRECs came [MQTT-4.6.0-4]; then messages as they were
        # taken, so as their identifiers count up [MQTT-4.6.0-1].
        session_present = session_present and self.is_whole
        self.is_whole = session_present  # else, without the memory for what follows, once more
        waiting = []
        for row in self.rows:
            if row[_TOKEN]:
                age = (self.last_packet_id - row[_ID]) % 65535
                if _QOS2 and session_present and row[_AWAITS] == _AWAITING_PUBCOMP:
                    age = (self.last_turn - row[_TURN]) % 65535 + 65535
                waiting.append((-age, row))
        self.pending = []
        for _, row in sorted(waiting):
            if not session_present:
                row[_AWAITS] = (
                    _AWAITING_PUBREC if _QOS2 and row[_FIRST_BYTE] & 0x04 else _AWAITING_PUBACK
                )
                self.last_packet_id = row[_ID] = self._next_id()
            self.pending.append(row)
        self.flags_again = _DUP if session_present else 0  # [MQTT-3.3.1-1]
        table = []
        for subscription in self.subscriptions:
            if subscription[_STATE] == _UNSUBSCRIBE:
                if not session_present:
                    continue  # the server has forgotten it already
            elif not session_present or self.is_doubtful or subscription[_STATE] == _REFUSED:
                subscription[_STATE] = _SUBSCRIBE
            table.append(subscription)
        self.subscriptions = table
        self.is_unsent = True
        if not session_present:  # [MQTT-3.1.2-6]
            self.received = []
        self.is_whole = True
        self.is_doubtful = False


# ---------------------------------------------------------------------------
# Pipe: commands from the application to step()
# ---------------------------------------------------------------------------
# A ring of preallocated slots; a slot is _SLOT_FIELDS references in one list:
#
#   first_byte   of the packet to be made; 0: dealt with, the slot may be released
#   token        of the command
#   topic        topic name or topic filter, bytes
#   payload      payload (bytes), or the subscription's callback
#   end          QoS 0, taken: the outbox's sent_count when it has left; a message that
#                waits: ticks_ms() of its expiry, or None; SUBSCRIBE: the QoS
#   size         bytes of a message's topic name and payload; 0: no message
#
#   [head, taken)  taken by step(); QoS 0 not yet accepted by the socket
#   [taken, tail)  waiting
#
# Writers move only `tail`, under the lock; step() moves only `head` and `taken`:
# neither ever waits for the other. Only a writer that drops a message moves the rest,
# too: it raises `is_dropping`, and waits until step() has lowered `is_looking`; step()
# raises that and looks away if something is being dropped. `is_signalled` is what a poll sees:
# put() raises it, step() lowers it before it looks at the ring. It is the last thing
# that put() assigns, because the CPython shim wakes a sleeping poll just then.

_SLOT_FIELDS = const(6)


class Pipe(IOBase):
    def __init__(self, slots, bytes_max=_COUNT_MASK):
        self._lock = allocate_lock()
        self.slots = slots
        self.size = (slots + 1) * _SLOT_FIELDS  # one slot stays empty: full is not empty
        self.ring = [None] * self.size
        self.head = self.taken = self.tail = 0
        self.last_token = 0
        if _STATS:
            self.sent_count = 0  # messages of QoS 0, modulo 2**30
        self.is_signalled = False
        if _ASYNCIO:
            self.is_ready = None  # a function that is asked, too
        if _OFFLINE:
            self.bytes_max = bytes_max  # of topic names and payloads
            self.is_dropping = self.is_looking = False
            self.drop_count = 0
            self.dropped = []  # tokens to be told of; rarely more than one
            self._put_bytes = self._freed_bytes = 0  # since ever, modulo 2**30

    def ioctl(self, request, argument):
        """Answer a poll (MicroPython's stream protocol). Allocates: nothing."""
        if request == _IOCTL_POLL:
            if self.is_signalled or _ASYNCIO and self.is_ready is not None and self.is_ready():
                return argument & select.POLLIN
            return 0
        return -1  # all else, a file descriptor included, this is not

    def wake(self):
        self.is_signalled = True

    def put(self, first_byte, topic, payload, size=0, end=None, policy=_REFUSE):
        """Store a command and return its token, 1..2**30-1.

        Args: the slot's fields, see above; policy: if it is a message and does not fit.

        Raises:
            QueueFull: no slot is free, or too many bytes wait; nothing has changed.
            LocalError: it would never fit.

        Allocates: nothing. Blocks: for some microseconds while another thread is in
        put(). In a function of micropython.schedule() that has interrupted put() in
        its own thread (or step(), where the policy is to drop a message) that wait
        would never end: after 20 ms it gets QueueFull.
        """
        begin_ms = None
        while not self._lock.acquire(False):
            begin_ms = self._wait_since(begin_ms)
        try:
            at = self.tail
            after = at + _SLOT_FIELDS
            if after == self.size:
                after = 0
            if _OFFLINE:
                if after == self.head or (
                    policy == _LATEST
                    or self._put_bytes - self._freed_bytes + size & _COUNT_MASK > self.bytes_max
                ):
                    again = self._make_room(policy, topic, size)
                    if again >= 0:
                        at = again
                        after = self.tail
                self._put_bytes = self._put_bytes + size & _COUNT_MASK
            elif after == self.head:
                raise QueueFull("all %d slots are taken (pipe_slots)" % self.slots)
            token = self.last_token = self.last_token + 1 & _COUNT_MASK or 1
            ring = self.ring
            ring[at + 1] = token
            ring[at + 2] = topic
            ring[at + 3] = payload
            ring[at + 4] = end
            ring[at + 5] = size
            ring[at] = first_byte
            self.tail = after
        finally:
            if _OFFLINE and self.is_dropping:
                self.is_dropping = False  # the slot is whole: step() may look again
                self.is_signalled = True  # and shall, whatever has become of this call
            self._lock.release()
        self.is_signalled = True
        return token

    # Once more round a loop that waits for another thread: not for ever, for it may be
    # this thread's own work that was interrupted.
    def _wait_since(self, begin_ms):
        pass_on()
        now_ms = ticks_ms()
        if begin_ms is None:
            return now_ms
        if ticks_diff(now_ms, begin_ms) > _LOCK_WAIT_MS:
            raise QueueFull("the pipe is in use by a call that was interrupted")
        return begin_ms

    if _OFFLINE:

        def hold(self, is_waiting=False):
            """May step() look at the ring now? If so it calls let_go() afterwards.

            Args: is_waiting: wait for a writer that drops a message: some microseconds. 20 ms
                at most: then it is this thread's own put() that was interrupted.
            """
            begin_ms = None
            while True:
                self.is_looking = True
                if not self.is_dropping:
                    return True
                self.is_looking = False
                if not is_waiting:
                    return False
                try:
                    begin_ms = self._wait_since(begin_ms)
                except QueueFull:
                    return False

        def let_go(self):
            self.is_looking = False

        def bytes_queued(self):
            return self._put_bytes - self._freed_bytes & _COUNT_MASK

        # Make room for a command, or raise. What its policy drops it drops while step() looks
        # away, which it does until put() has done. Returns the slot that the message takes the
        # place of, or -1: the next one.
        def _make_room(self, policy, topic, size):
            if size > self.bytes_max:
                raise LocalError(
                    "message of %d bytes, pipe_bytes_max is %d" % (size, self.bytes_max)
                )
            ring = self.ring
            found = -1
            if policy != _REFUSE:
                begin_ms = None
                self.is_dropping = True
                while self.is_looking:
                    begin_ms = self._wait_since(begin_ms)
                # What may go: all that waits, or what waits with this topic name.
                bytes_left = self.bytes_queued() + size
                at = self.taken
                while at != self.tail:
                    if ring[at] & _TYPE_MASK == _PUBLISH:
                        if policy == _DROP_OLDEST or ring[at + 2] == topic:
                            bytes_left -= ring[at + 5]
                            found = at
                    at = self.after(at)
                if bytes_left > self.bytes_max:
                    found = -1  # nothing is dropped in vain
            at = self.taken
            while policy == _LATEST and found >= 0:
                if ring[at] & _TYPE_MASK == _PUBLISH and ring[at + 2] == topic:
                    self.drop(at)
                if at == found:
                    return found  # the last of them: nothing older comes behind the new one
                at = self.after(at)
            while True:
                is_full = self.after(self.tail) == self.head
                if not is_full and self.bytes_queued() + size <= self.bytes_max:
                    return -1
                if found >= 0:
                    self._drop_oldest()
                elif is_full:
                    raise QueueFull("all %d slots are taken (pipe_slots)" % self.slots)
                else:
                    raise QueueFull(
                        "%d bytes wait, %d more are above pipe_bytes_max, %d"
                        % (self.bytes_queued(), size, self.bytes_max)
                    )

        def drop(self, at):
            """Take the message at `at` out of the count and remember its token."""
            ring = self.ring
            self.drop_count = self.drop_count + 1 & _COUNT_MASK
            self.dropped.append(ring[at + 1])
            self._freed_bytes = self._freed_bytes + ring[at + 5] & _COUNT_MASK
            ring[at] = ring[at + 2] = ring[at + 3] = ring[at + 5] = 0

        # Make room: the oldest message that waits leaves, and what stands before it
        # (filters, mostly nothing) moves up by a slot. The caller knows that there is one.
        def _drop_oldest(self):
            ring = self.ring
            at = self.taken
            while ring[at] & _TYPE_MASK != _PUBLISH:
                at = self.after(at)
            self.drop(at)
            while at != self.head:
                before = (at or self.size) - _SLOT_FIELDS
                for field in range(_SLOT_FIELDS):
                    ring[at + field] = ring[before + field]
                at = before
            ring[at + 2] = ring[at + 3] = None
            self.head = self.after(self.head)
            self.taken = self.after(self.taken)

    def after(self, at):
        """The ring's index behind the slot at `at`."""
        at += _SLOT_FIELDS
        return 0 if at == self.size else at

    def release(self, sent_count, is_told):
        """Free the slots that were taken and have left.

        Args:
            sent_count: of the outbox. is_told: bool: stop behind the first QoS 0 message.

        Returns:
            The token of that message; else 0.
        """
        ring = self.ring
        size = self.size
        at = self.head
        taken = self.taken
        token = freed = 0
        while at != taken and not token:
            if ring[at]:  # else a filter, or QoS 1 and 2: the session has it
                # QoS 0: has its last byte been accepted?
                if sent_count - ring[at + 4] & _COUNT_MASK >= _COUNT_HALF:
                    break
                if _STATS:
                    self.sent_count = self.sent_count + 1 & _COUNT_MASK
                if is_told:
                    token = ring[at + 1]
            if _OFFLINE:
                freed += ring[at + 5]
            ring[at] = ring[at + 2] = ring[at + 3] = 0
            at += _SLOT_FIELDS
            if at == size:
                at = 0
        self.head = at  # what is before it is the writers' from here on
        if _OFFLINE:
            self._freed_bytes = self._freed_bytes + freed & _COUNT_MASK
        return token

    def rewind(self):
        """What was taken and has not left is taken once more: the connection is lost.

        Blocks: while another thread drops a message, some microseconds, 20 ms at most.
        """
        if _OFFLINE:
            self.hold(True)  # if not: this thread's own put() was interrupted, and goes on later
        at = self.head
        while at != self.taken:
            self.ring[at + 4] = None  # once on its way a message does not expire
            at = self.after(at)
        self.taken = self.head
        if _OFFLINE:
            self.let_go()

    def has_token(self, token):
        """True if the command of this token waits in the ring."""
        at = self.head
        while at != self.tail:
            if self.ring[at] and self.ring[at + 1] == token:
                return True
            at = self.after(at)
        return False


# ---------------------------------------------------------------------------
# The client
# ---------------------------------------------------------------------------

# Stands where any other object could be an argument: no callback argument, no topic.
_NOTHING = object()


class MQTTClient:
    """MQTT 3.1.1 client that never blocks.

    Example:
        client = MQTTClient("mqtt://broker.example")
        client.subscribe("lamp/set", lambda client, message: print(message.payload))
        client.connect()
        while True:
            client.step(100)

    Args:
        uri: str or list of str, see parse_uri(). Several are tried in turn.
        client_id: str or bytes; None: made from machine.unique_id(); "": the server
            assigns one (needs clean_session) [MQTT-3.1.3-6].
        user, password: str, bytes or None; they override the URI's. None is absent,
            b"" is present and empty.
        clean_session: bool (section 3.1.2.4).
        keep_alive_s: int, 0..65535; 0: off (section 3.1.2.10).
        will: (topic_name, payload, qos, retain) or None (section 3.1.2.5).
        ca: the certificates to trust, for mqtts:// and ssl://: PEM or DER, bytes, or str:
            the name of a file. None: the system's, where there are any. The server's
            certificate and host name are always verified.
        cert, key: our own certificate and its key, if the server asks for one.
        tls: a ready SSLContext, used as it is; or "insecure": nothing is verified.
        link: object with is_up(): no attempt is made while it answers False. If it has
            dns_servers() too, that answers a list of addresses (str) or of (address,
            port), to be asked instead of the Wi-Fi interface's.
        packet_bytes_max: int, 64..268,435,460: largest packet, either way, but for
            CONNECT. A larger one that comes in is dropped, acknowledged and reported.
        pipe_slots: int, 1..1000: commands that wait for step().
        in_flight_max: int, 1..200: QoS 1 and 2 messages on the way at once.
        connect_timeout_ms: int: from the attempt's begin to CONNACK, and for each
            other answer that the server owes.
        reconnect_min_ms, reconnect_max_ms: int: bounds of the back-off.
        pipe_bytes_max: int: bytes of topic names and payloads that wait for step();
            None: 16 times packet_bytes_max.
        offline: what becomes of a message for which the pipe has no room: "refuse"
            (QueueFull), "drop_oldest", or "latest": while offline only the newest
            message of each topic name is kept. publish() may say otherwise.

    Attributes to set: on_connect(client, session_present), on_online(client),
        on_offline(client, error), on_message(client, message),
        on_published(client, token), on_dropped(client, token),
        on_subscribed(client, token, granted),
        on_error(client, error): something went wrong that does not end the
        connection (a callback raised, a message was too large); user_data.

    Attributes to read: state (an index into STATE_NAMES), state_name, stats (dict).

    Raises:
        LocalError: an argument that MQTT or this client forbids.

    Allocates: packet_bytes_max bytes to receive and up to as many, or 1,460, to send, 20 bytes
    for a slot of the pipe, 30 for one in flight (32-bit). Blocks: never.
    """

    # To be set by the application. Most are not, so they are no attributes of each client.
    on_connect = on_online = on_offline = on_message = None
    on_published = on_dropped = on_subscribed = on_error = user_data = None

    _made = 0  # clients of this process, so that two have two identifiers

    def __init__(
        self,
        uri: "str | list | tuple",
        client_id: "str | bytes | None" = None,
        user: "str | bytes | None" = None,
        password: "str | bytes | None" = None,
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
    ) -> None:
        if not isinstance(uri, (list, tuple)):
            uri = (uri,)
        elif not _FAILOVER:
            raise LocalError(_NOT_BUILT % "uri is a list, which")
        elif not uri:
            raise LocalError("uri is an empty list, must name a server")
        if user is not None:
            user = _to_field("user", user)  # [MQTT-3.1.3-11]
        if password is not None:
            password = _to_field("password", password, False)
        servers = []  # (host, port, user, password, is_tls) of each
        is_tls = False
        for one in uri:
            server = list(parse_uri(one))
            if user is not None:
                server[2] = user
            if password is not None:
                server[3] = password
                if server[2] is None:
                    raise LocalError("password without user [MQTT-3.1.2-22]")
            is_tls = is_tls or server[4]
            servers.append(server)
        if _FAILOVER:
            self._servers = servers
            self._turn = 0  # index of the one in use
        self._server = self._session_server = servers[0]  # in use; has the session
        if _TLS:
            self._raw = self._tls = None
        if _TLS and is_tls:
            self._tls = _tls_context(ca, cert, key, tls)
            self._is_insecure = tls == "insecure"  # and that has not been said yet
        elif (ca, cert, key, tls) != (None, None, None, None):
            raise LocalError("ca, cert, key and tls are for mqtts:// and ssl://")
        if client_id is None:
            # [MQTT-3.1.3-5]: up to 23 letters and digits are safe with any server.
            client_id = "mqtt%s%s" % (unique_id()[-8:].hex(), MQTTClient._made or "")
        MQTTClient._made += 1
        self.client_id = _to_field("client_id", client_id)  # [MQTT-3.1.3-2, -4]
        if not self.client_id and not clean_session:
            raise LocalError("client_id '' needs clean_session=True [MQTT-3.1.3-7]")
        self._clean_session = clean_session
        if will is not None:
            if not isinstance(will, (tuple, list)) or len(will) != 4:
                raise LocalError(
                    "will is %r, must be (topic_name, payload, qos, retain)" % (will,)
                )
            will = (  # [MQTT-3.1.2-14] [MQTT-3.1.3-10]
                _to_topic(will[0]),
                _to_field("will payload", will[1], False),
                _integer("will qos", will[2], 0, _QOS_MAX),
                will[3],
            )
        self._will = will
        if link is not None and not hasattr(link, "is_up"):
            raise LocalError("link is %r, must have is_up()" % (link,))
        self._link = link
        self.keep_alive_s = _integer("keep_alive_s", keep_alive_s, 0, 65535)
        self._packet_bytes_max = _integer(
            "packet_bytes_max", packet_bytes_max, 64, _PACKET_BYTES_LIMIT
        )
        _integer("pipe_slots", pipe_slots, 1, 1000)
        _integer("in_flight_max", in_flight_max, 1, 200)
        self.connect_timeout_ms = _integer("connect_timeout_ms", connect_timeout_ms, 1, _MS_MAX)
        self.reconnect_min_ms = _integer("reconnect_min_ms", reconnect_min_ms, 0, _MS_MAX)
        self.reconnect_max_ms = _integer(
            "reconnect_max_ms", reconnect_max_ms, reconnect_min_ms, _MS_MAX
        )
        if _OFFLINE:
            if pipe_bytes_max is None:
                pipe_bytes_max = min(16 * packet_bytes_max, _COUNT_HALF)
            _integer("pipe_bytes_max", pipe_bytes_max, 1, _COUNT_HALF)
            self._offline = self._policy(offline)
            self._is_telling = False
        elif offline != "refuse" or pipe_bytes_max is not None:
            raise LocalError(_NOT_BUILT % "offline or pipe_bytes_max")
        if _STATS:
            self._counts = [0] * _COUNTS
        self.state = _DOWN  # _move() only
        self._is_wanted = False  # connect() and disconnect()
        self._is_stepping = False
        self._driver = None  # get_ident() of the thread that drives step() for the application
        if _BACKGROUND:
            self._is_stopping = False
            self._timer = None
        if _ASYNCIO:
            self._changed = None  # asyncio.Event: something happened in step()
            self._is_drop_told = False  # to publish_wait(): run() has to wake it
            self._awaited = {}  # token of publish_wait(): has it been dropped?
        if _ISR:
            self.isr_dropped = 0  # messages that publish_isr() had no room for
            self._isr_ring = [None] * (_ISR_SLOTS * _ISR_FIELDS)
            self._isr_lock = allocate_lock()
            self._isr_head = self._isr_tail = 0
        self._socket = None
        self._addresses = ()  # not yet tried, of the present attempt
        if _RESOLVER:
            self._known = {}  # host name: its addresses, the last that were good
            self._known_until = {}  # host name: ticks_ms() until which they hold
            self._tries = ()  # DNS servers still to be asked; of the lookup under way the first
            self._query = b""  # what it was asked
        self._interest = None  # what the poll watches the socket for; None: all
        self._outbox = Outbox(min(self._packet_bytes_max, _OUTBOX_BYTES))
        self._decoder = Decoder(self._packet_bytes_max)
        self._message = Message(self._decoder.buf)
        self._topic = bytearray()  # buf[0:_topic_end] of the last message: its topic name
        self._topic_end = 0
        self._session = Session(self._outbox, in_flight_max)
        if _OFFLINE:
            self._pipe = Pipe(pipe_slots, pipe_bytes_max)
        else:
            self._pipe = Pipe(pipe_slots)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        if _TLS and is_tls:
            # For the TCP connection below TLS alone, apart from what step() sleeps on.
            self._probe = select.poll()
        self._timers = [None] * _TIMERS  # ticks_ms() of each deadline, or None
        self._due_ms = None  # the earliest of them, or earlier
        self._now_ms = 0  # ticks_ms() at the begin of this step
        self._sent_ms = 0  # ticks_ms() of the last packet sent
        self._ping_ms = 0  # ticks_ms() of the last PINGREQ
        self._attempt_end_ms = 0  # ticks_ms() by which CONNACK must be here
        self._is_stable = False  # the connection has lasted for _STABLE_MS
        self._is_answered = False  # in this step the server was heard
        self._is_blocked = False  # the socket did not take all of the outbox
        self._has_said_bye = False  # DISCONNECT is in the outbox, or sent
        self._longest_ms = 0  # of the last pause, before it was drawn: the next one's is double
        self._kicks = 0  # in a row: closed by the server soon after CONNACK
        self._checked_topic = _NOTHING  # the last topic name that was bytes and legal

    # -- what the application calls ------------------------------------------

    @property
    def state_name(self) -> str:
        """The state's name, as in STATE_NAMES."""
        return STATE_NAMES[self.state]

    if _STATS:

        @property
        def stats(self) -> dict:
            """Counters since the client was made, each modulo 2**30.

            attempts, connections, reconnections; packets_sent, bytes_sent,
            packets_received, bytes_received; messages queued, sent (QoS 0: handed to
            the socket), retransmitted, acknowledged, dropped (by a policy or expired),
            expired; received, too_large, duplicates_received (with DUP),
            duplicates_suppressed (QoS 2); ping_ms: the last round trip.

            Allocates: the dict.
            """
            counts = self._counts
            outbox = self._outbox
            decoder = self._decoder
            session = self._session
            pipe = self._pipe
            return {
                "attempts": counts[_N_ATTEMPTS],
                "connections": counts[_N_CONNECTIONS],
                "reconnections": max(0, counts[_N_CONNECTIONS] - 1),
                "queued": pipe.last_token - counts[_N_FILTERS] & _COUNT_MASK,
                "sent": session.sent_count + pipe.sent_count & _COUNT_MASK,
                "retransmitted": session.retransmitted_count,
                "acknowledged": counts[_N_ACKNOWLEDGED],
                "dropped": pipe.drop_count if _OFFLINE else 0,
                "expired": counts[_N_EXPIRED],
                "received": counts[_N_RECEIVED],
                "too_large": counts[_N_TOO_LARGE],
                "duplicates_received": counts[_N_DUP],
                "duplicates_suppressed": counts[_N_SUPPRESSED],
                "packets_sent": outbox.packet_count,
                "bytes_sent": outbox.sent_count,
                "packets_received": decoder.packet_count,
                "bytes_received": decoder.byte_count,
                "ping_ms": counts[_N_PING_MS],
            }

    def connect(self) -> None:
        """Ask for a connection, to be kept until disconnect(). Returns at once.

        The work is done by step(). Calling it again changes nothing.
        Allocates: nothing. Blocks: never. Spec: section 3.1.
        """
        self._is_wanted = True
        self._pipe.wake()

    def disconnect(self) -> None:
        """Ask for the end of the connection. Returns at once.

        step() then sends what is queued and waits for its acknowledgements for at
        most connect_timeout_ms, sends DISCONNECT and closes. While there is no
        connection what is queued stays queued.
        Allocates: nothing. Blocks: never. Spec: section 3.14.
        """
        self._is_wanted = False
        self._pipe.wake()

    def publish(
        self,
        topic_name: "str | bytes",
        payload: "str | bytes | bytearray | memoryview",
        qos: int = 0,
        retain: bool = False,
        offline: "str | None" = None,
        expiry_s: "int | None" = None,
    ) -> int:
        """Queue a message to be published.

        Args:
            topic_name: str or bytes without wildcards, 1..65535 bytes of UTF-8.
            payload: bytes or str; bytearray and memoryview are copied.
            qos: 0, 1 or 2. retain: the server keeps it for later subscribers.
            offline: as in the constructor, for this message; None: as said there.
            expiry_s: int, 1..259,200 (3 days) or None: dropped if it still waits then.

        Returns:
            A token for is_done(), wait_for() and on_published, 1..2**30-1.

        Raises:
            LocalError: an argument is wrong, or the packet would be larger than
                packet_bytes_max or pipe_bytes_max. QueueFull: the pipe is full. Nothing is
            queued then. What is dropped to make room is told to on_dropped at once.

        Allocates: nothing, if both are bytes. It costs least if the topic name is the
        object of the last call. Blocks: see Pipe.put(). Spec: section 3.3.
        """
        if topic_name is not self._checked_topic:
            checked = _to_topic(topic_name)
            if checked is topic_name:  # bytes: what can not change is known by identity
                self._checked_topic = checked
            topic_name = checked
        if not _isinstance(payload, _bytes):
            payload = _to_bytes("payload", payload)
        size = _len(topic_name) + _len(payload)
        first_byte = _PUBLISH  # without DUP [MQTT-3.3.1-2] [MQTT-4.3.1-1]
        if qos != 0:
            first_byte |= _integer("qos", qos, 0, _QOS_MAX) << _QOS_SHIFT
        if retain:
            first_byte |= _RETAIN
        if size + _PUBLISH_HEADER_MAX > self._packet_bytes_max:
            length = size + (4 if first_byte & 0x06 else 2)
            packet_size = length + 2 + (length > 0x7F) + (length > 0x3FFF) + (length > 0x1FFFFF)
            if packet_size > self._packet_bytes_max:
                _integer(_PACKET_SIZE, packet_size, 0, self._packet_bytes_max)
        pipe = self._pipe
        if _OFFLINE:
            policy = self._offline if offline is None else self._policy(offline)
            if policy == _LATEST and self.state == _ONLINE:
                policy = _REFUSE
            if expiry_s is not None:
                expiry_s = _integer("expiry_s", expiry_s, 1, _EXPIRY_MAX_S) * 1000
                expiry_s = ticks_add(ticks_ms(), expiry_s)
            token = pipe.put(first_byte, topic_name, payload, size, expiry_s, policy)
            if pipe.dropped:
                self._tell_dropped()
            return token
        if offline is not None or expiry_s is not None:
            raise LocalError(_NOT_BUILT % "offline or expiry_s")
        return pipe.put(first_byte, topic_name, payload, size)

    if _ISR:

        def publish_isr(self, topic_name: bytes, payload: bytes, qos: int = 0) -> bool:
            """Queue a message from an interrupt. step() publishes it.

            Args:
                topic_name, payload: bytes, made before. What is wrong with them is told to
                    on_error by step(). qos: 0, 1 or 2.

            Returns:
                True, or False: there is no room, or another interrupt has interrupted a call
                of it. Then it is counted in `isr_dropped`.

            Allocates: nothing. Blocks: never; no lock is waited for.
            """
            tail = self._isr_tail
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
                    self._pipe.is_signalled = True
                    return True
            self.isr_dropped = self.isr_dropped + 1 & _COUNT_MASK
            return False

        # What interrupts have queued goes the way of all messages. What finds no room stays.
        def _take_isr(self):
            ring = self._isr_ring
            for _ in range(_ISR_SLOTS):
                at = self._isr_head
                if at == self._isr_tail:
                    return
                try:
                    self.publish(ring[at], ring[at + 1], ring[at + 2])
                except QueueFull:
                    return
                except Exception as error:  # MemoryError, too: it would come again for ever
                    self._report(error)
                ring[at] = ring[at + 1] = None
                at += _ISR_FIELDS
                self._isr_head = 0 if at == _ISR_SLOTS * _ISR_FIELDS else at

    if _OFFLINE:

        def _policy(self, offline):
            if offline not in _POLICIES:
                raise LocalError("offline is %r, must be one of %r" % (offline, _POLICIES))
            return _POLICIES.index(offline)

        # The callback may publish, and so drop: that is told after it, not within.
        def _tell_dropped(self):
            dropped = self._pipe.dropped
            if self._is_telling:
                return
            self._is_telling = True
            try:
                for _ in range(_DROPS_PER_CALL):
                    if not dropped:
                        break
                    try:
                        token = dropped.pop(0)
                    except IndexError:  # another thread has told it
                        break
                    if _ASYNCIO and token in self._awaited:
                        self._awaited[token] = True
                        self._is_drop_told = True
                        self._pipe.wake()
                    self._emit(self.on_dropped, token)
            finally:
                self._is_telling = False

        # The message at `at` if its time is over.
        def _drop_expired(self, at):
            ring = self._pipe.ring
            if (
                ring[at] & _TYPE_MASK == _PUBLISH
                and ring[at + 4] is not None
                and ticks_diff(self._now_ms, ring[at + 4]) >= 0
            ):
                self._pipe.drop(at)
                if _STATS:
                    self._count(_N_EXPIRED)

    def subscribe(self, topic_filter: "str | bytes", callback=None, qos: int = 0) -> int:
        """Subscribe now and after every reconnection, until unsubscribe().

        Args:
            topic_filter: str or bytes, may hold + and # (section 4.7).
            callback: callback(client, message) for what matches; None: on_message.
            qos: 0, 1 or 2, the highest wanted.

        Returns:
            A token for is_done(), wait_for() and on_subscribed.

        Raises:
            LocalError: an argument is wrong. QueueFull: the pipe is full.

        Allocates: a row of the table, about 64 bytes. Blocks: never.
        Spec: section 3.8.
        """
        return self._put_filter(_SUBSCRIBE, topic_filter, callback, qos)

    def unsubscribe(self, topic_filter: "str | bytes") -> int:
        """Take back a subscription; also one that was never made.

        Args:
            topic_filter: str or bytes, just as it was given to subscribe().

        Returns:
            A token for is_done() and wait_for().

        Raises:
            LocalError: the filter is wrong. QueueFull: the pipe is full.

        Allocates: little. Blocks: never. Spec: section 3.10.
        """
        return self._put_filter(_UNSUBSCRIBE, topic_filter, None, 0)

    def _put_filter(self, first_byte, topic_filter, callback, qos):
        topic_filter = _to_topic(topic_filter, True)
        if callback is not None and not callable(callback):
            raise LocalError("callback is %r, must be callable" % (callback,))
        _integer("qos", qos, 0, _QOS_MAX)
        _integer(_PACKET_SIZE, len(topic_filter) + 10, 0, self._packet_bytes_max)
        token = self._pipe.put(first_byte, topic_filter, callback, 0, qos)
        if _STATS:
            self._count(_N_FILTERS)
        if self.state == _DOWN and not self._is_wanted and not self._is_stepping:
            # Before connect() nobody need call step(), however many there are.
            self._now_ms = ticks_ms()
            self._take_commands(False)
        return token

    def is_online(self) -> bool:
        """True while the connection is fully in service (state ONLINE)."""
        return self.state == _ONLINE

    def is_done(self, token: int) -> bool:
        """True when nothing more will happen for this token.

        QoS 0: handed to the socket. QoS 1, 2, subscribe, unsubscribe: acknowledged.
        Or dropped, by a policy or its expiry: on_dropped has told that.

        Raises: LocalError: not an int. Allocates: nothing. Blocks: never.
        """
        _integer("token", token, 0, _COUNT_MASK)
        return not self._pipe.has_token(token) and not self._session.has_token(token)

    def wait_online(self, timeout_ms: int) -> bool:
        """Drive step() until is_online(). False: not within timeout_ms.

        Blocks: up to timeout_ms. Raises: LocalError inside a callback.
        """
        return self._wait(timeout_ms, self.is_online)

    def wait_for(self, token: int, timeout_ms: int) -> bool:
        """Drive step() until is_done(token), see there. False: not within timeout_ms.

        Blocks: up to timeout_ms. Raises: LocalError inside a callback.
        """
        return self._wait(timeout_ms, self.is_done, token)

    # Drive step(), or look on while it is driven, until what is waited for has come. Where it
    # would have to go on meanwhile and can not, that is refused. (A timer's callback is in the
    # main program's own thread: there it is only so while it is in step().)
    def _wait(self, timeout_ms, is_done, *arguments):
        deadline_ms = ticks_add(ticks_ms(), _integer("timeout_ms", timeout_ms, 0, _MS_MAX))
        if (_BACKGROUND or _ASYNCIO) and self._driver == get_ident():
            if self._is_stepping or not _BACKGROUND or self._timer is None:
                raise LocalError(_IS_DRIVEN)
        left_ms = 0
        while True:
            if self._driver is None and not (left_ms and self._is_stepping):
                self.step(left_ms)
            else:
                sleep_ms(min(left_ms, _NAP_MS))
            if is_done(*arguments):
                return True
            left_ms = ticks_diff(deadline_ms, ticks_ms())
            if left_ms <= 0:
                return False

    # -- other ways to drive it ------------------------------------------------
    #
    # Threads. publish(), subscribe(), unsubscribe(), connect(), disconnect(), is_done() and the
    # waits may be called from any thread while one thread is in step(): they meet it in the
    # Pipe alone, see there. With a GIL (CPython, ESP32) that is all. On rp2 two cores run without
    # one, and in the unix port all threads: the Pipe's lock keeps writers apart, and the order
    # of its assignments does the rest. Callbacks run where step() does.

    def pollables(self) -> list:
        """What to watch in a poll of your own: call step() when anything of it is ready.

        Returns:
            A list of (object, events) for select.poll.register(). It holds until the next
            step(): ask again then. Call step() until it returns False before you sleep.

        Allocates: the list. Blocks: never.
        """
        found = [(self._pipe, select.POLLIN)]
        if self._socket is not None:
            found.append((self._socket, self._watch()))
        return found

    def next_deadline_ms(self):
        """For how long you may sleep before step() has work: int, or None: for ever.

        Allocates: nothing. Blocks: never.
        """
        if self._pipe.is_signalled:
            return 0
        if self._due_ms is None:
            return None
        return max(0, ticks_diff(self._due_ms, ticks_ms()))

    if _BACKGROUND:

        def start(self) -> None:
            """connect(), and have step() called in the background until stop().

            By a thread; on rp2 by a timer of 10 ms (see there, at the top of the file). Callbacks
            run there, too. step() raises LocalError meanwhile; the waits only look on.

            Raises:
                LocalError: something drives it already.

            Allocates: the thread's stack. Blocks: never.
            """
            if self._driver is not None or self._is_stepping:
                raise LocalError(_IS_DRIVEN)
            self.connect()
            self._is_stopping = False
            self._driver = 0  # nobody's, until the thread runs
            try:
                if Timer:
                    self._timer = Timer(period=_TICK_MS, mode=Timer.PERIODIC, callback=self._drive)
                else:
                    start_thread(self._drive)
            except BaseException:
                self._driver = None
                raise

        def stop(self, timeout_ms=None) -> bool:
            """disconnect(), see there, and end what start() has begun.

            Args:
                timeout_ms: int; None: as long as disconnect() may take.

            Returns:
                True: it has ended, the connection is closed. False: not within timeout_ms; it
                goes on ending by itself.

            Raises:
                LocalError: called in a callback. Blocks: up to timeout_ms.
            """
            if self._driver is None:
                return True
            if timeout_ms is None:
                timeout_ms = min(2 * self.connect_timeout_ms + _DRIVE_MS, _MS_MAX)
            return self._wait(timeout_ms, self._has_stopped)

        # Asks for it, too, again and again: a step() may have begun before, and sleep.
        def _has_stopped(self):
            self._is_stopping = True
            self.disconnect()
            return self._driver is None

        # The thread, from start() to stop(); or one tick of the timer.
        def _drive(self, timer=None):
            # A tick that has interrupted a put(), which holds the lock: a callback that publishes
            # would wait for it in vain. The next tick is in 10 ms.
            if timer and self._pipe._lock.locked():
                return
            self._driver = get_ident()
            is_over = False
            try:
                while not is_over:
                    try:
                        self._step(0 if timer else _DRIVE_MS)
                    except KeyboardInterrupt:
                        pass  # the unix port gives a Ctrl-C to any thread: it is not for this one
                    except BaseException as error:
                        self._report(error)
                        if not isinstance(error, Exception):  # SystemExit of a callback
                            self._is_stopping = True
                            self._quit()
                    is_over = self._is_stopping and self.state == _DOWN
                    if timer:
                        break
            finally:
                if is_over and timer:
                    timer.deinit()
                    self._timer = None
                if is_over or not timer:
                    self._driver = None

    if _ASYNCIO or _BACKGROUND:
        # Cancelled, or the thread ends: no time is left to wait for anything.
        def _quit(self):
            self._is_wanted = False
            self._on_wish()
            if self.state == _CLOSING:
                self._finish()

    if _ASYNCIO:

        def _is_ready(self):
            """For the port's asyncio: has step() anything to do? Allocates: nothing."""
            if self.next_deadline_ms() == 0:
                return True
            for _ in self._poll.ipoll(0):
                return True
            return False

        async def run(self) -> None:
            """connect(), and call step() whenever there is work, beside your other tasks.

            Ends after disconnect(), or when it is cancelled: then DISCONNECT is sent if
            that can be done at once, and the connection is closed.

            Raises:
                LocalError: something drives it already.
            """
            if self._driver is not None:
                raise LocalError(_IS_DRIVEN)
            changed = self._event()
            from asyncio import sleep

            self._driver = get_ident()
            self.connect()
            # is_ready() shall look at the socket alone: it is the pipe that asks.
            self._poll.unregister(self._pipe)
            try:
                while self._is_wanted or self.state != _DOWN:
                    if self._step(0) or self._is_drop_told:
                        self._is_drop_told = False
                        changed.set()  # all who wait look again
                        changed.clear()
                        await sleep(0)
                    else:
                        self._watch()
                        await wait_ready(self, self._pipe)
            finally:
                self._poll.register(self._pipe, select.POLLIN)
                self._driver = None
                self._changed = None  # the next run() may be another loop's
                changed.set()
                changed.clear()
                self._quit()

        def _event(self):
            if self._changed is None:
                from asyncio import Event

                self._changed = Event()
            return self._changed

        async def publish_wait(self, topic_name, payload, qos=0, retain=False) -> bool:
            """publish(), and wait until that is done: room in the pipe, and is_done().

            Args: as of publish().

            Returns:
                True: acknowledged (QoS 0: handed to the socket). False: dropped by a policy, or
                run() has ended before.

            Raises:
                LocalError: an argument is wrong.
            """
            changed = self._event()
            token = 0
            try:
                while True:
                    if not token:
                        try:
                            token = self.publish(topic_name, payload, qos, retain)
                            self._awaited[token] = False
                        except QueueFull:
                            pass
                    if token and self.is_done(token):
                        return not self._awaited[token]
                    await changed.wait()
                    if changed is not self._changed:  # another run() has another
                        return False
            finally:
                self._awaited.pop(token, None)

        def messages(self, topic_filter, qos=0, queue_max=16):
            """Subscribe, for `async for message in client.messages(...)`.

            Args:
                topic_filter, qos: as of subscribe(). queue_max: messages kept until they
                    are asked for; one more is dropped and reported to on_error.

            Returns:
                A Messages. Leave the loop and call its close(), or use it in `async with`. The
                loop ends by itself when run() has ended.

            Allocates: a copy of each message.
            """
            return Messages(self, topic_filter, qos, _integer("queue_max", queue_max, 1, 1000))

    # -- step ----------------------------------------------------------------

    def step(self, timeout_ms: int = 0) -> bool:
        """Do what is ready; if there is nothing, wait for it for up to timeout_ms.

        Call it again and again: it is what makes everything else happen.

        Returns:
            True if anything happened: bytes moved, a state changed, time ran out.

        Raises:
            LocalError: called inside a callback, or while start() or run() drives it; or
                timeout_ms is not an int.
            What the network does never raises: it arrives at on_offline.

        Allocates: nothing in the steady state. Blocks: up to timeout_ms.
        """
        if (_BACKGROUND or _ASYNCIO) and self._driver is not None:
            raise LocalError(_IS_DRIVEN)
        if timeout_ms:
            _integer("timeout_ms", timeout_ms, 0, _MS_MAX)
        return self._step(timeout_ms)

    def _step(self, timeout_ms):
        if self._is_stepping:
            raise LocalError(_IS_DRIVEN)
        self._is_stepping = True
        try:
            return self._work(0) or (self._work(timeout_ms) if timeout_ms else False)
        except (OSError, ValueError, MQTTError, MemoryError, StopIteration) as error:
            if _DOWN < self.state < _WAITING:
                self._fail(error)
            else:
                self._report(error)  # of the poll, mostly: there is no connection to end
            return True
        finally:
            self._is_stepping = False

    # What the socket is watched for now.
    def _watch(self):
        if self._socket is None:
            return 0
        interest = select.POLLOUT if self._outbox.pending else 0
        if self._outbox.room >= _ACK_BYTES:  # see _receive()
            interest |= select.POLLIN
        if interest != self._interest:
            self._interest = interest
            self._poll.modify(self._socket, interest)
        return interest

    # Once round: sleep, if there is time for it, and do what is ready then.
    def _work(self, timeout_ms):
        if timeout_ms:
            # Until the socket or the pipe is ready or a deadline has come. What the poll
            # answers is not looked at: ports differ too much in what they say of a socket
            # (ESP32 never says POLLERR). Reading and writing tell the truth.
            left_ms = self.next_deadline_ms()
            if left_ms is not None and left_ms < timeout_ms:
                timeout_ms = left_ms
            self._watch()
            self._poll.ipoll(timeout_ms)
        if self._pipe.is_signalled:
            self._pipe.is_signalled = False  # before the ring is looked at
        self._now_ms = ticks_ms()
        if _ISR and self._isr_head != self._isr_tail:
            self._take_isr()
        # What has come and what can go is looked at before any deadline is: the
        # caller may have been away for longer than it, with the answer in the socket.
        happened = self._on_wish()
        if self._move_bytes():
            happened = True
        if self._due_ms is not None and ticks_diff(self._now_ms, self._due_ms) >= 0:
            if self._on_due():
                happened = True
                self._move_bytes()
        return happened

    def _move_bytes(self):
        self._is_answered = False
        if self._socket is None:
            return False
        if _RESOLVER and self.state == _RESOLVING:
            return self._resolve()
        is_connecting = self.state < _AWAITING_CONNACK
        if _TLS and self.state == _TCP_CONNECTING and self._raw is not None:
            if not self._secure():
                return False
        has_read = not is_connecting and self._receive()
        has_written = self._socket is not None and self._transmit()
        # What we send ourselves tells nothing of the server, but for the first bytes.
        self._is_answered = has_read or is_connecting and has_written
        return has_read or has_written

    # -- states and timers -----------------------------------------------------

    def _move(self, event):
        state = _NEXT_STATE[self.state * _EVENTS + event]
        if state == _X:
            raise LocalError("event %d is illegal in %s" % (event, self.state_name))
        self.state = state
        if state == _ONLINE:
            self._arm(_TIMER_STATE, _STABLE_MS)
        elif state == _RESOLVING or _SUBSCRIBING <= state < _WAITING:
            # That of RESOLVING is for the whole attempt; the states that follow share it.
            self._arm(_TIMER_STATE, self.connect_timeout_ms)

    def _arm(self, timer, timeout_ms):
        at_ms = ticks_add(self._now_ms, timeout_ms)
        self._timers[timer] = at_ms
        if self._due_ms is None or ticks_diff(at_ms, self._due_ms) < 0:
            self._due_ms = at_ms

    # A timer that was stopped may have left `_due_ms` too early: then nothing is
    # due, and the true next deadline is found.
    def _on_due(self):
        timers = self._timers
        now_ms = self._now_ms
        happened = False
        for timer in range(_TIMERS):
            at_ms = timers[timer]
            if at_ms is None or ticks_diff(now_ms, at_ms) < 0:
                continue
            state = self.state
            is_final = timer >= _TIMER_PINGRESP
            if timer == _TIMER_STATE:
                is_final = _TCP_CONNECTING <= state <= _SUBSCRIBING
            # In a step in which the server was heard nothing is given up: such a timer is
            # looked at again in the next one.
            if is_final and self._is_answered:
                continue
            timers[timer] = None
            happened = True
            if timer == _TIMER_PING:
                # [MQTT-3.1.2-23]: the keep alive counts from the last packet sent, whatever it
                # was, so the timer is not moved by each packet: it looks when it runs out.
                left_ms = self.keep_alive_s * 1000 - ticks_diff(now_ms, self._sent_ms)
                if left_ms <= 0:
                    left_ms = self.keep_alive_s * 1000
                    # Without room for two bytes the socket has been stuck for a whole keep
                    # alive: the deadline for the answer runs all the same.
                    if self._outbox.room >= 2 and not self._has_said_bye:
                        self._outbox.put_packet(_PINGREQ_PACKET)
                        self._ping_ms = now_ms
                    if timers[_TIMER_PINGRESP] is None:
                        self._arm(_TIMER_PINGRESP, self.connect_timeout_ms)
                self._arm(_TIMER_PING, left_ms)
            elif timer == _TIMER_ACK:
                self._check_acks()
            elif timer != _TIMER_STATE:
                raise TimedOut(_NO_ANSWER, _TIMER_WORDS.split()[timer - _TIMER_PINGRESP])
            elif state == _WAITING:
                self._arm(_TIMER_STATE, _LINK_CHECK_MS)  # if is_up() does not come back
                self._attempt()
            elif state == _CLOSING:
                self._finish()  # drained or not: the time for it is over
            elif state == _ONLINE:
                self._is_stable = True
            else:
                raise TimedOut(_NO_ANSWER, _STAGE_WORDS.split()[state])
        due_ms = None
        for at_ms in timers:
            if at_ms is not None and (due_ms is None or ticks_diff(at_ms, due_ms) < 0):
                due_ms = at_ms
        self._due_ms = due_ms
        return happened

    # The oldest packet without an acknowledgement decides when to look again.
    def _check_acks(self):
        session = self._session
        if session.pending:
            return  # _take() looks again when all that is on its way
        age_ms = -1
        for row in session.rows:
            if row[_AWAITS]:
                age_ms = max(age_ms, ticks_diff(self._now_ms, row[_SENT_MS]))
        if self._is_blocked:  # they may be on their way yet
            age_ms = min(age_ms, ticks_diff(self._now_ms, self._sent_ms))
        if age_ms >= self.connect_timeout_ms:
            raise TimedOut(_NO_ANSWER, "ACK")
        if age_ms >= 0:
            self._arm(_TIMER_ACK, self.connect_timeout_ms - age_ms)

    # -- connecting ------------------------------------------------------------

    # What the application wishes: connect() or disconnect(). True: something happened.
    def _on_wish(self):
        state = self.state
        if state not in (_ONLINE, _CLOSING):
            self._take_commands(False)
        if self._is_wanted:
            if state != _DOWN:
                return False
            self._attempt()
        elif state in (_SUBSCRIBING, _ONLINE):
            self._move(_FINISH)
        elif state in (_DOWN, _CLOSING):
            return False
        else:
            self._close(_CLOSED, None)
        return True

    # One attempt: from here to CONNACK within connect_timeout_ms.
    def _attempt(self):
        try:
            is_up = self._link is None or self._link.is_up()
        except Exception as error:  # a link that fails to answer is down, and the reason is told
            self._report(error)
            is_up = False
        if not is_up:
            self._move(_BACK_OFF)
            self._arm(_TIMER_STATE, _LINK_CHECK_MS)
            if _RESOLVER:
                self._known_until.clear()
            return
        self._is_stable = False
        self._move(_ATTEMPT)
        self._attempt_end_ms = ticks_add(self._now_ms, self.connect_timeout_ms)
        if _STATS:
            self._count(_N_ATTEMPTS)
        host = self._server[0]
        if not _RESOLVER:
            self._addresses = socket.getaddrinfo(host, self._server[1], 0, socket.SOCK_STREAM)
            self._connect_next()
        else:
            until_ms = self._known_until.get(host)
            if is_literal(host):
                literals = (host,)
            elif until_ms is not None and ticks_diff(until_ms, self._now_ms) > 0:
                literals = self._known[host]
            else:
                literals = hosts(host)
            if literals:
                self._connect_to(literals)
                return
            servers = ()
            try:
                # A list of our own: what a link answers may be any collection, or None.
                servers = list(getattr(self._link, "dns_servers", dns_servers)() or ())
            except Exception as error:  # an interface that is not ready, or not ours
                self._report(error)
            self._tries = (servers * _DNS_TRIES)[:_DNS_TRIES]
            if not servers:
                raise TransportError("no DNS server is known", "DNS")
            self._query = encode_query(0, host, _DNS_A)
            self._ask()

    if _RESOLVER:
        # Ask a DNS server for the host's addresses. A new socket has a new port: with the random
        # identifier 32 bits that a forger has to guess.
        def _ask(self):
            self._arm(_TIMER_DNS, _DNS_RETRY_MS)
            self._query = urandom(2) + self._query[2:]
            server = self._tries[0]
            try:
                if isinstance(server, str):
                    server = server, _DNS_PORT
                self._addresses = socket.getaddrinfo(server[0], server[1], 0, socket.SOCK_DGRAM)
                self._connect_next()
            except Exception as error:
                self._drop_socket()  # the timer goes on to the next server
                if not isinstance(error, OSError):  # what the link has named is no address
                    self._report(error)

        # RESOLVING: what has come from the DNS server? True: something did.
        def _resolve(self):
            # recv() and not readinto(), which would put all that has come together.
            try:
                data = self._socket.recv(_DNS_ANSWER_MAX)
            except OSError as error:
                if error.errno == EAGAIN:
                    return False
                raise  # nobody listens at that address
            answer = decode_answer(data, self._query)
            if answer is None:
                return True  # a stranger's datagram changes nothing
            code, addresses, ttl_s = answer
            host = self._server[0]
            is_last = self._query[-3] == _DNS_AAAA
            if addresses:
                self._known[host] = addresses
                self._known_until[host] = ticks_add(self._now_ms, ttl_s * 1000)
                self._connect_to(addresses)
            elif code or is_last or data[2] & 0x02:
                # There is no such name or address, so no use to ask another server; else this
                # server has failed, or its answer was cut off.
                if code == _DNS_NO_SUCH_NAME or not code and is_last:
                    self._tries = ()
                raise TransportError(
                    "no address for the name %s, the DNS server answers with code %d"
                    % (host, code),
                    "DNS",
                )
            else:
                self._query = encode_query(0, host, _DNS_AAAA)
                self._ask()  # the same server
            return True

        # Literal addresses to the port's own form: no network is asked for them.
        def _connect_to(self, literals):
            self._tries = ()
            self._timers[_TIMER_DNS] = None
            addresses = []
            for literal in literals:  # TCP: a stream that loses no byte [MQTT-7.1.2-1]
                addresses += socket.getaddrinfo(literal, self._server[1], 0, socket.SOCK_STREAM)
            self._addresses = addresses
            self._connect_next()

    # Begin a connection to the next address: for a lookup to a DNS server, else by TCP to the
    # server. [MQTT-3.1.0-1]: CONNECT is the first packet; it waits in the outbox until the socket
    # takes it. Each address has its share of the time that is left for the attempt.
    def _connect_next(self):
        family, kind, protocol, _, address = self._addresses.pop(0)
        is_query = _RESOLVER and kind == socket.SOCK_DGRAM
        if not is_query:
            self._move(_RESOLVED)
            left_ms = ticks_diff(self._attempt_end_ms, self._now_ms)
            self._arm(_TIMER_STATE, left_ms // (len(self._addresses) + 1))
        self._drop_socket()
        sock = self._socket = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        self._interest = None  # all; _watch() narrows it
        self._poll.register(sock)
        if _TLS and self._server[4] and not is_query:
            self._raw = sock
            self._probe.register(sock)
        if not is_query:
            # Two small writes in a row would else meet Nagle's algorithm and the peer's delayed
            # acknowledgement: 40 ms each. If this port has it not: one write a packet does most
            # of it.
            _try(sock.setsockopt, _IPPROTO_TCP, _TCP_NODELAY, 1)
        try:
            sock.connect(address)
        except OSError as error:
            if error.errno != EINPROGRESS:
                raise
        if is_query:
            sock.write(self._query)
            return
        self._outbox.clear()
        self._decoder.reset()
        self._outbox.put_packet(
            encode_connect(
                self.client_id,
                self._clean_session,
                self.keep_alive_s,
                self._server[2],
                self._server[3],
                self._will,
            )
        )

    if _TLS:
        # Does the TCP connection stand? Its first bytes are the TLS library's, so no write of
        # ours can tell. The poll is asked; where it says anything but "writable" (a refused
        # connection is readable too on ESP32, and only an error on rp2), reading tells.
        # True: it does, and the handshake begins.
        def _secure(self):
            sock = self._socket
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
                if not events & select.POLLOUT:
                    return False
            if self._is_insecure:
                self._is_insecure = False
                self._report(LocalError("tls is 'insecure': anybody may be the server"))
            stream = wrap_tls(self._tls, sock, self._server[0])
            self._poll.unregister(sock)
            self._socket = stream
            self._interest = None
            self._poll.register(stream)
            self._move(_CONNECTED)
            return True

    def _drop_socket(self):
        sock = self._socket
        if sock is None:
            return
        self._socket = None
        _try(self._poll.unregister, sock)
        _try(sock.close)
        if _TLS and self._raw is not None:
            # A TLS stream closes the socket below it, unless its handshake has failed: then it
            # has let go of that. Closing one twice closes somebody else's on the unix port, so
            # the poll is asked first.
            raw = self._raw
            self._raw = None
            is_closed = raw is sock
            for _ in range(2):
                try:
                    for _, events in self._probe.ipoll(0):
                        if events & _POLLNVAL:
                            is_closed = True
                    break
                except (OSError, MemoryError):
                    pass  # a port that can not say: there, closing twice does no harm
            _try(self._probe.unregister, raw)
            if not is_closed:
                _try(raw.close)

    # The attempt or the connection has failed: the network, or the server broke the
    # protocol [MQTT-4.8.0-1], or there was no memory for a packet [MQTT-4.8.0-2]. While
    # there is another DNS server or another address, the attempt goes on; where no server
    # answers, with the address that was good the last time: that is better than none.
    def _fail(self, error):
        while True:
            try:
                error = self._explain(error)
            except MemoryError:
                error = _NO_MEMORY
            try:
                if _RESOLVER and self.state == _RESOLVING and self._tries:
                    self._tries.pop(0)
                    known = self._known.get(self._server[0])
                    if self._tries and self._timers[_TIMER_STATE] is not None:
                        return self._ask()
                    if known:
                        return self._connect_to(known)
                if self.state not in (_TCP_CONNECTING, _TLS_HANDSHAKE) or not self._addresses:
                    break
                return self._connect_next()
            except (OSError, ValueError, MQTTError, MemoryError) as another:
                error = another
        self._close(_CLOSED if self.state == _CLOSING else _BACK_OFF, error)

    # What went wrong, in our own terms.
    def _explain(self, error):
        if isinstance(error, MQTTError):
            return error
        stage = _STAGE_WORDS.split()[self.state]
        errno = None
        reason = error
        if isinstance(error, OSError):
            errno = error.errno
            if _TLS and self._raw is not None and isinstance(errno, int) and errno < 0:
                if errno == _TLS_EOF:
                    reason = _SERVER_CLOSED
                elif errno > _TLS_ERRNO_MAX:  # the socket's, with the sign that mbedTLS wants
                    errno = -errno
                    reason = OSError(errno)
                else:  # the library's own; before CONNACK it is the server that refuses us
                    stage = "TLS"
            reason = self._why_closed(reason)
        elif isinstance(error, MemoryError):
            reason = _OUT_OF_MEMORY
        elif isinstance(error, StopIteration):  # of the decoder
            reason = "interrupted"
        elif _TLS:  # a ValueError: so do ports tell that a certificate is not good
            stage = "TLS"
            reason = str(error).strip().replace("\n", "; ")
            year = gmtime()[0]
            if year < _YEAR_MIN:
                reason += "; the clock says %d and is not set, so none is valid" % year
        server = self._server
        return TransportError("%s, %s port %d" % (reason, server[0], server[1]), stage, errno)

    # End the connection and everything that belongs to it alone.
    def _close(self, event, error):
        self._has_said_bye = False
        is_good = self._has_lasted()
        if is_good:
            self._longest_ms = self._kicks = 0
        was_waiting = self.state == _WAITING
        self._release(True)  # what has left must not be sent once more
        self._pipe.rewind()
        self._drop_socket()
        self._outbox.clear()
        self._session.forget_asked()
        if self.state == _AWAITING_CONNACK:
            self._session.is_doubtful = True
        self._addresses = ()
        # After a connection of days the name is resolved afresh, and where the address did
        # not lead to the server.
        if _RESOLVER and (self._is_stable or _TCP_CONNECTING <= self.state <= _AWAITING_CONNACK):
            self._known_until.pop(self._server[0], None)
        for timer in range(_TIMERS):
            self._timers[timer] = None
        self._due_ms = None
        self._move(event)
        if self.state == _WAITING:
            pause_ms = 0
            # The first server is preferred: it is tried first when a good connection has
            # ended. The others follow at once; the pause comes after the last.
            if _FAILOVER:
                self._turn = 0 if is_good else (self._turn + 1) % len(self._servers)
                self._server = self._servers[self._turn]
            if not _FAILOVER or not self._turn:
                # A random pause: its longest doubles with each failure in a row, and even the
                # first is drawn, so that a thousand devices do not come back to a restarted
                # server at once.
                lowest_ms = self.reconnect_min_ms
                pause_ms = 2 * max(lowest_ms, _BACK_OFF_MS, self._longest_ms)
                pause_ms = self._longest_ms = min(pause_ms, self.reconnect_max_ms)
                try:
                    draw = int.from_bytes(urandom(2), "big")
                    pause_ms = lowest_ms + (pause_ms - lowest_ms) * draw // 65535
                except (OSError, MemoryError):
                    pass  # the longest
            self._arm(_TIMER_STATE, pause_ms)
        if not was_waiting:  # else it has been told
            self._emit(self.on_offline, error)

    # -- receiving ---------------------------------------------------------------

    def _receive(self):
        decoder = self._decoder
        happened = False
        is_held = False  # by ourselves
        packets = 0 if self._has_said_bye else _PACKETS_PER_STEP
        reads = _READS_PER_STEP
        while packets:
            if not decoder.is_whole:
                if not reads:
                    break
                reads -= 1
                wanted = decoder.wanted
                count = self._socket.readinto(decoder.target, wanted)
                if count is None:
                    break
                happened = True
                if count == 0:
                    raise TransportError(
                        self._why_closed(_SERVER_CLOSED), _STAGE_WORDS.split()[self.state]
                    )
                if _STATS:
                    decoder.byte_count = decoder.byte_count + count & _COUNT_MASK
                decoder.on_bytes(count)
                if not decoder.is_whole:
                    if count < wanted and decoder.first_byte:
                        break  # there was no more
                    continue
            # It may need an answer, if it is no message of QoS 0. Without room for that the
            # server has to wait, as we do, and owes us nothing meanwhile.
            first_byte = decoder.first_byte
            if first_byte > _PUBLISH | _RETAIN and self._outbox.room < _ACK_BYTES:
                is_held = True
                break
            packets -= 1
            happened = True
            try:
                if first_byte & _TYPE_MASK == _PUBLISH and self.state >= _SUBSCRIBING:
                    self._on_publish()
                else:
                    self._on_packet()
            finally:  # also when Ctrl-C has ended a callback
                decoder.on_bytes(0)
        if is_held or not decoder.first_byte:
            self._timers[_TIMER_PACKET] = None
        elif happened or self._timers[_TIMER_PACKET] is None:
            self._arm(_TIMER_PACKET, self.connect_timeout_ms)
        return happened

    # Has the connection proved stable? Its timer may be due but not looked at yet.
    def _has_lasted(self):
        at_ms = self._timers[_TIMER_STATE]
        if self.state == _ONLINE and at_ms is not None:
            return ticks_diff(self._now_ms, at_ms) >= 0
        return self._is_stable

    # A server closes the older of two connections with one client identifier
    # [MQTT-3.1.4-2], so two devices that share one throw each other out for ever.
    def _why_closed(self, reason):
        if self.state in (_SUBSCRIBING, _ONLINE) and not self._has_lasted():
            self._kicks += 1
            if self._kicks >= _KICKS_MIN:
                return "%s, %d times soon after CONNECT: has another client the client_id %r?" % (
                    reason,
                    self._kicks,
                    self.client_id,
                )
        return reason

    def _on_packet(self):
        decoder = self._decoder
        packet_type = decoder.first_byte & _TYPE_MASK
        body = decoder.buf
        if self.state == _AWAITING_CONNACK:
            if packet_type != _CONNACK:
                raise ServerError("0x%02x before CONNACK [MQTT-3.2.0-1]" % decoder.first_byte)
            self._on_connack(body[0], body[1])
        elif packet_type == _PINGRESP:
            self._timers[_TIMER_PINGRESP] = None
            if _STATS:
                self._counts[_N_PING_MS] = ticks_diff(self._now_ms, self._ping_ms)
        elif packet_type == _CONNACK:
            raise ServerError("a second CONNACK [3.2]")
        else:
            packet_id = self._packet_id(body[0] << 8 | body[1])
            if packet_type == _SUBACK or packet_type == _UNSUBACK:
                self._on_suback(packet_type, packet_id)
            elif _QOS2 and packet_type == _PUBREL & _TYPE_MASK:
                if packet_id in self._session.received:
                    self._session.received.remove(packet_id)
                self._outbox.put_ack(_PUBCOMP, packet_id)  # [MQTT-4.3.3-2]
            else:
                token = self._session.on_ack(packet_type, packet_id, self._now_ms)
                if token:
                    if _STATS:
                        self._count(_N_ACKNOWLEDGED)
                    self._emit(self.on_published, token)

    def _packet_id(self, packet_id):
        if not packet_id:
            raise ServerError("0x%02x with packet id 0 [MQTT-2.3.1-1]" % self._decoder.first_byte)
        return packet_id

    def _on_connack(self, flags, return_code):
        if return_code:
            reason = _REFUSALS.split(";")[min(return_code, _REFUSALS_LAST)]
            reason = "return code %d, %s" % (return_code, reason)
            raise Refused(reason, "CONNACK", None, return_code)
        if flags > 1 or flags and self._clean_session:
            raise ServerError("CONNACK flags 0x%02x [MQTT-3.2.2-1]" % flags)
        if _STATS:
            self._count(_N_CONNECTIONS)
        self._move(_ACCEPTED)
        if self.keep_alive_s:
            self._arm(_TIMER_PING, self.keep_alive_s * 1000)
        session_present = is_ours = flags == 1
        if _FAILOVER:
            # What another server of the list remembers is not this session (section 4.1).
            is_ours = session_present and self._server == self._session_server
            self._session_server = self._server
        self._session.resume(is_ours)
        self._emit(self.on_connect, session_present)

    # Section 3.3. The packet identifier and the topic name are checked before
    # anything is done with them.
    def _on_publish(self):
        decoder = self._decoder
        body = decoder.buf
        first_byte = decoder.first_byte
        qos = first_byte & 0x06
        is_new = True
        if decoder.late_at:
            # A message that was too large has been read away. Its PUBREL is answered as any.
            packet_id = self._packet_id(decoder.late_id)
            is_new = False
        else:
            length = decoder.remaining_length
            topic_end = self._topic_end
            # What is known of a topic name is good for all messages that follow with the same.
            if not topic_end or body.find(self._topic, 0, topic_end):
                topic_end = self._on_topic(length)
            start = topic_end + 2 if qos else topic_end
            if start > length:
                raise ServerError("PUBLISH of %d bytes is too short [3.3]" % length)
            if decoder.have < length:
                if _STATS:
                    self._count(_N_TOO_LARGE)
                self._report(
                    LocalError(
                        "message of %d bytes dropped, packet_bytes_max is %d"
                        % (length, self._packet_bytes_max)
                    )
                )
                if qos:
                    decoder.late_at = topic_end  # its identifier may be yet to come
                return
            if qos:
                packet_id = self._packet_id(body[topic_end] << 8 | body[topic_end + 1])
                if _STATS and first_byte & _DUP:
                    self._count(_N_DUP)
                if qos == 4:
                    is_new = self._is_first(packet_id)
        # The acknowledgement comes after the callback: a reset in between means
        # once more, not never. It comes whether or not anybody took the message
        # [MQTT-3.3.4-1] [MQTT-4.5.0-2], in the order of arrival [MQTT-4.6.0-2, -3].
        try:
            if is_new:
                message = self._message
                message.set(first_byte, topic_end, start, length)
                if _STATS:
                    self._counts[_N_RECEIVED] = self._counts[_N_RECEIVED] + 1 & _COUNT_MASK
                # Every matching filter's callback is called, in the order of subscription; the
                # default handler if there was none.
                is_taken = False
                for subscription in self._session.subscriptions:
                    callback = subscription[_CALLBACK]
                    if callback is not None:
                        if subscription[_MATCHES] is None:  # not asked since the topic changed
                            subscription[_MATCHES] = topic_matches(
                                subscription[_FILTER], body, 2, topic_end
                            )
                        if subscription[_MATCHES]:
                            is_taken = True
                            self._emit(callback, message)
                if not is_taken:
                    self._emit(self.on_message, message)
        finally:
            if qos:  # [MQTT-2.3.1-6] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
                self._outbox.put_ack(_PUBREC if qos == 4 else _PUBACK, packet_id)

    # A QoS 2 message: does it come for the first time? It is remembered before it is delivered: if
    # there is no room for that, the server still has the message.
    def _is_first(self, packet_id):
        if not _QOS2:
            raise ServerError(_NOT_BUILT % "PUBLISH at QoS 2, which")
        received = self._session.received
        if packet_id in received:
            if _STATS:
                self._count(_N_SUPPRESSED)
            return False
        if len(received) >= _RECEIVED_MAX:
            raise TransportError(
                "more than %d QoS 2 messages without PUBREL" % _RECEIVED_MAX,
                _STAGE_WORDS.split()[self.state],
            )
        received.append(packet_id)
        return True

    # Another topic name than that of the last message: is it legal? Returns its end.
    def _on_topic(self, length):
        decoder = self._decoder
        body = decoder.buf
        end = 2 + (body[0] << 8 | body[1]) if length > 1 else length
        if end < 3 or end > length:
            raise ServerError("PUBLISH of %d bytes is too short [3.3]" % length)
        if end > decoder.have:
            return end  # too long for the buffer; it will not be delivered
        if not _is_utf8(body, 2, end):
            raise ServerError("topic name is not UTF-8 without U+0000 [MQTT-1.5.3-1, -2]")
        if body.find(b"+", 2, end) >= 0 or body.find(b"#", 2, end) >= 0:
            raise ServerError("topic name holds a wildcard [MQTT-3.3.2-2]")
        topic = self._topic
        self._topic_end = 0  # none is known, until all of this is done
        topic[_EVERYTHING] = b""
        for at in range(end):
            topic.append(body[at])
        for subscription in self._session.subscriptions:
            subscription[_MATCHES] = None
        self._topic_end = end
        return end

    def _on_suback(self, first_byte, packet_id):
        decoder = self._decoder
        # One that is too short, or too long for the buffer, has not a code for each filter.
        payload = bytes(decoder.buf[2 : decoder.remaining_length])
        for token, granted in self._session.on_suback(first_byte, packet_id, payload):
            self._emit(self.on_subscribed, token, granted)

    # -- sending -----------------------------------------------------------------

    def _transmit(self):
        outbox = self._outbox
        pipe = self._pipe
        happened = False
        if pipe.head == pipe.tail and not outbox.pending and self.state == _ONLINE:
            if not self._session.pending and not self._session.is_unsent:
                return False  # nothing to do, as in most steps
        flushes = _FLUSHES_PER_STEP
        while flushes > 0:
            sent_count = outbox.sent_count
            if self.state >= _SUBSCRIBING and not self._has_said_bye:
                flushes = self._take(flushes)
                if self._timers[_TIMER_ACK] is None and not self._session.is_empty():
                    self._check_acks()
            if not outbox.pending:
                self._timers[_TIMER_WRITE] = None
                self._release()  # what was dropped may be all that is left
                if self._has_said_bye:
                    self._finish()
                    return True
                if self.state != _CLOSING:
                    return happened
                if pipe.head != pipe.tail or not self._session.is_empty():
                    return happened
                outbox.put_packet(_DISCONNECT_PACKET)
                self._has_said_bye = True
            flushes -= 1
            outbox.flush(self._socket)
            if outbox.sent_count != sent_count:
                happened = True
                self._sent_ms = self._now_ms
                self._timers[_TIMER_WRITE] = None
                if self.state < _AWAITING_CONNACK:
                    self._move(_SECURED)
                    left_ms = ticks_diff(self._attempt_end_ms, self._now_ms)
                    self._arm(_TIMER_STATE, max(0, left_ms))
                elif self.state == _SUBSCRIBING:
                    self._arm(_TIMER_STATE, self.connect_timeout_ms)
                self._release()
            if outbox.pending:
                self._is_blocked = True
                # While connecting, the attempt's own deadline holds.
                if self._timers[_TIMER_WRITE] is None and self.state > _AWAITING_CONNACK:
                    self._arm(_TIMER_WRITE, self.connect_timeout_ms)
                return happened
            if self._is_blocked:
                self._is_blocked = False
                # All that was sent has left just now.
                for row in self._session.rows:
                    row[_SENT_MS] = self._now_ms
            if pipe.taken == pipe.tail and self.state != _CLOSING:
                return happened
        return True

    # What is to be sent (again) before anything new, then what waits in the pipe. As often as
    # `flushes` the outbox may be written on the way; returns what is left of that.
    def _take(self, flushes):
        session = self._session
        now_ms = self._now_ms
        if session.pending and not session.send_pending(now_ms):
            return flushes
        if self.state == _SUBSCRIBING:
            self._take_commands(False)  # what on_connect has asked for
            if not session.send_subscriptions(self._packet_bytes_max, now_ms) or session.asked:
                return flushes  # some filter has not been answered yet
            self._move(_SUBSCRIBED)
            self._emit(self.on_online, _NOTHING)
        flushes = self._take_commands(True, flushes)
        session.send_subscriptions(self._packet_bytes_max, now_ms)
        return flushes

    # Commands to packets, in order, as long as the outbox has room. Filters that come one behind
    # the other go into one packet; nothing passes them. But before ONLINE it is only filters that
    # are taken, and they pass the messages before them: ONLINE then means that they are in
    # service. (Only a second command for a filter whose first one has not been sent yet waits.)
    def _take_commands(self, is_online, flushes=0):
        session = self._session
        outbox = self._outbox
        pipe = self._pipe
        if pipe.head == pipe.tail or _OFFLINE and not pipe.hold():
            return flushes
        ring = pipe.ring
        size = pipe.size
        at = pipe.taken
        tail = pipe.tail
        while at != tail:
            if _OFFLINE and ring[at + 4] is not None:
                self._drop_expired(at)
            first_byte = ring[at]
            if first_byte & _TYPE_MASK != _PUBLISH:
                if first_byte:
                    if session.on_command(
                        first_byte, ring[at + 1], ring[at + 2], ring[at + 3], ring[at + 4]
                    ):
                        ring[at] = 0
                    elif is_online:
                        break
            elif is_online:
                if session.is_unsent and not session.send_subscriptions(
                    self._packet_bytes_max, self._now_ms
                ):
                    break
                if first_byte & 0x06:
                    if not session.start(
                        ring[at + 1], first_byte, ring[at + 2], ring[at + 3], self._now_ms
                    ):
                        break
                    ring[at] = 0
                elif outbox.put_publish(first_byte, ring[at + 2], ring[at + 3], ring[at + 5], 0):
                    ring[at + 4] = outbox.sent_count + outbox.pending & _COUNT_MASK
                else:
                    # Full. The last of it is left to _transmit(), which looks what that tells.
                    flushes -= 1
                    if flushes > 0 and outbox.flush(self._socket) and not outbox.pending:
                        continue
                    break
            is_next = is_online or at == pipe.taken and not ring[at]
            at += _SLOT_FIELDS
            if at == size:
                at = 0
            if is_next:
                pipe.taken = at
        if _OFFLINE:
            pipe.let_go()
            if pipe.dropped:
                self._tell_dropped()
        if not is_online:
            self._release()
        return flushes

    # Free the slots whose packets have left, and tell the application of QoS 0. It may
    # publish then, so the ring is let go before.
    def _release(self, is_last=False):
        pipe = self._pipe
        if pipe.head == pipe.taken or _OFFLINE and not pipe.hold(is_last):
            return
        sent_count = self._outbox.sent_count
        is_told = self.on_published is not None
        token = pipe.release(sent_count, is_told)
        while token:
            if _OFFLINE:
                pipe.let_go()
            self._emit(self.on_published, token)
            if _OFFLINE and not pipe.hold(is_last):
                return
            token = pipe.release(sent_count, is_told)
        if _OFFLINE:
            pipe.let_go()

    # [MQTT-3.14.4-1, -2]: DISCONNECT has left, or the time for it is over. What the server
    # has sent meanwhile is read away first: closing with unread bytes would reset the
    # connection, and the server might lose DISCONNECT and publish the will.
    def _finish(self):
        sock = self._socket
        # Best effort: if DISCONNECT does not fit the socket now, the server will
        # publish the will. Accepted.
        try:
            if not self._has_said_bye and self._outbox.room >= 2:
                self._outbox.put_packet(_DISCONNECT_PACKET)
            self._outbox.flush(sock)
            for _ in range(_PACKETS_PER_STEP):
                if not sock.readinto(self._decoder.buf):
                    break
        except (OSError, ValueError, MemoryError):
            pass
        self._close(_CLOSED, None)

    # -- callbacks -----------------------------------------------------------------

    # A callback that raises is reported and breaks nothing else.
    def _emit(self, callback, argument, another=None):
        if callback is None:
            return
        try:
            if another is not None:
                callback(self, argument, another)
            elif argument is _NOTHING:
                callback(self)
            else:
                callback(self, argument)
        except Exception as error:
            self._report(error)

    def _report(self, error):
        try:
            if self.on_error is not None:
                self.on_error(self, error)
                return
        except Exception as another:
            error = another
        print_exception(error)

    if _STATS:
        # Counters wrap at 2**30, so that they never become heap objects.
        def _count(self, index):
            self._counts[index] = self._counts[index] + 1 & _COUNT_MASK


if _ASYNCIO:

    class Messages:
        """The messages of one filter, for `async for`; MQTTClient.messages() makes it.

        Each is a copy, and stays valid. The loop ends when run() has ended, or close() was
        called, and what has come is taken; another one goes on with the next run().
        """

        def __init__(self, client, topic_filter, qos, queue_max):
            self._client = client
            self._changed = client._event()
            self._filter = topic_filter
            self._queue = []
            self._queue_max = queue_max
            client.subscribe(topic_filter, self._on_message, qos)

        def _on_message(self, client, message):
            if len(self._queue) >= self._queue_max:
                raise QueueFull("%d messages of %r wait" % (self._queue_max, self._filter))
            self._queue.append(message.copy())

        def __aiter__(self):
            self._changed = self._client._event()  # each run() has its own
            return self

        async def __anext__(self):
            while not self._queue:
                if self._filter is None or self._changed is not self._client._changed:
                    raise StopAsyncIteration
                await self._changed.wait()
            return self._queue.pop(0)

        def close(self):
            """Unsubscribe, and end the loop."""
            if self._filter is not None:
                self._client.unsubscribe(self._filter)  # QueueFull: call close() again
                self._filter = None
                self._changed.set()
                self._changed.clear()

        async def __aenter__(self):
            return self

        async def __aexit__(self, *exception):
            self.close()
