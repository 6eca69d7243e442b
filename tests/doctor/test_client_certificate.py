"""A server's TLS, and what it makes of our certificate: where all is well, and at the edges."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
import trio

from mtlskit.doctor.case import Means
from mtlskit.doctor.diagnosis import Diagnosis
from mtlskit.doctor.finding import Finding, Layer, Verdict
from mtlskit.doctor.gather import diagnose, from_flags
from mtlskit.errors import Code
from tests.doctor.catalogue.base import told_of
from tests.services.pki import Pki
from tests.services.postgres import PostgresServer
from tests.support.s_server import serving_many
from tests.support.tls_servers import echoing, listening

LAYERS = (Layer.TLS, Layer.CLIENT_CERTIFICATE)


def diagnosed(pki: Pki, port: int, kind: str = "tcp", **flags: Any) -> Diagnosis:
    usual = {"kind": kind, "upstream": [f"localhost:{port}"], "ca": pki.server_ca}
    pair = {"cert": pki.client.cert, "key": pki.client.key}
    report = trio.run(diagnose, from_flags({**usual, **pair, **flags}, Means(step=3, deadline=15)))
    (diagnosis,) = report.diagnoses
    return diagnosis


def found(diagnosis: Diagnosis, check: str) -> Finding:
    (finding,) = [each for each in diagnosis.findings if each.check == check]
    return finding


def healthy(diagnosis: Diagnosis) -> None:
    wrong = [each for each in diagnosis.findings if each.verdict in (Verdict.WARN, Verdict.FAIL)]
    assert not wrong, told_of(diagnosis)
    passing = {each.layer for each in diagnosis.findings if each.verdict is Verdict.PASS}
    assert passing.issuperset(LAYERS), told_of(diagnosis)


@pytest.mark.parametrize("negotiation", ["sslrequest", "direct"])
@pytest.mark.parametrize("verify", ["full", "ca", "name:localhost"])
def test_a_postgres_that_is_well(postgres: PostgresServer, verify: str, negotiation: str) -> None:
    healthy(diagnosed(postgres.pki, postgres.port, "postgres", verify=verify, negotiation=negotiation))


def test_each_postgres_that_is_well(each_postgres: PostgresServer) -> None:
    pki = each_postgres.pki
    healthy(diagnosed(pki, each_postgres.port, "postgres", cert=pki.client_chained.cert, key=pki.client_chained.key))


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_server_that_is_well(pki: Pki, version: str) -> None:
    asking = ("-CAfile", pki.client_ca, "-Verify", "2", "-verify_return_error")
    with serving_many(pki.server, *asking, version) as port:
        healthy(diagnosed(pki, port))


def test_a_server_that_asks_for_none_may_be_meant(pki: Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    with listening(echoing(context)) as port:
        diagnosis = diagnosed(pki, port)
    healthy(diagnosis)
    assert "asks for no client certificate" in found(diagnosis, "client-certificate.accepted").seen


def test_what_scripts_get(postgres: PostgresServer) -> None:
    diagnosis = diagnosed(postgres.pki, postgres.port, "postgres", verify="name:db.example.com")
    handshake = found(diagnosis, "tls.handshake").facts
    assert handshake["ca_names"] == ["CN=mtlskit tests client CA"]
    assert handshake["asks_for_certificate"] is True
    (certificate,) = found(diagnosis, "tls.chain").facts["certificates"]
    assert certificate["subject"] == "CN=localhost"
    verify = found(diagnosis, "tls.verify")
    assert verify.code is Code.TLS_NAME_MISMATCH
    assert verify.facts["modes"] == {"full": True, "ca": True, "name:db.example.com": False}
    assert verify.commands == (f"mtlskit certs show --connect localhost:{postgres.port} --kind postgres",)


def test_a_connection_that_ends_after_the_handshake(pki: Pki) -> None:
    """Without an alert: a load balancer that looks at the certificate later, or a server that is full."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(pki.client_ca)

    def close(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            tls.shutdown(socket.SHUT_RDWR)

    with listening(close) as port:
        diagnosis = diagnosed(pki, port)
    assert diagnosis.cause is not None, told_of(diagnosis)
    assert diagnosis.cause.code is Code.UPSTREAM_CLOSED
    assert "after the TLS handshake" in diagnosis.cause.seen


def test_a_refusal_of_the_user_is_no_refusal_of_the_certificate(postgres: PostgresServer) -> None:
    """No line of pg_hba.conf fits somebody who does not exist; the certificate was taken before."""
    pki = postgres.pki
    diagnosis = diagnosed(pki, postgres.port, "postgres", cert=pki.certuser.cert, key=pki.certuser.key)
    assert found(diagnosis, "client-certificate.accepted").verdict is Verdict.PASS


def test_without_an_identity_the_server_is_looked_at(postgres: PostgresServer) -> None:
    diagnosis = diagnosed(postgres.pki, postgres.port, "postgres", cert=None, key=None)
    assert found(diagnosis, "tls.verify").verdict is Verdict.PASS
    failures = [each.check for each in diagnosis.findings if each.verdict is Verdict.FAIL]
    assert failures == ["client-certificate.given"], told_of(diagnosis)


def test_a_pin_that_fits(postgres: PostgresServer) -> None:
    shown = diagnosed(postgres.pki, postgres.port, "postgres")
    (certificate,) = found(shown, "tls.chain").facts["certificates"]
    healthy(diagnosed(postgres.pki, postgres.port, "postgres", pins=[certificate["pin"]]))
