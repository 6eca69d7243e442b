"""Whom the doctor gives a password: no server that is revoked or untrusted, and in clear text only its own."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Identified, Means
from mtlskit.doctor.checks.postgres import look_inside_postgres
from mtlskit.doctor.diagnosis import Diagnosis
from mtlskit.doctor.finding import Finding, Layer, Verdict
from mtlskit.doctor.gather import Gathered, diagnose, from_file, from_flags
from mtlskit.doctor.report.outline import outline, reason
from mtlskit.errors import Code
from mtlskit.net.identity import load_snapshot
from mtlskit.pki.authority import Authority
from mtlskit.wire.postgres.messages import authentication_sasl, frame
from tests.support.fake_upstream import Papers, make_papers
from tests.support.posed_postgres import Curious, posed_postgres

SECRET = "a secret p@ssword"
WHO = {"PGUSER": "ann", "PGDATABASE": "sales", "PGPASSWORD": SECRET}
CLEAR_TEXT = frame(b"R", struct.pack("!I", 3))
MD5 = frame(b"R", struct.pack("!I", 5) + b"salt")
SCRAM = authentication_sasl(["SCRAM-SHA-256"])
OLDER = pytest.mark.parametrize("asking", [CLEAR_TEXT, MD5], ids=["clear-text", "md5"])
ANY = pytest.mark.parametrize("asking", [CLEAR_TEXT, MD5, SCRAM], ids=["clear-text", "md5", "scram"])


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return make_papers(tmp_path)


def _revoke_server(papers: Papers) -> None:
    """The server certificate that lies there now, on a list beside the files of the client."""
    certificate = x509.load_pem_x509_certificate((papers.folder / "server.pem").read_bytes())
    now = datetime.now(UTC)
    day = timedelta(days=1)
    entry = x509.RevokedCertificateBuilder(certificate.serial_number, now - day).build()
    builder = x509.CertificateRevocationListBuilder(certificate.issuer, now - day, now + day)
    key = serialization.load_pem_private_key(papers.authority.key_pem, None)
    signed = builder.add_revoked_certificate(entry).sign(key, hashes.SHA256())  # type: ignore[arg-type]
    (papers.folder / "ca.crl").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def _means(environ: Mapping[str, str]) -> Means:
    return Means(environ=environ, step=3, deadline=15)


def _by_flags(papers: Papers, *endpoints: Endpoint, environ: Mapping[str, str] = WHO, ca: Path | None = None) -> Case:
    flags = {
        "kind": "postgres",
        "upstream": [str(endpoint) for endpoint in endpoints],
        "cert": papers.folder / "client.pem",
        "key": papers.folder / "client.key",
        "ca": ca or papers.folder / "ca.pem",
        "verify": "name:localhost",
    }
    return from_flags(flags, _means(environ)).cases[0]


def _of_file(papers: Papers, endpoint: Endpoint, environ: Mapping[str, str], *, tunnels: int = 1) -> Case:
    head = '[identity.me]\ncert = "client.pem"\nkey = "client.key"\nca = "ca.pem"\n'
    tunnel = '[tunnel.t{0}]\nkind = "postgres"\nlisten = "127.0.0.1:{1}"\nupstream = "{2}"\nidentity = "me"\n'
    text = head + "".join(tunnel.format(each, 6432 + each, endpoint) for each in range(tunnels))
    (papers.folder / "mtlskit.toml").write_text(text)
    return from_file(papers.folder / "mtlskit.toml", (), _means(environ)).cases[0]


def _inside(case: Case) -> dict[str, Finding]:
    (endpoint,) = case.tunnel.upstream
    assert case.identity is not None
    identified = Identified(snapshot=load_snapshot(case.identity, verify=case.tunnel.verify))
    found = trio.run(partial(look_inside_postgres, case, endpoint, identified, None))
    return {finding.check: finding for finding in found}


def _examined(case: Case) -> Diagnosis:
    (diagnosis,) = trio.run(diagnose, Gathered((case,))).diagnoses
    return diagnosis


def _of(diagnosis: Diagnosis, layer: Layer) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.layer is layer]


def _users(server: Curious) -> set[bytes]:
    return {b"ann" for greeting in server.greetings if b"ann\0" in greeting}


@ANY
def test_a_server_that_is_known_to_be_revoked(papers: Papers, asking: bytes) -> None:
    _revoke_server(papers)
    server = Curious(asking)
    with posed_postgres(papers, server) as endpoint:
        diagnosis = _examined(_by_flags(papers, endpoint))
    assert server.greetings  # as far as that it was heard
    assert not server.passwords
    assert not _users(server)
    revoked = [each for each in diagnosis.findings if each.code is Code.TLS_SERVER_CERTIFICATE_REVOKED]
    assert [(each.check, each.verdict) for each in revoked] == [("revocation.server", Verdict.WARN)]
    inside = _of(diagnosis, Layer.POSTGRES)
    assert {(each.verdict, each.because) for each in inside} == {(Verdict.SKIPPED, "revocation.server")}
    row = next(row for row in outline(diagnosis) if Layer.POSTGRES in row.layers)
    assert reason(row.entries[0].finding) == "the server's certificate is revoked"


def test_one_of_two_servers_is_revoked(papers: Papers) -> None:
    bad, good = Curious(CLEAR_TEXT), Curious(CLEAR_TEXT)
    with posed_postgres(papers, good) as second:
        issued = papers.authority.issue_server(["localhost"], now=datetime.now(UTC))
        (papers.folder / "server.pem").write_bytes(issued.cert_pem)
        (papers.folder / "server.key").write_bytes(issued.key_pem)
        _revoke_server(papers)
        with posed_postgres(papers, bad) as first:
            diagnosis = _examined(_by_flags(papers, second, first))
    assert not bad.passwords
    assert len(good.passwords) == 1
    told = [(each.about, each.verdict) for each in _of(diagnosis, Layer.REVOCATION) if each.check.endswith("server")]
    assert sorted(told) == sorted([(str(first), Verdict.WARN), (str(second), Verdict.PASS)])


def test_the_certificate_of_the_session_itself_counts(papers: Papers) -> None:
    """Whatever was presented before: behind one name there may be several servers."""
    _revoke_server(papers)
    server = Curious(CLEAR_TEXT)
    with posed_postgres(papers, server) as endpoint:
        found = _inside(_by_flags(papers, endpoint))
    assert not server.greetings
    assert found["revocation.server"].code is Code.TLS_SERVER_CERTIFICATE_REVOKED
    assert found["postgres.login"].because == "revocation.server"


@ANY
def test_a_server_that_is_not_trusted(papers: Papers, asking: bytes) -> None:
    stranger = papers.folder / "stranger.pem"
    stranger.write_bytes(Authority.create("a stranger", now=datetime.now(UTC)).cert_pem)
    server = Curious(asking)
    with posed_postgres(papers, server) as endpoint:
        case = _by_flags(papers, endpoint, ca=stranger)
        _examined(case)
        found = _inside(case)  # even where somebody asks for it
    assert not server.passwords
    assert not _users(server)
    assert found["postgres.connect"].code is Code.TLS_CHAIN_NOT_TRUSTED


@OLDER
def test_what_certainly_belongs_to_it_is_given(papers: Papers, asking: bytes) -> None:
    server = Curious(asking)
    with posed_postgres(papers, server) as endpoint:
        for environ in (WHO, {"DATABASE_URL": f"postgres://ann:{SECRET.replace('@', '%40')}@{endpoint}/sales"}):
            _inside(_by_flags(papers, endpoint, environ=environ))
    assert len(server.passwords) == 2


@OLDER
@pytest.mark.parametrize(
    ("environ", "tunnels", "doubt"),
    [
        (WHO, 2, "another tunnel"),
        ({"USER": "ann", "PGPASSWORD": SECRET, "DATABASE_URL": "postgres://a:b@other.example/d"}, 1, "nothing says"),
        ({"USER": "ann", "PGPASSWORD": SECRET}, 1, "nothing says"),
        ({"DATABASE_URL": "postgres://ann:a%20secret%20p%40ssword@localhost:6432/dev"}, 1, "tunnel's own port"),
        (WHO | {"PGHOST": "localhost", "PGPORT": "6432"}, 1, "tunnel's own port"),
        ({"PGPASSFILE": "localhost:6432:*:ann:a secret p@ssword"}, 1, "tunnel's own port"),
        ({"PGUSER": "ann", "PGPASSFILE": "*:*:*:ann:a secret p@ssword"}, 1, "this very server"),
    ],
)
def test_what_may_be_another_server_s_is_not(
    papers: Papers, asking: bytes, environ: dict[str, str], tunnels: int, doubt: str
) -> None:
    environ = _with_file(papers, environ)
    server = Curious(asking)
    with posed_postgres(papers, server) as endpoint:
        found = _inside(_of_file(papers, endpoint, environ, tunnels=tunnels))
    assert _users(server)
    assert not server.passwords
    login = found["postgres.login"]
    assert login.verdict is Verdict.SKIPPED
    assert doubt in login.seen
    assert f"set PGHOST={endpoint.host} and PGPORT={endpoint.port}" in login.seen
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("environ", "tunnels"),
    [
        (WHO, 2),
        ({"DATABASE_URL": "postgres://ann:a%20secret%20p%40ssword@localhost:6432/dev"}, 1),
        ({"PGPASSFILE": "localhost:6432:*:ann:a secret p@ssword"}, 1),
    ],
)
def test_it_is_tried_by_scram_all_the_same(papers: Papers, environ: dict[str, str], tunnels: int) -> None:
    environ = _with_file(papers, environ)
    server = Curious(SCRAM)
    with posed_postgres(papers, server) as endpoint:
        _inside(_of_file(papers, endpoint, environ, tunnels=tunnels))
    (answer,) = server.passwords
    assert answer[5:].startswith(b"SCRAM-SHA-256\0")
    assert SECRET.encode() not in answer


@ANY
@pytest.mark.parametrize(
    "place",
    [{"PGHOSTADDR": "10.0.0.9"}, {"PGSERVICE": "production"}, {"PGPORT": "1"}, {"PGHOST": "elsewhere"}],
    ids=lambda place: next(iter(place)),
)
def test_what_is_for_another_server_is_not_even_told_by_scram(
    papers: Papers, asking: bytes, place: dict[str, str]
) -> None:
    server = Curious(asking)
    with posed_postgres(papers, server) as endpoint:
        for who in (WHO, {"USER": "ann", "PGPASSWORD": SECRET}):
            found = _inside(_by_flags(papers, endpoint, environ=who | place))
            assert found["postgres.login"].verdict is Verdict.SKIPPED
    assert not server.passwords
    assert not _users(server)


def _with_file(papers: Papers, environ: dict[str, str]) -> dict[str, str]:
    """The line that stands for a password file is put into one."""
    if "PGPASSFILE" not in environ:
        return environ
    path = papers.folder / "passes"
    path.touch(mode=0o600)
    path.write_text(environ["PGPASSFILE"] + "\n")
    return environ | {"PGPASSFILE": str(path)}
