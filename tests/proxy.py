"""A TCP proxy that misbehaves on request: cuts, stalls, refuses.

    with Proxy(broker.host, broker.port) as proxy:
        ... MQTTClient(proxy.uri) ...
        proxy.cut()                      all present connections, with RST
        proxy.cut(FIN)                   the same, politely
        proxy.stall(); proxy.resume()    the bytes wait; nobody is told
        proxy.refuse(); proxy.resume()   each new connection is reset at once
        proxy.swallow(); proxy.resume()  bytes are thrown away; those connections never recover
        proxy.half_close(DOWN)           the client reads an end, and may go on writing
        proxy.shape(throttle(200))       at 200 bytes a second, until shape(Shape())
        print(proxy.cuts, proxy.log())

    Proxy(host, port, cuts=[Cut(UP, 17), Cut(DOWN, 4, FIN)])
        The first connection is cut right after its 17th byte to the server, the second after
        its fourth byte to the client, the third lives.
    Proxy(host, port, cuts=random_cuts(seed, 20, 2000))
        The same, at twenty random places.

A cut may be RST, FIN, or VANISH: the client's end is reset and the server is told nothing, as
when a router forgets a connection.

One thread does all the work; it ends with close(). Every wait has an end.
"""

import contextlib
import queue
import random
import selectors
import socket
import struct
import threading
import time

# The directions.
UP = "up"  # from the client to the server
DOWN = "down"

# The ways to cut.
RST = "RST"
FIN = "FIN"
VANISH = "VANISH"

CHUNK_BYTES = 16 * 1024
PENDING_BYTES_MAX = 64 * 1024  # read and not yet written: beyond it the sender has to wait
TIMEOUT_S = 5  # for what the thread is asked to do, and for the server's TCP handshake
LOG_LINES_MAX = 60
FORGOTTEN_MAX = 100  # servers' ends that are kept open: each is a file of ours and of the server
SLICES_S = 20  # of a throttled flow


class Cut:
    """Where and how to cut a connection: right after `position` bytes in `direction`."""

    def __init__(self, direction, position, how=RST):
        self.direction = direction
        self.position = position
        self.how = how

    def __repr__(self):
        return "Cut(%s, %d, %s)" % (self.direction, self.position, self.how)


def random_cuts(seed, count, position_max):
    """Yield `count` Cuts: the same ones for the same seed.

    A third falls into the first 64 bytes, where connections are made and sessions resumed.
    """
    chance = random.Random(seed)
    for _ in range(count):
        position = chance.randint(0, 64 if chance.randrange(3) == 0 else position_max)
        yield Cut(chance.choice((UP, DOWN)), position, chance.choice((RST, RST, FIN, VANISH)))


class Shape:
    """How bytes go through, in each direction: as they come, unless something else is said.

    Args:
        hold_s: what comes waits so long, and goes on with all that came meanwhile, in one piece.
        piece_bytes, gap_s: it goes on in pieces of so many bytes, so far apart.
    """

    def __init__(self, hold_s=0, piece_bytes=None, gap_s=0):
        self.hold_s = hold_s
        self.piece_bytes = piece_bytes
        self.gap_s = gap_s

    def __repr__(self):
        return "Shape(%r, %r, %r)" % (self.hold_s, self.piece_bytes, self.gap_s)


