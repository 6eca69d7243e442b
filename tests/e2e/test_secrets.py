"""What passes through stays there: no password, query, parameter or passphrase is ever in what the proxy writes."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.services.clients import conninfo, psql
from tests.services.pki import PASSPHRASE, Pki
from tests.services.postgres import PostgresServer
from tests.services.template import PASSWORDS
from tests.support.proxy_process import MakeProxy
from tests.support.raw_postgres import RawClient, cancel_request

SECRETS = {*filter(None, PASSWORDS.values()), PASSPHRASE, "wrong-guess", "hunter2", "secret-parameter", "secret-query"}


@pytest.mark.parametrize("log", ["text", "json"])
def test_the_log_at_its_most_verbose(
    make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, tmp_path: Path, log: str
) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(PASSPHRASE)
    url = f"postgres://user:hunter2@localhost:{postgres.port}/app"
    locked = pki.client_locked
    proxy = make_proxy(postgres, log=log, upstream=url, cert=locked.cert, key=locked.key, passphrase_file=passphrase)
    for user in PASSWORDS:
        with psycopg.connect(conninfo(proxy.parameters(user))) as connection:
            connection.execute("select %s, 'secret-query'", ("secret-parameter",))
            with pytest.raises(psycopg.errors.UndefinedColumn):
                connection.execute('select "secret-query"')
        psql(proxy.parameters(user, password="wrong-guess"), "select 1")
    with RawClient.log_in(proxy.address, proxy.parameters("trustuser")) as client:
        [key] = [message for message in client.until("Z") if message.kind == "K"]
        with RawClient.connect(proxy.address) as request:
            request.send(cancel_request(int.from_bytes(key.body[:4]), key.body[4:]))
            assert request.rest() == b""
    with RawClient.connect(proxy.address) as stranger:
        stranger.send(b"secret-query " * 1000)
        stranger.rest()
    ready = proxy.ready_file.read_text()
    assert proxy.stop() == 0
    written = proxy.log() + ready
    assert "scram" in written  # the user is told, so the log is the one we mean
    assert [secret for secret in SECRETS if secret in written] == []
    assert key.body[4:].hex() not in written


def test_names_cannot_forge_a_line(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    """A client chooses its user's name freely; the log stays one line an event, without control characters."""
    proxy = make_proxy(postgres, log="text")
    psql(proxy.parameters("eve\n2026-01-01T00:00:00Z info    all is well\x1b[2J"), "select 1")
    assert proxy.stop() == 0
    assert "all is well" in proxy.log()
    assert not any(line.endswith("all is well") or "\x1b" in line for line in proxy.log().splitlines())
    assert not any(line.startswith("2026-01-01T00:00:00Z") for line in proxy.log().splitlines())


def test_the_command_line_shows_paths_only(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    """`ps` shows arguments to everybody: a URL may come from the environment instead."""
    url = f"postgres://user:hunter2@localhost:{postgres.port}/app"
    proxy = make_proxy(postgres, upstream=None, environment={"MTLSKIT_UPSTREAM": url})
    assert b"hunter2" not in Path(f"/proc/{proxy.pid}/cmdline").read_bytes()
    assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"
