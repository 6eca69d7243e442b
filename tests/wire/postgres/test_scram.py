"""SCRAM, both sides: the vectors of the RFC, and what each side must refuse."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.pki.authority import Authority
from mtlskit.pki.keys import KeyType
from mtlskit.wire.postgres.scram import (
    MAX_ITERATIONS,
    Challenge,
    ScramClient,
    ScramError,
    ScramExchange,
    ScramKeys,
    ScramServer,
    check_client_first,
    new_nonce,
    prepare_password,
    server_end_point,
)

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FAST = 1  # iterations, where the count itself is not what is tested
BINDING = b"\x01" * 32


def talk(client: ScramClient, server: ScramServer) -> None:
    """A whole conversation; raises what either side raises."""
    client.verify(server.final(client.final(server.first(client.first()))))


class TestRfc7677:
    """Section 3 of the RFC, byte for byte."""

    CLIENT_FIRST = f"n,,n=user,r={CLIENT_NONCE}".encode()
    SERVER_FIRST = f"r={CLIENT_NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
    CLIENT_FINAL = f"c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
    SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

    def test_client(self) -> None:
        client = ScramClient("pencil", nonce=CLIENT_NONCE, username="user")
        assert client.first() == self.CLIENT_FIRST
        assert client.final(self.SERVER_FIRST) == self.CLIENT_FINAL
        client.verify(self.SERVER_FINAL)

    def test_server(self) -> None:
        server = ScramServer(ScramKeys.derive("pencil", SALT), plus=False, binding=None, nonce=SERVER_NONCE)
        assert server.first(self.CLIENT_FIRST) == self.SERVER_FIRST
        assert server.final(self.CLIENT_FINAL) == self.SERVER_FINAL


def test_the_verifier_is_the_one_postgresql_makes() -> None:
    # From PostgreSQL itself: StoredKey and ServerKey of the RFC's password and salt.
    assert ScramKeys.derive("pencil", SALT).verifier() == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


@given(st.text(max_size=40), st.none() | st.binary(min_size=1, max_size=64))
def test_both_sides_agree(password: str, binding: bytes | None) -> None:
    server = ScramServer(
        ScramKeys.derive(password, SALT, FAST), plus=binding is not None, binding=binding, nonce=new_nonce()
    )
    talk(ScramClient(password, binding=binding), server)


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_another_password_is_refused(right: str, wrong: str) -> None:
    server = ScramServer(ScramKeys.derive(right, SALT, FAST), plus=False, binding=None)
    client = ScramClient(wrong)
    if right == wrong:
        talk(client, server)
        return
    with pytest.raises(ScramError) as caught:
        talk(client, server)
    assert caught.value.sqlstate == "28P01"


def test_another_certificate_fails_the_binding() -> None:
    server = ScramServer(ScramKeys.derive("pw", SALT, FAST), plus=True, binding=BINDING)
    with pytest.raises(ScramError, match="channel binding check failed") as caught:
        talk(ScramClient("pw", binding=b"\x02" * 32), server)
    assert caught.value.sqlstate == "28000"


def test_a_client_that_saw_no_offer_is_told_that_there_was_one() -> None:
    server = ScramServer(ScramKeys.derive("pw", SALT, FAST), plus=False, binding=BINDING)
    with pytest.raises(ScramError, match="negotiation error") as caught:
        server.first(b"y,,n=,r=abc")
    assert caught.value.sqlstate == "28000"
    assert "removed" in caught.value.detail


def test_an_exchange_says_what_it_could_have_bound_to() -> None:
    assert ScramExchange(able=True).first().startswith(b"y,,")
    assert ScramExchange().first().startswith(b"n,,")
    exchange = ScramExchange(able=True, nonce="abc")
    server = ScramServer(ScramKeys.derive("pw", SALT, FAST), plus=False, binding=None)
    wanted = exchange.challenge(server.first(exchange.first()))
    assert wanted == Challenge(SALT, FAST)
    exchange.verify(server.final(exchange.prove(ScramKeys.derive("pw", wanted.salt, wanted.iterations))))


def test_the_same_client_is_welcome_where_there_was_none() -> None:
    server = ScramServer(ScramKeys.derive("pw", SALT, FAST), plus=False, binding=None, nonce="x")
    assert server.first(b"y,,n=,r=abc").startswith(b"r=abcx,")


@pytest.mark.parametrize(
    ("message", "plus", "sqlstate"),
    [
        (b"", False, "08P01"),
        (b"n", False, "08P01"),
        (b"n,", False, "08P01"),
        (b"n,,", False, "08P01"),
        (b"n,,r=abc,n=", False, "08P01"),
        (b"n,,n=,r=", False, "08P01"),
        (b"n,,n=,r=a\x00b", False, "08P01"),
        (b"n,,n=,r=\xff", False, "08P01"),
        (b"n,,n=,r=a,r=b", False, "08P01"),
        (b"n,,n=,r=a,x", False, "08P01"),
        (b"q,,n=,r=abc", False, "08P01"),
        (b"p=tls-server-end-point,,n=,r=abc", False, "08P01"),
        (b"n,,n=,r=abc", True, "08P01"),
        (b"y,,n=,r=abc", True, "08P01"),
        (b"p=tls-unique,,n=,r=abc", True, "08P01"),
        (b"n,a=admin,n=,r=abc", False, "0A000"),
        (b"n,,m=x,n=,r=abc", False, "08P01"),
        (b"n,,n=,r=abc,m=x", False, "0A000"),
        (b"n,,n=,r=" + b"a" * 5000, False, "08P01"),
    ],
)
def test_first_messages_that_are_refused(message: bytes, plus: bool, sqlstate: str) -> None:
    server = ScramServer(ScramKeys.derive("pw", SALT, FAST), plus=plus, binding=BINDING if plus else None)
    with pytest.raises(ScramError) as caught:
        server.first(message)
    assert caught.value.sqlstate == sqlstate


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"c=biws,r=abcx",
        b"c=biws,r=abcx,p=",
        b"c=biws,r=abcx,p=AAAA",
        b"c=biws,r=abcx,p=!!!!",
        b"c=%,r=abcx,p=" + base64.b64encode(bytes(32)),
        b"c=biws,r=abc,p=" + base64.b64encode(bytes(32)),
        b"c=eSws,r=abcx,p=" + base64.b64encode(bytes(32)),  # `y,,`: not the header it began with
    ],
)
def test_final_messages_that_are_refused(message: bytes) -> None:
    server = ScramServer(ScramKeys.derive("pw", SALT, FAST), plus=False, binding=None, nonce="x")
    server.first(b"n,,n=,r=abc")
    with pytest.raises(ScramError):
        server.final(message)


@given(st.binary(max_size=60), st.binary(max_size=60), st.booleans())
def test_rubbish_never_raises_anything_else(first: bytes, final: bytes, plus: bool) -> None:
    server = ScramServer(ScramKeys.derive("pw", SALT, FAST), plus=plus, binding=BINDING)
    for step, message in ((server.first, first), (server.final, final)):
        with pytest.raises(ScramError):
            step(message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"r=abc,s=AAAA,i=1",  # nothing added to our nonce
        b"r=zzz,s=AAAA,i=1",
        b"r=abcx,s=AAAA,i=0",
        b"r=abcx,s=AAAA,i=-5",
        b"r=abcx,s=AAAA,i=one",
        f"r=abcx,s=AAAA,i={MAX_ITERATIONS + 1}".encode(),
        b"r=abcx,s=*,i=1",
        b"r=abcx,s=AAAA",
        b"e=other-error",
        b"r=abcx,s=AAAA,i=1,x=" + b"a" * 5000,
    ],
)
def test_a_client_refuses_a_server_that_plays_false(message: bytes) -> None:
    with pytest.raises(ScramError):
        ScramClient("pw", nonce="abc").final(message)


@pytest.mark.parametrize("message", [b"", b"e=invalid-proof", b"v=AAAA", b"v=%"])
def test_a_client_refuses_a_server_that_does_not_know_the_password(message: bytes) -> None:
    client = ScramClient("pw", nonce="abc")
    client.final(b"r=abcx,s=AAAA,i=1")
    with pytest.raises(ScramError):
        client.verify(message)


def test_a_client_that_was_not_asked_accepts_no_signature() -> None:
    with pytest.raises(ScramError):
        ScramClient("pw").verify(b"v=")


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("pencil", b"pencil"),
        ("I\u00adX", b"IX"),  # the examples of RFC 4013, section 3
        ("\u2168", b"IX"),
        ("\u00aa", b"a"),
        ("a\u00a0b", b"a b"),
        ("\u0007", b"\x07"),  # prohibited: as it is
        ("\u06271", "\u06271".encode()),  # bad bidirectional text: as it is
        ("\u0627\u0628", "\u0627\u0628".encode()),
        ("\u00ad", "\u00ad".encode()),  # nothing would be left
        # What follows was seen at PostgreSQL 15, and is not what the RFC says.
        ("a\u200bb", b"a b"),  # a zero width space is a space first
        ("\u200b", b" "),
        ("\u0627\u200b", "\u0627\u200b".encode()),
        ("\U0001f130", "\U0001f130".encode()),  # unassigned in Unicode 3.2, whatever it normalizes to
        ("a\u0300\u0340", "a\u0300\u0340".encode()),  # prohibited, and would normalize to what is not
    ],
)
def test_saslprep(password: str, prepared: bytes) -> None:
    assert prepare_password(password) == prepared


def test_the_binding_data_are_the_hash_of_the_certificate() -> None:
    now = datetime.now(UTC)
    issued = Authority.create("CA", now=now).issue_server(["localhost"], now=now)
    assert server_end_point(issued.certificate) == issued.certificate.fingerprint(hashes.SHA256())


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [(KeyType.EC_P256, hashes.SHA256()), (KeyType.ED25519, hashes.SHA256())],
)
def test_the_binding_hash_follows_the_signature(kind: KeyType, algorithm: hashes.HashAlgorithm) -> None:
    certificate = Authority.create("CA", now=datetime.now(UTC), kind=kind).certificate
    assert server_end_point(certificate) == certificate.fingerprint(algorithm)


@pytest.mark.parametrize(
    ("signed_with", "bound_with"),
    [
        (hashes.SHA1(), hashes.SHA256()),  # noqa: S303 - RFC 5929 replaces it, which is what is tested
        (hashes.SHA256(), hashes.SHA256()),
        (hashes.SHA384(), hashes.SHA384()),
        (hashes.SHA512(), hashes.SHA512()),
    ],
)
def test_the_binding_hash_of_rfc_5929(signed_with: hashes.HashAlgorithm, bound_with: hashes.HashAlgorithm) -> None:
    class Certificate:
        signature_hash_algorithm = signed_with

        def fingerprint(self, algorithm: hashes.HashAlgorithm) -> bytes:
            return algorithm.name.encode()

    certificate: x509.Certificate = Certificate()  # type: ignore[assignment]  # SHA-1 can no longer be signed with
    assert server_end_point(certificate) == bound_with.name.encode()


def test_secrets_stay_out_of_reprs() -> None:
    keys = ScramKeys.derive("pw", SALT, FAST)
    assert repr(keys.client_key)[2:8] not in repr(keys)


def test_the_check_of_a_message_that_passes_through() -> None:
    check_client_first(b"n,,n=,r=abc", plus=False, offered=True)
    with pytest.raises(ScramError, match="negotiation"):
        check_client_first(b"y,,n=,r=abc", plus=False, offered=True)
