"""Whatever file comes, of whatever form: an object or an `IdentityError`, and in reasonable time."""

from __future__ import annotations

from functools import partial

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.bundles import read_bundle
from mtlskit.pki.costs import rounds
from mtlskit.pki.inspection import inspect
from mtlskit.pki.keys import private_key_pem
from mtlskit.pki.material import gather
from mtlskit.pki.requests import Wishes, load_request, make_request, request_facts, subject_name
from tests.support.der_patch import with_integer
from tests.support.mutation import FUZZ, PIECES, mutated, mutated_inside, survives
from tests.support.x509_builder import NOW, make_certificate

ROOT = make_certificate("root", ca=True, usages=None, digital_signature=False)
MIDDLE = make_certificate("middle", issuer=ROOT, ca=True, usages=None, digital_signature=False)
LEAF = make_certificate("leaf", issuer=MIDDLE)
OTHER = make_certificate("other")
FAST = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(10)


def archive(scheme: pkcs12.PBES | None) -> bytes:
    secret = (
        NoEncryption() if scheme is None else FAST.key_cert_algorithm(scheme).hmac_hash(hashes.SHA256()).build(b"x")
    )
    return pkcs12.serialize_key_and_certificates(b"me", LEAF.key, LEAF.certificate, [MIDDLE.certificate], secret)


ARCHIVES = [archive(None), *(archive(scheme) for scheme in pkcs12.PBES)]
REQUEST = make_request(LEAF.key, Wishes(subject_name("CN=asker")))
BINARY = [
    *ARCHIVES,
    LEAF.certificate.public_bytes(Encoding.DER),
    LEAF.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    LEAF.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
]
TEXTS = [
    LEAF.cert_pem,
    LEAF.key_pem,
    private_key_pem(LEAF.key, b"x"),
    MIDDLE.cert_pem,
    ROOT.cert_pem,
    OTHER.cert_pem,
    OTHER.key_pem,
    REQUEST,
]


def all_readers(data: bytes) -> None:
    for passphrase in (None, b"", b"x"):
        survives(partial(read_bundle, data, source="f", passphrase=passphrase))
        survives(partial(inspect, data, source="f", now=NOW, passphrase=passphrase))
    survives(partial(gather, [("c", data), ("k", LEAF.key_pem)], now=NOW, passphrase=b"x"))
    survives(partial(inspect, LEAF.cert_pem, source="f", now=NOW, key=("k", data), passphrase=b"x"))


@FUZZ
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"\x30" + tail))
def test_random_bytes(data: bytes) -> None:
    all_readers(data)
    assert rounds(data) >= 0


@FUZZ
@given(mutated(BINARY))
def test_damaged_binary_files(data: bytes) -> None:
    all_readers(data)


@FUZZ
@given(mutated_inside([LEAF.cert_pem, ROOT.cert_pem, LEAF.key_pem]), st.sampled_from(TEXTS), st.booleans())
def test_damage_inside_a_bundle(data: bytes, beside: bytes, in_front: bool) -> None:
    all_readers(data + beside if in_front else beside + data)


@FUZZ
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12))
def test_any_heap_of_good_blocks(blocks: list[bytes]) -> None:
    """Shuffled, mixed up, with gaps, twice: each heap is read, or refused for its encrypted key or lack of use."""
    all_readers(b"".join(blocks))


@FUZZ
@given(st.lists(st.sampled_from([*PIECES, *TEXTS, *BINARY]), max_size=8))
def test_any_heap_of_anything(pieces: list[bytes]) -> None:
    all_readers(b"".join(pieces))


@FUZZ
@given(
    st.sampled_from(ARCHIVES),
    st.sampled_from([10, 2048, 3, 0]),
    st.integers(-(2**70), 2**70) | st.integers(-10, 3000) | st.sampled_from([2**31 - 1, 2**31, 2**32, 2**63]),
)
def test_any_number_in_an_archive(data: bytes, old: int, new: int) -> None:
    all_readers(with_integer(data, old, new))


@FUZZ
@given(mutated([REQUEST]) | mutated_inside([REQUEST]))
def test_damaged_requests(data: bytes) -> None:
    survives(lambda: request_facts(load_request(data, source="r")))


def test_every_prefix_of_an_archive() -> None:
    for data in (ARCHIVES[0], BINARY[-3]):
        for end in range(len(data)):
            survives(partial(read_bundle, data[:end], source="f", passphrase=b"x"))


@pytest.mark.parametrize(
    "data", [LEAF.cert_pem * 200_000, b"\x30" * 50_000_000, b"-" * 50_000_000], ids=["pem", "der", "text"]
)
def test_an_enormous_file_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        read_bundle(data, source="f")
    assert caught.value.code in (Code.PEM_TOO_LARGE, Code.PEM_DAMAGED)
