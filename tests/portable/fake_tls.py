"""A TLS library for tests: part of fakes.py, for those that import it."""

import sys

import fakes


class Tls:
    """Stands for the module `tls`, and says how handshakes go."""

    PROTOCOL_TLS_CLIENT = 0
    CERT_NONE = 0
    CERT_REQUIRED = 2

    def __init__(self):
        self.contexts = []
        self.streams = []
        self.is_pem_refused = False  # a port that reads DER only
        self.flights = 2  # calls that a handshake takes; -1: it never ends
        self.stuck_at = None  # it goes on no more when so many of them are left
        self.error = None  # that ends a handshake

    def SSLContext(self, protocol):
        assert protocol == self.PROTOCOL_TLS_CLIENT
        self.contexts.append(TlsContext(self))
        return self.contexts[-1]

    def wrap(self, context, sock, host):
        assert not sock.is_connecting, "the handshake began before the connection stood"
        self.streams.append(TlsStream(self, context, sock, host))
        return self.streams[-1]


class TlsContext:
    def __init__(self, module):
        self.module = module
        self.verify_mode = None
        self.loaded = []

    def load_verify_locations(self, data):
        self._load(data)

    def load_cert_chain(self, cert, key):
        self._load(cert, key)

    def _load(self, *data):
        for one in data:
            if b"bad" in one or self.module.is_pem_refused and b"-----BEGIN" in one:
                raise ValueError("invalid cert")
        self.loaded.append(data)

    def wrap_socket(self, sock, **options):
        raise AssertionError("wrap_tls() does it")


class TlsStream:
    """mbedTLS over a Connection, with its ways: what it has refused it has encrypted already."""

    def __init__(self, module, context, sock, host):
        self.module = module
        self.context = context
        self.sock = sock
        self.host = host
        self.flights = module.flights
        self.refused = None
        self.is_closed = False

    def _handshake(self):
        assert not self.is_closed, "used after close"
        assert self.sock is not None, "used after it failed"
        if not self.flights:
            return True
        sock, self.sock = self.sock, None  # a failed stream lets go of its socket
        if self.module.error:
            raise self.module.error
        sock._called()
        self.sock = sock
        if sock.is_ended:  # after this error it does not
            raise OSError(-0x7280, "MBEDTLS_ERR_SSL_CONN_EOF")
        if self.flights != self.module.stuck_at:
            self.flights -= 1
        return not self.flights

    def readinto(self, buf, count=None):
        return self.sock.readinto(buf, count) if self._handshake() else None

    def write(self, buf, offset, count):
        if not self._handshake():
            return None
        data = bytes(buf[offset : offset + count])
        assert self.refused in (None, data), "after None the same bytes must come again"
        taken = self.sock.write(buf, offset, count)
        self.refused = None if taken == count else data[taken or 0 :]
        return taken

    def close(self):
        self.is_closed = True
        if self.sock is not None:
            self.sock.close()


fakes.tls = sys.modules[__name__]
