"""The control socket serves its owner, and nothing that comes in through it disturbs the proxy."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.control import server as server_module
from mtlskit.control.client import Running, ask, running, stop
from mtlskit.control.events import ControlCrashed, ControlOpened, ControlRefused, ControlUnavailable
from mtlskit.control.places import Place
from mtlskit.control.protocol import MAX_REQUEST, Request
from mtlskit.control.server import MOST_CLIENTS, Answer, ControlServer, Deadlines, Handler, opened_control
from mtlskit.errors import Code, ConfigError, ControlError, IdentityError
from tests.support.fake_upstream import PATIENCE
from tests.support.local_users import available_uids, finish, running_as
from tests.support.tunnels import EventLog

STATUS = b'{"v": 1, "do": "status"}\n'


class Served:
    """A server, its events, and how often each of its handlers ran."""

    def __init__(self, place: Place) -> None:
        self.path = place.socket_of(os.getpid())
        self.events = EventLog()
        self.asked: list[Request] = []
        self.then = 0
        self.proceed = trio.Event()

    async def status(self, request: Request) -> Answer:
        self.asked.append(request)
        return Answer({"pid": 1})

    async def fail(self, request: Request) -> Answer:
        raise IdentityError(Code.KEY_MISMATCH, "no match", "look")

    async def crash(self, request: Request) -> Answer:
        return Answer({"x": 1 // 0})

    async def wait(self, request: Request) -> Answer:
        await self.proceed.wait()
        return Answer()

    async def stop(self, request: Request) -> Answer:
        def then() -> None:
            self.then += 1

        return Answer({"seconds": 0}, then=then, hold=True)

    async def say(self, data: bytes, *, end: bool = False) -> dict[str, Any]:
        """Send these bytes and read the answer, to the end of the connection."""
        with trio.fail_after(PATIENCE):
            async with await trio.open_unix_socket(str(self.path)) as stream:
                await stream.send_all(data)
                if end:
                    await stream.send_eof()
                return await read_answer(stream)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def open_to_all(path: Path, mode: int) -> None:
    path.chmod(mode)


async def read_answer(stream: trio.SocketStream) -> dict[str, Any]:
    """One line. What comes after it may be a reset: a client that is refused at once has not been read."""
    received = b""
    while not received.endswith(b"\n"):
        data = await stream.receive_some()
        assert data, f"the connection ended after {received!r}"
        received += data
    answer: dict[str, Any] = json.loads(received)
    return answer


@asynccontextmanager
async def serving(folder: Path, deadlines: Deadlines | None = None, **more: Handler) -> AsyncIterator[Served]:
    place = Place(folder)
    served = Served(place)
    names = ("status", "fail", "crash", "wait", "stop")
    handlers = {name: getattr(served, name) for name in names} | more
    with opened_control(place, emit=served.events) as listener:
        assert listener is not None
        async with trio.open_nursery() as nursery:
            await nursery.start(ControlServer(listener, handlers, served.events, deadlines or Deadlines()).run)
            yield served
            nursery.cancel_scope.cancel()


async def test_a_request_is_answered(folder: Path) -> None:
    async with serving(folder) as served:
        assert await ask(served.path, {"do": "status", "more": [1]}) == {"pid": 1}
        assert served.asked == [Request("status", {"more": [1]})]
        assert [proxy.path for proxy in await running(folder)] == [served.path]
        assert stat.S_IMODE(served.path.stat().st_mode) == 0o600
        assert served.events.of(ControlOpened)[0].path == str(served.path)
    assert names_in(folder) == set()


async def test_the_error_of_a_handler_is_the_answer(folder: Path) -> None:
    async with serving(folder) as served:
        with pytest.raises(ControlError, match="no match") as caught:
            await ask(served.path, {"do": "fail"})
        assert (caught.value.code, caught.value.hint) == (Code.KEY_MISMATCH, "look")


async def test_a_fault_of_ours_ends_one_request_and_is_told(folder: Path) -> None:
    async with serving(folder) as served:
        with pytest.raises(ControlError, match="without an answer"):
            await ask(served.path, {"do": "crash"})
        crashed = served.events.of(ControlCrashed)[0]
        assert (crashed.do, "ZeroDivisionError" in crashed.sentence()) == ("crash", True)
        assert await ask(served.path, {"do": "status"}) == {"pid": 1}


async def test_what_a_request_leads_to_comes_after_the_answer_and_a_held_connection_ends_with_us(folder: Path) -> None:
    heard: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        ended: list[dict[str, Any]] = []

        async def stop_it(proxy: Running) -> None:
            ended.append(await stop(proxy, heard=heard.append))

        async with serving(folder) as served:
            nobody = Running(2**22 + 1, served.path)  # no process has this id
            assert await stop(nobody, wait=False) == {"seconds": 0, "ended": False}
            nursery.start_soon(stop_it, nobody)
            with trio.fail_after(PATIENCE):
                while not heard:
                    await trio.testing.wait_all_tasks_blocked()
            assert (served.then, ended) == (2, [])
    assert ended == [{"seconds": 0, "ended": True}]


# Bad clients.


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a JSON object"),
        (b"\x16\x03\x01\x02\x00\x01\n", "not a JSON object"),
        (b'{"v": 1, "do": "launch"}\n', "does not know the request 'launch'"),
        (b'{"v": 1, "do": "\\u001b[2J"}\n', "does not know the request"),
        (b'{"v": 7, "do": "status"}\n', "version 1"),
        (b"x" * MAX_REQUEST, "longer than"),
    ],
    ids=["http", "tls", "unknown", "escape", "version", "endless"],
)
async def test_rubbish_is_answered_and_nothing_is_done(folder: Path, sent: bytes, reason: str) -> None:
    async with serving(folder) as served:
        answer = await served.say(sent)
        assert answer["ok"] is False
        assert answer["error"]["code"] == "MTLS-CTL-003"
        assert reason in answer["error"]["reason"]
        assert answer["error"]["reason"].isprintable()
        assert not served.asked
        assert await ask(served.path, {"do": "status"}) == {"pid": 1}


async def test_half_a_line_is_told_and_nothing_at_all_is_silence(folder: Path) -> None:
    async with serving(folder) as served:
        answer = await served.say(STATUS[:10], end=True)
        assert "no end" in answer["error"]["reason"]
        async with await trio.open_unix_socket(str(served.path)) as stream:
            await stream.send_eof()
            assert await stream.receive_some() == b""


async def test_a_slow_client_is_given_up(folder: Path) -> None:
    async with serving(folder, Deadlines(request=0.05)) as served:
        answer = await served.say(b'{"v": 1')
        assert "not complete within 0.05 s" in answer["error"]["reason"]


async def test_a_request_that_takes_too_long_is_answered(folder: Path) -> None:
    async with serving(folder, Deadlines(work=0.05)) as served:
        with pytest.raises(ControlError, match="not done within") as caught:
            await ask(served.path, {"do": "wait"})
        assert caught.value.code is Code.CTL_NO_ANSWER


async def test_a_client_that_does_not_read_is_given_up(folder: Path) -> None:
    given_up = trio.Event()

    async def much(request: Request) -> Answer:
        return Answer({"text": "x" * 3_000_000}, then=given_up.set)

    async with serving(folder, Deadlines(answer=0.05), much=much) as served:
        async with await trio.open_unix_socket(str(served.path)) as stream:
            await stream.send_all(b'{"v": 1, "do": "much"}\n')
            with trio.fail_after(PATIENCE):
                await given_up.wait()
        assert len((await ask(served.path, {"do": "much"}))["text"]) == 3_000_000


async def test_many_connections_at_once(folder: Path) -> None:
    """Those that hold all places are few, the next is told, and a place that is left can be had again."""
    async with serving(folder) as served:
        held = [await trio.open_unix_socket(str(served.path)) for _ in range(MOST_CLIENTS)]
        for stream in held:
            await stream.send_all(STATUS[:-1])
        await trio.testing.wait_all_tasks_blocked(0.01)
        answer = await served.say(STATUS)
        assert answer["error"]["code"] == "MTLS-CTL-007"
        await held[0].send_all(b"\n")
        with trio.fail_after(PATIENCE):
            assert (await read_answer(held[0]))["ok"] is True
        assert await ask(served.path, {"do": "status"}) == {"pid": 1}
        for stream in held:
            await stream.aclose()


async def test_a_thousand_clients_that_come_and_go(folder: Path) -> None:
    async with serving(folder) as served:
        for number in range(1000):
            async with await trio.open_unix_socket(str(served.path)) as stream:
                await stream.send_all(os.urandom(number % 7))
        with trio.fail_after(PATIENCE):
            answer: dict[str, Any] = {"error": {"code": "MTLS-CTL-007"}}
            while not answer.get("ok"):
                assert answer["error"]["code"] == "MTLS-CTL-007"  # until the last of them have been seen off
                answer = await served.say(STATUS)


@pytest.mark.parametrize("uid", [uid for uid in available_uids() if uid != os.getuid()] or [None])
async def test_another_user_is_refused(folder: Path, uid: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the mode of the socket; and where that was opened, by what the kernel says of the client."""
    async with serving(folder) as served:
        if uid is None:  # we are nobody special, and cannot become anybody
            monkeypatch.setattr(server_module, "local_user", lambda sock: os.getuid() + 1)
            with pytest.raises(ControlError, match="you are user id"):
                await ask(served.path, {"do": "status"})
            return
        open_to_all(folder, 0o711)
        knock = """
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[2])
    s.sendall(b'{"v": 1, "do": "status"}\\n')
except PermissionError:
    sys.exit(13)
except BrokenPipeError:
    pass  # refused already
sys.stdout.buffer.write(s.recv(65536))
"""
        with running_as(uid, knock, served.path) as child:
            assert await trio.to_thread.run_sync(finish, child) == 13
        open_to_all(served.path, 0o666)
        with running_as(uid, knock, served.path) as child:
            out, _ = await trio.to_thread.run_sync(child.communicate)
        answer = json.loads(out)
        assert answer["error"]["code"] == "MTLS-CTL-004"
        assert served.events.of(ControlRefused)[0].client == f"user id {uid}"
        assert not served.asked


