"""An SNTP server on this machine, for boards that ask for the time."""

import socket
import struct
import threading
import time

SECONDS_TO_1970 = 2_208_988_800  # SNTP counts from 1900


class TimeServer:
    """A server in a thread, at `address`; what it was asked is in `requests`.

    Args:
        seconds: the time that it tells everybody, since 1900; None: the present.
    """

    def __init__(self, seconds=None):
        self._seconds = seconds
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = self._socket.getsockname()
        self.requests = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            data, who = self._socket.recvfrom(512)
            if not data:
                return
            self.requests.append(data)
            now = int(time.time()) + SECONDS_TO_1970
            stamp = struct.pack(">II", self._seconds or now, 0)
            self._socket.sendto(b"\x24\x02" + bytes(22) + data[40:48] + stamp + stamp, who)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.address)
        self._thread.join(5)
        self._socket.close()
