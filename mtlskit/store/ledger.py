"""The ledger of a CA: every certificate that it has issued, and every one that it has revoked, as JSON lines.

The ledger is the CA's memory, and its only one: what else stands in the folder (`issued/`, `ca.crl`) is made from it.
So one line holds all of a certificate, the certificate itself included, and a certificate is handed out only when its
line is on the disk. A kill before that leaves no trace of it, a kill after it loses nothing. Lines are added, never
changed: a revocation is a line of its own.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from mtlskit.errors import Code, StoreError
from mtlskit.pki.profiles import Profile
from mtlskit.pki.revocation import Reason, Revoked
from mtlskit.store.lines import append_line, read_lines

__all__ = ["Entry", "Ledger", "State"]

MAX_LEDGER = 256 * 1024 * 1024
"""Bytes. A certificate takes some 1,500, so this is more than a hundred thousand of them, and a second to read."""

_ISSUED, _REVOKED = "issued", "revoked"


class State(StrEnum):
    """What a certificate is good for."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Entry:
    """One certificate. Times are aware, in UTC and whole seconds."""

    serial: str
    """Lower-case hexadecimal, as everywhere."""
    subject: str
    profile: Profile
    not_before: datetime
    not_after: datetime
    spki_sha256: str
    """Base64, as a pin is written."""
    request_sha256: str
    """Hexadecimal, over the request's DER."""
    request_id: str | None
    """What the asker calls this request: asking again gives the same certificate."""
    issued_at: datetime
    notes: tuple[str, ...]
    certificate: bytes = field(repr=False)
    """DER."""
    revoked_at: datetime | None = None
    reason: Reason | None = None

    def state(self, now: datetime) -> State:
        """Revoked counts more than expired."""
        if self.revoked_at is not None:
            return State.REVOKED
        return State.EXPIRED if now >= self.not_after else State.VALID

    def revoked(self) -> Revoked | None:
        """The entry's line in a revocation list, if it belongs into one."""
        if self.revoked_at is None:
            return None
        return Revoked(int(self.serial, 16), self.revoked_at, self.reason or Reason.UNSPECIFIED)


class Ledger:
    """The file. Whoever adds to it holds the CA's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> tuple[Entry, ...]:
        """Every certificate, in the order of issue. Half a line at the end, left by a kill, does not count.

        Raises `StoreError`: STORE_UNUSABLE, and STORE_DAMAGED: a CA that has forgotten what it revoked must not go on.
        """
        found: dict[str, Entry] = {}
        if not self._path.exists():
            raise self._damaged("the ledger of the CA is missing")
        for number, record in enumerate(read_lines(self._path, limit=MAX_LEDGER), 1):
            try:
                match record.get("event"):
                    case "issued":
                        entry = _entry(record)
                        found[entry.serial] = entry
                    case "revoked":
                        at, reason = _moment(record["revoked_at"]), Reason(record["reason"])
                        serial = record["serial"]
                        if found[serial].revoked_at is None:
                            found[serial] = replace(found[serial], revoked_at=at, reason=reason)
                    case _:
                        raise self._damaged(f"record {number} of the ledger is of a kind that is not known here")
            except (KeyError, ValueError, TypeError, binascii.Error) as exc:
                raise self._damaged(f"record {number} of the ledger lacks something, or was changed") from exc
        return tuple(found.values())

    def add(self, entry: Entry) -> None:
        """Write down a certificate, before it is handed out. Raises `StoreError` (STORE_UNUSABLE)."""
        append_line(
            self._path,
            {
                "event": _ISSUED,
                "serial": entry.serial,
                "subject": entry.subject,
                "profile": entry.profile.value,
                "not_before": _text(entry.not_before),
                "not_after": _text(entry.not_after),
                "spki_sha256": entry.spki_sha256,
                "request_sha256": entry.request_sha256,
                "request_id": entry.request_id,
                "issued_at": _text(entry.issued_at),
                "notes": entry.notes,
                "certificate": base64.b64encode(entry.certificate).decode("ascii"),
            },
        )

    def revoke(self, serial: str, at: datetime, reason: Reason) -> None:
        """Write down that a certificate counts no longer. Raises `StoreError` (STORE_UNUSABLE)."""
        append_line(self._path, {"event": _REVOKED, "serial": serial, "revoked_at": _text(at), "reason": reason.value})

    def _damaged(self, what: str) -> StoreError:
        return StoreError(
            Code.STORE_DAMAGED,
            f"{self._path}: {what}",
            "restore the file from a backup: without it nobody knows what was issued, and what was revoked",
        )


def _entry(record: Mapping[str, Any]) -> Entry:
    """Raises KeyError, TypeError, ValueError."""
    texts = {name: record[name] for name in ("serial", "subject", "spki_sha256", "request_sha256")}
    request_id, notes = record["request_id"], record["notes"]
    if not all(isinstance(text, str) for text in (*texts.values(), request_id or "")):
        raise TypeError("a text is none")
    if f"{int(texts['serial'], 16):x}" != texts["serial"]:
        raise ValueError("not a serial as it is written here")
    return Entry(
        **texts,
        profile=Profile(record["profile"]),
        not_before=_moment(record["not_before"]),
        not_after=_moment(record["not_after"]),
        request_id=request_id,
        issued_at=_moment(record["issued_at"]),
        notes=tuple(str(note) for note in notes),
        certificate=base64.b64decode(record["certificate"], validate=True),
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC)
