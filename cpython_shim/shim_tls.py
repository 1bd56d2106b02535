"""The board's `tls`: TLS streams over sockets that are streams.

What differs, and how it is bridged
-----------------------------------
- CPython's `ssl` wraps a socket of its own kind, and says "would block" with exceptions, of which
  one means "wait for reading" in a write. A board's TLS object is a stream over a stream: it
  calls the raw socket's `write` and `readinto`, answers None for "would block", and a poll that
  watches it looks at the direction that the library waits for. Here OpenSSL works on two buffers
  in memory (`ssl.MemoryBIO`), and Stream carries the bytes between them and the raw socket. So
  whatever the raw socket does (None, few bytes, an error late) comes to TLS as it does on a board.
- From the raw socket a record is read at a time, as mbedTLS does: what follows it stays in the
  kernel, whose poll therefore says the truth. Written are records of 4 KiB, as large as those
  of ESP32 and rp2.
- mbedTLS makes a record of what write() is given, and counts it only when the raw socket has
  taken all of the record. Until then write() answers None (or what was counted before), and the
  caller must offer **exactly the same bytes again, no more and no fewer**: a board takes the
  answer from the new call and the bytes from the old one, and loses the difference without a
  word. Here that is a RuntimeError, so that a test finds it.
- Errors are mbedTLS's: ValueError(reason) for a failed verification, OSError(negative number,
  text) for what else TLS has to complain of, the raw socket's OSError as it is. The text is
  OpenSSL's; the number is exact for the common cases, else MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE.
  (Once the handshake is over, the unix port 1.25 hands on the raw socket's error as a negative
  number, such as -104. Here it stays as it is.)
  Each later call raises OSError with the same number, and a poll says POLLNVAL only.
- After the error of a handshake a board's stream has let go of the raw socket: close() leaves it
  open. (Not so at the end of the connection, -29312, or after a later error.) Here the same.
- close() sends no close_notify: no board does. cipher() before the end of the handshake raises
  ValueError; the unix port 1.25 crashes.
- A TLS 1.2 server may ask for new keys (renegotiation), which the mbedTLS of boards refuses. Here
  write() answers None until reading has come to the end of that.
- `load_cert_chain` and `load_verify_locations` take bytes, PEM or DER. CPython reads a key from
  files only, so it is put in one that has no name (or, where there is no such thing, that only
  we may read), and that is gone before the call returns.
- Either is trusted whose certificate was loaded, root or not: OpenSSL by itself wants a root.
- CERT_OPTIONAL of a client verifies nothing that would matter on a board; here it is CERT_NONE.
- `wrap_tls()`, `load_default_certs()` and `set_alpn_protocols()` are CPython's alone.
"""

import contextlib
import os
import select
import ssl
import tempfile
import weakref

from shim_socket import part_of

__all__ = [
    "CERT_NONE",
    "CERT_OPTIONAL",
    "CERT_REQUIRED",
    "PROTOCOL_TLS_CLIENT",
    "PROTOCOL_TLS_SERVER",
    "SSLContext",
    "wrap_tls",
]

# The board's numbers (CPython has others for the protocols).
PROTOCOL_TLS_CLIENT = 0
PROTOCOL_TLS_SERVER = 1
CERT_NONE = 0
CERT_OPTIONAL = 1
CERT_REQUIRED = 2

_POLLIN = 1
_POLLOUT = 4

# RFC 8446, section 5.1: type, version, length; and what encryption may add to 2**14 bytes (RFC
# 5246, section 6.2.3, has the larger allowance).
_HEADER_BYTES = 5
_RECORD_BYTES_MAX = (1 << 14) + 2048

_WRITE_RECORD_BYTES = 4096  # MBEDTLS_SSL_OUT_CONTENT_LEN of ESP32 and rp2

# readall's first buffer, as large as the board's (py/stream.c).
_READ_ALL_BYTES = 256

# mbedTLS's numbers (mbedtls/ssl.h, mbedtls/x509.h).
_X509_CERT_VERIFY_FAILED = -0x2700
_SSL_HANDSHAKE_FAILURE = -0x6E00
_SSL_BAD_INPUT_DATA = -0x7100
_SSL_INVALID_MAC = -0x7180
_SSL_INVALID_RECORD = -0x7200
_SSL_CONN_EOF = -0x7280
_SSL_BAD_CONFIG = -0x5E80
_SSL_CA_CHAIN_REQUIRED = -0x7680
_SSL_FATAL_ALERT_MESSAGE = -0x7780

