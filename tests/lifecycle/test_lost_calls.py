"""Issuer `heroku` over HTTP, with the connection lost before and after each call took effect.

What must hold after the next run: one new certificate is in use, and Heroku has no other one than those that this store
knows of. The API is the sandbox's, over real sockets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mtlskit.config.values import IssuerConfig, IssuerKind
from mtlskit.errors import Code
from mtlskit.issuers.heroku_addon import HerokuAddonIssuer
from mtlskit.lifecycle.target import Outcome, Result
from mtlskit.pki.authority import Authority
from tests.support.far_heroku import KAFKA, POSTGRES, FarHeroku, far_heroku
from tests.support.rotating import World
from tests.support.rotations import check, done

SETTINGS = {"revoke_old": True, "issuer": IssuerConfig(IssuerKind.HEROKU, addon=POSTGRES)}
FAULTS = ("lose-before", "lose-after", "500-after", "truncated")
ROWS = [
    *((before, fault, for_good) for before in (0, 1) for fault in FAULTS[:2] for for_good in (False, True)),
    (1, "500-after", False),
    (1, "truncated", False),
]
MOST = 12
"""Calls of one rotation, at most: later ones would never be hit, which the last test of each row sees."""


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarHeroku]:
    with far_heroku(tmp_path) as running:
        yield running


def run_of(world: World, far: FarHeroku, addon: str = POSTGRES) -> Callable[..., Awaitable[Outcome]]:
    """One run of a rotation, as another process would make it: it knows what is on the disk, and nothing else."""
    return lambda **wanted: world.rotate(issuer=HerokuAddonIssuer(addon, far.opened), wait=20.0, **wanted)


def alone(world: World, far: FarHeroku, first: set[str]) -> None:
    """Of what was made since `first`, one is alive: the one in use."""
    check(world)
    assert far.alive().keys() - first == {world.current.facts.remote_id}
    assert far.alive()[world.current.facts.remote_id or ""] == world.current.facts.serial


@pytest.mark.parametrize(("before", "fault", "from_then_on"), ROWS)
async def test_every_call(
    tmp_path: Path, far: FarHeroku, authority: Authority, before: int, fault: str, from_then_on: bool
) -> None:
    """`before`: rotations that went well. `from_then_on`: the API stays as it is after the call until the next run."""
    first = set(far.alive())
    for number in range(MOST):
        world = World.make(tmp_path / str(number), authority, kind=IssuerKind.HEROKU, settings=dict(SETTINGS))
        run = run_of(world, far)
        for _ in range(before):
            done(await run())
        number_before = len(far.alive())
        far.fault(f"{fault},skip={number}" + ("" if from_then_on else ",times=1"))
        outcome = await run()
        struck = far.struck()
        far.mend()
        if not struck:
            assert number > 4, "the faults reach every call"
            return
        check(world)
        assert outcome.result in (Result.ROTATED, Result.FAILED), outcome
        if outcome.result is Result.FAILED:
            assert outcome.error is not None
            assert outcome.error.code.value.startswith("MTLS-API-")
            outcome = done(await run())
        assert outcome.version == before + 1
        made = far.alive().keys() - first
        # An old certificate that another host might have made is not revoked, and that is told.
        kept = {each for each in made if each != world.current.facts.remote_id}
        assert not kept or "not revoked" in " ".join(outcome.notes), (kept, outcome)
        assert len(far.alive()) <= number_before + 1
        first |= set(far.alive())
    pytest.fail(f"a rotation of more than {MOST} calls")


async def test_a_create_that_was_lost_is_taken_up_by_the_same_run(
    tmp_path: Path, far: FarHeroku, authority: Authority
) -> None:
    first = set(far.alive())
    world = World.make(tmp_path / "world", authority, kind=IssuerKind.HEROKU, settings=dict(SETTINGS))
    far.fault("lose-after,method=POST,times=1")
    done(await run_of(world, far)())
    alone(world, far, first)
    assert not world.current.facts.made_here, "another host may have made it at the same moment"


async def test_a_create_that_never_arrived_is_asked_for_by_the_next_run(
    tmp_path: Path, far: FarHeroku, authority: Authority
) -> None:
    first = set(far.alive())
    world = World.make(tmp_path / "world", authority, kind=IssuerKind.HEROKU, settings=dict(SETTINGS))
    far.fault("lose-before,method=POST,times=1")
    outcome = await run_of(world, far)()
    assert (outcome.result, outcome.step) == (Result.FAILED, "request")
    assert outcome.error is not None
    assert outcome.error.code is Code.API_UNCERTAIN
    done(await run_of(world, far)())
    alone(world, far, first)
    assert world.current.facts.made_here


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_call_of_a_reset(tmp_path: Path, far: FarHeroku, authority: Authority, fault: str) -> None:
    """Heroku resets at most once for one order. Where nobody knows whether it has, what is waited for is told."""
    settings = {"issuer": IssuerConfig(IssuerKind.HEROKU, addon=KAFKA)}
    for number in range(MOST):
        world = World.make(tmp_path / str(number), authority, kind=IssuerKind.HEROKU, settings=settings)
        run = run_of(world, far, KAFKA)
        done(await run())
        before = far.credential
        assert world.current.facts.serial == before
        far.fault(f"{fault},skip={number},times=1")
        outcome = await world.rotate(issuer=HerokuAddonIssuer(KAFKA, far.opened), reset=True)
        struck = far.struck()
        far.mend()
        check(world)
        after = far.credential
        if outcome.result is Result.WAITING:
            assert after == before
            assert "--fresh" in outcome.told
            outcome = await run(reset=True, fresh=True)
        elif outcome.result is Result.FAILED:
            outcome = await run(reset=True)
        assert outcome.result is Result.ROTATED, outcome
        assert world.current.facts.serial == far.credential != before
        if not struck:
            assert number > 3, "the faults reach every call"
            return
    pytest.fail(f"a reset of more than {MOST} calls")
