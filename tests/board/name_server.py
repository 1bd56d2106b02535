"""A DNS server on this machine that has no names, for boards that ask for one."""

import socket
import threading


class NameServer:
    """A context manager; a thread answers at `address` that there is no such name."""

    def __enter__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = self._socket.getsockname()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self):
        while True:
            query, who = self._socket.recvfrom(512)
            if not query:
                return
            # RFC 1035, 4.1.1: a response, recursion available, name error; then the question.
            self._socket.sendto(query[:2] + b"\x81\x83" + query[4:], who)

    def __exit__(self, *_):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.address)
        self._thread.join(5)
        self._socket.close()
