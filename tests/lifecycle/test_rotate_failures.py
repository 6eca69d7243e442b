"""Rotations that fail: what stays as it was, and what the next run makes of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

import pytest

from mtlskit.config.values import IssuerConfig, IssuerKind
from mtlskit.errors import Code, RotationError, StoreError
from mtlskit.issuers.base import Delivery, Order, Withdrawn
from mtlskit.lifecycle.events import RotationFailed, RotationNoted, RotationResumed
from mtlskit.lifecycle.target import Result, Wanted
from mtlskit.pki.profiles import Profile
from mtlskit.store.audit import read_audit
from mtlskit.store.lock import held
from tests.support.rotating import DAY, World
from tests.support.rotations import (
    brought,
    check,
    done,
    failed,
    stop_before_switch,
)

# Failures, and what the next run makes of them.


async def test_an_issuer_that_fails_is_asked_again_with_the_same_key(world: World) -> None:
    world.issuer.fault = world.cannot()
    failed(await world.rotate(), "request", Code.ISSUER_FAILED)
    check(world)
    world.issuer.fault = None
    outcome = done(await world.rotate())
    first, second = world.issuer.orders
    assert (first.rotation, first.request_pem) == (second.rotation, second.request_pem)
    assert world.told(RotationResumed)[0].after == "survey"
    assert outcome.rotation == first.rotation
    assert world.audit() == ["rotation begun", "failed", "rotated"]


async def test_a_failure_after_the_switch_goes_on_where_it_ended(world: World) -> None:
    done(await world.rotate())
    world.proxies.fault = world.cannot(Code.NOT_SERVED)
    outcome = failed(await world.rotate(), "tell", Code.NOT_SERVED)
    assert outcome.old_serial == world.stored.versions()[0].facts.serial
    assert world.current.number == 2
    world.proxies.fault = None
    again = done(await world.rotate())
    assert (again.version, again.rotation, len(world.issuer.orders)) == (2, outcome.rotation, 2)
    [event] = world.told(RotationFailed)
    assert (event.step, event.code) == ("tell", "MTLS-ROT-009")
    assert "failed at tell" in event.sentence()


async def test_begin_afresh(world: World) -> None:
    world.issuer.ready = False
    waiting = await world.rotate()
    assert waiting.result is Result.WAITING
    world.issuer.ready = True
    outcome = done(await world.rotate(fresh=True))
    assert outcome.rotation != waiting.rotation
    assert len(world.issuer.orders) == 2
    assert world.issuer.revoked == [""], "the receipt was all that was known of it"
    assert world.audit() == ["rotation begun", "rotation abandoned", "rotation begun", "rotated"]
    assert any("a fresh one was asked for" in event.note for event in world.told(RotationNoted))


async def test_what_was_staged_is_removed_and_revoked_when_given_up(world: World) -> None:
    done(await world.rotate())
    stop_before_switch(world)
    staged = world.stored.versions()[-1]
    outcome = done(await world.rotate(fresh=True))
    assert world.issuer.revoked == [staged.facts.serial]
    assert staged.facts.serial not in {version.facts.serial for version in world.stored.versions()}
    assert outcome.serial != staged.facts.serial
    check(world)


async def test_a_staged_certificate_that_is_due_by_now_is_not_used(world: World) -> None:
    done(await world.rotate())
    stop_before_switch(world)
    world.now += 70 * DAY
    outcome = done(await world.rotate("due", only_if_due=True))
    assert len(world.issuer.orders) == 2, "a third certificate was asked for"
    assert datetime.fromisoformat(outcome.not_after) > world.now + 80 * DAY


async def test_a_staged_certificate_that_is_gone(world: World) -> None:
    done(await world.rotate())
    stop_before_switch(world)
    world.stored.remove(world.stored.versions()[-1].number)
    outcome = await world.rotate()
    # The journal says that it was staged; without it, the rotation cannot go on.
    failed(outcome, "before_switch", Code.STORE_DAMAGED)
    assert "--fresh" in (outcome.error.hint if outcome.error else "")
    assert done(await world.rotate(fresh=True)).old_serial


async def test_the_issuer_was_changed_in_between(world: World) -> None:
    world.issuer.ready = False
    await world.rotate()
    world.settings["issuer"] = IssuerConfig(IssuerKind.CA, subject="CN=client")
    world.issuer.ready = True
    done(await world.rotate())
    assert len(world.issuer.orders) == 2
    assert world.issuer.revoked == [], "the new issuer knows nothing of what the old one was asked for"
    notes = [event.note for event in world.told(RotationNoted)]
    assert any("the issuer was command then" in note and "that is for command to do" in note for note in notes)


# What was handed out is wrong.


def other_key(world: World, order: Order) -> Delivery:
    return Delivery(world.authority.issue_client("client", now=order.now).cert_pem)


def expired(world: World, order: Order) -> Delivery:
    assert order.request_pem is not None
    answer = world.authority.sign_request(order.request_pem, Profile.CLIENT, now=order.now - 50 * DAY, lifetime=DAY)
    return Delivery(answer.cert_pem)


def for_servers(world: World, order: Order) -> Delivery:
    assert order.request_pem is not None
    return Delivery(world.authority.sign_request(order.request_pem, Profile.SERVER, now=order.now).cert_pem)


def rubbish(world: World, order: Order) -> Delivery:
    return Delivery(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def only_the_ca(world: World, order: Order) -> Delivery:
    return Delivery(world.authority.cert_pem, world.authority.key_pem)


@pytest.mark.parametrize(
    ("deliver", "code"),
    [
        (other_key, Code.KEY_MISMATCH),
        (for_servers, Code.CERTIFICATE_NOT_FOR_CLIENTS),
        (rubbish, Code.PEM_DAMAGED),
        (only_the_ca, Code.CERTIFICATE_NOT_FOR_CLIENTS),
    ],
)
async def test_what_can_never_do_is_given_up(
    world: World, deliver: Callable[[World, Order], Delivery], code: Code
) -> None:
    before = done(await world.rotate())
    plain, world.issuer.deliver = world.issuer.deliver, partial(deliver, world)
    outcome = failed(await world.rotate(), "stage", code)
    assert "what command handed out cannot be used" in outcome.told
    assert world.current.facts.serial == before.serial
    check(world)
    assert world.journal.unfinished() is None
    assert world.names() == ["current", "journal.jsonl", "lock", "versions"]
    world.issuer.deliver = plain
    again = done(await world.rotate())
    assert again.rotation != outcome.rotation
    assert world.audit()[2:] == ["rotation begun", "rotation abandoned", "failed", "rotation begun", "rotated"]


async def test_a_certificate_that_is_born_expired_is_a_matter_of_clocks(world: World) -> None:
    plain, world.issuer.deliver = world.issuer.deliver, partial(expired, world)
    outcome = failed(await world.rotate(), "stage", Code.CERTIFICATE_EXPIRED)
    assert outcome.error is not None
    assert "clock seems to be ahead" in outcome.error.hint
    assert world.journal.unfinished() is not None, "the key is kept"
    world.issuer.deliver = plain
    assert done(await world.rotate()).rotation == outcome.rotation


async def test_a_certificate_that_was_taken_back_before_it_was_fetched(world: World) -> None:
    def withdrawn(order: Order) -> Delivery:
        raise Withdrawn(Code.ISSUER_FAILED, "it was disabled")

    plain, world.issuer.deliver = world.issuer.deliver, withdrawn
    outcome = failed(await world.rotate(), "stage", Code.ISSUER_FAILED)
    world.issuer.deliver = plain
    assert done(await world.rotate()).rotation != outcome.rotation


@pytest.mark.parametrize("surely", [True, False])
async def test_what_a_lost_answer_has_got_is_looked_for_when_it_is_given_up(world: World, surely: bool) -> None:
    world.issuer.fault = world.cannot()
    failed(await world.rotate(), "request", Code.ISSUER_FAILED)
    world.issuer.fault = None
    world.issuer.found = {"id": "lost", "serial": "4711", "surely_ours": surely}
    done(await world.rotate(fresh=True))
    assert world.issuer.revoked == (["4711"] if surely else [])
    [told] = [line["told"] for line in read_audit(world.store) if line["action"] == "rotation abandoned"]
    assert "4711" in told


async def test_a_certificate_that_is_not_valid_yet_is_tried_again(world: World) -> None:
    """Our clock is behind: another certificate would change nothing, and each would be one more."""
    plain = world.issuer.deliver

    def early(order: Order) -> Delivery:
        assert order.request_pem is not None
        now = world.now if order.now > start + DAY / 2 else start + DAY
        return Delivery(world.authority.sign_request(order.request_pem, Profile.CLIENT, now=now).cert_pem)

    start = world.now
    world.issuer.deliver = early
    outcome = failed(await world.rotate(), "stage", Code.CERTIFICATE_NOT_YET_VALID)
    world.now += 2 * DAY
    assert done(await world.rotate()).rotation == outcome.rotation
    assert len(world.issuer.orders) == 1
    world.issuer.deliver = plain


# The disk.


@pytest.mark.parametrize("what", ["store", "store/reporting", "store/reporting/journal.jsonl", "store/audit.jsonl"])
async def test_what_cannot_be_written_is_an_outcome(world: World, what: str) -> None:
    path = world.folder / what
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.mkdir()  # where a file belongs
    else:
        path.write_text("no folder")
    outcome = await world.rotate()
    assert outcome.result is Result.FAILED
    assert isinstance(outcome.error, StoreError)
    assert str(path) in outcome.told
    assert world.issuer.orders == []


async def test_a_failure_is_told_also_where_it_cannot_be_written_down(world: World) -> None:
    done(await world.rotate())
    (world.store / "audit.jsonl").unlink()
    (world.store / "audit.jsonl").mkdir()
    failed(await world.rotate(), "begin", Code.STORE_UNUSABLE)
    assert any("could not be written down" in event.note for event in world.told(RotationNoted))
    (world.store / "audit.jsonl").rmdir()
    done(await world.rotate())


@pytest.mark.parametrize("text", ["garbage", '{"not_before": 3}', "[]", ""])
async def test_facts_that_were_changed_by_hand(world: World, text: str) -> None:
    done(await world.rotate())
    (world.current.folder / "version.json").write_text(text)
    assert done(await world.rotate(only_if_due=True)).version == 2
    assert any("is damaged, and is replaced" in event.note for event in world.told(RotationNoted))


@pytest.mark.parametrize("date", ["soon", "2026-01-01T00:00:00"])
async def test_dates_that_were_changed_by_hand(world: World, date: str) -> None:
    done(await world.rotate())
    path = world.current.folder / "version.json"
    path.write_text(path.read_text().replace(world.current.facts.not_after, date))
    outcome = failed(await world.rotate(only_if_due=True), "begin", Code.STORE_DAMAGED)
    assert date in outcome.told


async def test_a_configuration_that_makes_no_request(world: World) -> None:
    world.settings["issuer"] = IssuerConfig(IssuerKind.COMMAND, subject="CN=a,NONSENSE")
    outcome = failed(await world.rotate(), "key", Code.CONFIG_BAD_VALUE)
    assert outcome.told.startswith("[identity.reporting]: ")
    world.settings["issuer"] = IssuerConfig(IssuerKind.COMMAND)
    done(await world.rotate())
    assert world.current.facts.subject == "CN=reporting"


def test_what_is_wanted_shows_no_secret(world: World) -> None:
    assert "PRIVATE" not in repr(Wanted("x", material=brought(world)))


async def test_one_that_is_locked_out_writes_nothing_into_anothers_rotation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(order: Order) -> Delivery:
        raise RotationError(Code.ISSUER_FAILED, "the CA is down", "wait")

    plain, world.issuer.deliver = world.issuer.deliver, down
    failed(await world.rotate(), "stage", Code.ISSUER_FAILED)
    before = world.stored.journal_path.read_bytes()
    monkeypatch.setattr("mtlskit.lifecycle.rotate.PATIENCE", 0.0)
    with held(world.stored.lock_path, wait=0):
        failed(await world.rotate(), "begin", Code.STORE_BUSY)
    assert world.stored.journal_path.read_bytes() == before
    world.issuer.deliver = plain
    done(await world.rotate())
