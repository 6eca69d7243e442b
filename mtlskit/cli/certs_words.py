"""Certificates in words and as JSON: the one place that says how the facts of a certificate are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from mtlskit.cli.render import alarming, line
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.pki.facts import CertificateFacts
    from mtlskit.pki.inspection import Inspection

__all__ = ["certificate_json", "inspection_facts", "moment_text", "tell_certificates", "tell_of"]

_FORMS = {"pem": "PEM", "pkcs12": "PKCS #12", "der": "DER"}
_WIDTH = 14


def inspection_facts(inspection: Inspection) -> dict[str, object]:
    """What was found, for scripts. Times are ISO 8601 in UTC, digests lower-case hexadecimal."""
    key = inspection.key
    return {
        "source": inspection.source,
        "form": inspection.form,
        "good": inspection.good,
        "certificates": [certificate_json(facts) for facts in inspection.certificates],
        "chain": list(inspection.chain),
        "root_included": inspection.root_included,
        "open_end": inspection.open_end,
        "gaps": list(inspection.gaps),
        "notes": list(inspection.notes),
        "key": None
        if key is None
        else {"source": key.source, "kind": key.kind, "spki_sha256": key.spki_sha256, "fits": key.fits},
    }


def certificate_json(facts: CertificateFacts) -> dict[str, object]:
    """The facts of one certificate, for scripts."""
    return {
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "names": list(facts.names),
        "key_usages": list(facts.key_usages),
        "purposes": list(facts.purposes),
        "key": facts.key,
        "not_before": _iso(facts.not_before),
        "not_after": _iso(facts.not_after),
        "days_left": facts.days_left,
        "state": facts.state,
        "signature": facts.signature,
        "fingerprint_sha256": facts.fingerprint_sha256,
        "spki_sha256": facts.spki_sha256,
        "pin": facts.pin,
        "is_ca": facts.is_ca,
        "path_length": facts.path_length,
        "subject_key_identifier": facts.subject_key_identifier,
        "authority_key_identifier": facts.authority_key_identifier,
        "other_extensions": list(facts.other_extensions),
        "oddities": list(facts.oddities),
    }


def tell_of(inspections: Sequence[Inspection]) -> None:
    """Print what was found, for people."""
    for position, inspection in enumerate(inspections):
        if position:
            line()
        _tell(inspection)


def moment_text(moment: datetime) -> str:
    """A moment in the user's zone and in UTC; once where they are the same, or where the calendar ends."""
    universal = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    try:
        local = moment.astimezone()
    except (OverflowError, OSError, ValueError):  # "no end" is the last second of 9999: further east there is no such
        return universal
    if not local.utcoffset():
        return universal
    return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()} ({universal})"


def _tell(inspection: Inspection) -> None:
    count = len(inspection.certificates)
    held = f"{count} certificate{'' if count == 1 else 's'}" if count else "no certificate"
    if inspection.key is not None and inspection.key.source == inspection.source:
        held += " and a private key"
    line(printable(f"{inspection.source}: {_FORMS[inspection.form]}, {held}"))
    tell_certificates(inspection.certificates, partial(_place, inspection))
    line()
    _tell_chain(inspection)
    _tell_key(inspection)
    for note in inspection.notes:
        _row("Note", note)


def tell_certificates(certificates: Sequence[CertificateFacts], place: Callable[[int], str] = lambda _: "") -> None:
    """Print the facts of each, for people. `place` says more of the one at a position, counted from 1."""
    count = len(certificates)
    for position, facts in enumerate(certificates, 1):
        line()
        if count > 1:
            line(f"  certificate {position} of {count}{place(position)}")
        for name, value, bad in _rows(facts):
            _row(name, value, bad=bad)


def _place(inspection: Inspection, position: int) -> str:
    if not inspection.chain or position <= len(inspection.chain):
        return ""
    return ", no part of the chain"


def _tell_chain(inspection: Inspection) -> None:
    for position, name in enumerate(inspection.chain):
        told = name or "(no subject)"
        _row("" if position else "Chain", f"issued by {told}" if position else told)
    if inspection.open_end and not inspection.gaps:
        _row("", f"issued by {inspection.open_end}, which is not in the file")
    for gap in inspection.gaps:
        _row("Gap", gap, bad=True)


def _tell_key(inspection: Inspection) -> None:
    key = inspection.key
    if key is None:
        return
    told = key.kind if key.source == inspection.source else f"{key.source}, {key.kind}"
    if not inspection.certificates:
        _row("Private key", f"{told}, SPKI SHA-256 {_colons(key.spki_sha256)}")
    elif key.fits is None:
        _row("Private key", f"{told}, belongs to none of these certificates", bad=True)
        _row("", f"its SPKI SHA-256 is {_colons(key.spki_sha256)}")
    else:
        _row("Private key", f"{told}, belongs to {key.fits}")


def _rows(facts: CertificateFacts) -> list[tuple[str, str, bool]]:
    rows = [
        ("Subject", facts.subject or "(empty)", False),
        ("Issuer", facts.issuer or "(empty)", False),
        ("Serial", facts.serial, False),
        ("Names", ", ".join(facts.names) or "none", False),
        ("For", ", ".join(facts.purposes) or "any purpose", False),
        ("Key usage", ", ".join(facts.key_usages) or "any use", False),
        ("CA", _ca_text(facts), False),
        ("Key", facts.key, False),
        ("Not before", moment_text(facts.not_before), facts.state == "not yet valid"),
        ("Not after", f"{moment_text(facts.not_after)}, {_left(facts)}", facts.state == "expired"),
        ("Signature", facts.signature, False),
        ("SHA-256", _colons(facts.fingerprint_sha256), False),
        ("SPKI SHA-256", _colons(facts.spki_sha256), False),
        ("Key pin", facts.pin, False),
    ]
    for name, value in (
        ("Key id", facts.subject_key_identifier),
        ("Issuer's id", facts.authority_key_identifier),
        ("Extensions", ", ".join(facts.other_extensions)),
    ):
        if value:
            rows.append((name, value, False))
    rows += [("Odd", oddity, True) for oddity in facts.oddities]
    return rows


def _row(name: str, value: str, *, bad: bool = False) -> None:
    text = printable(value)
    line(f"  {name:<{_WIDTH}}{alarming(text) if bad else text}")


def _ca_text(facts: CertificateFacts) -> str:
    if not facts.is_ca:
        return "no"
    return "yes" if facts.path_length is None else f"yes, path length {facts.path_length}"


def _left(facts: CertificateFacts) -> str:
    if facts.state == "expired":
        days = -facts.days_left - 1
        return "expired today" if days == 0 else f"expired {days} day{'' if days == 1 else 's'} ago"
    days = facts.days_left
    return "less than a day left" if days == 0 else f"{days} day{'' if days == 1 else 's'} left"


def _colons(digest: str) -> str:
    """As OpenSSL writes a fingerprint."""
    return bytes.fromhex(digest).hex(":").upper()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
