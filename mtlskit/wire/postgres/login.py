"""What the server answers, from the StartupMessage to the first ReadyForQuery or ErrorResponse.

Theory of operation
-------------------
`ServerLogin` stands between the server's bytes and the client. Its reason to exist is one message: a server that is
reached over TLS offers SCRAM-SHA-256-PLUS, and a client whose own leg is plain would take that offer for a sign of a
downgrade attack and give up. So AuthenticationSASL is rewritten; everything else goes through as it came.

Each message is treated in one of two ways, which a table decides by its type:

- **held**: kept until it is whole, looked at, perhaps rewritten, then forwarded in one piece. These are the messages
  that tell something: authentication requests 0 and 10, BackendKeyData, NegotiateProtocolVersion, ReadyForQuery, and
  an ErrorResponse of up to 30,000 bytes. Each has a small bound.
- **passed**: forwarded as it arrives, a piece of a message if that is what a read returned: ParameterStatus, notices,
  and the other authentication requests.

A header alone (5 bytes, 9 for an authentication request) is held until it is whole. Nothing else is ever kept, so a
pause of the server never leaves a byte here that the client could use.

The types and lengths are judged, the order of messages is not: a server that says things out of turn harms only its
own client, and the client notices. Once the login is over (`finished`), bytes pass unchanged, in the same call too.

**When `receive` raises**, whole messages of the same read that came before the fault are in `before_fault`: forward
them first (the events of that read are lost). `at_boundary` says whether the client may then be sent a message of our
own, an ErrorResponse; it is false in the middle of a passed message.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.greetings import LONGEST_GREETING, recognised
from mtlskit.wire.postgres.messages import (
    MAX_AUTH_TOKEN,
    MAX_CANCEL_KEY,
    MIN_CANCEL_KEY,
    ErrorFields,
    frame,
    message_text,
    parse_error_fields,
)

__all__ = [
    "MAX_HELD",
    "AuthenticationAccepted",
    "AuthenticationRequested",
    "BackendKeyReceived",
    "ChannelBinding",
    "LoginEvent",
    "LoginFinished",
    "MechanismsOffered",
    "ServerLogin",
    "VersionNegotiated",
]


class ChannelBinding(Enum):
    """What becomes of SCRAM-SHA-256-PLUS in the server's offer."""

    STRIP = "strip"
    """Remove it: the client's leg is plain (the proxy)."""
    ADD = "add"
    """Offer it before SCRAM-SHA-256: the client's leg has TLS and the server's has none (the sandbox's gateway)."""
    KEEP = "keep"
    """Leave the offer as it is."""


@dataclass(frozen=True)
class MechanismsOffered:
    """The server offered SASL mechanisms: what it sent, and what the client is told."""

    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class AuthenticationRequested:
    """The server asked for something else than SASL: 3 is a password, 5 MD5, 7 GSSAPI, 9 SSPI; 8, 11 and 12 go on."""

    code: int


@dataclass(frozen=True)
class AuthenticationAccepted:
    """The server knows the client: AuthenticationOk."""


@dataclass(frozen=True)
class BackendKeyReceived:
    """What a CancelRequest for this session must carry. `process_id` is 32 bits without a sign."""

    process_id: int
    secret: bytes


@dataclass(frozen=True)
class VersionNegotiated:
    """The server speaks an older minor version than the client asked for, or does not know some of its options."""

    minor: int
    unsupported: tuple[str, ...]


@dataclass(frozen=True)
class LoginFinished:
    """The login is over: `ready`, or refused with `error`, which is None when the refusal was too long to read."""

    ready: bool
    error: ErrorFields | None


LoginEvent: TypeAlias = (
    MechanismsOffered
    | AuthenticationRequested
    | AuthenticationAccepted
    | BackendKeyReceived
    | VersionNegotiated
    | LoginFinished
)

# Bounds of a message's length word, which counts itself (4) and the body.
_MAX_SHORT: Final = 30_000  # libpq takes any other message above this for a loss of synchronisation
_MAX_LONG: Final = 0xFF_FFFF  # notices may be long; a first length byte that is not 0 is no length but text
_MAX_SASL: Final = 2_000  # libpq refuses longer authentication requests; the usual offer has 42 bytes

MAX_HELD: Final = _MAX_SHORT
"""The bytes that a `ServerLogin` keeps between two reads, at most: an ErrorResponse without its last byte, or less."""

