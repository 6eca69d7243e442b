"""The handshakes of one look at a server, side by side: as a tunnel does it, each version alone, and verified."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import trio
from cryptography import x509

from mtlskit.doctor.tls.contexts import VERSIONS, one_version
from mtlskit.doctor.tls.handshake import Handshake, Target, shake
from mtlskit.net.faults import OTHER_NAME

__all__ = ["NOT_TRIED", "OFFERED", "OLD", "REFUSED", "UNCLEAR", "Contexts", "Known", "Look", "look"]

Known = dict[Target, Mapping[str, Handshake]]
"""What a look has shown of each version alone. Each version that a server refuses is an error in its log, and who
watches would fill that with them."""

_MOST_KNOWN: Final = 64
"""Targets. A name may lead to other addresses at each look, for days."""

OFFERED: Final = "offered"
REFUSED: Final = "refused"
NOT_TRIED: Final = "not tried"
"""The OpenSSL of this host cannot speak it."""
UNCLEAR: Final = "unclear"
"""No answer, or one that is no answer to this question."""

OLD: Final = ("TLSv1", "TLSv1.1")
"""Retired by RFC 8996."""

_OUR_LIMITS: Final = frozenset({"NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE", "INTERNAL_ERROR"})
"""What our own OpenSSL says before a byte has been sent."""


@dataclass(frozen=True)
class Contexts:
    """What to look with."""

    recording: ssl.SSLContext
    """Offers what a tunnel does and verifies nothing; this look's own."""
    verifying: ssl.SSLContext | None = None
    """The tunnel's, or one like it; None: there is nothing to verify with."""
    chain_only: ssl.SSLContext | None = None
    """The same without a look at names."""


@dataclass(frozen=True)
class Look:
    """What a server has shown."""

    recorded: Handshake
    alone: Mapping[str, Handshake] = field(default_factory=dict)
    """With each version on its own and ciphers of any strength; without those that this host cannot speak."""
    verified: Handshake | None = None
    chain_only: Handshake | None = None
    """Made where `verified` has failed at a name, which OpenSSL looks at before dates and signatures."""

    @property
    def versions(self) -> dict[str, str]:
        """By OpenSSL's names, oldest first: `OFFERED`, `REFUSED`, `NOT_TRIED` or `UNCLEAR`."""
        found = {version: _state(self.alone.get(version), version) for version in VERSIONS}
        if self.recorded.answered and self.recorded.version in found:
            found[self.recorded.version] = OFFERED
        return found

    @property
    def shown(self) -> Handshake:
        """The handshake that shows most: as a tunnel has it, or the newest that came to a chain."""
        if self.recorded.answered:
            return self.recorded
        return next((each for each in reversed(list(self.alone.values())) if each.chain), self.recorded)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """As presented, leaf first."""
        return self.shown.chain

    @property
    def shaken(self) -> bool:
        """The server plays its part of a handshake with a tunnel; what it makes of us is another matter."""
        return self.recorded.played

    @property
    def passes(self) -> bool | None:
        """Whether the verifying context is content; None where there was none."""
        return None if self.verified is None else _content(self.verified)

    @property
    def chain_passes(self) -> bool | None:
        """Whether the chain leads to a trust anchor, whatever the names."""
        return _content(self.chain_only) if self.chain_only is not None else self.passes


async def look(target: Target, contexts: Contexts, *, step: float, known: Known | None = None) -> Look:
    """All of it within `step` seconds. Never raises for what the server does.

    With `known`, which is kept up to date, the versions are tried one by one only where that is not known, or is of
    interest: the server offers old ones, or does not shake hands as it did.
    """
    deadline = trio.current_time() + step
    found: dict[str, Handshake] = {}
    alone = {} if known is None else known.get(target, {})

    async def one(name: str, context: ssl.SSLContext, record: bool = True) -> None:
        found[name] = await shake(target, context, deadline=deadline, record=record)

    def each_alone(nursery: trio.Nursery) -> None:
        for version in VERSIONS:
            context = one_version(version, target.alpn)
            if context is not None:
                nursery.start_soon(one, version, context)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "recorded", contexts.recording)
        if contexts.verifying is not None:
            # Others may be using it at the same time, so nothing is put into it.
            nursery.start_soon(one, "verified", contexts.verifying, False)
        if not alone:
            each_alone(nursery)
    if alone and not _settled(found["recorded"], alone):
        alone = {}
        async with trio.open_nursery() as nursery:
            each_alone(nursery)
    verified = found.get("verified")
    if verified is not None and contexts.chain_only is not None and _other_name(verified):
        await one("chain only", contexts.chain_only)
    alone = alone or {version: found[version] for version in VERSIONS if version in found}
    if known is not None:
        _remember(known, target, found["recorded"], alone)
    return Look(found["recorded"], alone, verified, found.get("chain only"))


def _remember(known: Known, target: Target, recorded: Handshake, alone: Mapping[str, Handshake]) -> None:
    known.pop(target, None)
    if _settled(recorded, alone):
        known[target] = alone
    if len(known) > _MOST_KNOWN:
        del known[next(iter(known))]


def _settled(recorded: Handshake, alone: Mapping[str, Handshake]) -> bool:
    """The versions are as they should be, and fit with what a tunnel gets."""
    states = {version: _state(alone.get(version), version) for version in VERSIONS}
    offered = [version for version, state in states.items() if state == OFFERED]
    unsettled = UNCLEAR in states.values() or any(version in OLD for version in offered)
    return recorded.answered and not unsettled and offered[-1:] == [recorded.version]


def _state(handshake: Handshake | None, version: str) -> str:
    if handshake is None:
        return NOT_TRIED
    if handshake.answered:
        return OFFERED if not handshake.version or handshake.version == version else REFUSED
    match handshake.error:
        case ssl.SSLError() as exc if getattr(exc, "reason", None) in _OUR_LIMITS:  # one made in Python has none
            return NOT_TRIED
        case ssl.SSLError() | ConnectionResetError():
            return REFUSED
    return UNCLEAR


def _content(handshake: Handshake) -> bool:
    """It has gone on beyond the server's certificate, even where ours was refused afterwards."""
    verification = isinstance(handshake.error, ssl.SSLCertVerificationError)
    return handshake.done or bool(handshake.chain and handshake.error is not None and not verification)


def _other_name(handshake: Handshake) -> bool:
    error = handshake.error
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in OTHER_NAME
