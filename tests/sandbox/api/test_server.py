"""The API on its socket: who gets an answer, to what, and that nothing is left when it ends."""

from __future__ import annotations

import base64
import socket
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing

from mtlskit.config.values import TcpAddress
from mtlskit.errors import Code, IdentityError
from mtlskit.sandbox.api.answers import MOST_BODY
from mtlskit.sandbox.api.app import Front
from mtlskit.sandbox.api.calls import Calls
from mtlskit.sandbox.api.events import ApiCallAnswered, ApiCallFailed
from mtlskit.sandbox.api.faults import parse_fault
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.telemetry import Event, silent
from tests.support.sandbox_api import TOKEN, FakeHooks, RunningApi, SetClock, open_state, running_api


def _bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


def _basic(password: str, user: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", _basic(TOKEN), _basic(TOKEN, "someone")])
async def test_both_forms_of_the_token_are_taken(api: RunningApi, header: str) -> None:
    answer = await api.client.get("/addons", headers={"Authorization": header})
    assert answer.status_code == 206


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer another",
        f"Token {TOKEN}",
        _basic("another"),
        "Basic %%%",
        f"Basic {TOKEN}",
        "Bearer é",
    ],
)
async def test_anything_else_is_unauthorized(api: RunningApi, header: str | None) -> None:
    raw = {} if header is None else {b"Authorization": header.encode()}
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as client:
        for path in ("/addons", api.endpoint(), "/sandbox/faults", "/no/such/path"):
            answer = await client.get(path, headers=raw)
            assert (answer.status_code, answer.json()["id"]) == (401, "unauthorized")
            assert answer.headers["request-id"]


async def test_each_answer_has_a_request_id_of_its_own(api: RunningApi) -> None:
    ids = {(await api.client.get(path)).headers["request-id"] for path in ("/addons", "/echo/a", "/nowhere")}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/addons/", 404),
        ("GET", "/postgres/v0/databases/%2e%2e/tls-endpoint", 404),
        ("GET", f"/addons/{'x' * 5000}", 404),
        ("PATCH", "/addons", 405),
        ("DELETE", "/addons/postgresql-sandbox-12345", 405),
        ("PUT", "/postgres/v0/databases/postgresql-sandbox-12345/tls-endpoint", 405),
    ],
)
async def test_what_there_is_not_is_said_in_json(api: RunningApi, method: str, path: str, status: int) -> None:
    answer = await api.client.request(method, path)
    assert answer.status_code == status
    assert answer.json().keys() == {"id", "message"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"[1]", 400),
        (b'"text"', 400),
        (b"[" * 50_000, 400),
        (b"x" * (MOST_BODY + 1), 413),
        (b"", 422),
        (b"{}", 422),
    ],
    ids=lambda value: repr(value)[:12],
)
async def test_a_bad_body_is_refused(api: RunningApi, body: bytes, status: int) -> None:
    answer = await api.client.post(f"{api.endpoint()}/ip-rules", content=body)
    assert answer.status_code == status
    assert answer.json()["message"].endswith(".")


async def test_a_body_without_end_is_refused_when_it_is_too_long(api: RunningApi) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", int(api.url.rpartition(":")[2])) as stream:
        head = f"POST {api.endpoint()}/ip-rules HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        await stream.send_all(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
        for _ in range(MOST_BODY // 0x1000 + 1):
            await stream.send_all(chunk)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 413 ")


async def test_what_is_no_http_is_answered_and_harms_nobody(api: RunningApi) -> None:
    port = int(api.url.rpartition(":")[2])
    for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"GET / HTTP/1.1\r\n\r\n", b""):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            with trio.fail_after(10):
                while await stream.receive_some():
                    pass
    assert (await api.client.get("/echo/a")).text == "127.0.0.1"


async def test_a_websocket_is_refused(api: RunningApi) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert (await api.client.get("/addons", headers=upgrade)).status_code == 403


@pytest.mark.parametrize("state", ["idle", "half a request", "hanging"])
async def test_it_ends_with_connections_open(tmp_path: Path, state: str) -> None:
    """Unclosed sockets would be a ResourceWarning, which fails the test."""
    async with running_api(tmp_path, options=ApiOptions(speed_up=1, faults=("hang,match=/addons",))) as api:
        stream = await trio.open_tcp_stream("127.0.0.1", int(api.url.rpartition(":")[2]))
        if state == "hanging":
            head = f"GET /addons HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            await stream.send_all(head.encode())
            while not api.state.faults.acted("hang"):
                await trio.lowlevel.checkpoint()
        else:
            await stream.send_all(b"GET /echo/a HTTP/1.1\r\nHost: x\r\n\r\n")
            found = b""
            while not found.endswith(b"127.0.0.1"):
                found += await stream.receive_some()
            await stream.send_all(b"GET /echo/a HTTP" if state == "half a request" else b"")
    try:
        assert not await stream.receive_some()
    except trio.BrokenResourceError:
        assert state != "idle"  # what was never read is answered with a reset
    await stream.aclose()


