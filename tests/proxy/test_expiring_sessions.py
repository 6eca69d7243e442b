"""A tunnel with `expiring_sessions = "drain"`, before a server that answers as it is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from mtlskit.config.values import ExpiringSessions, Login, TunnelKind
from mtlskit.proxy import expiry
from mtlskit.proxy.events import SessionClosed, SessionExpired, SessionsExpiring, SessionsKept
from mtlskit.telemetry import Level
from mtlskit.wire.postgres.messages import frame
from tests.support.addons import ADDON, FakeLookup, credential_at
from tests.support.fake_upstream import PATIENCE, READY, WELCOME, Papers, ServerSide, echo, fake_upstream
from tests.support.scram_server import Scram
from tests.support.tunnels import STARTUP, RawClient, Running, running_proxy, tunnel
from tests.support.warm_peers import until

QUERY = frame(b"Q", b"select 1\0")
SYNC = frame(b"S", b"")
DONE = frame(b"C", b"done\0")
IN_TRANSACTION = frame(b"Z", b"T")
DRAIN: dict[str, Any] = {"expiring_sessions": ExpiringSessions.DRAIN}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than every second, and take next to nothing for a rest."""
    monkeypatch.setattr(expiry, "_TICK", 0.01)
    monkeypatch.setattr(expiry, "_REST", 0.001)


@pytest.fixture
def ending(own_papers: Papers) -> Papers:
    """Papers with a client certificate that ends in some minutes: it is time to drain its sessions."""
    began = datetime.now(UTC) - timedelta(hours=2)
    issued = own_papers.authority.issue_client("old", now=began, lifetime=timedelta(hours=2, minutes=4))
    (own_papers.folder / "client.pem").write_bytes(issued.cert_pem)
    (own_papers.folder / "client.key").write_bytes(issued.key_pem)
    return own_papers


async def renew(running: Running, papers: Papers) -> None:
    papers.renew_client("new")
    await running.proxy.reload()


async def told_to_reconnect(client: RawClient) -> None:
    error = await client.error()
    assert (error.severity, error.sqlstate) == ("FATAL", "57P01")
    assert "connect again" in error.hint


