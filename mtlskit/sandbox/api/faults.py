"""Faults that can be switched on, so that clients meet what they would meet at Heroku on a bad day.

A fault is written `NAME[=VALUE][,match=PATHPART][,method=METHOD][,times=N][,skip=N]`: it acts on the calls whose path
holds PATHPART, leaves the first `skip` of them alone, and acts `times` times. Faults of the answer act one at a time:
the first that matches. Nothing under `/sandbox/` is ever hit, so a fault can always be switched off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

__all__ = ["FAULTS", "Fault", "Faults", "make_fault", "parse_fault"]

FAULTS: Final[Mapping[str, str]] = {
    "html": "an HTML page instead of JSON, with the status VALUE (200); nothing was done",
    "truncated": "the call is done; its JSON ends in the middle",
    "cut": "the call is done; the connection ends in the middle of the answer",
    "hang": "no answer at all; nothing was done",
    "hang-after": "the call is done, and no answer comes",
    "lose-before": "the connection is reset; nothing was done",
    "lose-after": "the call is done, and the connection is reset instead of an answer",
    "400": "a 400; nothing was done",
    "403": "a 403; nothing was done",
    "404": "a 404; nothing was done",
    "409": "a 409; nothing was done",
    "422": "a 422; nothing was done",
    "429": "a 429 with Retry-After: VALUE (1); nothing was done",
    "500": "a 500; nothing was done",
    "502": "a 502; nothing was done",
    "503": "a 503; nothing was done",
    "504": "a 504; nothing was done",
    "500-after": "the call is done, and a 500 is answered",
    "two-factor": "a 403 that asks for a second factor, until the header has VALUE (any six digits)",
    "expired-token": "a 401, as if the token had expired",
    "slow-rules": "new IP rules take VALUE (3600) seconds to act, whatever the speed-up",
    "duplicates": "a CIDR that has a rule already is taken again",
    "reset": "the gateway resets clients that no rule lets in, instead of saying nothing",
    "echo-disagree": "the echo service b answers VALUE (127.0.0.99)",
}
"""Every fault, and what it does."""

_STANDING: Final = frozenset({"slow-rules", "duplicates", "reset", "echo-disagree"})
"""Faults that change how the sandbox works, and not the answer to one call."""

_NUMBERS: Final = re.compile(r"[0-9]{1,6}")
_MOST: Final = 100
"""Faults at a time."""


@dataclass(frozen=True)
class Fault:
    """One fault. `times` None: for good."""

    name: str
    value: str = ""
    match: str = ""
    method: str = ""
    times: int | None = None
    skip: int = 0

    def told(self) -> dict[str, Any]:
        """For the answer of `/sandbox/faults`."""
        return {key: getattr(self, key) for key in ("name", "value", "match", "method", "times", "skip")}


def make_fault(name: str, **details: Any) -> Fault:
    """Raises ValueError with a sentence."""
    if name not in FAULTS:
        raise ValueError(f"there is no fault {name!r}; there are {', '.join(FAULTS)}")
    if unknown := details.keys() - {"value", "match", "method", "times", "skip"}:
        raise ValueError(f"a fault has no {', '.join(sorted(unknown))}; it has value, match, method, times and skip")
    texts = {key: str(details.get(key) or "") for key in ("value", "match", "method")}
    numbers = {key: _number(key, details[key]) for key in ("times", "skip") if details.get(key) is not None}
    if name in ("html", "429", "slow-rules", "two-factor") and texts["value"]:
        value = _number(f"value of {name}", texts["value"])
        if name == "html" and not 200 <= value <= 599:
            raise ValueError(f"the value of html is a status from 200 to 599, not {value}")
    if name == "echo-disagree" and texts["value"]:
        IPv4Address(texts["value"])
    return Fault(name, texts["value"], texts["match"], texts["method"].upper(), **numbers)


def parse_fault(text: str) -> Fault:
    """A fault as `--fault` has it. Raises ValueError with a sentence."""
    head, *details = text.split(",")
    name, _, value = head.partition("=")
    pairs = [detail.partition("=") for detail in details]
    return make_fault(name, **({"value": value} | {key: found for key, _, found in pairs}))


class Faults:
    """Those that are switched on."""

    def __init__(self) -> None:
        self._on: list[Fault] = []
        self._seen: list[int] = []

    def add(self, fault: Fault) -> None:
        """Switch one on. Raises ValueError if there are too many."""
        if len(self._on) >= _MOST:
            raise ValueError(f"{_MOST} faults are on already")
        self._on.append(fault)
        self._seen.append(0)

    def clear(self, name: str | None = None) -> None:
        """Switch those of one name off, or all."""
        kept = [n for n, fault in enumerate(self._on) if name is not None and fault.name != name]
        self._on, self._seen = [self._on[n] for n in kept], [self._seen[n] for n in kept]

    def on(self) -> tuple[Fault, ...]:
        """Those that may still act."""
        pairs = zip(self._on, self._seen, strict=True)
        return tuple(fault for fault, seen in pairs if fault.times is None or seen < fault.skip + fault.times)

    def acted(self, name: str) -> bool:
        """Whether a call was hit by a fault of this name that is on."""
        pairs = zip(self._on, self._seen, strict=True)
        return any(fault.name == name and seen > fault.skip for fault, seen in pairs)

    def standing(self, name: str) -> Fault | None:
        """Whether a fault of this kind is on. Its match, times and skip do not count."""
        return next((fault for fault in self._on if fault.name == name), None)

    def of_call(self, method: str, path: str) -> Fault | None:
        """The one that acts on this call; it is counted."""
        for n, fault in enumerate(self._on):
            if fault.name in _STANDING or fault.match not in path or fault.method not in ("", method):
                continue
            self._seen[n] += 1
            number = self._seen[n] - fault.skip
            if number >= 1 and (fault.times is None or number <= fault.times):
                return fault
        return None


def _number(what: str, value: object) -> int:
    text = str(value)
    if not _NUMBERS.fullmatch(text):
        raise ValueError(f"{what}: {text!r} is not a number")
    return int(text)
