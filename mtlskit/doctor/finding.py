"""What a check has found: a verdict, what was seen, and what to do about it.

A finding is for a person at three in the morning and for a script at once: `seen` is a sentence, `commands` can be
pasted, `check` and `code` are stable, `facts` are numbers and names. None of them ever holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mtlskit.errors import Code, MtlskitError

__all__ = ["Finding", "Layer", "Verdict", "failed", "passed", "skipped", "warned"]


class Verdict(StrEnum):
    """What is to be thought of what was seen."""

    PASS = "pass"  # noqa: S105 - a verdict, no secret
    WARN = "warn"
    """Nothing fails for it today: it will, or it weakens something, or it could not be looked at."""
    FAIL = "fail"
    """Clients do not get through because of this, or would not if they got so far."""
    SKIPPED = "skipped"
    """Nothing was looked at; `Finding.because` says why."""


class Layer(StrEnum):
    """Where a check belongs, in the order in which a connection depends on them, and a report shows them."""

    CONFIGURATION = "configuration"
    FILES = "files"
    IDENTITY = "identity"
    CLOCK = "clock"
    HEROKU = "heroku"
    ALLOWLIST = "allowlist"
    DNS = "dns"
    TCP = "tcp"
    NEGOTIATION = "negotiation"
    TLS = "tls"
    CLIENT_CERTIFICATE = "client-certificate"
    REVOCATION = "revocation"
    POSTGRES = "postgres"
    KAFKA = "kafka"
    LOCAL = "local"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check's result. Every WARN and FAIL has a code, whose section in docs/reference/errors.md says more."""

    layer: Layer
    check: str
    """Its stable name: the layer, a dot, and what was looked at, such as ``tcp.connect``."""
    verdict: Verdict
    seen: str
    """One sentence, lower case, without a full stop. Names what it speaks of; may hold a stranger's words, escaped."""
    about: str = ""
    """The file, endpoint, address, broker or add-on that was looked at; empty for the tunnel as a whole."""
    code: Code | None = None
    hint: str = ""
    """What to do, in words. Never empty for a FAIL."""
    commands: tuple[str, ...] = ()
    """What to type, each a line for a shell, quoted where it must be."""
    because: str = ""
    """Why nothing was looked at: the `check` that has to pass first, or a few words such as "no token"."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain values that JSON can hold, for scripts. The keys are a contract (docs/reference/doctor.md)."""
    seconds: float | None = None
    """How long that took, where it says something."""
    shared: str = ""
    """`seen` without what is the tunnel's own, for people and several tunnels that fail for the same; empty: there is
    nothing of its own in it."""

    def __post_init__(self) -> None:
        troubled = self.verdict in (Verdict.WARN, Verdict.FAIL)
        if troubled != (self.code is not None):
            raise ValueError(f"{self.check}: a code belongs to each WARN and FAIL, and to no other verdict")
        if self.verdict is Verdict.FAIL and not self.hint:
            raise ValueError(f"{self.check}: a FAIL says what to do")
        if not self.check.startswith(f"{self.layer}."):
            raise ValueError(f"{self.check}: the name of a check begins with its layer, {self.layer}")


def passed(
    layer: Layer, check: str, seen: str, *, about: str = "", seconds: float | None = None, **facts: Any
) -> Finding:
    """It is as it should be."""
    return Finding(layer=layer, check=check, verdict=Verdict.PASS, seen=seen, about=about, seconds=seconds, facts=facts)


def warned(
    layer: Layer,
    check: str,
    error: MtlskitError,
    *,
    about: str = "",
    commands: tuple[str, ...] = (),
    seconds: float | None = None,
    **facts: Any,
) -> Finding:
    """Attention is wanted, and nothing fails for it yet. The error's sentence, code and hint are the finding's."""
    return _from_error(Verdict.WARN, layer, check, error, about, commands, seconds, facts)


def failed(
    layer: Layer,
    check: str,
    error: MtlskitError,
    *,
    about: str = "",
    commands: tuple[str, ...] = (),
    seconds: float | None = None,
    **facts: Any,
) -> Finding:
    """It stops clients. The error's sentence, code and hint are the finding's; an empty hint is filled."""
    return _from_error(Verdict.FAIL, layer, check, error, about, commands, seconds, facts)


def skipped(layer: Layer, check: str, because: str, *, about: str = "", seen: str = "") -> Finding:
    """Nothing was looked at. `because` names the check that must pass first, or says in a few words what is missing."""
    return Finding(
        layer=layer, check=check, verdict=Verdict.SKIPPED, seen=seen or "not looked at", about=about, because=because
    )


def _from_error(
    verdict: Verdict,
    layer: Layer,
    check: str,
    error: MtlskitError,
    about: str,
    commands: tuple[str, ...],
    seconds: float | None,
    facts: Mapping[str, Any],
) -> Finding:
    return Finding(
        layer=layer,
        check=check,
        verdict=verdict,
        seen=error.sentence,
        about=about,
        code=error.code,
        hint=error.hint or f"read the section {error.code} in the reference of errors",
        commands=commands,
        seconds=seconds,
        facts=facts,
    )
