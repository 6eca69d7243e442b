"""Revoking one certificate of an identity because somebody says so: a key was lost, a host is given up."""

from __future__ import annotations

from dataclasses import dataclass

from mtlskit.errors import Code, RotationError
from mtlskit.lifecycle.target import PATIENCE, Target, Tools
from mtlskit.store.audit import write_audit
from mtlskit.store.journal import BEGUN, Journal
from mtlskit.store.lock import held

__all__ = ["Known", "find_certificate", "revoke_certificate"]


@dataclass(frozen=True)
class Known:
    """A certificate that this store has seen. `serial` is lower-case hexadecimal, empty if only the id is known."""

    serial: str
    remote_id: str | None
    current: bool
    made_here: bool


def find_certificate(target: Target, serial: str) -> Known:
    """The certificate with this serial: of a version, or of a rotation that the journal tells of.

    Raises `RotationError` (ROTATION_REFUSED) for one that this store does not know, and `StoreError`.
    """
    current = target.stored.current()
    for version in target.stored.versions():
        if version.facts.serial == serial:
            in_use = current is not None and current.number == version.number
            return Known(serial, version.facts.remote_id, in_use, version.facts.made_here)
    for rotation in Journal(target.stored.journal_path).rotations():
        staged, begun = rotation.facts("stage"), rotation.facts(BEGUN)
        if staged.get("serial") == serial:
            return Known(serial, staged.get("remote_id"), current=False, made_here=not begun.get("given"))
        if begun.get("old_serial") == serial:
            return Known(serial, begun.get("old_remote_id"), False, bool(begun.get("old_made_here")))
    raise RotationError(
        Code.ROTATION_REFUSED,
        f"{target.name}: this store knows no certificate with the serial {serial}",
        f"see which it knows: mtlskit certs list, and {target.stored.journal_path}",
    )


async def revoke_certificate(target: Target, tools: Tools, known: Known) -> str:
    """Revoke it, and write that down; a sentence on what was done.

    Raises `RotationError` where the issuer cannot or will not, `StoreError`, `IdentityError`.
    """
    with held(target.stored.lock_path, wait=PATIENCE):
        told = await tools.issuer.revoke(known.serial, known.remote_id, now=tools.clock())
        write_audit(target.store, "revoked", target.name, now=tools.clock(), serial=known.serial, told=told)
    return told
