"""Following a Kafka add-on: its brokers and its prefix, and what a proxy tells of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import trio
import trio.testing

from mtlskit.config.values import Endpoint, TunnelConfig, TunnelKind
from mtlskit.errors import Code
from mtlskit.heroku.values import KafkaBrokers
from mtlskit.proxy.addon import Follower, Known
from mtlskit.proxy.events import AddonChanged, AddonFound, AddonKept, TunnelListening
from mtlskit.proxy.status import Started, status
from tests.support.addons import FakeLookup, credential_at
from tests.support.fake_upstream import Papers, nobody_listens
from tests.support.tunnels import EventLog, running_proxy, tunnel

ADDON = "kafka-rigid-4711"
ONE, TWO, THREE = (Endpoint(f"b{number}.invalid", 9096) for number in (1, 2, 3))


def a_lookup(*endpoints: Endpoint, prefix: str = "") -> FakeLookup:
    nobody = credential_at(Endpoint("db.invalid", 5432), user="u17", password="never-asked-for")
    return FakeLookup(nobody, KafkaBrokers(endpoints or (ONE, TWO), prefix))


def a_tunnel(papers: Papers) -> TunnelConfig:
    return tunnel(papers, kind=TunnelKind.KAFKA, addon=ADDON)


async def test_brokers_and_prefix_are_followed(papers: Papers, autojump_clock: trio.testing.MockClock) -> None:
    lookup, events, moved = a_lookup(), EventLog(), list[Known]()
    follower = Follower(a_tunnel(papers), lookup, events, moved.append)
    known = await follower.begin()
    assert (known.endpoints, known.prefix, lookup.asked) == ((ONE, TWO), "", [(ADDON, "")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1000)
        assert moved == []
        lookup.brokers = KafkaBrokers((ONE, THREE))
        assert await follower.newer_than(known)
        lookup.fail(Code.API_BUSY)
        await trio.sleep(1000)
        assert follower.known is not None
        assert follower.known.endpoints == (ONE, THREE)
        lookup.outage = None
        lookup.brokers = KafkaBrokers((THREE,), "bern-4711.")
        await follower.refresh()
        follower.close()
    assert [(each.endpoints, each.prefix) for each in moved] == [((ONE, THREE), ""), ((THREE,), "bern-4711.")]
    [kept] = events.of(AddonKept)
    assert kept.code == Code.API_BUSY.value
    assert [event.changed for event in events.of(AddonChanged)] == [("brokers",), ("brokers", "prefix")]
    assert [event.sentence() for event in (*events.of(AddonFound), *events.of(AddonChanged))] == [
        "reporting: kafka-rigid-4711 is at b1.invalid:9096, b2.invalid:9096",
        "reporting: brokers of kafka-rigid-4711 changed; new sessions go to b1.invalid:9096, b3.invalid:9096",
        "reporting: brokers and prefix of kafka-rigid-4711 changed; new sessions go to b3.invalid:9096"
        " (names of topics and groups begin with bern-4711.)",
    ]


async def test_a_follower_that_knew_nothing_learns_all(papers: Papers, autojump_clock: trio.testing.MockClock) -> None:
    events, moved = EventLog(), list[Known]()
    follower = Follower(a_tunnel(papers), a_lookup(), events, moved.append)
    with trio.move_on_after(331):
        await follower.run()
    assert [each.endpoints for each in moved] == [(ONE, TWO)]
    assert events.of(AddonChanged)[0].changed == ("brokers", "prefix")


@pytest.mark.parametrize("prefix", ["", "bern-4711."])
async def test_the_status_says_what_is_known(papers: Papers, prefix: str) -> None:
    async with nobody_listens() as one, nobody_listens() as two:
        lookup = a_lookup(one, prefix=prefix)
        async with running_proxy(a_tunnel(papers), lookup=lookup) as running:
            assert (await running.events.wait_for(TunnelListening)).upstream == (str(one),)
            lookup.brokers = KafkaBrokers((one, two), prefix)
            await running.proxy.reload()
            [told] = status(running.proxy, Started())["tunnels"]
    assert told["upstream"] == [str(one), str(two)]
    assert datetime.fromisoformat(told["addon"].pop("looked_up_at")) <= datetime.now(UTC)
    assert told["addon"] == {
        "name": ADDON,
        "credential": None,
        "login": None,
        "user": None,
        "database": None,
        "prefix": prefix,
        "error": None,
    }
