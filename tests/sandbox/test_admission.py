"""Addresses that no IP rule lets in: silence or a reset, a bound on those who are held, and nobody else disturbed."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from mtlskit.config.values import Endpoint, TcpAddress
from mtlskit.net.listen import open_listeners
from mtlskit.sandbox.events import AddressRefused, ClientRefused
from mtlskit.sandbox.gateway import ANY_PORT, Gateway, GatewayConfig, ServerTls
from mtlskit.sandbox.strangers import Refusal, Strangers
from mtlskit.telemetry import Event
from mtlskit.wire.postgres.messages import GSSENC_REQUEST, SSL_REQUEST

STRANGER = "127.0.0.9"
FRIEND = "127.0.0.1"


@dataclass
class Door:
    """A gateway that lets in everybody but those in `refused`. No server is behind it: nobody gets that far."""

    refused: dict[str, Refusal]
    events: list[Event] = field(default_factory=list)
    opened: list[trio.SocketStream] = field(default_factory=list)
    gateway: Gateway = field(init=False)
    address: TcpAddress = field(init=False)

    async def connect(self, source: str) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(self.address.host, self.address.port, local_address=source)
        self.opened.append(stream)
        return stream

    async def ask(self, source: str) -> trio.SocketStream:
        """A client that has asked for TLS, as libpq does."""
        stream = await self.connect(source)
        await stream.send_all(SSL_REQUEST)
        return stream

    async def is_served(self, source: str) -> bool:
        return await (await self.ask(source)).receive_some(1) == b"S"

    def held(self) -> int:
        return self.gateway.strangers.held

    async def until_held(self, count: int) -> None:
        with trio.fail_after(30):
            while self.held() != count:
                await trio.lowlevel.checkpoint()

    def answers(self) -> list[str]:
        return [event.answer for event in self.events if isinstance(event, AddressRefused)]


@asynccontextmanager
async def open_door(refusal: Refusal | None = None, **config: float) -> AsyncIterator[Door]:
    door = Door({STRANGER: refusal or Refusal(f"{STRANGER} is in no authorised IP rule")})
    tls = ServerTls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), b"")
    options = GatewayConfig(Endpoint("127.0.0.1", 1), **config)  # type: ignore[arg-type]  # counts and seconds
    door.gateway = Gateway(options, tls, admit=lambda host: door.refused.get(host), emit=door.events.append)
    async with trio.open_nursery() as nursery:
        door.address = await nursery.start(door.gateway.run, open_listeners(ANY_PORT))
        try:
            yield door
        finally:
            for stream in door.opened:
                await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()


async def test_a_stranger_hears_nothing_until_the_silence_is_over() -> None:
    async with open_door(silence=0.05) as door:
        stream = await door.ask(STRANGER)
        with pytest.raises(trio.BrokenResourceError):
            assert await stream.receive_some(1) != b""  # neither a byte nor an orderly end
        [event] = [event for event in door.events if isinstance(event, AddressRefused)]
        assert event.peer.startswith(f"{STRANGER}:")
        assert event.sentence() == f"{event.peer} gets silence: {STRANGER} is in no authorised IP rule"
        await door.until_held(0)


async def test_a_stranger_is_held_while_others_are_served_and_let_go_when_it_leaves() -> None:
    async with open_door() as door:
        stream = await door.ask(STRANGER)
        await door.until_held(1)
        assert await door.is_served(FRIEND)
        assert door.held() == 1
        await stream.aclose()
        await door.until_held(0)
        assert not [event for event in door.events if isinstance(event, ClientRefused)]


async def test_the_fault_resets_at_once() -> None:
    async with open_door(Refusal("no rule", reset=True)) as door:
        stream = await door.connect(STRANGER)
        with pytest.raises(trio.BrokenResourceError):
            assert await stream.receive_some(1) != b""
        assert door.answers() == ["a reset"]


async def test_strangers_beyond_the_bound_are_reset() -> None:
    async with open_door(most_held=2) as door:
        for held in (1, 2):
            await door.connect(STRANGER)
            await door.until_held(held)
        with pytest.raises(trio.BrokenResourceError):
            assert await (await door.connect(STRANGER)).receive_some(1) != b""
        assert door.answers() == ["silence", "silence", "a reset"]
        assert door.held() == 2


async def test_strangers_take_no_place_of_those_who_are_let_in() -> None:
    async with open_door(max_connections=1) as door:
        for held in range(1, 6):
            await door.connect(STRANGER)
            await door.until_held(held)
        assert await door.is_served(FRIEND)


async def test_a_stranger_that_sends_for_ever_is_read_no_further() -> None:
    ours, theirs = trio.socket.socketpair()
    strangers, sent, blocked = Strangers(silence=60, most=1), 0, False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(strangers.turn_away, theirs, Refusal("no rule"))
        with ours:
            while not blocked:
                await trio.testing.wait_all_tasks_blocked()  # whatever it reads, it has read
                try:
                    sent += os.write(ours.fileno(), bytes(4096))
                except BlockingIOError:
                    blocked = True
            assert sent > 65_536
            assert strangers.held == 1
            nursery.cancel_scope.cancel()


async def test_a_rule_counts_for_the_next_connection() -> None:
    async with open_door() as door:
        established = await door.connect(FRIEND)
        await established.send_all(GSSENC_REQUEST)
        assert await established.receive_some(1) == b"N"
        door.refused = {FRIEND: Refusal("its rule is gone")}
        assert await door.is_served(STRANGER)
        await door.connect(FRIEND)
        await door.until_held(1)
        await established.send_all(SSL_REQUEST)
        assert await established.receive_some(1) == b"S"  # what was let in stays in


async def test_a_client_that_has_left_before_it_was_looked_at() -> None:
    async with open_door() as door:
        for _ in range(20):
            await trio.aclose_forcefully(await door.connect(STRANGER))
        assert await door.is_served(FRIEND)
        await door.until_held(0)
