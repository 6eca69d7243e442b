"""The watcher on a clock of the test's own: months pass in milliseconds, and it may jump."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import trio

from mtlskit.config.values import Hooks, IdentityConfig, IssuerConfig, IssuerKind, RenewBefore
from mtlskit.errors import Code, RotationError
from mtlskit.issuers.base import Delivery, Facts, Order
from mtlskit.lifecycle.events import RenewalPlanned, Rotated, RotationFailed, RotationNoted
from mtlskit.lifecycle.target import Target, Tools
from mtlskit.lifecycle.watch import Watched, watch
from mtlskit.pki.authority import Authority
from mtlskit.pki.profiles import Profile
from mtlskit.store.identities import Store
from mtlskit.telemetry import Event

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Ca:
    """Signs for 90 days, unless it is told to fail or not to be ready yet."""

    makes_key = False
    pause = 1.0

    def __init__(self) -> None:
        self.authority = Authority.create("our ca", now=START - 100 * DAY)
        self.asked: list[datetime] = []
        self.fails = 0
        self.busy = 0
        self.revoked: list[str] = []
        self.lifetime = 90 * DAY
        self.older = timedelta()

    async def survey(self, order: Order) -> Facts:
        return {}

    async def request(self, order: Order, before: Facts) -> Facts:
        self.asked.append(order.now)
        if self.fails:
            self.fails -= 1
            raise RotationError(Code.ISSUER_FAILED, "the CA is down", "wait")
        return {}

    async def find(self, order: Order, before: Facts) -> Facts | None:
        return None

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        if self.busy:
            self.busy -= 1
            return None
        assert order.request_pem is not None
        begun = order.now - self.older
        signed = self.authority.sign_request(order.request_pem, Profile.CLIENT, now=begun, lifetime=self.lifetime)
        return Delivery(signed.cert_pem)

    def waiting_for(self, order: Order, receipt: Facts) -> str:
        return "the CA to wake up"

    async def revoke(self, serial: str, remote_id: str | None, *, now: datetime) -> str:
        self.revoked.append(serial)
        return f"{serial} is revoked"


class NoProxies:
    """Nobody serves it; `left` sessions of old certificates are open."""

    left: Mapping[str, int] | None = None

    async def serve(self, identity: str, cert: Path, serial: str) -> str:
        return "no running proxy uses it, so none had to be told"

    async def sessions(self, cert: Path, serial: str, *, expected: bool, others: bool = False) -> int | None:
        return 0 if self.left is None else self.left.get(serial, 0)


class World:
    """One identity, and a clock that moves when the watcher sleeps."""

    def __init__(self, folder: Path, **identity: object) -> None:
        self.now = START
        self.ca = Ca()
        self.proxies = NoProxies()
        self.events: list[Event] = []
        self.slept: list[float] = []
        self.until = START
        stored = Store(folder).identity("reporting")
        current = stored.folder / "current"
        config = IdentityConfig(
            "reporting", current / "client.crt", current / "client.key", issuer=IssuerConfig(IssuerKind.CA)
        )
        self.target = Target(replace(config, **identity), (), stored, folder, Hooks())  # type: ignore[arg-type] # fields

    @property
    def watched(self) -> Watched:
        return Watched(self.target, Tools(self.ca, self.proxies, self.events.append, lambda: self.now))

    async def run(self, days: float) -> None:
        """Let the watcher work for so many days of its clock."""
        self.until = self.now + timedelta(days=days)

        async def sleep(seconds: float) -> None:
            assert 0.0 <= seconds <= 3600.0
            self.slept.append(seconds)
            self.now += timedelta(seconds=seconds)
            await trio.lowlevel.checkpoint()
            if self.now >= self.until:
                scope.cancel()
                await trio.lowlevel.checkpoint()

        with trio.CancelScope() as scope:
            await watch([self.watched], rng=Random(7), sleep=sleep)  # noqa: S311 - a test repeats

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


async def test_months_of_renewals(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.run(130)
    # At once, and then within an hour of two thirds of each life of 90 days.
    assert len(world.ca.asked) == 3
    gaps = [later - earlier for earlier, later in zip(world.ca.asked, world.ca.asked[1:], strict=False)]
    assert all(timedelta(days=59, hours=23) < gap < timedelta(days=60, hours=2) for gap in gaps)
    assert len(world.of(Rotated)) == len(world.of(RenewalPlanned)) == 3
    assert not world.of(RotationFailed)


async def test_it_never_gives_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.run(1)
    world.ca.fails = 10_000
    await world.run(93)
    current = world.target.stored.current()
    assert current is not None
    assert datetime.fromisoformat(current.facts.not_after) < world.now  # it has lapsed
    failed = len(world.of(RotationFailed))
    assert 500 < failed < 3000  # for a month, at most an hour apart, and not all the time
    world.ca.fails = 0
    await world.run(0.5)
    renewed = world.target.stored.current()
    assert renewed is not None
    assert datetime.fromisoformat(renewed.facts.not_after) > world.now
    assert len(world.of(RotationFailed)) == failed


async def test_a_laptop_that_slept_over_the_due_date(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.run(30)
    world.now += 45 * DAY
    before = len(world.ca.asked)
    await world.run(0.05)
    assert len(world.ca.asked) == before + 1


async def test_a_clock_that_is_set_back_renews_nothing_twice(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.run(61)
    before = len(world.ca.asked)
    world.now -= DAY
    await world.run(20)
    assert len(world.ca.asked) == before


async def test_what_is_not_ready_is_looked_at_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ca.busy = 5
    await world.run(0.1)
    assert len(world.ca.asked) == 1  # asked once, and fetched six times
    assert world.slept[:5] == [60.0] * 5
    assert len(world.of(Rotated)) == 1


async def test_old_certificates_are_revoked_when_their_sessions_have_ended(tmp_path: Path) -> None:
    world = World(tmp_path, revoke_old=True)
    await world.run(1)
    first = world.target.stored.current()
    assert first is not None
    world.proxies.left = {first.facts.serial: 3}
    await world.run(59.2)
    assert world.ca.revoked == []
    world.proxies.left = {}
    await world.run(0.1)
    assert world.ca.revoked == [first.facts.serial]


async def test_a_store_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.run(0.1)
    journal = world.target.stored.journal_path
    kept = journal.read_bytes()
    journal.write_bytes(b"rubbish\n")
    await world.run(1)
    told = world.of(RotationFailed)
    assert told
    assert all(isinstance(event, RotationFailed) and event.step == "look" for event in told)
    journal.write_bytes(kept)
    await world.run(0.5)
    assert len(world.of(RotationFailed)) == len(told)


async def test_what_is_damaged_is_replaced(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.run(0.1)
    current = world.target.stored.folder / "current"
    current.unlink()
    current.write_text("rubbish")
    await world.run(0.1)
    version = world.target.stored.current()
    assert version is not None
    assert version.number == 2
    assert not world.of(RotationFailed)


async def test_a_certificate_that_is_due_at_once_is_not_replaced_all_the_time(tmp_path: Path) -> None:
    """A program that hands out old certificates, or a share of the life that is nearly all of it."""
    world = World(tmp_path, renew_before=RenewBefore(share=0.999))
    world.ca.lifetime = timedelta(minutes=10)
    await world.run(1 / 24)
    assert 5 < len(world.ca.asked) < 200  # for an hour, and each lasts for ten minutes
    world.ca.lifetime, world.ca.older = 90 * DAY, 89 * DAY
    before = len(world.ca.asked)
    await world.run(0.5)
    assert len(world.ca.asked) - before < 60
    assert any("is due already" in event.note for event in world.events if isinstance(event, RotationNoted))