# What OpenSSL calls them. (What it calls an alert from the peer has ALERT in it or begins with
# TLSV1_.)
_NUMBERS = {
    "WRONG_VERSION_NUMBER": _SSL_INVALID_RECORD,
    "PACKET_LENGTH_TOO_LONG": _SSL_INVALID_RECORD,
    "ENCRYPTED_LENGTH_TOO_LONG": _SSL_INVALID_RECORD,
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": _SSL_INVALID_MAC,
    "BAD_RECORD_TYPE": _SSL_INVALID_RECORD,
}

# Since CPython 3.10 it has a name.
_PARTIAL_CHAIN = getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0x80000)

_KEY_KINDS = ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")  # PKCS #8, SEC 1, PKCS #1


def wrap_tls(context, sock, host):
    """Return a TLS stream of a client over `sock`. Nothing is sent yet.

    Args:
        context: an SSLContext of this module, or a genuine `ssl.SSLContext`.
        host: the name or address that the server's certificate must have.

    Raises:
        ValueError: host is no name that a certificate could have.
    """
    if isinstance(context, ssl.SSLContext):
        if context.check_hostname and not host:
            raise ValueError("check_hostname requires a host")  # wrap_bio() takes None for it
        return Stream(context, sock, False, host, True)
    return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


class SSLContext:
    """What the connections with the same certificates have in common.

    A client's begins with CERT_REQUIRED, which includes that the host's name is looked at, a
    server's with CERT_NONE.
    """

    def __init__(self, protocol):
        self._is_server = bool(protocol & PROTOCOL_TLS_SERVER)
        kind = ssl.PROTOCOL_TLS_SERVER if self._is_server else ssl.PROTOCOL_TLS_CLIENT
        self._context = ssl.SSLContext(kind)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2  # mbedTLS 3 has none below
        self._context.verify_flags |= _PARTIAL_CHAIN
        self._has_ca = False
        self.verify_mode = CERT_NONE if self._is_server else CERT_REQUIRED

    @property
    def verify_mode(self):
        """CERT_NONE, CERT_OPTIONAL or CERT_REQUIRED."""
        return self._verify_mode

    @verify_mode.setter
    def verify_mode(self, mode):
        context = self._context
        if not self._is_server:
            context.check_hostname = False  # it forbids CERT_NONE
        if self._is_server or mode == CERT_REQUIRED:
            context.verify_mode = ssl.VerifyMode(mode)
        else:
            context.verify_mode = ssl.CERT_NONE
        if not self._is_server:
            context.check_hostname = mode == CERT_REQUIRED
        self._verify_mode = mode

    def load_verify_locations(self, cadata):
        """Trust these certificates: one or many as PEM, or one as DER.

        Raises:
            ValueError: they are none.
        """
        cadata = _to_bytes(cadata)
        try:
            self._context.load_verify_locations(cadata=_to_cadata(cadata))
        except (ssl.SSLError, ValueError):
            raise ValueError("invalid cert") from None
        self._has_ca = True

    def load_cert_chain(self, cert, key):
        """Be known by this certificate, whose key this is: PEM or DER.

        The PEM of `cert` may go on with the certificates that lead to the authority.

        Raises:
            ValueError: one of them is invalid, or they do not belong together.
        """
        cert, key = _to_bytes(cert), _to_bytes(key)
        try:
            # For its judgement alone: what fails below is then the key.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_to_cadata(cert))
        except (ssl.SSLError, ValueError):
            raise ValueError("invalid cert") from None
        if not _is_pem(cert):
            cert = ssl.DER_cert_to_PEM_cert(cert).encode()
        for key_pem in _key_forms(key):
            with _nameless_file(cert.rstrip() + b"\n" + key_pem) as path:
                try:
                    # A password, or OpenSSL would ask the terminal for that of a locked key.
                    self._context.load_cert_chain(path, password=lambda: b"")
                    return
                except (ssl.SSLError, ValueError):
                    pass  # the next form; and nothing of the key goes into any message
        raise ValueError("invalid key")

    def load_default_certs(self):
        """Trust the authorities that the system does. CPython only."""
        self._context.load_default_certs()
        self._has_ca = True

    def set_alpn_protocols(self, protocols):
        """Name the protocols that will be spoken. CPython only."""
        self._context.set_alpn_protocols(protocols)

    def get_ciphers(self):
        """Return the names of all cipher suites: OpenSSL's names, not mbedTLS's."""
        return [cipher["name"] for cipher in self._context.get_ciphers()]

    def set_ciphers(self, names):
        """Use these cipher suites only, of get_ciphers(); those of TLS 1.3 stay."""
        try:
            self._context.set_ciphers(":".join(names))
        except ssl.SSLError:
            raise OSError(_SSL_BAD_CONFIG, "SSL - Invalid value in SSL config") from None

    def wrap_socket(
        self, sock, *, server_side=False, do_handshake_on_connect=True, server_hostname=None
    ):
        """Return a TLS stream over `sock`, a stream.

        Args:
            do_handshake_on_connect: True waits for the end of the handshake, however long that
                takes, on a non-blocking socket, too. False: the first reads and writes drive it.
            server_hostname: what the certificate must have; sent to the server as well.

        Raises:
            ValueError: CERT_REQUIRED without server_hostname; or, of the handshake, the reason
                why the server's certificate is not accepted.
            OSError: the handshake failed.
        """
        if server_hostname is None and not server_side and self._verify_mode == CERT_REQUIRED:
            raise ValueError("CERT_REQUIRED requires server_hostname")
        if self._is_server:
            server_hostname = None
        stream = Stream(self._context, sock, self._is_server, server_hostname, self._has_ca)
        if do_handshake_on_connect:
            stream._shake_hands_at_once()
        return stream


