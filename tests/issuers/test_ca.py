"""Issuer `ca`: our own CA signs at once, once for each rotation, and takes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from mtlskit.errors import Code, IdentityError
from mtlskit.issuers.base import Order
from mtlskit.issuers.ca import CaIssuer
from mtlskit.pki.certificates import load_certificates, serial_text
from mtlskit.pki.requests import subject_name
from mtlskit.store.authority_folder import AuthorityFolder
from tests.support.openssl import openssl
from tests.support.orders import wanted

NOW = datetime.now(UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    AuthorityFolder.init(tmp_path / "ca", subject_name("CN=our ca"), now=NOW)
    return tmp_path / "ca"


async def issued(issuer: CaIssuer, order: Order) -> x509.Certificate:
    receipt = await issuer.request(order, await issuer.survey(order))
    delivery = await issuer.fetch(order, receipt)
    assert delivery is not None
    assert delivery.ours
    [leaf] = load_certificates(delivery.cert_pem, source="delivered")
    assert receipt == {"serial": serial_text(leaf)}
    return leaf


async def test_it_signs_once_for_each_rotation(folder: Path, tmp_path: Path) -> None:
    order = wanted(tmp_path / "pending").order
    leaf = await issued(CaIssuer(folder), order)
    assert await issued(CaIssuer(folder), order) == leaf, "as after a kill"
    other = await issued(CaIssuer(folder), wanted(tmp_path / "other", "20260101T000000Z-11111111").order)
    assert other.serial_number != leaf.serial_number
    assert len(AuthorityFolder.open(folder).entries()) == 2
    copy = folder / "issued" / f"{serial_text(leaf)}.crt"
    openssl("verify", "-purpose", "sslclient", "-CAfile", folder / "ca.crt", copy)


async def test_the_life_that_was_asked_for(folder: Path, tmp_path: Path) -> None:
    day = timedelta(days=1)
    for name, seconds, life in (("a", None, 365 * day), ("b", 86_400.0, day)):
        order = wanted(tmp_path / name, name).order  # asked for now: this module was read long ago in a long run
        leaf = await issued(CaIssuer(folder, seconds), order)
        assert abs(leaf.not_valid_after_utc - order.now - life) < timedelta(minutes=10)


async def test_a_revocation_is_on_the_list_and_can_be_repeated(folder: Path, tmp_path: Path) -> None:
    issuer = CaIssuer(folder)
    leaf = await issued(issuer, wanted(tmp_path / "pending").order)
    for _ in range(2):
        told = await issuer.revoke(serial_text(leaf), None, now=NOW)
        assert str(folder / "ca.crl") in told
        [revoked] = x509.load_pem_x509_crl((folder / "ca.crl").read_bytes())
        assert revoked.serial_number == leaf.serial_number
        reason = revoked.extensions.get_extension_for_class(x509.CRLReason).value.reason
        assert reason is x509.ReasonFlags.superseded


async def test_a_certificate_of_another_ca_is_not_revoked(folder: Path) -> None:
    with pytest.raises(IdentityError) as caught:
        await CaIssuer(folder).revoke("4711", None, now=NOW)
    assert caught.value.code is Code.CA_UNKNOWN_SERIAL


async def test_a_folder_without_a_ca(tmp_path: Path) -> None:
    order = wanted(tmp_path / "pending").order
    with pytest.raises(IdentityError) as caught:
        await CaIssuer(tmp_path / "none").request(order, {})
    assert caught.value.code is Code.CA_FOLDER_MISSING
    assert str(tmp_path / "none") in CaIssuer(tmp_path / "none").waiting_for(order, {})


async def test_a_ca_whose_key_is_encrypted(tmp_path: Path) -> None:
    folder, secret = tmp_path / "ca", tmp_path / "secret"
    AuthorityFolder.init(folder, subject_name("CN=our ca"), now=NOW, passphrase=b"correct horse")
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    with pytest.raises(IdentityError) as locked:
        await issued(CaIssuer(folder), wanted(tmp_path / "pending").order)
    assert locked.value.code is Code.KEY_ENCRYPTED
    await issued(CaIssuer(folder, passphrase_file=secret), wanted(tmp_path / "other", "b").order)
