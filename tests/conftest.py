"""What all tests share: real servers and their PKI, and the options of the run.

``--pg-majors=15,17,18`` names the PostgreSQL versions: a test that takes `each_postgres` runs once for each, one that
takes `postgres` runs on the newest. ``--without-services`` leaves out every test that needs a real server or client,
for machines that cannot have them; CI never uses it. ``--live`` lets tests/contract ask Heroku as well. ``--long``
makes the heavy tests of tests/e2e ten times as heavy: the fixture `times`. Nothing is skipped: what cannot be had fails
and says what to install.

``-n 2`` shares the tests between two processes, by files (`tests.support.shares`). Each has the fixtures of a session
for itself: its servers, its certificates, its folder of control sockets.

`tests.services` is imported inside the fixtures, so that a run of unit tests does not pay for it.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

    from tests.services.fleet import Fleet
    from tests.services.kafka_cluster import KafkaCluster
    from tests.services.kafka_fleet import KafkaFleet
    from tests.services.kafka_settings import KafkaOptions
    from tests.services.pki import Pki
    from tests.services.postgres import PostgresServer
    from tests.services.settings import ServerOptions

    MakeKafka = Callable[..., KafkaCluster]
    MakePostgres = Callable[..., PostgresServer]

_END_TO_END = Path(__file__).parent / "e2e"
_LOG_SHOWN = 6000
_RUNTIME = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Define the options of the run."""
    group = parser.getgroup("mtlskit")
    group.addoption(
        "--pg-majors",
        default="15,17,18",
        metavar="LIST",
        help="PostgreSQL majors to test against, of 15,16,17,18 (default: %(default)s)",
    )
    group.addoption(
        "--without-services",
        action="store_true",
        help="leave out the tests that need real servers or clients (never in CI)",
    )
    group.addoption("--live", action="store_true", help="tests/contract: ask Heroku too, about MTLSKIT_TEST_LIVE_ADDON")
    group.addoption("--long", action="store_true", help="the heavy tests in full: e2e ten times as heavy, more kills")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a list of majors that we cannot read before anything is collected; keep control sockets to ourselves."""
    _majors(config)
    _do_not_hurry()
    # Whoever runs us in the background may have made Ctrl-C ignored, and what is ignored stays so in every child.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Proxies that tests start must not mix with those of the person who runs them. Short: a unix socket's path ends at
    # 103 bytes on some systems.
    config.stash[_RUNTIME] = os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="mtlskit-tests-")
    for name in ("RUNTIME_DIRECTORY", "MTLSKIT_CONTROL"):
        os.environ.pop(name, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder of control sockets."""
    if folder := config.stash.get(_RUNTIME, None):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """How ``-n`` shares the tests."""
    from tests.support.shares import Shares

    return Shares(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `each_postgres` once for each major."""
    if "each_postgres" in metafunc.fixturenames:
        majors = _majors(metafunc.config)
        metafunc.parametrize("each_postgres", majors, indirect=True, ids=[f"pg{major}" for major in majors])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, with ``--without-services``, what uses a service however indirectly; with ``-n``, the longest first."""
    if hasattr(config, "workerinput"):  # one of several processes
        from tests.support.shares import turn_of

        items.sort(key=lambda item: turn_of(item.nodeid))
    if not config.getoption("--without-services"):
        return
    left_out = [item for item in items if _needs_services(item)]
    items[:] = [item for item in items if not _needs_services(item)]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of a server's log with the failure of a test that used it."""
    report = yield
    if report.failed and "services" in getattr(item, "fixturenames", ()):
        from tests.services.kafka_cluster import KafkaCluster
        from tests.services.postgres import PostgresServer

        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, PostgresServer):
                report.sections.append((f"log of {name}, {value!r}", value.log()[-_LOG_SHOWN:]))
            elif isinstance(value, KafkaCluster):
                for node_id in value.brokers:
                    end = value.log_of(node_id)[-_LOG_SHOWN:]
                    report.sections.append((f"log of {name}, {value!r}, broker {node_id}", end))
    return report


