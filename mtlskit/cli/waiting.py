"""How a wait for Heroku is shown: on a terminal one line that is rewritten each second, elsewhere a line per change."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO, TypeVar

from mtlskit.cli.render import warn
from mtlskit.cli.spans import span_text
from mtlskit.telemetry import Event, Level, json_log
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.heroku.waiting import Awaited

__all__ = ["Progress", "live_terminal"]

_T = TypeVar("_T")

_CLEARED = "\r\x1b[K"


def live_terminal(stream: TextIO) -> bool:
    """Whether a line on `stream` can be rewritten."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@dataclass(frozen=True)
class _Shown:
    """What is known of one add-on; times are trio's."""

    text: str
    began: float
    next_look: float | None


class Progress:
    """A sink for the events of waits, of several add-ons at once; other events are told from `level` on."""

    def __init__(self, *, as_json: bool = False, stream: TextIO | None = None, level: Level = Level.WARNING) -> None:
        self._level = level
        self._stream = stream or sys.stderr
        self._json = json_log(self._stream) if as_json else None
        self._live = not as_json and live_terminal(self._stream)
        self._known: dict[str, _Shown] = {}

    def emit(self, event: Event) -> None:
        """Take an event."""
        from mtlskit.heroku.waiting import Awaited

        if isinstance(event, Awaited):
            self._take(event)
        elif event.level >= self._level:
            if self._live and self._known:
                self._write(_CLEARED)
            if event.level >= Level.WARNING:
                warn(event.sentence(), as_json=self._json is not None)
            else:
                self._write(f"{printable(event.sentence())}\n")

    def _take(self, event: Awaited) -> None:
        import trio

        now = trio.current_time()
        text = event.state()
        before = self._known.get(event.addon)
        next_look = None if event.next_look is None else now + event.next_look
        self._known[event.addon] = _Shown(text, now - event.elapsed, next_look)
        if self._live:
            self._draw(now)
        elif before is None or before.text != text:
            if self._json is not None and isinstance(event, Event):
                self._json(event)
            else:
                after = f", after {span_text(event.elapsed)}" if before is not None else ""
                self._write(f"{printable(text)}{after}\n")

    async def during(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """The result of `work`; while it runs, the line on the terminal keeps time."""
        import trio

        try:
            async with trio.open_nursery() as nursery:
                if self._live:
                    nursery.start_soon(self._tick)
                result = await work()
                nursery.cancel_scope.cancel()
            return result
        finally:
            if self._live and self._known:
                self._write(_CLEARED)

    async def _tick(self) -> None:
        import trio

        while True:
            await trio.sleep(1)
            if self._known:
                self._draw(trio.current_time())

    def _draw(self, now: float) -> None:
        width = shutil.get_terminal_size().columns - 1  # a line that is full would wrap
        self._write(_CLEARED + self._told(now)[:width])

    def _told(self, now: float) -> str:
        """`postgresql-curved-12345: Provisioning; 80 s so far, next look in 12 s`."""
        parts = [printable(each.text) for each in self._known.values()]
        waiting = [each for each in self._known.values() if each.next_look is not None]
        if not waiting:
            return "; ".join(parts)
        elapsed = max(now - each.began for each in waiting)
        left = min((each.next_look or now) - now for each in waiting)
        look = f"next look in {left:.0f} s" if left >= 1 else "looking"
        return f"{'; '.join(parts)}; {span_text(elapsed)} so far, {look}"

    def _write(self, text: str) -> None:
        with suppress(OSError):  # nobody can read it: the result and the status still say how it went
            self._stream.write(text)
            self._stream.flush()
