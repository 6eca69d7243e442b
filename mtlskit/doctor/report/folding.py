"""Tunnels of one file that fail for the same cause: it is said to people once, with all of their names."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mtlskit.doctor.diagnosis import Diagnosis
from mtlskit.doctor.finding import Finding

__all__ = ["Group", "grouped"]


@dataclass(frozen=True)
class Group:
    """Diagnoses that have one cause; or a single one, whatever its cause."""

    diagnoses: tuple[Diagnosis, ...]

    @property
    def shared(self) -> Finding | None:
        """The cause, as it is said of all of them; None where there is but one tunnel."""
        causes = [each.cause for each in self.diagnoses if each.cause is not None]
        if len(causes) < 2:
            return None
        commands = _joined([(each.name, cause.commands) for each, cause in zip(self.diagnoses, causes, strict=True)])
        return replace(causes[0], seen=causes[0].shared or causes[0].seen, commands=commands)


def grouped(diagnoses: Sequence[Diagnosis]) -> tuple[Group, ...]:
    """All of them, each group where its first one stood."""
    found: dict[object, list[Diagnosis]] = {}
    for place, diagnosis in enumerate(diagnoses):
        cause = diagnosis.cause
        key: object = place
        if cause is not None:
            key = (cause.check, cause.code, cause.shared or cause.seen, cause.hint)
        found.setdefault(key, []).append(diagnosis)
    return tuple(Group(tuple(each)) for each in found.values())


def _joined(told: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    """The commands for all of these tunnels, by name. Those that end in the tunnel's name become one with all names:
    ours take several, and `mtlskit proxy` twice would be two proxies, of which a shell starts only the first.
    """
    names: dict[str, list[str]] = {}
    for name, commands in told:
        end = f" {shlex.quote(name)}"
        for command in commands:
            if command.startswith("mtlskit ") and command.endswith(end):
                names.setdefault(command.removesuffix(end), []).append(end)
            else:
                names.setdefault(command, [])
    # An identity may have the name of one tunnel and be used by another: then a command comes both ways.
    return tuple(dict.fromkeys(stem + "".join(ends) for stem, ends in names.items()))
