"""A DNS server that answers what a test's script says, and the answers for such scripts.

Responder is the same in the group of multicast DNS, for names that end in .local.
"""

import socket
import threading

WAIT_S = 20


def answer(query, records=b"", count=0, code=0):
    return (
        query[:2] + bytes((0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0)) + query[12:] + records
    )


class NameServer:
    """Answers each query with the datagrams that the script has for it; `then` at its end.

    then: what each further query gets; may be changed at any time. (): silence.
    """

    def __init__(self, script, then=()):
        self.queries = []
        self.then = then
        self._script = list(script)
        self._socket = self._open()
        self._socket.settimeout(0.2)
        self.port = self._socket.getsockname()[1]
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _open(self):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        return sock

    def _is_mine(self, query):
        return True

    def _serve(self):
        while not self._is_over:
            try:
                query, address = self._socket.recvfrom(512)
            except OSError:
                continue
            if not self._is_mine(query):
                continue
            self.queries.append(query)
            for make in self._script.pop(0) if self._script else self.then:
                self._socket.sendto(make(query), address)

    def story(self):
        return "queries: %r" % self.queries

    def close(self):
        self._is_over = True
        self._thread.join(WAIT_S)
        self._socket.close()


class Responder(NameServer):
    """Answers for one name in the group, to the asker alone (RFC 6762, section 6.7).

    Others of this machine may listen to the group, too; only what asks for our name counts.

    Raises: OSError: no interface of this machine does multicast.
    """

    GROUP = "224.0.0.251"
    PORT = 5353

    def __init__(self, name, script):
        self._name = b"".join(bytes((len(label),)) + label for label in name.encode().split(b"."))
        super().__init__(script)

    def _open(self):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):  # avahi's listens, too
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("", self.PORT))
        failed = 0
        for interface in ("0.0.0.0", "127.0.0.1"):
            member = socket.inet_aton(self.GROUP) + socket.inet_aton(interface)
            try:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            except OSError as error:
                failed += 1
                if failed == 2:
                    sock.close()
                    raise error
        return sock

    def _is_mine(self, query):
        return query[12:].lower().startswith(self._name.lower() + b"\0")


# What a server may say of a query ----------------------------------------


def junk(query):
    return b"\x00" * 3


def failure(query):
    return answer(query, code=2)


def no_such_name(query):
    return answer(query, code=3)


def truncated(query):
    return query[:2] + b"\x83\x80" + query[4:]


def looping(query):
    return answer(query, b"\xc0\x0c" * 60, 30)