@pytest.mark.parametrize(("user", "allowed"), [("own", True), (0, True), (4711, False), (None, False)])
async def test_who_may_ask(folder: Path, monkeypatch: pytest.MonkeyPatch, user: object, allowed: bool) -> None:
    monkeypatch.setattr(server_module, "users_can_be_known", lambda: True)
    monkeypatch.setattr(server_module, "local_user", lambda sock: os.geteuid() if user == "own" else user)
    async with serving(folder) as served:
        if allowed:
            assert await ask(served.path, {"do": "status"}) == {"pid": 1}
        else:
            with pytest.raises(ControlError, match="answers its own user and root"):
                await ask(served.path, {"do": "status"})


# Opening.


def dead_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(path))


async def test_sockets_of_dead_proxies_are_removed_and_nothing_else(folder: Path) -> None:
    dead_socket(folder / "11.sock")
    dead_socket(folder / "other.sock")
    (folder / "12.sock").write_text("not a socket")
    with closing(socket.socket(socket.AF_UNIX)) as alive:
        alive.bind(str(folder / "13.sock"))
        alive.listen()
        assert [proxy.pid for proxy in await running(folder)] == [13]
        async with serving(folder):
            kept = names_in(folder)
    assert kept == {"12.sock", "13.sock", "other.sock", f"{os.getpid()}.sock"}


