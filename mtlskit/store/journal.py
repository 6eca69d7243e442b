"""The journal of an identity: each step of each rotation, written down when it has been done.

A rotation that was killed is taken up where its journal ends, so every step must bear to be done twice. Where a step
changes something far away, what is needed to find out whether it has happened is written down *before* it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtlskit.errors import Code, IdentityError, StoreError
from mtlskit.store.files import write_file
from mtlskit.store.lines import append_line, read_lines

__all__ = ["ABANDONED", "BEGUN", "DONE", "FAILED", "REVOKE", "REVOKED", "Journal", "Rotation"]

BEGUN = "begun"
REVOKE = "revoke"
REVOKED = "revoked later"
DONE = "done"
FAILED = "failed"
"""No step, but why the last try did not come further."""
ABANDONED = "abandoned"
_ENDINGS = frozenset({DONE, ABANDONED})

_LONG = 1024 * 1024  # bytes, from which on the oldest rotations are forgotten
_KEPT = 100


@dataclass(frozen=True)
class Rotation:
    """What the journal says of one rotation: its steps by name, each with the facts that were written with it."""

    id: str
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether something is left to be done."""
        return not _ENDINGS & self.steps.keys()

    @property
    def last(self) -> str:
        """The last step that was done."""
        return [step for step in self.steps if step != FAILED][-1]

    def facts(self, step: str) -> Mapping[str, Any]:
        """What was written with a step; nothing if it has not been done."""
        return self.steps.get(step, {})


class Journal:
    """The journal of one identity. Whoever writes holds the identity's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rotations(self) -> list[Rotation]:
        """Every rotation, in the order in which they began. Raises `StoreError`."""
        found: dict[str, dict[str, Mapping[str, Any]]] = {}
        for record in read_lines(self._path):
            rotation, step = record.get("rotation"), record.get("step")
            if isinstance(rotation, str) and isinstance(step, str):
                found.setdefault(rotation, {})[step] = record
        return [Rotation(id, steps) for id, steps in found.items()]  # noqa: A001 - what it is

    def unfinished(self) -> Rotation | None:
        """The rotation to be taken up, if there is one. Raises `StoreError`."""
        rotations = self.rotations()
        return rotations[-1] if rotations and rotations[-1].open else None

    def finished(self) -> str:
        """The id of the last rotation that came to its end; empty where there is none. Raises `StoreError`."""
        return next((each.id for each in reversed(self.rotations()) if DONE in each.steps), "")

    def owed(self) -> list[Rotation]:
        """Finished rotations whose old certificate was to be revoked, and could not be yet. Raises `StoreError`."""
        return [each for each in self.rotations() if _owes(each)]

    def begin(self, now: datetime, **facts: Any) -> Rotation:
        """Begin a new rotation, and forget the oldest ones of a long journal. Raises `StoreError`."""
        self._shorten()
        return self.note(Rotation(f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"), BEGUN, now, **facts)

    def note(self, rotation: Rotation, step: str, now: datetime, **facts: Any) -> Rotation:
        """Write down that a step is done; the rotation as it is then. Raises `StoreError`."""
        record = {
            "time": now.astimezone(UTC).isoformat(timespec="seconds"),
            "rotation": rotation.id,
            "step": step,
            **facts,
        }
        append_line(self._path, record)
        return Rotation(rotation.id, {**rotation.steps, step: record})

    def _shorten(self) -> None:
        with suppress(OSError):  # of the file itself: the line that follows says what is wrong with it
            if self._path.stat().st_size >= _LONG:
                self._forget()

    def _forget(self) -> None:
        rotations = self.rotations()
        kept = [each for each in rotations[:-_KEPT] if _owes(each)] + rotations[-_KEPT:]
        lines = [json.dumps(record, separators=(",", ":")) for rotation in kept for record in rotation.steps.values()]
        try:
            write_file(self._path, "".join(f"{line}\n" for line in lines).encode("ascii"), replace=True)
        except IdentityError as exc:
            raise StoreError(Code.STORE_UNUSABLE, exc.sentence, exc.hint) from exc


def _owes(rotation: Rotation) -> bool:
    return bool(rotation.facts(REVOKE).get("owed")) and REVOKED not in rotation.steps
