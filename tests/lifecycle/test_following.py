"""Identities that are copies of a credential: replaced when it has changed, reset by a person only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import SystemRandom

import pytest
import trio
import trio.testing

from mtlskit.config.values import Hooks, IssuerKind
from mtlskit.errors import Code, RotationError
from mtlskit.lifecycle import following
from mtlskit.lifecycle.events import Rotated, RotationBegun, RotationFailed, RotationWaits
from mtlskit.lifecycle.target import Result, Wanted
from mtlskit.lifecycle.watch import Watched, watch
from mtlskit.pki.authority import Authority
from tests.support.rotating import DAY, FakeFollowing, World
from tests.support.rotations import check, done, failed


@pytest.fixture
def credential(authority: Authority) -> FakeFollowing:
    return FakeFollowing(authority)


@pytest.fixture
async def world(tmp_path: Path, authority: Authority, credential: FakeFollowing) -> World:
    """With the first copy."""
    made = World.make(tmp_path / "store", authority, issuer=credential, kind=IssuerKind.HEROKU)
    done(await made.rotate("first certificate"))
    assert made.current.facts.followed
    assert not made.current.facts.made_here
    return made


@pytest.mark.parametrize("only_if_due", [True, False])
async def test_what_has_not_changed_is_left(world: World, credential: FakeFollowing, only_if_due: bool) -> None:
    outcome = await world.rotate(only_if_due=only_if_due)
    assert (outcome.result, outcome.told, outcome.version) == (Result.NOTHING_TO_DO, following.SAME, 1)
    assert len(credential.orders) == 1
    assert world.journal.unfinished() is None


@pytest.mark.parametrize("what", ["certificate", "CAs"])
@pytest.mark.parametrize("only_if_due", [True, False])
async def test_what_has_changed_is_taken(
    world: World, credential: FakeFollowing, authority: Authority, only_if_due: bool, what: str
) -> None:
    old = world.current.facts.serial
    if what == "CAs":
        credential.roots += Authority.create("the next CA", now=world.now).cert_pem
    else:
        credential.change()
    outcome = done(await world.rotate(only_if_due=only_if_due))
    assert outcome.version == 2
    assert (outcome.serial == old) is (what == "CAs")
    assert world.told(RotationBegun)[-1].reason == following.REASON
    assert credential.resets == 0
    check(world)
    assert (await world.rotate(only_if_due=only_if_due)).result is Result.NOTHING_TO_DO


async def test_by_its_name_it_is_refused(world: World, credential: FakeFollowing) -> None:
    credential.change()
    outcome = failed(await world.rotate(by_name=True), "begin", Code.ROTATION_REFUSED)
    assert "--reset-app-credentials --yes" in (outcome.error.hint if outcome.error else "")
    assert world.current.number == 1


async def test_one_that_the_store_does_not_know_to_be_a_copy(
    world: World, credential: FakeFollowing, authority: Authority
) -> None:
    """It was imported by hand: its dates are fine, and nobody is asked."""
    credential.deliver, followed = credential._sign, credential.deliver
    credential.follows_it = False
    done(await world.rotate(fresh=True, reset=True))
    assert not world.current.facts.followed
    credential.deliver, credential.follows_it, credential.looked = followed, True, 0
    assert (await world.rotate(only_if_due=True)).told == "it is not due"
    assert credential.looked == 0
    failed(await world.rotate(by_name=True), "begin", Code.ROTATION_REFUSED)
    done(await world.rotate())
    assert world.current.facts.followed


async def test_one_that_is_due_waits_for_a_person(world: World, credential: FakeFollowing) -> None:
    world.now += 89 * DAY
    outcome = await world.rotate(only_if_due=True)
    assert outcome.result is Result.WAITING
    assert following.reset_command("reporting") in outcome.told
    assert world.told(RotationWaits)
    assert len(credential.orders) == 1
    assert (await world.rotate("asked for")).result is Result.WAITING


async def test_a_reset(world: World, credential: FakeFollowing) -> None:
    world.settings["revoke_old"] = True
    outcome = done(await world.rotate(reset=True, wait=10.0))
    assert (outcome.version, credential.resets, credential.revoked) == (2, 1, [])
    assert "this store did not ask for it" in " ".join(outcome.notes)


async def test_a_reset_takes_the_place_of_what_was_left(world: World, credential: FakeFollowing) -> None:
    credential.change()
    world.hooks = Hooks(before_switch=("false",))
    failed(await world.rotate(), "before_switch", Code.HOOK_FAILED)
    world.hooks = Hooks()
    done(await world.rotate(reset=True))
    assert credential.resets == 1
    assert "rotation abandoned" in world.audit()


async def test_a_copy_that_was_overtaken_is_given_up(world: World, credential: FakeFollowing) -> None:
    credential.change()
    world.hooks = Hooks(before_switch=("false",))
    failed(await world.rotate(), "before_switch", Code.HOOK_FAILED)
    [staged] = [each for each in world.stored.versions() if each.number == 2]
    world.hooks = Hooks()
    credential.change()
    outcome = done(await world.rotate())
    assert outcome.serial == f"{credential.credential.serial:x}" != staged.facts.serial
    check(world)


async def test_files_that_are_damaged_are_copied_again(world: World, credential: FakeFollowing) -> None:
    world.current.key.write_bytes(b"")
    assert done(await world.rotate(only_if_due=True)).version == 2
    check(world)


async def test_who_cannot_be_asked(world: World, credential: FakeFollowing) -> None:
    credential.fault = RotationError(Code.API_UNREACHABLE, "no network", "try again")
    failed(await world.rotate(only_if_due=True), "begin", Code.API_UNREACHABLE)
    check(world)


async def test_what_a_dry_run_says(world: World, credential: FakeFollowing) -> None:
    async def plan() -> str:
        return await following.plan_of(world.target, world.tools(), Wanted("asked for"), world.now)

    assert await plan() == ""
    world.now += 89 * DAY
    assert (await plan()).startswith("do nothing: ")
    world.now -= 89 * DAY
    credential.change()
    assert "take what the app's config vars hold by now" in await plan()
    world.hooks = Hooks(before_switch=("false",))
    await world.rotate()
    assert (await plan()).startswith("go on with rotation ")


# Watching.


class Naps:
    """Counts pauses instead of sleeping; `on` is called before each, and raises to end."""

    def __init__(self, on: Callable[[int], None]) -> None:
        self.taken: list[float] = []
        self._on = on

    async def __call__(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.taken.append(seconds)
        self._on(len(self.taken))


class Enough(Exception):
    """The test has seen what it wanted."""


async def watched(world: World, on: Callable[[int], None]) -> list[float]:
    naps = Naps(on)
    with pytest.RaisesGroup(Enough):
        await watch([Watched(world.target, world.tools())], rng=SystemRandom(), sleep=naps)
    return naps.taken


async def test_a_watcher_follows_within_a_minute(world: World, credential: FakeFollowing) -> None:
    def on(nap: int) -> None:
        if nap == 2:
            credential.change()
        if nap == 4:
            raise Enough

    naps = await watched(world, on)
    assert set(naps) == {0.0, 60.0}
    assert world.current.facts.serial == f"{credential.credential.serial:x}"
    assert len(world.told(Rotated)) == 2
    assert not world.told(RotationFailed)


async def test_a_watcher_tells_once_that_a_person_is_needed(world: World, credential: FakeFollowing) -> None:
    world.now += 89 * DAY

    def on(nap: int) -> None:
        if nap == 3:
            raise Enough

    assert await watched(world, on) == [60.0] * 3
    assert len(world.told(RotationWaits)) == 1
    assert credential.resets == 0


async def test_a_watcher_without_a_network_runs_no_hook(
    world: World, credential: FakeFollowing, tmp_path: Path
) -> None:
    world.hooks = Hooks(failed=("touch", str(tmp_path / "called")))
    credential.fault = RotationError(Code.API_UNREACHABLE, "no network", "try again")

    def on(nap: int) -> None:
        if nap == 3:
            raise Enough

    naps = await watched(world, on)
    assert all(nap >= 1.0 for nap in naps)
    assert [event.step for event in world.told(RotationFailed)] == ["look"] * 3
    assert not (tmp_path / "called").exists()
    assert timedelta() < timedelta(seconds=max(naps)) <= timedelta(hours=1)