class Stream:
    """A TLS connection with the board's methods; wrap_socket() and wrap_tls() make them.

    `write()`, `readinto()` and `read()` have one contract:
        n > 0 (or bytes)   that many were moved
        None               nothing now; poll, then offer the same bytes again
        0 (or b"")         reading only: the peer has closed the connection
        ValueError         the server's certificate is not accepted; the text is the reason
        OSError            the connection is lost
    """

    def __init__(self, context, sock, is_server, host, has_ca):
        if not (hasattr(sock, "write") and hasattr(sock, "readinto")):
            raise OSError("stream operation not supported")
        self._incoming = ssl.MemoryBIO()  # encrypted, from the raw socket
        self._outgoing = ssl.MemoryBIO()  # encrypted, for the raw socket
        self._tls = context.wrap_bio(self._incoming, self._outgoing, is_server, host)
        self._raw = sock  # None: closed, or let go of
        self._has_ca = has_ca
        self._is_open = False  # the handshake is over
        self._error = 0  # number of the error that ended it
        self._wanted = 0  # POLLIN or POLLOUT: what the library waits for instead of the caller
        self._is_closed = False
        self._polls = ()  # weak references to the shim's polls that have us registered
        # The record that comes in.
        self._header = bytearray()  # its first bytes, fewer than 5: the rest has not come
        self._left = 0  # bytes of it that have not come
        self._has_ended = False  # the raw socket has said so
        self._buffer = bytearray(_RECORD_BYTES_MAX)
        # The record that goes out.
        self._out = b""  # what was taken from _outgoing
        self._out_at = 0  # up to here the raw socket has taken it
        # self._owed:     plaintext that OpenSSL has taken and write() has not yet counted
        # self._offered:  how many bytes the caller must offer again for that
        self._owed = b""
        self._offered = 0

    # -- the board's methods --

    def write(self, buf, *part):
        """Send all of `buf`, or `buf[:length]`, or `buf[offset:offset+length]`.

        Args:
            part: nothing, or `length`, or `offset, length`.

        Returns:
            The bytes whose records the raw socket has taken; None if there are none.

        Raises:
            RuntimeError: these are not the bytes of the last call, which were not taken.
        """
        self._check()
        view = part_of(buf, *part)
        try:
            if not self._is_open:
                if self._shake_hands() == _POLLIN:
                    self._wanted = _POLLIN
                if not self._is_open:
                    return None
            return self._write_records(view)
        except OSError as error:
            raise self._fail(error) from None
        finally:
            # A traceback keeps the frames, and a view in one of them would forbid the caller to
            # resize its bytearray, which a board allows.
            view.release()

    def readinto(self, buf, length=-1):
        """Receive into `buf`, at most `length` bytes if that is given.

        Returns:
            The bytes received; None if there are none now; 0 if the peer has closed.
        """
        self._check()
        size = len(buf)
        if 0 <= length < size:
            size = length
        view = memoryview(buf)
        try:
            if not self._is_open:
                if self._shake_hands() == _POLLOUT:
                    self._wanted = _POLLOUT
                if not self._is_open:
                    return None
            return self._read_records(view, size)
        except OSError as error:
            raise self._fail(error) from None
        finally:
            view.release()  # see write()

    def read(self, length=-1):
        """Receive `length` bytes, or fewer if no more are there; -1 for all that is there.

        Returns:
            bytes; None if there are none now; b"" if the peer has closed.
        """
        if length is None or length < 0:
            return self._read_all()
        buf = bytearray(length)
        received = self.readinto(buf)
        return None if received is None else bytes(buf[:received])

    def _read_all(self):
        whole = b""
        while True:
            piece = self.read(_READ_ALL_BYTES)
            if not piece:
                return whole or piece
            whole += piece

    def setblocking(self, is_blocking):
        """As the raw socket's."""
        self._raw.setblocking(is_blocking)

    def cipher(self):
        """Return (cipher suite, version), such as (..., "TLSv1.3"). Names are OpenSSL's."""
        if not self._is_open:
            raise ValueError("cipher() before the end of the handshake crashes a board")
        return self._tls.cipher()[0], self._tls.version()

    def close(self):
        """Close, and the raw socket with it, unless a handshake has failed. Twice is once."""
        raw = self._raw
        self._raw = None
        if not self._is_closed:
            self._is_closed = True
            self._tell_polls()
        if raw is not None:
            raw.close()

    # -- for shim_select.py --

    def fileno(self):
        """Return the raw socket's descriptor; -1 after an error and once closed."""
        return -1 if self._raw is None or self._error else self._raw.fileno()

    def pending(self):
        """Return how many bytes wait here, decrypted: the kernel does not know of them."""
        return self._tls.pending() if self._is_open else 0

    def wanted(self):
        """Return POLLIN or POLLOUT, for which the library waits whatever was asked; mostly 0."""
        return self._wanted

    def ioctl(self, request, events):
        """Return what to watch the socket for, in the place of `events`, as pollables() asks."""
        return self._wanted or events

    def _shim_watched_by(self, poller):
        self._polls = tuple(ref for ref in self._polls if ref() not in (None, poller)) + (
            weakref.ref(poller),
        )

    def _tell_polls(self):
        for reference in self._polls:
            poller = reference()
            if poller is not None:
                poller._on_closed(self)
        self._polls = ()

    # -- errors --

    # Raise what each call raises after the end; and begin a new one.
    def _check(self):
        self._wanted = 0
        if self._error:
            raise OSError(self._error, "the connection has ended")
        if self._raw is None:
            raise OSError(_SSL_BAD_INPUT_DATA, "SSL - Bad input parameters to function")

    # The connection ends. Returns the error to raise.
    def _fail(self, error):
        result = error
        if isinstance(error, ssl.SSLError):
            error.__traceback__ = None  # ssl's own frames have views, too; see write()
        if isinstance(error, ssl.SSLCertVerificationError):
            self._error = _X509_CERT_VERIFY_FAILED
            result = ValueError(error.verify_message)
            if not self._has_ca:
                self._error = _SSL_CA_CHAIN_REQUIRED
                result = OSError(self._error, "no CA was loaded, and one is needed")
        elif isinstance(error, ssl.SSLError):
            self._error = _number(error)
            result = OSError(self._error, error.reason or str(error))
        else:
            # -1 where the raw socket gave no number: it must be one.
            self._error = -abs(error.errno) if isinstance(error.errno, int) else -1
        self._tell_polls()
        if isinstance(error, ssl.SSLError):
            with contextlib.suppress(OSError):
                self._flush()  # the alert that tells the peer why, if there is room for it
        if not self._is_open and self._error != _SSL_CONN_EOF:
            self._raw = None
        return result

    # -- the handshake --

    # Go on with it. Returns what it waits for, POLLIN or POLLOUT; 0 when it is over.
    def _shake_hands(self):
        while True:
            if not self._flush():
                return _POLLOUT
            try:
                self._tls.do_handshake()
                is_over = True
            except ssl.SSLWantReadError:
                is_over = False
            if not self._flush():
                return _POLLOUT  # asked again, OpenSSL says again that it is over
            if is_over:
                self._is_open = True
                return 0
            if not self._fill():
                return _POLLIN
            if self._has_ended:
                raise OSError(_SSL_CONN_EOF, "the connection ended in the handshake")

    def _shake_hands_at_once(self):
        try:
            while True:
                direction = self._shake_hands()
                if not direction:
                    return
                poller = select.poll()
                poller.register(self._raw.fileno(), direction)
                poller.poll()
        except OSError as error:
            raise self._fail(error) from None

    # -- bytes --

    def _write_records(self, view):
        if self._owed:
            same = view[: len(self._owed)] == self._owed
            if not same or len(view) != self._offered:
                raise RuntimeError("write() must offer again what was not taken, a board loses it")
        done = 0
        while True:
            if not self._flush():
                self._offered = len(view) - done
                return done or None
            done += len(self._owed)
            self._owed = b""
            if done == len(view):
                return done
            piece = bytes(view[done : done + _WRITE_RECORD_BYTES])
            try:
                self._tls.write(piece)
            except ssl.SSLWantReadError:
                # The peer has asked for new keys (TLS 1.2: renegotiation). Who reads goes on with
                # that: here OpenSSL would take what the peer still sends for a breach.
                self._wanted = _POLLIN
                return done or None
            self._owed = piece

    def _read_records(self, view, size):
        received = 0
        while received < size:
            try:
                count = self._tls.read(size - received, view[received:])
                if not count:
                    break
                received += count
                continue
            except ssl.SSLWantReadError:
                pass  # and out of here: an error below would keep this one, with a view in it
            # An answer to the peer, for new keys. Whether it leaves now does not matter.
            # (A record of the application's is write()'s, as on a board.)
            if not self._owed:
                self._flush()
            if not self._fill():
                return received or None
            if self._has_ended:
                break  # without close_notify, which is an end as well
        return received

    # Give the raw socket what OpenSSL made. Returns whether it has taken all.
    def _flush(self):
        while True:
            size = len(self._out)
            while self._out_at < size:
                taken = self._raw.write(self._out, self._out_at, size - self._out_at)
                if not taken:
                    return False
                self._out_at += taken
            self._out_at = 0
            self._out = self._outgoing.read()
            if not self._out:
                return True

    # Give OpenSSL what the raw socket has, as far as the end of one record. Returns whether
    # there is anything new for it, the end included. (If it is no TLS, OpenSSL sees that in the
    # first 5 bytes, whatever length we make of them. In a handshake they are shown to it before
    # the rest is asked for, which may never come.)
    def _fill(self):
        has_news = False
        while True:
            header = self._header
            want = self._left or _HEADER_BYTES - len(header)
            count = self._raw.readinto(self._buffer, want)
            if count is None:
                return has_news
            if not count:
                # Not said to OpenSSL, which would refuse to write from then on.
                self._has_ended = True
                return True
            has_news = True
            piece = memoryview(self._buffer)[:count]
            self._incoming.write(piece)
            if self._left:
                self._left -= count
                if not self._left:
                    return True
                continue
            header += piece
            if len(header) == _HEADER_BYTES:
                self._left = header[3] << 8 | header[4]
                header.clear()
                if not self._is_open:
                    return True


