"""After the switch: the sessions of the old certificate, and taking it back."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mtlskit.config.values import IssuerConfig, IssuerKind
from mtlskit.errors import Code
from mtlskit.lifecycle.events import RotationNoted, RotationWaits
from mtlskit.lifecycle.target import Result
from tests.support.rotating import World
from tests.support.rotations import (
    brought,
    done,
    failed,
)


async def test_the_old_certificate_is_revoked_when_nobody_uses_it(world: World) -> None:
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    assert world.issuer.revoked == []
    second = done(await world.rotate())
    assert world.issuer.revoked == [first.serial]
    done(await world.rotate())
    assert world.issuer.revoked == [first.serial, second.serial]
    assert world.journal.owed() == []


async def test_sessions_are_waited_for(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    world.proxies.left = [3, 2, 1, 0]
    done(await world.rotate(wait=60.0))
    assert world.issuer.revoked == [first.serial]
    waits = [event.waits_for for event in world.told(RotationWaits)]
    assert waits == [f"{left} of older certificates to end" for left in ("3 sessions", "2 sessions", "1 session")]


async def test_wait_waits_for_sessions_also_where_nothing_is_revoked(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    done(await world.rotate())
    world.proxies.left = [1, 0]
    done(await world.rotate(wait=60.0))
    assert world.proxies.looks == 2
    assert world.issuer.revoked == []


@pytest.mark.parametrize("wait", [None, 10.0])
async def test_sessions_that_stay_leave_a_debt_that_is_paid_later(
    world: World, autojump_clock: trio.testing.MockClock, wait: float | None
) -> None:
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    world.proxies.left = [1]
    outcome = done(await world.rotate(wait=wait))
    assert any("is not revoked yet" in note for note in outcome.notes)
    assert (await world.rotate("due", only_if_due=True)).result is Result.NOTHING_TO_DO
    assert world.issuer.revoked == []
    world.proxies.left = [0]
    assert (await world.rotate("due", only_if_due=True)).result is Result.NOTHING_TO_DO
    assert world.issuer.revoked == [first.serial]
    assert world.audit()[-1] == "revoked"
    assert world.journal.owed() == []
    await world.rotate("due", only_if_due=True)
    assert world.issuer.revoked == [first.serial]


async def test_a_proxy_that_does_not_tell_keeps_the_certificate_alive(world: World) -> None:
    world.settings["revoke_old"] = True
    done(await world.rotate())
    world.proxies.left = [None]
    done(await world.rotate())
    assert world.issuer.revoked == []
    assert len(world.journal.owed()) == 1


async def test_a_debt_that_cannot_be_paid_now_does_not_stop_a_rotation(world: World) -> None:
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    world.proxies.left = [1]
    second = done(await world.rotate())
    world.proxies.left = [0]
    world.issuer.cannot_revoke = world.cannot()
    assert (await world.rotate("due", only_if_due=True)).result is Result.NOTHING_TO_DO
    assert any("still not revoked: no" in event.note for event in world.told(RotationNoted))
    world.issuer.cannot_revoke = None
    done(await world.rotate())
    assert world.issuer.revoked == [second.serial, first.serial]


@pytest.mark.parametrize("code", [Code.ROTATION_REFUSED, Code.CA_UNKNOWN_SERIAL])
async def test_what_can_never_be_revoked_is_not_tried_for_ever(world: World, code: Code) -> None:
    world.settings["revoke_old"] = True
    done(await world.rotate())
    world.issuer.cannot_revoke = world.cannot(code, "never")
    outcome = done(await world.rotate())
    assert any("not revoked: never; try again" in note for note in outcome.notes)
    world.proxies.left = [1]
    done(await world.rotate())
    world.proxies.left = [0]
    await world.rotate("due", only_if_due=True)
    assert any("is not revoked: never" in event.note for event in world.told(RotationNoted))
    assert world.journal.owed() == []


async def test_a_revocation_that_fails_is_tried_again(world: World) -> None:
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    world.issuer.cannot_revoke = world.cannot()
    failed(await world.rotate(), "revoke", Code.ISSUER_FAILED)
    assert world.current.number == 2
    world.issuer.cannot_revoke = None
    assert done(await world.rotate("due", only_if_due=True)).version == 2
    assert world.issuer.revoked == [first.serial]


async def test_what_this_store_did_not_ask_for_is_not_revoked(world: World) -> None:
    world.settings["revoke_old"] = True
    done(await world.rotate("imported", material=brought(world)))
    outcome = done(await world.rotate())
    assert world.issuer.revoked == []
    assert any("did not ask for it" in note for note in outcome.notes)
    assert world.journal.owed() == []


async def test_what_another_issuer_has_made_is_not_revoked(world: World) -> None:
    world.settings["revoke_old"] = True
    done(await world.rotate())
    world.settings["issuer"] = IssuerConfig(IssuerKind.CA, subject="CN=client")
    outcome = done(await world.rotate())
    assert world.issuer.revoked == []
    assert any("it came from command, and the issuer is ca now" in note for note in outcome.notes)
