"""Replaced files are loaded once they have settled, once, and a pair that will not do is not tried again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.net.identity_marks import marks_of
from mtlskit.proxy import watch_files as watch_module
from mtlskit.proxy.events import IdentityChanged, IdentityKept, IdentityLoaded, TunnelFailed
from mtlskit.proxy.tunnel import TunnelState
from mtlskit.proxy.watch_files import FileWatch
from tests.support.fake_upstream import PATIENCE, Papers, nobody_listens
from tests.support.tunnels import Running, running_proxy, tunnel


@asynccontextmanager
async def watched(*papers: Papers) -> AsyncIterator[tuple[Running, FileWatch]]:
    """A proxy with a tunnel for each of the papers, and a watch that looks when the test says so."""
    async with nobody_listens() as endpoint:
        tunnels = [tunnel(each, endpoint, name=f"t{number}") for number, each in enumerate(papers)]
        async with running_proxy(*tunnels) as running:
            yield running, FileWatch(running.proxy.tunnels, running.proxy.reload, running.events)


async def look(watch: FileWatch, times: int) -> None:
    for _ in range(times):
        await watch.look()


async def test_nothing_has_changed(papers: Papers) -> None:
    async with watched(papers) as (running, watch):
        await look(watch, 5)
        assert len(running.events.of(IdentityLoaded)) == 1
        assert not running.events.of(IdentityChanged)


async def test_replaced_files_are_loaded_at_the_second_look_and_once(own_papers: Papers, papers: Papers) -> None:
    async with watched(own_papers, papers) as (running, watch):
        await look(watch, 2)
        own_papers.renew_client("renewed")
        await watch.look()
        assert len(running.events.of(IdentityLoaded)) == 2  # one for each tunnel, at the start
        await watch.look()
        changed = running.events.of(IdentityChanged)
        assert [(event.tunnel, event.identity, event.files) for event in changed] == [("t0", "papers", ("cert", "key"))]
        assert [event.tunnel for event in running.events.of(IdentityLoaded)] == ["t0", "t1", "t0"]
        await look(watch, 5)
        assert len(running.events.of(IdentityLoaded)) == 3


async def test_files_that_go_on_changing_are_waited_for(own_papers: Papers) -> None:
    async with watched(own_papers) as (running, watch):
        for _ in range(4):
            own_papers.renew_client("renewed")
            await watch.look()
        assert len(running.events.of(IdentityLoaded)) == 1
        await watch.look()
        assert len(running.events.of(IdentityLoaded)) == 2


async def test_a_bad_pair_is_tried_once_and_again_when_it_has_changed(own_papers: Papers) -> None:
    async with watched(own_papers) as (running, watch):
        key = own_papers.identity.key.read_bytes()
        own_papers.identity.key.write_bytes(b"-----BEGIN nothing")
        await look(watch, 6)
        assert len(running.events.of(IdentityKept)) == 1
        own_papers.identity.key.write_bytes(key)
        await look(watch, 6)
        assert (len(running.events.of(IdentityKept)), len(running.events.of(IdentityLoaded))) == (1, 2)
        assert running.proxy.tunnels[0].failure is None


async def test_a_key_that_was_open_to_all_is_loaded_after_chmod(own_papers: Papers) -> None:
    async with watched(own_papers) as (running, watch):
        own_papers.identity.key.chmod(0o644)
        await look(watch, 3)
        assert running.events.of(IdentityKept)[0].code == "MTLS-ID-013"
        own_papers.identity.key.chmod(0o600)
        await look(watch, 3)
        assert running.proxy.tunnels[0].failure is None


async def test_a_reload_in_between_leaves_nothing_to_do(own_papers: Papers) -> None:
    async with watched(own_papers) as (running, watch):
        await look(watch, 2)
        own_papers.renew_client("renewed")
        await watch.look()
        await running.proxy.reload()
        await look(watch, 4)
        assert len(running.events.of(IdentityLoaded)) == 2
        assert not running.events.of(IdentityChanged)


async def test_a_tunnel_that_could_not_start_is_started_when_its_files_come(
    own_papers: Papers, papers: Papers, tmp_path: Path
) -> None:
    hidden = own_papers.identity.cert.rename(tmp_path / "hidden")
    async with watched(papers, own_papers) as (running, watch):
        await look(watch, 4)
        assert len(running.events.of(TunnelFailed)) == 1
        hidden.rename(own_papers.identity.cert)
        await look(watch, 2)
        assert [item.state for item in running.proxy.tunnels] == [TunnelState.SERVING] * 2


async def test_nothing_is_loaded_while_the_proxy_stops(own_papers: Papers) -> None:
    async with watched(own_papers) as (running, watch):
        running.proxy.stopping = True
        own_papers.renew_client("renewed")
        await look(watch, 3)
        assert len(running.events.of(IdentityLoaded)) == 1
        running.proxy.stopping = False


async def test_a_reload_that_overtakes_a_look_is_not_repeated(
    own_papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look began before a SIGHUP had loaded the files, and its thread returns after it."""
    async with watched(own_papers) as (running, watch):
        own_papers.renew_client("renewed")
        await watch.look()
        with _held(monkeypatch) as (entered, release):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.look)
                await trio.to_thread.run_sync(entered.wait)
                await running.proxy.reload()
                release.set()
        await look(watch, 3)
        assert len(running.events.of(IdentityLoaded)) == 2
        assert not running.events.of(IdentityChanged)


