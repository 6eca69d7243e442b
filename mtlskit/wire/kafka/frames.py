"""One direction of a connection, cut into frames: what passes, what is dropped, what is held until it is whole.

Theory of operation
-------------------
A frame is a size (int32, not counting itself) and that many bytes. The reader looks at a frame's size and its first
few bytes, and asks `consider` what is to become of it:

* PASS: the rest goes on as it comes. Only its bytes are counted; whoever reads a 50 MiB response a buffer at a time
  gets each buffer back, untouched and uncopied.
* DROP: the rest is thrown away as it comes.
* HOLD: the frame is kept until it is whole, and `rewrite` gives the pieces that take its place.
* MORE: `consider` is to be asked again when more of the frame has come.

Frames that pass side by side in one buffer go on as one range of it. A frame that comes in several reads is copied
only as long as nothing has been decided about it, or while it is held.

What is kept between two reads: the head of a frame (a dozen bytes), what `consider` asks for with MORE (it bounds
that), and frames on HOLD, up to `max_held`, growing as bytes come and never by what the size promises.

**A size that lies.** Bytes that are not Kafka's give a size all the same, and mostly an absurd one: an answer in TLS
reads as 352,518,912 bytes, which clients without a bound set out to allocate. What the four bytes look like says more
than the number, and goes into the error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from mtlskit.errors import ClientProtocolError, Code, MtlskitError, UpstreamProtocolError
from mtlskit.wire.kafka.primitives import Buffer

__all__ = ["MAX_FRAME", "MAX_HELD", "REQUESTS", "RESPONSES", "Direction", "Fate", "FrameReader"]

MAX_FRAME: Final = 1 << 30
"""Bytes of a frame that passes; nothing is allocated for it. Brokers take requests of 100 MiB unless told otherwise,
and a size above this is text: the first byte of it is at least 64, "@", or the number is negative."""

MAX_HELD: Final = 32 * 1024 * 1024
"""Bytes of a frame that is to be rewritten. Metadata of 500,000 partitions has about 25 MiB."""

_MORE: Final = 256
"""Bytes that are copied at a time for MORE: what is asked for is seldom longer, and a large read is not copied."""

_SIZE: Final = struct.Struct("!i")
_SUSPECT: Final = 0x14030000
"""The smallest size that could be a TLS record: its type (20 to 23), then version 3.x (RFC 8446, section 5.1)."""

_HTTP: Final = frozenset(
    (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI ", b"HTTP")
)


_POSTGRES_SIZE: Final = 8
_POSTGRES: Final = tuple(code.to_bytes(4) for code in (80_877_103, 80_877_104))
"""What a PostgreSQL client sends first: a size of 8, which counts itself, and SSLRequest or GSSENCRequest. Were it not
known, the client would wait for an answer for ever, and we for four bytes."""


class Fate(Enum):
    """What is to become of a frame."""

    PASS = auto()
    DROP = auto()
    HOLD = auto()
    MORE = auto()


@dataclass(frozen=True)
class Direction:
    """Who speaks, how many bytes behind the size are needed to know a frame, and what to say of one that is none."""

    head: int
    tls: tuple[Code, str, str]
    http: tuple[Code, str, str]
    postgres: tuple[Code, str, str] | None
    rubbish: tuple[Code, str, str]
    error: type[MtlskitError]


REQUESTS: Final = Direction(
    head=8,  # api key, version, correlation id
    tls=(
        Code.KAFKA_CLIENT_SPEAKS_TLS,
        "the client speaks TLS to a port that is plain",
        "set the client's security.protocol to PLAINTEXT (or SASL_PLAINTEXT): the tunnel does the TLS",
    ),
    http=(
        Code.KAFKA_CLIENT_SPEAKS_HTTP,
        "the client speaks HTTP to a Kafka port",
        "a browser or a health check has the wrong port; a health check should only open and close a connection",
    ),
    postgres=(
        Code.KAFKA_CLIENT_RUBBISH,
        "the client speaks PostgreSQL to a Kafka port",
        "the client has the wrong port: connect it to a tunnel of kind postgres",
    ),
    rubbish=(
        Code.KAFKA_CLIENT_RUBBISH,
        "the client sent what is no Kafka request",
        "check what connects to this port",
    ),
    error=ClientProtocolError,
)

RESPONSES: Final = Direction(
    head=4,  # correlation id
    tls=(
        Code.KAFKA_SERVER_SPEAKS_TLS,
        "the upstream answers in TLS, and was spoken to in plain",
        "the port wants TLS: use a kafka+ssl:// URL, or give the tunnel its identity and CA",
    ),
    http=(
        Code.KAFKA_SERVER_RUBBISH,
        "the upstream answers in HTTP: it is a web server or a web proxy",
        "check the upstream's host and port",
    ),
    postgres=None,
    rubbish=(
        Code.KAFKA_SERVER_RUBBISH,
        "the upstream sent what is no Kafka response",
        "check the upstream's host and port, and that it is a Kafka broker",
    ),
    error=UpstreamProtocolError,
)


def _stays(_frame: memoryview) -> list[Buffer]:
    return []


class FrameReader:
    """Cuts up one direction.

    `consider(buffer, at, size)` decides about a frame whose bytes behind the size begin at `buffer[at]`. After MORE it
    is asked again: with a bytearray that begins with the frame's size, and from then on with the same one, grown.
    `rewrite(frame)` gives the pieces of a whole frame behind its size, none where it stays as it is. `between()` is
    called after each frame; what it returns is put there. All three may raise.
    """

    __slots__ = (
        "_between",
        "_consider",
        "_direction",
        "_dropping",
        "_fate",
        "_held",
        "_left",
        "_max_held",
        "_rewrite",
        "_total",
    )

    def __init__(
        self,
        direction: Direction,
        consider: Callable[[Buffer, int, int], Fate],
        *,
        rewrite: Callable[[memoryview], list[Buffer]] = _stays,
        between: Callable[[], bytes] = bytes,
        max_held: int = MAX_HELD,
    ) -> None:
        self._direction = direction
        self._consider = consider
        self._rewrite = rewrite
        self._between = between
        self._max_held = max_held
        self._left = 0
        """Bytes still to come of a frame that passes or is dropped."""
        self._dropping = False
        """They are dropped."""
        self._held = bytearray()
        """The first bytes of a frame that is not decided yet, or is to be whole."""
        self._total = 0
        """Bytes of the frame in `_held`, size included; 0 while that is not known."""
        self._fate: Fate | None = None
        """What was said last of the frame in `_held`: HOLD or MORE."""

    @property
    def inside(self) -> bool:
        """A frame whose fate is known is on its way."""
        return self._left > 0 or self._fate is not None

    @property
    def blank(self) -> bool:
        """The last read ended with the end of a frame."""
        return not self._left and not self._held

    def receive(self, data: Buffer) -> list[Buffer]:
        """What goes on for these bytes: ranges of `data`, and bytes of our own. Raises what `Direction.error` says."""
        size = len(data)
        if size < self._left and not self._dropping:
            self._left -= size
            return [data] if size else []
        view = memoryview(data)
        out: list[Buffer] = []
        pos = mark = 0  # what lies between the two passes, and is not in `out` yet
        while pos < size:
            if self._left:
                pos, mark = self._go_on(view, pos, mark, out)
            elif self._held:
                pos = mark = self._fill(view, pos, out)
            else:
                pos, mark = self._begin(view, pos, mark, out)
        if mark < size:
            out.append(view[mark:])
        return out

    def _go_on(self, view: memoryview, pos: int, mark: int, out: list[Buffer]) -> tuple[int, int]:
        """More of a frame that passes or is dropped."""
        after = min(pos + self._left, len(view))
        self._left -= after - pos
        if self._dropping:
            if mark < pos:
                out.append(view[mark:pos])
            mark = after
        if not self._left:
            mark = self._end(view, after, mark, out)
        return after, mark

    def _end(self, view: memoryview, pos: int, mark: int, out: list[Buffer]) -> int:
        """A frame has ended at `pos`; where the next range begins."""
        if not (own := self._between()):
            return mark
        if mark < pos:
            out.append(view[mark:pos])
        out.append(own)
        return pos

    def _begin(self, view: memoryview, pos: int, mark: int, out: list[Buffer]) -> tuple[int, int]:
        """A frame begins at `pos`."""
        there = len(view) - pos
        if there >= _SIZE.size + self._direction.head:
            total = _SIZE.size + self._judged(view, pos)
            fate = self._consider(view, pos + _SIZE.size, total - _SIZE.size)
            if fate is Fate.PASS or fate is Fate.DROP:
                self._left = total
                self._dropping = fate is Fate.DROP
                return pos, mark
            if fate is Fate.HOLD:
                self._check_held(total)
                if there >= total:
                    return pos + total, self._replace(view, pos, pos + total, mark, out)
            self._fate, self._total = fate, total
        if mark < pos:
            out.append(view[mark:pos])
        if not self._total and there >= _SIZE.size:
            self._total = _SIZE.size + self._judged(view, pos)
        self._held += view[pos:]
        return len(view), len(view)

    def _replace(self, view: memoryview, pos: int, end: int, mark: int, out: list[Buffer]) -> int:
        """Rewrite the whole frame in `view[pos:end]`; where the next range begins."""
        pieces = self._rewrite(view[pos + _SIZE.size : end])
        if pieces:
            if mark < pos:
                out.append(view[mark:pos])
            front = b"".join(pieces[:-1])
            out.append(_SIZE.pack(len(front) + len(pieces[-1])) + front)
            if pieces[-1]:
                out.append(pieces[-1])
            mark = end
        return self._end(view, end, mark, out)

    def _fill(self, view: memoryview, pos: int, out: list[Buffer]) -> int:
        """More of a frame that began in an earlier read; how far this read has been used up."""
        held = self._held
        if self._fate is Fate.MORE:
            wanted = min(len(held) + _MORE, self._total)
        elif self._fate is Fate.HOLD:
            wanted = self._total
        elif self._total:
            wanted = _SIZE.size + self._direction.head
        else:
            wanted = _SIZE.size
        after = min(pos + wanted - len(held), len(view))
        held += view[pos:after]
        if self._fate is Fate.MORE or len(held) == wanted:
            self._ripe(out)
        return after

    def _ripe(self, out: list[Buffer]) -> None:
        """What is held is enough for the next step."""
        held = self._held
        if not self._total:
            self._total = _SIZE.size + self._judged(held, 0)
            return
        if self._fate is not Fate.HOLD:
            self._fate = self._consider(held, _SIZE.size, self._total - _SIZE.size)
            if self._fate is Fate.HOLD:
                self._check_held(self._total)
        if self._fate is Fate.MORE or (self._fate is Fate.HOLD and len(held) < self._total):
            return
        fate, total = self._fate, self._total
        self._held, self._total, self._fate = bytearray(), 0, None
        if fate is Fate.HOLD:
            view = memoryview(held)
            mark = self._replace(view, 0, total, 0, out)
            if mark < total:
                out.append(view[mark:])
            return
        self._left = total - len(held)
        self._dropping = fate is Fate.DROP
        if fate is Fate.PASS:
            out.append(held)
        if not self._left:
            self._end(memoryview(b""), 0, 0, out)

    def _judged(self, buffer: Buffer, at: int) -> int:
        """The size that stands at `at`, if it can be one."""
        size: int = _SIZE.unpack_from(buffer, at)[0]
        direction = self._direction
        if direction.head <= size < _SUSPECT:
            if size == _POSTGRES_SIZE and direction.postgres and buffer[at + _SIZE.size :][:4] in _POSTGRES:
                code, sentence, hint = direction.postgres
                raise direction.error(code, f"{sentence} (it asks for TLS in the way of that)", hint)
            return size
        seen = bytes(buffer[at : at + _SIZE.size])
        if 20 <= seen[0] <= 23 and seen[1] == 3 and seen[2] <= 4:
            code, sentence, hint = direction.tls
        elif seen in _HTTP:
            code, sentence, hint = direction.http
        elif direction.head <= size <= MAX_FRAME:
            return size
        else:
            code, sentence, hint = direction.rubbish
            sentence += f", but a size of {size} bytes"
        raise direction.error(code, f"{sentence} (the bytes {seen.hex(' ')}, {seen.decode('latin-1')!a})", hint)

    def _check_held(self, total: int) -> None:
        if total > self._max_held:
            raise UpstreamProtocolError(
                Code.KAFKA_RESPONSE_TOO_LARGE,
                f"the broker's response of {total} bytes names brokers and is above the limit of {self._max_held}",
                "let the client ask for the topics that it uses, not for all of the cluster",
            )
