"""The demo's wire: a TCP relay between one client and the broker that can be cut."""

import collections
import contextlib
import socket
import threading

# First byte of a packet, less its flags (section 2.2.1).
TYPE_MASK = 0xF0
SUBSCRIBE = 0x80
PUBLISH = 0x30
PUBLISH_QOS_1 = 0x32

# Seconds.
CONNECT_TIMEOUT_S = 3
JOIN_TIMEOUT_S = 3
LOOK_S = 0.1  # how often a wait for somebody to come looks whether there is an end


class PacketFinder:
    """Finds the MQTT packets in a stream of bytes."""

    def __init__(self):
        self._header = bytearray()  # of the present packet
        self._left = 0  # bytes of its body that have not come yet

    def feed(self, chunk):
        """Return the first byte of each packet that is complete with this chunk."""
        found = []
        at = 0
        while at < len(chunk):
            if self._left:
                step = min(self._left, len(chunk) - at)
                self._left -= step
                at += step
            else:
                self._header.append(chunk[at])
                at += 1
                # Type, then the remaining length: 7 bits a byte, the last one below 0x80 (2.2.3).
                if len(self._header) == 1 or self._header[-1] >= 0x80:
                    continue
                for i, byte in enumerate(self._header[1:]):
                    self._left += (byte & 0x7F) << (7 * i)
            if not self._left:
                found.append(self._header[0])
                self._header.clear()
        return found


class Wire:
    """One client's way to the broker: a TCP relay that counts packets and can be cut."""

    def __init__(self, host, port):
        self._broker = (host, port)
        # Ours until the end, also while the wire is cut: then who comes is turned away.
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LOOK_S)
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_cut = False
        self.is_stalled = False
        self._stalls_at = None  # a number of PUBLISH packets
        self._sockets = set()
        self._threads = []
        # What came from the client: by type, PUBLISH_QOS_1 also on its own.
        self.packets = collections.Counter()
        self.publishes_let_through = 0  # before the latest stall
        self._start(self._accept)

    def cut(self):
        """Break the connection now and let no other through till mend()."""
        with self._lock:
            self._is_cut = True
            self._stalls_at = None
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it

    def stall_after(self, publishes):
        """From this PUBLISH on, counted from now, swallow all that comes from either end.

        So it is till cut(): the connection stands, but nothing gets through any more.
        """
        with self._lock:
            self._stalls_at = self.packets[PUBLISH] + publishes

    def mend(self):
        """Let connections through again."""
        with self._lock:
            self._is_cut = self.is_stalled = False

    def close(self):
        with self._lock:
            self._is_closed = True
        self.cut()
        for thread in self._threads:
            thread.join(JOIN_TIMEOUT_S)
        self._listener.close()

    def _start(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while not self._is_closed:
            with contextlib.suppress(OSError):  # nobody came: look again
                client, _ = self._listener.accept()
                self._start(self._connect, client)

    def _connect(self, client):
        with client:
            if self._is_cut:
                return
            with contextlib.suppress(OSError):
                # To the client it looks the same whether we or the broker closes.
                broker = socket.create_connection(self._broker, timeout=CONNECT_TIMEOUT_S)
                with broker:
                    self._relay(client, broker)

    def _relay(self, client, broker):
        broker.settimeout(None)
        client.settimeout(None)
        for sock in (client, broker):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if self._is_cut:
                return
            self._sockets |= {client, broker}
        answers = threading.Thread(target=self._copy, args=(broker, client, None), daemon=True)
        answers.start()
        self._copy(client, broker, PacketFinder())
        answers.join()
        with self._lock:
            self._sockets -= {client, broker}

    def _copy(self, source, sink, finder):
        """Copy till either end closes; then both are closed."""
        with contextlib.suppress(OSError):
            while True:
                chunk = source.recv(4096)
                if not chunk:
                    break
                if finder:
                    self._count(finder.feed(chunk))
                if not self.is_stalled:
                    sink.sendall(chunk)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _count(self, first_bytes):
        with self._lock:
            for first_byte in first_bytes:
                packet_type = first_byte & TYPE_MASK
                self.packets[packet_type] += 1
                if packet_type == PUBLISH and first_byte & PUBLISH_QOS_1 == PUBLISH_QOS_1:
                    self.packets[PUBLISH_QOS_1] += 1
            publishes = self.packets[PUBLISH]
            if self._stalls_at and publishes >= self._stalls_at:
                self._stalls_at = None
                self.is_stalled = True
            if not self.is_stalled:
                self.publishes_let_through = publishes
