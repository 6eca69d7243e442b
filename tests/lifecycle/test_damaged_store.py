"""What a rotation makes of a store that was damaged, or that others may write to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mtlskit.errors import Code, StoreError
from mtlskit.lifecycle.events import RotationNoted
from mtlskit.store.identities import Material
from tests.support.rotating import World
from tests.support.rotations import check, done, failed


def notes(world: World) -> str:
    return "\n".join(event.note for event in world.told(RotationNoted))


# Damage.


def point_elsewhere(world: World) -> None:
    path = world.stored.folder / "current"
    path.unlink()
    path.symlink_to("elsewhere")


def point_nowhere(world: World) -> None:
    path = world.stored.folder / "current"
    path.unlink()
    path.write_text("rubbish")


def point_to_what_is_gone(world: World) -> None:
    path = world.stored.folder / "current"
    path.unlink()
    path.symlink_to("versions/0099")


def lose_the_facts(world: World) -> None:
    (world.current.folder / "version.json").unlink()


DAMAGE = pytest.mark.parametrize("damage", [point_elsewhere, point_nowhere, point_to_what_is_gone, lose_the_facts])


@DAMAGE
async def test_what_is_damaged_is_replaced(world: World, damage: Callable[[World], None]) -> None:
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    damage(world)
    outcome = done(await world.rotate("due", only_if_due=True))
    assert (outcome.version, outcome.old_serial) == (2, "")
    assert outcome.serial != first.serial
    assert "what is in use is damaged, and is replaced: " + str(world.stored.folder) in notes(world)
    assert world.issuer.revoked == [], "what it was is not known"
    check(world)


@pytest.mark.parametrize("damage", [point_elsewhere, point_nowhere])
async def test_nothing_is_swept_when_nobody_knows_what_is_in_use(world: World, damage: Callable[[World], None]) -> None:
    done(await world.rotate())
    current = world.current
    material, facts = Material(current.cert.read_bytes(), current.key.read_bytes()), current.facts
    for number in range(4):
        world.stored.stage(material, replace(facts, rotation=f"later-{number}"))
    damage(world)
    world.stored.sweep(keep=1)
    assert world.names("versions") == ["0001", "0002", "0003", "0004", "0005"]


async def test_what_is_in_use_is_not_swept_for_being_damaged(world: World) -> None:
    done(await world.rotate())
    current = world.current
    material, facts = Material(current.cert.read_bytes(), current.key.read_bytes()), current.facts
    for number in range(4):
        world.stored.stage(material, replace(facts, rotation=f"later-{number}"))
    lose_the_facts(world)
    world.stored.sweep(keep=1)
    assert world.names("versions") == ["0001", "0005"]


# Who may write.


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
@pytest.mark.parametrize("what", ["store", "store/reporting"])
async def test_a_folder_that_others_may_write_to_is_refused(world: World, what: str, mode: int) -> None:
    done(await world.rotate())
    folder = world.folder / what
    folder.chmod(mode)
    with pytest.raises(StoreError, match=f"{folder}: others could change what lies in it") as caught:
        world.stored.prepare()
    assert caught.value.code is Code.STORE_UNUSABLE
    assert f"chmod 700 {folder}" in caught.value.hint
    failed(await world.rotate(), "begin", Code.STORE_UNUSABLE)
    assert len(world.issuer.orders) == 1
    folder.chmod(0o755)
    world.stored.prepare()


async def test_an_identity_that_lies_behind_a_link_is_refused(world: World) -> None:
    done(await world.rotate())
    elsewhere = world.folder / "elsewhere"
    world.stored.folder.rename(elsewhere)
    world.stored.folder.symlink_to(elsewhere)
    with pytest.raises(StoreError) as caught:
        world.stored.prepare()
    assert caught.value.code is Code.STORE_UNUSABLE
    assert str(world.stored.folder) in caught.value.sentence
