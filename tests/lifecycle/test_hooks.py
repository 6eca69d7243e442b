"""The operator's programs around a rotation: when they run, what they are told, and what their failure does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mtlskit.config.values import Hooks
from mtlskit.errors import Code, RotationError
from mtlskit.lifecycle.events import HookRan, RotationNoted
from mtlskit.lifecycle.hooks import run_hook
from mtlskit.lifecycle.target import Result
from mtlskit.telemetry import Event, silent
from tests.support.rotating import World

LONG = 60.0
"""Seconds; a safety net."""


def sh(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


def noting(folder: Path) -> tuple[str, ...]:
    """A program that writes its MTLSKIT_ variables into a file named after the hook, one a line, sorted."""
    text = "import os; f = open(os.path.join({!r}, os.environ['MTLSKIT_HOOK']), 'a'); f.write({}); f.close()"
    lines = "'\\n'.join(f'{k}={v}' for k, v in sorted(os.environ.items()) if k.startswith('MTLSKIT_')) + '\\n\\n'"
    return (sys.executable, "-c", text.format(str(folder), lines))


def noted(folder: Path, hook: str) -> list[dict[str, str]]:
    """What the runs of a hook were told."""
    path = folder / hook
    runs = path.read_text().split("\n\n")[:-1] if path.exists() else []
    return [dict(line.split("=", 1) for line in run.splitlines()) for run in runs]


async def test_no_program_no_hook() -> None:
    assert await run_hook(Hooks(), "failed", "reporting", {}, silent) == ""


async def test_what_a_hook_says_is_told() -> None:
    events: list[Event] = []
    hooks = Hooks(after_switch=sh("echo one; echo two; printf 'bad\\033 news' >&2"), timeout=LONG)
    assert await run_hook(hooks, "after_switch", "reporting", {}, events.append) == "hook after_switch ran /bin/sh"
    facts = {"identity": "reporting", "hook": "after_switch", "program": "/bin/sh"}
    said = HookRan(**facts, said=r"bad\x1b news", printed="one / two")
    assert events == [said]
    assert said.sentence() == r"reporting: hook after_switch (/bin/sh) is done: one / two / bad\x1b news"


async def test_of_much_output_the_end_is_told() -> None:
    events: list[Event] = []
    await run_hook(Hooks(failed=sh("seq 1 100000"), timeout=LONG), "failed", "reporting", {}, events.append)
    [event] = events
    assert isinstance(event, HookRan)
    assert event.printed.endswith("/ 100000")
    assert len(event.printed) == 500


@pytest.mark.parametrize(
    ("argv", "seconds", "said"),
    [
        (sh("echo no >&2; exit 4"), LONG, "/bin/sh: ended with status 4; it said: no"),
        (sh("sleep 600"), 0.5, "/bin/sh: not done within 0.5 s"),
        (("/none/here",), LONG, "/none/here: cannot be run: No such file or directory"),
    ],
)
async def test_a_hook_that_fails(argv: tuple[str, ...], seconds: float, said: str) -> None:
    with pytest.raises(RotationError) as caught:
        await run_hook(Hooks(before_switch=argv, timeout=seconds), "before_switch", "reporting", {}, silent)
    assert caught.value.code is Code.HOOK_FAILED
    assert caught.value.sentence == f"reporting: hook before_switch: {said}"


async def test_the_facts_around_a_switch(world: World, tmp_path: Path) -> None:
    first = await world.rotate()
    world.hooks = Hooks(before_switch=noting(tmp_path), after_switch=noting(tmp_path), failed=noting(tmp_path))
    second = await world.rotate()
    assert second.result is Result.ROTATED
    folder = world.current.folder
    facts = {
        "MTLSKIT_IDENTITY": "reporting",
        "MTLSKIT_ROTATION": second.rotation,
        "MTLSKIT_VERSION": "2",
        "MTLSKIT_SERIAL": second.serial,
        "MTLSKIT_OLD_SERIAL": first.serial,
        "MTLSKIT_NOT_AFTER": second.not_after,
        "MTLSKIT_CERT": str(folder / "client.crt"),
        "MTLSKIT_KEY": str(folder / "client.key"),
    }
    for hook in ("before_switch", "after_switch"):
        [told] = noted(tmp_path, hook)
        assert {name: told[name] for name in facts} == facts
        assert told["MTLSKIT_HOOK"] == hook
    assert noted(tmp_path, "failed") == []


async def test_before_and_after_mean_it(world: World, tmp_path: Path) -> None:
    link = world.stored.folder / "current"
    argv = sh(f"readlink {link} > {tmp_path}/$MTLSKIT_HOOK || echo none > {tmp_path}/$MTLSKIT_HOOK")
    world.hooks = Hooks(before_switch=argv, after_switch=argv)
    await world.rotate()
    assert (tmp_path / "before_switch").read_text() == "none\n"
    assert (tmp_path / "after_switch").read_text() == "versions/0001\n"


async def test_a_hook_that_says_no_keeps_the_old_certificate(world: World, tmp_path: Path) -> None:
    first = await world.rotate()
    flag = tmp_path / "allowed"
    world.hooks = Hooks(before_switch=sh(f"test -e {flag}"), failed=noting(tmp_path))
    for _ in range(2):
        outcome = await world.rotate()
        assert (outcome.result, outcome.step) == (Result.FAILED, "before_switch")
        assert world.current.facts.serial == first.serial
    assert len(world.issuer.orders) == 2, "the same certificate waits"
    one, two = noted(tmp_path, "failed")
    assert one == two
    assert one["MTLSKIT_STEP"] == "before_switch"
    assert one["MTLSKIT_CODE"] == "MTLS-ROT-010"
    assert one["MTLSKIT_ROTATION"] == outcome.rotation
    assert "ended with status 1" in one["MTLSKIT_ERROR"]
    flag.touch()
    assert (await world.rotate()).result is Result.ROTATED


async def test_a_hook_after_the_switch_runs_again_until_it_is_done(world: World, tmp_path: Path) -> None:
    flag = tmp_path / "allowed"
    world.hooks = Hooks(after_switch=sh(f"test -e {flag}"))
    world.settings["revoke_old"] = True
    outcome = await world.rotate()
    assert (outcome.result, outcome.step, world.current.number) == (Result.FAILED, "after_switch", 1)
    flag.touch()
    assert (await world.rotate("due", only_if_due=True)).result is Result.ROTATED
    assert world.current.number == 1


async def test_the_hook_comes_before_the_old_certificate_is_revoked(world: World) -> None:
    world.settings["revoke_old"] = True
    await world.rotate()
    world.hooks = Hooks(after_switch=sh("exit 1"))
    await world.rotate()
    assert world.issuer.revoked == []


async def test_a_failed_hook_that_fails_is_told_and_hides_nothing(world: World) -> None:
    world.hooks = Hooks(failed=sh("echo mail is down >&2; exit 1"))
    world.issuer.fault = world.cannot(sentence="the issuer says no")
    outcome = await world.rotate()
    assert outcome.told == "the issuer says no"
    [note] = world.told(RotationNoted)
    assert note.note == "reporting: hook failed: /bin/sh: ended with status 1; it said: mail is down"
    assert world.audit() == ["rotation begun", "failed"]


async def test_waiting_is_no_failure(world: World, tmp_path: Path) -> None:
    world.hooks = Hooks(failed=noting(tmp_path))
    world.issuer.ready = False
    assert (await world.rotate()).result is Result.WAITING
    assert noted(tmp_path, "failed") == []
