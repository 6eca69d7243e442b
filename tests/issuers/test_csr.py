"""Issuer `csr`: it waits for people, and says what for."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mtlskit.errors import Code, IdentityError, RotationError
from mtlskit.issuers.csr import CsrIssuer, bring_answer
from tests.support.orders import wanted


async def test_it_waits_until_the_answer_was_brought(tmp_path: Path) -> None:
    order = wanted(tmp_path / "pending").order
    issuer = CsrIssuer()
    assert await issuer.survey(order) == {}
    receipt = await issuer.request(order, {})
    assert receipt == {"request": str(order.pending / "client.csr")}
    assert await issuer.fetch(order, receipt) is None
    said = issuer.waiting_for(order, receipt)
    assert f"{order.pending}/client.csr" in said
    assert "mtlskit certs import reporting" in said
    for answer in (b"first", b"second"):
        bring_answer(order.pending, answer)
        delivery = await issuer.fetch(order, receipt)
        assert delivery is not None
        assert (delivery.cert_pem, delivery.key_pem) == (answer, None)
    assert stat.S_IMODE((order.pending / "answer.pem").stat().st_mode) == 0o644


async def test_an_answer_that_cannot_be_read(tmp_path: Path) -> None:
    order = wanted(tmp_path / "pending").order
    (order.pending / "answer.pem").mkdir()
    with pytest.raises(IdentityError) as caught:
        await CsrIssuer().fetch(order, {})
    assert caught.value.code is Code.FILE_UNREADABLE


def test_an_answer_for_a_rotation_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(IdentityError) as caught:
        bring_answer(tmp_path / "none", b"x")
    assert caught.value.code is Code.FILE_UNWRITABLE


async def test_it_cannot_revoke() -> None:
    with pytest.raises(RotationError) as caught:
        await CsrIssuer().revoke("4711", None, now=datetime.now(UTC))
    assert caught.value.code is Code.ROTATION_REFUSED
