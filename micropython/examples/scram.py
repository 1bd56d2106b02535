"""SCRAM-SHA-256 (RFC 5802, RFC 7677) for MQTT 5.0: neither side says the password.

    from scram import Scram

    client = MQTTClient(uri, protocol=5, auth=("SCRAM-SHA-256", Scram("user", "pencil")))

The server proves that it knows the password, too: if it does not, the connection ends. The key is
made of the password once, for the salt and the number of iterations that the server names; with
4,096 that is 8,192 times SHA-256, during which the program stands still: seconds on a board. It is
kept, so the next connection takes nine. mosquitto needs a plugin for this.
"""

from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from os import urandom

ITERATIONS_MAX = 20_000  # more would be an attack on our time
BLOCK_BYTES = 64  # of SHA-256


def hmac(key, text):
    """Return HMAC-SHA-256 (RFC 2104) of a text, as bytes. key: at most 64 bytes."""
    key = key + bytes(BLOCK_BYTES - len(key))
    inner = sha256(bytes(byte ^ 0x36 for byte in key) + text).digest()
    return sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


def salted(password, salt, iterations):
    """Return PBKDF2-HMAC-SHA-256 (RFC 8018) of a password: one block of 32 bytes."""
    if len(password) > BLOCK_BYTES:
        password = sha256(password).digest()
    key = password + bytes(BLOCK_BYTES - len(password))
    inner_key = bytes(byte ^ 0x36 for byte in key)
    outer_key = bytes(byte ^ 0x5C for byte in key)
    last = salt + b"\x00\x00\x00\x01"
    total = 0
    for _ in range(iterations):
        last = sha256(outer_key + sha256(inner_key + last).digest()).digest()
        total ^= int.from_bytes(last, "big")
    return total.to_bytes(32, "big")


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other))


class Scram:
    """The function of `auth`: called with what the server says, it returns what we say.

    Args:
        user, password: str of ASCII (others would need SASLprep, RFC 4013).
        nonce: bytes without a comma, for tests; None: a new random one for each exchange.

    Raises, when it is called: ValueError: the server does not know the password, or speaks no
    SCRAM.
    """

    def __init__(self, user, password, nonce=None):
        self._user = user.encode().replace(b"=", b"=3D").replace(b",", b"=2C")
        self._password = password.encode()
        if max(self._user + self._password + b" ") > 0x7E:
            raise ValueError("user or password is not ASCII")
        self._nonce = nonce
        self._known = None  # (salt, iterations, key made of them)
        self._first = self._proof = None

    def __call__(self, data):
        if data is None:
            nonce = self._nonce or b2a_base64(urandom(18)).strip()
            self._first = b"n=" + self._user + b",r=" + nonce
            self._proof = None  # of the server, until it is known what that must be
            return b"n,," + self._first
        if self._proof is None:
            return self._answer(data)
        if data != b"v=" + b2a_base64(self._proof).strip():
            raise ValueError("the server does not know the password")
        return None

    def _answer(self, data):
        fields = {}
        for part in data.split(b","):
            fields[part[:2]] = part[2:]
        nonce = fields.get(b"r=", b"")
        salt = a2b_base64(fields.get(b"s=", b""))
        iterations = int(fields.get(b"i=", b"0"))
        ours = self._first[self._first.find(b",r=") + 3 :]
        if not salt or nonce[: len(ours)] != ours or len(nonce) == len(ours):
            raise ValueError("that is no SCRAM: %r" % data)
        if not 0 < iterations <= ITERATIONS_MAX:
            raise ValueError("%d iterations" % iterations)
        if self._known is None or self._known[:2] != (salt, iterations):
            self._known = salt, iterations, salted(self._password, salt, iterations)
        key = self._known[2]
        client_key = hmac(key, b"Client Key")
        last = b"c=biws,r=" + nonce  # biws: "n,,", no channel binding
        whole = self._first + b"," + data + b"," + last
        proof = xor(client_key, hmac(sha256(client_key).digest(), whole))
        self._proof = hmac(hmac(key, b"Server Key"), whole)
        return last + b",p=" + b2a_base64(proof).strip()
