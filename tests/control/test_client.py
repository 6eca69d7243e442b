"""Asking proxies that answer, that are gone, and that do neither."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import pytest
import trio

from mtlskit.control import client as client_module
from mtlskit.control.client import Asked, Running, ask, ask_each, reload_all, running, status_of, stop
from mtlskit.errors import Code, ControlError
from tests.support.fake_upstream import PATIENCE

Script = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def fake_proxy(folder: Path, pid: int, script: Script) -> AsyncIterator[Running]:
    """Something that listens where a proxy would, and does what the script says."""
    path = folder / f"{pid}.sock"
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, script, [trio.SocketListener(sock)])
        yield Running(pid, path)
        nursery.cancel_scope.cancel()


def saying(text: bytes) -> Script:
    async def script(stream: trio.SocketStream) -> None:
        async with stream:
            if await stream.receive_some():  # and not somebody who looks whether we are here
                with suppress(trio.BrokenResourceError):  # who has heard enough
                    await stream.send_all(text)

    return script


async def silent(stream: trio.SocketStream) -> None:
    async with stream:
        await trio.sleep_forever()


@contextmanager
def dead(folder: Path, pid: int) -> Iterator[Running]:
    path = folder / f"{pid}.sock"
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(path))
    yield Running(pid, path)


async def test_the_living_are_listed_by_their_process_ids(folder: Path) -> None:
    assert await running(folder / "absent") == []
    (folder / "notes.txt").write_text("")
    async with fake_proxy(folder, 20, silent) as second, fake_proxy(folder, 3, silent) as first:
        with dead(folder, 4):
            assert await running(folder) == [first, second]


async def test_a_folder_that_cannot_be_read_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ControlError, match="Permission denied") as caught:
        await running(folder)
    assert caught.value.code is Code.CTL_FOLDER


async def test_nobody_there(folder: Path) -> None:
    with dead(folder, 4) as proxy:
        for path in (proxy.path, folder / "5.sock", folder / "5.sock" / "6.sock"):
            with pytest.raises(ControlError, match="no proxy listens there") as caught:
                await ask(path, {"do": "status"})
            assert caught.value.code is Code.CTL_NO_PROXY
        assert await ask_each([proxy], status_of) == []


async def test_a_path_that_no_socket_can_have(folder: Path) -> None:
    with pytest.raises(ControlError, match="cannot be reached") as caught:
        await ask(folder / ("x" * 200), {"do": "status"})
    assert caught.value.code is Code.CTL_NO_ANSWER


async def test_a_proxy_of_somebody_else_is_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    async with fake_proxy(folder, 3, silent) as proxy:
        monkeypatch.setattr(trio, "open_unix_socket", refuse)
        assert await running(folder) == [proxy]
        with pytest.raises(ControlError, match="may not ask") as caught:
            await status_of(proxy)
        assert caught.value.code is Code.CTL_NOT_ALLOWED


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "without an answer"),
        (b'{"ok": true', "without an answer"),
        (b"hello\n", "not a proxy of mtlskit"),
        (b"x" * 5_000_000, "cannot be read: a line is longer"),
    ],
    ids=["nothing", "half", "rubbish", "endless"],
)
async def test_no_proper_answer(folder: Path, text: bytes, complaint: str) -> None:
    async with fake_proxy(folder, 3, saying(text)) as proxy:
        with pytest.raises(ControlError, match=complaint) as caught:
            await status_of(proxy)
        assert caught.value.code is Code.CTL_NO_ANSWER


async def test_a_proxy_that_hangs_is_given_up(folder: Path) -> None:
    async with fake_proxy(folder, 3, silent) as proxy:
        with pytest.raises(ControlError, match="has not answered within") as caught:
            await status_of(proxy, deadline=0.05)
        assert caught.value.code is Code.CTL_NO_ANSWER


async def test_all_are_asked_at_once_and_each_may_fail(folder: Path) -> None:
    fine = saying(b'{"ok": true, "tunnels": []}\n')
    async with fake_proxy(folder, 3, fine) as good, fake_proxy(folder, 4, saying(b"no\n")) as bad:
        answers = await reload_all(folder)
    assert answers[0] == Asked(good, {"tunnels": []}, None)
    assert (answers[1].proxy, answers[1].answer) == (bad, None)
    assert answers[1].error is not None


async def test_a_stop_that_does_not_come_to_an_end_is_told(folder: Path) -> None:
    async def hold(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b'{"ok": true, "seconds": 0, "sessions": 2}\n')
            await trio.sleep_forever()

    async with fake_proxy(folder, 2**22 + 1, hold) as proxy:
        with pytest.raises(ControlError, match="is still there"):
            await stop(proxy, margin=0.05)
        assert await stop(proxy, wait=False) == {"seconds": 0, "sessions": 2, "ended": False}


async def test_the_end_of_a_process_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection ends a moment before the process does."""
    looks = iter([None, PermissionError(1, "not ours"), ProcessLookupError(3, "gone")])

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (3, 0)
        if error := next(looks):
            raise error

    monkeypatch.setattr(os, "kill", kill)
    async with fake_proxy(folder, 3, saying(b'{"ok": true, "seconds": 0}\n')) as proxy:
        with trio.fail_after(PATIENCE):
            assert await stop(proxy) == {"seconds": 0, "ended": True}
    assert next(looks, "none left") == "none left"


async def test_a_platform_without_unix_sockets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "supported", lambda: False)
    (folder / "3.sock").write_text("")
    assert await running(folder) == []
    with pytest.raises(ControlError, match="no unix sockets"):
        await ask(folder / "3.sock", {"do": "status"})
