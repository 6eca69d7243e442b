"""`mtlskit certs show --connect`: what a server presents, against real servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509
from typer.testing import CliRunner, Result

from mtlskit.cli.main import app
from mtlskit.pki.certificates import fingerprint_sha256
from tests.services.pki import Pki
from tests.services.postgres import PostgresServer
from tests.support.s_server import serving_many
from tests.support.tls_servers import closed_port


def show(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["certs", "show", *map(str, arguments)])


def told(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(show(*arguments, "--json").stdout)
    return found


def leaf_of(pki: Pki) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pki.server.cert.read_bytes())


def test_a_postgres(postgres: PostgresServer) -> None:
    found = told("--connect", f"localhost:{postgres.port}", "--ca", postgres.pki.server_ca)
    assert found["good"]
    (certificate,) = found["certificates"]
    assert certificate["fingerprint_sha256"] == fingerprint_sha256(leaf_of(postgres.pki)).hex()
    assert found["versions"] == {"TLSv1": "refused", "TLSv1.1": "refused", "TLSv1.2": "offered", "TLSv1.3": "offered"}
    assert found["asks_for_certificate"] is True
    assert found["ca_names"] == ["CN=mtlskit tests client CA"]
    assert found["version"] == "TLSv1.3"


def test_for_people(postgres: PostgresServer) -> None:
    done = show("--connect", f"localhost:{postgres.port}", "--ca", postgres.pki.server_ca)
    assert done.exit_code == 0, done.output
    for words in ("CN=localhost", "SHA-256", "asks for a client certificate (CN=mtlskit tests client CA)", "TLS 1.3"):
        assert words in done.stdout


def test_without_a_ca_nothing_is_compared(postgres: PostgresServer) -> None:
    done = show("--connect", f"localhost:{postgres.port}")
    assert done.exit_code == 0, done.output
    assert "not compared" in done.stdout


@pytest.mark.parametrize("direct", [False, True])
def test_a_server_not_to_be_trusted(postgres: PostgresServer, direct: bool) -> None:
    negotiation = ("--negotiation", "direct") if direct else ()
    done = show("--connect", f"localhost:{postgres.port}", "--ca", postgres.pki.stranger_ca, *negotiation)
    assert done.exit_code == 3
    assert "MTLS-TLS-004" in done.stdout


def test_another_name(postgres: PostgresServer) -> None:
    found = told(
        "--connect",
        f"localhost:{postgres.port}",
        "--ca",
        postgres.pki.server_ca,
        "--server-name",
        "db.example.com",
    )
    assert [each["code"] for each in found["findings"] if each["verdict"] == "fail"] == ["MTLS-TLS-005"]
    assert found["server_name"] == "db.example.com"


def test_a_server_of_tls_1_2_that_demands_a_certificate(pki: Pki) -> None:
    options = ("-tls1_2", "-CAfile", pki.client_ca, "-Verify", "2", "-verify_return_error")
    with serving_many(pki.server, *options) as port:
        without = told("--connect", f"localhost:{port}", "--kind", "tcp", "--ca", pki.server_ca)
        pair = ("--cert", pki.client.cert, "--key", pki.client.key)
        with_pair = told("--connect", f"localhost:{port}", "--kind", "tcp", "--ca", pki.server_ca, *pair)
    for found in (without, with_pair):
        assert found["good"], found
        assert found["asks_for_certificate"] is True
        assert found["ca_names"] == ["CN=mtlskit tests client CA"]
        assert found["version"] == "TLSv1.2"


_DEMANDING = ("-Verify", "2", "-verify_return_error")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_whether_ours_is_taken(pki: Pki, version: str) -> None:
    server = ("--kind", "tcp", "--ca", pki.server_ca)
    with serving_many(pki.server, version, "-CAfile", pki.client_ca, *_DEMANDING) as port:
        good = ("--connect", f"localhost:{port}", *server, "--cert", pki.client.cert, "--key", pki.client.key)
        stranger = pki.client_stranger
        bad = ("--connect", f"localhost:{port}", *server, "--cert", stranger.cert, "--key", stranger.key)
        taken, refused, shown, shown_refused = told(*good), told(*bad), show(*good), show(*bad)
        none_given = show("--connect", f"localhost:{port}", *server)
    assert (taken["certificate_taken"], taken["good"]) == (True, True)
    assert (refused["certificate_taken"], refused["good"]) == (False, False)
    (finding,) = [each for each in refused["findings"] if each["check"].startswith("client-certificate.")]
    assert (finding["verdict"], finding["code"]) == ("fail", "MTLS-TLS-021")
    assert (shown.exit_code, shown_refused.exit_code, none_given.exit_code) == (0, 3, 0)
    assert "ours          taken (CN=client): " in shown.stdout
    assert "ours          not taken (CN=client): " in shown_refused.stdout
    assert "ours          none was given" in none_given.stdout


def test_a_database_is_asked_for_its_first_answer(postgres: PostgresServer) -> None:
    pair = ("--cert", postgres.pki.client.cert, "--key", postgres.pki.client.key)
    done = show("--connect", f"localhost:{postgres.port}", "--ca", postgres.pki.server_ca, *pair)
    assert done.exit_code == 0, done.output
    assert "takes the certificate, and asks for SCRAM-SHA-256" in done.stdout
    stranger = ("--cert", postgres.pki.client_stranger.cert, "--key", postgres.pki.client_stranger.key)
    found = told("--connect", f"localhost:{postgres.port}", *stranger)  # whether the server is trusted or not
    assert found["certificate_taken"] is False


def test_a_server_that_asks_for_none(pki: Pki) -> None:
    pair = ("--cert", pki.client.cert, "--key", pki.client.key)
    with serving_many(pki.server) as port:
        found = told("--connect", f"localhost:{port}", "--kind", "tcp", *pair)
        done = show("--connect", f"localhost:{port}", "--kind", "tcp", *pair)
    assert (found["asks_for_certificate"], found["certificate_taken"]) == (False, None)
    assert "the server asks for no client certificate" in done.stdout
    assert "ours          not asked for (CN=client): " in done.stdout


def test_verdicts_come_first(postgres: PostgresServer) -> None:
    said = show("--connect", f"localhost:{postgres.port}", "--ca", postgres.pki.server_ca).stdout.splitlines()
    assert said[0] == f"what the server at localhost:{postgres.port} (127.0.0.1) shows:"
    labels = [line[:16].strip() for line in said[2:]]
    assert labels[:6] == ["verify", "client cert", "ours", "handshake", "versions", "names"]
    assert labels.index("Subject") > 6


def test_nobody_there() -> None:
    with closed_port() as port:
        done = show("--connect", f"127.0.0.1:{port}", "--kind", "tcp")
    assert done.exit_code == 1
    assert "refused the connection" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("file.crt", "--connect", "h:1"),
        ("file.crt", "--ca", "ca.crt"),
        ("--connect", "no port here"),
        ("--connect", "heroku:addon"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert show(*arguments).exit_code == 2
