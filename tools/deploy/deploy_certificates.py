"""Certificates and keys for a board: looked at here, before anything is copied.

For tools/deploy.py. Python's own `ssl` does the looking. No error shows what is in a file, and a
key is written nowhere but into a folder that only its owner can enter, for as long as that takes.
"""

import base64
import contextlib
import os
import pathlib
import re
import select
import socket
import ssl
import tempfile
import time

from deploy_talk import DeployError

# Of a file for a board, which reads it whole: some certificates. Mozilla's bundle has 220 KiB.
FILE_BYTES_MAX = 16 * 1024
BUNDLE_BYTES_MAX = 4 * 1024 * 1024

HANDSHAKE_TIMEOUT_S = 10  # with the name's resolution and TCP

# Setting of secrets.py: what the file is called on the board, without ".pem" or ".der".
STEMS = {"CA": "ca", "CERT": "cert", "KEY": "key"}

CERTIFICATE = "CERTIFICATE"
# What stands in the first line of a private key: PKCS #8, PKCS #1, SEC 1.
KEYS = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")


# ---------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------


def read_file(path, bytes_max=FILE_BYTES_MAX):
    """Return the bytes of a file; raise DeployError if it can't be read or is too large."""
    try:
        with open(path, "rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise DeployError("can't read %s: %s" % (path, error.strerror)) from error
    if len(data) > bytes_max:
        raise DeployError(
            "%s has more than %d KiB: a board needs the one certificate that the server's is "
            "signed with" % (path, bytes_max // 1024)
        )
    return data


def blocks_of(data):
    """Return the blocks of a PEM file as (what it is, bytes); [] if it is not PEM."""
    found = re.finditer(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\r?\n?", data, re.S)
    return [(block.group(1).decode(), block.group(0)) for block in found]


def der_of(data):
    """Return the blocks of a PEM file as DER; [data], if it is DER already."""
    texts = [block.decode().split("-----")[2] for _, block in blocks_of(data)]
    return [base64.b64decode(text) for text in texts] or [data]


def pick(path, data, is_wanted, what):
    """Return what is of one kind in a file: all of it, if there is nothing else.

    Args:
        is_wanted: function of what a block of PEM is; what: its name, for errors.
    """
    if b"-----BEGIN" not in data:
        return data
    blocks = blocks_of(data)
    wanted = [block for kind, block in blocks if is_wanted(kind)]
    if any("ENCRYPTED" in kind for kind, _ in blocks) or b"Proc-Type: 4,ENCRYPTED" in data:
        if not wanted or what == "private key":
            raise DeployError("%s is encrypted: no board can ask for its password" % path)
    if not wanted:
        raise DeployError("%s is no %s" % (path, what))
    return data if len(wanted) == len(blocks) else b"".join(wanted)


def read_certificates(path):
    """Return the certificates in a file, PEM or DER; raise DeployError if it has none."""
    data = pick(path, read_file(path), lambda kind: kind == CERTIFICATE, "certificate")
    try:
        context_for(data or b"nothing")
    except (ssl.SSLError, ValueError) as error:
        raise DeployError("%s is no certificate" % path) from error
    return data


def read_authorities(path):
    """Return read_certificates(), after looking whether one of them is valid today."""
    data = read_certificates(path)
    ends_s = [
        ssl.cert_time_to_seconds(one["notAfter"]) for one in context_for(data).get_ca_certs()
    ]
    if ends_s and max(ends_s) < time.time():
        day = time.strftime("%Y-%m-%d", time.gmtime(max(ends_s)))
        raise DeployError("%s has expired: it was valid until %s" % (path, day))
    return data


def read_key(path):
    """Return the private key in a file; raise DeployError if it is encrypted or none.

    Whether DER is a key is told with its certificate: see check_pair().
    """
    return pick(path, read_file(path), lambda kind: kind in KEYS, "private key")


def check_pair(cert, key, cert_path, key_path, context=None):
    """Raise DeployError if a key is none, or does not belong to its certificate.

    Args:
        cert, key: bytes, from read_certificates() and read_key(). cert_path, key_path: for errors.
        context: an SSLContext that shows them from now on; None: they are only looked at.
    """
    context = context or context_for(b"")

    def refuse():
        raise DeployError("%s is encrypted: no board can ask for its password" % key_path)

    keys = [key]
    if b"-----BEGIN" not in key:
        # Which of the three it is, the library tells by trying.
        text = ssl.DER_cert_to_PEM_cert(key)
        keys = [text.replace(CERTIFICATE, kind).encode() for kind in KEYS]
    if b"-----BEGIN" not in cert:
        cert = ssl.DER_cert_to_PEM_cert(cert).encode()
    with tempfile.TemporaryDirectory(prefix="mqttpipe-deploy-") as folder:  # mode 0700
        cert_file = pathlib.Path(folder) / "cert.pem"
        cert_file.write_bytes(cert)
        for number, text in enumerate(keys):
            key_file = pathlib.Path(folder) / ("key%d.pem" % number)
            key_file.write_bytes(text)
            try:
                context.load_cert_chain(cert_file, key_file, refuse)
                return
            except ssl.SSLError as error:
                # The second, when one is RSA and the other EC.
                reason = error.reason or ""
                if "MISMATCH" in reason or reason == "NO_CERTIFICATE_ASSIGNED":
                    raise DeployError(
                        "%s does not belong to %s" % (key_path, cert_path)
                    ) from error
    raise DeployError("%s is no private key" % key_path)


def board_name(setting, data):
    """Return what a file is called on the board."""
    return STEMS[setting] + (".pem" if b"-----BEGIN" in data else ".der")


# ---------------------------------------------------------------------------
# Verification
# ---------------------------------------------------------------------------


def context_for(data):
    """Return an SSLContext that trusts what is in `data`, PEM or DER, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # What is strong enough is for the board's library to say, not for this machine's.
    with contextlib.suppress(ssl.SSLError):
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if data:
        blocks = [block for kind, block in blocks_of(data) if kind == CERTIFICATE]
        context.load_verify_locations(cadata=b"".join(blocks).decode() if blocks else data)
    return context


def describe(data):
    """Return the names of the authorities in `data`, and until when they are valid, as text."""
    texts = []
    for one in context_for(data).get_ca_certs():
        names = {key: value for part in one["subject"] for key, value in part}
        name = names.get("commonName") or names.get("organizationalUnitName")
        owner = names.get("organizationName")
        until = time.gmtime(ssl.cert_time_to_seconds(one["notAfter"]))
        day = time.strftime("%Y-%m-%d", until)
        text = "%s of %s" % (name, owner) if name and owner else name or owner or "without a name"
        texts.append("%s, valid until %s" % (text, day))
    return "; ".join(texts)


def shake_hands(host, port, context):
    """Connect and do TLS's handshake, then hang up.

    Raises:
        ssl.SSLCertVerificationError: the server's certificate is not good.
        OSError: else. Both within HANDSHAKE_TIMEOUT_S, the name's resolution aside.
    """
    deadline_s = time.monotonic() + HANDSHAKE_TIMEOUT_S
    with socket.create_connection((host, port), HANDSHAKE_TIMEOUT_S) as plain:
        with context.wrap_socket(
            plain, server_hostname=host, do_handshake_on_connect=False
        ) as sock:
            sock.setblocking(False)
            while True:
                left_s = max(0, deadline_s - time.monotonic())
                try:
                    sock.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    is_ready = select.select([sock], [], [], left_s)[0]
                except ssl.SSLWantWriteError:
                    is_ready = select.select([], [sock], [], left_s)[1]
                if not is_ready:
                    raise TimeoutError("no answer within %d s" % HANDSHAKE_TIMEOUT_S)


def find_root(host, port, bundle, pair=()):
    """Find the one authority of a bundle that a server's certificate is verified with.

    The server is asked with the whole bundle first, then with half of it, and so on: whatever is
    left at the end has verified this server, as it will on the board, with what the server sends.

    Args:
        bundle: bytes, PEM.
        pair: for a server that asks for a certificate: the arguments of check_pair().

    Returns:
        bytes: one certificate, PEM.

    Raises:
        DeployError: the server can't be reached, or none of them verifies it.
    """
    roots = [block for kind, block in blocks_of(bundle) if kind == CERTIFICATE]

    def does_verify(some):
        context = context_for(b"".join(some))
        if pair:
            check_pair(*pair, context)
        try:
            shake_hands(host, port, context)
            return None
        except ssl.SSLCertVerificationError as error:
            return error
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that no DNS can have
            reason = getattr(error, "strerror", None) or error
            reason = getattr(error, "reason", None) or reason
            raise DeployError("%s port %d: %s" % (host, port, reason)) from error

    trouble = does_verify(roots) if roots else "the bundle is empty"
    if trouble:
        reason = getattr(trouble, "verify_message", trouble)
        raise DeployError(
            "no well-known authority vouches for %s port %d: %s" % (host, port, reason)
        )
    while len(roots) > 1:
        half = roots[: len(roots) // 2]
        roots = roots[len(half) :] if does_verify(half) else half
    trouble = does_verify(roots)
    if trouble:
        raise DeployError("%s port %d shows another certificate each time" % (host, port))
    return roots[0]


def public_bundle():
    """Return the name of the file with the authorities that Mozilla trusts."""
    import certifi

    return os.fspath(certifi.where())
