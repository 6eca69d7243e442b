"""What a proxy says over its control socket, and how requests to reload share their work."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit import __version__
from mtlskit.config.values import ProxyConfig, RenewBefore, TunnelConfig
from mtlskit.control.client import Running, ask, reload_of, running, status_of, stop
from mtlskit.control.events import ControlAsked
from mtlskit.control.places import Place
from mtlskit.errors import Code, ConfigError, ControlError
from mtlskit.net.identity import load_snapshot
from mtlskit.proxy import loading as loading_module
from mtlskit.proxy.events import DrainFinished, IdentityLoaded
from mtlskit.proxy.run import run_proxy
from mtlskit.proxy.status import Started, status
from mtlskit.wire.postgres.messages import frame
from tests.services.places import scratch_folder
from tests.support.fake_upstream import PATIENCE, Papers, fake_upstream, nobody_listens
from tests.support.tunnels import STARTUP, EventLog, running_proxy, tunnel

SOURCE = Path("mtlskit.toml").absolute()


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder("mtlskit-ctl-", None) as folder:
        yield folder


@asynccontextmanager
async def controlled(folder: Path, *tunnels: TunnelConfig) -> AsyncIterator[tuple[Running, Any]]:
    """A proxy, as somebody finds it in the folder."""
    async with running_proxy(*tunnels, control=Place(folder)) as proxy:
        [found] = await running(folder)
        yield found, proxy


def hours(count: float) -> RenewBefore:
    return RenewBefore(seconds=count * 3600)


async def test_a_proxy_tells_what_it_serves(papers: Papers, folder: Path) -> None:
    async with fake_upstream(papers) as upstream:
        config = tunnel(papers, upstream.endpoint, warm=1)
        async with controlled(folder, config) as (proxy, here), here.connect() as client:
            await client.login()
            facts = await status_of(proxy)
            identity = here.proxy.tunnels[0].identity
            [told] = facts["tunnels"]
            assert facts["pid"] == proxy.pid == os.getpid()
            assert (facts["version"], facts["config"], facts["draining"]) == (__version__, None, False)
            assert facts["uptime"] >= 0
            assert datetime.fromisoformat(facts["started_at"]).tzinfo is not None
            assert (told["name"], told["state"], told["sessions"]) == ("reporting", "serving", 1)
            assert told["sessions_by_serial"] == {identity.serial: 1}
            assert told["addresses"][0]["port"] == here.address().port
            assert told["identity"]["serial"] == identity.serial
            assert told["identity"]["cert"] == str(papers.identity.cert)
            assert told["identity"]["not_after"] == identity.not_after.isoformat()
            assert len(bytes.fromhex(told["identity"]["fingerprint_sha256"])) == 32
            assert told["warm"]["misses"] + told["warm"]["hits"] == 1
            assert "error" not in told


async def test_a_failed_reload_is_in_the_status_until_it_is_mended(own_papers: Papers, folder: Path) -> None:
    async with nobody_listens() as endpoint, controlled(folder, tunnel(own_papers, endpoint)) as (proxy, _):
        [before] = (await status_of(proxy))["tunnels"]
        own_papers.identity.key.write_bytes(b"-----BEGIN nothing")
        [result] = (await reload_of(proxy))["tunnels"]
        assert (result["name"], result["ok"], result["serial"]) == ("reporting", False, before["identity"]["serial"])
        assert result["error"]["code"].startswith("MTLS-ID-")
        [told] = (await status_of(proxy))["tunnels"]
        assert told["state"] == "serving"
        assert told["error"].items() >= result["error"].items()
        assert datetime.fromisoformat(told["error"]["at"]) <= datetime.now(UTC)
        own_papers.renew_client("renewed")
        [result] = (await reload_of(proxy))["tunnels"]
        assert (result["ok"], result["error"]) == (True, None)
        assert result["serial"] != before["identity"]["serial"]
        [told] = (await status_of(proxy))["tunnels"]
        assert (told["identity"]["serial"], "error" in told) == (result["serial"], False)


async def test_a_tunnel_that_did_not_start_says_which_certificate_it_waits_for(
    own_papers: Papers, papers: Papers, folder: Path, tmp_path: Path
) -> None:
    hidden = own_papers.identity.cert.rename(tmp_path / "hidden")
    async with nobody_listens() as endpoint:
        both = tunnel(papers, endpoint, name="good"), tunnel(own_papers, endpoint, name="bad")
        async with controlled(folder, *both) as (proxy, _):
            _, told = (await status_of(proxy))["tunnels"]
            assert (told["state"], told["error"]["code"]) == ("failed", "MTLS-ID-001")
            assert told["identity"]["cert"] == str(own_papers.identity.cert)
            assert (told["identity"]["serial"], told["identity"]["due"]) == (None, None)
            _, result = (await reload_of(proxy))["tunnels"]
            assert (result["ok"], result["serial"]) == (False, None)
            hidden.rename(own_papers.identity.cert)
            _, result = (await reload_of(proxy))["tunnels"]
            assert result["ok"] is True


async def test_when_an_identity_is_due(papers: Papers) -> None:
    async with nobody_listens() as endpoint:
        wish = hours(1)
        identity = replace(papers.identity, renew_before=wish)
        async with running_proxy(tunnel(papers, endpoint, identity=identity)) as here:
            ends = here.proxy.tunnels[0].identity
            assert ends is not None
            started = Started(SOURCE)
            for early, due in ((2, False), (0.5, True), (-1, True)):
                facts = status(here.proxy, started, now=ends.not_after - timedelta(hours=early))
                assert facts["tunnels"][0]["identity"]["due"] is due
            assert facts["config"] == str(SOURCE)


async def test_a_client_that_got_no_connection_is_told_until_one_gets_it(papers: Papers, folder: Path) -> None:
    async with (
        fake_upstream(papers) as upstream,
        controlled(folder, tunnel(papers, upstream.endpoint)) as (proxy, here),
    ):
        [told] = (await status_of(proxy))["tunnels"]
        assert told["upstream_error"] is None
        parts = here.proxy.tunnels[0]._parts
        working = parts.dialler
        async with nobody_listens() as nowhere:
            parts.dialler = replace(working, endpoints=(nowhere,))
            async with here.connect() as client:
                await client.send(STARTUP)
                assert "MTLS-NET-002" in (await client.error()).message
        [told] = (await status_of(proxy))["tunnels"]
        assert told["upstream_error"]["code"] == "MTLS-NET-002"
        assert datetime.fromisoformat(told["upstream_error"]["at"]).tzinfo is not None
        parts.dialler = working
        async with here.connect() as client:
            await client.login()
            [told] = (await status_of(proxy))["tunnels"]
            assert told["upstream_error"] is None


async def test_a_file_that_was_changed_since_the_start_is_told(tmp_path: Path) -> None:
    source = tmp_path / "mtlskit.toml"
    source.write_text("[tunnel.a]\n")
    started = Started(source)
    assert await started.outdated() is False
    source.write_text("[tunnel.a]\n")  # written anew as it was
    os.utime(source, (1, 1))
    assert await started.outdated() is False
    source.write_text("[tunnel.another]\n")
    assert await started.outdated() is True
    source.unlink()
    assert await started.outdated() is True
    assert await Started(None).outdated() is False


# Reloading.


async def test_a_request_during_a_reload_sees_a_read_that_began_after_it(
    own_papers: Papers, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reload has read the old files and hangs; whoever asks then must not be given its result."""
    entered, release = Event(), Event()
    real = load_snapshot

    def slow(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        entered.set()
        assert release.wait(PATIENCE)
        return found

    async with nobody_listens() as endpoint, controlled(folder, tunnel(own_papers, endpoint)) as (proxy, here):
        old = here.proxy.tunnels[0].identity.serial
        monkeypatch.setattr(loading_module, "load_snapshot", slow)
        serials: dict[str, str] = {}

        async def ask_for_reload(who: str) -> None:
            serials[who] = (await reload_of(proxy))["tunnels"][0]["serial"]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_for_reload, "first")
            await trio.to_thread.run_sync(entered.wait)
            own_papers.renew_client("renewed")
            for who in ("second", "third", "fourth"):
                nursery.start_soon(ask_for_reload, who)
            await here.events.wait_for(ControlAsked, 4)
            here.proxy.request_reload()  # a signal
            release.set()
        new = here.proxy.tunnels[0].identity.serial
        assert new != old
        assert serials == {"first": old, "second": new, "third": new, "fourth": new}
        assert len(here.events.of(IdentityLoaded)) == 3  # the start, the first, and one for all the others


