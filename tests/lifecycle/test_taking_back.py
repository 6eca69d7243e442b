"""What is never taken back and what is, what is given up, and what a passphrase that was changed does to a rotation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from mtlskit.cli.chosen import identities_called, load, tools_for
from mtlskit.config.values import (
    Endpoint,
    Hooks,
    IssuerConfig,
    IssuerKind,
    RenewBefore,
    TcpAddress,
    TunnelConfig,
    TunnelKind,
)
from mtlskit.control.places import VARIABLE, Place
from mtlskit.control.protocol import Request
from mtlskit.control.server import Answer, ControlServer, opened_control
from mtlskit.errors import Code, RotationError
from mtlskit.issuers.base import Delivery
from mtlskit.lifecycle.events import RotationNoted
from mtlskit.lifecycle.proxies import ControlledProxies
from mtlskit.lifecycle.revoking import revoke_certificate
from mtlskit.lifecycle.rotate import rotate
from mtlskit.lifecycle.target import Outcome, Result, Wanted
from mtlskit.lifecycle.watch import Watched, watch
from mtlskit.store.identities import Material, Version
from mtlskit.telemetry import silent
from tests.services.places import scratch_folder
from tests.support.rotating import FakeProxies, World
from tests.support.rotations import asked_for, check, done, failed, stop_before_switch


def notes(world: World) -> str:
    return "\n".join(event.note for event in world.told(RotationNoted))


def pair_of(version: Version) -> Material:
    return Material(version.cert.read_bytes(), version.key.read_bytes())


def a_tunnel(world: World) -> TunnelConfig:
    """One that uses the identity; nobody is asked for it where nothing is proved."""
    return TunnelConfig(
        name="sales",
        kind=TunnelKind.TCP,
        listen=TcpAddress("127.0.0.1", 0),
        upstream=(Endpoint("localhost", 1),),
        identity=world.identity,
    )


async def in_debt(world: World) -> Outcome:
    """The rotation whose certificate is still to be revoked: a session of it was left."""
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    world.proxies.left = [1]
    done(await world.rotate())
    assert [rotation.facts("revoke")["serial"] for rotation in world.journal.owed()] == [first.serial]
    world.proxies.left = [0]
    return first


# What is in use.


async def test_the_certificate_in_use_that_is_brought_again_is_not_revoked(world: World) -> None:
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    outcome = done(await world.rotate("imported", material=pair_of(world.current)))
    assert outcome.serial == outcome.old_serial == first.serial
    assert world.issuer.revoked == []
    assert any("in use again" in note for note in outcome.notes)
    assert world.journal.owed() == []


async def test_what_was_brought_again_is_not_revoked_when_nobody_can_tell_what_is_in_use(world: World) -> None:
    world.settings["revoke_old"] = True
    done(await world.rotate())
    current = world.stored.folder / "current"
    world.hooks = Hooks(after_switch=("/bin/ln", "-sfn", "elsewhere", str(current)))
    outcome = await world.rotate("imported", material=pair_of(world.current))
    assert (outcome.serial, world.issuer.revoked) == (outcome.old_serial, [])


async def test_a_debt_for_what_is_in_use_again_is_closed(world: World) -> None:
    first = await in_debt(world)
    [before, _] = world.stored.versions()
    outcome = done(await world.rotate("imported", material=pair_of(before)))
    assert outcome.serial == first.serial
    assert world.issuer.revoked == [outcome.old_serial]
    assert world.journal.owed() == []
    done(await world.rotate())
    assert first.serial not in world.issuer.revoked, "it came back by hand, and others may use it"


async def test_a_staged_certificate_is_not_revoked_by_mistake(world: World) -> None:
    done(await world.rotate())
    stop_before_switch(world)
    serial = world.stored.versions()[-1].facts.serial
    with pytest.raises(RotationError, match="in use, or about to be") as caught:
        await revoke_certificate(world.target, world.tools(), serial, in_use=False)
    assert caught.value.code is Code.ROTATION_REFUSED
    assert "--in-use" in caught.value.hint
    assert world.issuer.revoked == []
    await revoke_certificate(world.target, world.tools(), serial, in_use=True)
    assert world.issuer.revoked == [serial]


async def test_what_nobody_was_found_to_use_may_be_in_use(world: World) -> None:
    class NobodyFound(FakeProxies):
        """As the real ones where no proxy is found."""

        async def sessions(self, cert: Path, serial: str, *, expected: bool, others: bool = False) -> int | None:
            return None if expected else 0

    world.proxies = NobodyFound()
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    world.tunnels = (a_tunnel(world),)
    outcome = done(await world.rotate(prove=False))
    assert any("is not revoked yet" in note for note in outcome.notes)
    assert (await world.rotate("due", only_if_due=True)).result is Result.NOTHING_TO_DO
    assert world.issuer.revoked == []
    world.tunnels = ()
    await world.rotate("due", only_if_due=True)
    assert world.issuer.revoked == [first.serial]


@pytest.mark.parametrize("tunnels", [1, 0])
async def test_an_empty_folder_of_control_sockets(world: World, tmp_path: Path, tunnels: int) -> None:
    place = Place(tmp_path / "control", explicit=True)
    place.folder.mkdir(mode=0o700)
    world.settings["revoke_old"] = True
    first = done(await world.rotate())
    world.tunnels = (a_tunnel(world),) * tunnels
    tools = replace(world.tools(), proxies=ControlledProxies(place))
    done(await rotate(world.target, tools, Wanted("asked for", prove=False)))
    assert world.issuer.revoked == ([] if tunnels else [first.serial])
    assert len(world.journal.owed()) == tunnels


# Debts follow the configuration.


async def test_a_debt_is_closed_when_nothing_is_to_be_revoked_any_more(world: World) -> None:
    await in_debt(world)
    world.settings["revoke_old"] = False
    assert (await world.rotate("due", only_if_due=True)).result is Result.NOTHING_TO_DO
    assert "revoke_old is off" in notes(world)
    assert world.journal.owed() == []
    world.settings["revoke_old"] = True
    await world.rotate("due", only_if_due=True)
    assert world.issuer.revoked == []


@pytest.mark.parametrize("left", [0, 1])
async def test_what_another_add_on_has_made_is_not_revoked(world: World, left: int) -> None:
    world.settings |= {"revoke_old": True, "issuer": IssuerConfig(IssuerKind.HEROKU, addon="one")}
    done(await world.rotate())
    if left:  # a debt, with the old add-on still
        world.proxies.left = [left]
        done(await world.rotate())
        world.proxies.left = [0]
    world.settings["issuer"] = IssuerConfig(IssuerKind.HEROKU, addon="two")
    done(await world.rotate())
    assert world.issuer.revoked == []
    assert notes(world).count("it came from one, and the identity is set to two now") == 1 + left
    assert world.journal.owed() == []


# Giving up.


async def test_a_rotation_that_was_being_given_up_is_never_gone_on_with(world: World) -> None:
    first = done(await world.rotate())
    stop_before_switch(world)
    staged = world.stored.versions()[-1].facts.serial
    left = world.journal.unfinished()
    assert left is not None
    world.journal.note(left, "abandoning", world.now, reason="a fresh one was asked for")
    outcome = done(await world.rotate("due", only_if_due=True))
    assert (outcome.rotation != left.id, outcome.old_serial) == (True, first.serial)
    assert outcome.serial != staged
    assert staged not in {version.facts.serial for version in world.stored.versions()}
    assert world.issuer.revoked == [staged]
    check(world)


@pytest.mark.parametrize("hooked", [True, False])
async def test_what_a_hook_may_have_carried_elsewhere_is_not_revoked(world: World, hooked: bool) -> None:
    done(await world.rotate())
    stop_before_switch(world)
    staged = world.stored.versions()[-1].facts.serial
    left = world.journal.unfinished()
    assert left is not None
    world.journal.note(left, "prove", world.now)
    world.hooks = Hooks(before_switch=("/bin/true",)) if hooked else Hooks()
    done(await world.rotate(fresh=True))
    assert world.issuer.revoked == ([] if hooked else [staged])
    kept = f"its certificate {staged} is not revoked: the hook before_switch may have carried it"
    assert (kept in notes(world)) is hooked


async def test_a_hook_that_was_removed_after_it_failed_may_have_carried_it_too(world: World) -> None:
    done(await world.rotate())
    world.hooks = Hooks(before_switch=("/bin/false",))
    failed(await world.rotate(), "before_switch", Code.HOOK_FAILED)
    world.hooks = Hooks()
    done(await world.rotate(fresh=True))
    assert world.issuer.revoked == []


ISSUER = IssuerConfig(IssuerKind.COMMAND, subject="CN=client", command=("sign",), ca_dir=Path("/here/ca"))


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": replace(ISSUER, subject="CN=other")},
        {"issuer": replace(ISSUER, san=("DNS:bi.example.com",))},
        {"issuer": replace(ISSUER, key_type="ec-p384")},
        {"issuer": replace(ISSUER, command=("sign", "--production"))},
        {"issuer": replace(ISSUER, ca_dir=Path("/here/other"))},
    ],
    ids=["subject", "san", "key_type", "command", "ca_dir"],
)
async def test_a_request_under_other_settings_is_made_anew(world: World, settings: dict[str, Any]) -> None:
    waiting = await left_waiting(world)
    world.settings |= settings
    outcome = done(await world.rotate())
    assert outcome.rotation != waiting.rotation
    assert len(world.issuer.orders) == 2
    assert "the identity's settings have changed since" in notes(world)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"revoke_old": True, "renew_before": RenewBefore(seconds=3600.0)},
        {"issuer": replace(ISSUER, command_timeout=5.0)},
        {"issuer": replace(ISSUER, ca_dir=Path("/moved/ca"))},
    ],
    ids=["nothing", "of the identity", "command_timeout", "moved"],
)
async def test_a_request_under_the_same_settings_is_gone_on_with(world: World, settings: dict[str, Any]) -> None:
    waiting = await left_waiting(world)
    world.settings |= settings
    assert done(await world.rotate()).rotation == waiting.rotation
    assert len(world.issuer.orders) == 1


async def test_a_journal_that_does_not_tell_the_settings_is_gone_on_with(world: World) -> None:
    done(await world.rotate())
    left = asked_for(world)
    assert "settings" not in left.facts("begun")
    issued = world.authority.issue_client("client", now=world.now)
    world.issuer.deliver = lambda _: Delivery(issued.cert_pem, key_pem=issued.key_pem)
    assert done(await world.rotate()).rotation == left.id


async def left_waiting(world: World) -> Outcome:
    world.settings["issuer"] = ISSUER
    world.issuer.ready = False
    waiting = await world.rotate()
    assert (waiting.result, waiting.step) == (Result.WAITING, "stage")
    world.issuer.ready = True
    return waiting


# The passphrase.


@pytest.mark.parametrize("code", [Code.KEY_PASSPHRASE_WRONG, Code.KEY_ENCRYPTED])
async def test_a_passphrase_that_was_changed_costs_no_certificate(world: World, code: Code) -> None:
    world.settings["passphrase_file"] = passphrase(world, b"one\n")
    waiting = await left_waiting(world)
    pending = world.stored.pending(waiting.rotation) / "client.key"
    key = pending.read_bytes()
    if code is Code.KEY_ENCRYPTED:
        world.settings["passphrase_file"] = None
    else:
        passphrase(world, b"two\n")
    failed(await world.rotate(), "stage", code)
    left = world.journal.unfinished()
    assert left is not None
    assert (left.id, pending.read_bytes()) == (waiting.rotation, key)
    assert world.issuer.revoked == []
    world.settings["passphrase_file"] = passphrase(world, b"one\n")
    assert done(await world.rotate()).rotation == waiting.rotation
    assert len(world.issuer.orders) == 1


@pytest.mark.parametrize("content", [b"", b"\n", b"\nsecond line\n"])
async def test_an_empty_passphrase_is_none(world: World, content: bytes) -> None:
    world.settings["passphrase_file"] = path = passphrase(world, content)
    outcome = failed(await world.rotate(), "key", Code.KEY_PASSPHRASE_WRONG)
    assert outcome.told.startswith(f"{path}: ")
    assert list(world.folder.rglob("*.key")) == []


def passphrase(world: World, content: bytes) -> Path:
    path = world.folder / "passphrase"
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


# The folder of control sockets.


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    """Folders whose names are short enough for sockets."""
    with scratch_folder("mtlskit-ctl-", None) as one, scratch_folder("mtlskit-ctl-", None) as two:
        yield Place(one, explicit=True), Place(two, explicit=True)


@pytest.mark.parametrize("variable", [True, False])
async def test_the_variable_names_the_folder_for_rotations_too(
    places: tuple[Place, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: bool
) -> None:
    named, written = places
    monkeypatch.setenv(VARIABLE, str(named.folder) if variable else "")
    file = tmp_path / "mtlskit.toml"
    file.write_text(f'control = "{written.folder}"\n[identity.reporting]\nissuer = "csr"\n')
    config = load(file)
    [identity] = identities_called(config, ["reporting"])
    async with trio.open_nursery() as nursery:
        await nursery.start(_proxy, named if variable else written, str(identity.cert))
        proxies = tools_for(config, identity, silent).proxies
        assert await proxies.sessions(identity.cert, "0815", expected=True) == 3
        nursery.cancel_scope.cancel()


async def _proxy(place: Place, cert: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    async def status(_: Request) -> Answer:
        tunnel = {"name": "sales", "identity": {"cert": cert}, "sessions_by_serial": {"0815": 3}}
        return Answer({"tunnels": [tunnel]})

    with opened_control(place, pid=os.getpid()) as listener:
        assert listener is not None
        await ControlServer(listener, {"status": status}, silent).run(task_status=task_status)


# The watcher.


async def test_a_debt_that_cannot_be_paid_is_tried_less_and_less_often(world: World) -> None:
    first = await in_debt(world)
    world.issuer.cannot_revoke = world.cannot()
    looks = world.proxies.looks
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        world.now += timedelta(seconds=seconds)
        await trio.lowlevel.checkpoint()
        if world.now >= until:
            scope.cancel()
            await trio.lowlevel.checkpoint()

    until = world.now + timedelta(days=1)
    with trio.CancelScope() as scope:
        await watch([Watched(world.target, world.tools())], rng=Random(7), sleep=sleep)  # noqa: S311 - a test repeats
    assert world.proxies.looks - looks == len(slept)
    assert 24 <= len(slept) < 150, "at most an hour apart, and not every minute"
    assert max(slept) <= 3600.0
    assert max(slept[:3]) < sum(slept[-10:]) / 10
    world.issuer.cannot_revoke = None
    until = world.now + timedelta(hours=2)
    with trio.CancelScope() as scope:
        await watch([Watched(world.target, world.tools())], rng=Random(7), sleep=sleep)  # noqa: S311 - a test repeats
    assert world.issuer.revoked == [first.serial]
