"""A DNS server that answers what a test's script says, and the answers for such scripts."""

import socket
import threading

WAIT_S = 20


def answer(query, records=b"", count=0, code=0):
    return (
        query[:2] + bytes((0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0)) + query[12:] + records
    )


class NameServer:
    """Answers each query with the datagrams that the script has for it; silence at its end."""

    def __init__(self, script):
        self.queries = []
        self._script = list(script)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.port = self._socket.getsockname()[1]
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while not self._is_over:
            try:
                query, address = self._socket.recvfrom(512)
            except OSError:
                continue
            self.queries.append(query)
            for make in self._script.pop(0) if self._script else ():
                self._socket.sendto(make(query), address)

    def story(self):
        return "queries: %r" % self.queries

    def close(self):
        self._is_over = True
        self._thread.join(WAIT_S)
        self._socket.close()


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
