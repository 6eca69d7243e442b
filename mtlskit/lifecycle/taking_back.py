"""Taking certificates back: only where that is wanted, only what this store has asked for, and never what is in use.

Three occasions: the last step of a rotation, a debt that an earlier one had to leave because sessions were still open,
and a rotation that is given up after its certificate was made. What is asked for by a person is in
`mtlskit.lifecycle.revoking`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mtlskit.config.values import IdentityConfig
from mtlskit.errors import Code, MtlskitError, StoreError
from mtlskit.issuers.base import Facts
from mtlskit.lifecycle.events import RotationNoted
from mtlskit.lifecycle.target import Target, Tools
from mtlskit.lifecycle.work import Done, Work
from mtlskit.store.audit import write_audit
from mtlskit.store.identities import Version
from mtlskit.store.journal import ABANDONED, BEGUN, REVOKE, REVOKED, Journal, Rotation

__all__ = ["ABANDONING", "Replaced", "current_of", "give_up", "origin_of", "pay_debts", "revoke_old", "settings_of"]

ABANDONING = "abandoning"
"""The journal's word for a rotation that is being given up: its certificate may be revoked already."""

_CANNOT = frozenset({Code.ROTATION_REFUSED, Code.CA_UNKNOWN_SERIAL})
"""What an issuer says that will never revoke this certificate; asking it again would only fail again."""


def origin_of(identity: IdentityConfig) -> str:
    """Which add-on the certificates come from; empty for other issuers: a CA knows its own serials."""
    return identity.issuer.addon or ""


def settings_of(identity: IdentityConfig) -> str:
    """A digest of what a request depends on: a request that was made under other settings is made anew."""
    issuer = identity.issuer
    folder = issuer.ca_dir.name if issuer.ca_dir is not None else ""  # its path changes when all of it is moved
    told = (issuer.kind, issuer.subject, issuer.san, issuer.key_type, issuer.addon, folder, issuer.command)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def current_of(target: Target) -> Version | None:
    """The version in use; None for one that is damaged too: it is to be replaced. Raises `StoreError` otherwise."""
    try:
        return target.stored.current()
    except StoreError as exc:
        if exc.code is not Code.STORE_DAMAGED:
            raise
        return None


@dataclass(frozen=True)
class Replaced:
    """The certificate that a rotation replaces, as the journal has it."""

    serial: str
    remote_id: str | None
    issuer: str
    origin: str
    made_here: bool

    @classmethod
    def by(cls, rotation: Rotation) -> Replaced:
        """What `rotation` replaces, or has replaced; its serial is empty where there was nothing."""
        begun = rotation.facts(BEGUN)
        return cls(
            str(begun.get("old_serial") or ""),
            begun.get("old_remote_id"),
            str(begun.get("old_issuer") or ""),
            str(begun.get("old_origin") or ""),
            bool(begun.get("old_made_here")),
        )

    def kept_because(self, target: Target, *spared: str) -> str:
        """Why it is never to be revoked; empty if it may be. `spared` are serials that are about to be used."""
        identity = target.identity
        current = current_of(target)
        if not identity.revoke_old:
            return "revoke_old is off"
        if self.serial in spared or (current is not None and current.facts.serial == self.serial):
            return "it is in use again"
        if not self.made_here:
            return "this store did not ask for it, so others may use it"
        if self.issuer and self.issuer != str(identity.issuer.kind):
            return f"it came from {self.issuer}, and the issuer is {identity.issuer.kind} now"
        if self.origin and self.origin != origin_of(identity):
            return f"it came from {self.origin}, and the identity is set to {origin_of(identity)} now"
        return ""


async def revoke_old(work: Work, new_serial: str) -> Done:
    """The last step of a rotation: the certificate that it has replaced."""
    target, old = work.target, Replaced.by(work.rotation)
    if not old.serial or not target.identity.revoke_old:
        return Done()
    if why := old.kept_because(target, new_serial):
        work.note(f"the old certificate {old.serial} is not revoked: {why}")
        return Done(facts={"owed": False})
    if await _sessions(target, work.tools, old.serial) != 0:  # now, and not when `drain` has looked
        work.note(
            f"the old certificate {old.serial} is not revoked yet: sessions may still use it; the next run looks again"
        )
        return Done(facts={"owed": True, "serial": old.serial, "remote_id": old.remote_id})
    try:
        told = await work.tools.issuer.revoke(old.serial, old.remote_id, now=work.tools.clock())
    except MtlskitError as exc:
        if exc.code not in _CANNOT:
            raise
        work.note(f"the old certificate is not revoked: {exc.sentence}; {exc.hint}")
        return Done(facts={"owed": False})
    return Done(f"revoked the old certificate: {told}", {"owed": False, "serial": old.serial})


