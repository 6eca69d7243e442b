"""Issuer `heroku`: a certificate is asked for once, whatever comes between, and another's is not taken for ours."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mtlskit.errors import Code, RotationError
from mtlskit.heroku.values import RemoteCertificate
from mtlskit.issuers.base import Order, Withdrawn
from mtlskit.issuers.heroku import HerokuIssuer
from tests.support.orders import wanted

NOW = datetime.now(UTC)
ADDON = "postgresql-curved-12345"


class FakeApi:
    """Certificates far away. `created_at` counts up; `lose_answer` fails after the work is done."""

    def __init__(self) -> None:
        self.certificates: dict[str, RemoteCertificate] = {}
        self.lose_answer = False
        self.calls: list[str] = []
        self.roots: str | None = None

    def add(self, id: str = "", *, created_at: str = "") -> RemoteCertificate:  # noqa: A002 - the API's word
        number = len(self.certificates) + 1
        made = RemoteCertificate(id or f"id-{number}", "pending", created_at or f"2026-01-{number:02d}")
        self.certificates[made.id] = made
        return made

    def set(self, id: str, status: str, **parts: Any) -> None:  # noqa: A002
        self.certificates[id] = replace(self.certificates[id], status=status, **parts)

    async def list(self) -> list[RemoteCertificate]:
        self.calls.append("list")
        return list(self.certificates.values())

    async def create(self) -> RemoteCertificate:
        self.calls.append("create")
        made = self.add()
        if self.lose_answer:
            raise RotationError(Code.ISSUER_FAILED, "the connection broke")
        return made

    async def get(self, id: str) -> RemoteCertificate | None:  # noqa: A002
        return self.certificates.get(id)

    async def authorities(self) -> str | None:
        return self.roots

    async def delete(self, id: str) -> None:  # noqa: A002
        self.calls.append(f"delete {id}")
        if id in self.certificates:
            self.set(id, "disabled")


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return replace(wanted(tmp_path / "pending").order, request_pem=None)


async def test_a_certificate_from_pending_to_ready(api: FakeApi, order: Order) -> None:
    api.add("theirs")
    issuer = HerokuIssuer(ADDON, api)
    assert issuer.makes_key
    before = await issuer.survey(order)
    assert before == {"ids": ["theirs"]}
    receipt = await issuer.request(order, before)
    assert receipt == {"id": "id-2", "surely_ours": True}
    for status in ("pending", "", "quarantined"):  # the last is none that we know
        api.set("id-2", status)
        assert await issuer.fetch(order, receipt) is None
    said = issuer.waiting_for(order, receipt)
    assert "id-2" in said
    assert ADDON in said
    api.set("id-2", "ready", private_key="the key", certificate_with_chain="the chain")
    delivery = await issuer.fetch(order, receipt)
    assert delivery is not None
    assert (delivery.cert_pem, delivery.key_pem, delivery.remote_id) == (b"the chain", b"the key", "id-2")
    assert delivery.ours
    assert "the key" not in repr(delivery) + repr(api.certificates["id-2"])


async def test_what_other_hosts_make_meanwhile_is_theirs(api: FakeApi, order: Order) -> None:
    issuer = HerokuIssuer(ADDON, api)
    before = await issuer.survey(order)
    api.add("theirs")
    assert await issuer.request(order, before) == {"id": "id-2", "surely_ours": True}


async def test_a_killed_run_finds_what_it_has_made(api: FakeApi, order: Order) -> None:
    before = await HerokuIssuer(ADDON, api).survey(order)
    made = await api.create()  # and was killed before it could write that down
    found = await HerokuIssuer(ADDON, api).request(order, before)
    # Another host may have made it, while this one was killed before it asked.
    assert found == {"id": made.id, "surely_ours": False}
    assert api.calls.count("create") == 1


async def test_an_answer_that_was_lost(api: FakeApi, order: Order) -> None:
    issuer = HerokuIssuer(ADDON, api)
    before = await issuer.survey(order)
    api.lose_answer = True
    with pytest.raises(RotationError):
        await issuer.request(order, before)
    assert (await issuer.request(order, before))["id"] == "id-1"
    assert api.calls.count("create") == 1


async def test_of_several_new_ones_the_oldest_is_taken(api: FakeApi, order: Order) -> None:
    api.add("old")
    before = await HerokuIssuer(ADDON, api).survey(order)
    api.add("b", created_at="2026-03-02")
    api.add("a", created_at="2026-03-03")
    api.add("gone", created_at="2026-03-01")
    api.set("gone", "disabling")
    receipt = await HerokuIssuer(ADDON, api).request(order, before)
    assert receipt == {"id": "b", "surely_ours": False}
    api.set("b", "ready", private_key="k", certificate_with_chain="c")
    delivery = await HerokuIssuer(ADDON, api).fetch(order, receipt)
    assert delivery is not None
    assert not delivery.ours


async def test_a_killed_run_that_had_not_asked_yet_asks(api: FakeApi, order: Order) -> None:
    before = await HerokuIssuer(ADDON, api).survey(order)
    assert await HerokuIssuer(ADDON, api).find(order, before) is None
    assert await HerokuIssuer(ADDON, api).request(order, before) == {"id": "id-1", "surely_ours": True}


@pytest.mark.parametrize("status", ["disabling", "disabled", None])
async def test_one_that_was_disabled_meanwhile(api: FakeApi, order: Order, status: str | None) -> None:
    receipt = {"id": api.add().id, "surely_ours": True}
    if status is None:
        api.certificates.clear()
    else:
        api.set("id-1", status, private_key="k", certificate_with_chain="c")
    with pytest.raises(Withdrawn) as caught:
        await HerokuIssuer(ADDON, api).fetch(order, receipt)
    assert caught.value.code is Code.ISSUER_FAILED


@pytest.mark.parametrize("parts", [{}, {"private_key": "k"}, {"certificate_with_chain": "c"}])
async def test_one_that_is_ready_and_not_whole(api: FakeApi, order: Order, parts: dict[str, str]) -> None:
    receipt = {"id": api.add().id, "surely_ours": True}
    api.set("id-1", "ready", **parts)
    with pytest.raises(RotationError) as caught:
        await HerokuIssuer(ADDON, api).fetch(order, receipt)
    assert "without key or chain" in caught.value.sentence


async def test_only_what_has_an_id_is_disabled(api: FakeApi) -> None:
    api.add()
    issuer = HerokuIssuer(ADDON, api)
    for _ in range(2):
        assert "id-1" in await issuer.revoke("4711", "id-1", now=NOW)
    with pytest.raises(RotationError) as caught:
        await issuer.revoke("4711", None, now=NOW)
    assert caught.value.code is Code.ROTATION_REFUSED
    assert api.calls == ["delete id-1"] * 2