@pytest.fixture(scope="session")
def services() -> None:
    """The mark of every test that needs a real server or client: see ``--without-services``."""


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """The certificates of the tests, as files."""
    from tests.services.pki import make_pki

    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def postgres_fleet(services: None, pki: Pki) -> Iterator[Fleet]:
    """The servers that the session shares: ``postgres_fleet.of(17)``."""
    from tests.services.fleet import Fleet

    with Fleet(pki) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def postgres(postgres_fleet: Fleet, request: pytest.FixtureRequest) -> PostgresServer:
    """A shared PostgreSQL of the newest major of this run."""
    return postgres_fleet.of(max(_majors(request.config)))


@pytest.fixture(scope="session")
def each_postgres(postgres_fleet: Fleet, request: pytest.FixtureRequest) -> PostgresServer:
    """A shared PostgreSQL of each major of this run in turn."""
    major: int = request.param
    return postgres_fleet.of(major)


@pytest.fixture(scope="session")
def dumpable_postgres(postgres_fleet: Fleet) -> PostgresServer:
    """A shared PostgreSQL that the installed pg_dump takes: it refuses servers newer than itself."""
    from tests.services.builds import MAJORS
    from tests.services.clients import program_major

    return postgres_fleet.of(min(program_major("pg_dump"), max(MAJORS)))


@pytest.fixture
def make_postgres(services: None, pki: Pki, request: pytest.FixtureRequest) -> Iterator[MakePostgres]:
    """Start servers of the test's own, to restart, kill or set up differently: ``make_postgres(options, major=17)``."""
    from tests.services.builds import postgres_build
    from tests.services.postgres import PostgresServer

    with ExitStack() as stack:

        def make(options: ServerOptions | None = None, *, major: int | None = None) -> PostgresServer:
            build = postgres_build(major or max(_majors(request.config)))
            return stack.enter_context(PostgresServer(build, pki, options))

        yield make


def _majors(config: pytest.Config) -> tuple[int, ...]:
    text = str(config.getoption("--pg-majors"))
    try:
        majors = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        majors = ()
    if not majors or not set(majors) <= {15, 16, 17, 18}:
        raise pytest.UsageError(f"--pg-majors={text}: give a list of 15, 16, 17, 18, such as --pg-majors=17,18")
    return majors


def _do_not_hurry() -> None:
    """Time is never asserted, nor is that of a generated example: the machine may be busy with other tests."""
    patient = [hypothesis.HealthCheck.too_slow]
    usual = hypothesis.settings()
    hypothesis.settings.register_profile("patient", usual, deadline=None, suppress_health_check=patient)
    hypothesis.settings.load_profile("patient")


def _needs_services(item: pytest.Item) -> bool:
    return "services" in getattr(item, "fixturenames", ()) or _END_TO_END in item.path.parents


@pytest.fixture(scope="session")
def kafka_fleet(services: None, pki: Pki) -> Iterator[KafkaFleet]:
    """The clusters that the session shares: ``kafka_fleet.of("3.9")``."""
    from tests.services.kafka_fleet import KafkaFleet

    with KafkaFleet(pki) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def kafka(kafka_fleet: KafkaFleet) -> KafkaCluster:
    """A shared cluster of the newest Kafka."""
    from tests.services.kafka_builds import NEWEST

    return kafka_fleet.of(NEWEST)


@pytest.fixture(scope="session", params=["3.9", "4.3"])
def each_kafka(kafka_fleet: KafkaFleet, request: pytest.FixtureRequest) -> KafkaCluster:
    """A shared cluster of each Kafka in turn."""
    line: str = request.param
    return kafka_fleet.of(line)


@pytest.fixture(scope="session")
def older_kafka(kafka_fleet: KafkaFleet) -> KafkaCluster:
    """A shared cluster of Kafka 3.9."""
    return kafka_fleet.of("3.9")


@pytest.fixture
def make_kafka(services: None, pki: Pki) -> Iterator[MakeKafka]:
    """Start clusters of the test's own, to kill or set up differently: ``make_kafka(options, line="3.9")``."""
    from tests.services.kafka_builds import NEWEST, kafka_build
    from tests.services.kafka_cluster import KafkaCluster

    with ExitStack() as stack:

        def make(options: KafkaOptions | None = None, *, line: str = NEWEST) -> KafkaCluster:
            return stack.enter_context(KafkaCluster(kafka_build(line), pki, options))

        yield make