_LENGTHS: Final[dict[bytes, tuple[int, int]]] = {
    b"R": (8, MAX_AUTH_TOKEN + 8),  # authentication requests; 0 and 10 have tighter bounds
    b"v": (12, 2_000),  # NegotiateProtocolVersion; libpq's bound
    b"K": (8 + MIN_CANCEL_KEY, 8 + MAX_CANCEL_KEY),  # BackendKeyData
    b"Z": (5, 5),  # ReadyForQuery
    b"S": (6, _MAX_SHORT),  # ParameterStatus
    b"N": (5, _MAX_LONG),  # NoticeResponse
    b"A": (10, _MAX_LONG),  # NotificationResponse: may come at any time
    b"E": (5, 0xFFFF_FFFF),  # ErrorResponse; beyond 30,000 it ends the login unread
}
"""The messages that a server may send during a login, and the least and greatest length of each."""

_OK: Final = 0
_SASL: Final = 10


class ServerLogin:
    """Turns the server's bytes into bytes for the client and events, until the login is over."""

    def __init__(self, channel_binding: ChannelBinding = ChannelBinding.STRIP) -> None:
        self.finished = False
        """A ReadyForQuery or an ErrorResponse has been seen; bytes now pass unchanged."""
        self.before_fault = b""
        """After `receive` has raised: good bytes of that read, which the client should get first."""
        self._rewrite = _REWRITES[channel_binding]
        self._buffer = bytearray()
        self._to_pass = 0  # bytes of a passed message that are still to come
        self._fault: UpstreamProtocolError | None = None

    @property
    def at_boundary(self) -> bool:
        """Whether the client has got whole messages only, so that another may be put in. False once finished."""
        return self._to_pass == 0 and not self.finished

    def receive(self, data: bytes | memoryview) -> tuple[bytes, list[LoginEvent]]:
        """Take what a read returned; returns the bytes to forward to the client now, and what they told.

        Raises UpstreamProtocolError, and again at each further call, for a message that Postgres cannot have sent and
        for an offer of which nothing is left for a plain client.
        """
        if self._fault:
            raise self._fault
        if self.finished:
            return bytes(data), []
        self._buffer += data
        out, events = bytearray(), list[LoginEvent]()
        try:
            while self._step(out, events):
                pass
        except UpstreamProtocolError as fault:
            self._fault = fault
            self.before_fault = bytes(out)
            self._buffer.clear()
            raise
        return bytes(out), events

    def _step(self, out: bytearray, events: list[LoginEvent]) -> bool:
        """Move one message, or a piece of one, from the buffer to `out`; False where more bytes are needed."""
        if self.finished:
            self._move(len(self._buffer), out)
            return False
        if self._to_pass:
            self._to_pass -= self._move(self._to_pass, out)
            return self._to_pass == 0
        if len(self._buffer) < 5:
            return False
        kind, length = _read_header(self._buffer)
        if kind == b"R":
            return len(self._buffer) >= 9 and self._authentication(length, out, events)
        if kind == b"E" and length > _MAX_SHORT:
            self._finish(LoginFinished(ready=False, error=None), events)
            return True
        reader = _READERS.get(kind)
        if reader is None:
            self._to_pass = length + 1
            return True
        return self._hold(length, reader, out, events)

    def _authentication(self, length: int, out: bytearray, events: list[LoginEvent]) -> bool:
        (code,) = struct.unpack_from("!I", self._buffer, 5)
        if code == _OK:
            _check_length(b"R", length, 8, 8)
            return self._hold(length, _read_ok, out, events)
        if code != _SASL:
            events.append(AuthenticationRequested(code))
            self._to_pass = length + 1
            return True
        _check_length(b"R", length, 9, _MAX_SASL)
        if len(self._buffer) <= length:
            return False
        before = _read_mechanisms(self._buffer[9 : length + 1])
        after = self._rewrite(before)
        if not after:
            raise _only_channel_binding(before)
        if after == before:
            self._move(length + 1, out)
        else:
            out += frame(b"R", struct.pack("!I", _SASL) + b"".join(name + b"\0" for name in after) + b"\0")
            del self._buffer[: length + 1]
        events.append(MechanismsOffered(_texts(before), _texts(after)))
        return True

    def _hold(self, length: int, reader: _Reader, out: bytearray, events: list[LoginEvent]) -> bool:
        if len(self._buffer) <= length:
            return False
        event = reader(bytes(self._buffer[5 : length + 1]))
        self._move(length + 1, out)
        if isinstance(event, LoginFinished):
            self._finish(event, events)
        else:
            events.append(event)
        return True

    def _finish(self, event: LoginFinished, events: list[LoginEvent]) -> None:
        self.finished = True
        events.append(event)

    def _move(self, count: int, out: bytearray) -> int:
        moved = self._buffer[:count]
        out += moved
        del self._buffer[:count]
        return len(moved)


