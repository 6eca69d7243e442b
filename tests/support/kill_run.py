"""`mtlskit` in processes that end at a chosen point: hundreds of them in seconds.

A server process imports everything once and then forks: each run is a child with the real command line in it, whose
changes are counted by `tests.support.kill_points`. `KillRunner` starts such a server and talks to it. What is far away
(the API behind `issuer = "heroku"`, the program of `issuer = "command"`) is real enough to outlive the child.

To see that no change goes past the points, after a change of Python or of how the store writes: in a folder with
a `mtlskit.toml`, once as it is and once below strace,

    python -m tests.support.kill_run --once certs rotate reporting --no-prove > points.txt
    strace -f -y -o calls.txt -e trace=file,desc python -m tests.support.kill_run --once certs rotate reporting …

`calls.txt` must show as many successful calls of each name that change a file (open with O_WRONLY, O_RDWR or O_CREAT;
write to a path; rename, link, symlink, mkdir, unlink, rmdir, fchmod, ftruncate) between the two marks that the child
writes to /dev/null as there are points of that name. Done so for Python 3.11: they are the same.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import resource
import selectors
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.kill_points import Mode, Plan, Point, Points

__all__ = ["REMOTE", "KillRunner", "Order", "Ran"]

_ROOT = Path(__file__).parents[2]
_SAFETY_NET = 120  # seconds for one run; nothing is measured by it
REMOTE = "remote"
"""The folder, in that of the run, that is Heroku."""


@dataclass(frozen=True)
class Order:
    """One run of `mtlskit ARGV` in `folder`. `uid`: the user to become; `largest_file`: RLIMIT_FSIZE, in bytes."""

    folder: str
    argv: Sequence[str]
    mode: Mode = Mode.COUNT
    number: int = 0
    uid: int | None = None
    largest_file: int | None = None


@dataclass(frozen=True)
class Ran:
    """How it ended: a status as subprocess has it. The points are known where it was not killed."""

    status: int
    stdout: str
    stderr: str
    points: list[Point] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        """By SIGKILL."""
        return self.status == -signal.SIGKILL


class KillRunner:
    """A server, as a context manager."""

    def __enter__(self) -> KillRunner:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MTLSKIT_")}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.kill_run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(_ROOT)},
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def run(self, order: Order) -> Ran:
        """Run it, and wait for its end."""
        return self.run_together([order])[0]

    def run_together(self, orders: Sequence[Order]) -> list[Ran]:
        """Start all of them before any has ended."""
        if self._server.stdin is None or self._server.stdout is None:
            raise ValueError("not entered")
        print(json.dumps([asdict(order) for order in orders]), file=self._server.stdin, flush=True)
        answer = json.loads(self._server.stdout.readline())
        return [Ran(**{**each, "points": [Point(**point) for point in each["points"]]}) for each in answer]


# The server.

_IMPORTED = (
    "cryptography.hazmat.backends.openssl.backend",
    "encodings.idna",
    "encodings.utf_8_sig",
    "getpass",
    "mtlskit.cli.heroku_api",
    "mtlskit.cli.main",
    "mtlskit.config.loading",
    "mtlskit.control.places",
    "mtlskit.issuers.ca",
    "mtlskit.issuers.command",
    "mtlskit.issuers.csr",
    "mtlskit.heroku.settings",
    "mtlskit.issuers.heroku",
    "mtlskit.issuers.heroku_addon",
    "mtlskit.lifecycle.due",
    "mtlskit.lifecycle.following",
    "mtlskit.lifecycle.issuing",
    "mtlskit.lifecycle.proxies",
    "mtlskit.lifecycle.rotate",
    "platformdirs.unix",
    "pwd",
    "pydantic.type_adapter",
    "tests.support.fake_heroku",
)


def _serve() -> None:
    _import_all()
    _build_once()
    gc.collect()
    gc.freeze()  # what is there now is shared with the children, and is not to be looked at again
    for text in sys.stdin:
        children = [_Child(Order(**order)) for order in json.loads(text)]
        _read_all(children)
        print(json.dumps([asdict(child.end()) for child in children]), flush=True)


def _import_all() -> None:
    """What the commands import when they need it: an ordinary user may not be able to read our packages."""
    for name in (*_IMPORTED, *_modules_of("typer")):
        import_module(name)


def _modules_of(package: str) -> list[str]:
    """All of them: typer imports its own parts when it parses a command line."""
    found = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
    return [each.name for each in found if not each.name.endswith(("__main__", "_winconsole"))]


def _build_once() -> None:
    """typer makes the commands from their signatures at every start, which takes as long as a rotation."""
    import typer.main

    from mtlskit.cli.main import app

    built = typer.main.get_command(app)
    vars(typer.main)["get_command"] = lambda _: built


class _Child:
    """A forked run. Everything that it says goes through pipes, which no limit on files touches."""

    def __init__(self, order: Order) -> None:
        pipes = [os.pipe() for _ in range(3)]
        self.pid = os.fork()
        if self.pid == 0:
            _run(order, *(write for _, write in pipes))
        for _, write in pipes:
            os.close(write)
        self.read_ends = [read for read, _ in pipes]
        self.heard = [bytearray() for _ in pipes]

    def end(self) -> Ran:
        """To be called when all has been read."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        stdout, stderr, points = self.heard
        found = [Point(*each) for each in json.loads(points)] if points else []
        return Ran(status, stdout.decode("utf-8"), stderr.decode("utf-8"), found)


