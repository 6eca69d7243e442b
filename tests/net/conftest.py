"""What the relay's tests share: both kinds of watcher, a running relay, and sessions to hand to it."""

from __future__ import annotations

import selectors
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.relay import Relay
from mtlskit.net.relay.watcher import SelectorWatcher, Watcher, default_watcher
from tests.services.pki import Pki
from tests.support.dialling import snapshot
from tests.support.relay_peers import Contexts, Sessions
from tests.support.turns import Watch, watched

WatcherFactory = Callable[[], Watcher]


def select_watcher() -> Watcher:
    """With select(), which every platform has; it is the only one on Windows."""
    return SelectorWatcher(selectors.SelectSelector())


@pytest.fixture(params=[default_watcher, select_watcher], ids=["default", "select"])
def watcher_factory(request: pytest.FixtureRequest) -> WatcherFactory:
    """The platform's own, and the one that every platform has."""
    factory: WatcherFactory = request.param
    return factory


@pytest.fixture
def watch() -> Watch:
    """What the watcher of `relay` does."""
    return Watch()


@pytest.fixture
async def relay(watcher_factory: WatcherFactory, watch: Watch) -> AsyncIterator[Relay]:
    """A running relay; the test runs once with each watcher."""
    async with Relay(watcher_factory=watched(watcher_factory, watch)) as running:
        yield running


@pytest.fixture
def by_hand(watcher_factory: WatcherFactory) -> Iterator[Relay]:
    """A relay without its thread: the test takes the turns."""
    relay = Relay(watcher_factory=watcher_factory)
    yield relay
    take_down(relay)


def take_down(relay: Relay) -> None:
    """The end of the thread, which closes everything, for a relay that has none."""
    relay._stop()
    relay._run()
    relay._wake_in.close()
    relay._wake_out.close()


@pytest.fixture(scope="session")
def contexts(pki: Pki) -> Contexts:
    """TLS 1.3 with client certificates, the usual case."""
    return Contexts.make(pki)


@pytest.fixture
def sessions(contexts: Contexts) -> Iterator[Sessions]:
    """A maker of sessions; closes what the test leaves open."""
    with Sessions(contexts) as maker:
        yield maker


@pytest.fixture
def identity(pki: Pki) -> IdentitySnapshot:
    """A good one, for a server whose name is checked."""
    return snapshot(pki)
