"""The set-up of one run: the cluster, what is in it, and the proxies before it; all gone at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.bench import procfs
from tests.bench.book import Book
from tests.bench.contenders import DIRECT, Contender, Place, Upstream
from tests.bench.errors import BenchError
from tests.bench.kafka import settings
from tests.bench.kafka.contenders import all_contenders
from tests.bench.kafka.size import Size
from tests.bench.route import running
from tests.services.errors import ServerError
from tests.services.kafka_builds import NEWEST, kafka_build
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_doors import Door
from tests.services.kafka_settings import KafkaOptions
from tests.services.pki import Pki, make_pki
from tests.services.places import LOOPBACK_V4, free_port

__all__ = ["PARTITIONS", "KafkaLab", "KafkaRoute"]

PARTITIONS = 4
"""Of every topic but small ones."""
_NODE = 1001


@dataclass(frozen=True)
class KafkaRoute:
    """A way to the cluster; `pid` is the proxy's process, None where there is none."""

    name: str
    door: Door
    pid: int | None = None

    def cpu(self) -> float:
        """CPU time that the proxy has used until now, in seconds. 0 where there is none."""
        return procfs.cpu_seconds(self.pid) if self.pid is not None else 0.0


@dataclass
class KafkaLab:
    """A context manager. `names` limits the contenders (None: all that are installed)."""

    size: Size
    names: frozenset[str] | None = None
    say: Callable[[str], None] = lambda sentence: None
    book: Book = field(default_factory=Book)

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._numbers = count()
        self._kept: dict[Hashable, str] = {}
        self._admin: AdminClient | None = None
        self.contenders = [each for each in all_contenders() if self.wanted(each.name) and each.path() is not None]

    def __enter__(self) -> Self:
        self._stack.__enter__()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mtlskit-bench-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admin = None  # or it would miss the broker, and say so
        self._stack.close()

    def wanted(self, name: str) -> bool:
        """Whether this contender or limit takes part, if it is there."""
        return self.names is None or name in self.names

    @cached_property
    def cluster(self) -> KafkaCluster:
        """One broker."""
        options = KafkaOptions(node_ids=(_NODE,), settings=settings.BROKER, jvm=settings.JVM)
        return self._stack.enter_context(KafkaCluster(kafka_build(NEWEST), self._pki, options))

    @cached_property
    def straight(self) -> KafkaRoute:
        """The way without a proxy."""
        return KafkaRoute(DIRECT, self.cluster.door())

    @cached_property
    def routes(self) -> list[KafkaRoute]:
        """Every way, all contenders running. One that does not start is noted, and the others go on."""
        routes = []
        for contender in self.contenders:
            with self.attempt("start", contender.name):
                routes.append(self._stack.enter_context(self.route(contender)))
        return [*routes, self.straight] if self.wanted(DIRECT) else routes

    @contextmanager
    def route(self, contender: Contender) -> Iterator[KafkaRoute]:
        """A way through a contender of its own, started afresh."""
        _, upstream = self.cluster.brokers[_NODE]
        place = Place(self._new_folder(), free_port(), Upstream.TLS, upstream, self._pki)
        with running(contender, place) as pid:
            yield KafkaRoute(contender.name, Door(f"{LOOPBACK_V4}:{place.port}", place.folder), pid)

    @contextmanager
    def topic(self, partitions: int = PARTITIONS) -> Iterator[str]:
        """A new one, which is deleted with all that is in it."""
        name = f"bench-{next(self._numbers)}"
        self.cluster.create_topic(name, partitions=partitions, replicas=1)
        try:
            yield name
        finally:
            if self._admin is None:
                self._admin = AdminClient({**self.cluster.door().librdkafka()})
            [gone] = self._admin.delete_topics([name]).values()
            gone.result()

    def kept(self, key: Hashable, make: Callable[[], str]) -> str:
        """The topic that was made under this key, now or before."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def lasting_topic(self, partitions: int = PARTITIONS) -> str:
        """A new one, which is there until the end."""
        name = f"bench-{next(self._numbers)}"
        self.cluster.create_topic(name, partitions=partitions, replicas=1)
        return name

    def turns(self, routes: Sequence[KafkaRoute]) -> Iterator[tuple[int, KafkaRoute]]:
        """Every route in every round: A B C, then B C A, so that none is always first."""
        for turn in range(self.size.rounds):
            first = turn % len(routes) if routes else 0
            yield from ((turn, route) for route in (*routes[first:], *routes[:first]))

    @contextmanager
    def attempt(self, load: str, route: str) -> Iterator[None]:
        """What goes wrong with one contender is noted, and the others go on."""
        try:
            yield
        except (OSError, BenchError, ServerError, KafkaException) as exc:
            sentence = f"{load}: {route} failed: {type(exc).__name__}: {str(exc).strip()}"
            self.say(sentence)
            self.book.note(sentence)

    @cached_property
    def _pki(self) -> Pki:
        return make_pki(self._new_folder())

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))
