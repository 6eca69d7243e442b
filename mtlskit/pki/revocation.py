"""Revocation lists (RFC 5280, section 5): which certificates of a CA no longer count, since when, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509

__all__ = ["Reason", "Revoked", "list_builder"]


class Reason(StrEnum):
    """Why a certificate was revoked: those of RFC 5280, section 5.3.1, that concern a leaf of a complete list."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    AFFILIATION_CHANGED = "affiliation-changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation-of-operation"
    PRIVILEGE_WITHDRAWN = "privilege-withdrawn"

    @classmethod
    def named(cls, text: str) -> Reason:
        """The reason as we write it, or as OpenSSL does (``keyCompromise``). Raises ValueError."""
        wanted = text.replace("-", "").lower()
        for reason in cls:
            if reason.value.replace("-", "") == wanted:
                return reason
        raise ValueError(f"not a reason; write {', '.join(cls)}")


_FLAGS = {
    Reason.KEY_COMPROMISE: x509.ReasonFlags.key_compromise,
    Reason.AFFILIATION_CHANGED: x509.ReasonFlags.affiliation_changed,
    Reason.SUPERSEDED: x509.ReasonFlags.superseded,
    Reason.CESSATION_OF_OPERATION: x509.ReasonFlags.cessation_of_operation,
    Reason.PRIVILEGE_WITHDRAWN: x509.ReasonFlags.privilege_withdrawn,
}
"""An unspecified reason is told by leaving the extension out, as RFC 5280 wants it."""


@dataclass(frozen=True)
class Revoked:
    """One line of a list. `at` is aware, in whole seconds."""

    serial: int
    at: datetime
    reason: Reason = Reason.UNSPECIFIED


def list_builder(
    issuer: x509.Name, revoked: Iterable[Revoked], *, begins: datetime, ends: datetime, number: int
) -> x509.CertificateRevocationListBuilder:
    """A list that lacks the issuer's key identifier and its signature. Of each serial the first line counts."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(begins).next_update(ends)
    first: dict[int, Revoked] = {}
    for each in revoked:
        first.setdefault(each.serial, each)
    for _, each in sorted(first.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(each.at)
        if each.reason in _FLAGS:
            entry = entry.add_extension(x509.CRLReason(_FLAGS[each.reason]), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.add_extension(x509.CRLNumber(number), critical=False)
