"""Make the certificates of the tests, in a folder and at run time: no key is ever committed.

    made = certificates.make(folder)        a second or less; the folder is yours to remove
    made.ca.cert_pem                        bytes; also .cert_der .key_pem .key_der
    made.ca.cert_pem_file                   str, the same as a file; also .cert_der_file ...
    made.server.key_pem_file

    other = certificates.Authority("somebody else's CA")
    pair = other.issue("localhost", ends_s=-60)         with no file, until save(folder, name)

What make() makes, each a Pair of a certificate and its key:

    ca              the authority of the tests, which clients are given as `ca`
    server          for localhost, 127.0.0.1 and ::1, signed by it; all below too, unless it says
    wrong_name      ... for another host
    expired         ... until yesterday
    not_yet_valid   ... from tomorrow on
    self_signed     ... by nobody but itself
    stranger        ... signed by other_ca
    chained         ... signed by an intermediate authority that ca has signed; cert_pem has both
    client          for a client, of the name "client of the tests"
    rsa_client      the same with an RSA key (all others are EC, which takes no time to make)
    other_ca        another authority
    other_client    for a client, signed by other_ca

The PEM key is PKCS #8, as `openssl genpkey` writes; `key_forms()` has all the ways that a key is
written in. The files' modes let everybody read them, a broker in a container too: they guard
nothing.
"""

import datetime
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY_S = 24 * 60 * 60
RSA_BITS = 2048

SERVER_NAMES = ("localhost", "127.0.0.1", "::1")
OTHER_NAMES = ("broker.invalid", "192.0.2.1")
CLIENT_NAME = "client of the tests"  # mosquitto's user name, with use_identity_as_username


class Pair:
    """A certificate and its key.

    Attributes:
        cert_pem, cert_der, key_pem, key_der: bytes. cert_pem may have the certificates behind
            it that lead to the authority; cert_der has one, as DER has no way to put two.
        cert_pem_file, cert_der_file, key_pem_file, key_der_file: str, after save().
    """

    def __init__(self, certificate, key, chain_pem=b""):
        self.certificate = certificate
        self._key = key
        self.cert_der = certificate.public_bytes(Encoding.DER)
        self.cert_pem = certificate.public_bytes(Encoding.PEM) + chain_pem
        self.key_der = self._key_bytes(Encoding.DER, PrivateFormat.PKCS8)
        self.key_pem = self._key_bytes(Encoding.PEM, PrivateFormat.PKCS8)

    def __repr__(self):
        return "<Pair %s>" % self.certificate.subject.rfc4514_string()  # never the key

    def key_forms(self):
        """Return a name -> bytes of the key for each way to write it.

        "Traditional" is PKCS #1 for an RSA key, and SEC 1 for an EC key.
        """
        traditional = PrivateFormat.TraditionalOpenSSL
        return {
            "PKCS8 PEM": self.key_pem,
            "PKCS8 DER": self.key_der,
            "traditional PEM": self._key_bytes(Encoding.PEM, traditional),
            "traditional DER": self._key_bytes(Encoding.DER, traditional),
        }

    def save(self, folder, name):
        """Write the four files `folder/name...`; returns itself."""
        folder = pathlib.Path(folder)
        for kind in ("cert_pem", "cert_der", "key_pem", "key_der"):
            part, encoding = kind.split("_")
            path = folder / ("%s-%s.%s" % (name, part, encoding))
            path.write_bytes(getattr(self, kind))
            path.chmod(0o644)
            setattr(self, kind + "_file", str(path))
        return self

    def _key_bytes(self, encoding, form):
        return self._key.private_bytes(encoding, form, NoEncryption())


class Authority(Pair):
    """A certificate that signs others: by itself, or by the Authority given.

    Args:
        begins_s, ends_s: when it is valid, in seconds from now.
    """

    def __init__(self, name, parent=None, begins_s=-DAY_S, ends_s=7 * DAY_S):
        key = ec.generate_private_key(ec.SECP256R1())
        usage = _usage(key_cert_sign=True, crl_sign=True)
        extensions = [(x509.BasicConstraints(ca=True, path_length=None), True), (usage, True)]
        certificate = _sign(name, key, parent, extensions, begins_s, ends_s)
        chain_pem = parent._chain_pem if parent else b""
        super().__init__(certificate, key, chain_pem)
        # What a server sends after its own certificate: every authority but the last, which
        # the client must know.
        self._chain_pem = self.cert_pem if parent else b""

    def issue(self, *names, **options):
        """Return the Pair of a server that has these names (hosts, addresses).

        Args:
            options: of _leaf().
        """
        return _leaf(self, names[0], names, **options)

    def issue_client(self, name, **options):
        """Return the Pair of a client of this name."""
        return _leaf(self, name, (), **options)


class Certificates:
    """What make() made; the attributes are said at the top of this file."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.ca = Authority("the authority of the tests")
        self.other_ca = Authority("another authority")
        intermediate = Authority("an intermediate authority", self.ca)
        self.server = self.ca.issue(*SERVER_NAMES)
        self.wrong_name = self.ca.issue(*OTHER_NAMES)
        self.expired = self.ca.issue(*SERVER_NAMES, begins_s=-2 * DAY_S, ends_s=-DAY_S)
        self.not_yet_valid = self.ca.issue(*SERVER_NAMES, begins_s=DAY_S, ends_s=2 * DAY_S)
        self.self_signed = _leaf(None, SERVER_NAMES[0], SERVER_NAMES)
        self.stranger = self.other_ca.issue(*SERVER_NAMES)
        self.chained = intermediate.issue(*SERVER_NAMES)
        self.client = self.ca.issue_client(CLIENT_NAME)
        self.rsa_client = self.ca.issue_client(CLIENT_NAME, is_rsa=True)
        self.other_client = self.other_ca.issue_client(CLIENT_NAME)
        for name, pair in list(vars(self).items()):
            if isinstance(pair, Pair):
                pair.save(folder, name)


def make(folder):
    """Make all certificates, and their files in `folder`, which exists."""
    return Certificates(folder)


# The certificate of a server, if it has names, or of a client. `begins_s` and `ends_s` are
# counted from now. Without an authority it signs itself.
def _leaf(authority, subject, names, begins_s=-DAY_S, ends_s=7 * DAY_S, is_rsa=False):
    if is_rsa:
        key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
    extensions = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True, key_encipherment=is_rsa), True),
        (x509.ExtendedKeyUsage([purpose]), False),
    ]
    if names:
        extensions.append((x509.SubjectAlternativeName([_name(name) for name in names]), False))
    certificate = _sign(subject, key, authority, extensions, begins_s, ends_s)
    return Pair(certificate, key, authority._chain_pem if authority else b"")


def _sign(subject, key, authority, extensions, begins_s=-DAY_S, ends_s=7 * DAY_S):
    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    signer = authority._key if authority else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(authority.certificate.subject if authority else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(seconds=begins_s))
        .not_valid_after(now + datetime.timedelta(seconds=ends_s))
        # CPython 3.13 verifies strictly and wants both identifiers.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(signer, hashes.SHA256())


def _name(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(**what):
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: what.get(name, False) for name in every.split()})
