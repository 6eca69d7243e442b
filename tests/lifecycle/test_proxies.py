"""Running proxies as a rotation sees them: servers on control sockets that answer as a test says, and one of ours."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mtlskit.control.places import Place
from mtlskit.control.protocol import Request
from mtlskit.control.server import Answer, ControlServer, opened_control
from mtlskit.errors import Code, ControlError, RotationError
from mtlskit.lifecycle.proxies import ControlledProxies
from mtlskit.pki.certificates import load_certificates, serial_text
from mtlskit.proxy.control import handlers
from mtlskit.proxy.status import Started
from mtlskit.telemetry import silent
from tests.services.places import scratch_folder
from tests.support.fake_upstream import fake_upstream, make_papers
from tests.support.tunnels import running_proxy
from tests.support.tunnels import tunnel as tunnel_of

CERT = Path("/store/reporting/current/client.crt")
NEW, OLD = "4711", "0815"


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder whose name is short enough for sockets."""
    with scratch_folder("mtlskit-ctl-", None) as folder:
        yield Place(folder, explicit=True)


def serves(name: str = "sales", serial: str = NEW, **more: Any) -> dict[str, Any]:
    """A tunnel after a reload."""
    return {"name": name, "ok": True, "serial": serial, "error": None} | more


def tunnel(name: str = "sales", cert: Path | str = CERT, **more: Any) -> dict[str, Any]:
    """A tunnel of a status."""
    return {"name": name, "identity": {"cert": str(cert), "serial": OLD}, "sessions_by_serial": {}} | more


class FakeProxy:
    """Answers with what it was given; an error is raised."""

    def __init__(self, status: Any, reload: Any = ()) -> None:
        self.answers = {"status": status, "reload": reload}
        self.asked: list[str] = []

    async def handle(self, request: Request) -> Answer:
        self.asked.append(request.do)
        answer = self.answers[request.do]
        if isinstance(answer, Exception):
            raise answer
        return Answer({"tunnels": answer})


@asynccontextmanager
async def running(place: Place, *proxies: FakeProxy) -> AsyncIterator[ControlledProxies]:
    """These proxies, with the process ids 101, 102, and so on."""
    async with trio.open_nursery() as nursery:
        for number, proxy in enumerate(proxies, 101):
            await nursery.start(_run, place, number, proxy)
        yield ControlledProxies(place)
        nursery.cancel_scope.cancel()


async def _run(
    place: Place, number: int, proxy: FakeProxy, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with opened_control(place, pid=number) as listener:
        assert listener is not None
        server = ControlServer(listener, {"status": proxy.handle, "reload": proxy.handle}, silent)
        await server.run(task_status=task_status)


NONE = "no running proxy uses it, so none had to be told (looked in "


async def not_served(proxies: ControlledProxies) -> str:
    with pytest.raises(RotationError) as caught:
        await proxies.serve("reporting", CERT, NEW)
    assert caught.value.code is Code.NOT_SERVED
    assert caught.value.sentence.startswith("reporting: ")
    return caught.value.sentence


async def test_nobody_runs(place: Place, tmp_path: Path) -> None:
    for where in (place, Place(tmp_path / "none")):
        proxies = ControlledProxies(where)
        assert (await proxies.serve("reporting", CERT, NEW)).startswith(NONE)
        assert await proxies.sessions(CERT, OLD, expected=False) == 0
        # A tunnel uses it, so there may be a proxy that keeps its socket elsewhere.
        assert await proxies.sessions(CERT, OLD, expected=True) is None


async def test_those_that_use_it_are_told(place: Place) -> None:
    tunnels = [tunnel("b"), tunnel("a"), tunnel("c", "/other.crt")]
    user = FakeProxy(tunnels, [serves("a"), serves("b"), serves("c", OLD)])
    stranger = FakeProxy([tunnel("x", "/other.crt"), {"name": "y", "identity": None}])
    async with running(place, user, stranger) as proxies:
        assert await proxies.serve("reporting", CERT, NEW) == "served by process 101 (a, b)"
    assert (user.asked, stranger.asked) == (["status", "reload"], ["status"])


async def test_several_proxies(place: Place) -> None:
    one, two = (FakeProxy([tunnel(sessions_by_serial={OLD: count})], [serves()]) for count in (1, 2))
    async with running(place, one, two) as proxies:
        said = await proxies.serve("reporting", CERT, NEW)
        assert said == "served by process 101 (sales) and process 102 (sales)"
        assert await proxies.sessions(CERT, OLD, expected=True) == 3


async def test_clients_without_a_certificate_yet_hold_nothing_up(place: Place) -> None:
    """They get the one that is served by then. Those of a proxy that tells no more may have an old one."""
    told = tunnel(sessions_by_serial={NEW: 3}, sessions=5, undecided=2)
    async with running(place, FakeProxy([told])) as proxies:
        assert await proxies.sessions(CERT, NEW, expected=True, others=True) == 0
    del told["undecided"]
    async with running(place, FakeProxy([told])) as proxies:
        assert await proxies.sessions(CERT, NEW, expected=True, others=True) == 2


async def test_a_folder_that_is_spelled_in_another_way(place: Place, tmp_path: Path) -> None:
    real = tmp_path / "data" / "reporting"
    (real / "versions" / "0001").mkdir(parents=True)
    (real / "current").symlink_to("versions/0001")
    (tmp_path / "link").symlink_to("data")
    theirs = tmp_path / "data" / ".." / "link" / "reporting" / "current" / "client.crt"
    ours = real / "current" / "client.crt"
    async with running(place, FakeProxy([tunnel("sales", theirs, sessions_by_serial={OLD: 5})])) as proxies:
        assert await proxies.sessions(ours, OLD, expected=True) == 5
        assert await proxies.sessions(real / "versions" / "0001" / "client.crt", OLD, expected=False) == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([serves(serial=OLD)], "it serves serial 0815 instead of 4711"),
        ([serves(ok=False, error={"reason": "the key is not there", "hint": "look"})], "the key is not there"),
        ([serves("another")], "tunnel sales of the proxy 101 does not serve"),
        ([], "tunnel sales of the proxy 101 does not serve"),
        (ControlError(Code.CTL_STOPPING, "it is stopping"), "the proxy 101 could not be told"),
    ],
)
async def test_a_proxy_that_does_not_serve_it(place: Place, answer: Any, words: str) -> None:
    async with running(place, FakeProxy([tunnel()], answer)) as proxies:
        assert words in await not_served(proxies)


