"""Logging in for a client, against a server that a test plays: what each side gets to see, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.serialization import Encoding

from mtlskit.config.values import Login
from mtlskit.pki.authority import Authority
from mtlskit.pki.keys import KeyType
from mtlskit.proxy import behalf
from mtlskit.proxy.events import LoginRefused, SessionFailed, SessionOpened
from mtlskit.wire.postgres.messages import (
    authentication_ok,
    authentication_sasl,
    authentication_sasl_final,
    error_response,
    frame,
)
from mtlskit.wire.postgres.scram import SCRAM, SCRAM_PLUS
from mtlskit.wire.postgres.startup import StartupReader, StartupReceived
from tests.support.addons import ADDON, FakeLookup, credential_at
from tests.support.fake_upstream import KEY, PARAMETER, READY, WELCOME, Papers, ServerSide, echo, fake_upstream
from tests.support.scram_server import Scram, end_point
from tests.support.tunnels import STARTUP, Running, running_proxy, tunnel
from tests.support.warm_peers import until
from tests.support.warm_tunnels import QUERY, openings, pool_of, works

PASSWORD = "s3cret"
NOTICE = frame(b"N", b"SNOTICE\0C00000\0Mhello\0\0")

Answer = Callable[[ServerSide, Scram], Awaitable[None]]


class Server:
    """Answers each login as told, the last answer again for those who come later."""

    def __init__(self, *answers: Answer, password: str = PASSWORD, binding: bytes | None = None) -> None:
        self._answers = answers
        self.password = password
        self._binding = binding
        self.startups: list[StartupReceived] = []
        self.mechanisms: list[str] = []

    async def __call__(self, server: ServerSide) -> None:
        await server.begin_tls()
        reader = StartupReader()
        reader.receive(await server.read_packet())
        opening = reader.next_event()
        assert isinstance(opening, StartupReceived)
        self.startups.append(opening)
        scram = Scram(server, self.password, binding=self._binding)
        try:
            await self._answers[min(len(self.startups), len(self._answers)) - 1](server, scram)
        finally:
            self.mechanisms.append(scram.mechanism)


async def welcomes(server: ServerSide, scram: Scram) -> None:
    if await scram.whole():
        await server.send(WELCOME)
        await echo(server)


@asynccontextmanager
async def logging_in(papers: Papers, script: Server, **settings: Any) -> AsyncIterator[tuple[Running, FakeLookup]]:
    async with fake_upstream(papers, script) as upstream:
        lookup = FakeLookup(credential_at(upstream.endpoint, user="u17", password=PASSWORD, database="d4f8"))
        chosen: dict[str, Any] = {"addon": ADDON, "login": Login.HEROKU} | settings
        async with running_proxy(tunnel(papers, **chosen), lookup=lookup) as running:
            yield running, lookup


async def test_the_client_is_asked_nothing(papers: Papers) -> None:
    script = Server(welcomes)
    async with logging_in(papers, script) as (running, _), running.connect() as client:
        received = await client.login()
        assert b"".join(frame(each.kind, each.body) for each in received) == WELCOME
        await works(client)
    [opening] = script.startups
    assert opening.parameters == {"user": "u17", "database": "sales"}
    [opened] = running.events.of(SessionOpened)
    assert (opened.user, opened.database) == ("u17", "sales")
    assert PASSWORD not in repr([*running.events.seen, *(event.sentence() for event in running.events.seen)])


async def test_a_certificate_is_bound_to_where_the_server_can(papers: Papers) -> None:
    certificate = (papers.folder / "server.pem").read_bytes()
    script = Server(welcomes, binding=end_point(certificate))
    async with logging_in(papers, script) as (running, _):
        async with running.connect() as client:
            await client.login()
        await running.idle()
        await until(lambda: bool(script.mechanisms))
    assert script.mechanisms == [SCRAM_PLUS]


async def test_another_certificate_than_the_servers_own_is_noticed(papers: Papers) -> None:
    script = Server(welcomes, binding=b"of another certificate")
    async with logging_in(papers, script) as (running, _), running.connect() as client:
        await client.send(STARTUP)
        assert (await client.error()).sqlstate == "28P01"


@pytest.mark.parametrize(
    ("certificate", "bound"), [(None, False), (b"damaged", False), (KeyType.ED25519, False), (KeyType.EC_P256, True)]
)
def test_what_can_be_bound_to(certificate: KeyType | bytes | None, bound: bool) -> None:
    leaf: Any = certificate
    if isinstance(certificate, KeyType):
        leaf = Authority.create("CA", now=datetime.now(UTC), kind=certificate).certificate.public_bytes(Encoding.DER)
    assert (behalf.binding_of(leaf) is not None) == bound


def test_a_signature_that_nobody_knows_is_not_bound_to() -> None:
    leaf = Authority.create("CA", now=datetime.now(UTC)).certificate.public_bytes(Encoding.DER)
    ecdsa_with_sha256 = bytes.fromhex("2a8648ce3d040302")
    assert leaf.count(ecdsa_with_sha256) == 2
    assert behalf.binding_of(leaf.replace(ecdsa_with_sha256, ecdsa_with_sha256[:-1] + b"\x7f")) is None


async def test_notices_come_in_their_order_and_nothing_before_we_are_in(papers: Papers) -> None:
    let_in = trio.Event()

    async def hesitates(server: ServerSide, scram: Scram) -> None:
        await server.send(NOTICE)
        await scram.whole()
        await let_in.wait()
        await server.send_in_pieces(*(bytes([byte]) for byte in authentication_ok()), NOTICE + PARAMETER + KEY + READY)
        await server.until_closed()

    async with logging_in(papers, Server(hesitates)) as (running, _), running.connect() as client:
        await client.send(STARTUP)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.move_on_after(0) as scope:
            await client.stream.receive_some()
        assert scope.cancelled_caught
        let_in.set()
        kinds = [message.kind for message in await client.until_ready()]
        assert kinds == [b"N", b"R", b"N", b"S", b"K", b"Z"]


async def test_what_a_client_sends_too_early_does_not_get_between(papers: Papers) -> None:
    async def checks(server: ServerSide, scram: Scram) -> None:
        assert await scram.whole()  # reads the answers to its own messages only
        await server.send(WELCOME)
        await echo(server)

    async with logging_in(papers, Server(checks)) as (running, _), running.connect() as client:
        await client.login(STARTUP + QUERY)
        assert (await client.message()).kind == b"D"


async def test_a_client_that_leaves_meanwhile(papers: Papers) -> None:
    gone = trio.Event()

    async def waits(server: ServerSide, scram: Scram) -> None:
        try:
            await scram.challenge()
            await server.until_closed()
        finally:
            gone.set()

    async with logging_in(papers, Server(waits)) as (running, _):
        async with running.connect() as client:
            await client.send(STARTUP)
        with trio.fail_after(20):
            await gone.wait()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"R", b"\0\0\0\x03"), "MTLS-PG-012"),
        (frame(b"R", b"\0\0\0\x05salt"), "MTLS-PG-012"),
        (authentication_sasl(["OAUTHBEARER"]), "MTLS-PG-012"),
        (frame(b"D", b""), "MTLS-PG-008"),
        (authentication_sasl([SCRAM]) + authentication_ok(), "MTLS-PG-013"),
        (authentication_sasl([SCRAM]) + authentication_sasl_final(b"v=AAAA"), "MTLS-PG-008"),
    ],
)
async def test_a_server_that_is_not_one_to_log_in_to(papers: Papers, data: bytes, code: str) -> None:
    told: list[bytes] = []

    async def answers(server: ServerSide, scram: Scram) -> None:
        await server.send(data)
        told.append(await server.until_closed())

    async with logging_in(papers, Server(answers)) as (running, _):
        async with running.connect() as client:
            await client.send(STARTUP)
            assert code in (await client.error()).message
        assert (await running.events.wait_for(SessionFailed)).code == code
    assert PASSWORD.encode() not in b"".join(told)


async def test_a_server_that_goes_away_in_the_middle_says_so(papers: Papers) -> None:
    async def leaves(server: ServerSide, scram: Scram) -> None:
        await scram.challenge()
        server.reset()

    async with logging_in(papers, Server(leaves)) as (running, _), running.connect() as client:
        await client.send(STARTUP)
        assert (await client.error()).sqlstate == "08006"


async def test_a_refused_credential_is_told_in_the_servers_words(papers: Papers) -> None:
    script = Server(welcomes, password="another")
    async with logging_in(papers, script) as (running, lookup):
        async with running.connect() as client:
            await client.send(STARTUP)
            assert (await client.error()).message == "password authentication failed"
        assert running.events.of(LoginRefused)[0].user == "u17"
        assert len(lookup.asked) == 2


@pytest.mark.parametrize("warm", [0, 1])
async def test_a_new_credential_is_used_at_once(papers: Papers, warm: int) -> None:
    script = Server(welcomes, password="another")
    async with logging_in(papers, script, warm=warm) as (running, lookup):
        if warm:
            await until(lambda: len(pool_of(running)) == 1)
        lookup.change(password="another")
        async with running.connect() as client:
            await client.login(STARTUP + QUERY)
            assert (await client.message()).kind == b"D"
        assert not running.events.of(LoginRefused)
        assert openings(running) == [bool(warm), False]


async def test_a_database_that_moves_while_we_dial(papers: Papers) -> None:
    """The old place gets the old credential, and its refusal is no reason to ask Heroku once more."""
    script = Server(welcomes, password="new")

    async def locked(server: ServerSide) -> None:
        lookup.change(port=new.endpoint.port, password="new")
        follower = running.proxy.tunnels[0].follower
        assert follower is not None
        await follower.refresh()
        await server.open()
        await server.send(error_response(sqlstate="28000", message="this role may not log in"))

    async with fake_upstream(papers, script) as new, fake_upstream(papers, locked) as old:
        lookup = FakeLookup(credential_at(old.endpoint, user="u17", password=PASSWORD, database="d4f8"))
        config = tunnel(papers, addon=ADDON, login=Login.HEROKU)
        async with running_proxy(config, lookup=lookup) as running, running.connect() as client:
            await client.login(STARTUP + QUERY)
            assert (await client.message()).kind == b"D"
        assert len(lookup.asked) == 2
        assert not running.events.of(LoginRefused)


async def test_it_begins_again_once_only(papers: Papers) -> None:
    async def refuses(server: ServerSide, scram: Scram) -> None:
        lookup.change(password=lookup.credential.password + "x")
        await server.send(error_response(sqlstate="28000", message="no"))

    script = Server(refuses)
    async with logging_in(papers, script) as (running, lookup), running.connect() as client:
        await client.send(STARTUP)
        assert (await client.error()).sqlstate == "28000"
    assert len(script.startups) == 2


async def test_other_refusals_are_nothing_to_ask_heroku_about(papers: Papers) -> None:
    async def refuses(server: ServerSide, scram: Scram) -> None:
        await scram.whole()
        await server.send(authentication_ok() + error_response(sqlstate="3D000", message="no such database"))

    async with logging_in(papers, Server(refuses)) as (running, lookup), running.connect() as client:
        await client.send(STARTUP)
        assert (await client.message()).kind == b"R"
        assert (await client.error()).sqlstate == "3D000"
        assert len(lookup.asked) == 1


async def dies_at_once(server: ServerSide, scram: Scram) -> None:
    server.reset()


async def dies_half_way(server: ServerSide, scram: Scram) -> None:
    await scram.challenge()


async def is_full(server: ServerSide, scram: Scram) -> None:
    await server.send(error_response(sqlstate="53300", message="sorry, too many clients already"))


@pytest.mark.parametrize("first", [dies_at_once, dies_half_way, is_full])
async def test_a_connection_made_in_advance_that_was_dead(papers: Papers, first: Answer) -> None:
    script = Server(first, welcomes)
    async with logging_in(papers, script, warm=1) as (running, _):
        await until(lambda: len(pool_of(running)) == 1)
        async with running.connect() as client:
            await client.login(STARTUP + QUERY)
            assert (await client.message()).kind == b"D"
        assert openings(running) == [True, False]


async def test_a_hundred_at_once(papers: Papers) -> None:
    async with logging_in(papers, Server(welcomes)) as (running, _), trio.open_nursery() as nursery:

        async def one() -> None:
            async with running.connect() as client:
                await client.login()
                await works(client)

        for _ in range(100):
            nursery.start_soon(one)