def throttle(bytes_s):
    """Return the Shape of a link of so many bytes a second."""
    piece_bytes = max(1, bytes_s // SLICES_S)
    return Shape(0, piece_bytes, piece_bytes / bytes_s)


class _Flow:
    """One direction of a connection.

    buf: read from `source`, not yet written to `sink`; passed: bytes written since ever.
    """

    def __init__(self, direction, source, sink):
        self.direction = direction
        self.source = source
        self.sink = sink
        self.buf = bytearray()
        self.passed = 0
        self.limit = None  # the connection is cut when `passed` is this
        self.is_ended = False  # the source has ended; the sink is told when buf is empty
        self.is_muted = False  # what comes is thrown away
        self.due_s = 0  # time.monotonic(): nothing goes on before


class _Connection:
    def __init__(self, number, client, server, cut):
        self.number = number
        self.client = client
        self.server = server
        self.cut = cut  # a Cut or None
        self.is_swallowed = False  # neither end is told anything, until the client closes
        self.flows = (_Flow(UP, client, server), _Flow(DOWN, server, client))
        for flow in self.flows:
            if cut and cut.direction == flow.direction:
                flow.limit = cut.position


class Proxy:
    """Listens on `listen_host`, forwards to host:port.

    Args:
        host, port: the server's.
        cuts: Cuts, one for each connection in turn; those after the last live.
        listen_host: "127.0.0.1" or "::1".
        on_bytes: on_bytes(connection's number, direction, data) is told what was passed on, in
            the proxy's thread.

    Attributes to read: port, uri, cuts (made so far), connections (accepted so far).
    """

    def __init__(self, host, port, cuts=(), listen_host="127.0.0.1", on_bytes=None):
        self.cuts = 0
        self.connections = 0
        self._target = host, port
        self._planned = iter(cuts)
        self._on_bytes = on_bytes
        self._alive = []
        self._forgotten = []  # servers' ends of what vanished
        self._is_stalled = self._is_refusing = self._is_swallowing = False
        self._shape = Shape()
        self._log = []
        self._started = time.monotonic()
        self._orders = queue.Queue()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        family = socket.AF_INET6 if ":" in listen_host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.bind((listen_host, 0))
            self._listener.listen(64)
        except OSError:
            self._close_sockets()
            raise
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self.uri = ("mqtt://[%s]:%d" if ":" in listen_host else "mqtt://%s:%d") % (
            listen_host,
            self.port,
        )
        self._selector = selectors.DefaultSelector()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    # -- what a test asks for ------------------------------------------------

    def cut(self, how=RST):
        """Cut all present connections; return how many that were."""
        return self._order(lambda: self._cut_all(how))

    def plan(self, cuts):
        """Give the connections to come these Cuts, in the place of what was planned."""

        def change():
            self._planned = iter(cuts)

        self._order(change)

    def stall(self):
        """Let nothing through, in no direction, until resume(). Connections are accepted."""
        self._order(lambda: self._set(is_stalled=True))

    def refuse(self):
        """Reset each new connection, until resume(). Those that exist go on."""
        self._order(lambda: self._set(is_refusing=True))

    def swallow(self):
        """Take all bytes and throw them away. Nobody is told, and after resume() neither.

        New connections are swallowed as well, until resume().
        """
        self._order(lambda: self._set(is_swallowing=True))

    def resume(self):
        """End stall(), refuse() and swallow()."""
        self._order(lambda: self._set(False, False, False))

    def half_close(self, direction):
        """End one direction of all present connections; the other one lives on."""
        self._order(lambda: self._half_close_all(direction))

    def shape(self, shape):
        """Let bytes through in this Shape from now on."""

        def change():
            self._shape = shape
            self._note("%r", shape)
            for connection in list(self._alive):
                for flow in connection.flows:
                    flow.due_s = 0
                self._watch(connection)

        self._order(change)

    def passed(self, direction, waiting=False):
        """Return how many bytes went in this direction through the present connections.

        waiting: count those, too, that are here and wait.
        """
        return self._order(
            lambda: sum(
                flow.passed + waiting * len(flow.buf)
                for connection in self._alive
                for flow in connection.flows
                if flow.direction == direction
            )
        )

    def log(self):
        """Return the last lines of what happened, as text."""
        return "\n".join(self._log[-LOG_LINES_MAX:])

    def close(self):
        """End all connections and the thread."""
        if self._is_closing:
            return
        self._is_closing = True
        self._wake()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the proxy's thread does not end"

    # -- between the threads ---------------------------------------------------

    def _wake(self):
        with contextlib.suppress(OSError):
            self._wake_write.send(b"!")

    # Have the thread call a function, and wait for it.
    def _order(self, function):
        done = threading.Event()
        answer = []
        self._orders.put((function, answer, done))
        self._wake()
        if not done.wait(TIMEOUT_S):
            raise AssertionError("the proxy does not answer; its last lines:\n" + self.log())
        return answer[0]

    # -- the thread ------------------------------------------------------------

    def _note(self, text, *values):
        passed = time.monotonic() - self._started
        self._log.append("%8.3f %s" % (passed, text % values))

    def _run(self):
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        try:
            while not self._is_closing:
                for connection in self._due_connections():
                    self._forward(connection)
                for key, _ in self._selector.select(self._time_to_sleep_s()):
                    if key.fileobj is self._wake_read:
                        self._obey()
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif key.data in self._alive:
                        self._forward(key.data)
        except Exception as error:
            self._note("the proxy failed: %r", error)
            raise
        finally:
            self._close_sockets()
            self._selector.close()

    def _close_sockets(self):
        for connection in self._alive:
            connection.client.close()
            connection.server.close()
        for sock in [*self._forgotten, self._listener, self._wake_read, self._wake_write]:
            sock.close()

    def _obey(self):
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(CHUNK_BYTES)
        while True:
            try:
                function, answer, done = self._orders.get_nowait()
            except queue.Empty:
                return
            answer.append(function())
            done.set()

    def _set(self, is_stalled=None, is_refusing=None, is_swallowing=None):
        if is_stalled is not None:
            self._is_stalled = is_stalled
        if is_refusing is not None:
            self._is_refusing = is_refusing
        if is_swallowing is not None:
            self._is_swallowing = is_swallowing
        state = self._is_stalled, self._is_refusing, self._is_swallowing
        self._note("stalled: %s, refusing: %s, swallowing: %s", *state)
        for connection in list(self._alive):
            if self._is_swallowing:
                self._mute(connection)
            self._watch(connection)

    def _mute(self, connection):
        connection.is_swallowed = True
        for flow in connection.flows:
            flow.is_muted = True
            flow.buf.clear()

    def _half_close_all(self, direction):
        for connection in list(self._alive):
            for flow in connection.flows:
                if flow.direction == direction and not flow.is_muted:
                    flow.is_muted = True
                    flow.buf.clear()
                    with contextlib.suppress(OSError):
                        flow.sink.shutdown(socket.SHUT_WR)
                    self._note("%d half closed, %s", connection.number, direction)
            self._watch(connection)

    # Flows whose bytes wait for their time.
    def _waiting_flows(self, connection):
        return [] if self._is_stalled else [f for f in connection.flows if f.buf and f.due_s]

    def _due_connections(self):
        now = time.monotonic()
        return [
            connection
            for connection in self._alive
            if any(flow.due_s <= now for flow in self._waiting_flows(connection))
        ]

    def _time_to_sleep_s(self):
        due = [flow.due_s for each in self._alive for flow in self._waiting_flows(each)]
        return max(0, min(due, default=time.monotonic() + TIMEOUT_S) - time.monotonic())

    def _accept(self):
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self.connections += 1
        number = self.connections
        if self._is_refusing:
            self._note("%d refused", number)
            reset(client)
            return
        try:
            server = socket.create_connection(self._target, TIMEOUT_S)
        except OSError as error:
            self._note("%d no server: %s", number, error)
            reset(client)
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(number, client, server, next(self._planned, None))
        self._note("%d accepted, plan: %r", number, connection.cut)
        self._alive.append(connection)
        if self._is_swallowing:
            self._mute(connection)
        self._watch(connection)
        if not self._is_stalled:
            self._forward(connection)  # a cut after no byte at all

    # Tell the selector what this connection waits for.
    def _watch(self, connection):
        for sock in (connection.client, connection.server):
            mask = 0
            for flow in connection.flows:
                is_hungry = not flow.is_ended and len(flow.buf) < PENDING_BYTES_MAX
                if sock is flow.source and is_hungry:
                    mask |= selectors.EVENT_READ
                if sock is flow.sink and flow.buf and not flow.due_s:
                    mask |= selectors.EVENT_WRITE
            if self._is_stalled:
                mask = 0
            registered = self._selector.get_map().get(sock)
            if mask and registered:
                self._selector.modify(sock, mask, connection)
            elif mask:
                self._selector.register(sock, mask, connection)
            elif registered:
                self._selector.unregister(sock)

    # Move what can be moved, both ways.
    def _forward(self, connection):
        for flow in connection.flows:
            try:
                self._read(flow)
                self._write(connection, flow)
            except OSError as error:
                self._note("%d %s: %s", connection.number, flow.direction, error)
                if connection.is_swallowed and flow.direction == DOWN:
                    flow.is_ended = True
                    continue
                self._end(connection, RST)
                return
            if flow.passed == flow.limit:
                self._cut(connection, connection.cut.how)
                return
        # When one end has closed and all it sent has been passed on, the other end is closed.
        for flow in connection.flows:
            is_told = flow.direction == UP or not connection.is_swallowed
            if flow.is_ended and not flow.buf and is_told:
                self._note("%d closed by an end%s", connection.number, both_counts(connection))
                self._end(connection, FIN)
                return
        self._watch(connection)

    def _read(self, flow):
        if flow.is_ended or len(flow.buf) >= PENDING_BYTES_MAX:
            return
        with contextlib.suppress(BlockingIOError):
            data = flow.source.recv(CHUNK_BYTES)
            flow.is_ended = not data
            if flow.is_muted:
                return
            if self._shape.hold_s and data and not flow.buf:
                flow.due_s = time.monotonic() + self._shape.hold_s
            flow.buf += data

    def _write(self, connection, flow):
        if flow.due_s > time.monotonic():
            return
        flow.due_s = 0
        count = len(flow.buf)
        if self._shape.piece_bytes:
            count = min(count, self._shape.piece_bytes)
        if flow.limit is not None:
            count = min(count, flow.limit - flow.passed)
        if not count:
            return
        with contextlib.suppress(BlockingIOError):
            sent = flow.sink.send(flow.buf[:count])
            flow.passed += sent
            if self._on_bytes:
                self._on_bytes(connection.number, flow.direction, bytes(flow.buf[:sent]))
            del flow.buf[:sent]
            if self._shape.gap_s:
                flow.due_s = time.monotonic() + self._shape.gap_s

    def _cut_all(self, how):
        present = list(self._alive)
        for connection in present:
            self._cut(connection, how)
        return len(present)

    def _cut(self, connection, how):
        self.cuts += 1
        text = "%d cut number %d, %s%s"
        self._note(text, connection.number, self.cuts, how, both_counts(connection))
        self._end(connection, how)

    def _end(self, connection, how):
        self._alive.remove(connection)
        for sock in (connection.client, connection.server):
            if sock in self._selector.get_map():
                self._selector.unregister(sock)
        if connection.is_swallowed:
            connection.client.close()
            self._forget(connection.server)
            return
        if how == FIN:
            connection.client.close()
            connection.server.close()
            return
        reset(connection.client)
        if how == VANISH:
            self._forget(connection.server)
        else:
            reset(connection.server)

    # Keep the server's end open: it is told nothing.
    def _forget(self, server):
        self._forgotten.append(server)
        if len(self._forgotten) > FORGOTTEN_MAX:
            reset(self._forgotten.pop(0))


def both_counts(connection):
    return ", passed up %d, down %d bytes" % tuple(flow.passed for flow in connection.flows)


def reset(sock):
    """Close with RST: the peer's next call fails, whatever it has not read or we not sent."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