async def test_a_client_that_leaves_does_not_break_the_reload_off(own_papers: Papers, folder: Path) -> None:
    async with nobody_listens() as endpoint, controlled(folder, tunnel(own_papers, endpoint)) as (proxy, here):
        async with await trio.open_unix_socket(str(proxy.path)) as stream:
            await stream.send_all(b'{"v": 1, "do": "reload"}\n')
        await here.events.wait_for(IdentityLoaded, 2)


# Stopping.


async def test_a_stop_lets_the_sessions_finish_and_a_second_one_changes_nothing(papers: Papers, folder: Path) -> None:
    async with (
        fake_upstream(papers) as upstream,
        controlled(folder, tunnel(papers, upstream.endpoint)) as (proxy, here),
    ):
        async with here.connect() as client:
            await client.login()
            for _ in range(2):
                answer = await stop(proxy, wait=False)
                assert (answer["sessions"], answer["seconds"]) == (1, 30.0)
            facts = await status_of(proxy)
            assert (facts["draining"], facts["tunnels"][0]["state"]) == (True, "draining")
            with pytest.raises(ControlError, match="is stopping") as caught:
                await reload_of(proxy)
            assert caught.value.code is Code.CTL_STOPPING
            assert not here.events.of(DrainFinished)
            await client.send(frame(b"X", b""))
            assert await client.read_to_end() == b""
        assert (await here.events.wait_for(DrainFinished)).cut == 0


