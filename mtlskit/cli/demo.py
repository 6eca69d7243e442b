"""`mtlskit demo`: the whole story on this machine, told as it happens."""

from __future__ import annotations

import shlex
import sys
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.render import INTERRUPTED, colourful, line, reported
from mtlskit.cli.stopping import run_until_stopped

if TYPE_CHECKING:
    from mtlskit.sandbox.demo import DemoFact, DemoFinished, DemoStep, DemoTold

__all__ = ["EPILOG", "demo"]

EPILOG = """Examples:

  mtlskit demo            about ten seconds; leaves nothing behind

  mtlskit demo --keep     stays up, and prints what to try from another terminal"""

_WIDTH = 100


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, until Ctrl-C.")] = False,
) -> None:
    """Show all of it on this machine: a database that demands mutual TLS, a tunnel, a plain client."""
    teller = _Teller(keep=keep)
    with reported():
        from mtlskit.sandbox.demo import run_demo

        by_itself = run_until_stopped(partial(run_demo, teller.tell, keep=keep))
        if not by_itself and not teller.finished:
            raise typer.Exit(INTERRUPTED)


class _Teller:
    """Prints the demo's steps as they come."""

    def __init__(self, *, keep: bool) -> None:
        self.finished = False
        self._keep = keep
        bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colourful(sys.stdout) else ("", "", "")
        self._bold, self._dim, self._plain = bold, dim, plain

    def tell(self, told: DemoTold) -> None:
        from mtlskit.sandbox.demo import DemoFact, DemoStep

        if isinstance(told, DemoStep):
            self._step(told)
        elif isinstance(told, DemoFact):
            self._fact(told)
        else:
            self._finish(told)

    def _step(self, step: DemoStep) -> None:
        line(f"{self._bold}{step.number}. {step.title}{self._plain}")

    def _fact(self, fact: DemoFact) -> None:
        for text in textwrap.wrap(fact.text, _WIDTH - 3, break_long_words=False, break_on_hyphens=False):
            line(f"   {text}")
        for text in fact.quote.splitlines():
            line(f"     {self._dim}| {text.strip()}{self._plain}")

    def _finish(self, done: DemoFinished) -> None:
        self.finished = True
        line()
        line(f"{self._bold}Done in {done.seconds:.1f} s. What you have seen:{self._plain}")
        for shown in done.shown:
            line(f"   - {shown}")
        line()
        (self._try_it if self._keep else self._next)(done)

    def _try_it(self, done: DemoFinished) -> None:
        space = done.space
        environment = shlex.quote(str(space.env_file))
        plain = f"host={done.tunnel.host} port={done.tunnel.port} user={space.user} dbname={space.database}"
        line("It stays up. Try it from another terminal:")
        line(f"   PGPASSWORD={shlex.quote(space.password)} psql '{plain}'")
        line("The same database without the tunnel, with the certificate in the client's own hands:")
        line(f'   . {environment} && psql "$DATABASE_URL"')
        line("Ctrl-C ends it and removes everything.")

    def _next(self, done: DemoFinished) -> None:
        line("Nothing is left behind. What to type next:")
        line("   mtlskit demo --keep                  the same, and then it is yours to try")
        line("   mtlskit sandbox --dir ./space        a Private Space that stays, to build against")
        line("   mtlskit proxy --listen 127.0.0.1:6432 --upstream YOUR.DATABASE.HOST:5432 \\")
        line("       --cert client.crt --key client.key --ca root.crt        your own database")