def test_no_place_no_socket() -> None:
    with opened_control(None) as listener:
        assert listener is None


def test_a_default_folder_that_will_not_do_is_told_and_one_that_was_named_is_an_error(folder: Path) -> None:
    events: list[Any] = []
    (folder / "file").write_text("")
    with opened_control(Place(folder / "file"), emit=events.append) as listener:
        assert listener is None
    [event] = events
    assert isinstance(event, ControlUnavailable)
    assert (event.code, "no control socket" in event.sentence()) == ("MTLS-CTL-001", True)
    with (
        pytest.raises(ConfigError, match="is not a folder") as caught,
        opened_control(Place(folder / "file", explicit=True)),
    ):
        pass
    assert (caught.value.code, caught.value.exit_status) == (Code.CTL_FOLDER, 2)


def test_a_path_that_is_too_long_says_so(folder: Path) -> None:
    with (
        pytest.raises(ConfigError, match="a unix socket's path may have") as caught,
        opened_control(Place(folder / ("x" * 100), explicit=True)),
    ):
        pass
    assert caught.value.code is Code.CTL_SOCKET


def test_a_socket_that_is_in_use_says_so(folder: Path) -> None:
    """As in two containers that share the folder, with the same process id each."""
    with (
        opened_control(Place(folder), pid=1),
        pytest.raises(ConfigError, match="already in use"),
        opened_control(Place(folder, explicit=True), pid=1),
    ):
        pass


def test_a_platform_without_unix_sockets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "supported", lambda: False)
    events: list[Any] = []
    with opened_control(Place(folder), emit=events.append) as listener:
        assert listener is None
    assert events[0].code == "MTLS-CFG-011"
    with pytest.raises(ConfigError, match="no unix sockets"), opened_control(Place(folder, explicit=True)):
        pass