async def test_whoever_waits_for_the_end_is_told_of_it(
    papers: Papers, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtlskit.control.client._exists", lambda pid: False)  # we are that process
    async with nobody_listens() as endpoint, controlled(folder, tunnel(papers, endpoint)) as (proxy, here):
        with trio.fail_after(PATIENCE):
            assert (await stop(proxy))["ended"] is True
            await here.events.wait_for(DrainFinished)
    assert await running(folder) == []


async def test_the_folder_that_was_named_must_do_before_anything_is_opened(papers: Papers, tmp_path: Path) -> None:
    events = EventLog()
    async with nobody_listens() as endpoint:
        config = ProxyConfig((tunnel(papers, endpoint),))
        with pytest.raises(ConfigError, match="cannot be made"):
            await run_proxy(config, emit=events, control=Place(tmp_path / "absent" / "folder", explicit=True))
    assert not events.seen


async def test_the_status_can_be_had_before_the_tunnels_have_started(
    papers: Papers, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs at the start is what somebody would like to know of."""
    release = Event()
    real = load_snapshot

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert release.wait(PATIENCE)
        return real(*args, **kwargs)

    monkeypatch.setattr(loading_module, "load_snapshot", slow)
    place = Place(folder)
    async with nobody_listens() as endpoint, trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_proxy, ProxyConfig((tunnel(papers, endpoint),)), control=place))
        await trio.testing.wait_all_tasks_blocked()
        facts = await ask(place.socket_of(os.getpid()), {"do": "status"})
        assert facts["tunnels"][0]["state"] == "new"
        release.set()
        await ask(place.socket_of(os.getpid()), {"do": "stop"})
