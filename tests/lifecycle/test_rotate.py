"""A rotation from its beginning to its end, what it waits for, and who else may be at it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509

from mtlskit.config.values import IssuerKind
from mtlskit.errors import Code
from mtlskit.issuers.base import Delivery
from mtlskit.issuers.csr import CsrIssuer, bring_answer
from mtlskit.lifecycle import rotate as engine
from mtlskit.lifecycle.events import RotationNoted, RotationStepDone, RotationWaits
from mtlskit.lifecycle.rotate import STEPS
from mtlskit.lifecycle.target import Outcome, Result
from mtlskit.pki.authority import Authority
from mtlskit.pki.keys import load_private_key
from mtlskit.pki.profiles import Profile
from mtlskit.store.audit import read_audit
from mtlskit.store.lock import FileLock
from tests.support.rotating import DAY, World
from tests.support.rotations import (
    PATIENCE,
    brought,
    check,
    done,
    failed,
    half_a_rotation,
)

MakeWorld = Callable[..., World]


# The way through.


@pytest.mark.parametrize("makes_key", [False, True])
async def test_a_first_certificate_and_then_another(world: World, makes_key: bool) -> None:
    world.issuer.makes_key = makes_key
    first = done(await world.rotate("first certificate"))
    assert (first.version, first.old_serial, first.notes) == (1, "", ())
    check(world)
    second = done(await world.rotate())
    assert (second.version, second.old_serial) == (2, first.serial)
    assert second.serial == world.current.facts.serial != first.serial
    check(world)
    assert world.proxies.served == [first.serial, second.serial]
    assert world.issuer.revoked == []
    assert (world.stored.folder / "current").readlink() == Path("versions/0002")
    assert world.names() == ["current", "journal.jsonl", "lock", "versions"]
    assert world.journal.unfinished() is None
    assert second.told.startswith(f"reporting: version 2, serial {second.serial} in place of {first.serial}, valid ")


async def test_what_is_written_down(world: World) -> None:
    first = done(await world.rotate("first certificate"))
    second = done(await world.rotate("due"))
    lines = read_audit(world.store)
    assert [line["action"] for line in lines] == ["rotation begun", "rotated"] * 2
    assert [line.get("reason") for line in lines] == ["first certificate", None, "due", None]
    assert {line["identity"] for line in lines} == {"reporting"}
    assert all(line["pid"] == os.getpid() for line in lines)
    assert (lines[3]["serial"], lines[3]["old_serial"], lines[3]["version"]) == (second.serial, first.serial, 2)
    [one, two] = world.journal.rotations()
    assert list(one.steps) == list(two.steps) == ["begun", *STEPS, "done"]
    facts = world.current.facts
    assert (facts.rotation, facts.issuer, facts.subject) == (second.rotation, "command", "CN=client")
    assert facts.made_here
    text = world.stored.journal_path.read_text() + (world.store / "audit.jsonl").read_text()
    assert "PRIVATE" not in text


async def test_what_is_told(world: World) -> None:
    done(await world.rotate())
    assert [event.step for event in world.told(RotationStepDone)] == [
        *("key", "request", "stage", "prove", "switch", "tell")
    ]
    assert all(event.sentence().startswith("reporting: ") for event in world.events)


async def test_the_versions_that_are_kept(world: World) -> None:
    for _ in range(6):
        done(await world.rotate())
    assert [version.number for version in world.stored.versions()] == [4, 5, 6]


async def test_a_chain_is_stored_leaf_first(world: World) -> None:
    plain = world.issuer.deliver
    world.issuer.deliver = lambda order: Delivery(
        world.authority.cert_pem + plain(order).cert_pem, root_pem=world.authority.cert_pem, notes=("a word",)
    )
    outcome = done(await world.rotate())
    chain = x509.load_pem_x509_certificates(world.current.cert.read_bytes())
    assert [each.subject.rfc4514_string() for each in chain] == ["CN=client", "CN=our ca"]
    assert world.current.root is not None
    assert world.current.root.read_bytes() == world.authority.cert_pem
    assert outcome.notes[0] == "a word"


# When there is nothing to do.


async def test_only_if_due(world: World) -> None:
    first = done(await world.rotate("first certificate", only_if_due=True))
    world.now += 59 * DAY
    nothing = await world.rotate("due", only_if_due=True)
    assert (nothing.result, nothing.serial, nothing.version) == (Result.NOTHING_TO_DO, first.serial, 1)
    assert len(world.issuer.orders) == 1
    world.now += 2 * DAY
    assert done(await world.rotate("due", only_if_due=True)).version == 2
    world.now += 1000 * DAY
    assert done(await world.rotate("due", only_if_due=True)).version == 3


async def test_what_was_left_unfinished_is_due(world: World) -> None:
    done(await world.rotate())
    world.proxies.fault = world.cannot(Code.NOT_SERVED)
    failed(await world.rotate(), "tell", Code.NOT_SERVED)
    world.proxies.fault = None
    assert done(await world.rotate("due", only_if_due=True)).version == 2


async def test_two_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_LOCK_PAUSE", 0.01)
    done(await world.rotate())
    world.issuer.ready = False
    outcomes: list[Outcome] = []

    async def run() -> None:
        outcomes.append(await world.rotate(wait=PATIENCE))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            world.issuer.ready = True
    assert any("works on it" in event.waits_for for event in world.told(RotationWaits))
    assert [outcome.result for outcome in outcomes] == [Result.ROTATED, Result.NOTHING_TO_DO]
    assert outcomes[1].told == "another process has just done it"
    assert outcomes[1].serial == outcomes[0].serial
    assert len(world.issuer.orders) == 2


async def test_another_process_that_failed_half_way_is_followed_up(world: World) -> None:
    """Whoever waited for it goes on, and does not take the switched version for a finished rotation."""
    done(await world.rotate())
    lock = FileLock(world.stored.lock_path)
    assert lock.acquire()
    outcomes: list[Outcome] = []

    async def run() -> None:
        outcomes.append(await world.rotate())

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            half_a_rotation(world)
            lock.release()
    assert done(outcomes[0]).version == 2
    assert world.journal.unfinished() is None
    assert len(world.journal.rotations()) == 2


async def test_a_lock_that_is_never_free(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 0.0)
    world.stored.prepare()
    lock = FileLock(world.stored.lock_path)
    assert lock.acquire()
    outcome = failed(await world.rotate(), "begin", Code.STORE_BUSY)
    assert f"process {os.getpid()}" in outcome.told
    lock.release()
    done(await world.rotate())


# Waiting.


async def test_what_is_not_ready_is_left_for_the_next_run(world: World) -> None:
    world.issuer.ready = False
    for _ in range(2):
        outcome = await world.rotate()
        assert (outcome.result, outcome.step, outcome.told) == (Result.WAITING, "stage", "remote-1 is not ready")
    assert world.audit() == ["rotation begun"], "waiting is no failure"
    world.issuer.ready = True
    done(await world.rotate())
    assert len(world.issuer.orders) == 1


async def test_waiting_is_bounded(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.issuer.ready = False
    world.issuer.pause = 20.0
    outcome = await world.rotate(wait=100.0)
    assert outcome.result is Result.WAITING
    assert world.issuer.fetched == 10, "after 1, 2, 4, 8 and 16 seconds, and then every 20"
    assert len({event.waits_for for event in world.told(RotationWaits)}) == 1
    assert len(world.told(RotationWaits)) == 2, "once while it waits, once at the end"


async def test_what_becomes_ready_is_taken(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.issuer.ready = False
    world.issuer.pause = 20.0
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def later() -> None:
            await trio.sleep(50)
            world.issuer.ready = True

        done(await world.rotate(wait=100.0))
    assert world.issuer.fetched == 7, "after 51 seconds"


async def test_a_request_that_people_sign(make_world: MakeWorld, authority: Authority) -> None:
    world = make_world(kind=IssuerKind.CSR)
    waiting = await world.rotate(issuer=CsrIssuer())
    assert waiting.result is Result.WAITING
    pending = world.stored.pending(waiting.rotation)
    assert str(pending / "client.csr") in waiting.told
    assert stat.S_IMODE((pending / "client.key").stat().st_mode) == 0o600
    request = (pending / "client.csr").read_bytes()
    assert (await world.rotate(issuer=CsrIssuer())).rotation == waiting.rotation
    assert (pending / "client.csr").read_bytes() == request
    answer = authority.sign_request(request, Profile.CLIENT, now=world.now)
    bring_answer(pending, answer.cert_pem)
    outcome = done(await world.rotate(issuer=CsrIssuer()))
    assert outcome.rotation == waiting.rotation
    check(world)
    assert not pending.exists()


# Brought by hand.


async def test_a_certificate_that_was_brought(world: World) -> None:
    world.issuer.ready = False
    waiting = await world.rotate()
    outcome = done(await world.rotate("imported", material=brought(world)))
    assert outcome.rotation != waiting.rotation
    assert len(world.issuer.orders) == 1
    assert not world.current.facts.made_here
    check(world)


async def test_what_was_brought_and_lost_is_not_waited_for(world: World) -> None:
    world.stored.prepare()
    rotation = world.journal.begin(world.now, issuer="command", given=True)
    outcome = done(await world.rotate())
    assert outcome.rotation != rotation.id
    assert any("brought by hand is lost" in event.note for event in world.told(RotationNoted))


async def test_what_is_brought_while_another_rotates_is_not_dropped(world: World) -> None:
    done(await world.rotate())
    lock = FileLock(world.stored.lock_path)
    assert lock.acquire()
    outcomes: list[Outcome] = []
    material = brought(world)

    async def run() -> None:
        outcomes.append(await world.rotate("imported", material=material))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            half_a_rotation(world)
            world.journal.note(world.journal.rotations()[-1], "done", world.now)
            lock.release()
    assert done(outcomes[0]).version == 3
    assert world.current.cert.read_bytes() == material.cert_pem


# Passphrases.


@pytest.mark.parametrize("makes_key", [False, True])
async def test_a_key_under_a_passphrase(world: World, tmp_path: Path, makes_key: bool) -> None:
    world.issuer.makes_key = makes_key
    world.settings["passphrase_file"] = tmp_path / "secret"
    (tmp_path / "secret").write_text("open sesame\n")
    (tmp_path / "secret").chmod(0o600)
    done(await world.rotate())
    pem = world.current.key.read_bytes()
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    load_private_key(pem, source="key", passphrase=b"open sesame")
    check(world)


@pytest.mark.parametrize("makes_key", [False, True])
async def test_a_passphrase_file_that_cannot_be_read_costs_no_certificate(
    world: World, tmp_path: Path, makes_key: bool
) -> None:
    world.issuer.makes_key = makes_key
    world.settings["passphrase_file"] = tmp_path / "secret"
    outcome = failed(await world.rotate(), "stage" if makes_key else "key", Code.FILE_MISSING)
    assert str(tmp_path / "secret") in outcome.told
    (tmp_path / "secret").write_text("open sesame\n")
    failed(await world.rotate(), "stage" if makes_key else "key", Code.KEY_EXPOSED)
    (tmp_path / "secret").chmod(0o600)
    assert done(await world.rotate()).rotation
    assert len(world.issuer.orders) == 1
    assert world.issuer.revoked == []


async def test_a_passphrase_that_is_lost_after_the_request(world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    world.settings["passphrase_file"] = secret
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    world.issuer.ready = False
    await world.rotate()
    secret.rename(tmp_path / "elsewhere")
    world.issuer.ready = True
    failed(await world.rotate(), "stage", Code.FILE_MISSING)
    (tmp_path / "elsewhere").rename(secret)
    done(await world.rotate())
    assert len(world.issuer.orders) == 1
