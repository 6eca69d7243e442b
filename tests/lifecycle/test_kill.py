"""`certs rotate` ended at every call that changes the disk or something far away, and on disks that refuse.

Each test runs the real command line from the same state again and again, and ends it one call later each time. The
short form leaves points out; `pytest tests/lifecycle/test_kill.py --long` has all of them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pytest

from mtlskit.store.identities import Store
from tests.support.kill_points import Mode, Point
from tests.support.kill_run import REMOTE, KillRunner, Order, Ran
from tests.support.kill_scenes import ROTATE, SCENES, Scene, check_always, check_done, make_scene
from tests.support.local_users import available_uids

_SERVERS = 2

Numbered = tuple[int, Point]
Check = Callable[[Ran, Scene, Path], None]


@dataclass(frozen=True)
class Stage:
    """The scenes with their points, and runners to play them."""

    scenes: dict[str, Scene]
    points: dict[str, list[Numbered]]
    runners: Sequence[KillRunner]
    folder: Path
    long: bool

    def play(
        self, name: str, mode: Mode, points: Sequence[Numbered], check: Check, *then: str, alone: bool = True
    ) -> None:
        """Run the scene once for each point, end it there, check, and see that the next run comes to its end.

        `then`: what the next run is told besides. `alone`: as `check_done` takes it.
        """
        assert points
        scene = self.scenes[name]
        free: SimpleQueue[KillRunner] = SimpleQueue()
        for runner in self.runners:
            free.put(runner)

        def one(numbered: Numbered) -> None:
            number, point = numbered
            folder = scene.copy_to(self.folder / f"{name}-{mode.value}-{number}".replace(" ", "-"))
            runner = free.get()
            try:
                check(runner.run(Order(str(folder), ROTATE, mode, number)), scene, folder)
                check_always(scene, folder)
                again = runner.run(Order(str(folder), (*ROTATE, *then)))
                assert again.status == 0, again.stdout + again.stderr
                check_done(scene, folder, alone=alone)
            except AssertionError as exc:
                exc.add_note(f"{name}: {mode.value} at point {number}, {point.name} {point.what}; see {folder}")
                raise
            finally:
                free.put(runner)
            shutil.rmtree(folder)

        with ThreadPoolExecutor(len(self.runners)) as pool:
            list(pool.map(one, points))

    def some(self, name: str, every: int, wanted: Callable[[Point], bool] = lambda point: True) -> list[Numbered]:
        """The points of a scene that are `wanted`; one of `every` so many of them, unless all were asked for."""
        found = [each for each in self.points[name] if wanted(each[1])]
        return found if self.long else found[::every]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("kill")
    with KillRunner() as first, KillRunner() as second:
        scenes, points = {}, {}
        for name in SCENES:
            scenes[name] = make_scene(name, folder / name.replace(" ", "-"), first)
            counted = first.run(Order(str(scenes[name].copy_to(folder / "counted")), ROTATE))
            assert counted.status == 0, counted.stderr
            check_done(scenes[name], folder / "counted")
            shutil.rmtree(folder / "counted")
            points[name] = list(enumerate(counted.points, 1))
        yield Stage(scenes, points, (first, second), folder, bool(request.config.getoption("--long")))


def killed(ran: Ran, scene: Scene, folder: Path) -> None:
    assert ran.killed, f"status {ran.status}: {ran.stdout}{ran.stderr}"


def told(ran: Ran, scene: Scene, folder: Path) -> None:
    """It has failed with an error of ours, or all that mattered was done."""
    assert "Traceback" not in ran.stderr, ran.stderr
    assert ran.status in (0, 1), ran.stderr
    if ran.status == 0:
        current = Store(folder / "identities").identity("reporting").current()
        assert current is not None
        assert current.number > (scene.begins_with or 0)
    else:
        assert '"code": "MTLS-' in ran.stdout + ran.stderr, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", SCENES)
def test_points(stage: Stage, name: str) -> None:
    """That there is something to be ended at. (Reported by `pytest -rP`.)"""
    points = [point for _, point in stage.points[name]]
    distinct = [point for point in points if point.changes]
    print(f"{name}: {len(points)} points, {len(distinct)} of which change something")
    assert len(points) >= 40


@pytest.mark.parametrize(
    ("name", "every"), [("ca", 1), ("heroku", 1), ("command", 4), ("first", 4), ("first from heroku", 4)]
)
def test_killed(stage: Stage, name: str, every: int) -> None:
    stage.play(name, Mode.KILL, stage.some(name, every, lambda point: point.changes or stage.long), killed)


@pytest.mark.parametrize(("name", "every"), [("ca", 4), ("heroku", 4), ("command", 8)])
def test_killed_in_the_middle_of_a_write(stage: Stage, name: str, every: int) -> None:
    stage.play(name, Mode.TEAR, stage.some(name, every, lambda point: point.name == "write"), killed)


@pytest.mark.parametrize(("name", "every"), [("ca", 3), ("heroku", 3)])
def test_what_a_killed_run_has_got_is_known_to_a_fresh_one(stage: Stage, name: str, every: int) -> None:
    # What Heroku has made may be another host's: it is left alone, and named in the journal.
    points = stage.some(name, every, lambda point: point.changes)
    stage.play(name, Mode.KILL, points, killed, "--fresh", alone=name != "heroku")


@pytest.mark.parametrize(("name", "every"), [("ca", 9), ("heroku", 9), ("command", 20), ("first", 20)])
@pytest.mark.parametrize("mode", [Mode.FULL, Mode.READ_ONLY, Mode.BREAK])
def test_a_disk_that_refuses(stage: Stage, name: str, every: int, mode: Mode) -> None:
    stage.play(name, mode, stage.some(name, every, lambda point: not point.remote), told)


@pytest.mark.parametrize("name", ["heroku", "command", "first from heroku"])
def test_lost_answers(stage: Stage, name: str) -> None:
    stage.play(name, Mode.LOSE, stage.some(name, 1, lambda point: point.remote), told)


@pytest.mark.parametrize("name", ["ca", "heroku", "command", "first"])
def test_files_that_cannot_grow(stage: Stage, name: str) -> None:
    """A real limit of the kernel's, which lets half of a write through."""
    scene, runner = stage.scenes[name], stage.runners[0]
    results = set()
    for largest in range(0, 10_000, 500 if stage.long else 3000):
        folder = scene.copy_to(stage.folder / f"limited-{name}-{largest}")
        ran = runner.run(Order(str(folder), ROTATE, largest_file=largest))
        results.add(ran.status)
        told(ran, scene, folder)
        check_always(scene, folder)
        again = runner.run(Order(str(folder), ROTATE))
        assert again.status == 0, again.stdout + again.stderr
        check_done(scene, folder)
        shutil.rmtree(folder)
    assert 1 in results