_Reader: TypeAlias = Callable[[bytes], LoginEvent]


def _read_header(buffer: bytearray) -> tuple[bytes, int]:
    """The type and length of the message at the front, if Postgres can have sent such a message in a login."""
    kind = bytes(buffer[:1])
    (length,) = struct.unpack_from("!I", buffer, 1)
    least, most = _LENGTHS.get(kind, (1, 0))
    if not least <= length <= most and (stranger := recognised(bytes(buffer[:LONGEST_GREETING]))):
        raise _rubbish(f"the server does not speak the Postgres protocol: it is {stranger}")
    if kind not in _LENGTHS:
        raise _rubbish(f"the server sent {message_text(kind)}, which has no place in a login")
    _check_length(kind, length, least, most)
    return kind, length


def _check_length(kind: bytes, length: int, least: int, most: int) -> None:
    if not least <= length <= most:
        raise _rubbish(f"the server sent {message_text(kind)} with an impossible length of {length} bytes")


def _read_ok(body: bytes) -> AuthenticationAccepted:
    return AuthenticationAccepted()


def _read_key(body: bytes) -> BackendKeyReceived:
    return BackendKeyReceived(struct.unpack_from("!I", body)[0], body[4:])


def _read_version(body: bytes) -> VersionNegotiated:
    """The version is documented as a minor one; servers send the whole of it (3.0 is 196608). The low half is right
    either way."""
    version, count = struct.unpack_from("!II", body)
    names = body[8:].split(b"\0")  # one more than there are NULs, and the last one empty
    if names.pop() or len(names) != count:
        raise _rubbish("the server sent a damaged NegotiateProtocolVersion")
    return VersionNegotiated(version & 0xFFFF, _texts(names))


def _read_ready(body: bytes) -> LoginFinished:
    return LoginFinished(ready=True, error=None)


def _read_error(body: bytes) -> LoginFinished:
    return LoginFinished(ready=False, error=parse_error_fields(body))


_READERS: Final[dict[bytes, _Reader]] = {
    b"K": _read_key,
    b"v": _read_version,
    b"Z": _read_ready,
    b"E": _read_error,
}
"""The held messages but the authentication requests; what is not here is passed."""


_PRINTABLE: Final = re.compile(rb"[!-~]+")


def _read_mechanisms(body: bytearray) -> list[bytes]:
    """Read the names of AuthenticationSASL: each ends with a NUL, and a lone NUL ends the list and the message.

    They must be printable ASCII, wider than RFC 4422, section 3.1, because they are shown to people.
    """
    names = bytes(body).split(b"\0")
    if len(names) < 3 or names[-2:] != [b"", b""] or not all(map(_PRINTABLE.fullmatch, names[:-2])):
        raise _rubbish("the server sent a damaged AuthenticationSASL: its mechanisms are no list that ends with a NUL")
    return names[:-2]


def _strip(mechanisms: list[bytes]) -> list[bytes]:
    """Leave out every mechanism with channel binding; RFC 5802, section 6, gives them all names in -PLUS."""
    return [name for name in mechanisms if not name.endswith(b"-PLUS")]


def _add(mechanisms: list[bytes]) -> list[bytes]:
    if b"SCRAM-SHA-256" not in mechanisms or b"SCRAM-SHA-256-PLUS" in mechanisms:
        return mechanisms
    at = mechanisms.index(b"SCRAM-SHA-256")
    return [*mechanisms[:at], b"SCRAM-SHA-256-PLUS", *mechanisms[at:]]


def _keep(mechanisms: list[bytes]) -> list[bytes]:
    return mechanisms


_REWRITES: Final[dict[ChannelBinding, Callable[[list[bytes]], list[bytes]]]] = {
    ChannelBinding.STRIP: _strip,
    ChannelBinding.ADD: _add,
    ChannelBinding.KEEP: _keep,
}


def _texts(names: list[bytes]) -> tuple[str, ...]:
    return tuple(name.decode("utf-8", "backslashreplace") for name in names)


def _only_channel_binding(before: list[bytes]) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        Code.PG_ONLY_CHANNEL_BINDING,
        f"the server offers only {', '.join(_texts(before))}, which binds the password exchange to a TLS connection"
        " that ends at this tunnel",
        "let the server offer SCRAM-SHA-256 as well, or connect to it directly with sslcert, sslkey and sslrootcert",
    )


def _rubbish(sentence: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        Code.PG_SERVER_RUBBISH, sentence, "check that the upstream's host and port are those of a PostgreSQL server"
    )
