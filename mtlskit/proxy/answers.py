"""What a client is told, in its own protocol, when it gets no session: SQLSTATE, sentence and hint.

SQLSTATEs are those of PostgreSQL's appendix A, chosen so that drivers and pools react as they would to the server's
own refusal: class 08 is worth a retry, class 28 and 0A are not, 53300 and 57P01 are worth one later.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from mtlskit.errors import (
    ClientLimitReached,
    ClientNotAllowed,
    ClientProtocolError,
    ClientTooSlow,
    Code,
    IdentityError,
    MtlskitError,
    UpstreamLost,
    UpstreamProtocolError,
    UpstreamRefusedUs,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUntrusted,
)
from mtlskit.wire.postgres.messages import error_response

__all__ = ["as_error_response", "part_with", "sqlstate_of"]

_BY_CODE: dict[Code, str] = {
    Code.DOOR_DRAINING: "57P01",  # admin_shutdown
    Code.DOOR_CERTIFICATE_ENDS: "57P01",
    Code.PG_CLIENT_VERSION: "0A000",  # feature_not_supported, as PostgreSQL itself says
    Code.PG_LOGIN_TIMEOUT: "08006",  # connection_failure
    Code.TCP_RESET: "08006",
}

_BY_CLASS: tuple[tuple[type[MtlskitError], str], ...] = (
    (UpstreamUnreachable, "08001"),  # sqlclient_unable_to_establish_sqlconnection
    (UpstreamTimeout, "08001"),
    (UpstreamUntrusted, "08001"),
    (IdentityError, "08001"),
    (UpstreamRefusedUs, "08004"),  # sqlserver_rejected_establishment_of_sqlconnection
    (UpstreamLost, "08006"),
    (UpstreamProtocolError, "08P01"),  # protocol_violation
    (ClientProtocolError, "08P01"),
    (ClientTooSlow, "08006"),
    (ClientNotAllowed, "28000"),  # invalid_authorization_specification, as for a pg_hba.conf refusal
    (ClientLimitReached, "53300"),  # too_many_connections
)

_WITHOUT_ANSWER = frozenset({Code.PG_CLIENT_SPEAKS_TLS, Code.PG_CLIENT_SPEAKS_HTTP})
"""These clients do not read Postgres messages; the log tells the operator."""

_PATIENCE = 2.0
"""Seconds to bring the answer to the client and to see it close."""


def sqlstate_of(error: MtlskitError) -> str:
    """The SQLSTATE that fits. `XX000` (internal_error) where nothing else does."""
    by_code = _BY_CODE.get(error.code)
    if by_code is not None:
        return by_code
    return next((state for kind, state in _BY_CLASS if isinstance(error, kind)), "XX000")


def as_error_response(error: MtlskitError) -> bytes:
    """A FATAL ErrorResponse; empty where the client would not understand one."""
    if error.code in _WITHOUT_ANSWER:
        return b""
    return error_response(
        sqlstate=sqlstate_of(error), message=f"mtlskit: {error.sentence} [{error.code}]", hint=error.hint
    )


async def part_with(client: trio.socket.SocketType, answer: bytes) -> None:
    """Send a last answer and end the connection so that it arrives.

    Closing a socket that holds unread bytes resets the connection, and a reset can destroy the answer before it was
    read. So: answer, FIN, read and drop until the client closes, within two seconds.
    """
    with trio.move_on_after(_PATIENCE), suppress(OSError):
        while answer:
            answer = answer[await client.send(answer) :]
        client.shutdown(trio.socket.SHUT_WR)
        while await client.recv(4096):
            pass
