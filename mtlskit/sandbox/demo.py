"""The demo: the whole story on this machine, step by step, with real programs on both ends.

Each step does something and looks at the result; a result that is not what the step is there to show ends the demo
with an error. Nothing here prints: steps, facts and the summary are told as values.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import trio

from mtlskit.config.values import (
    Endpoint,
    IdentityConfig,
    ProxyConfig,
    TcpAddress,
    TunnelConfig,
    TunnelKind,
)
from mtlskit.proxy.run import Proxy, run_proxy
from mtlskit.sandbox.credentials import ClientIdentity
from mtlskit.sandbox.demo_client import DemoClient, offered_by_gateway, offered_by_tunnel, require_psycopg, unexpected
from mtlskit.sandbox.naive import run_naive_bridge
from mtlskit.sandbox.space import Space, SpaceOptions, run_space

__all__ = ["DemoFact", "DemoFinished", "DemoStep", "DemoTold", "run_demo"]

_ROWS = 10_000


@dataclass(frozen=True)
class DemoStep:
    """A step begins."""

    number: int
    title: str


@dataclass(frozen=True)
class DemoFact:
    """What a step has shown. `quote`: the very words of a program."""

    text: str
    quote: str = ""


@dataclass(frozen=True)
class DemoFinished:
    """All steps have shown what they are there to show. `space` and `tunnel` stay up with `--keep`."""

    seconds: float
    shown: tuple[str, ...]
    space: Space
    tunnel: TcpAddress


DemoTold: TypeAlias = DemoStep | DemoFact | DemoFinished
Tell: TypeAlias = Callable[[DemoTold], None]


async def run_demo(tell: Tell, *, keep: bool = False) -> None:
    """Run the demo in a temporary folder that goes when it ends; with `keep`, stay up until cancelled.

    Raises SandboxError when something cannot start or a step shows something else than it should.
    """
    await trio.to_thread.run_sync(require_psycopg)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mtlskit-demo-") as folder:
        # PostgreSQL does not run as root, and the user that it runs as then must be able to get there.
        directory = Path(folder) / "space"
        async with trio.open_nursery() as nursery:
            story = _Story(tell, nursery)
            await story.tell_all(directory)
            tell(DemoFinished(time.monotonic() - began, tuple(story.shown), story.space, story.tunnel))
            if keep:
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()


class _Story:
    def __init__(self, tell: Tell, nursery: trio.Nursery) -> None:
        self.shown: list[str] = []
        self.space: Space
        self.tunnel: TcpAddress
        self._tell = tell
        self._nursery = nursery
        self._number = 0

    async def tell_all(self, directory: Path) -> None:
        await self._start_space(directory)
        await self._refused_without_tunnel()
        await self._open_tunnel()
        await self._query()
        await self._show_stripping()
        await self._cancel()
        await self._revoke()

    def _step(self, title: str) -> None:
        self._number += 1
        self._tell(DemoStep(self._number, title))

    def _fact(self, text: str, quote: str = "") -> None:
        self._tell(DemoFact(text, quote))

    def _client(self, address: TcpAddress, **settings: str) -> DemoClient:
        space = self.space
        return DemoClient(address, user=space.user, password=space.password, database=space.database, **settings)

    async def _start_space(self, directory: Path) -> None:
        self._step("Start a Private Space on this machine: PostgreSQL behind a gateway that demands mutual TLS")
        self._fact("(a Private Space is Heroku's private network: its databases admit only clients with certificates)")
        options = SpaceOptions(directory, keep_data=False)
        self.space = await self._nursery.start(partial(run_space, options))
        self._fact(f"the gateway listens on {self.space.gateway_address}; its CA is {self.space.ca}")

    async def _refused_without_tunnel(self) -> None:
        self._step("Connect a plain client (psycopg, which is libpq) straight to it")
        gateway = self.space.gateway_address
        plain = await self._client(gateway, sslmode="disable").refusal()
        self._fact("without TLS it is refused:", plain)
        bare = await self._client(gateway, sslmode="require").refusal()
        self._fact("with TLS and no client certificate it is refused:", bare)
        self.shown.append("without the tunnel, the client is refused")

    async def _open_tunnel(self) -> None:
        self._step("Open a tunnel with a client identity")
        identity = self.space.client
        self.tunnel = await self._start_proxy("demo", identity)
        self._fact(f"certificate {identity.cert}, serial {identity.serial:x}")
        self._fact(f"plain Postgres on {self.tunnel}, mutual TLS to {self.space.gateway_address}")

    async def _start_proxy(self, name: str, identity: ClientIdentity) -> TcpAddress:
        gateway = self.space.gateway_address
        tunnel = TunnelConfig(
            name=name,
            kind=TunnelKind.POSTGRES,
            listen=TcpAddress("127.0.0.1", 0),
            upstream=(Endpoint(gateway.host, gateway.port),),
            identity=IdentityConfig(name, identity.cert, identity.key, self.space.ca),
        )
        proxy: Proxy = await self._nursery.start(partial(run_proxy, ProxyConfig((tunnel,))))
        address = proxy.tunnels[0].addresses[0]
        if not isinstance(address, TcpAddress):
            raise unexpected("the tunnel opened another listener than it was told to", str(address))
        return address

    async def _query(self) -> None:
        self._step("Run queries through the tunnel with the same plain client")
        report = await self._client(self.tunnel).work(_ROWS)
        self._fact(f"{report.version}, logged in as {report.user}; the client's own leg has no TLS")
        self._fact(f"{_ROWS:,} rows written with COPY and read back in {report.seconds:.2f} s, sum {report.total:,}")
        self.shown.append("through the tunnel, the same client works, with SCRAM")

    async def _show_stripping(self) -> None:
        self._step("See why it works: what the server offers, and what the client is told")
        space = self.space
        before = await offered_by_gateway(space)
        after = await offered_by_tunnel(self.tunnel, space)
        self._fact(f"the gateway offers {', '.join(before)}")
        self._fact(f"through the tunnel the client sees {', '.join(after)}")
        if before == after or not after:
            raise unexpected("the offer came through the tunnel unchanged", ", ".join(after))
        async with self._naive_bridge() as address:
            naive = await self._client(address).refusal()
        self._fact("through a TLS tunnel that forwards bytes as they are, the client gives up:", naive)
        if "SCRAM-SHA-256-PLUS" not in naive:
            raise unexpected("the naive tunnel failed for another reason", naive)
        self.shown.append("stripping SCRAM-SHA-256-PLUS is what makes it work")

    @asynccontextmanager
    async def _naive_bridge(self) -> AsyncIterator[TcpAddress]:
        space = self.space
        gateway = Endpoint(space.gateway_address.host, space.gateway_address.port)
        bridge = partial(run_naive_bridge, gateway, ca=space.ca, cert=space.client.cert, key=space.client.key)
        async with trio.open_nursery() as nursery:
            yield await nursery.start(bridge)
            nursery.cancel_scope.cancel()

    async def _cancel(self) -> None:
        self._step("Cancel a query that would run for a minute")
        seconds, quote = await self._client(self.tunnel).cancelled_query()
        self._fact(f"cancelled after {seconds:.1f} s, over its own mutual-TLS connection:", quote)
        self.shown.append("a cancel request reaches the server")

    async def _revoke(self) -> None:
        self._step("Revoke a certificate, and read what the client is told")
        other = await trio.to_thread.run_sync(self.space.new_client_identity, "revoked-in-the-demo")
        address = await self._start_proxy("revoked", other)
        await self._client(address).greet()
        self.space.revoke(other.serial)
        quote = await self._client(address).refusal()
        self._fact("new connections with it are refused, and the client hears why:", quote)
        self.shown.append("a refusal says why, in the client itself")
