"""Whatever bytes come, the readers answer with an object or an `IdentityError`, and never with anything else."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.pki.authority import Authority
from mtlskit.pki.der import describe
from mtlskit.pki.identity import anchor_warnings, check_anchors, check_pair
from mtlskit.pki.keys import KeyType, generate_key, load_private_key, private_key_pem
from tests.support.mutation import FUZZ, PIECES, mutated, mutated_inside, survives
from tests.support.x509_builder import NOW

MOMENTS = st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
ROOT = Authority.create("root", now=NOW)
CLIENT = ROOT.issue_client("client", now=NOW, dns_names=["client.example.com"])
BUNDLE = CLIENT.cert_pem + ROOT.cert_pem
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS = [
    CLIENT.key_pem,
    private_key_pem(generate_key(KeyType.ED25519)),
    RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    generate_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
]


@FUZZ
@given(st.binary(max_size=300), MOMENTS)
def test_random_bytes(data: bytes, now: datetime) -> None:
    survives(lambda: check_pair(data, CLIENT.key_pem, now=now, cert_source="c", key_source="k"))
    survives(lambda: load_private_key(data, source="k", passphrase=b"x"))
    survives(lambda: check_anchors(data, now=now, source="ca"))


@FUZZ
@given(st.lists(st.sampled_from(PIECES), max_size=20))
def test_pieces_of_pem(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    survives(lambda: check_pair(data, CLIENT.key_pem, now=NOW, cert_source="c", key_source="k"))
    survives(lambda: load_private_key(data, source="k", passphrase=b"x"))


@FUZZ
@given(mutated([BUNDLE]), MOMENTS)
def test_damaged_bundles(data: bytes, now: datetime) -> None:
    survives(lambda: check_pair(data, CLIENT.key_pem, now=now, cert_source="c", key_source="k"))
    survives(lambda: check_anchors(data, now=now, source="ca"))


@FUZZ
@given(mutated_inside([CLIENT.cert_pem, ROOT.cert_pem]), st.booleans(), MOMENTS)
def test_damage_inside_certificates(data: bytes, in_front: bool, now: datetime) -> None:
    bundle = data + BUNDLE if in_front else BUNDLE + data
    for pem in (data, bundle):
        survives(partial(check_pair, pem, CLIENT.key_pem, now=now, cert_source="c", key_source="k"))

    def anchors() -> None:
        anchor_warnings(check_anchors(data, now=now, source="ca"), now=now, source="ca")

    survives(anchors)
    survives(lambda: Authority.load(data, CLIENT.key_pem))


@FUZZ
@given(mutated(KEYS) | mutated_inside(KEYS))
def test_damaged_keys(data: bytes) -> None:
    survives(lambda: load_private_key(data, source="k"))
    survives(lambda: check_pair(BUNDLE, data, now=NOW, cert_source="c", key_source="k"))


@FUZZ
@given(st.binary(max_size=100).map(lambda tail: b"\x30" + tail))
def test_anything_like_der_is_described_or_not(data: bytes) -> None:
    assert describe(data) is None or isinstance(describe(data), str)


def test_every_prefix_of_a_file_that_was_cut_short() -> None:
    for end in range(len(CLIENT.cert_pem)):
        cut = CLIENT.cert_pem[:end]
        survives(partial(check_pair, cut, CLIENT.key_pem, now=NOW, cert_source="c", key_source="k"))
    for end in range(len(CLIENT.key_pem)):
        cut = CLIENT.key_pem[:end]
        survives(partial(load_private_key, cut, source="k"))
