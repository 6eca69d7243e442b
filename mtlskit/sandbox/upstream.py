"""The way from the gateway to the server behind it, in plain, and what is said when there is none."""

from __future__ import annotations

import errno
import socket
from typing import Final, TypeAlias

import trio

from mtlskit.config.values import Endpoint, UnixAddress
from mtlskit.errors import Code, SandboxError, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from mtlskit.sandbox.tls import READ_SIZE
from mtlskit.wire.postgres.login import (
    AuthenticationRequested,
    ChannelBinding,
    LoginFinished,
    MechanismsOffered,
    ServerLogin,
)
from mtlskit.wire.postgres.messages import ErrorFields, startup_message

__all__ = ["Upstream", "check_server", "open_upstream"]

Upstream: TypeAlias = Endpoint | UnixAddress

_REFUSED: Final = (Code.TCP_REFUSED, "it refused the connection", "nothing listens there: is the server running?")
_MISSING: Final = (
    Code.TCP_UNREACHABLE,
    "there is no such socket",
    "check the folder, and whether the server is running",
)
_NO_ROUTE: Final = "check the address, and the route and the firewall of this host"
_REASONS: Final = {
    errno.ECONNREFUSED: _REFUSED,
    errno.ENOENT: _MISSING,
    errno.EACCES: (Code.TCP_UNREACHABLE, "permission denied", "the socket and its folder must let this user in"),
    errno.ECONNRESET: (Code.TCP_RESET, "it reset the connection", "look at the server's log"),
}
_LOG_HINT: Final = "look at the server's log"
_TIMEOUT_HINT: Final = "the server or a firewall before it drops what we send: check the address, and that it is up"


async def open_upstream(upstream: Upstream, *, within: float) -> trio.SocketStream:
    """Connects, in plain. `within` is in seconds. Raises UpstreamUnreachable, UpstreamTimeout; both say why."""
    try:
        with trio.fail_after(within):
            if isinstance(upstream, UnixAddress):
                return await trio.open_unix_socket(str(upstream.path))
            return await trio.open_tcp_stream(upstream.host, upstream.port)
    except trio.TooSlowError as exc:
        raise UpstreamTimeout(
            Code.TCP_TIMEOUT, _unreachable(upstream, f"no answer within {within:.3g} s"), _TIMEOUT_HINT
        ) from exc
    except OSError as exc:
        raise _fault(upstream, _first_cause(exc)) from exc


async def check_server(upstream: Upstream, *, user: str, database: str, source: str, within: float = 10.0) -> None:
    """Asks once whether a PostgreSQL is there that lets this user begin a login.

    It sends a StartupMessage and looks at the answer; no password is sent, so a wrong one is not found here. `within`
    is in seconds, and `source` says where the server was named. Raises SandboxError.
    """
    where = f"{source}: {upstream}"
    try:
        server = await open_upstream(upstream, within=within)
    except UpstreamError as exc:
        raise _not_usable(f"{source}: {exc.sentence}", exc.hint) from exc
    async with server:
        try:
            with trio.fail_after(within):
                await server.send_all(startup_message({"user": user, "database": database}))
                await _begin_login(server, where)
        except trio.TooSlowError as exc:
            sentence = f"{where} takes connections and did not answer within {within:.3g} s"
            raise _not_usable(sentence, "is it a PostgreSQL? look at its log") from exc
        except trio.BrokenResourceError as exc:
            raise _not_usable(f"{where} broke the connection off", _LOG_HINT) from exc


async def _begin_login(server: trio.SocketStream, where: str) -> None:
    login = ServerLogin(ChannelBinding.KEEP)
    while data := await server.receive_some(READ_SIZE):
        try:
            _, events = login.receive(bytes(data))
        except UpstreamError as exc:
            raise _not_usable(f"{where} does not speak the Postgres protocol", "check the host and the port") from exc
        for event in events:
            match event:
                case LoginFinished(error=ErrorFields() as told):
                    sentence = f"{where} refuses the login: {told.message} ({told.sqlstate})"
                    raise _not_usable(sentence, "check the user and the database of the URL")
                case AuthenticationRequested() | MechanismsOffered() | LoginFinished():
                    return
    raise _not_usable(f"{where} closed the connection without a word", _LOG_HINT)


def _not_usable(sentence: str, hint: str) -> SandboxError:
    return SandboxError(Code.SANDBOX_GATEWAY, sentence, hint)


def _fault(upstream: Upstream, exc: OSError) -> UpstreamUnreachable:
    if isinstance(exc, socket.gaierror):
        hint = "check the spelling and the resolver"
        return UpstreamUnreachable(Code.DNS_FAILED, _unreachable(upstream, exc.strerror or str(exc)), hint)
    unknown = (Code.TCP_UNREACHABLE, exc.strerror or str(exc), _NO_ROUTE)
    code, reason, hint = _REASONS.get(exc.errno or 0, unknown)
    return UpstreamUnreachable(code, _unreachable(upstream, reason), hint)


def _unreachable(upstream: Upstream, reason: str) -> str:
    return f"the server behind the gateway, {upstream}, cannot be reached: {reason}"


def _first_cause(exc: OSError) -> OSError:
    """trio gathers what happened at the addresses of a name in a group, under an error without a number."""
    cause = exc.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else exc