def test_killed_while_a_useless_certificate_is_given_up(stage: Stage) -> None:
    """Heroku hands out a key that belongs to another certificate, and is mended then."""
    scene, runner = stage.scenes["heroku"], stage.runners[0]

    def mixed_up(name: str) -> Path:
        folder = scene.copy_to(stage.folder / name)
        (folder / REMOTE / "mixes-up").touch()
        return folder

    counted = runner.run(Order(str(mixed_up("mixed-up")), ROTATE))
    told(counted, scene, stage.folder / "mixed-up")
    assert counted.status == 1
    numbers = [number for number, point in enumerate(counted.points, 1) if point.changes]
    assert {"create", "get", "delete"} <= {point.what for point in counted.points if point.remote}
    for number in numbers if stage.long else numbers[1::3]:
        folder = mixed_up(f"mixed-up-{number}")
        killed(runner.run(Order(str(folder), ROTATE, Mode.KILL, number)), scene, folder)
        check_always(scene, folder)
        (folder / REMOTE / "mixes-up").unlink()
        again = runner.run(Order(str(folder), ROTATE))
        told(again, scene, folder)
        if again.status == 1:  # it went on with the useless one, and gave it up
            again = runner.run(Order(str(folder), ROTATE))
        assert again.status == 0, f"point {number}: {again.stdout}{again.stderr}"
        check_done(scene, folder, alone=False)
        shutil.rmtree(folder)


@pytest.fixture
def ordinary(stage: Stage) -> Iterator[tuple[Path, int]]:
    """A copy of the first scene that belongs to an ordinary user, and that user: root would be refused nothing."""
    uid = available_uids()[-1]
    assert uid != 0, "root must be able to become an ordinary user"
    with tempfile.TemporaryDirectory() as name:
        folder = stage.scenes["ca"].copy_to(Path(name) / "scene")
        for path in (folder.parent, folder, *folder.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
        yield folder, uid


CLOSED = [
    ("identities", 0o000),
    ("identities/reporting", 0o500),
    ("identities/reporting", 0o000),
    ("identities/reporting/versions", 0o500),
    ("identities/reporting/versions", 0o000),
    ("ca", 0o500),
    ("ca", 0o000),
    ("ca/issued", 0o500),
    ("ca/issued", 0o000),
]


@pytest.mark.parametrize(("closed", "mode"), CLOSED)
def test_folders_without_rights(stage: Stage, ordinary: tuple[Path, int], closed: str, mode: int) -> None:
    """The kernel's own refusal."""
    scene, runner = stage.scenes["ca"], stage.runners[0]
    folder, uid = ordinary
    (folder / closed).chmod(mode)
    ran = runner.run(Order(str(folder), ROTATE, uid=uid))
    (folder / closed).chmod(0o700)
    assert ran.status == 1, ran.stdout + ran.stderr
    told(ran, scene, folder)
    check_always(scene, folder)
    again = runner.run(Order(str(folder), ROTATE, uid=uid))
    assert again.status == 0, again.stdout + again.stderr
    check_done(scene, folder)