# mbedTLS's number for what OpenSSL says.
def _number(error):
    reason = error.reason or ""
    if "ALERT" in reason or reason.startswith("TLSV1_"):
        return _SSL_FATAL_ALERT_MESSAGE
    return _NUMBERS.get(reason, _SSL_HANDSHAKE_FAILURE)


# ---------------------------------------------------------------------------
# Certificates and keys
# ---------------------------------------------------------------------------


def _to_bytes(data):
    return data.encode() if isinstance(data, str) else bytes(memoryview(data))


def _is_pem(data):
    return b"-----BEGIN " in data


# The form that CPython wants certificates in. PEM may have any comment between them.
def _to_cadata(data):
    return data.decode("ascii", "ignore") if _is_pem(data) else data


# What the key might be, as PEM. DER does not say which kind of key it is.
def _key_forms(key):
    if _is_pem(key):
        return [key]
    pem = ssl.DER_cert_to_PEM_cert(key)
    return [pem.replace("CERTIFICATE", kind).encode() for kind in _KEY_KINDS]


@contextlib.contextmanager
def _nameless_file(data):
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        fd = os.memfd_create("tls")
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            yield "/proc/self/fd/%d" % fd
        return
    fd, path = tempfile.mkstemp()  # readable by nobody else
    try:
        with open(fd, "wb") as file:
            file.write(data)
        yield path
    finally:
        os.unlink(path)
