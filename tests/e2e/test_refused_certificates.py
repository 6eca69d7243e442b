"""The server refuses our client certificate. Under TLS 1.3 it does so after we have finished our handshake.

The alert then races with our StartupMessage: the server closes its socket with that message unread, which resets the
connection. A proxy that looks at the failed write, and not at what was there to be read, tells "connection reset" every
other time; hence each case is tried fifty times over.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.services.clients import psql
from tests.services.pki import Pair, Pki
from tests.services.postgres import PostgresServer
from tests.services.settings import ServerOptions
from tests.support.proxy_process import MakePostgres, MakeProxy
from tests.support.raw_postgres import refusal_of

TRIES = 50

REFUSED = [
    ("client_stranger", "MTLS-TLS-010", "does not know the CA that signed our client certificate"),
    ("client_revoked", "MTLS-TLS-012", "our client certificate has been revoked"),
]


@pytest.mark.parametrize(("identity", "code", "reason"), REFUSED, ids=[case[0] for case in REFUSED])
@pytest.mark.parametrize("at_once", [1, 10], ids=["one by one", "ten at once"])
def test_the_reason_is_told_every_time(
    make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, identity: str, code: str, reason: str, at_once: int
) -> None:
    pair: Pair = getattr(pki, identity)
    proxy = make_proxy(postgres, cert=pair.cert, key=pair.key)
    with ThreadPoolExecutor(at_once) as pool:
        told = list(pool.map(refusal_of, [proxy.address] * TRIES))
    assert {fields["C"] for fields in told} == {"08004"}
    for fields in told:
        assert reason in fields["M"]
        assert f"[{code}]" in fields["M"]
        assert fields["H"]
    done = psql(proxy.parameters(), "select 1")
    assert done.returncode == 2
    assert reason in done.stderr
    assert "HINT:  " in done.stderr
    assert {event["code"] for event in proxy.events("session_failed")} == {code}


@pytest.mark.parametrize(("identity", "code", "reason"), REFUSED, ids=[case[0] for case in REFUSED])
def test_tls_1_2_tells_the_same(
    make_proxy: MakeProxy, make_postgres: MakePostgres, pki: Pki, identity: str, code: str, reason: str
) -> None:
    pair: Pair = getattr(pki, identity)
    proxy = make_proxy(make_postgres(ServerOptions(tls_max="TLSv1.2")), cert=pair.cert, key=pair.key)
    for _ in range(TRIES):
        fields = refusal_of(proxy.address)
        assert (fields["C"], reason in fields["M"], f"[{code}]" in fields["M"]) == ("08004", True, True)


def test_direct_tls_tells_the_same(make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki) -> None:
    pair = pki.client_revoked
    proxy = make_proxy(postgres, cert=pair.cert, key=pair.key, negotiation="direct")
    for _ in range(TRIES):
        assert "our client certificate has been revoked" in refusal_of(proxy.address)["M"]


def test_a_certificate_for_another_role_is_refused_in_the_servers_words(
    make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki
) -> None:
    """The TLS layer takes it, pg_hba.conf does not."""
    proxy = make_proxy(postgres, cert=pki.certuser.cert, key=pki.certuser.key)
    assert psql(proxy.parameters("certuser"), "select current_user").stdout == "certuser\n"
    assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"
