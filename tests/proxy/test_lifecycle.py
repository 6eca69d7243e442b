"""Starting, reloading, draining and stopping, in one trio loop and without signals."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.config.values import ProxyConfig, TcpAddress, Timeouts
from mtlskit.errors import ClientNotAllowed, Code, ConfigError, IdentityError, ListenError
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from mtlskit.net.relay import Relay
from mtlskit.net.warm import WarmBudget
from mtlskit.proxy import admission as admission_module
from mtlskit.proxy import loading as loading_module
from mtlskit.proxy.established import Established
from mtlskit.proxy.events import (
    ClientLeft,
    ClientRefused,
    DrainFinished,
    DrainStarted,
    IdentityKept,
    IdentityLoaded,
    SessionCrashed,
    SessionCut,
    TunnelFailed,
    TunnelListening,
)
from mtlskit.proxy.run import Proxy, run_proxy
from mtlskit.proxy.tunnel import Tunnel, TunnelState
from mtlskit.wire.postgres.messages import frame
from tests.support.fake_upstream import PATIENCE, WELCOME, Papers, ServerSide, echo, fake_upstream, nobody_listens
from tests.support.tunnels import STARTUP, EventLog, connected, running_proxy, tunnel
from tests.support.warm_peers import until

TERMINATE = frame(b"X", b"")


# Starting.


async def test_an_only_tunnel_that_does_not_start_raises_the_error_itself(own_papers: Papers) -> None:
    own_papers.identity.cert.unlink()
    events = EventLog()
    async with nobody_listens() as endpoint:
        with pytest.raises(IdentityError, match=r"client\.pem"):
            await run_proxy(ProxyConfig((tunnel(own_papers, endpoint),)), emit=events)
    assert not events.of(TunnelFailed)
    assert not events.of(DrainFinished)


async def test_several_tunnels_of_which_none_starts_are_each_told(own_papers: Papers) -> None:
    own_papers.identity.cert.unlink()
    events = EventLog()
    async with nobody_listens() as endpoint:
        config = ProxyConfig((tunnel(own_papers, endpoint, name="one"), tunnel(own_papers, endpoint, name="two")))
        with pytest.raises(ConfigError, match="none of the 2 tunnels could start") as caught:
            await run_proxy(config, emit=events)
    assert caught.value.code is Code.NO_TUNNEL_STARTED
    assert [event.tunnel for event in events.of(TunnelFailed)] == ["one", "two"]
    assert not events.of(DrainFinished)


async def test_a_port_in_use_raises_the_error_itself(papers: Papers) -> None:
    async with fake_upstream(papers) as upstream:
        taken = TcpAddress(upstream.endpoint.host, upstream.endpoint.port)
        with pytest.raises(ListenError, match="in use"):
            await run_proxy(ProxyConfig((tunnel(papers, upstream.endpoint, listen=taken),)))


async def test_no_tunnels_at_all_can_be_started_and_stopped() -> None:
    events = EventLog()
    async with trio.open_nursery() as nursery:
        proxy: Proxy = await nursery.start(partial(run_proxy, ProxyConfig(()), emit=events))
        proxy.stop()
    assert events.of(DrainFinished)[0].cut == 0


async def test_one_bad_tunnel_does_not_stop_the_others_and_a_reload_starts_it(
    papers: Papers, own_papers: Papers, tmp_path: Path
) -> None:
    hidden = own_papers.identity.cert.rename(tmp_path / "hidden")
    ready = tmp_path / "ready.json"
    async with fake_upstream(papers) as upstream, fake_upstream(own_papers) as other:
        good = tunnel(papers, upstream.endpoint, name="good")
        bad = tunnel(own_papers, other.endpoint, name="bad")
        async with running_proxy(good, bad, ready_path=ready) as running:
            failed = await running.events.wait_for(TunnelFailed)
            assert (failed.tunnel, failed.code) == ("bad", "MTLS-ID-001")
            states = [item["state"] for item in json.loads(ready.read_text())["tunnels"]]
            assert states == ["serving", "failed"]
            assert [item.config.name for item in running.proxy.serving] == ["good"]
            await running.proxy.reload()  # nothing has changed: told again, and nothing else
            assert len(running.events.of(TunnelFailed)) == 2
            hidden.rename(own_papers.identity.cert)
            await running.proxy.reload()
            assert [item.config.name for item in running.proxy.serving] == ["good", "bad"]
            async with running.connect(1) as client:
                await client.login()
            told = json.loads(ready.read_text())["tunnels"][1]
            assert told["state"] == "serving"
            address = running.address(1)
            assert isinstance(address, TcpAddress)
            assert told["addresses"] == [{"host": address.host, "port": address.port}]
            assert "error" not in told


@pytest.mark.parametrize("fault", [OSError(24, "Too many open files"), ssl.SSLError(1, "no such thing")])
async def test_what_the_system_refuses_fails_one_tunnel_only(
    papers: Papers, monkeypatch: pytest.MonkeyPatch, fault: OSError
) -> None:
    """A reload that meets the limit of open files must not end the proxy."""
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):

        def fail(*_: object, **__: object) -> None:
            raise fault

        monkeypatch.setattr(loading_module, "load_snapshot", fail)
        await running.proxy.reload()
        assert (await running.events.wait_for(IdentityKept)).code == "MTLS-ID-002"
        async with running.connect() as client:
            await client.login()


# Reloading.


async def test_a_reload_swaps_the_identity_for_new_sessions_only(own_papers: Papers) -> None:
    seen: list[str] = []

    async def script(server: ServerSide) -> None:
        await server.open()
        assert server.client_name is not None
        seen.append(server.client_name)
        await server.send(WELCOME)
        await echo(server)

    async with (
        fake_upstream(own_papers, script) as upstream,
        running_proxy(tunnel(own_papers, upstream.endpoint)) as running,
        running.connect() as old,
    ):
        await old.login()
        before = running.events.of(IdentityLoaded)[0].serial
        own_papers.renew_client("renewed")
        await running.proxy.reload()
        assert running.events.of(IdentityLoaded)[1].serial != before
        async with running.connect() as new:
            await new.login()
        await old.send(frame(b"Q", b"still here\0"))
        await old.until_ready()
        assert seen == ["reporting", "renewed"]


async def test_a_failed_reload_keeps_the_old_identity(own_papers: Papers) -> None:
    async with (
        fake_upstream(own_papers) as upstream,
        running_proxy(tunnel(own_papers, upstream.endpoint)) as running,
    ):
        served = running.proxy.tunnels[0]
        before = served.identity
        own_papers.identity.key.write_bytes(b"-----BEGIN nothing")
        await running.proxy.reload()
        kept = await running.events.wait_for(IdentityKept)
        assert kept.code.startswith("MTLS-ID-")
        assert (served.state, served.failure is not None) == (TunnelState.SERVING, True)
        assert served.identity is before
        async with running.connect() as client:
            await client.login()
        own_papers.renew_client("renewed")
        await running.proxy.reload()
        assert (served.failure, served.identity is before) == (None, False)


async def test_requests_to_reload_do_not_pile_up(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        with _hanging_disk(monkeypatch) as disk:
            for _ in range(5):
                running.proxy.request_reload()
                await trio.testing.wait_all_tasks_blocked()
            disk.answers()
        await running.events.wait_for(IdentityLoaded, 3)  # the start, the first request, and one for all the others
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(running.events.of(IdentityLoaded)) == 3


async def test_a_disk_that_hangs_keeps_nobody_from_stopping(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    with _hanging_disk(monkeypatch, after=1) as disk, trio.fail_after(PATIENCE):
        async with fake_upstream(papers) as upstream:
            async with running_proxy(tunnel(papers, upstream.endpoint)) as running:
                running.proxy.request_reload()
                await trio.testing.wait_all_tasks_blocked()
                running.proxy.stop()
            assert running.events.of(DrainFinished)
        disk.answers()


async def test_a_reload_during_the_drain_opens_no_door(own_papers: Papers, papers: Papers, tmp_path: Path) -> None:
    hidden = own_papers.identity.cert.rename(tmp_path / "hidden")
    async with fake_upstream(papers) as upstream:
        good, bad = tunnel(papers, upstream.endpoint), tunnel(own_papers, upstream.endpoint, name="bad")
        async with running_proxy(good, bad) as running, running.connect() as client:
            await client.login()
            running.proxy.stop()
            hidden.rename(own_papers.identity.cert)
            await running.proxy.reload()
            running.proxy.request_reload()
            await trio.testing.wait_all_tasks_blocked()
            assert [item.state for item in running.proxy.tunnels] == [TunnelState.DRAINING, TunnelState.FAILED]
            assert len(running.events.of(TunnelListening)) == 1
            assert len(running.events.of(IdentityLoaded)) == 1


async def test_a_door_that_was_closed_while_it_was_being_opened_stays_closed(papers: Papers) -> None:
    events = EventLog()
    async with Relay() as relay, trio.open_nursery() as nursery, nobody_listens() as endpoint:
        served = Tunnel(tunnel(papers, endpoint), Established(relay, events), events, WarmBudget(0))
        served.close_door()
        await served.start(nursery)
        assert (served.state, served.addresses) == (TunnelState.DRAINING, ())
        assert not events.seen
        assert not await served.reload()


# Draining and stopping.


async def test_a_stop_right_after_the_start_ends_in_peace(papers: Papers) -> None:
    """The tasks that accept have not run once."""
    async with nobody_listens() as endpoint, running_proxy(tunnel(papers, endpoint)) as running:
        running.proxy.stop()
    assert running.events.of(DrainFinished)[0].cut == 0


async def test_doors_close_at_once_and_open_sessions_finish(papers: Papers) -> None:
    async with fake_upstream(papers) as upstream, running_proxy(tunnel(papers, upstream.endpoint)) as running:
        async with running.connect() as client:
            await client.login()
            running.proxy.stop()
            with pytest.raises(OSError, match="connect"):
                await connected(running.address()).__aenter__()
            await client.send(frame(b"Q", b"still here\0"))
            await client.until_ready()
            await client.send(TERMINATE)
            assert await client.read_to_end() == b""
        finished = await running.events.wait_for(DrainFinished)
        assert finished.cut == 0
        assert running.events.of(DrainStarted)[0].sessions == 1


async def test_a_client_that_has_not_asked_yet_gets_no_session_during_the_drain(papers: Papers) -> None:
    async with fake_upstream(papers) as upstream:
        async with running_proxy(tunnel(papers, upstream.endpoint)) as running, running.connect() as client:
            await client.send(STARTUP[:5])
            while not running.proxy.sessions:
                await trio.testing.wait_all_tasks_blocked()
            running.proxy.stop()
            await client.send(STARTUP[5:])
            error = await client.error()
            assert (error.sqlstate, "[MTLS-DOOR-005]" in error.message) == ("57P01", True)
            assert (await running.events.wait_for(ClientRefused)).code == "MTLS-DOOR-005"
        assert upstream.connections == 0


@pytest.mark.parametrize("by_itself", [False, True])
async def test_sessions_are_cut_by_a_second_stop_or_by_the_end_of_the_time(papers: Papers, by_itself: bool) -> None:
    timeouts = Timeouts(drain=0.2 if by_itself else 3600.0)
    async with fake_upstream(papers) as upstream:
        async with (
            running_proxy(tunnel(papers, upstream.endpoint, timeouts=timeouts)) as running,
            running.connect() as one,
            running.connect() as two,
            running.connect() as starting,
        ):
            await one.login()
            await two.login()
            await starting.send(STARTUP[:5])
            while running.proxy.sessions < 3:
                await trio.testing.wait_all_tasks_blocked()
            running.proxy.stop()
            if not by_itself:
                running.proxy.stop()
            finished = await running.events.wait_for(DrainFinished)
            assert finished.cut == 3
            assert {event.user for event in running.events.of(SessionCut)} == {"ann"}
            assert len(running.events.of(SessionCut)) == 2
            with trio.fail_after(PATIENCE):
                for client in (one, two, starting):
                    with suppress(trio.BrokenResourceError):  # cut off: reset or closed
                        assert await client.stream.receive_some() == b""
        await upstream.all_closed()


# Sessions that fail through a fault of ours.


async def test_a_fault_of_ours_ends_one_session_and_is_told(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as other,
    ):
        await other.login()
        parts = running.proxy.tunnels[0]._parts
        assert parts is not None
        dialler = parts.dialler
        parts.dialler = None  # type: ignore[assignment]  # the fault
        async with running.connect() as client:
            await client.send(STARTUP)
            assert await client.read_to_end() == b""
        crashed = await running.events.wait_for(SessionCrashed)
        assert "AttributeError" in crashed.traceback
        assert "AttributeError" in crashed.sentence()
        parts.dialler = dialler
        await other.send(frame(b"Q", b"still here\0"))
        await other.until_ready()


async def test_a_client_that_is_gone_before_it_can_be_asked_who_it_is(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an address it could pass for somebody else; it is no news either."""

    def gone(*_: object, **__: object) -> None:
        raise ClientNotAllowed(Code.DOOR_ADDRESS, "a client went away before its address could be read")

    monkeypatch.setattr(admission_module, "identify", gone)
    async with nobody_listens() as endpoint, running_proxy(tunnel(papers, endpoint)) as running:
        async with running.connect() as client:
            assert await client.read_to_end() == b""
        await running.events.wait_for(ClientLeft)
        assert not running.events.of(ClientRefused)
        await running.idle()


