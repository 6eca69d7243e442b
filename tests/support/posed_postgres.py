"""A scripted Postgres server for a test that has no trio loop of its own: it lives in a thread.

Whoever examines it comes many times and in odd ways; a connection that does not follow the script is dropped.
"""

from __future__ import annotations

import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Queue

import trio

from mtlskit.config.values import Endpoint
from tests.support.fake_upstream import Papers, Script, ServerSide, fake_upstream


class Curious:
    """A script that asks for the password with this message, and keeps all that it is told."""

    def __init__(self, asking: bytes) -> None:
        self._asking = asking
        self.greetings: list[bytes] = []
        """The StartupMessages."""
        self.answers: list[bytes] = []
        """What came after the question: a message of type "p" holds a password, or what was made of it."""

    async def __call__(self, server: ServerSide) -> None:
        self.greetings.append(await server.open())
        await server.send(self._asking)
        kind = await server.read_exactly(1)
        self.answers.append(kind + await server.read_packet())

    @property
    def passwords(self) -> list[bytes]:
        """The messages of type "p"."""
        return [answer for answer in self.answers if answer.startswith(b"p")]


@contextmanager
def posed_postgres(papers: Papers, script: Script) -> Iterator[Endpoint]:
    """Serve `script` to each connection until the block ends."""
    ready: Queue[tuple[Endpoint, trio.lowlevel.TrioToken, trio.CancelScope]] = Queue()

    async def forgiving(server: ServerSide) -> None:
        with suppress(AssertionError, ssl.SSLError, struct.error, trio.BrokenResourceError):
            await script(server)

    async def serve() -> None:
        with trio.CancelScope() as scope:
            async with fake_upstream(papers, forgiving) as upstream:
                ready.put((upstream.endpoint, trio.lowlevel.current_trio_token(), scope))
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(serve,), name="posed postgres")
    thread.start()
    try:
        endpoint, token, scope = ready.get(timeout=20)
        try:
            yield endpoint
        finally:
            token.run_sync_soon(scope.cancel)
    finally:
        thread.join()
