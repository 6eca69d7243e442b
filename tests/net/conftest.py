"""What the relay's tests share: both kinds of selector, a running relay, and sessions to hand to it."""

from __future__ import annotations

import selectors
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.relay import Relay
from tests.services.pki import Pki
from tests.support.dialling import snapshot
from tests.support.relay_peers import Contexts, Sessions
from tests.support.watched_selector import Watch, watched

SelectorFactory = Callable[[], selectors.BaseSelector]


@pytest.fixture(params=[selectors.DefaultSelector, selectors.SelectSelector], ids=["default", "select"])
def selector_factory(request: pytest.FixtureRequest) -> SelectorFactory:
    """The platform's own selector, and the one that every platform has (the only one on Windows)."""
    factory: SelectorFactory = request.param
    return factory


@pytest.fixture
def watch() -> Watch:
    """What the selector of `relay` does."""
    return Watch()


@pytest.fixture
async def relay(selector_factory: SelectorFactory, watch: Watch) -> AsyncIterator[Relay]:
    """A running relay; the test runs once with each selector."""
    async with Relay(selector_factory=watched(selector_factory, watch)) as running:
        yield running


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
