"""Servers whose certificates would keep whoever looks at them busy: how much is computed has an end, and the deadline
holds meanwhile."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from mtlskit.cli.main import app
from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Means, Shaken
from mtlskit.doctor.checks.identity import identify
from mtlskit.doctor.checks.tls import shake_hands
from mtlskit.doctor.examine import examine
from mtlskit.doctor.gather import from_flags
from mtlskit.doctor.tls import signatures, telling
from mtlskit.doctor.tls.handshake import MAX_PRESENTED
from mtlskit.doctor.tls.signatures import MAX_CHECKS, Signatures, TooCostlyError, is_costly
from mtlskit.doctor.tls.verification import Anchors, Shown, nearer
from mtlskit.errors import Code, UpstreamError, UpstreamUntrusted
from mtlskit.pki.certificates import certificates_pem, is_issued_by
from mtlskit.pki.keys import generate_key, private_key_pem
from tests.doctor.catalogue.tls_papers import DAY, NOW, anchors, authority, server
from tests.support.tls_servers import echoing, listening

SIGNER = ec.generate_private_key(ec.SECP256R1())
LEAF = generate_key()
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
ROOT = authority("our root")


def namesake(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> x509.Certificate:
    """One of many with the same name, so that each may have signed each other."""
    builder = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(NOW - DAY).not_valid_after(NOW + 90 * DAY).sign(SIGNER, hashes.SHA256())


def namesakes(count: int) -> list[x509.Certificate]:
    return [namesake(LEAF.public_key()) for _ in range(count)]  # type: ignore[arg-type]


def rsa_key(modulus_bits: int, exponent_bits: int) -> rsa.RSAPublicKey:
    """Public numbers that nobody has the private key of."""
    return rsa.RSAPublicNumbers((1 << exponent_bits) - 1, (1 << modulus_bits) - 1).public_key()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[x509.Certificate]:
    """The issuers whose key a signature is checked with, as it happens."""
    issuers: list[x509.Certificate] = []

    def checked(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        issuers.append(issuer)
        return is_issued_by(certificate, issuer)

    monkeypatch.setattr(signatures, "is_issued_by", checked)
    return issuers


def told(chain: Sequence[x509.Certificate], *, more: int = 0) -> tuple[UpstreamError, UpstreamError]:
    """What OpenSSL says, and what is made of it."""
    error = UpstreamUntrusted(Code.TLS_CHAIN_NOT_TRUSTED, "not trusted", "")
    compared = Anchors([ROOT.certificate], "root.crt", of_system=False)
    return error, nearer(error, "the server", Shown(chain, more), compared, NOW)


def test_many_of_one_name_are_not_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    issuers = counted(monkeypatch)
    error, closer = told(namesakes(MAX_PRESENTED))
    assert closer is error
    assert len(issuers) == MAX_CHECKS


@pytest.mark.parametrize(("modulus", "exponent"), [(3072, 3071), (3072, 65), (8200, 17)])
def test_no_signature_is_checked_with_a_costly_key(
    modulus: int, exponent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuers = counted(monkeypatch)
    costly = namesake(rsa_key(modulus, exponent))
    assert is_costly(costly)
    error, closer = told([costly, costly])
    assert closer is error
    assert not issuers


@pytest.mark.parametrize(("modulus", "exponent"), [(2048, 17), (8192, 64)])
def test_a_key_as_they_are(modulus: int, exponent: int) -> None:
    assert not is_costly(namesake(rsa_key(modulus, exponent)))


def test_a_check_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    issuers = counted(monkeypatch)
    one, other = namesakes(2)
    checks = Signatures(most=1)
    for _ in range(3):
        assert not checks.issued(one, other)
    assert len(issuers) == 1
    with pytest.raises(TooCostlyError):
        checks.issued(other, one)


def test_what_is_missing_may_be_among_those_that_are_not_looked_at() -> None:
    leaf = server(authority("our intermediate", ROOT)).certificate
    assert told([leaf])[1].code is Code.TLS_SERVER_CHAIN_INCOMPLETE
    assert told([leaf], more=1)[1].code is Code.TLS_CHAIN_NOT_TRUSTED


@contextmanager
def presenting(chain: Sequence[x509.Certificate], folder: Path) -> Iterator[int]:
    """A server of TLS with that chain; its port."""
    both = folder / "server.pem"
    both.touch(mode=0o600)
    both.write_bytes(private_key_pem(LEAF) + certificates_pem(chain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with listening(echoing(context)) as port:
        yield port


def case_for(port: int, folder: Path, deadline: float = 30) -> Case:
    given = {"upstream": [f"127.0.0.1:{port}"], "kind": "tcp", "ca": str(anchors(folder, ROOT))}
    (case,) = from_flags(given, Means(step=10, deadline=deadline)).cases
    return case


async def shaken(case: Case, port: int) -> Shaken:
    address = (trio.socket.AF_INET, ("127.0.0.1", port))
    return await shake_hands(case, Endpoint("127.0.0.1", port), address, identify(case))


def test_a_server_that_presents_very_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuers = counted(monkeypatch)
    costly = namesake(rsa_key(3072, 3071))
    with presenting([*namesakes(5), *[costly] * 30], tmp_path) as port:
        found = trio.run(shaken, case_for(port, tmp_path), port)
    assert len(found.chain) == MAX_PRESENTED
    assert len(issuers) <= MAX_CHECKS
    assert costly not in issuers
    (chain,) = (each for each in found.findings if each.check == "tls.chain")
    assert "10 certificates, and 25 more that are not looked at" in chain.seen
    assert chain.facts["more"] == 25
    assert Code.TLS_CHAIN_NOT_TRUSTED in [each.code for each in found.findings]


def test_certs_show_says_how_many_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuers = counted(monkeypatch)
    ca = anchors(tmp_path, ROOT)
    with presenting(namesakes(13), tmp_path) as port:
        arguments = ["certs", "show", "--connect", f"127.0.0.1:{port}", "--kind", "tcp", "--ca", str(ca)]
        people = CliRunner().invoke(app, arguments)
        assert len(issuers) <= MAX_CHECKS
        found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert people.exit_code == 3
    assert "and 3 more certificates, which are not looked at" in people.stdout
    assert len(found["certificates"]) == MAX_PRESENTED
    assert found["more_certificates"] == 3


def test_the_deadline_holds_while_it_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = Event()

    def endless(error: UpstreamError, *_: object) -> UpstreamError:
        assert released.wait(60)
        return error

    monkeypatch.setattr(telling, "nearer", endless)
    with presenting(namesakes(1), tmp_path) as port:
        try:
            diagnosis = trio.run(examine, case_for(port, tmp_path, deadline=2))
            assert not diagnosis.complete
            assert "tls.unfinished" in [each.check for each in diagnosis.findings]
        finally:
            released.set()
