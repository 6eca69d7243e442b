"""A proxy that has a connection ready, before a server that answers its first logins as a test tells it to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from mtlskit.net.warm import WarmPool
from mtlskit.proxy.events import SessionOpened
from mtlskit.wire.postgres.messages import error_response, frame
from tests.support.fake_upstream import READY, WELCOME, FakeUpstream, Papers, Script, ServerSide, echo, fake_upstream
from tests.support.tunnels import RawClient, Running, running_proxy, tunnel
from tests.support.warm_peers import until

QUERY = frame(b"Q", b"select 1\0")
ANSWER = frame(b"D", b"select 1\0") + READY

Answer: TypeAlias = Callable[[ServerSide], Awaitable[None]]


class Logins:
    """A server that answers its first logins as told, and welcomes those who come later.

    Which connection a login comes on does not matter: the pool makes its own in between.
    """

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.startups: list[bytes] = []

    async def __call__(self, server: ServerSide) -> None:
        await server.begin_tls()
        self.startups.append(await server.read_packet())
        if len(self.startups) <= len(self._answers):
            await self._answers[len(self.startups) - 1](server)
        else:
            await server.send(WELCOME)
            await echo(server)


def says(data: bytes) -> Answer:
    """Say this, and close."""

    async def answer(server: ServerSide) -> None:
        await server.send(data)
        await server.close_notify()

    return answer


def refuses(sqlstate: str, *, before: bytes = b"") -> Answer:
    return says(before + error_response(sqlstate=sqlstate, message="not now"))


async def ends(server: ServerSide) -> None:
    """An end without a word."""


async def resets(server: ServerSide) -> None:
    server.reset()


async def closes(server: ServerSide) -> None:
    await server.close_notify()


async def is_silent(server: ServerSide) -> None:
    """As if a firewall had forgotten the connection."""
    await server.until_closed()


async def breaks_off(server: ServerSide) -> None:
    await server.send(WELCOME[:3])


def pool_of(running: Running) -> WarmPool:
    parts = running.proxy.tunnels[0]._parts
    assert parts is not None
    assert parts.warm is not None
    return parts.warm


@asynccontextmanager
async def warmed(papers: Papers, script: Script, **settings: Any) -> AsyncIterator[tuple[Running, FakeUpstream]]:
    """A proxy that has a connection ready."""
    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, **({"warm": 1} | settings))) as running,
    ):
        await until(lambda: len(pool_of(running)) == 1)
        yield running, upstream


def openings(running: Running) -> list[bool]:
    return [event.warm for event in running.events.of(SessionOpened)]


async def works(client: RawClient) -> None:
    await client.send(QUERY)
    assert await client.read_exactly(len(ANSWER)) == ANSWER
