"""The servers of the stall matrix: MQTT, DNS and TLS that go wrong at a chosen byte.

One thread serves all: it waits in a selector for the listener, the connections, the DNS socket and
orders of the tool. So nothing happens at the same time as anything else, and a fault stands at
exactly the byte it was asked for.

MQTT is spelled by hand: what goes over the wire stands here in bytes, and nothing is shared with
the client. TLS is OpenSSL's (`ssl`), between two memory buffers; what it wants to send passes
through `Connection.send_raw()`, where each byte of the handshake can be the last one.

A Fault strikes once, on the first connection that comes to its moment. From then on the listener
accepts nobody: who comes waits in the kernel's queue, until heal(). After that the server is as
good as any, and still has the session: what was in flight goes on.
"""

import collections
import contextlib
import heapq
import itertools
import selectors
import socket
import ssl
import struct
import threading
import time
import traceback

HOST = "127.0.0.1"

# How a fault goes: what the server does at the chosen byte.
SILENCE = "silence"  # it reads on, and neither answers nor closes
FIN = "FIN"  # it closes its direction
RST = "RST"
BYE = "close_notify"  # TLS says that it closes, then FIN
SKIP = "never"  # this packet is never sent, all else is
JUNK = "junk"  # other bytes are sent in its place, then silence
TRICKLE = "trickle"  # byte after byte, with pauses
LATE = "late"
DEAF = "deaf"  # it does not even read
CORRUPT = "corrupt"  # the byte is sent with one bit flipped; all else goes on

# The moments of a fault that are no packet's.
ACCEPT = "ACCEPT"
ORDERED = "ORDERED"  # when the tool says strike()
TLS_BYTES = "TLS bytes"  # sent in all, handshake first

RECORD_VERSION = "record version"  # what was struck, beside the stages TLS and CONNACK

# MQTT 3.1.1: packet types (section 2.2.1), the first byte less its flags.
CONNECT, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x30, 0x40, 0x50, 0x60, 0x70
SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 0x80, 0xA0, 0xC0, 0xE0

# What the server sends.
CONNACK_WIRE = b"\x20\x02\x00\x00"
CONNACK_PRESENT_WIRE = b"\x20\x02\x01\x00"
PINGRESP_WIRE = b"\xd0\x00"

# The message to the client, QoS 2, packet identifier 7: a header of 3 bytes (192 bytes follow, so
# two bytes of length), topic name with its length, identifier, payload.
PUSH_PAYLOAD = bytes(range(32, 127)) + bytes(range(32, 117))
PUSH_TOPIC = b"stall/in"
PUSH_WIRE = b"\x34\xc0\x01" + b"\x00\x08" + PUSH_TOPIC + b"\x00\x07" + PUSH_PAYLOAD
PUSH_HEADER_BYTES, PUSH_TOPIC_BYTES, PUSH_ID_BYTES = 3, 10, 2
DUP = 0x08

# A server that does not read shall fill the client's socket soon. Not less than this: Linux would
# find room for some more bytes 200 ms later (seen with 4096 on 6.18).
SMALL_BUFFER_BYTES = 32768
FILLERS_MAX = 16  # connections that fill a backlog of 0; Linux needs one or two
FILLER_TIMEOUT_S = 0.1
DNS_BYTES_MAX = 512
RECEIVE_BYTES = 65536
JOIN_TIMEOUT_S = 5
SEND_TIMEOUT_S = 5


def is_record_version(records, at):
    """Tell whether index `at` is in a version: the second and third byte of a TLS record."""
    begin = 0
    while begin <= at:
        if at - begin in (1, 2):
            return True
        begin += 5 + (records[begin + 3] << 8 | records[begin + 4])
    return False


class Fault:
    """What goes wrong.

    Args:
        moment: the packet's name ("CONNACK", ...), or ACCEPT, ORDERED, TLS_BYTES.
        how: SILENCE and so on.
        sent: bytes of the packet (or of all of TLS) that are still sent.
        junk: what is sent instead, before it goes on as `how` says.
        delay_s: for LATE: how late; for TRICKLE: between two bytes.
        is_alive: after JUNK the server goes on.
    """

    def __init__(self, moment, how, sent=0, junk=b"", delay_s=0, is_alive=False):
        self.moment = moment
        self.how = how
        self.sent = sent
        self.junk = junk
        self.delay_s = delay_s
        self.is_alive = is_alive


