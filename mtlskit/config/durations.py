"""Durations as operators write them: "30d", "1h30m", "500ms", or a plain number of seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

from mtlskit.errors import Code, ConfigError

__all__ = ["LONGEST", "parse_duration"]

UNITS: Mapping[str, float] = MappingProxyType(
    {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
)

LONGEST = 3_660 * 86_400.0
"""Ten years, in seconds. A longer deadline is a slip of the keyboard, and some system calls overflow beyond it."""

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_PART = re.compile(rf"({_NUMBER.pattern})(ms|[wdhms])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_HINT = 'write a number with a unit, such as "500ms", "10s", "1h30m" or "30d"; a plain number means seconds'


def parse_duration(value: str | float) -> float:
    """Turn `value` into seconds, which are positive, finite and at most `LONGEST`.

    Units go from large to small and each stands once: "1h30m", not "30m1h". Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    seconds = _seconds_of_text(value) if isinstance(value, str) else _seconds_of_number(value)
    if seconds <= 0:
        raise _bad("a duration must be longer than nothing")
    if seconds > LONGEST:
        raise _bad("a duration cannot be longer than ten years")
    return seconds


def _seconds_of_number(value: float) -> float:
    try:
        seconds = float(value)
    except OverflowError as exc:
        raise _bad("a duration cannot be longer than ten years") from exc
    if math.isnan(seconds):
        raise _bad("not a duration")
    return seconds


def _seconds_of_text(value: str) -> float:
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _WHOLE.fullmatch(text):
        raise _bad("not a duration")
    parts = _PART.findall(text)
    sizes = [UNITS[unit] for _, unit in parts]
    if any(later >= earlier for earlier, later in pairwise(sizes)):
        raise _bad("the units of a duration go from large to small, each once")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _bad(sentence: str) -> ConfigError:
    return ConfigError(Code.CONFIG_BAD_VALUE, sentence, _HINT)
