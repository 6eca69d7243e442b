"""What it costs to open an encrypted key or archive, read off its header before anything is computed.

A passphrase is turned into a key by many rounds of a hash, and the file says how many. OpenSSL believes it: 2^31 - 1
rounds are half an hour of one core in which no signal is heard, and scrypt takes as much memory as the file wants. So
the file is walked first. The walk knows the algorithms that carry a number of rounds, not the grammar around them:
wherever one stands, in PKCS #8, in the bags of a PKCS #12 archive (octet strings that hold more of the same), in its
MAC, its rounds are counted. It reads BER, which browsers write, as leniently as OpenSSL, because what it does not
understand it cannot count; where the bytes make no sense any more, OpenSSL stops as well.

What it cannot see is what stands inside the ciphertext: an archive whose author also told the passphrase can hold
another encrypted bag in an encrypted part.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from mtlskit.errors import Code, IdentityError

__all__ = ["MAX_ROUNDS", "refuse_costly", "rounds"]

MAX_ROUNDS = 10_000_000
"""About 1.5 s of PBKDF2 with SHA-256. OpenSSL writes 2,048, Java 10,000, password guides ask for 600,000."""

_SCRYPT_WEIGHT = 4
"""One unit of scrypt's N·r·p costs as much time as this many rounds of PBKDF2, and 128 bytes: 320 MB at the most."""

_PBES1_RUNS = 3
"""Key and IV are derived one after the other, and a 3DES key takes two blocks of SHA-1 (RFC 7292, appendix B)."""

_MAX_STEPS = 300_000
"""Elements that the walk looks at, about 0.3 s. A chain of a hundred certificates has some thousand."""

_MAX_DEPTH = 40

_ENDLESS = 10**15
"""Rounds that nobody will ever see the end of; also the answer where the walk itself takes too long."""

_SEQUENCE = 0x30
_INTEGER = 0x02
_OBJECT_IDENTIFIER = 0x06
_OCTET_STRING = 0x04
_CONSTRUCTED = 0x20

_PBKDF2 = bytes.fromhex("2a864886f70d01050c")  # 1.2.840.113549.1.5.12
_SCRYPT = bytes.fromhex("2b06010401da47040b")  # 1.3.6.1.4.1.11591.4.11 (RFC 7914, section 7)
_PBES1 = (bytes.fromhex("2a864886f70d010c01"), bytes.fromhex("2a864886f70d0105"))  # PKCS #12 and PKCS #5, version 1


def refuse_costly(data: bytes, *, source: str) -> None:
    """Raises `IdentityError` KEY_TOO_COSTLY where opening `data` would take more than `MAX_ROUNDS`."""
    needed = rounds(data)
    if needed > MAX_ROUNDS:
        raise IdentityError(
            Code.KEY_TOO_COSTLY,
            f"{source} asks for {_counted(needed)} to open it with the passphrase, more than {MAX_ROUNDS}",
            "do not trust whoever made it; if it was you, write it again with fewer rounds, in openssl: -iter 600000",
        )


def rounds(data: bytes) -> int:
    """How many rounds of PBKDF2, or as much work, it takes to open all of `data` (BER). 0: nothing is encrypted."""
    try:
        return _Walk().sequence(data, 0)
    except _TooMuchError:
        return _ENDLESS


class _TooMuchError(Exception):
    """The walk itself would take too long."""


class _Part(NamedTuple):
    tag: int
    content: bytes


class _Walk:
    """One pass over a file, within a number of steps."""

    def __init__(self) -> None:
        self._steps = 0

    def sequence(self, data: bytes, depth: int) -> int:
        """The rounds asked for by the elements that stand one after the other in `data`."""
        if depth > _MAX_DEPTH:
            raise _TooMuchError
        total = 0
        parts: list[_Part] = []
        for part in self._parts(data):
            parts.append(part)
            if part.tag & ~_CONSTRUCTED == _OCTET_STRING:
                total += self.sequence(self._joined(part), depth + 1)
            elif part.tag & _CONSTRUCTED:
                total += self.sequence(part.content, depth + 1)
        return total + self._asked(parts)

    def _asked(self, parts: list[_Part]) -> int:
        """The rounds that these elements ask for, if they are an algorithm with its parameters, or a MacData."""
        tags = [part.tag for part in parts]
        if tags[:2] == [_OBJECT_IDENTIFIER, _SEQUENCE]:
            numbers = [_number(part) for part in self._parts(parts[1].content) if part.tag == _INTEGER]
            return _of_algorithm(parts[0].content, numbers)
        if len(tags) == 3 and tags[0] == _SEQUENCE and tags[1] & ~_CONSTRUCTED == _OCTET_STRING and tags[2] == _INTEGER:
            return _number(parts[2])  # MacData of PKCS #12: digest, salt, rounds (RFC 7292, section 4)
        return 0

    def _joined(self, part: _Part) -> bytes:
        """The content of an octet string, also of one that comes in pieces (X.690, 8.7.3)."""
        if not part.tag & _CONSTRUCTED:
            return part.content
        return b"".join(piece.content for piece in self._parts(part.content))

    def _parts(self, data: bytes) -> Iterator[_Part]:
        """The elements of `data`, up to where it makes no sense any more."""
        position = 0
        while position < len(data):
            self._step()
            head = _head(data, position)
            if head is None:
                return
            tag, length, begin = head
            end = self._end_of_contents(data, begin) if length is None else begin + length
            if end is None or end > len(data):
                return
            yield _Part(tag, data[begin : end - 2 if length is None else end])
            position = end

    def _end_of_contents(self, data: bytes, position: int) -> int | None:
        """The end of an element of indefinite length, behind its two zero octets."""
        open_elements = 1
        while position < len(data):
            self._step()
            if data[position : position + 2] == b"\0\0":
                position += 2
                open_elements -= 1
                if not open_elements:
                    return position
                continue
            head = _head(data, position)
            if head is None:
                return None
            _, length, begin = head
            if length is None:
                open_elements += 1
            position = begin + (length or 0)
        return None

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise _TooMuchError


def _of_algorithm(algorithm: bytes, numbers: list[int]) -> int:
    if algorithm == _SCRYPT:
        return _SCRYPT_WEIGHT * prod(numbers[:3])  # N, r, p
    if algorithm == _PBKDF2:
        return max(numbers, default=0)  # the other one, if any, is the length of the key
    if algorithm.startswith(_PBES1):
        return _PBES1_RUNS * sum(numbers)
    return 0


def _number(part: _Part) -> int:
    """An INTEGER. A negative one is as large as it gets: readers that take it for unsigned would be busy for long."""
    value = int.from_bytes(part.content[:64], "big", signed=True)
    return value if value >= 0 else _ENDLESS


def _counted(needed: int) -> str:
    return f"{needed} rounds" if needed < _ENDLESS else "endless work"


def _head(data: bytes, start: int) -> tuple[int, int | None, int] | None:
    """Tag, length (None: indefinite) and where the content begins. Of a tag in several octets, the first is given."""
    position = start + 1
    if data[start] & 0x1F == 0x1F:
        while position < len(data) and data[position] & 0x80:
            position += 1
        position += 1
    if position >= len(data):
        return None
    length = data[position]
    position += 1
    if length < 0x80:
        return data[start], length, position
    if length == 0x80:
        return (data[start], None, position) if data[start] & _CONSTRUCTED else None
    count = length & 0x7F
    if position + count > len(data):
        return None
    return data[start], int.from_bytes(data[position : position + count], "big"), position + count
