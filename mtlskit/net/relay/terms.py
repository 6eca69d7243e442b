"""What a task agrees on with the relay: what it hands over, by which rules, and what it hears at the end."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mtlskit.net.tls import TlsEngine

__all__ = ["Codec", "Ending", "HandOver", "Moved", "Observer", "Outcome", "RelayPolicy"]


class Ending(StrEnum):
    """Why a session ended. The first reason stands, but an alert is better than any that came before it."""

    CLIENT_CLOSED = "client_closed"
    UPSTREAM_CLOSED = "upstream_closed"
    CLIENT_LOST = "client_lost"
    UPSTREAM_LOST = "upstream_lost"
    UPSTREAM_ALERT = "upstream_alert"
    """The upstream's TLS alert, or a record that did not decrypt: `Outcome.error` says which."""
    SILENT = "silent"
    """One side had closed, and the other said nothing, or took nothing, for the linger time."""
    EXPIRED = "expired"
    """We ended it at a quiet point, as we were told: see `Relay.end_quietly`."""
    REFUSED = "refused"
    """What a peer sent may not pass, or cannot be read: `Outcome.error` is the codec's MtlskitError."""
    ABORTED = "aborted"
    """We ended it: a drain ran out, or the proxy stopped."""
    INTERNAL = "internal"
    """A fault of ours."""


@dataclass(frozen=True)
class Outcome:
    """How a session ended, and how many plain bytes the relay took to be forwarded, each way."""

    ending: Ending
    bytes_up: int
    bytes_down: int
    error: Exception | None = None
    clean: bool = True
    """False where the upstream ended without a close_notify."""


@dataclass(frozen=True)
class RelayPolicy:
    """The rules of the protocol above about ends. `linger` in seconds."""

    linger: float = 300.0
    upstream_end_is_final: bool = False
    ragged_end_resets: bool = False


class Observer(Protocol):
    """Looks into one session. Called by the relay's thread, which owns it from the hand-over on; must not block.

    An exception is a fault of ours, and ends the session.
    """

    @property
    def quiet(self) -> bool:
        """Whether the session may be ended here without anybody losing what is in flight."""

    def from_client(self, data: memoryview) -> None:
        """Plain bytes that were read from the client and will now be forwarded. The memory is lent."""

    def from_upstream(self, data: memoryview) -> None:
        """The same in the other direction."""


class Moved(Protocol):
    """What a codec wants to have sent now, in this order, behind all that it wanted before.

    A piece may be a range of the memory that was lent to the codec, and is not kept beyond the turn.
    """

    @property
    def to_server(self) -> Sequence[bytes | bytearray | memoryview]:
        """Plain bytes for the upstream."""

    @property
    def to_client(self) -> Sequence[bytes | bytearray | memoryview]:
        """Plain bytes for the client."""


class Codec(Protocol):
    """Decides what passes in one session. Called by the relay's thread, which owns it from the hand-over on; it must
    not block for longer than it takes to open a listener.

    An MtlskitError that it raises ends the session (`Ending.REFUSED`). Any other exception is a fault of ours.
    """

    @property
    def client_may_send(self) -> bool:
        """False: the client is not to be read for now. Becomes true only by what the upstream sends."""

    def receive_from_client(self, data: memoryview) -> Moved:
        """Plain bytes that were read from the client. The memory is lent."""

    def receive_from_server(self, data: memoryview) -> Moved:
        """The same in the other direction."""


@dataclass(frozen=True)
class HandOver:
    """What a task gives to the relay. It is a move: nobody else touches the sockets from now on.

    Both sockets are non-blocking. `to_client` are bytes read from the upstream and not yet forwarded; the engine's
    `unsent` is its counterpart in the other direction. An `observer` has seen both, and what went before them.
    A session has an observer or a `codec`, or neither; a codec has seen nothing yet.
    """

    client: socket.socket
    upstream: socket.socket
    engine: TlsEngine | None = None
    to_client: bytes = b""
    policy: RelayPolicy = RelayPolicy()
    observer: Observer | None = None
    codec: Codec | None = None
