"""The credential of a Kafka add-on: found among config vars, followed, and reset once where that is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mtlskit.errors import Code, RotationError
from mtlskit.heroku.values import Addon, AddonKind
from mtlskit.issuers.base import Order, Withdrawn
from mtlskit.issuers.heroku_addon import HerokuAddonIssuer
from mtlskit.issuers.heroku_kafka import kafka_vars
from tests.support.far_heroku import KAFKA, POSTGRES, FarHeroku, far_heroku
from tests.support.orders import wanted

ENDS = ("_CLIENT_CERT", "_CLIENT_CERT_KEY", "_TRUSTED_CERT", "_URL", "_PREFIX")


def addon(*names: str) -> Addon:
    config_vars = tuple(name + end for name in names for end in ENDS)
    return Addon("id", KAFKA, AddonKind.KAFKA, "heroku-kafka", "heroku-kafka:private", "events", "", config_vars)


def values(name: str, tag: str) -> dict[str, str]:
    return {name + end: f"{tag}{end}" for end in ENDS}


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarHeroku]:
    with far_heroku(tmp_path) as running:
        yield running


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return replace(wanted(tmp_path / "pending").order, request_pem=None)


# Finding it.


@pytest.mark.parametrize("name", ["KAFKA", "HEROKU_KAFKA_BLUE", "EVENTS_URL"])
@pytest.mark.parametrize("told", [True, False])
def test_the_ends_of_the_names_count(name: str, told: bool) -> None:
    config = {"DATABASE_URL": "postgres://", **values(name, "a")}
    found = kafka_vars(addon(name) if told else addon(), config)
    assert (found.app, found.attachment) == ("events", name)
    assert (found.certificate, found.key, found.roots) == ("a_CLIENT_CERT", "a_CLIENT_CERT_KEY", "a_TRUSTED_CERT")
    assert (found.url, found.prefix) == ("a_URL", "a_PREFIX")
    assert "a_CLIENT_CERT_KEY" not in repr(found)


def test_of_several_add_ons_the_right_one_is_taken() -> None:
    config = {**values("KAFKA", "a"), **values("KAFKA_RED", "b")}
    assert kafka_vars(addon("KAFKA_RED"), config).certificate == "b_CLIENT_CERT"
    with pytest.raises(RotationError) as caught:
        kafka_vars(addon(), config)
    assert caught.value.code is Code.ISSUER_FAILED
    assert "KAFKA, KAFKA_RED" in caught.value.sentence


def test_two_attachments_of_one_add_on_are_one_credential() -> None:
    config = {**values("KAFKA", "a"), **values("KAFKA_RED", "a")}
    assert kafka_vars(addon("KAFKA", "KAFKA_RED"), config).certificate == "a_CLIENT_CERT"
    assert kafka_vars(addon(), config).certificate == "a_CLIENT_CERT"


@pytest.mark.parametrize("gone", ENDS[:3])
@pytest.mark.parametrize("empty", [True, False])
def test_a_part_that_is_missing_is_named(gone: str, empty: bool) -> None:
    config = values("KAFKA", "a") | {f"KAFKA{gone}": " "}
    if not empty:
        del config[f"KAFKA{gone}"]
    with pytest.raises(RotationError) as caught:
        kafka_vars(addon("KAFKA"), config)
    assert f"no config var KAFKA{gone}," in caught.value.sentence
    assert "a_" not in caught.value.sentence
    with pytest.raises(RotationError):
        kafka_vars(addon(), {})


# Following it.


async def test_what_the_config_vars_hold_is_taken(far: FarHeroku, order: Order) -> None:
    issuer = HerokuAddonIssuer(KAFKA, far.opened)
    serial = far.credential
    receipt = await issuer.request(order, await issuer.survey(order))
    delivery = await issuer.fetch(order, receipt)
    assert delivery is not None
    assert (delivery.followed, delivery.ours, delivery.remote_id) == (True, False, None)
    assert delivery.root_pem == far.hooks.authority.cert_pem
    assert far.credential == serial, "nothing was reset"
    assert not await issuer.changed(delivery.cert_pem, delivery.root_pem)
    assert await issuer.changed(delivery.cert_pem, None), "CAs that are missing are to be had"
    assert await issuer.changed(delivery.cert_pem, delivery.root_pem + delivery.cert_pem), "another CA"
    await _reset(far)
    assert await issuer.changed(delivery.cert_pem, delivery.root_pem)
    assert await issuer.find(order, {}) is None
    with pytest.raises(RotationError) as caught:
        await issuer.revoke(serial, None, now=order.now)
    assert caught.value.code is Code.ROTATION_REFUSED


async def _reset(far: FarHeroku) -> None:
    async with far.opened() as heroku:
        await heroku.data.rotate_kafka_credentials(KAFKA)


async def test_the_apps_are_named(far: FarHeroku) -> None:
    assert await HerokuAddonIssuer(KAFKA, far.opened).apps() == ("sandbox",)
    with pytest.raises(RotationError) as caught:
        await HerokuAddonIssuer(POSTGRES, far.opened).apps()
    assert caught.value.code is Code.ROTATION_REFUSED


# Resetting it.


async def test_a_reset_is_done_once_and_waited_for(far: FarHeroku, order: Order) -> None:
    issuer, order = HerokuAddonIssuer(KAFKA, far.opened), replace(order, reset=True)
    serial = far.credential
    receipt = await issuer.request(order, await issuer.survey(order))
    assert receipt["answered"]
    assert far.credential != serial
    assert far.hooks.revoked == [serial]
    assert await issuer.fetch(order, receipt) is not None
    again = await HerokuAddonIssuer(KAFKA, far.opened).survey(order)
    assert await issuer.fetch(order, {**receipt, "before": again["before"]}) is None, "they hold the same still"
    assert KAFKA in issuer.waiting_for(order, receipt)


@pytest.mark.parametrize(("fault", "done"), [("lose-before", False), ("lose-after", True), ("500", False)])
async def test_a_reset_whose_answer_is_lost_is_never_repeated(
    far: FarHeroku, order: Order, fault: str, done: bool
) -> None:
    issuer, order = HerokuAddonIssuer(KAFKA, far.opened), replace(order, reset=True)
    before, serial = await issuer.survey(order), far.credential
    far.fault(f"{fault},method=POST,times=1")
    receipt = await issuer.request(order, before)
    assert not receipt["answered"]
    assert "--fresh" in issuer.waiting_for(order, receipt)
    assert (far.credential != serial) is done
    assert (await issuer.fetch(order, receipt) is not None) is done


async def test_a_killed_run_may_have_asked(far: FarHeroku, order: Order) -> None:
    order = replace(order, reset=True)
    before, serial = await HerokuAddonIssuer(KAFKA, far.opened).survey(order), far.credential
    receipt = await HerokuAddonIssuer(KAFKA, far.opened).request(order, before)
    assert not receipt["answered"]
    assert far.credential == serial


async def test_a_reset_that_is_refused_is_given_up(far: FarHeroku, order: Order) -> None:
    issuer, order = HerokuAddonIssuer(KAFKA, far.opened), replace(order, reset=True)
    before = await issuer.survey(order)
    far.fault("403,method=POST")
    with pytest.raises(Withdrawn) as caught:
        await issuer.request(order, before)
    assert caught.value.code is Code.API_FORBIDDEN
    assert caught.value.hint
