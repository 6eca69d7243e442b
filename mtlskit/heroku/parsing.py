"""The APIs' JSON as frozen values: strict about shape, tolerant about everything else.

A field that we need and that is missing or of another kind is an error which names the field, and never the value: the
same objects carry keys and passwords. Unknown fields, unknown statuses, ids as numbers, objects where a name would do
and both forms of timestamps are taken as they come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from mtlskit.heroku.refusals import NOT_JSON, json_of, rubbish
from mtlskit.heroku.token import Token
from mtlskit.heroku.transport import Answer

__all__ = ["Fields", "Misshapen", "parse_list", "parse_object", "parse_time"]

_T = TypeVar("_T")

_KINDS: Final = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}


class Misshapen(Exception):
    """A value is not of the shape that was expected. Says what was expected and which kind came, never the value."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


def parse_object(answer: Answer, about: str, token: Token, make: Callable[[Fields], _T]) -> _T:
    """The value that `make` reads out of an object. Raises `HerokuError` (API_RUBBISH)."""
    found: Any = json_of(answer.body)
    expected = "a JSON object" if found is NOT_JSON else ""
    if not expected:
        try:
            return make(Fields(found))
        except Misshapen as exc:
            expected = exc.expected
    # Raised out here, so that nothing is chained to it that holds what came.
    raise rubbish(answer, about, expected, token)


def parse_list(answer: Answer, about: str, token: Token, make: Callable[[Fields], _T]) -> tuple[_T, ...]:
    """The same for a list of objects."""
    found: Any = json_of(answer.body)
    expected = "a JSON list" if not isinstance(found, list) else ""
    if not expected:
        try:
            return tuple(make(Fields(each, f"entry {number} of the list")) for number, each in enumerate(found, 1))
        except Misshapen as exc:
            expected = exc.expected
    raise rubbish(answer, about, expected, token)


class Fields:
    """One JSON object. Its `repr` shows nothing of it."""

    def __init__(self, value: object, place: str = "the answer") -> None:
        if not isinstance(value, dict):
            raise Misshapen(f"{place} to be a JSON object, not {_kind(value)}")
        self._values: Mapping[str, Any] = value
        self._place = place

    def __repr__(self) -> str:
        return f"<Fields of {self._place}>"

    def get(self, name: str) -> object:
        """As it came; None where it did not."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """Required, and not empty. Numbers are taken as text."""
        found = _as_text(self._values.get(name))
        if not found:
            raise self._wrong(name, "text")
        return found

    def optional_text(self, name: str) -> str | None:
        """None where it is missing, null, or something else."""
        return _as_text(self._values.get(name))

    def text_or(self, name: str, otherwise: str = "") -> str:
        """`otherwise` where it is missing, null, empty or something else."""
        return _as_text(self._values.get(name)) or otherwise

    def name(self, name: str, otherwise: str = "") -> str:
        """A text, or an object that has a `name`, `email` or `id`: the first of them."""
        value = self._values.get(name)
        if isinstance(value, dict):
            parts = (_as_text(value.get(key)) for key in ("name", "email", "id"))
            return next((part for part in parts if part), otherwise)
        return _as_text(value) or otherwise

    def flag(self, *names: str) -> bool | None:
        """The first of these that is true or false."""
        return next((value for name in names if isinstance(value := self._values.get(name), bool)), None)

    def number(self, name: str) -> int:
        """Required; text of digits is taken too."""
        found = _as_text(self._values.get(name))
        if found is None or not re.fullmatch(r"[0-9]{1,9}", found):
            raise self._wrong(name, "a whole number")
        return int(found)

    def time(self, name: str) -> datetime | None:
        """An aware datetime, or None."""
        value = self._values.get(name)
        return parse_time(value) if isinstance(value, str) else None

    def object(self, name: str) -> Fields:
        """Required."""
        return Fields(self._values.get(name), f"`{name}` of {self._place}")

    def objects(self, name: str) -> tuple[Fields, ...]:
        """A list of objects; empty where it is missing or null."""
        found = self._list(name)
        return tuple(Fields(each, f"entry {number} of `{name}`") for number, each in enumerate(found, 1))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where it is missing or null. Entries of another kind are left out."""
        return tuple(each for each in self._list(name) if isinstance(each, str))

    def string_map(self) -> dict[str, str]:
        """The whole object, of texts. What has no value (null) is left out."""
        for name, value in self._values.items():
            if value is not None and not isinstance(value, str):
                raise self._wrong(name, "text")
        return {name: value for name, value in self._values.items() if value is not None}

    def _list(self, name: str) -> list[Any]:
        found = self._values.get(name)
        if found is None:
            return []
        if not isinstance(found, list):
            raise self._wrong(name, "a list")
        return found

    def _wrong(self, name: str, expected: str) -> Misshapen:
        came = _kind(self._values[name]) if name in self._values else "nothing"
        # Whole, though it may be the server's own word: it is shortened after a token in it was taken out, not before.
        return Misshapen(f"`{name}` of {self._place} to be {expected}, not {came}")


def _as_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _kind(value: object) -> str:
    return "empty text" if value == "" else _KINDS.get(type(value), "a number")


_LONGEST_TIME: Final = 64
"""Characters. Both forms have half of that; the pattern below would take minutes over a megabyte that is no time."""


def parse_time(text: str) -> datetime | None:
    """RFC 3339, or `2024-07-31 01:16:17 +0000`, or with `UTC` at its end; in UTC. None for anything else.

    A time without a zone is UTC, as all of Heroku's are.
    """
    if len(text) > _LONGEST_TIME:
        return None
    found = re.fullmatch(r"(\S+?)[T ](\S+?)(?: ?(UTC|Z|z|[+-]\d\d:?\d\d))?", text.strip())
    if found is None:
        return None
    day, clock, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in (None, 'UTC', 'Z', 'z') else zone}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
