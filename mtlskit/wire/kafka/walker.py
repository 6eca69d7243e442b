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

`Walk` is the part of it that only gets past fields; `denials` follows the same tables with it, to read something else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeAlias

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.kafka.advertised import Advertised
from mtlskit.wire.kafka.primitives import Buffer, Place, Reader, string, uvarint
from mtlskit.wire.kafka.tables import NO_TAG, TABLES, Field, Kind

__all__ = ["Action", "Steps", "Walk", "rewrite", "steps_of"]

_CORRELATION_ID: Final = 4
_CONTROLLERS: Final = 2
_PORT: Final = struct.Struct("!i")
_SHORT: Final = 0x7F
"""What leads the longest array whose length is one byte in the flexible layout."""
_LONGEST: Final = 1 + 4 * (_SHORT - 1)
"""Bytes of such an array of int32."""

Action: TypeAlias = Callable[[Any, Any], None]
"""A method of a `Walk`."""

_Step: TypeAlias = tuple[Action, Any]
"""A method and its argument: a size, a number, further steps, or steps by tag. Which of them, the method knows."""

Steps: TypeAlias = tuple[_Step, ...]


def rewrite(data: Buffer, start: int, end: int, api_key: int, version: int, advertised: Advertised) -> list[Buffer]:
    """The response in `data[start:end]`, correlation id first, with other addresses, in pieces.

    No pieces where there is nothing to change. The last piece is a range of `data`, not a copy, if that is a
    memoryview. Raises UpstreamProtocolError for a response that cannot be read, or that names controllers.
    """
    table = TABLES[api_key]
    reader = Reader(data, start, end, flexible=version >= table.flexible, place=Place(table.name, api_key, version))
    walk = _Splice(reader, advertised)
    walk.header()
    walk.do(plan(api_key, version))
    return walk.finished()


@cache  # bounded by the tables: a few dozen
def plan(api_key: int, version: int) -> Steps:
    """The steps from the first byte behind the header to the last address."""
    table = TABLES[api_key]
    return steps_of(table.fields, version, _SPLICE, flexible=version >= table.flexible)


class Walk:
    """One response on its way. The methods that a plan names take one argument each."""

    __slots__ = ("_reader",)

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def header(self) -> None:
        """Pass the response header, version 0 or 1."""
        self._reader.skip(_CORRELATION_ID)
        self._reader.skip_tags()

    def do(self, steps: Steps) -> None:
        """Take the steps."""
        for step, argument in steps:
            step(self, argument)

    def skip(self, size: int) -> None:
        """Pass `size` bytes."""
        self._reader.skip(size)

    def skip_string(self, _none: int) -> None:
        """Pass a string."""
        self._reader.skip_string()

    def skip_tags(self, _none: int) -> None:
        """Pass the tagged fields at a struct's end."""
        self._reader.skip_tags()

    def skip_int32s(self, arrays: int) -> None:
        """Pass so many arrays of int32, one after the other."""
        reader = self._reader
        for _ in range(arrays):
            reader.skip(4 * reader.count())

    def skip_rows(self, shape: tuple[int, int, Steps]) -> None:
        """Pass an array of structs in the flexible layout: so many bytes, then so many arrays of int32; their steps.

        These are a topic's partitions, thousands of them. The usual one is passed here, any other by the steps.
        """
        reader = self._reader
        data, end, (size, arrays, steps) = reader.data, reader.end, shape
        for _ in range(reader.count()):
            pos = reader.pos + size
            if end - pos > arrays * _LONGEST:
                for _ in range(arrays):
                    if (count := data[pos]) > _SHORT:
                        break
                    pos += 4 * count - 3 if count else 1
                else:
                    if not data[pos]:  # no tagged fields
                        reader.pos = pos + 1
                        continue
            self.do(steps)

    def structs(self, steps: Steps) -> None:
        """Take the steps for each struct of an array."""
        for _ in range(self._reader.count()):
            for step, argument in steps:
                step(self, argument)


class _Splice(Walk):
    """Puts other addresses in."""

    __slots__ = ("_advertised", "_controllers", "_mark", "_pieces")

    def __init__(self, reader: Reader, advertised: Advertised) -> None:
        super().__init__(reader)
        self._advertised = advertised
        self._pieces: list[Buffer] = []
        self._mark = reader.start
        """Where the bytes begin that are in no piece yet."""
        self._controllers = False

    def finished(self) -> list[Buffer]:
        """The pieces, the last of which is all that was not walked."""
        if self._pieces:
            self._cut(self._reader.end, self._reader.end)
        return self._pieces

    def _cut(self, at: int, mark: int) -> None:
        """End a range of the response, and go on from `mark`."""
        self._pieces.append(self._reader.data[self._mark : at])
        self._mark = mark

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

    def tags(self, known: dict[int, Steps]) -> None:
        reader = self._reader
        for _ in range(reader.uvarint()):
            steps = known.get(reader.uvarint())
            at = reader.pos
            size = reader.uvarint()
            if steps is None:
                reader.skip(size)
            else:
                self._tagged(at, size, steps)

    def _tagged(self, at: int, size: int, steps: Steps) -> None:
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


_SPLICE: Final[Mapping[Kind, Action]] = {Kind.ENDPOINT: _Splice.endpoint, Kind.ENDPOINT_TYPE: _Splice.endpoint_type}

_SIZES: Final = {
    **{kind: kind.value for kind in (Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64, Kind.UUID)},
    Kind.ERROR: Kind.INT16.value,
}
_PASSED: Final[Mapping[Kind, Action]] = {Kind.STRING: Walk.skip_string, Kind.KEY: Walk.skip_string}
_MERGED: Final = frozenset({Walk.skip, Walk.skip_int32s})
"""What neighbours of one kind become one step of, their arguments added up."""


def steps_of(
    fields: tuple[Field, ...], version: int, actions: Mapping[Kind, Action], *, flexible: bool, whole: bool = False
) -> Steps:
    """The steps over the fields of one struct: to its end, or, where it is not `whole`, to the last of the fields.

    `actions` are what to do with fields of certain kinds; the others are passed over.
    """
    present = [field for field in fields if field.since <= version <= field.until]
    plain = [field for field in present if field.tag == NO_TAG]
    tagged: dict[int, Steps] = {
        field.tag: (_step(field, version, actions, flexible=flexible),) for field in present if field.tag != NO_TAG
    }
    steps: list[_Step] = []
    for field in plain:
        step = _step(field, version, actions, flexible=flexible)
        if steps and steps[-1][0] is step[0] and step[0] in _MERGED:
            steps[-1] = (step[0], steps[-1][1] + step[1])
        else:
            steps.append(step)
    if tagged:
        steps.append((_Splice.tags, tagged))
    elif whole and flexible:
        steps.append((Walk.skip_tags, 0))
    return tuple(steps)


def _step(field: Field, version: int, actions: Mapping[Kind, Action], *, flexible: bool) -> _Step:
    kind = field.kind
    if kind in actions:
        return actions[kind], 0
    if kind in _SIZES:
        return Walk.skip, _SIZES[kind]
    if kind is Kind.STRUCTS:
        return _structs(steps_of(field.fields, version, actions, flexible=flexible, whole=True))
    if kind is Kind.INT32S:
        return Walk.skip_int32s, 1
    return _PASSED[kind], 0


def _structs(steps: Steps) -> _Step:
    """The step over an array of structs, each of which is passed in these steps."""
    if [step for step, _ in steps] == [Walk.skip, Walk.skip_int32s, Walk.skip_tags]:
        return Walk.skip_rows, (steps[0][1], steps[1][1], steps)
    return Walk.structs, steps