class Session:
    """What the server remembers of the client: longer than a connection."""

    def __init__(self):
        self.is_known = False
        self.filters = set()
        self.held = set()  # identifiers of QoS 2 messages that await their PUBREL
        self.came = collections.Counter()  # payload -> how often, of QoS 1 and 2
        self.push_state = None  # None, then PUBREC and PUBCOMP: what must come; 0: done

    def forget(self):
        self.is_known = False
        self.filters.clear()
        self.held.clear()


class Connection:
    """One client's connection. All calls come from the server's thread."""

    def __init__(self, server, sock, context):
        self.server = server
        self.sock = sock
        self.is_mute = False
        self.is_open = True
        self.has_connected = False  # CONNECT has come
        self._came = bytearray()  # not yet a whole packet
        self.sent_raw = 0  # bytes on the wire
        self._tls = None
        if context is not None:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._is_secured = False

    # -- receiving -----------------------------------------------------------

    def on_readable(self):
        if not self.is_open:
            return  # closed since the selector looked
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except OSError:
            data = b""
        if not data:
            self.close()
        elif not self.is_mute:
            if self._tls is not None:
                data = self._decrypt(data)
            self._came += data
            while self.is_open and not self.is_mute:
                packet = self._next_packet()
                if packet is None:
                    break
                self.server.on_packet(self, *packet)

    def _decrypt(self, data):
        plain = bytearray()
        self._incoming.write(data)
        try:
            if not self._is_secured:
                self._tls.do_handshake()
                self._is_secured = True
            while True:
                piece = self._tls.read(RECEIVE_BYTES)
                if not piece:
                    break
                plain += piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:  # an alert of the client, for example: our certificate
            self.server.tell("tls", text=str(error))
            self._flush_tls()
            self.finish()
        self._flush_tls()
        return plain

    def _next_packet(self):
        """Return (first byte, body), or None if it has not come whole (section 2.2)."""
        came = self._came
        length = 0
        for i in range(1, min(5, len(came))):
            length |= (came[i] & 0x7F) << 7 * (i - 1)
            if came[i] < 0x80:
                end = i + 1 + length
                if len(came) < end:
                    return None
                packet = came[0], bytes(came[i + 1 : end])
                del came[:end]
                return packet
        return None

    # -- sending ---------------------------------------------------------------

    def send(self, data):
        """Send, encrypted if this is TLS."""
        if not self.is_open or self.is_mute:
            return
        if self._tls is None:
            self.send_raw(data)
        elif data:
            self._tls.write(data)
            self._flush_tls()

    def _flush_tls(self):
        data = self._outgoing.read()
        if data:
            self.send_raw(data)

    def send_raw(self, data):
        """Send bytes as they are, up to that of a fault of TLS_BYTES."""
        if not self.is_open or self.is_mute:
            return
        fault = self.server.armed(TLS_BYTES)
        if fault and self.sent_raw + len(data) > fault.sent:
            at = fault.sent - self.sent_raw
            during = "CONNACK" if self.has_connected else "TLS"
            if fault.how == CORRUPT:
                if is_record_version(data, at):
                    during = RECORD_VERSION
                data = data[:at] + bytes((data[at] ^ 0x01,)) + data[at + 1 :]
                self.server.struck(during)
            else:
                self._put(data[:at] + fault.junk)
                self.server.struck(during)
                self.fail(fault.how)
                return
        self._put(data)

    def _put(self, data):
        self.sent_raw += len(data)
        # The client may have gone: then there is nobody to send it to.
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    # -- going wrong -------------------------------------------------------------

    def fail(self, how):
        """From here on nothing more is sent."""
        if how == BYE:
            with contextlib.suppress(ssl.SSLError):  # it would like to read the answer
                self._tls.unwrap()
            self._flush_tls()
        self.is_mute = True
        if how == DEAF:
            self.server.forget(self)
        elif how == RST:
            with contextlib.suppress(OSError):
                # Linger for no time at all: close() then resets the connection.
                linger = struct.pack("ii", 1, 0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close()
        elif how in (FIN, BYE):
            self.finish()

    def finish(self):
        """Send FIN. The other direction stays, or unread bytes would make it an RST."""
        self.is_mute = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        if self.is_open:
            self.is_open = False
            self.server.forget(self)
            self.sock.close()


class NameServer:
    """What answers DNS queries.

    Args:
        script: None: answered well. Else script(query, number) -> list of (delay_s, datagram)
            for the query with that number, from 0; as long as the fault lasts.
        from_elsewhere: the script's datagrams come from another port.
        is_closed: nobody listens at the port.
    """

    def __init__(self, script=None, from_elsewhere=False, is_closed=False):
        self.script = script
        self.from_elsewhere = from_elsewhere
        self.is_closed = is_closed
        self.count = 0
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((HOST, 0))
        self.port = self.sock.getsockname()[1]
        self.elsewhere = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.elsewhere.bind((HOST, 0))
        if is_closed:
            # Connected to somebody else it gets nothing from anybody, as if it were closed (the
            # sender is told so), and nobody else can get the port meanwhile.
            self.sock.connect(self.elsewhere.getsockname())

    def reopen(self):
        self.sock.close()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((HOST, self.port))

    def close(self):
        self.sock.close()
        self.elsewhere.close()


def make_answer(query, records=b"", count=0, code=0, flags=0x80):
    """Return the datagram that answers a query (RFC 1035, section 4.1)."""
    head = query[:2] + bytes((0x01 | flags, 0x80 | code)) + b"\x00\x01"
    return head + bytes((0, count, 0, 0, 0, 0)) + query[12:] + records


# 127.0.0.1, type A, class IN, for no time: each attempt asks anew.
A_RECORD = b"\xc0\x0c" + b"\x00\x01\x00\x01" + b"\x00\x00\x00\x00" + b"\x00\x04\x7f\x00\x00\x01"


def good_answer(query):
    is_a = query[-4:] == b"\x00\x01\x00\x01"
    return make_answer(query, A_RECORD if is_a else b"", is_a)


class Server:
    """The servers of one cell.

    Args:
        put: put(name, **details) takes what happens; it is called in the server's thread.
        fault: a Fault, or None.
        contexts: None, or (ssl.SSLContext while the fault lasts, the same afterwards).
        name_server: a NameServer, or None.
        gate: "open"; "refused": nobody listens at the port; "full": SYN is not answered.
    """

    def __init__(self, put, fault=None, contexts=None, name_server=None, gate="open"):
        self._put = put
        self._fault = fault
        self._contexts = contexts
        self.names = name_server
        self._gate = gate
        self.session = Session()
        self.handshake_bytes = 0  # sent before CONNECT came
        self.connack_bytes = 0  # those of CONNACK on the wire
        self.is_healed = False
        self._connections = set()
        self._current = None  # the connection that was accepted last
        self._orders = collections.deque()
        self._due = []  # (time.monotonic(), number, function): what is done later
        self._numbers = itertools.count()
        self._is_over = False
        self._fillers = []
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._on_wake)
        # The port stays ours while nobody listens at it: it is bound.
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if fault and fault.how == DEAF:  # connections inherit it
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        self._listener.setblocking(False)
        self._listener.bind((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._is_listening = False
        if gate == "open":
            self._listener.listen()
            self._listen()
        elif gate == "full":
            self._listener.listen(0)
            self._fill_backlog()
        if self.names and not self.names.is_closed:
            self._watch_names()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # -- what the tool calls, from its thread -----------------------------------

    def heal(self, is_forgotten=False):
        """End the fault. is_forgotten: the session is lost."""
        self._order(lambda: self._heal(is_forgotten))

    def push(self):
        """Send the client a message."""
        self._order(self._push)

    def strike(self):
        """Let a fault of the moment ORDERED happen now."""
        self._order(self._strike)

    def fail(self, how):
        """Whatever the connection is at: let it fail."""
        self._order(lambda: self._current.fail(how))

    def close(self):
        self._order(self._end)
        self._thread.join(JOIN_TIMEOUT_S)
        for connection in list(self._connections):
            connection.close()
        for sock in self._fillers:
            sock.close()
        if self.names:
            self.names.close()
        self._selector.close()
        self._listener.close()
        self._wake_in.close()
        self._wake_out.close()

    def _order(self, function):
        self._orders.append(function)
        self._wake_out.send(b"!")

    # -- the loop ------------------------------------------------------------------

    def _run(self):
        try:
            self._serve()
        except Exception:
            self._put("broken", text=traceback.format_exc())

    def _serve(self):
        while not self._is_over:
            timeout_s = None
            if self._due:
                timeout_s = max(0, self._due[0][0] - time.monotonic())
            for key, _ in self._selector.select(timeout_s):
                key.data()
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()

    def _on_wake(self):
        self._wake_in.recv(64)
        while self._orders:
            self._orders.popleft()()

    def _end(self):
        self._is_over = True

    def later(self, delay_s, function):
        """Call a function, in this thread."""
        heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._numbers), function))

    def tell(self, name, **details):
        self._put(name, **details)

    # -- the fault -----------------------------------------------------------------

    def armed(self, moment):
        """Return the fault if this is its moment and it has not struck yet."""
        fault = self._fault
        return fault if fault is not None and fault.moment == moment else None

    def struck(self, during=None):
        """The fault has happened; nobody else is let in till heal()."""
        self._fault = None
        if self._is_listening:
            self._selector.unregister(self._listener)
            self._is_listening = False
        self._put("struck", during=during)

    def send(self, connection, name, wire):
        """Send a packet, unless this is the moment."""
        fault = self.armed(name)
        if fault is None:
            connection.send(wire)
            return
        how = fault.how
        if how == SKIP:
            self.struck()
        elif how == LATE:
            self.struck()
            self.later(fault.delay_s, lambda: connection.send(wire))
        elif how == TRICKLE:
            self.struck()
            for i in range(len(wire)):
                time.sleep(fault.delay_s)  # all else waits: nothing may come in between
                connection.send(wire[i : i + 1])
        elif how == JUNK:
            # First told: the client's answer may be quicker than we are.
            self.struck()
            connection.send(fault.junk)
            connection.is_mute = not fault.is_alive
        else:
            connection.send(wire[: fault.sent])
            self.struck()
            connection.fail(how)

    def _strike(self):
        if self._current is not None and self.armed(ORDERED):
            self.send(self._current, ORDERED, b"")

    def _heal(self, is_forgotten):
        self._fault = None
        if is_forgotten:
            self.session.forget()
        self.is_healed = True
        if self.names:
            self.names.script = None
            if self.names.is_closed:
                self.names.reopen()
                self._watch_names()
        if self._gate != "open":
            self._listener.listen()
        for filler in self._fillers:
            filler.close()
        if not self._is_listening:
            self._listen()
        session = self.session
        if session.push_state == PUBCOMP and self._current is not None:
            self._current.send(b"\x62\x02\x00\x07")  # the PUBREL that was never sent

    def _listen(self):
        self._is_listening = True
        self._selector.register(self._listener, selectors.EVENT_READ, self._on_connection)

    def _fill_backlog(self):
        """Connect until the kernel answers no more."""
        for _ in range(FILLERS_MAX):
            sock = socket.socket()
            sock.settimeout(FILLER_TIMEOUT_S)
            self._fillers.append(sock)
            try:
                sock.connect((HOST, self.port))
            except OSError:
                return
        raise OSError("this system's backlog can't be filled")

    # -- connections -----------------------------------------------------------------

    def _on_connection(self):
        if not self._is_listening:
            return  # a fault has struck since the selector looked
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.settimeout(SEND_TIMEOUT_S)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = None
        if self._contexts:
            context = self._contexts[1 if self.is_healed else 0]
            if context is not self._contexts[1]:
                self.struck("TLS")
        connection = Connection(self, sock, context)
        self._connections.add(connection)
        self._current = connection
        self._selector.register(sock, selectors.EVENT_READ, connection.on_readable)
        fault = self.armed(ACCEPT)
        if fault:
            connection.send_raw(fault.junk)
            self.struck()
            connection.fail(fault.how)

    def forget(self, connection):
        """Look at this connection no more."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        if not connection.is_open:
            self._connections.discard(connection)

    # -- MQTT ---------------------------------------------------------------------------

    def on_packet(self, connection, first_byte, body):
        kind = first_byte & 0xF0
        session = self.session
        if kind == CONNECT:
            connection.has_connected = True
            self.handshake_bytes = connection.sent_raw
            wire = CONNACK_PRESENT_WIRE if session.is_known else CONNACK_WIRE
            session.is_known = True
            self.send(connection, "CONNACK", wire)
            self.connack_bytes = connection.sent_raw - self.handshake_bytes
            if session.push_state == PUBREC:
                connection.send(bytes((PUSH_WIRE[0] | DUP,)) + PUSH_WIRE[1:])
            elif session.push_state == PUBCOMP:
                connection.send(b"\x62\x02\x00\x07")
        elif kind == SUBSCRIBE:
            # The session has it from here on, whether or not the client learns of it.
            count, at = 0, 2
            while at < len(body):
                end = at + 2 + (body[at] << 8 | body[at + 1])
                session.filters.add(body[at + 2 : end])
                at = end + 1
                count += 1
            wire = bytes((0x90, 2 + count)) + body[:2] + b"\x02" * count
            self.send(connection, "SUBACK", wire)
        elif kind == UNSUBSCRIBE:
            self.send(connection, "UNSUBACK", b"\xb0\x02" + body[:2])
        elif kind == PUBLISH:
            self._on_publish(connection, first_byte, body)
        elif kind == PUBREL:
            session.held.discard(body)
            self.send(connection, "PUBCOMP", b"\x70\x02" + body)
        elif kind == PUBREC and body == b"\x00\x07":
            session.push_state = PUBCOMP
            self.send(connection, "PUBREL", b"\x62\x02\x00\x07")
        elif kind == PUBCOMP and body == b"\x00\x07":
            session.push_state = 0
            self._put("pushed")
        elif kind == PINGREQ:
            self.send(connection, "PINGRESP", PINGRESP_WIRE)
        elif kind == DISCONNECT:
            self._put("disconnect")
            fault = self.armed("DISCONNECT")
            if fault:
                self.struck()
                connection.fail(fault.how)
            else:
                connection.finish()

    def _on_publish(self, connection, first_byte, body):
        qos = first_byte >> 1 & 3
        if not qos:
            return  # the flood
        at = 2 + (body[0] << 8 | body[1])
        packet_id, payload = body[at : at + 2], body[at + 2 :]
        if qos == 1:
            self.session.came[payload] += 1
            self.send(connection, "PUBACK", b"\x40\x02" + packet_id)
        else:
            if packet_id not in self.session.held:
                self.session.held.add(packet_id)
                self.session.came[payload] += 1
            self.send(connection, "PUBREC", b"\x50\x02" + packet_id)

    def _push(self):
        if PUSH_TOPIC not in self.session.filters:
            self._put("broken", text="the client has not subscribed again")
        elif self.session.push_state is None and self._current is not None:
            self.session.push_state = PUBREC
            self.send(self._current, "PUBLISH", PUSH_WIRE)

    # -- DNS ------------------------------------------------------------------------------

    def _watch_names(self):
        self._selector.register(self.names.sock, selectors.EVENT_READ, self._on_query)

    def _on_query(self):
        names = self.names
        try:
            query, address = names.sock.recvfrom(DNS_BYTES_MAX)
        except OSError:
            return
        if names.script is None:
            names.sock.sendto(good_answer(query), address)
            return
        sock = names.elsewhere if names.from_elsewhere else names.sock
        if not names.count:
            self._put("struck", during="DNS")
        for delay_s, datagram in names.script(query, names.count):
            if delay_s:
                self.later(delay_s, lambda d=datagram: self._send_datagram(sock, d, address))
            else:
                self._send_datagram(sock, datagram, address)
        names.count += 1

    def _send_datagram(self, sock, datagram, address):
        # The client may have closed its socket: that is told to us with the next datagram.
        with contextlib.suppress(OSError):
            sock.sendto(datagram, address)