class Server:
    """Echoes, and notes who came, and what came after the last message of each."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.rest: list[bytes] = []

    async def __call__(self, server: ServerSide) -> None:
        await server.open()
        self.names.append(server.client_name)
        await server.send(WELCOME)
        self.rest.append(await self.talk(server))

    async def talk(self, server: ServerSide) -> bytes:
        await echo(server)  # to the Terminate
        return await server.until_closed()


async def test_an_idle_session_is_ended_once_there_is_a_newer_certificate(ending: Papers) -> None:
    server = Server()
    async with fake_upstream(ending, server) as upstream:
        async with running_proxy(tunnel(ending, upstream.endpoint, **DRAIN)) as running, running.connect() as client:
            await client.login()
            await client.send(QUERY)
            await client.until_ready()
            assert (await running.events.wait_for(SessionsKept)).sessions == 1
            await renew(running, ending)
            await told_to_reconnect(client)
            expired = await running.events.wait_for(SessionExpired)
            expiring = await running.events.wait_for(SessionsExpiring)
            assert (expired.user, expired.database, expired.level) == ("ann", "sales", Level.INFO)
            assert expired.serial == expiring.serial
            assert "at a quiet point" in expired.sentence()
            assert (await running.events.wait_for(SessionClosed)).ending == "expired"
            async with running.connect() as again:
                await again.login()
                await again.send(QUERY)
                await again.until_ready()
        await upstream.all_closed()
    assert server.names == ["old", "new"]
    assert server.rest[0] == b"", "nothing after the Terminate"


async def test_a_transaction_is_never_cut(ending: Papers) -> None:
    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(WELCOME)
        for answer in (DONE + IN_TRANSACTION, DONE + IN_TRANSACTION, DONE + READY):
            await server.read_exactly(len(QUERY))
            await server.send(answer)
        assert await server.read_exactly(5) == frame(b"X", b"")

    async with fake_upstream(ending, script) as upstream:
        async with running_proxy(tunnel(ending, upstream.endpoint, **DRAIN)) as running, running.connect() as client:
            await client.login()
            await client.send(QUERY)
            await client.until_ready()
            await renew(running, ending)
            await running.events.wait_for(SessionsExpiring)
            await client.send(QUERY)
            assert (await client.until_ready())[-1].body == b"T"
            await client.send(QUERY)
            assert (await client.until_ready())[-1].body == b"I"
            await told_to_reconnect(client)
        await upstream.all_closed()


@pytest.mark.parametrize("warm", [0, 1])
async def test_what_was_sent_before_the_login_was_over_is_waited_for(ending: Papers, warm: int) -> None:
    answering = trio.Event()

    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(WELCOME)
        assert await server.read_exactly(len(QUERY + SYNC)) == QUERY + SYNC
        await server.send(DONE + READY)
        await answering.wait()
        await server.send(READY)
        assert await server.read_exactly(5) == frame(b"X", b"")

    async with fake_upstream(ending, script) as upstream:
        config = tunnel(ending, upstream.endpoint, warm=warm, **DRAIN)
        async with running_proxy(config) as running, running.connect() as client:
            await client.login(STARTUP + QUERY + SYNC)
            assert (await client.until_ready())[-1].body == b"I"
            await renew(running, ending)
            await running.events.wait_for(SessionsExpiring)
            answering.set()
            assert [message.kind for message in await client.until_ready()] == [b"Z"]
            await told_to_reconnect(client)


async def test_sessions_that_we_have_logged_in_ourselves_are_ended_as_well(ending: Papers) -> None:
    async def asks_for_the_password(server: ServerSide) -> None:
        await server.open()
        assert await Scram(server, "s3cret").whole()
        await server.send(WELCOME)
        await echo(server)

    async with fake_upstream(ending, asks_for_the_password) as upstream:
        lookup = FakeLookup(credential_at(upstream.endpoint, user="u17", password="s3cret"))
        config = tunnel(ending, addon=ADDON, login=Login.HEROKU, **DRAIN)
        async with running_proxy(config, lookup=lookup) as running, running.connect() as client:
            await client.login(STARTUP + QUERY)
            assert [message.kind for message in await client.until_ready()] == [b"D", b"Z"]
            await renew(running, ending)
            await told_to_reconnect(client)


async def test_by_default_they_are_kept(ending: Papers) -> None:
    async with (
        fake_upstream(ending) as upstream,
        running_proxy(tunnel(ending, upstream.endpoint), tunnel(ending, upstream.endpoint, name="b", **DRAIN)) as run,
        run.connect() as kept,
        run.connect(1) as drained,
    ):
        await kept.login()
        await drained.login()
        await renew(run, ending)
        await told_to_reconnect(drained)
        await drained.stream.aclose()
        assert (await run.events.wait_for(SessionExpired)).tunnel == "b"
        await kept.send(QUERY)
        await kept.until_ready()
        assert len(run.events.of(SessionExpired)) == 1


@pytest.mark.parametrize(("kind", "warm"), [(TunnelKind.POSTGRES, 0), (TunnelKind.POSTGRES, 1), (TunnelKind.TCP, 0)])
async def test_who_is_still_arriving_is_counted_for_the_certificate_in_use(
    ending: Papers, kind: TunnelKind, warm: int
) -> None:
    """A certificate may be revoked when nobody is counted for it."""
    dialled, go_on = trio.Event(), trio.Event()

    async def slow(server: ServerSide) -> None:
        if warm:
            await server.open()
        dialled.set()
        await go_on.wait()

    async with fake_upstream(ending, slow) as upstream:
        config = tunnel(ending, upstream.endpoint, kind=kind, warm=warm)
        async with running_proxy(config) as running:
            (only,) = running.proxy.tunnels
            if warm:
                await until(lambda: only.warm_counts is not None and only.warm_counts.made == 1)
            async with running.connect() as client:
                if kind is TunnelKind.POSTGRES:
                    await until(lambda: (only.sessions_by_serial, only.undecided) == ({}, 1))
                    await client.send(STARTUP)
                with trio.fail_after(PATIENCE):
                    await dialled.wait()
                assert only.identity is not None
                old = only.identity.serial
                await renew(running, ending)
                assert (only.sessions_by_serial, only.undecided) == ({old: 1}, 0)
                go_on.set()


async def test_sessions_are_counted_by_the_certificate_they_were_opened_with(ending: Papers) -> None:
    async with (
        fake_upstream(ending) as upstream,
        running_proxy(tunnel(ending, upstream.endpoint)) as running,
        running.connect() as first,
    ):
        (only,) = running.proxy.tunnels
        await first.login()
        assert only.identity is not None
        old = only.identity.serial
        assert only.sessions_by_serial == {old: 1}
        await renew(running, ending)
        new = only.identity.serial
        async with running.connect() as second, running.connect() as third:
            await second.login()
            await third.login()
            assert only.sessions_by_serial == {old: 1, new: 2}
        await running.events.wait_for(SessionClosed, 2)
        assert only.sessions_by_serial == {old: 1}
        with trio.fail_after(PATIENCE):
            await first.stream.aclose()
            await running.idle()
        assert only.sessions_by_serial == {}