def _read_all(children: Sequence[_Child]) -> None:
    with selectors.DefaultSelector() as selector:
        for child in children:
            for end, heard in zip(child.read_ends, child.heard, strict=True):
                selector.register(end, selectors.EVENT_READ, heard)
        while selector.get_map():
            for key, _ in selector.select():
                if data := os.read(key.fd, 65536):
                    key.data.extend(data)
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)


def _run(order: Order, stdout: int, stderr: int, report: int) -> None:
    """The child's life. Does not return."""
    status = 70
    points = Points(Plan(Mode(order.mode), order.number))
    write = os.write
    try:
        signal.alarm(_SAFETY_NET)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        _live_in(order)
        _reach(points, Path(order.folder))
        points.install()
        status = _main(order.argv)
    except BaseException:  # noqa: BLE001 - it is told on the error stream, and a test finds it there
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    told = memoryview(json.dumps([(point.name, point.what, point.changes) for point in points.done]).encode("utf-8"))
    while told:
        told = told[write(report, told) :]
    os._exit(status)


def _live_in(order: Order) -> None:
    os.chdir(order.folder)
    os.umask(0)  # what does not see to its mode by itself is open to everybody
    os.environ["XDG_RUNTIME_DIR"] = str(Path(order.folder) / "runtime")
    os.environ["HEROKU_API_KEY"] = "of-nobody"
    if order.uid is not None and order.uid != os.getuid():
        os.setgroups([])
        os.setgid(order.uid)
        os.setuid(order.uid)
    if order.largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest_file, order.largest_file))


def _reach(points: Points, folder: Path) -> None:
    """Put points around what is far away, and Heroku into the folder."""
    from mtlskit.config.values import IdentityConfig, IssuerKind
    from mtlskit.issuers import command
    from mtlskit.issuers.base import Issuer
    from mtlskit.issuers.heroku import HerokuIssuer
    from mtlskit.issuers.programs import run_program
    from mtlskit.lifecycle import issuing
    from tests.support.fake_heroku import FakeHeroku, no_answer

    usual = issuing.issuer_of

    def issuer_of(identity: IdentityConfig, *, asked: bool = True, heroku: Any = None) -> Issuer:
        if identity.issuer.kind is not IssuerKind.HEROKU:
            return usual(identity, asked=asked, heroku=heroku)
        api = FakeHeroku(folder / REMOTE, lambda what: points.far_away(what, no_answer), points.not_counted)
        return HerokuIssuer(identity.issuer.addon or "", api)

    async def run_and_tell(*args: Any, **kwargs: Any) -> Any:
        ran = await run_program(*args, **kwargs)
        points.far_away("program", no_answer)
        return ran

    issuing.issuer_of = issuer_of
    vars(command)["run_program"] = run_and_tell


def _main(argv: Sequence[str]) -> int:
    from mtlskit.cli.main import main

    sys.argv = ["mtlskit", *argv]
    try:
        main()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    return 0


def _once(argv: Sequence[str]) -> None:
    """One run in this process, for strace: its points on the standard output, and marks around it."""
    _import_all()
    points = Points(Plan())
    _reach(points, Path.cwd())
    os.umask(0)
    mark = os.open(os.devnull, os.O_WRONLY)
    write = os.write
    points.install()
    write(mark, b"begin")
    status = _main(argv)
    write(mark, b"end")
    for name, count in sorted(Counter(point.name for point in points.done).items()):
        print(name, count)
    sys.exit(status)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        _once(sys.argv[2:])
    else:
        _serve()