async def test_a_listener_that_breaks_marks_the_tunnel_and_a_reload_mends_it(papers: Papers) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.login()
        served = running.proxy.tunnels[0]
        listener = served._listener
        assert listener is not None
        listener._sockets[0][0].shutdown(socket.SHUT_RDWR)  # from here on accept(2) says EINVAL
        failed = await running.events.wait_for(TunnelFailed)
        assert (failed.code, served.state) == (Code.LISTEN_FAILED, TunnelState.FAILED)
        await running.proxy.reload()
        assert served.state is TunnelState.SERVING
        parts = served._parts
        assert parts is not None
        assert len(parts.cancel_keys) == 1  # the key of the session that outlived the listener
        async with running.connect() as another:
            await another.login()
        await client.send(frame(b"Q", b"still here\0"))
        await client.until_ready()


async def test_who_came_before_the_listener_broke_is_dialled_with_the_new_certificate(own_papers: Papers) -> None:
    """A rotation takes it for granted, as this client is not counted for any certificate yet."""
    async with (
        fake_upstream(own_papers) as upstream,
        running_proxy(tunnel(own_papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        served = running.proxy.tunnels[0]
        await until(lambda: served.undecided == 1)
        listener = served._listener
        assert listener is not None
        listener._sockets[0][0].shutdown(socket.SHUT_RDWR)
        await running.events.wait_for(TunnelFailed)
        own_papers.renew_client("renewed")
        await running.proxy.reload()
        assert served.identity is not None
        await client.login()
        assert served.sessions_by_serial == {served.identity.serial: 1}


class _Disk:
    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._answered = trio.Event()

    def answers(self) -> None:
        self._answered.set()

    def read(self) -> None:
        trio.from_thread.run(self._answered.wait, trio_token=self._token)


@contextmanager
def _hanging_disk(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> Iterator[_Disk]:
    """Every identity that is loaded from here on (or after the first `after`) waits for `answers`."""
    disk = _Disk()
    real = load_snapshot
    count = 0

    def slow(*args: Any, **kwargs: Any) -> IdentitySnapshot:
        nonlocal count
        count += 1
        if count > after:
            disk.read()
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loading_module, "load_snapshot", slow)
        yield disk
