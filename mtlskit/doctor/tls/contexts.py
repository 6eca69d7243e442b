"""Contexts for looking, which verify nothing: nothing is ever sent through what they make but handshakes."""

from __future__ import annotations

import ssl
import warnings
from typing import Final

__all__ = ["ANY_STRENGTH", "VERSIONS", "looking", "one_version"]

VERSIONS: Final = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
"""By OpenSSL's names, oldest first."""

ANY_STRENGTH: Final = "DEFAULT:@SECLEVEL=0"
"""The ciphers that authenticate the server and encrypt, however old, and keys and signatures of any
strength (openssl-ciphers(1)). TLS 1.0 and 1.1 sign with SHA-1, which higher levels forbid."""


def looking(alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """Offers what a tunnel offers, and takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def one_version(version: str, alpn: tuple[str, ...] = ()) -> ssl.SSLContext | None:
    """Offers one version alone, with ciphers of any strength; None where this OpenSSL cannot."""
    context = looking(alpn)
    try:
        context.set_ciphers(ANY_STRENGTH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions that RFC 8996 has retired: that is what is looked for
            context.minimum_version = VERSIONS["TLSv1"]
            context.maximum_version = context.minimum_version = VERSIONS[version]
    except (ValueError, ssl.SSLError):
        return None
    return context
