"""Following an add-on: when Heroku is asked, what a change does, and what an outage does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.config.values import Endpoint, Login, UnixAddress
from mtlskit.errors import Code, ConfigError, HerokuError, IdentityError, MtlskitError, UpstreamUnreachable
from mtlskit.proxy.addon import Follower, Known
from mtlskit.proxy.events import (
    AddonChanged,
    AddonFound,
    AddonKept,
    AddonRecovered,
    IdentityLoaded,
    SessionCrashed,
    TunnelFailed,
    TunnelListening,
    TunnelWarned,
)
from mtlskit.proxy.parts import TunnelParts
from mtlskit.proxy.password_keys import PasswordKeys
from mtlskit.proxy.starting import StartRetries
from mtlskit.proxy.status import Started, status
from mtlskit.proxy.tunnel import Tunnel, TunnelState
from mtlskit.wire.postgres.scram import ScramKeys
from tests.support.addons import ADDON, FakeLookup, credential_at
from tests.support.fake_upstream import Papers, fake_upstream, nobody_listens
from tests.support.tunnels import STARTUP, EventLog, running_proxy, tunnel
from tests.support.warm_peers import until

HERE = Endpoint("db.invalid", 5432)
PASSWORD = "never-shown"


def a_lookup(endpoint: Endpoint = HERE) -> FakeLookup:
    return FakeLookup(credential_at(endpoint, user="u17", password=PASSWORD, database="d4f8"))


class Following:
    """A follower that runs, and what it did."""

    def __init__(self, papers: Papers, lookup: FakeLookup) -> None:
        self.events = EventLog()
        self.moved: list[Known] = []
        self.follower = Follower(tunnel(papers, addon=ADDON), lookup, self.events, self.moved.append)


@asynccontextmanager
async def followed(papers: Papers, lookup: FakeLookup) -> AsyncIterator[Following]:
    following = Following(papers, lookup)
    await following.follower.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(following.follower.run)
        await trio.testing.wait_all_tasks_blocked()
        yield following
        following.follower.close()


async def test_it_looks_again_every_few_minutes(papers: Papers, autojump_clock: trio.testing.MockClock) -> None:
    lookup = a_lookup()
    async with followed(papers, lookup) as following:
        await trio.sleep(3600)
        assert 3600 / 330 - 1 <= len(lookup.asked) - 1 <= 3600 / 270
        assert set(lookup.asked) == {(ADDON, "default")}
        assert following.moved == []
        lookup.change(host="other.invalid", port=6543, password="new")
        await trio.sleep(331)
    [known] = following.moved
    assert following.follower.known is known
    assert known.endpoints == (Endpoint("other.invalid", 6543),)
    [changed] = following.events.of(AddonChanged)
    assert (changed.changed, changed.upstream) == (("host", "port", "password"), "other.invalid:6543")
    assert not following.follower.running


async def test_nothing_that_it_tells_holds_the_password(papers: Papers, autojump_clock: trio.testing.MockClock) -> None:
    lookup = a_lookup()
    async with followed(papers, lookup) as following:
        lookup.change(password=PASSWORD * 2)
        await following.follower.refresh()
        lookup.fail()
        await following.follower.refresh()
    told = [following.follower.known, *following.events.seen, *(event.sentence() for event in following.events.seen)]
    assert PASSWORD not in repr(told)
    assert len(following.events.of(AddonFound)) == len(following.events.of(AddonChanged)) == 1


async def test_who_was_turned_away_waits_for_the_news(papers: Papers, autojump_clock: trio.testing.MockClock) -> None:
    lookup = a_lookup()
    news: list[bool] = []
    async with followed(papers, lookup) as following, trio.open_nursery() as nursery:
        used = following.follower.known

        async def turned_away() -> None:
            news.append(await following.follower.newer_than(used))

        lookup.hold = trio.Event()
        for _ in range(100):
            nursery.start_soon(turned_away)
        await trio.testing.wait_all_tasks_blocked()
        lookup.change(password="new")
        lookup.hold.set()
    assert (news, len(lookup.asked)) == ([True] * 100, 2)


async def test_refusals_do_not_ask_too_often(papers: Papers, autojump_clock: trio.testing.MockClock) -> None:
    lookup = a_lookup()
    async with followed(papers, lookup) as following:
        used = following.follower.known
        for _ in range(5):
            assert not await following.follower.newer_than(used)
        assert len(lookup.asked) == 2
        await trio.sleep(11)
        lookup.change(user="u18")
        assert await following.follower.newer_than(used)
        assert await following.follower.newer_than(used)  # known by now
        assert len(lookup.asked) == 3


async def test_a_look_up_that_is_under_way_is_shared_at_any_time(
    papers: Papers, autojump_clock: trio.testing.MockClock
) -> None:
    lookup = a_lookup()
    async with followed(papers, lookup) as following, trio.open_nursery() as nursery:
        used = following.follower.known
        assert not await following.follower.newer_than(used)  # none is asked for in the next seconds
        lookup.change(password="new")
        lookup.hold = trio.Event()
        nursery.start_soon(following.follower.refresh)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(_set_later, lookup.hold)
        assert await following.follower.newer_than(used)


async def _set_later(event: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked()
    event.set()


async def test_a_look_up_that_takes_long_is_not_waited_for(
    papers: Papers, autojump_clock: trio.testing.MockClock
) -> None:
    lookup = a_lookup()
    async with followed(papers, lookup) as following:
        lookup.hold = trio.Event()
        began = trio.current_time()
        assert not await following.follower.newer_than(following.follower.known)
        assert trio.current_time() == began + 5
        await trio.sleep(130)
        assert following.follower.failure is not None
        assert following.follower.failure.code is Code.API_UNREACHABLE


async def test_a_reload_hears_of_what_changed_before_it(papers: Papers, autojump_clock: trio.testing.MockClock) -> None:
    lookup = a_lookup()
    async with followed(papers, lookup) as following, trio.open_nursery() as nursery:
        lookup.hold = trio.Event()
        nursery.start_soon(following.follower.newer_than, following.follower.known)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(following.follower.refresh)
        await trio.testing.wait_all_tasks_blocked()
        lookup.hold.set()
    assert len(lookup.asked) == 3  # at the start, for the refusal, and for the reload


async def test_an_outage_is_told_once(papers: Papers, autojump_clock: trio.testing.MockClock) -> None:
    lookup = a_lookup()
    async with followed(papers, lookup) as following:
        lookup.fail(Code.API_BUSY)
        await trio.sleep(1000)
        assert following.follower.known is not None
        assert not await following.follower.newer_than(following.follower.known)
        assert [event.code for event in following.events.of(AddonKept)] == ["MTLS-API-008"]
        lookup.outage = None
        before = following.follower.looked_up_at
        await trio.sleep(1000)
        assert before is not None
        assert following.follower.looked_up_at is not None
        assert following.follower.looked_up_at > before
        assert len(following.events.of(AddonRecovered)) == 1
        assert following.follower.failure is None
    assert following.moved == []


async def test_who_does_not_run_is_not_waited_for(papers: Papers) -> None:
    following = Following(papers, a_lookup())
    await following.follower.begin()
    assert not await following.follower.newer_than(following.follower.known)


@pytest.mark.parametrize(
    "damage", [{"host": ""}, {"port": 0}, {"port": 65536}, {"user": "a\0b"}, {"database": ""}, {"host": "a\nb"}]
)
async def test_what_cannot_be_used_is_refused(papers: Papers, damage: dict[str, Any]) -> None:
    lookup = a_lookup()
    lookup.change(**damage)
    with pytest.raises(HerokuError) as caught:
        await Following(papers, lookup).follower.begin()
    assert caught.value.code is Code.API_RUBBISH


def test_a_tunnel_without_an_addon_is_not_followed(papers: Papers) -> None:
    with pytest.raises(ValueError, match="no add-on"):
        Follower(tunnel(papers, HERE), a_lookup(), EventLog(), lambda _: None)


async def test_keys_are_derived_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[tuple[bytes, int]] = []
    real = ScramKeys.derive

    def derive(password: str, salt: bytes, iterations: int) -> ScramKeys:
        derived.append((salt, iterations))
        return real(password, salt, iterations)

    monkeypatch.setattr(ScramKeys, "derive", derive)
    keys = PasswordKeys("pw")
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(keys.derive, b"salt", 1)
    assert await keys.derive(b"salt", 1) == real("pw", b"salt", 1)
    assert derived == [(b"salt", 1)]
    for number in range(2, 7):
        await keys.derive(b"salt", number)
    await keys.derive(b"salt", 1)  # forgotten by now
    assert derived[-1] == (b"salt", 1)


# In a proxy.


async def test_a_tunnel_goes_where_heroku_says(papers: Papers) -> None:
    async with fake_upstream(papers) as first, fake_upstream(papers) as second:
        lookup = a_lookup(first.endpoint)
        async with running_proxy(tunnel(papers, addon=ADDON), lookup=lookup) as running:
            [listening] = running.events.of(TunnelListening)
            assert listening.upstream == (str(first.endpoint),)
            async with running.connect() as old, running.connect() as new:
                await old.login()
                lookup.change(port=second.endpoint.port)
                assert all(result.ok for result in await running.proxy.reload())
                await new.login()
                assert (first.open, second.open) == (1, 1)
            [told] = status(running.proxy, Started())["tunnels"]
            assert told["upstream"] == [str(second.endpoint)]
            assert {
                key: told["addon"][key] for key in ("name", "credential", "login", "user", "database", "error")
            } == {
                "name": ADDON,
                "credential": "default",
                "login": "client",
                "user": "u17",
                "database": "d4f8",
                "error": None,
            }
            assert datetime.fromisoformat(told["addon"]["looked_up_at"]) <= datetime.now(UTC)
            assert PASSWORD not in repr(told)


async def test_an_upstream_that_is_gone_is_looked_for_at_once(papers: Papers) -> None:
    async with fake_upstream(papers) as upstream, nobody_listens() as gone:
        lookup = a_lookup(gone)
        async with running_proxy(tunnel(papers, addon=ADDON), lookup=lookup) as running:
            async with running.connect() as client:
                await client.send(STARTUP)
                assert (await client.error()).sqlstate == "08001"  # Heroku says the same
            assert len(lookup.asked) == 2
            lookup.change(host=upstream.endpoint.host, port=upstream.endpoint.port)
            follower = running.proxy.tunnels[0].follower
            assert follower is not None
            follower._not_before = 0.0  # some seconds later
            async with running.connect() as client:
                await client.login()


async def test_what_waited_for_the_old_place_is_dropped(papers: Papers) -> None:
    async with fake_upstream(papers) as first, fake_upstream(papers) as second:
        lookup = a_lookup(first.endpoint)
        async with running_proxy(tunnel(papers, addon=ADDON, warm=1), lookup=lookup) as running:
            async with running.connect() as client:
                await client.login()
            lookup.change(port=second.endpoint.port)
            await running.proxy.reload()
            await first.all_closed()


async def test_an_outage_at_the_start_is_waited_out(papers: Papers) -> None:
    async with fake_upstream(papers) as upstream:
        lookup = a_lookup(upstream.endpoint)
        lookup.fail()
        async with running_proxy(tunnel(papers, addon=ADDON), lookup=lookup) as running:
            failed = await running.events.wait_for(TunnelFailed)
            [told] = status(running.proxy, Started())["tunnels"]
            assert (failed.code, told["state"], told["upstream"]) == ("MTLS-API-010", "failed", [])
            assert told["addon"]["user"] is None
            lookup.outage = None
            await running.proxy.reload()
            async with running.connect() as client:
                await client.login()


@pytest.mark.parametrize("code", [Code.API_NOT_FOUND, Code.API_TOKEN_REFUSED])
async def test_a_mistake_ends_a_proxy_that_has_nothing_else(papers: Papers, code: Code) -> None:
    lookup = a_lookup()
    lookup.fail(code)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running_proxy(tunnel(papers, addon=ADDON, addon_named_by="--upstream"), lookup=lookup):
            raise AssertionError("it runs")
    ours, others = caught.value.split(HerokuError)
    assert others is None
    assert ("named by --upstream" in repr(ours)) is (code is Code.API_NOT_FOUND)


async def test_the_other_tunnels_do_not_wait_for_heroku(papers: Papers) -> None:
    lookup = a_lookup()
    lookup.hold = trio.Event()
    async with fake_upstream(papers) as upstream:
        waiting, other = tunnel(papers, addon=ADDON), tunnel(papers, upstream.endpoint, name="other")
        events = EventLog()

        async def start_all() -> None:
            async with running_proxy(waiting, other, lookup=lookup, events=events):
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start_all)
            assert (await events.wait_for(TunnelListening)).tunnel == "other"
            lookup.hold.set()
            assert (await events.wait_for(TunnelListening, 2)).tunnel == "reporting"


async def test_without_anybody_to_ask_it_does_not_start(papers: Papers) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running_proxy(tunnel(papers, addon=ADDON)):
            raise AssertionError("it runs")
    assert caught.value.split(ConfigError)[1] is None


class _Stuck:
    """A tunnel that failed."""

    def __init__(self, papers: Papers, failure: MtlskitError) -> None:
        self.config = tunnel(papers, addon=ADDON)
        self.state = TunnelState.FAILED
        self.failure = failure


async def test_what_heroku_kept_from_starting_is_tried_again(
    papers: Papers, autojump_clock: trio.testing.MockClock
) -> None:
    times: list[float] = []
    heroku: Any = _Stuck(papers, HerokuError(Code.API_NOT_FOUND, "no such add-on"))
    disk: Any = _Stuck(papers, IdentityError(Code.FILE_MISSING, "no such file"))

    async def reload(tunnels: list[Tunnel]) -> None:
        assert tunnels == [heroku]
        times.append(trio.current_time())
        if len(times) == 20:
            heroku.state = TunnelState.SERVING

    with trio.move_on_after(24 * 3600):
        await StartRetries([heroku, disk], reload).run()
    pauses = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert len(pauses) == 20
    assert all(0.7 * 5 * 2**number <= pause <= 1.3 * 5 * 2**number for number, pause in enumerate(pauses[:6]))
    assert all(220 <= pause <= 380 for pause in pauses[7:])


async def test_nobody_is_tried_again_without_addons(papers: Papers) -> None:
    async def reload(tunnels: list[Tunnel]) -> None:
        raise AssertionError("nothing to reload")

    plain: Any = _Stuck(papers, IdentityError(Code.FILE_MISSING, "no such file"))
    plain.config = replace(plain.config, addon=None)
    await StartRetries([plain], reload).run()


async def test_a_fault_of_ours_ends_neither_the_following_nor_the_tunnel(papers: Papers) -> None:
    async with fake_upstream(papers) as first, fake_upstream(papers) as second:
        lookup = a_lookup(first.endpoint)
        async with running_proxy(tunnel(papers, addon=ADDON), lookup=lookup) as running:
            good = lookup.credential
            lookup.credential = None  # type: ignore[assignment]  # as no parser of ours would give it
            await running.proxy.reload()
            crashed = await running.events.wait_for(SessionCrashed)
            assert "following" in crashed.client
            async with running.connect() as client:
                await client.login()
                assert (first.open, second.open) == (1, 0)
            lookup.credential = replace(good, port=second.endpoint.port)
            await running.proxy.reload()
            async with running.connect() as client:
                await client.login()
                assert second.open == 1
            assert len(running.events.of(SessionCrashed)) == 1


async def test_who_is_closed_before_it_runs_does_not_look(papers: Papers) -> None:
    following = Following(papers, a_lookup())
    following.follower.close()
    await following.follower.run()
    assert not following.follower.running


async def test_a_reload_waits_for_heroku_once_and_for_nothing_before_the_others(own_papers: Papers) -> None:
    """Ten tunnels that Heroku keeps from starting, one after another, would keep the eleventh for a quarter of an hour
    from its new certificate."""
    lookup = a_lookup()
    lookup.fail()
    async with fake_upstream(own_papers) as upstream:
        stuck = [tunnel(own_papers, addon=ADDON, name=f"stuck{number}") for number in range(3)]
        config = [*stuck, tunnel(own_papers, upstream.endpoint, name="other")]
        async with running_proxy(*config, lookup=lookup) as running, trio.open_nursery() as nursery:
            lookup.hold = trio.Event()
            results: list[Any] = []

            async def reload() -> None:
                results.extend(await running.proxy.reload())

            own_papers.renew_client("renewed")
            nursery.start_soon(reload)
            assert (await running.events.wait_for(IdentityLoaded, 2)).tunnel == "other"
            await until(lambda: len(lookup.asked) == 6)
            lookup.hold.set()
        assert [(result.tunnel.config.name, result.ok) for result in results] == [
            ("stuck0", False),
            ("stuck1", False),
            ("stuck2", False),
            ("other", True),
        ]


async def test_a_connection_is_dialled_with_the_certificate_that_it_is_counted_for(papers: Papers) -> None:
    """The second attempt too: a rotation must not take a session for one of another certificate."""
    used: list[Any] = []
    parts: Any = TunnelParts(tunnel(papers, addon=ADDON), *[None] * 5)  # type: ignore[arg-type]  # not used here

    class Dialling:
        async def dial(self, identity: Any) -> Any:
            used.append(identity)
            if len(used) == 1:
                raise UpstreamUnreachable(Code.TCP_REFUSED, "nobody there")
            return SimpleNamespace(route=SimpleNamespace(endpoint=HERE), skipped=())

    class Following:
        known = None

        async def newer_than(self, used: Any) -> bool:
            parts.identity = "new"
            return True

    parts.dialler, parts.follower, parts.identity = Dialling(), Following(), "old"
    await parts.dial()
    assert used == ["old", "old"]


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"login": Login.HEROKU}, True),
        ({"login": Login.HEROKU, "allow_users": ("root",)}, False),
        ({"login": Login.CLIENT}, False),
    ],
)
async def test_a_door_that_lets_everybody_in_is_told(papers: Papers, settings: dict[str, Any], warned: bool) -> None:
    async with running_proxy(tunnel(papers, addon=ADDON, **settings), lookup=a_lookup()) as running:
        warnings = [event.warning for event in running.events.of(TunnelWarned)]
        assert [warning.startswith('login = "heroku": whoever may use this door') for warning in warnings] == (
            [True] if warned else []
        )


async def test_a_socket_of_ones_own_is_no_such_door(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> None:
    listen = UnixAddress(tmp_path_factory.mktemp("s") / ".s.PGSQL.6432")
    async with running_proxy(
        tunnel(papers, addon=ADDON, login=Login.HEROKU, listen=listen), lookup=a_lookup()
    ) as running:
        assert not running.events.of(TunnelWarned)
