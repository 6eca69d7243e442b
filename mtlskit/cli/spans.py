"""Lengths of time and ends of certificates in words, the same in every command: `43 d`, `5 h`, `12 min`, `40 s`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["end_text", "left_text", "span_text"]

_SHORT = timedelta(days=2)
"""What lives shorter has an end whose time of day matters."""


def span_text(seconds: float) -> str:
    """A length of time in its largest unit of which there are two at least, rounded down."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def left_text(remaining: timedelta) -> str:
    """`43 d`, or `-12 s` where the end was twelve seconds ago."""
    seconds = remaining.total_seconds()
    return f"-{span_text(-seconds)}" if seconds < 0 else span_text(seconds)


def end_text(ends: datetime, begins: datetime) -> str:
    """The day, in UTC; with the time where there are less than two days from `begins` on. Both are aware."""
    moment = ends.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC" if ends - begins < _SHORT else f"{moment:%Y-%m-%d}"
