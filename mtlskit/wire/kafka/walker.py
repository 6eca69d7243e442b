"""Follows a table through a response, finds the brokers' addresses, and splices others in.

Theory of operation
-------------------
`plan` turns a table into the steps of one version, once: fields that this version lacks are dropped, and neighbours of
fixed size become one skip. Walking a response means to do these steps; a table ends with the last field that leads to
an address, so the walk never sees what follows it, such as the topics of a Metadata response. Everything but addresses
is passed over by its length and keeps its bytes, tagged fields included, known and unknown ones: what the walker does
not understand, it cannot spoil.

A new address seldom has the length of the old one. So the walk collects *pieces*: ranges of the response, and new
bytes between them. Two lengths depend on what is inside: the frame's size, which the caller writes, and the size of a
tagged field that holds addresses, for which a place is kept and filled when the field has been walked.

Where nothing was replaced there are no pieces, and the caller passes the response on as it came.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeAlias

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.kafka.advertised import Advertised
from mtlskit.wire.kafka.primitives import Buffer, Place, Reader, string, uvarint
from mtlskit.wire.kafka.tables import NO_TAG, TABLES, Field, Kind

__all__ = ["rewrite"]

_CORRELATION_ID: Final = 4
_CONTROLLERS: Final = 2
_PORT: Final = struct.Struct("!i")

_Step: TypeAlias = "tuple[Callable[[_Walk, Any], None], Any]"
"""A method of `_Walk` and its argument: a size, further steps, or steps by tag. Which of them, the method knows."""

_Steps: TypeAlias = tuple[_Step, ...]


def rewrite(data: Buffer, start: int, end: int, api_key: int, version: int, advertised: Advertised) -> list[Buffer]:
    """The response in `data[start:end]`, correlation id first, with other addresses, in pieces.

    No pieces where there is nothing to change. The last piece is a range of `data`, not a copy, if that is a
    memoryview. Raises UpstreamProtocolError for a response that cannot be read, or that names controllers.
    """
    table = TABLES[api_key]
    reader = Reader(data, start, end, flexible=version >= table.flexible, place=Place(table.name, api_key, version))
    walk = _Walk(reader, advertised)
    reader.skip(_CORRELATION_ID)
    reader.skip_tags()  # of the response header, version 1
    walk.do(plan(api_key, version))
    return walk.finished()


@cache  # bounded by the tables: a few dozen
def plan(api_key: int, version: int) -> _Steps:
    """The steps from the first byte behind the header to the last address."""
    table = TABLES[api_key]
    return _steps(table.fields, version, flexible=version >= table.flexible, whole=False)


class _Walk:
    """One response on its way. The methods that a plan names take one argument each."""

    __slots__ = ("_advertised", "_controllers", "_mark", "_pieces", "_reader")

    def __init__(self, reader: Reader, advertised: Advertised) -> None:
        self._reader = reader
        self._advertised = advertised
        self._pieces: list[Buffer] = []
        self._mark = reader.start
        """Where the bytes begin that are in no piece yet."""
        self._controllers = False

    def do(self, steps: _Steps) -> None:
        """Take the steps."""
        for step, argument in steps:
            step(self, argument)

    def finished(self) -> list[Buffer]:
        """The pieces, the last of which is all that was not walked."""
        if self._pieces:
            self._cut(self._reader.end, self._reader.end)
        return self._pieces

    def _cut(self, at: int, mark: int) -> None:
        """End a range of the response, and go on from `mark`."""
        self._pieces.append(self._reader.data[self._mark : at])
        self._mark = mark

    def skip(self, size: int) -> None:
        self._reader.skip(size)

    def skip_string(self, _none: int) -> None:
        self._reader.skip_string()

    def skip_tags(self, _none: int) -> None:
        self._reader.skip_tags()

    def structs(self, steps: _Steps) -> None:
        for _ in range(self._reader.count()):
            for step, argument in steps:
                step(self, argument)

    def endpoint_type(self, _none: int) -> None:
        at = self._reader.pos
        self._reader.skip(1)
        self._controllers = self._reader.data[at] == _CONTROLLERS

    def endpoint(self, _none: int) -> None:
        reader = self._reader
        node_id = reader.int32()
        at = reader.pos
        host = reader.text()
        port = reader.int32()
        if self._controllers:
            raise UpstreamProtocolError(
                Code.KAFKA_CONTROLLERS,
                f"the upstream names the cluster's controllers, such as {host}:{port}, and so is a controller itself",
                "let the tunnel's upstream name brokers: clients of controllers are not served",
            )
        ours = self._advertised.replacement(node_id, host, port)
        if ours is not None:
            self._cut(at, reader.pos)
            self._pieces.append(string(ours[0], flexible=reader.flexible) + _PORT.pack(ours[1]))

    def tags(self, known: dict[int, _Steps]) -> None:
        reader = self._reader
        for _ in range(reader.uvarint()):
            steps = known.get(reader.uvarint())
            at = reader.pos
            size = reader.uvarint()
            if steps is None:
                reader.skip(size)
            else:
                self._tagged(at, size, steps)

    def _tagged(self, at: int, size: int, steps: _Steps) -> None:
        """Walk a tagged field of `size` bytes, whose size stands at `at` and is written anew."""
        reader = self._reader
        end, begin = reader.end, reader.pos
        reader.skip(size)
        reader.pos, reader.end = begin, begin + size
        self._cut(at, begin)
        place = len(self._pieces)
        self._pieces.append(b"")
        self.do(steps)
        self._cut(reader.end, reader.end)
        self._pieces[place] = uvarint(sum(map(len, self._pieces[place:])))
        reader.pos, reader.end = reader.end, end


_SKIPPED: Final = frozenset({Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64, Kind.UUID})


def _steps(fields: tuple[Field, ...], version: int, *, flexible: bool, whole: bool) -> _Steps:
    """The steps over the fields of one struct: to its end, or, where it is not `whole`, to the end of the table."""
    present = [field for field in fields if field.since <= version <= field.until]
    plain = [field for field in present if field.tag == NO_TAG]
    tagged: dict[int, _Steps] = {
        field.tag: (_step(field, version, flexible=flexible),) for field in present if field.tag != NO_TAG
    }
    steps: list[_Step] = []
    for field in plain:
        step = _step(field, version, flexible=flexible)
        if steps and steps[-1][0] is step[0] is _Walk.skip:
            steps[-1] = (_Walk.skip, steps[-1][1] + step[1])
        else:
            steps.append(step)
    if tagged:
        steps.append((_Walk.tags, tagged))
    elif whole and flexible:
        steps.append((_Walk.skip_tags, 0))
    return tuple(steps)


def _step(field: Field, version: int, *, flexible: bool) -> _Step:
    if field.kind in _SKIPPED:
        return _Walk.skip, field.kind.value
    if field.kind is Kind.STRUCTS:
        return _Walk.structs, _steps(field.fields, version, flexible=flexible, whole=True)
    return {Kind.STRING: _Walk.skip_string, Kind.ENDPOINT: _Walk.endpoint, Kind.ENDPOINT_TYPE: _Walk.endpoint_type}[
        field.kind
    ], 0
