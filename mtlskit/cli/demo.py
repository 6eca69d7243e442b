"""`mtlskit demo`: the whole story on this machine, told as it happens."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.render import INTERRUPTED, colourful, line, reported
from mtlskit.cli.stopping import run_until_stopped

if TYPE_CHECKING:
    from mtlskit.sandbox.demo_told import DemoFact, DemoFinished, DemoStep, DemoTold

__all__ = ["EPILOG", "as_called", "demo"]

# "\b" keeps the lines of a paragraph as they are.
EPILOG = """\b
Examples:
  mtlskit demo            some fifteen seconds; leaves nothing behind
  mtlskit demo --keep     stays up, and prints what to try elsewhere"""

_WIDEST = 100
"""Columns: longer lines are hard to read, however wide the terminal."""


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, until Ctrl-C.")] = False,
) -> None:
    """Show all of it on this machine: a database that demands mutual TLS, a tunnel, a plain client."""
    teller = _Teller(keep=keep)
    with reported():
        from mtlskit.sandbox.demo import run_demo

        by_itself = run_until_stopped(partial(run_demo, teller.tell, keep=keep))
        if not by_itself:
            _say_goodbye()
            if not teller.finished:
                raise typer.Exit(INTERRUPTED)


def _say_goodbye() -> None:
    with suppress(OSError):  # SIGHUP: the terminal has gone
        if sys.stdout.isatty():
            line()  # the terminal has written ^C
        line("Removed everything.")


class _Teller:
    """Prints the demo's steps as they come."""

    def __init__(self, *, keep: bool) -> None:
        self.finished = False
        self._keep = keep
        self._width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
        bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colourful(sys.stdout) else ("", "", "")
        self._bold, self._dim, self._plain = bold, dim, plain

    def tell(self, told: DemoTold) -> None:
        from mtlskit.sandbox.demo_told import DemoFact, DemoStep

        if isinstance(told, DemoStep):
            self._step(told)
        elif isinstance(told, DemoFact):
            self._fact(told)
        else:
            self._finish(told)

    def _step(self, step: DemoStep) -> None:
        self._wrap(f"{step.number}. {step.title}", after="   ", style=self._bold)

    def _fact(self, fact: DemoFact) -> None:
        self._wrap(fact.text, first="   ", after="   ")
        for text in fact.quote.splitlines():
            if not text.strip():
                line(f"{self._dim}     |{self._plain}")
            self._wrap(text.strip(), first="     | ", after="     | ", style=self._dim)

    def _wrap(self, text: str, *, first: str = "", after: str = "", style: str = "") -> None:
        """Lines of the terminal's width; a path that is longer stays whole, to be copied."""
        wrapped = textwrap.wrap(
            text,
            self._width,
            initial_indent=first,
            subsequent_indent=after,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for part in wrapped:
            line(f"{style}{part}{self._plain if style else ''}")

    def _finish(self, done: DemoFinished) -> None:
        self.finished = True
        line()
        line(f"{self._bold}Done in {done.seconds:.1f} s. What you have seen:{self._plain}")
        for shown in done.shown:
            self._wrap(shown, first="   - ", after="     ")
        line()
        (self._try_it if self._keep else self._next)(done)

    def _try_it(self, done: DemoFinished) -> None:
        space = done.space
        environment = shlex.quote(str(space.env_file))
        plain = f"host={done.tunnel.host} port={done.tunnel.port} user={space.user} dbname={space.database}"
        line("It stays up. Try it from another terminal:")
        line(f"   PGPASSWORD={shlex.quote(space.password)} psql '{plain}'")
        self._wrap("The same database without the tunnel, with the certificate in the client's own hands:")
        line(f'   . {environment} && psql "$DATABASE_URL"')
        self._wrap("What the proxy is doing:")
        config = shlex.quote(str(space.directory.with_name("mtlskit.toml")))
        line(f"   {as_called(sys.argv[0])} status --config {config}")
        line("Ctrl-C ends it and removes everything.")

    def _next(self, done: DemoFinished) -> None:
        called = as_called(sys.argv[0])
        line("Nothing is left behind. What to type next:")
        line(" - the same, to try it yourself:")
        line(f"   {called} demo --keep")
        line(" - a sandbox that stays, to build against:")
        line(f"   {called} sandbox --dir ./space")
        line(" - your own database:")
        line(f"   {called} proxy --listen 127.0.0.1:6432 \\")
        line("       --upstream YOUR.DATABASE.HOST:5432 \\")
        line("       --cert client.crt --key client.key --ca root.crt")


def as_called(program: str) -> str:
    """What to type in this folder to call `program` (`sys.argv[0]`) again, as a word of a shell."""
    if Path(program).name == "__main__.py":
        return f"{_shortest(sys.executable)} -m mtlskit"
    found = shutil.which(Path(program).name)
    if found is not None and Path(program).is_absolute() and Path(found) == Path(program):
        return shlex.quote(Path(program).name)  # it is in the PATH, where the shell found it
    return _shortest(program)


def _shortest(program: str) -> str:
    """The path as it is or from this folder on, whichever is shorter."""
    with suppress(ValueError):  # Windows: on another drive there is no way from here
        relative = os.path.relpath(program)
        if os.sep not in relative:
            relative = os.path.join(os.curdir, relative)  # noqa: PTH118 - Path would take the ./ away again
        program = min(program, relative, key=len)
    return shlex.quote(program)
