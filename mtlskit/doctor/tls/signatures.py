"""Who has signed which of a stranger's certificates, for no more work than an honest chain takes.

What it costs to check a signature is up to whoever made the issuer's key: with an RSA exponent as long as its modulus,
one check takes as long as five hundred with the usual 65537, and a chain of certificates that all bear the same name
asks for one with every pair. OpenSSL itself never comes to that: it checks signatures only where a trust anchor ends
the chain, and then one for each certificate.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from mtlskit.pki.certificates import UNREADABLE, is_issued_by

__all__ = ["MAX_CHECKS", "Signatures", "TooCostlyError", "is_costly"]

MAX_CHECKS: Final = 30
"""A chain of four that is compared with its anchors takes about ten."""

_MAX_EXPONENT_BITS: Final = 64
"""Beyond a modulus of 3072 bits OpenSSL draws the same line (OPENSSL_RSA_MAX_PUBEXP_BITS)."""
_MAX_MODULUS_BITS: Final = 8192


class TooCostlyError(Exception):
    """It is not known who has signed it, and it is not worth finding out."""


class Signatures:
    """Checks that are made once each, and `most` at most."""

    def __init__(self, most: int = MAX_CHECKS) -> None:
        self._left = most
        self._known: dict[tuple[x509.Certificate, x509.Certificate], bool] = {}

    def issued(self, issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
        """Whether `issuer` has signed `certificate`, as `is_issued_by` says it. Raises TooCostlyError."""
        if certificate.issuer != issuer.subject:
            return False
        pair = (issuer, certificate)
        if pair not in self._known:
            if not self._left or is_costly(issuer):
                raise TooCostlyError
            self._left -= 1
            self._known[pair] = is_issued_by(certificate, issuer)
        return self._known[pair]

    def self_signed(self, certificate: x509.Certificate) -> bool:
        """As a root is. Raises TooCostlyError."""
        return self.issued(certificate, certificate)


def is_costly(certificate: x509.Certificate) -> bool:
    """Whether to check a signature of its key would take unusually long."""
    try:
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        return key.key_size > _MAX_MODULUS_BITS or key.public_numbers().e.bit_length() > _MAX_EXPONENT_BITS
    except UNREADABLE:
        return False
