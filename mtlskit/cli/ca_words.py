"""What `mtlskit ca` says of certificates: as a table for people, and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mtlskit.cli.render import colourful, line, warn
from mtlskit.cli.spans import end_text, span_text

if TYPE_CHECKING:
    from mtlskit.store.ledger import Entry

__all__ = ["counted", "day", "entry_facts", "fingerprint_text", "names_of", "root_facts", "table", "tell_of_list"]

_SOON = timedelta(days=30)
_RED, _YELLOW, _GREEN, _DIM, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[2m", "\x1b[0m"


def day(moment: datetime) -> str:
    """The date, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def fingerprint_text(digest: bytes) -> str:
    """As OpenSSL writes it: upper case, with colons."""
    return digest.hex(":").upper()


def entry_facts(entry: Entry, now: datetime) -> dict[str, object]:
    """A certificate for scripts. Times are ISO 8601 in UTC; the key's pin is base64."""
    return {
        "serial": entry.serial,
        "subject": entry.subject,
        "names": list(names_of(entry)),
        "profile": entry.profile.value,
        "state": entry.state(now).value,
        "not_before": entry.not_before.isoformat(),
        "not_after": entry.not_after.isoformat(),
        "issued_at": entry.issued_at.isoformat(),
        "revoked_at": entry.revoked_at.isoformat() if entry.revoked_at else None,
        "reason": entry.reason.value if entry.reason else None,
        "spki_sha256": entry.spki_sha256,
    }


def names_of(entry: Entry) -> tuple[str, ...]:
    """The alternative names, as `--san` takes them."""
    from cryptography import x509

    from mtlskit.pki.certificates import bounded_text, extension
    from mtlskit.pki.requests import alternative_text

    certificate = x509.load_der_x509_certificate(entry.certificate)
    found = extension(certificate, x509.SubjectAlternativeName, source=f"the certificate {entry.serial}")
    return tuple(bounded_text(alternative_text(name)) for name in found or ())


def table(entries: Sequence[Entry], now: datetime) -> Iterator[str]:
    """A row for each certificate, below a heading; nothing where there is none. Coloured on a terminal."""
    if not entries:
        return
    ends = [end_text(entry.not_after, entry.not_before) for entry in entries]
    rows = [
        (entry.serial, entry.profile.value, end, _state(entry, now)) for entry, end in zip(entries, ends, strict=True)
    ]
    headings = ("SERIAL", "PROFILE", "ENDS", "STATE")
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    yield _row(headings, widths, "SUBJECT")
    colours = colourful(sys.stdout)
    for entry, row in zip(entries, rows, strict=True):
        text = _row(row, widths, entry.subject or "(none)")
        yield f"{_colour(entry, now)}{text}{_PLAIN}" if colours else text


def _row(cells: Sequence[str], widths: Sequence[int], last: str) -> str:
    return "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), last])


def _state(entry: Entry, now: datetime) -> str:
    if entry.revoked_at is not None:
        return f"revoked {day(entry.revoked_at)}"
    if now >= entry.not_after:
        return "expired"
    return f"valid, {span_text((entry.not_after - now).total_seconds())} left"


def _colour(entry: Entry, now: datetime) -> str:
    if entry.revoked_at is not None:
        return _RED
    if now >= entry.not_after:
        return _DIM
    return _YELLOW if entry.not_after - now < _SOON else _GREEN


def root_facts(folder: Path, ends: datetime, fingerprint: bytes) -> dict[str, object]:
    """The root for scripts."""
    return {"cert": str(folder / "ca.crt"), "not_after": ends.isoformat(), "fingerprint_sha256": fingerprint.hex()}


def tell_of_list(folder: Path, ends: datetime | None, unlisted: int, now: datetime) -> None:
    """How long the revocation list counts, or a warning that something is wrong with it."""
    path, again = folder / "ca.crl", f"mtlskit ca crl --dir {folder}"
    if ends is None:
        warn(f"{path} is missing or cannot be read; write it anew: {again}")
    elif unlisted:
        warn(f"{path} lacks {counted(unlisted, 'revoked certificate')}; write it anew: {again}")
    elif ends <= now:
        warn(
            f"{path} was good until {end_text(ends, now)}, and servers refuse every client now; write it anew: {again}"
        )
    else:
        line(f"{path} is good until {end_text(ends, now)}")


def counted(number: int, what: str) -> str:
    """As in "1 name", "2 names"."""
    return f"{number} {what}{'' if number == 1 else 's'}"