async def pay_debts(target: Target, tools: Tools, journal: Journal, *, but: str = "") -> list[str]:
    """Revoke what earlier rotations had to leave (but not the one called `but`), once no session uses it.

    What came of each, for people. Raises `StoreError` where that cannot be written down.
    """
    heard = []
    for rotation in journal.owed():
        if rotation.id == but:
            continue  # it has just looked
        old = Replaced.by(rotation)
        why = old.kept_because(target)
        if not why and await _sessions(target, tools, old.serial) != 0:
            heard.append(
                f"the certificate {old.serial} is still to be revoked, once it is sure that no session uses it"
            )
            continue
        told = f"the certificate {old.serial} of an earlier rotation is not revoked: {why}"
        if not why:
            try:
                done = await tools.issuer.revoke(old.serial, old.remote_id, now=tools.clock())
                write_audit(target.store, "revoked", target.name, now=tools.clock(), serial=old.serial, told=done)
                told = f"revoked the certificate of an earlier rotation: {done}"
            except MtlskitError as exc:
                final = exc.code in _CANNOT
                still = "" if final else "still "
                told = f"the certificate {old.serial} of an earlier rotation is {still}not revoked: {exc.sentence}"
                _note(target, tools, told)
                if not final:
                    heard.append(told)
                    continue
        else:
            _note(target, tools, told)
        journal.note(rotation, REVOKED, tools.clock(), told=told)
        heard.append(told)
    return heard


async def give_up(target: Target, tools: Tools, journal: Journal, rotation: Rotation, why: str) -> None:
    """Give a rotation up; the certificate that it made, and that nobody uses, is revoked where that can be.

    Bears to be killed: once it is written down that it has begun, the rotation is never gone on with. Raises
    `StoreError`.
    """
    stored = target.stored
    current, staged = current_of(target), stored.version_of(rotation.id)
    in_use = current is not None and current.facts.rotation == rotation.id
    rotation = journal.note(rotation, ABANDONING, tools.clock(), reason=why)
    told = ""
    if in_use:
        rotation = _leave_debt(target, tools, journal, rotation)
    elif staged is None or staged.facts.made_here:
        told = await _take_back(target, tools, rotation, staged)
    write_audit(
        target.store, "rotation abandoned", target.name, now=tools.clock(), rotation=rotation.id, reason=why, told=told
    )
    journal.note(rotation, ABANDONED, tools.clock(), reason=why, told=told)
    stored.discard_pending(rotation.id)
    if staged is not None and not in_use:
        stored.remove(staged.number)
    _note(target, tools, f"rotation {rotation.id} is given up: {why}" + (f"; {told}" if told else ""))


def _leave_debt(target: Target, tools: Tools, journal: Journal, rotation: Rotation) -> Rotation:
    """What this rotation has replaced, and was to revoke, is for the next one to revoke."""
    old = Replaced.by(rotation)
    if REVOKE in rotation.steps or not old.serial or old.kept_because(target):
        return rotation
    return journal.note(rotation, REVOKE, tools.clock(), owed=True, serial=old.serial, remote_id=old.remote_id)


async def _take_back(target: Target, tools: Tools, rotation: Rotation, staged: Version | None) -> str:
    begun = rotation.facts(BEGUN)
    asked, origin = str(begun.get("issuer")), str(begun.get("origin") or "")
    same = asked == str(target.identity.issuer.kind) and origin in ("", origin_of(target.identity))
    try:
        receipt = await _receipt(target, tools, rotation, staged, same)
    except MtlskitError as exc:
        return f"whether it has got a certificate is not known: {exc.sentence}"
    serial = staged.facts.serial if staged is not None else str(receipt.get("serial", ""))
    remote_id = staged.facts.remote_id if staged is not None else receipt.get("id")
    if not (serial or remote_id):
        return ""
    kept = f"its certificate {serial or remote_id} is not revoked:"
    if not receipt.get("surely_ours", True):
        return f"{kept} another host may have asked for it"
    if not same:
        return f"{kept} that is for {asked} to do"
    current = current_of(target)
    if current is not None and current.facts.serial == serial:
        return f"{kept} it is in use"
    if rotation.facts("prove").get("hooked") or (target.hooks.before_switch and "prove" in rotation.steps):
        return f"{kept} the hook before_switch may have carried it to other hosts"
    try:
        return await tools.issuer.revoke(serial, remote_id, now=tools.clock())
    except MtlskitError as exc:
        return f"{kept} {exc.sentence}"


async def _receipt(target: Target, tools: Tools, rotation: Rotation, staged: Version | None, same: bool) -> Facts:
    """What the issuer has given this rotation, also where it was killed before that was written down."""
    receipt: Facts | None = rotation.facts("request").get("receipt")
    if receipt is None and staged is None and same and "survey" in rotation.steps:
        work = Work.looking_back(target, tools, rotation)
        receipt = await tools.issuer.find(work.order(), rotation.facts("survey").get("found", {}))
    return receipt or {}


async def _sessions(target: Target, tools: Tools, serial: str) -> int | None:
    return await tools.proxies.sessions(target.identity.cert, serial, expected=bool(target.tunnels))


def _note(target: Target, tools: Tools, note: str) -> None:
    tools.emit(RotationNoted(identity=target.name, note=note))
