"""Clients that come and go while the demo does something that they should not notice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from mtlskit.errors import SandboxError
from mtlskit.sandbox.demo_client import DemoClient

__all__ = ["Load", "under_load"]


@dataclass
class Load:
    """What became of the clients, so far."""

    served: int = 0
    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def under_load(client: DemoClient, clients: int) -> AsyncIterator[Load]:
    """While the block lasts, so many clients connect, ask and leave, again and again; each is served at least once."""
    load = Load()
    stop = trio.Event()

    async def come_and_go() -> None:
        while True:
            try:
                await client.ask()
                load.served += 1
            except SandboxError as exc:
                load.failures.append(exc.sentence)
                return
            if stop.is_set():
                return

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(come_and_go)
        yield load
        stop.set()
