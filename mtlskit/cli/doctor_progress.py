"""What the doctor is looking at: one line on a terminal that is rewritten and cleared in the end; elsewhere nothing.

It also keeps what has been found, for a report when somebody interrupts.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO, TypeVar

from mtlskit.cli.waiting import live_terminal

if TYPE_CHECKING:
    from mtlskit.doctor.finding import Finding, Layer

__all__ = ["Progress"]

_T = TypeVar("_T")

_CLEARED: Final = "\r\x1b[K"
_TICK: Final = 0.2
"""Seconds between two lines. Checks that end sooner come and go unseen."""


class Progress:
    """A watcher of examinations (mtlskit.doctor.watching.Watcher)."""

    def __init__(self, *, silent: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = not silent and live_terminal(self._stream)
        self._under_way: dict[str, list[Layer]] = {}
        self._ended = 0
        self.found: dict[str, list[Finding]] = {}
        """By the tunnels' names."""
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the last look began."""
        return time.monotonic() - self._began

    def began(self, name: str, layer: Layer, about: str) -> None:
        """A check has begun."""
        self._under_way.setdefault(name, []).append(layer)

    def ended(self, name: str, layer: Layer, about: str, findings: Sequence[Finding]) -> None:
        """It has ended."""
        with suppress(KeyError, ValueError):
            self._under_way[name].remove(layer)
        self._ended += 1
        self.found.setdefault(name, []).extend(findings)

    def cut_short(self, name: str) -> list[Finding]:
        """What was under way for a tunnel when somebody interrupted."""
        from mtlskit.doctor.finding import skipped

        layers = dict.fromkeys(self._under_way.get(name, ()))
        return [skipped(layer, f"{layer}.unfinished", "interrupted") for layer in layers]

    async def during(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """The result of `work`; while it runs, the line says what is looked at."""
        import trio

        self._under_way, self._ended, self.found, self._began = {}, 0, {}, time.monotonic()
        if not self._live:
            return await work()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tick)
                result = await work()
                nursery.cancel_scope.cancel()
            return result
        finally:
            self._write(_CLEARED)

    async def _tick(self) -> None:
        import trio

        while True:
            await trio.sleep(_TICK)
            width = shutil.get_terminal_size().columns - 1  # a line that is full would wrap
            self._write(_CLEARED + self._told()[:width])

    def _told(self) -> str:
        """`3 s, 12 checks done; reporting: TLS, Heroku; events: Kafka`."""
        from mtlskit.doctor.report.outline import TITLES
        from mtlskit.telemetry.logs import printable

        parts = [
            f"{printable(name)}: {', '.join(dict.fromkeys(TITLES[layer] for layer in layers))}"
            for name, layers in self._under_way.items()
            if layers
        ]
        checks = "check" if self._ended == 1 else "checks"
        return "; ".join([f"{self.elapsed:.0f} s, {self._ended} {checks} done", *parts])

    def _write(self, text: str) -> None:
        with suppress(OSError, UnicodeError):  # nobody can read it: the report says how it went
            self._stream.write(text)
            self._stream.flush()
