"""What a task agrees on with the relay: what it hands over, by which rules, and what it hears at the end."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum

from mtlskit.net.tls import TlsEngine

__all__ = ["Ending", "HandOver", "Outcome", "RelayPolicy"]


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


@dataclass(frozen=True)
class HandOver:
    """What a task gives to the relay. It is a move: nobody else touches the sockets from now on.

    Both sockets are non-blocking. `to_client` are bytes read from the upstream and not yet forwarded; the engine's
    `unsent` is its counterpart in the other direction.
    """

    client: socket.socket
    upstream: socket.socket
    engine: TlsEngine | None = None
    to_client: bytes = b""
    policy: RelayPolicy = RelayPolicy()
