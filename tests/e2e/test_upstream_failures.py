"""An upstream that cannot be used: psql shows the reason and what to do, drivers get an SQLSTATE, the log has both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.services.clients import psql
from tests.services.pki import Pki
from tests.services.places import free_port
from tests.services.postgres import PostgresServer
from tests.services.settings import ServerOptions
from tests.support.bad_servers import after_tls, answers, black_hole, closes, says, says_nothing, serving
from tests.support.proxy_process import MakePostgres, MakeProxy, ProxyProcess, tunnel_toml
from tests.support.raw_postgres import refusal_of

# Seconds for what is meant to run out; the rest of the deadlines stays as it is.
SHORT = '{ dial = "1s", login = "1s" }'


def assert_told(proxy: ProxyProcess, state: str, reason: str, hint: str) -> None:
    """Every client is told the same: psql in words, drivers by SQLSTATE, and whoever reads the log."""
    fields = refusal_of(proxy.address)
    assert (fields["S"], fields["V"], fields["C"]) == ("FATAL", "FATAL", state)
    assert fields["M"].startswith("mtlskit: ")
    assert reason in fields["M"]
    assert hint in fields["H"]
    done = psql(proxy.parameters(), "select 1")
    assert done.returncode == 2
    assert f"FATAL:  {fields['M']}\nHINT:  {fields['H']}\n" in done.stderr
    told = proxy.wait_for("session_failed")
    assert told["reason"] in fields["M"]
    assert f"[{told['code']}]" in fields["M"]
    assert told["hint"] == fields["H"]


def test_nothing_listens(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    port = free_port()
    proxy = make_proxy(postgres, upstream=f"127.0.0.1:{port}")
    assert_told(proxy, "08001", f"127.0.0.1:{port} refused the connection", "nothing listens there")


def test_a_name_that_does_not_resolve(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(postgres, upstream="db.invalid:5432")
    assert_told(proxy, "08001", "db.invalid cannot be resolved", "getent hosts db.invalid")


def test_a_list_of_which_the_last_works(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(postgres, upstream=["db.invalid:5432", f"127.0.0.1:{free_port()}", f"localhost:{postgres.port}"])
    assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"


def test_a_list_of_which_none_works(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    one, other = free_port(), free_port()
    proxy = make_proxy(postgres, upstream=[f"127.0.0.1:{one}", f"localhost:{other}"])
    fields = refusal_of(proxy.address)
    assert f":{one} " in fields["M"]
    assert f":{other} " in fields["M"]


def test_another_ca(make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki) -> None:
    proxy = make_proxy(postgres, ca=pki.stranger_ca)
    assert_told(proxy, "08001", f"; compared with {pki.stranger_ca} (", "--ca")


def test_another_name(make_proxy: MakeProxy, make_postgres: MakePostgres, pki: Pki) -> None:
    proxy = make_proxy(make_postgres(ServerOptions(certificate=pki.server_other_name)))
    assert_told(proxy, "08001", "certificate for another name than localhost", 'verify = "name:')


def test_an_expired_server_certificate(make_proxy: MakeProxy, make_postgres: MakePostgres, pki: Pki) -> None:
    proxy = make_proxy(make_postgres(ServerOptions(certificate=pki.server_expired)), verify="ca")
    assert_told(proxy, "08001", "outside its dates: certificate has expired", "date -u")


def test_a_pin_of_another_key(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(postgres, pin="sha256/" + "A" * 43 + "=")
    assert_told(proxy, "08001", "which is not the pinned one", "add the new pin")


def test_a_server_without_tls(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    """It would take the session in plain text, and never gets to see one."""
    server = make_postgres(ServerOptions(tls=False, hba=("local all all trust", "host all all all trust")))
    proxy = make_proxy(server)
    assert_told(proxy, "08004", "does not offer TLS", "ssl = on")
    assert "user=scram" not in server.log()


def test_tls_versions_that_do_not_meet(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    proxy = make_proxy(make_postgres(ServerOptions(tls_min="TLSv1.1", tls_max="TLSv1.1")))
    fields = refusal_of(proxy.address)
    assert fields["C"] in {"08001", "08004"}
    assert "TLS" in fields["M"]


Place = Callable[[Pki], AbstractContextManager[tuple[str, int]]]

BAD_SERVERS: dict[str, tuple[Place, str, str, str]] = {
    "a black hole": (lambda pki: black_hole(), "08001", "did not accept a TCP connection within 1 s", "allowlist"),
    "silence": (lambda pki: serving(says_nothing), "08001", "did not answer the SSLRequest within 1 s", "allowlist"),
    "no handshake": (lambda pki: serving(answers(b"S")), "08001", "did not finish the TLS handshake", "allowlist"),
    "no login": (
        lambda pki: serving(after_tls(pki, says_nothing)),
        "08006",
        "did not finish the login within 1 s",
        "timeouts.login",
    ),
    "hangs up": (lambda pki: serving(closes), "08006", "closed the connection after the SSLRequest", "its log"),
    "hangs up after TLS": (
        lambda pki: serving(after_tls(pki, lambda tls: None)),
        "08006",
        "closed the connection after the TLS handshake",
        "its log",
    ),
    "injected bytes": (
        lambda pki: serving(answers(b"SR\0\0\0\x08\0\0\0\0")),
        "08P01",
        "sent bytes between its answer to the SSLRequest and the TLS handshake",
        "injecting data",
    ),
    "another protocol": (
        lambda pki: serving(answers(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        "08P01",
        "does not speak the Postgres protocol: it is an HTTP server (HTTP/1.1 400); it answered the SSLRequest with",
        "check the host and the port",
    ),
    "rubbish within TLS": (
        lambda pki: serving(after_tls(pki, says(b"rubbish "))),
        "08P01",
        "has no place in a login",
        "check that the upstream's host and port",
    ),
}


@pytest.mark.parametrize("name", BAD_SERVERS)
def test_servers_that_no_postgres_can_be(make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, name: str) -> None:
    place, state, reason, hint = BAD_SERVERS[name]
    with place(pki) as (host, port):
        proxy = make_proxy(toml=tunnel_toml(postgres, upstream=f'"{host}:{port}"', timeouts=SHORT))
        assert_told(proxy, state, reason, hint)
