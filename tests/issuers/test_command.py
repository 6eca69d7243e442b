"""Issuer `command`, with programs that sign: our own CA's command, OpenSSL, and what companies have."""

from __future__ import annotations

import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mtlskit.errors import Code, IdentityError, RotationError
from mtlskit.issuers.base import Delivery, Order
from mtlskit.issuers.command import CommandIssuer
from mtlskit.pki.identity import CheckedPair, check_pair
from tests.support.openssl import openssl
from tests.support.orders import Wanted, wanted
from tests.support.own_ca import mtlskit

LONG = 60.0


@pytest.fixture
def asked(tmp_path: Path) -> Wanted:
    return wanted(tmp_path / "pending")


def script(folder: Path, text: str) -> list[str]:
    path = folder / "sign.sh"
    path.write_text(f"#!/bin/sh\nset -eu\n{text}\n")
    path.chmod(0o755)
    return [str(path)]


async def answer(argv: list[str], order: Order) -> Delivery:
    issuer = CommandIssuer(argv, LONG)
    before = await issuer.survey(order)
    delivery = await issuer.fetch(order, await issuer.request(order, before))
    assert delivery is not None
    return delivery


async def failure(argv: list[str], order: Order, *, seconds: float = LONG) -> RotationError:
    with pytest.raises(RotationError) as caught:
        await CommandIssuer(argv, seconds).request(order, {})
    assert caught.value.code is Code.ISSUER_FAILED
    assert caught.value.sentence.startswith("reporting: no certificate: ")
    assert caught.value.hint
    assert not (order.pending / "answer.pem").exists(), "the next run asks again"
    return caught.value


def check(asked: Wanted, delivery: Delivery) -> CheckedPair:
    assert (delivery.key_pem, delivery.ours) == (None, True)
    now = datetime.now(UTC)
    return check_pair(delivery.cert_pem, asked.key_pem, now=now, cert_source="cert", key_source="key", strict=True)


async def test_our_own_ca_as_a_program(tmp_path: Path, asked: Wanted) -> None:
    mtlskit("ca", "init", "--dir", "ca", "--subject", "CN=our ca", cwd=tmp_path)
    sign = f"{sys.executable} -m mtlskit ca sign - --dir {tmp_path}/ca --out {tmp_path}/$MTLSKIT_ROTATION.crt >&2"
    argv = script(tmp_path, f"{sign}\ncat {tmp_path}/*.crt")
    pair = check(asked, await answer(argv, asked.order))
    openssl("verify", "-CAfile", tmp_path / "ca" / "ca.crt", tmp_path / f"{asked.order.rotation}.crt")
    assert pair.leaf.subject.rfc4514_string() == "CN=client"


async def test_openssl_as_a_program(tmp_path: Path, asked: Wanted) -> None:
    made = ("-keyout", tmp_path / "k", "-out", tmp_path / "c", "-subj", "/CN=a company's CA", "-days", "30")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", *made)
    (tmp_path / "ext").write_text("extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\nbasicConstraints=CA:false\n")
    sign = f"openssl x509 -req -CA {tmp_path}/c -CAkey {tmp_path}/k -days 7 -extfile {tmp_path}/ext"
    # With the issuer behind it, as most of these programs print it, and text between that nobody asked for.
    argv = script(tmp_path, f"{sign}\necho 'issued by:'\ncat {tmp_path}/c")
    pair = check(asked, await answer(argv, asked.order))
    assert len(pair.chain) == 2
    assert "CN=a company's CA" in pair.leaf.issuer.rfc4514_string()


async def test_the_program_gets_the_request_and_the_names(tmp_path: Path, asked: Wanted) -> None:
    seen = tmp_path / "seen"
    text = f'cat > {seen}; echo "$MTLSKIT_IDENTITY $MTLSKIT_ROTATION $#" >> {seen}; echo -----BEGIN X-----'
    delivery = await answer(script(tmp_path, text), asked.order)
    assert delivery.cert_pem == b"-----BEGIN X-----\n"
    request, rest = seen.read_bytes().split(b"-----END CERTIFICATE REQUEST-----\n")
    assert request + b"-----END CERTIFICATE REQUEST-----\n" == asked.order.request_pem
    assert rest == b"reporting 20260101T000000Z-00000000 0\n"


async def test_a_rotation_that_goes_on_does_not_ask_twice(tmp_path: Path, asked: Wanted) -> None:
    argv = script(tmp_path, f"echo called >> {tmp_path}/calls; echo -----BEGIN X-----")
    first = await answer(argv, asked.order)
    assert await answer(argv, asked.order) == first
    assert (tmp_path / "calls").read_text() == "called\n"
    assert stat.S_IMODE((asked.order.pending / "answer.pem").stat().st_mode) == 0o600, "it may have printed a key"
    await answer(argv, wanted(tmp_path / "another").order)
    assert (tmp_path / "calls").read_text() == "called\n" * 2


async def test_a_program_that_fails_is_heard(tmp_path: Path, asked: Wanted) -> None:
    error = await failure(script(tmp_path, "echo 'token expired' >&2; exit 7"), asked.order)
    assert error.sentence.endswith("sign.sh: ended with status 7; it said: token expired")
    assert str(asked.order.pending / "client.csr") in error.hint


async def test_a_program_that_prints_no_certificate(tmp_path: Path, asked: Wanted) -> None:
    error = await failure(script(tmp_path, "echo request queued; echo later >&2"), asked.order)
    assert error.sentence.endswith("ended well and printed no PEM; it said: later")


async def test_a_program_that_hangs(tmp_path: Path, asked: Wanted) -> None:
    error = await failure(script(tmp_path, "echo waiting for a person >&2; exec sleep 600"), asked.order, seconds=1.0)
    assert error.sentence.endswith("not done within 1 s; it said: waiting for a person")


async def test_a_program_that_is_missing(tmp_path: Path, asked: Wanted) -> None:
    assert "cannot be run" in (await failure([str(tmp_path / "none")], asked.order)).sentence


async def test_an_answer_that_is_gone(asked: Wanted) -> None:
    with pytest.raises(IdentityError) as caught:
        await CommandIssuer(["true"], LONG).fetch(asked.order, {"answer": "answer.pem"})
    assert caught.value.code is Code.FILE_MISSING


async def test_it_cannot_revoke(asked: Wanted) -> None:
    issuer = CommandIssuer(["true"], LONG)
    with pytest.raises(RotationError) as caught:
        await issuer.revoke("4711", None, now=datetime.now(UTC))
    assert caught.value.code is Code.ROTATION_REFUSED
    assert "4711" in caught.value.sentence
    assert issuer.waiting_for(asked.order, {}) == "true has answered"
