"""Revoking one certificate of an identity because somebody says so: a key was lost, a host is given up."""

from __future__ import annotations

from dataclasses import dataclass

from mtlskit.errors import Code, RotationError
from mtlskit.lifecycle.taking_back import current_of
from mtlskit.lifecycle.target import PATIENCE, Target, Tools
from mtlskit.store.audit import write_audit
from mtlskit.store.journal import BEGUN, Journal
from mtlskit.store.lock import held

__all__ = ["Known", "find_certificate", "refused", "revoke_certificate", "serial_called"]


@dataclass(frozen=True)
class Known:
    """A certificate that this store has seen. `serial` is lower-case hexadecimal."""

    serial: str
    remote_id: str | None
    current: bool
    """The identity uses it now, or a rotation that is not finished is about to."""
    made_here: bool


def find_certificate(target: Target, serial: str) -> Known:
    """The certificate with this serial: of a version, or of a rotation that the journal tells of.

    Raises `RotationError` (ROTATION_REFUSED) for one that this store does not know, and `StoreError`.
    """
    current, journal = current_of(target), Journal(target.stored.journal_path)
    left = journal.unfinished()
    staged = target.stored.version_of(left.id) if left is not None else None
    in_use = serial in {version.facts.serial for version in (current, staged) if version is not None}
    for version in (current, staged, *target.stored.versions()):
        if version is not None and version.facts.serial == serial:
            return Known(serial, version.facts.remote_id, in_use, version.facts.made_here)
    for rotation in journal.rotations():
        made, begun = rotation.facts("stage"), rotation.facts(BEGUN)
        if made.get("serial") == serial:
            return Known(serial, made.get("remote_id"), in_use, made_here=not begun.get("given"))
        if begun.get("old_serial") == serial:
            return Known(serial, begun.get("old_remote_id"), in_use, bool(begun.get("old_made_here")))
    raise RotationError(
        Code.ROTATION_REFUSED,
        f"{target.name}: this store knows no certificate with the serial {serial}",
        f"see which it knows: mtlskit certs list, and {target.stored.journal_path}",
    )


def serial_called(target: Target, remote_id: str) -> str:
    """The serial of the certificate that the issuer calls `remote_id`.

    Raises `RotationError` (ROTATION_REFUSED) for one that this store does not know, and `StoreError`.
    """
    for version in target.stored.versions():
        if version.facts.remote_id == remote_id:
            return version.facts.serial
    for rotation in Journal(target.stored.journal_path).rotations():
        for facts, prefix in ((rotation.facts("stage"), ""), (rotation.facts(BEGUN), "old_")):
            if facts.get(f"{prefix}remote_id") == remote_id:
                return str(facts[f"{prefix}serial"])
    raise RotationError(
        Code.ROTATION_REFUSED,
        f"{target.name}: this store knows no certificate with the id {remote_id}",
        "see which it knows: mtlskit certs list --remote; another one may be in use on another host",
    )


async def revoke_certificate(target: Target, tools: Tools, serial: str, *, in_use: bool) -> str:
    """Revoke it, and write that down before and after; a sentence on what was done.

    Raises `RotationError` (ROTATION_REFUSED) for one that is in use, unless `in_use` says that this is meant, or where
    the issuer cannot or will not; `StoreError`, `IdentityError`.
    """
    with held(target.stored.lock_path, wait=PATIENCE):
        known = find_certificate(target, serial)  # once more: a rotation may have begun to use it
        if known.current and not in_use:
            raise refused(target, known)
        write_audit(target.store, "revocation begun", target.name, now=tools.clock(), serial=serial)
        told = await tools.issuer.revoke(known.serial, known.remote_id, now=tools.clock())
        write_audit(target.store, "revoked", target.name, now=tools.clock(), serial=serial, told=told)
    return told


def refused(target: Target, known: Known) -> RotationError:
    """Why a certificate in use is not revoked."""
    return RotationError(
        Code.ROTATION_REFUSED,
        f"{target.name}: serial {known.serial} is in use, or about to be: nothing could connect with it any more",
        f"replace it first: mtlskit certs rotate {target.name}; or say --in-use",
    )