@pytest.mark.parametrize("left", ["idle", "in its head", "in its body", "hanging"])
async def test_a_client_that_leaves_leaves_nothing_behind(api: RunningApi, left: str) -> None:
    """Hypercorn alone would keep tasks for an idle connection, and for a body that nobody reads."""
    api.state.faults.add(parse_fault("hang,match=/addons"))
    await trio.testing.wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living
    stream = await trio.open_tcp_stream("127.0.0.1", int(api.url.rpartition(":")[2]))
    head = b"GET /echo/a HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = {
        "idle": head,
        "in its head": head + b"GET /",
        "in its body": b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 300_000,
        "hanging": f"GET /addons HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(),
    }
    with suppress(trio.BrokenResourceError):  # the refusal of a body that is not read may come first
        await stream.send_all(sent[left])
        if left == "hanging":
            while not api.state.faults.acted("hang"):
                await trio.lowlevel.checkpoint()
        else:
            await stream.receive_some()
    await stream.aclose()
    with trio.fail_after(30):
        while trio.lowlevel.current_statistics().tasks_living > before:
            await trio.lowlevel.checkpoint()


async def test_other_loopback_addresses_are_other_peers(api: RunningApi) -> None:
    transport = httpx.AsyncHTTPTransport(local_address="127.0.0.77")
    async with httpx.AsyncClient(base_url=api.url, transport=transport, trust_env=False) as elsewhere:
        assert (await elsewhere.get("/echo/a")).text == "127.0.0.77"
    assert (await api.client.get("/echo/b")).json() == {"ip": "127.0.0.1"}
    assert (await api.client.get("/echo/c")).text == "127.0.0.1\n"


async def test_it_writes_nothing_and_tells_of_each_call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    async with running_api(tmp_path, emit=events.append) as api:
        await api.client.get("/addons?secret=in-the-query")
        await api.client.post(f"{api.endpoint()}/ip-rules", json={"cidr": "10.0.0.0/8", "description": "secret"})
        await api.client.get("/addons", headers={"Authorization": "Bearer wrong"})
        await api.client.get(f"/{'long' * 1000}")
    calls = [event for event in events if isinstance(event, ApiCallAnswered)]
    assert [(call.method, call.path, call.status) for call in calls[:3]] == [
        ("GET", "/addons", 206),
        ("POST", f"{api.endpoint()}/ip-rules", 201),
        ("GET", "/addons", 401),
    ]
    assert {call.peer for call in calls} == {"127.0.0.1"}
    assert len(calls[3].path) < 400
    assert "secret" not in repr(events)
    assert capfd.readouterr() == ("", "")


class _BrokenCa(FakeHooks):
    def revoke(self, serial: str) -> None:
        raise IdentityError(Code.CA_FOLDER_MISSING, "/space/pki/ca holds no CA", "make one")

    def authorities(self) -> str:
        raise ZeroDivisionError("an inner secret")


async def test_a_space_that_fails_is_a_500_without_details(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    async with running_api(tmp_path, hooks=_BrokenCa(), emit=events.append) as api:
        found = (await api.client.get(f"{api.endpoint()}/certificates")).json()
        for answer in (
            await api.client.delete(f"{api.endpoint()}/certificates/{found[0]['id']}"),
            await api.client.get(api.endpoint()),
        ):
            assert answer.status_code == 500
            assert answer.json() == {"id": "internal_server_error", "message": "Internal server error."}
        assert (await api.client.get(f"{api.endpoint()}/certificates")).json()[0]["status"] == "ready"
    reasons = [event.reason for event in events if isinstance(event, ApiCallFailed)]
    assert len(reasons) == 2
    assert "holds no CA" in reasons[0]
    assert reasons[1].startswith("ZeroDivisionError")
    assert "secret" not in reasons[1]
    assert capfd.readouterr() == ("", "")


async def test_a_port_of_ones_choice(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    options = ApiOptions(listen=TcpAddress("127.0.0.1", port))
    async with running_api(tmp_path, options=options) as api:
        assert api.url == f"http://127.0.0.1:{port}"


async def test_latency_comes_before_the_call(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    state = open_state(tmp_path, SetClock())
    front = Front(Calls(state, FakeHooks()), token=TOKEN, latency=5, emit=silent)
    transport = httpx.ASGITransport(app=front, client=("127.0.0.9", 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox", timeout=60) as client:
        with trio.move_on_after(4):
            await client.post("/sandbox/move", json={"from": "127.0.0.9", "to": "127.0.0.10"}, headers=_bearer())
        assert not state.moves
        await client.post("/sandbox/move", json={"from": "127.0.0.9", "to": "127.0.0.10"}, headers=_bearer())
        assert (await client.get("/echo/a")).text == "127.0.0.10"
    assert trio.current_time() >= 14