async def test_a_proxy_that_does_not_answer(place: Place) -> None:
    async with running(place, FakeProxy(ControlError(Code.CTL_BUSY, "too many"))) as proxies:
        assert "too many" in await not_served(proxies)
        assert await proxies.sessions(CERT, OLD, expected=True) is None


async def test_a_proxy_that_has_ended_is_nobody(place: Place) -> None:
    async with running(place, FakeProxy(ControlError(Code.CTL_NO_PROXY, "gone"))) as proxies:
        assert (await proxies.serve("reporting", CERT, NEW)).startswith(NONE)
        assert await proxies.sessions(CERT, OLD, expected=False) == 0


async def test_a_proxy_that_counts_no_sessions(place: Place) -> None:
    """An older one: nobody may conclude that there are none."""
    silent_one = tunnel()
    del silent_one["sessions_by_serial"]
    async with running(place, FakeProxy([tunnel(sessions_by_serial={OLD: 1})]), FakeProxy([silent_one])) as proxies:
        assert await proxies.sessions(CERT, OLD, expected=True) is None


async def test_sessions_of_other_certificates_do_not_count(place: Place) -> None:
    async with running(place, FakeProxy([tunnel(sessions_by_serial={NEW: 7})])) as proxies:
        assert await proxies.sessions(CERT, OLD, expected=True) == 0
        assert await proxies.sessions(CERT, NEW, expected=True) == 7


async def test_a_folder_in_which_others_can_put_sockets_is_not_believed(place: Place) -> None:
    async with running(place, FakeProxy([tunnel()], [serves()])):
        place.folder.chmod(0o777)
        proxies = ControlledProxies(place)
        assert "can be written to by others" in await not_served(proxies)
        assert await proxies.sessions(CERT, OLD, expected=True) is None
        place.folder.chmod(0o700)


async def test_a_proxy_of_ours(place: Place, tmp_path: Path) -> None:
    papers = make_papers(tmp_path)
    cert = papers.identity.cert
    async with fake_upstream(papers) as upstream, running_proxy(tunnel_of(papers, upstream.endpoint)) as running_one:
        proxy = running_one.proxy
        asked = handlers(proxy, Started(), silent)
        with opened_control(place) as listener:
            assert listener is not None
            async with trio.open_nursery() as nursery:
                await nursery.start(ControlServer(listener, asked, silent).run)
                proxies = ControlledProxies(place)
                old = serial_in(cert)
                async with running_one.connect() as client:
                    await client.login()
                    assert await proxies.sessions(cert, old, expected=True) == 1
                    papers.renew_client("reporting")
                    new = serial_in(cert)
                    assert await proxies.serve("reporting", cert, new) == f"served by process {os.getpid()} (reporting)"
                    assert [await proxies.sessions(cert, serial, expected=True) for serial in (old, new)] == [1, 0]
                await running_one.idle()
                assert await proxies.sessions(cert, old, expected=True) == 0
                assert old in await not_served_at(proxies, cert, old)
                nursery.cancel_scope.cancel()


async def not_served_at(proxies: ControlledProxies, cert: Path, serial: str) -> str:
    with pytest.raises(RotationError) as caught:
        await proxies.serve("reporting", cert, serial)
    return caught.value.sentence


def serial_in(cert: Path) -> str:
    return serial_text(load_certificates(cert.read_bytes(), source="cert")[0])
