"""Certificates for the TLS servers of the stall matrix, made anew for each run. None is kept."""

import datetime
import ssl

HOST = "127.0.0.1"
OTHER_HOST = "other.test"  # .test is nobody's (RFC 2606)


class Certificates:
    """An authority that the client knows, and contexts of servers.

    Attributes:
        ca_pem: str, the authority's certificate.
    """

    def __init__(self):
        import trustme  # here: without TLS nothing of it is needed

        authority, stranger = trustme.CA(), trustme.CA()
        self.ca_pem = authority.cert_pem.bytes().decode()
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        day = datetime.timedelta(days=1)
        self._contexts = {
            name: self._context(certificate)
            for name, certificate in {
                "good": authority.issue_cert(HOST),
                "wrong host": authority.issue_cert(OTHER_HOST),
                "unknown CA": stranger.issue_cert(HOST),
                "expired": authority.issue_cert(
                    HOST, not_before=now - 2 * day, not_after=now - day
                ),
                "not yet valid": authority.issue_cert(
                    HOST, not_before=now + day, not_after=now + 2 * day
                ),
            }.items()
        }

    @staticmethod
    def _context(certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Nothing comes between the handshake and CONNACK, so that bytes can be told apart.
        context.num_tickets = 0
        certificate.configure_cert(context)
        return context

    def contexts(self, name):
        """Return the SSLContext with this certificate, and that with the good one."""
        return self._contexts[name], self._contexts["good"]
