"""Asking running proxies: the client's side of the control socket, for the commands and for rotations.

Every question has a deadline. A socket whose proxy has died is nobody: `running` leaves it out, and asking it raises.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from mtlskit.control.places import NOT_SUPPORTED, pid_of, supported
from mtlskit.control.protocol import MAX_ANSWER, LineReader, Request, decode_answer, encode_request
from mtlskit.errors import Code, ControlError

__all__ = [
    "PROMPTLY",
    "RELOAD",
    "Asked",
    "Running",
    "ask",
    "ask_each",
    "reload_all",
    "reload_of",
    "running",
    "status_of",
    "stop",
]

PROMPTLY: Final = 10.0
"""Seconds for what a proxy answers from memory."""

RELOAD: Final = 75.0
"""Seconds for a reload, which reads files: a little longer than the proxy itself waits, so that its reason arrives."""

_READ: Final = 65536

_LAST_STEPS: Final = 5.0
_STEP: Final = 0.02
"""Seconds: how long a process takes, at most, between its last word and its end, and how often to look."""

_DEAD: Final = frozenset({errno.ECONNREFUSED, errno.ENOENT, errno.ENOTSOCK, errno.ENOTDIR, errno.ELOOP})


@dataclass(frozen=True)
class Running:
    """A proxy that listens on a control socket. `pid` is its process id as it saw itself."""

    pid: int
    path: Path


@dataclass(frozen=True)
class Asked:
    """How one of several proxies answered: `answer`, or the `error` that kept it from answering."""

    proxy: Running
    answer: dict[str, Any] | None
    error: ControlError | None


async def running(folder: Path) -> list[Running]:
    """The proxies of a folder, by process id. Dead sockets are left out; a folder that is not there holds none.

    A proxy of another user, who does not let us ask, is in the list. Raises ControlError (CTL_FOLDER) for a folder
    that cannot be read.
    """
    return [proxy for proxy in _named(folder) if await _listens(proxy.path)]


def _named(folder: Path) -> list[Running]:
    """Those whose sockets have their name in the folder, dead or alive."""
    try:
        found = [Running(pid, path) for path in folder.iterdir() if (pid := pid_of(path)) is not None]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise ControlError(
            Code.CTL_FOLDER,
            f"{folder}: the folder of control sockets cannot be read: {exc.strerror or exc}",
            "ask as the user who runs the proxy, or as root",
        ) from exc
    return sorted(found, key=lambda proxy: proxy.pid)


async def ask(path: Path, request: Mapping[str, Any], *, deadline: float = PROMPTLY) -> dict[str, Any]:
    """Send `request` (`{"do": "status"}`) to the proxy at the socket `path`; the facts of its answer.

    Raises ControlError: CTL_NO_PROXY (nobody listens there), CTL_NOT_ALLOWED, CTL_NO_ANSWER (also after `deadline`
    seconds), or the proxy's own error.
    """
    async with _answered(path, request, deadline) as (answer, _stream):
        return answer


async def status_of(proxy: Running, *, deadline: float = PROMPTLY) -> dict[str, Any]:
    """What the proxy is doing: docs/reference/control.md has the keys. Raises as `ask`."""
    return await ask(proxy.path, {"do": "status"}, deadline=deadline)


async def reload_of(proxy: Running, *, deadline: float = RELOAD) -> dict[str, Any]:
    """Have the proxy read its identities again, in a read that begins after this request; what each tunnel serves now.

    `tunnels` is a list of `{"name", "ok", "serial", "not_after", "error"}`. Raises as `ask`.
    """
    return await ask(proxy.path, {"do": "reload"}, deadline=deadline)


async def ask_each(proxies: Sequence[Running], question: Callable[[Running], Awaitable[dict[str, Any]]]) -> list[Asked]:
    """Ask these at once (`status_of`, `reload_of`). Those that have gone meanwhile are left out."""
    answers: dict[Running, Asked] = {}

    async def one(proxy: Running) -> None:
        try:
            answers[proxy] = Asked(proxy, await question(proxy), None)
        except ControlError as exc:
            answers[proxy] = Asked(proxy, None, exc)

    async with trio.open_nursery() as nursery:
        for proxy in proxies:
            nursery.start_soon(one, proxy)
    asked = [answers[proxy] for proxy in proxies]
    return [each for each in asked if each.error is None or each.error.code is not Code.CTL_NO_PROXY]


async def reload_all(folder: Path, *, deadline: float = RELOAD) -> list[Asked]:
    """`reload_of` for every proxy of the folder. Raises ControlError for the folder only."""
    return await ask_each(await running(folder), partial(reload_of, deadline=deadline))


async def stop(
    proxy: Running,
    *,
    wait: bool = True,
    heard: Callable[[dict[str, Any]], None] = lambda answer: None,
    deadline: float = PROMPTLY,
    margin: float = 15.0,
) -> dict[str, Any]:
    """Have the proxy close its doors and let its sessions finish, and wait until its process has ended.

    `heard` is called with its answer (`sessions`, `seconds`) before the wait; returned is that with `ended`, which is
    false where it was not waited for. Raises as `ask`, and CTL_NO_ANSWER when it has not ended `margin` seconds after
    the time that its sessions have.
    """
    async with _answered(proxy.path, {"do": "stop"}, deadline) as (answer, stream):
        heard(answer)
        if not wait:
            return answer | {"ended": False}
        with trio.move_on_after(float(answer.get("seconds", 0)) + margin):
            # The proxy holds the connection until it has done its work.
            await _read_to_end(stream)
            await _process_ended(proxy.pid)
            return answer | {"ended": True}
    raise ControlError(
        Code.CTL_NO_ANSWER,
        f"the proxy {proxy.pid} is still there after the time that its sessions had",
        f"end it with `kill -9 {proxy.pid}`",
    )


async def _process_ended(pid: int) -> None:
    """Wait for the end of a process that is about to end. Not for ever: its parent may not have been told yet."""
    with trio.move_on_after(_LAST_STEPS):
        while _exists(pid):  # noqa: ASYNC110 - another process announces nothing
            await trio.sleep(_STEP)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except OSError:
        return False
    return True


async def _listens(path: Path) -> bool:
    if not supported():
        return False
    try:
        stream = await trio.open_unix_socket(str(path))
    except OSError as exc:
        return exc.errno not in _DEAD
    except ValueError:  # a path that no socket can have
        return False
    await stream.aclose()
    return True


@asynccontextmanager
async def _answered(
    path: Path, request: Mapping[str, Any], deadline: float
) -> AsyncIterator[tuple[dict[str, Any], trio.SocketStream]]:
    """The answer, and the connection that it came on, open for as long as the block."""
    with trio.move_on_after(deadline) as scope:
        stream = await _connect(path)
    if scope.cancelled_caught:
        raise _silent(path, deadline)
    async with stream:
        with trio.move_on_at(scope.deadline) as scope:
            answer = await _exchange(stream, path, request)
        if scope.cancelled_caught:
            raise _silent(path, deadline)
        yield answer, stream


async def _connect(path: Path) -> trio.SocketStream:
    if not supported():
        raise ControlError(Code.CONFIG_NOT_SUPPORTED, NOT_SUPPORTED, "stop it and start it again")
    try:
        return await trio.open_unix_socket(str(path))
    except (OSError, ValueError) as exc:
        number = getattr(exc, "errno", None)
        reason = getattr(exc, "strerror", None) or str(exc)
        if number in (errno.EACCES, errno.EPERM):
            raise ControlError(
                Code.CTL_NOT_ALLOWED,
                f"{path}: this user may not ask the proxy: {reason}",
                "ask as the user who runs the proxy, or as root",
            ) from exc
        if number in _DEAD:
            raise ControlError(
                Code.CTL_NO_PROXY, f"{path}: no proxy listens there", "see which are running with `mtlskit status`"
            ) from exc
        raise ControlError(Code.CTL_NO_ANSWER, f"{path}: the proxy cannot be reached: {reason}") from exc


async def _exchange(stream: trio.SocketStream, path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dict(request)
    reader = LineReader(MAX_ANSWER)
    line: bytes | None = None
    try:
        with suppress(trio.BrokenResourceError):  # refused before it has read us: the reason may be there to be read
            await stream.send_all(encode_request(Request(str(arguments.pop("do")), arguments)))
        while line is None:
            if not (data := await stream.receive_some(_READ)):
                raise _gone(path)
            line = reader.receive(data)
    except trio.BrokenResourceError as exc:
        raise _gone(path) from exc
    except ControlError as exc:
        raise ControlError(Code.CTL_NO_ANSWER, f"{path}: the proxy's answer cannot be read: {exc.sentence}") from exc
    return decode_answer(line)


async def _read_to_end(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some(_READ):
            pass
    except trio.BrokenResourceError:
        return


def _gone(path: Path) -> ControlError:
    return ControlError(
        Code.CTL_NO_ANSWER,
        f"{path}: the proxy ended the connection without an answer",
        "its log says why; see whether it still runs with `mtlskit status`",
    )


def _silent(path: Path, deadline: float) -> ControlError:
    return ControlError(
        Code.CTL_NO_ANSWER,
        f"{path}: the proxy has not answered within {deadline:g} s",
        "it may be stopped (SIGSTOP), or wait for a disk that does not answer; see its log",
    )
