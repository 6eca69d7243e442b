"""Why a TLS tunnel is not enough: stunnel and mtlskit before the same server, with the same identity.

stunnel speaks PostgreSQL's SSLRequest (`protocol = pgsql`) and passes the rest untouched, the server's offer of
SCRAM-SHA-256-PLUS included. libpq refuses that offer on a connection that it did not encrypt itself, so whoever
authenticates with SCRAM cannot get in; and with sslmode=prefer, its default, libpq does not even come that far.
Collected where stunnel is installed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.services.clients import find_stunnel, psql
from tests.services.places import LOOPBACK_V4, free_port
from tests.services.postgres import PostgresServer
from tests.support.proxy_process import ProxyProcess
from tests.support.until import accepts, until

_CONFIGURATION = """
foreground = yes
pid =
[postgres]
client = yes
protocol = pgsql
accept = {host}:{accept}
connect = {host}:{connect}
cert = {cert}
key = {key}
CAfile = {ca}
verifyChain = yes
"""


@pytest.fixture(scope="module")
def stunnel(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a stunnel before the shared server."""
    folder = tmp_path_factory.mktemp("stunnel")
    port = free_port()
    pki = postgres.pki
    (folder / "stunnel.conf").write_text(
        _CONFIGURATION.format(
            host=LOOPBACK_V4,
            accept=port,
            connect=postgres.port,
            cert=pki.client.cert,
            key=pki.client.key,
            ca=pki.server_ca,
        )
    )
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([str(find_stunnel()), folder / "stunnel.conf"], stdout=log, stderr=log, cwd=folder) as process,
    ):
        try:
            until(lambda: accepts((LOOPBACK_V4, port)), f"stunnel listens: {(folder / 'log').read_text()}")
            yield port
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("sslmode", "complaint"),
    [
        ("disable", "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection"),
        # It passes the client's own SSLRequest on as well, through TLS, where the server does not expect one.
        ("prefer", "server sent an error response during SSL exchange"),
    ],
)
def test_scram_fails_through_stunnel_and_works_through_mtlskit(
    stunnel: int, proxy: ProxyProcess, sslmode: str, complaint: str
) -> None:
    ours = psql(proxy.parameters(sslmode=sslmode), "select current_user")
    assert (ours.stdout, ours.stderr) == ("scram\n", "")
    theirs = psql(proxy.parameters(sslmode=sslmode, port=str(stunnel)), "select current_user")
    assert theirs.returncode == 2
    assert complaint in theirs.stderr


def test_stunnel_does_reach_the_server(stunnel: int, proxy: ProxyProcess) -> None:
    """So that the failures above are about the protocol, and not about a stunnel that was set up wrongly."""
    parameters = proxy.parameters("md5user", port=str(stunnel), sslmode="disable")
    assert psql(parameters, "select current_user").stdout == "md5user\n"
