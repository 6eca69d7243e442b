"""The parts of a subject: how long each may be, and of which letters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from cryptography import x509
from cryptography.x509.oid import NameOID

__all__ = ["PART_LIMITS", "fault_of"]

PART_LIMITS: Mapping[x509.ObjectIdentifier, int] = MappingProxyType(
    {
        NameOID.COMMON_NAME: 64,
        NameOID.ORGANIZATION_NAME: 128,
        NameOID.ORGANIZATIONAL_UNIT_NAME: 128,
        NameOID.COUNTRY_NAME: 2,
        NameOID.STATE_OR_PROVINCE_NAME: 128,
        NameOID.LOCALITY_NAME: 128,
        NameOID.STREET_ADDRESS: 128,
        NameOID.POSTAL_CODE: 40,
        NameOID.DOMAIN_COMPONENT: 63,
        NameOID.USER_ID: 256,
        NameOID.SERIAL_NUMBER: 64,
        NameOID.EMAIL_ADDRESS: 255,
        NameOID.GIVEN_NAME: 64,
        NameOID.SURNAME: 64,
        NameOID.TITLE: 64,
        NameOID.PSEUDONYM: 128,
        NameOID.DN_QUALIFIER: 64,
        NameOID.ORGANIZATION_IDENTIFIER: 256,
    }
)
"""The parts that are known, with the most characters of each: RFC 5280, appendix A.1, or a little more."""

_LONGEST = 256  # characters of a part that is not known here

_ANYTHING = re.compile(r".*")
_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
_ASCII = re.compile(r"[ -~]*")
_ALPHABETS = {
    NameOID.COUNTRY_NAME: re.compile(r"[A-Za-z]{2}"),
    NameOID.JURISDICTION_COUNTRY_NAME: re.compile(r"[A-Za-z]{2}"),
    NameOID.SERIAL_NUMBER: _PRINTABLE,
    NameOID.DN_QUALIFIER: _PRINTABLE,
    NameOID.DOMAIN_COMPONENT: _ASCII,
    NameOID.EMAIL_ADDRESS: _ASCII,
}
"""The parts that are a PrintableString or an IA5String (RFC 5280, appendix A.1). cryptography does not look."""


def fault_of(part: x509.NameAttribute[str | bytes]) -> str:
    """What is wrong with a part, as the rest of a sentence; nothing if it can stand in a certificate.

    Characters that cannot be seen make two names look alike, or end one early for whoever reads it as a C string.
    """
    value, limit = part.value, PART_LIMITS.get(part.oid, _LONGEST)
    if not isinstance(value, str) or not value:
        return "is empty"
    if not value.isprintable() or value != value.strip():
        return "has characters that cannot be seen"
    if len(value) > limit:
        return f"has {len(value)} characters, {limit} are the most"
    if not _ALPHABETS.get(part.oid, _ANYTHING).fullmatch(value):
        return "has characters that do not belong there"
    try:
        x509.NameAttribute(part.oid, value)
    except ValueError as exc:
        return f"is not valid: {exc}"
    return ""
