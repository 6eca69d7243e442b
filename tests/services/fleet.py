"""The servers that a session of tests shares: one for each major version, started when first asked for."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.services.builds import postgres_build
from tests.services.pki import Pki
from tests.services.postgres import PostgresServer
from tests.services.settings import ServerOptions

# Room for the tests with 200 connections at once, and for whoever else is connected meanwhile.
SHARED = ServerOptions(max_connections=300)


class Fleet:
    """A context manager: on exit all servers are gone."""

    def __init__(self, pki: Pki) -> None:
        self._pki = pki
        self._servers: dict[int, PostgresServer] = {}
        self._stack = ExitStack()

    def of(self, major: int) -> PostgresServer:
        """The shared server of this major version. Do not stop it: others use it; make one of your own."""
        if major not in self._servers:
            server = PostgresServer(postgres_build(major), self._pki, SHARED)
            self._servers[major] = self._stack.enter_context(server)
        return self._servers[major]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
