"""What is spoken on a control socket: one JSON object a line, a request and its answer. No I/O here.

A connection carries one request: `{"v": 1, "do": "status"}`. The answer is `{"ok": true, …}` with the facts, or
`{"ok": false, "error": {"code": …, "reason": …, "hint": …}}`. Keys that are not known are ignored on either side, so
that a newer `mtlskit` can talk with an older proxy; a request that is not known is answered with an error.
docs/reference/control.md describes it for programs of others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mtlskit.errors import Code, ControlError, MtlskitError

__all__ = [
    "MAX_ANSWER",
    "MAX_REQUEST",
    "VERSION",
    "LineReader",
    "Request",
    "decode_answer",
    "decode_request",
    "encode_answer",
    "encode_error",
    "encode_request",
    "error_facts",
]

VERSION: Final = 1

MAX_REQUEST: Final = 64 * 1024
"""Bytes, the newline included. Today's requests have 25; whoever sends more than this means something else."""

MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes, the newline included. A tunnel takes about 1.5 KiB of a status, so that two thousand of them fit."""

_SHOWN: Final = 40


@dataclass(frozen=True)
class Request:
    """What a client wants done; `arguments` are the other keys of its object."""

    do: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


class LineReader:
    """Collects the one line that a side sends, of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        """Whether nothing has come."""
        return not self._buffer

    def receive(self, data: bytes) -> bytes | None:
        """The line without its newline, or None for more to come. What follows the newline is dropped.

        Raises ControlError (CTL_REQUEST) when the limit is passed.
        """
        searched = len(self._buffer)
        self._buffer += data
        end = self._buffer.find(b"\n", searched)
        if end >= self._limit or (end < 0 and len(self._buffer) >= self._limit):
            raise ControlError(
                Code.CTL_REQUEST, f"a line is longer than {self._limit} bytes", "send one JSON object on one line"
            )
        return None if end < 0 else bytes(self._buffer[:end])


def encode_request(request: Request) -> bytes:
    """The line of a request."""
    return _line({**request.arguments, "v": VERSION, "do": request.do})


def decode_request(line: bytes) -> Request:
    """The request that a client sent. Raises ControlError (CTL_REQUEST)."""
    facts = _object(line)
    if facts is None:
        raise ControlError(
            Code.CTL_REQUEST, "the request is not a JSON object", 'send one line such as {"v": 1, "do": "status"}'
        )
    version, do = facts.pop("v", None), facts.pop("do", None)
    if version != VERSION or isinstance(version, bool):
        raise ControlError(
            Code.CTL_REQUEST,
            f"the request is not of version {VERSION} of the protocol",
            f'say "v": {VERSION}; a newer mtlskit may speak another one than the proxy that is running',
        )
    if not isinstance(do, str):
        raise ControlError(Code.CTL_REQUEST, "the request does not say what to do", 'add "do": "status"')
    return Request(do[:_SHOWN], facts)


def encode_answer(facts: Mapping[str, Any]) -> bytes:
    """The line of an answer. One that would be too long becomes an error."""
    line = _line({"ok": True, **facts})
    if len(line) <= MAX_ANSWER:
        return line
    return encode_error(ControlError(Code.CTL_REQUEST, f"the answer is longer than {MAX_ANSWER} bytes"))


def encode_error(error: MtlskitError) -> bytes:
    """The line that says why a request was not done."""
    return _line({"ok": False, "error": error_facts(error)})


def error_facts(error: MtlskitError) -> dict[str, str]:
    """An error as an answer carries it: code, reason and hint."""
    return {"code": error.code.value, "reason": error.sentence, "hint": error.hint}


def decode_answer(line: bytes) -> dict[str, Any]:
    """The facts of an answer. Raises ControlError: the proxy's own error, or CTL_NO_ANSWER for what is no answer."""
    facts = _object(line)
    ok = None if facts is None else facts.pop("ok", None)
    if facts is not None and ok is True:
        return facts
    error = None if facts is None else facts.get("error")
    if ok is not False or not isinstance(error, dict):
        raise ControlError(
            Code.CTL_NO_ANSWER,
            "what answers on the control socket is not a proxy of mtlskit",
            "look at what listens there, and remove it",
        )
    try:
        code = Code(str(error.get("code")))
    except ValueError:  # of another version
        code = Code.CTL_REQUEST
    raise ControlError(code, str(error.get("reason", "the proxy refused")), str(error.get("hint", "")))


def _line(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts).encode("ascii") + b"\n"  # what is not ASCII is escaped


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, too many digits; nested too deeply
        return None
    return facts if isinstance(facts, dict) else None
