"""What tests ask of a rotation's outcome, and rotations that were left half done."""

from __future__ import annotations

import stat
from dataclasses import replace

from mtlskit.config.values import Verify
from mtlskit.errors import Code
from mtlskit.lifecycle.target import Outcome, Result
from mtlskit.net.identity import load_snapshot
from mtlskit.store.identities import Material
from mtlskit.store.journal import Rotation
from tests.support.rotating import DAY, World

__all__ = ["PATIENCE", "asked_for", "brought", "check", "done", "failed", "half_a_rotation", "stop_before_switch"]

PATIENCE = 20.0
"""Seconds; a safety net."""


def done(outcome: Outcome) -> Outcome:
    assert outcome.result is Result.ROTATED, outcome
    return outcome


def failed(outcome: Outcome, step: str, code: Code) -> Outcome:
    assert (outcome.result, outcome.step) == (Result.FAILED, step), outcome
    assert outcome.error is not None
    assert outcome.error.code is code
    assert outcome.told.endswith(outcome.error.sentence)
    return outcome


def check(world: World) -> None:
    """What must hold at all times: `current` is a pair that can be used, and no secret is open to others."""
    if world.stored.current() is not None:
        assert load_snapshot(world.identity, verify=Verify(), now=world.now).serial == world.current.facts.serial
    for path in world.folder.rglob("*"):
        mode = path.lstat().st_mode
        if path.suffix == ".key" or stat.S_ISDIR(mode):
            assert not stat.S_ISREG(mode) or not mode & 0o077, path
    for folder in (world.store, world.stored.folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def brought(world: World) -> Material:
    issued = world.authority.issue_client("client", now=world.now)
    return Material(issued.cert_pem, issued.key_pem)


def asked_for(world: World) -> Rotation:
    """A rotation up to its request, as the journal has it."""
    begun = world.journal.begin(world.now, issuer="command", old_serial=world.current.facts.serial)
    begun = world.journal.note(begun, "key", world.now)
    begun = world.journal.note(begun, "survey", world.now, found={"seen": [1]})
    return world.journal.note(begun, "request", world.now, receipt={"id": "remote-2"})


def half_a_rotation(world: World) -> None:
    """What is there when a process was killed right after the switch."""
    issued = world.authority.issue_client("client", now=world.now)
    begun = asked_for(world)
    facts = replace(world.current.facts, rotation=begun.id, serial=f"{issued.serial:x}")
    version = world.stored.stage(Material(issued.cert_pem, issued.key_pem), facts)
    for step in ("stage", "prove", "before_switch"):
        begun = world.journal.note(begun, step, world.now)
    world.stored.switch(version)


def stop_before_switch(world: World) -> None:
    """A rotation whose certificate is staged, and not used yet."""
    issued = world.authority.issue_client("client", now=world.now, lifetime=90 * DAY)
    begun = asked_for(world)
    facts = replace(
        world.current.facts,
        rotation=begun.id,
        serial=f"{issued.serial:x}",
        not_before=issued.certificate.not_valid_before_utc.isoformat(),
        not_after=issued.certificate.not_valid_after_utc.isoformat(),
    )
    world.stored.stage(Material(issued.cert_pem, issued.key_pem), facts)
    world.journal.note(begun, "stage", world.now, serial=facts.serial)
