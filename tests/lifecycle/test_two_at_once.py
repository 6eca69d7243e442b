"""Two rotations of one identity at the same time, as processes: one works, the other waits and looks again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mtlskit.store.identities import Store
from mtlskit.store.lock import held
from tests.support.command_process import TIMEOUT, clean_environment
from tests.support.kill_run import KillRunner
from tests.support.kill_scenes import Scene, check_done, make_scene
from tests.support.space import until

# It stays in the hook until the test lets it go on. Killed rotations leave the program of their hook behind.
_HOOK = """
[hooks]
after_switch = ["sh", "-c", "touch in-hook; until test -e go-on; do sleep 0.02; done"]
"""


class Rotating:
    """A process `mtlskit certs rotate reporting`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "mtlskit", "certs", "rotate", "reporting", "--no-prove", "--json"],
                cwd=folder,
                env=clean_environment(folder),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(self.process.kill)

    def waits(self) -> str:
        """Wait until it says that it waits; what it says."""
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if "waiting: " in line:
                return line
        raise AssertionError(f"it did not wait: {said}")

    def result(self) -> str:
        """Wait for its end."""
        stdout, stderr = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0, stdout + stderr
        outcome: str = json.loads(stdout)["identities"][0]["result"]
        return outcome


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    with KillRunner() as runner:
        return make_scene("ca", tmp_path / "scene", runner)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def versions(scene: Scene) -> list[int]:
    return [version.number for version in Store(scene.folder / "identities").identity("reporting").versions()]


def test_started_together(scene: Scene, stack: ExitStack) -> None:
    with held(scene.folder / "identities" / "reporting" / "lock", wait=0):
        both = [Rotating(scene.folder, stack) for _ in range(2)]
        for each in both:
            each.waits()
    assert sorted(each.result() for each in both) == ["nothing to do", "rotated"]
    assert versions(scene) == [1, 2, 3]
    check_done(scene, scene.folder)


def test_started_when_the_other_had_switched(scene: Scene, stack: ExitStack) -> None:
    with (scene.folder / "mtlskit.toml").open("a", encoding="ascii") as file:
        file.write(_HOOK)
    first = Rotating(scene.folder, stack)
    until((scene.folder / "in-hook").exists)
    second = Rotating(scene.folder, stack)
    assert f"process {first.process.pid}" in second.waits()
    (scene.folder / "go-on").touch()
    assert first.result() == "rotated"
    assert second.result() == "nothing to do"
    assert versions(scene) == [1, 2, 3]
    check_done(scene, scene.folder)


def test_the_one_that_waits_goes_on_with_what_a_killed_one_has_left(scene: Scene, stack: ExitStack) -> None:
    with (scene.folder / "mtlskit.toml").open("a", encoding="ascii") as file:
        file.write(_HOOK)
    first = Rotating(scene.folder, stack)
    until((scene.folder / "in-hook").exists)
    second = Rotating(scene.folder, stack)
    second.waits()
    first.process.kill()
    (scene.folder / "go-on").touch()
    assert second.result() == "rotated"
    assert versions(scene) == [1, 2, 3]
    check_done(scene, scene.folder)
