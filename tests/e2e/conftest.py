"""What the end-to-end tests share: proxies. All of these tests are left out with ``--without-services``.

``--long`` multiplies what the heavy ones move (`times`): 2 GB instead of 200 MB of COPY, 1,000 rounds instead of 100,
an idle minute instead of some seconds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.services.clients import find_stunnel
from tests.services.places import scratch_folder
from tests.services.postgres import PostgresServer
from tests.support.proxy_process import MakeProxy, ProxyProcess, tunnel_flags

if TYPE_CHECKING:
    from tests.services.kafka_cluster import KafkaCluster
    from tests.support.kafka_tunnel import KafkaTunnel, MakeKafkaTunnel

# stunnel is shown failing where we do not: it is no part of the product, so nothing is missing where it is missing.
collect_ignore = [] if find_stunnel() else ["test_beside_stunnel.py"]

_LOG_SHOWN = 8000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of a proxy's log with the failure of a test that used it."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, ProxyProcess):
                report.sections.append((f"log of {name}, {value!r}", value.log()[-_LOG_SHOWN:]))
    return report


@pytest.fixture(scope="session")
def times(request: pytest.FixtureRequest) -> int:
    """By what the heavy tests multiply: 1, or 10 with ``--long``."""
    return 10 if request.config.getoption("--long") else 1


@pytest.fixture(scope="session")
def proxy(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A shared proxy before the shared PostgreSQL of the newest major."""
    with ProxyProcess(tunnel_flags(postgres), folder=tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def each_proxy(each_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A shared proxy before each major of this run in turn."""
    with ProxyProcess(tunnel_flags(each_postgres), folder=tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def dumpable_proxy(
    dumpable_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    """A shared proxy before the PostgreSQL that the installed pg_dump takes."""
    with ProxyProcess(tunnel_flags(dumpable_postgres), folder=tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short name: a unix socket's path ends at 107 bytes."""
    with scratch_folder("mtlskit-e2e-", None) as folder:
        yield folder


@pytest.fixture
def make_proxy(services: None, tmp_path: Path) -> Iterator[MakeProxy]:
    """Start proxies of the test's own: ``make_proxy(server, verify="ca", …)``, with flags as `tunnel_flags` takes them.

    ``make_proxy(toml="…")`` writes a configuration file, and starts from that. `arguments` replace all flags,
    `environment` adds variables, and `log` is the format of the log (`wait_for` needs JSON).
    """
    with ExitStack() as stack:

        def make(
            upstream: PostgresServer | str = "",
            /,
            *,
            toml: str = "",
            arguments: Sequence[str] | None = None,
            log: str = "json",
            environment: dict[str, str] | None = None,
            **flags: object,
        ) -> ProxyProcess:
            folder = tmp_path / f"proxy-{len(list(tmp_path.glob('proxy-*')))}"
            folder.mkdir()
            if toml:
                (folder / "mtlskit.toml").write_text(toml)
            if arguments is None:
                arguments = [] if toml else tunnel_flags(upstream, **flags)
            return stack.enter_context(ProxyProcess(arguments, folder=folder, environment=environment, log=log))

        yield make


@pytest.fixture
def make_kafka_tunnel(make_proxy: MakeProxy) -> MakeKafkaTunnel:
    """Start a tunnel before a cluster: ``make_kafka_tunnel(kafka, advertised='"localhost"')``, keys as TOML values."""
    from tests.support.kafka_tunnel import KafkaTunnel, kafka_toml

    def make(cluster: KafkaCluster, **settings: str) -> KafkaTunnel:
        return KafkaTunnel(make_proxy(toml=kafka_toml(cluster, **settings)), cluster)

    return make
