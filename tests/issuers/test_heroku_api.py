"""Issuer `heroku` against the sandbox's API over HTTP, and what becomes of the API's own errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from mtlskit.errors import Code, HerokuError, RotationError
from mtlskit.issuers.base import Order
from mtlskit.issuers.heroku import HerokuIssuer
from mtlskit.issuers.heroku_addon import HerokuAddonIssuer
from mtlskit.issuers.heroku_api import HerokuCalls, HerokuCertificates, asked
from mtlskit.pki.identity import check_pair
from tests.support.far_heroku import KAFKA, POSTGRES, FarHeroku, far_heroku
from tests.support.orders import wanted


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarHeroku]:
    with far_heroku(tmp_path) as running:
        yield running


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return replace(wanted(tmp_path / "pending").order, request_pem=None)


async def test_a_certificate_from_the_first_question_to_its_end(far: FarHeroku, order: Order) -> None:
    issuer = HerokuAddonIssuer(POSTGRES, far.opened)
    [first] = far.alive()
    before = await issuer.survey(order)
    assert before == {"ids": [first]}
    receipt = await issuer.request(order, before)
    assert receipt["surely_ours"]
    assert receipt["id"] in issuer.waiting_for(order, receipt)
    while (delivery := await issuer.fetch(order, receipt)) is None:
        pass  # each look is an hour later
    pair = check_pair(
        delivery.cert_pem, delivery.key_pem or b"", now=datetime.now(UTC), cert_source="cert", key_source="key"
    )
    assert far.alive()[receipt["id"]] == pair.serial
    assert delivery.root_pem == far.hooks.authority.cert_pem
    assert (delivery.ours, delivery.followed) == (True, False)
    for _ in range(2):
        assert receipt["id"] in await issuer.revoke(pair.serial, receipt["id"], now=order.now)
    assert list(far.alive()) == [first]
    assert far.hooks.revoked == [pair.serial]


async def test_one_question_says_which_kind_of_add_on_it_is(far: FarHeroku) -> None:
    for name, follows in ((POSTGRES, False), (KAFKA, True)):
        issuer = HerokuAddonIssuer(name, far.opened)
        far.calls.clear()
        assert [await issuer.follows() for _ in range(2)] == [follows, follows]
        assert far.calls == [("GET", f"/addons/{name}")]


async def test_an_answer_that_was_lost_is_looked_for_at_once(far: FarHeroku, order: Order) -> None:
    issuer = HerokuIssuer(POSTGRES, HerokuCertificates(POSTGRES, far.opened))
    before = await issuer.survey(order)
    far.fault("lose-after,method=POST,times=1")
    receipt = await issuer.request(order, before)
    [new] = far.alive().keys() - set(before["ids"])
    assert receipt == {"id": new, "surely_ours": False}


async def test_a_question_that_never_arrived_is_not_repeated_by_itself(far: FarHeroku, order: Order) -> None:
    issuer = HerokuIssuer(POSTGRES, HerokuCertificates(POSTGRES, far.opened))
    before = await issuer.survey(order)
    far.fault("lose-before,method=POST,times=1")
    with pytest.raises(RotationError) as caught:
        await issuer.request(order, before)
    assert caught.value.code is Code.API_UNCERTAIN
    assert sorted(far.alive()) == before["ids"]
    assert (await issuer.request(order, before))["surely_ours"], "the next run asks, for nothing new is there"


async def test_what_the_api_says_is_told_with_its_hint(far: FarHeroku, order: Order) -> None:
    issuer = HerokuAddonIssuer("postgresql-sandbx-12345", far.opened, "f.toml:3: identity.r.addon")
    with pytest.raises(RotationError) as caught:
        await issuer.survey(order)
    assert caught.value.code is Code.API_NOT_FOUND
    assert caught.value.sentence.endswith(" (the add-on is named by f.toml:3: identity.r.addon)")
    assert POSTGRES in caught.value.hint, "the near match"
    common = HerokuIssuer("c", HerokuCertificates("postgresql-common-12345", far.opened))
    with pytest.raises(RotationError) as caught:
        await common.survey(order)
    assert caught.value.code is Code.API_NO_MTLS


async def test_an_add_on_that_is_neither(order: Order, far: FarHeroku) -> None:
    class Platform:
        async def addon(self, name: str) -> object:
            async with far.opened() as heroku:
                return replace(await heroku.platform.addon(POSTGRES), kind=None, service="heroku-redis")

    class Both:
        platform = Platform()

    @asynccontextmanager
    async def opened() -> AsyncIterator[HerokuCalls]:
        yield Both()  # type: ignore[misc]  # a part of it

    with pytest.raises(RotationError) as caught:
        await HerokuAddonIssuer(POSTGRES, opened).survey(order)
    assert caught.value.code is Code.API_NO_MTLS
    assert "heroku-redis" in caught.value.sentence


async def test_an_error_in_a_group_is_told_too(far: FarHeroku) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[HerokuCalls]:
        async with trio.open_nursery(), far.opened() as heroku:
            yield heroku

    async def call(heroku: HerokuCalls) -> None:
        raise HerokuError(Code.API_BUSY, "too much", "wait")

    with pytest.raises(RotationError) as caught:
        await asked(opened, call)
    assert (caught.value.code, caught.value.sentence, caught.value.hint) == (Code.API_BUSY, "too much", "wait")
