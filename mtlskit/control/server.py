"""The proxy's side of the control socket.

Who may ask: the proxy's own user and root. The socket's mode and its folder say so first, and where the kernel tells
who has connected (Linux), it is asked as well. A client is never trusted beyond that: its request is bounded in bytes
and in seconds, few are served at once, and whatever goes wrong ends one connection.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import trio

from mtlskit.config.values import UnixAddress
from mtlskit.control.events import ControlCrashed, ControlOpened, ControlRefused, ControlUnavailable
from mtlskit.control.places import NOT_SUPPORTED, Place, pid_of, prepare_folder, supported
from mtlskit.control.protocol import (
    MAX_REQUEST,
    LineReader,
    Request,
    decode_request,
    encode_answer,
    encode_error,
    error_facts,
)
from mtlskit.errors import Code, ConfigError, ControlError, ListenError, MtlskitError
from mtlskit.net.listen import Listener, open_listeners
from mtlskit.net.peer import local_user, users_can_be_known
from mtlskit.net.unix_file import remove_dead
from mtlskit.telemetry import Emit, silent

__all__ = ["Answer", "ControlServer", "Deadlines", "Handler", "opened_control"]

MOST_CLIENTS: Final = 8
"""At once. Questions take milliseconds, and only a reload or a stop is waited for."""

_READ: Final = 4096


@dataclass(frozen=True)
class Answer:
    """What a request has led to: `facts` for the client, then `then` is called, whether or not they arrived.

    With `hold` the connection stays open until the client leaves or the proxy ends, which is how a client learns of it.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    then: Callable[[], None] = lambda: None
    hold: bool = False


Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True)
class Deadlines:
    """Seconds for a client to send its request, for the proxy to do it, and for the answer to be taken."""

    request: float = 10.0
    work: float = 60.0
    answer: float = 10.0


class ControlServer:
    """Answers requests with the handler of their name."""

    def __init__(
        self, listener: Listener, handlers: Mapping[str, Handler], emit: Emit, deadlines: Deadlines = Deadlines()
    ) -> None:
        self._listener = listener
        self._handlers = handlers
        self._emit = emit
        self._deadlines = deadlines
        self._clients = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. A socket that breaks is told, and the proxy runs on without."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                await self._listener.serve(self._serve, nursery=nursery, emit=self._emit)
        except* ListenError as group:
            for exc in group.exceptions:
                if isinstance(exc, ListenError):
                    self._emit(ControlUnavailable(**error_facts(exc)))

    async def _serve(self, sock: trio.socket.SocketType) -> None:
        self._clients += 1
        try:
            async with trio.SocketStream(sock) as stream:
                await self._converse(stream)
        except trio.BrokenResourceError:
            pass  # the client has gone
        finally:
            self._clients -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        try:
            self._admit(stream.socket)
            request = await self._request(stream)
            if request is None:
                return  # somebody who wanted to know whether we are here
            answer = await self._done(request)
            if answer is None:
                return
        except MtlskitError as exc:
            await self._send(stream, encode_error(exc))
            return
        try:
            await self._send(stream, encode_answer(answer.facts))
        finally:
            answer.then()
        if answer.hold:
            await stream.receive_some(1)

    def _admit(self, sock: trio.socket.SocketType) -> None:
        if users_can_be_known():
            user = local_user(sock)
            if user is None or user not in (os.geteuid(), 0):
                client = "a user who cannot be named" if user is None else f"user id {user}"
                self._emit(ControlRefused(client=client))
                raise ControlError(
                    Code.CTL_NOT_ALLOWED,
                    f"the proxy answers its own user and root, and you are {client}",
                    f"ask as the user with the id {os.geteuid()}",
                )
        if self._clients > MOST_CLIENTS:
            raise ControlError(
                Code.CTL_BUSY, f"{MOST_CLIENTS} clients are being answered already", "try again in a moment"
            )

    async def _request(self, stream: trio.SocketStream) -> Request | None:
        """The client's request; None if it left without one. Raises ControlError."""
        reader = LineReader(MAX_REQUEST)
        with trio.move_on_after(self._deadlines.request):
            while data := await stream.receive_some(_READ):
                if (line := reader.receive(data)) is not None:
                    return decode_request(line)
            if reader.empty:
                return None
            raise ControlError(Code.CTL_REQUEST, "the request has no end", "end it with a newline")
        raise ControlError(
            Code.CTL_REQUEST,
            f"the request was not complete within {self._deadlines.request:g} s",
            "send one JSON object, and a newline after it",
        )

    async def _done(self, request: Request) -> Answer | None:
        """Do it. None after a fault of ours. Raises MtlskitError."""
        handler = self._handlers.get(request.do)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            raise ControlError(
                Code.CTL_REQUEST,
                f"the proxy does not know the request {request.do!a}",
                f"it knows {known}; a newer mtlskit may know more than the proxy that is running",
            )
        try:
            with trio.move_on_after(self._deadlines.work):
                return await handler(request)
        except MtlskitError:
            raise
        except Exception:  # noqa: BLE001 - a fault of ours ends one request and is told; the sessions go on
            self._emit(ControlCrashed(do=request.do, traceback=traceback.format_exc()))
            return None
        raise ControlError(
            Code.CTL_NO_ANSWER,
            f"the request {request.do} was not done within {self._deadlines.work:g} s; it goes on",
            "a disk may not answer: see the log of the proxy, and `mtlskit status`",
        )

    async def _send(self, stream: trio.SocketStream, line: bytes) -> None:
        with trio.move_on_after(self._deadlines.answer):
            await stream.send_all(line)


@contextmanager
def opened_control(place: Place | None, *, emit: Emit = silent, pid: int | None = None) -> Iterator[Listener | None]:
    """Open the control socket of this process, and remove it at the end. None: there is none.

    A folder that was named must do: raises ConfigError (CTL_FOLDER, CTL_SOCKET, CONFIG_NOT_SUPPORTED). Where the
    default one will not, a warning says so. Sockets that dead proxies have left in the folder are removed.
    """
    if place is None:
        yield None
        return
    try:
        listener = _open(place, os.getpid() if pid is None else pid)
    except ConfigError as exc:
        if place.explicit:
            raise
        emit(ControlUnavailable(**error_facts(exc)))
        yield None
        return
    with listener:
        emit(ControlOpened(path=str(listener.addresses[0]).removeprefix("unix:")))
        yield listener


def _open(place: Place, pid: int) -> Listener:
    if not supported():
        raise ConfigError(Code.CONFIG_NOT_SUPPORTED, NOT_SUPPORTED, "leave --control out")
    prepare_folder(place)
    remove_dead(place.folder, lambda path: pid_of(path) is not None)
    try:
        return open_listeners(UnixAddress(place.socket_of(pid)))
    except ListenError as exc:
        raise ConfigError(
            Code.CTL_SOCKET,
            f"the control socket cannot be opened: {exc.sentence}",
            exc.hint or "name another folder with --control DIR",
        ) from exc
