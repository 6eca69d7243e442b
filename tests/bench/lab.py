"""The set-up of one run: servers and contenders, each started when a work load first asks, all gone at the end."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.bench.book import Book
from tests.bench.contenders import DIRECT, Contender, Place, Upstream, all_contenders
from tests.bench.errors import BenchError
from tests.bench.helper import Helper
from tests.bench.route import Route, running
from tests.bench.scale import Scale
from tests.bench.wire import Door
from tests.services.builds import postgres_build
from tests.services.clients import libpq_command
from tests.services.pki import Pki, make_pki
from tests.services.places import LOOPBACK_V4, free_port
from tests.services.postgres import PostgresServer
from tests.services.settings import DEFAULT_HBA, ServerOptions
from tests.services.template import DATABASE, PASSWORDS, SUPERUSER

__all__ = ["Lab"]

_MAJOR = 18
# For the relay without crypto; it comes first, since the default rules speak of TLS only.
_PLAIN_HBA = "hostnossl all trustuser 127.0.0.1/32 trust"
_ROLES = {"trust": "trustuser", "scram": "scram"}
_SETTINGS = {"log_connections": "off", "log_disconnections": "off", "shared_buffers": "128MB"}
_MOST_CLIENTS = 300
_ABSENT = "/nonexistent"


@dataclass
class Lab:
    """A context manager. `names` limits the contenders (None: all that are installed)."""

    scale: Scale
    names: frozenset[str] | None = None
    warm: int = 0
    """Connections in advance that mtlskit is given, in a second turn of the work loads where it matters."""
    say: Callable[[str], None] = lambda sentence: None
    book: Book = field(default_factory=Book)

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self.contenders = [each for each in all_contenders() if self.wanted(each.name) and each.path() is not None]

    def __enter__(self) -> Self:
        limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._stack.__enter__()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mtlskit-bench-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def wanted(self, name: str) -> bool:
        """Whether this contender or limit takes part, if it is there."""
        return self.names is None or name in self.names

    # The servers.

    @cached_property
    def pki(self) -> Pki:
        """The certificates."""
        return make_pki(self.new_folder())

    @cached_property
    def origin(self) -> dict[str, int]:
        """The ports of the raw server: `tls` and `plain`."""
        job = {"client_ca": self.pki.client_ca, "cert": self.pki.server.cert, "key": self.pki.server.key}
        helper = self._stack.enter_context(Helper("origin", {name: str(path) for name, path in job.items()}))
        return helper.said

    @cached_property
    def postgres(self) -> PostgresServer:
        """The database, with the tables of pgbench in it."""
        options = ServerOptions(hba=(_PLAIN_HBA, *DEFAULT_HBA), max_connections=_MOST_CLIENTS, settings=_SETTINGS)
        server = self._stack.enter_context(PostgresServer(postgres_build(_MAJOR), self.pki, options))
        inside = {"host": str(server.sockets), "port": str(server.port), "user": SUPERUSER, "dbname": DATABASE}
        filled = libpq_command("pgbench", inside, "--initialize", "--scale=1", "--quiet").run()
        if filled.returncode:
            raise BenchError(f"pgbench could not fill its tables: {filled.stderr}")
        server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
        return server

    # The ways to them.

    @cached_property
    def raw_routes(self) -> list[Route]:
        """Every way to the raw server, all contenders running."""
        routes = [Route(DIRECT, Door.direct(self.origin["tls"], self.pki))] if self.wanted(DIRECT) else []
        through = self._started(Upstream.TLS, self.origin["tls"])
        return [*through, *self._started(Upstream.PLAIN, self.origin["plain"]), *routes]

    @cached_property
    def postgres_routes(self) -> list[Route]:
        """Every way to PostgreSQL, all contenders running."""
        routes = []
        if self.wanted(DIRECT):
            direct = {way: self.postgres.parameters(role) for way, role in _ROLES.items()}
            routes.append(Route(DIRECT, Door.direct(self.postgres.port, self.pki), direct))
        through = self._started(Upstream.POSTGRES, self.postgres.port)
        return [*through, *self._started(Upstream.PLAIN, self.postgres.port), *routes]

    @contextmanager
    def route(
        self, contender: Contender, upstream: Upstream, port: int, *, warm: int = 0, log: Path | None = None
    ) -> Iterator[Route]:
        """A way through a contender of its own, started afresh."""
        place = Place(self.new_folder(), free_port(), upstream, port, self.pki, warm, log)
        with running(contender, place) as pid:
            parameters = {way: _through(place.port, _ROLES[way]) for way in contender.users}
            yield Route(contender.name, Door(place.port), parameters, pid, contender.poll(place, pid))

    def new_folder(self) -> Path:
        """An empty folder that is gone at the end."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    def _started(self, upstream: Upstream, port: int) -> list[Route]:
        """One that does not start is noted, and the others go on."""
        routes = []
        for contender in self.contenders:
            if upstream in contender.before:
                with self.attempt("start", contender.name):
                    routes.append(self._stack.enter_context(self.route(contender, upstream, port)))
        return routes

    # Taking turns.

    def turns(self, routes: Sequence[Route], rounds: int | None = None) -> Iterator[tuple[int, Route]]:
        """Every route in every round: A B C, then B C A, so that none is always first."""
        for turn in range(rounds or self.scale.rounds):
            first = turn % len(routes) if routes else 0
            yield from ((turn, route) for route in (*routes[first:], *routes[:first]))

    @contextmanager
    def attempt(self, load: str, route: str) -> Iterator[None]:
        """What goes wrong with one contender is noted, and the others go on."""
        try:
            yield
        except (OSError, BenchError, psycopg.Error) as exc:
            self.book.note(f"{load}: {route} failed: {type(exc).__name__}: {str(exc).strip()}")


def _through(port: int, role: str) -> dict[str, str]:
    """libpq's parameters for a plain connection; the user's own certificate must not matter."""
    here = {"host": LOOPBACK_V4, "port": str(port), "dbname": DATABASE, "user": role, "password": PASSWORDS[role]}
    return {**here, "sslmode": "disable", "gssencmode": "disable", "sslcert": _ABSENT, "sslkey": _ABSENT}
