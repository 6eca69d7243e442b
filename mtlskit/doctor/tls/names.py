"""For which names a server's certificate stands, compared as OpenSSL compares them (X509_check_host(3))."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

from cryptography import x509
from cryptography.x509.oid import NameOID

from mtlskit.errors import IdentityError
from mtlskit.pki.certificates import extension

__all__ = ["ServerNames", "server_names"]


class ServerNames:
    """The names of one certificate. Strangers chose them: `shown` in sentences must be escaped by `printable`."""

    def __init__(self, dns: Sequence[str], addresses: Sequence[str], common: str) -> None:
        self.dns = tuple(dns)
        self.addresses = tuple(addresses)
        self.common = common
        """The common name, which counts only where there are no DNS names (RFC 6125 section 6.4.4)."""

    @property
    def only_common(self) -> bool:
        """Nothing but the common name says whose certificate it is."""
        return not self.dns and not self.addresses and bool(self.common)

    def stand_for(self, name: str) -> bool:
        """Whether a client that expects `name`, a host name or an address, is content."""
        with suppress(ValueError):
            return str(ip_address(name)) in self.addresses
        candidates = self.dns or ((self.common,) if self.common else ())
        return any(_fits(candidate, name) for candidate in candidates)


def server_names(certificate: x509.Certificate) -> ServerNames:
    """Of a leaf; what cannot be read is left out."""
    found: x509.SubjectAlternativeName | None = None
    with suppress(IdentityError):
        found = extension(certificate, x509.SubjectAlternativeName, source="")
    dns = [name.value for name in found or () if isinstance(name, x509.DNSName)]
    addresses = [str(name.value) for name in found or () if isinstance(name, x509.IPAddress)]
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return ServerNames(dns, addresses, str(common[0].value) if common else "")


def _fits(pattern: str, name: str) -> bool:
    """A wildcard stands for one whole label, the first (RFC 6125 section 6.4.3), and there must be two behind it."""
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".")
    if not pattern.startswith("*."):
        return pattern == name
    label, _, rest = name.partition(".")
    return bool(label) and rest == pattern[2:] and "." in rest