async def test_a_disk_that_hangs_keeps_one_thread_and_nobody_from_stopping(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _held(monkeypatch) as (entered, release):
        with trio.fail_after(PATIENCE):
            async with watched(papers) as (running, watch), trio.open_nursery() as nursery:
                nursery.start_soon(watch.run, 0)
                await trio.to_thread.run_sync(entered.wait)
                await running.proxy.reload()
                assert len(running.events.of(IdentityLoaded)) == 2
                nursery.cancel_scope.cancel()
        release.set()


async def test_no_thread_to_be_had_costs_one_look(own_papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("can't start new thread")

    async with watched(own_papers) as (running, watch):
        own_papers.renew_client("renewed")
        with monkeypatch.context() as patch:
            patch.setattr(trio.to_thread, "run_sync", refuse)
            await look(watch, 2)
        await look(watch, 2)
        assert len(running.events.of(IdentityLoaded)) == 2


async def test_the_watch_of_a_proxy_looks_by_itself(own_papers: Papers) -> None:
    async with (
        nobody_listens() as endpoint,
        running_proxy(tunnel(own_papers, endpoint), look_every=0.01) as running,
    ):
        before = running.events.of(IdentityLoaded)[0].serial
        own_papers.renew_client("renewed")
        assert (await running.events.wait_for(IdentityLoaded, 2)).serial != before


class _Held:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._context = monkeypatch.context()
        self.entered, self.release = Event(), Event()

    def __enter__(self) -> tuple[Event, Event]:
        real = marks_of

        def slow(config: Any) -> Any:
            found = real(config)
            self.entered.set()
            assert self.release.wait(PATIENCE)
            return found

        self._context.__enter__().setattr(watch_module, "marks_of", slow)
        return self.entered, self.release

    def __exit__(self, *args: Any) -> None:
        self._context.__exit__(*args)


def _held(monkeypatch: pytest.MonkeyPatch) -> _Held:
    """Every look sees what is there, and its thread hangs until it is released."""
    return _Held(monkeypatch)


def test_a_look_is_cheap(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    """In system calls, not in time: one for each file."""
    looked: list[object] = []
    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, _counting(getattr(os, name), looked))
    marks_of(papers.identity)
    assert len(looked) == 3


def _counting(real: Callable[..., Any], calls: list[object]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[0])
        return real(*args, **kwargs)

    return counted
