"""The proof before the switch: what servers say to a certificate, and what a rotation makes of it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from mtlskit.config.values import (
    Endpoint,
    IdentityConfig,
    Negotiation,
    TcpAddress,
    Timeouts,
    TunnelConfig,
    TunnelKind,
    Verify,
    VerifyMode,
)
from mtlskit.errors import Code
from mtlskit.lifecycle.prove import Proof, files_of, prove_tunnel
from mtlskit.lifecycle.target import Outcome, Result
from mtlskit.net import first_answer as proving
from mtlskit.net.dial import POSTGRES_ALPN
from mtlskit.pki.authority import Authority
from mtlskit.wire.postgres.messages import error_response
from tests.services.pki import Pair, Pki
from tests.services.postgres import PostgresServer
from tests.services.settings import ServerOptions
from tests.support.dialling import server_context
from tests.support.fake_upstream import WELCOME
from tests.support.rotating import World
from tests.support.tls_servers import Handler, answering, closed_port, full_backlog, listening, waiting

NOW = datetime.now(UTC)
LONG = 20.0
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])

MakePostgres = Callable[..., PostgresServer]


def tunnel(pki: Pki, *ports: int, name: str = "sales", pair: Pair | None = None, **settings: Any) -> TunnelConfig:
    pair = pair or pki.client
    identity = IdentityConfig("reporting", pair.cert, pair.key, pki.server_ca)
    defaults: dict[str, Any] = {"kind": TunnelKind.POSTGRES, "verify": Verify(VerifyMode.FULL)}
    endpoints = tuple(Endpoint("localhost", port) for port in ports)
    timeouts = settings.pop("timeouts", Timeouts(dial=LONG))
    return TunnelConfig(
        name=name,
        listen=TcpAddress("127.0.0.1", 0),
        upstream=endpoints,
        identity=identity,
        timeouts=timeouts,
        **(defaults | settings),
    )


async def proofs(config: TunnelConfig) -> list[Proof]:
    found = await prove_tunnel(config, config.identity, now=NOW)
    assert [proof.endpoint for proof in found] == [str(endpoint) for endpoint in config.upstream]
    assert all((proof.error is None) == bool(proof.answer) for proof in found)
    return list(found)


async def refusal(config: TunnelConfig) -> Code:
    """The code of the only proof, which is a refusal."""
    [proof] = await proofs(config)
    assert proof.refused, proof
    assert proof.error is not None
    return proof.error.code


# PostgreSQL.


async def test_postgres_takes_it(each_postgres: PostgresServer, pki: Pki) -> None:
    before = each_postgres.log().count("password authentication failed")
    [proof] = await proofs(tunnel(pki, each_postgres.port))
    assert proof.answer == "takes the certificate, and asks for SCRAM-SHA-256-PLUS or SCRAM-SHA-256"
    assert each_postgres.log().count("password authentication failed") == before, "no password is sent"
    [proof] = await proofs(tunnel(pki, each_postgres.port, pair=pki.certuser))
    assert proof.answer.startswith("takes the certificate, and ")


async def test_postgres_takes_it_and_refuses_the_user(make_postgres: MakePostgres, pki: Pki) -> None:
    server = make_postgres(ServerOptions(hba=("local all all trust", "hostssl all nobody all cert")))
    [proof] = await proofs(tunnel(pki, server.port))
    assert proof.answer.startswith("takes the certificate, and refuses the user client: no pg_hba.conf entry for host")


@pytest.mark.parametrize("tls_max", ["TLSv1.2", "TLSv1.3"])
async def test_postgres_refuses_the_ca(make_postgres: MakePostgres, pki: Pki, tls_max: str) -> None:
    server = make_postgres(ServerOptions(tls_max=tls_max))
    assert await refusal(tunnel(pki, server.port, pair=pki.client_stranger)) is Code.TLS_CLIENT_CA_UNKNOWN
    assert await refusal(tunnel(pki, server.port, pair=pki.client_revoked)) is Code.TLS_CLIENT_CERTIFICATE_REVOKED


async def test_postgres_with_direct_tls(make_postgres: MakePostgres, pki: Pki) -> None:
    server = make_postgres(major=18)
    [proof] = await proofs(tunnel(pki, server.port, negotiation=Negotiation.DIRECT))
    assert "SCRAM" in proof.answer
    config = tunnel(pki, server.port, negotiation=Negotiation.DIRECT, pair=pki.client_stranger)
    assert await refusal(config) is Code.TLS_CLIENT_CA_UNKNOWN


async def test_a_postgres_of_yesterday(make_postgres: MakePostgres, pki: Pki) -> None:
    server = make_postgres(ServerOptions(certificate=pki.server_expired))
    assert await refusal(tunnel(pki, server.port)) is Code.TLS_SERVER_EXPIRED
    server = make_postgres(ServerOptions(certificate=pki.server_stranger))
    assert await refusal(tunnel(pki, server.port)) is Code.TLS_CHAIN_NOT_TRUSTED


# Servers of other kinds.


def context_for(pki: Pki, version: ssl.TLSVersion = TLS13, *, alpn: str | None = None) -> ssl.SSLContext:
    context = server_context(pki, alpn=alpn)
    context.minimum_version = context.maximum_version = version
    return context


def shaking(context: ssl.SSLContext, then: Handler = lambda client: None) -> Handler:
    """A TLS server; `then` goes on when the handshake is done."""

    def handle(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            then(tls)

    return handle


def hearing(client: socket.socket) -> None:
    """Hangs up after the client's first words."""
    client.recv(4096)


def saying(words: bytes) -> Handler:
    def handle(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(words)
        waiting(client)

    return handle


@VERSIONS
async def test_a_tcp_server_that_takes_it(pki: Pki, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "_SILENCE", 0.2)
    context = context_for(pki, version)

    def greeting(client: socket.socket) -> None:
        client.sendall(b"220 hello\r\n")
        waiting(client)

    for then in (waiting, greeting):
        with listening(shaking(context, then)) as port:
            [proof] = await proofs(tunnel(pki, port, kind=TunnelKind.TCP))
        assert proof.answer == "takes the certificate"


@VERSIONS
async def test_a_tcp_server_that_refuses_it(pki: Pki, version: ssl.TLSVersion) -> None:
    # Under TLS 1.3 our handshake is done by then, and the alert comes after it.
    with listening(shaking(context_for(pki, version))) as port:
        config = tunnel(pki, port, kind=TunnelKind.TCP, pair=pki.client_stranger)
        assert await refusal(config) is Code.TLS_CLIENT_CA_UNKNOWN


async def test_a_tcp_server_that_hangs_up(pki: Pki) -> None:
    with listening(shaking(context_for(pki))) as port:
        assert await refusal(tunnel(pki, port, kind=TunnelKind.TCP)) is Code.UPSTREAM_CLOSED


@VERSIONS
async def test_a_postgres_protocol_that_refuses_it(pki: Pki, version: ssl.TLSVersion) -> None:
    with listening(answering(b"S", shaking(context_for(pki, version)))) as port:
        assert await refusal(tunnel(pki, port, pair=pki.client_stranger)) is Code.TLS_CLIENT_CA_UNKNOWN


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (WELCOME, "takes the certificate, and lets client in"),
        (b"R\0\0\0\x0c\0\0\0\x05salt", "takes the certificate, and asks for authentication"),
        (
            b"R\0\0\0\x1c\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0",
            "takes the certificate, and asks for SCRAM-SHA-256-PLUS",
        ),
        (
            error_response(sqlstate="53300", message="sorry, too many clients"),
            "takes the certificate, and refuses the user client: sorry, too many clients (53300)",
        ),
    ],
)
async def test_what_a_postgres_says(pki: Pki, words: bytes, answer: str) -> None:
    with listening(answering(b"S", shaking(context_for(pki), saying(words)))) as port:
        [proof] = await proofs(tunnel(pki, port))
    assert proof.answer == answer


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_what_is_no_postgres(pki: Pki, words: bytes) -> None:
    def handle(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(words)

    with listening(answering(b"S", shaking(context_for(pki), handle))) as port:
        [proof] = await proofs(tunnel(pki, port))
    assert proof.error is not None
    assert proof.error.code is (Code.PG_SERVER_RUBBISH if words else Code.UPSTREAM_CLOSED)


async def test_a_server_that_says_nothing(pki: Pki) -> None:
    with listening(answering(b"S", shaking(context_for(pki), waiting))) as port:
        [proof] = await proofs(tunnel(pki, port, timeouts=Timeouts(dial=2.0)))
    assert proof.error is not None
    assert proof.error.code is Code.TLS_TIMEOUT
    assert not proof.refused


async def test_a_server_that_cannot_be_reached(pki: Pki) -> None:
    with closed_port() as closed, full_backlog() as hole:
        [one, two] = await proofs(tunnel(pki, closed, hole, timeouts=Timeouts(dial=1.0)))
    assert one.error is not None
    assert one.error.code is Code.TCP_REFUSED
    assert two.error is not None
    assert two.error.code is Code.TCP_TIMEOUT
    assert not one.refused
    assert not two.refused


async def test_direct_tls_agrees_on_the_protocol(pki: Pki) -> None:
    with listening(shaking(context_for(pki, alpn=POSTGRES_ALPN), saying(WELCOME))) as port:
        [proof] = await proofs(tunnel(pki, port, negotiation=Negotiation.DIRECT))
    assert proof.error is None


# What a rotation makes of it.


@contextmanager
def servers(pki: Pki, world: World, *handlers: str) -> Iterator[list[int]]:
    """Servers by name: one that trusts the identity's issuer, one that trusts another, one that is not there."""
    ours = context_for(pki)
    ours.load_verify_locations(cadata=world.authority.cert_pem.decode("ascii"))
    made = {
        "trusts": lambda: listening(answering(b"S", shaking(ours, saying(WELCOME)))),
        "refuses": lambda: listening(answering(b"S", shaking(context_for(pki)))),
        "hangs up": lambda: listening(answering(b"S", shaking(ours, hearing))),
        "down": closed_port,
    }
    with ExitStack() as stack:
        yield [stack.enter_context(made[name]()) for name in handlers]


def unproved(outcome: Outcome, *words: str) -> None:
    assert (outcome.result, outcome.step) == (Result.FAILED, "prove"), outcome
    assert outcome.error is not None
    assert outcome.error.code is Code.PROOF_FAILED
    assert "--fresh" in outcome.error.hint
    for word in words:
        assert word in outcome.told


async def test_a_failed_proof_leaves_the_old_certificate_in_use(pki: Pki, world: World) -> None:
    first = await world.rotate()
    with servers(pki, world, "refuses") as ports:
        world.tunnels = (tunnel(pki, *ports),)
        for _ in range(2):
            unproved(await world.rotate(), "tunnel sales", "the old one goes on serving", "MTLS-TLS-010")
    assert world.current.facts.serial == first.serial
    assert len(world.issuer.orders) == 2
    with servers(pki, world, "trusts") as ports:
        world.tunnels = (tunnel(pki, *ports),)
        outcome = await world.rotate()
    assert (outcome.result, outcome.version, len(world.issuer.orders)) == (Result.ROTATED, 2, 2)
    assert world.audit()[2:] == ["rotation begun", "failed", "failed", "rotated"]


async def test_a_first_certificate_that_is_refused_is_not_used(pki: Pki, world: World) -> None:
    with servers(pki, world, "refuses") as ports:
        world.tunnels = (tunnel(pki, *ports),)
        unproved(await world.rotate(), "it is not used")
        assert world.stored.current() is None
        assert (await world.rotate(prove=False)).result is Result.ROTATED


async def test_an_endpoint_that_is_down_is_noted(pki: Pki, world: World) -> None:
    with servers(pki, world, "down", "trusts") as ports:
        world.tunnels = (tunnel(pki, *ports),)
        outcome = await world.rotate()
    assert outcome.result is Result.ROTATED
    [note] = outcome.notes
    assert note.startswith(f"could not be proved at localhost:{ports[0]}: ")
    [rotation] = world.journal.rotations()
    assert [proof[1] for proof in rotation.facts("prove")["proofs"]] == [f"localhost:{ports[1]}"]


async def test_an_endpoint_that_refuses_counts_more_than_one_that_takes_it(pki: Pki, world: World) -> None:
    with servers(pki, world, "trusts", "refuses") as ports:
        world.tunnels = (tunnel(pki, *ports),)
        unproved(await world.rotate(), str(ports[1]))


async def test_nobody_can_be_asked(pki: Pki, world: World) -> None:
    with servers(pki, world, "down", "down") as ports:
        world.tunnels = (tunnel(pki, *ports),)
        unproved(await world.rotate(), str(ports[0]), "MTLS-NET-002")


async def test_an_endpoint_that_ends_the_connection_without_a_word_refuses(pki: Pki, world: World) -> None:
    with servers(pki, world, "trusts", "hangs up") as ports:
        world.tunnels = (tunnel(pki, *ports),)
        unproved(await world.rotate(), str(ports[1]), "without saying why")


async def test_each_tunnel_has_a_say(pki: Pki, world: World) -> None:
    with servers(pki, world, "trusts", "refuses") as (good, bad):
        world.tunnels = (tunnel(pki, good, name="one"), tunnel(pki, bad, name="two"))
        unproved(await world.rotate(), "tunnel two")
        world.tunnels = world.tunnels[:1]
        assert (await world.rotate()).result is Result.ROTATED


async def test_what_is_wrong_for_every_tunnel_is_one_outcome(pki: Pki, world: World, tmp_path: Path) -> None:
    """The CA file that they share is missing."""
    pki = Pki(**(vars(pki) | {"server_ca": tmp_path / "none.pem"}))
    world.tunnels = (tunnel(pki, 1, name="one"), tunnel(pki, 1, name="two"))
    outcome = await world.rotate()
    assert (outcome.result, outcome.step) == (Result.FAILED, "prove")
    assert outcome.error is not None
    assert outcome.error.code is Code.FILE_MISSING
    assert str(tmp_path / "none.pem") in outcome.told


async def test_real_postgres_before_and_after_it_trusts_us(make_postgres: MakePostgres, pki: Pki, world: World) -> None:
    stranger = make_postgres()
    world.tunnels = (tunnel(pki, stranger.port),)
    unproved(await world.rotate(), "MTLS-TLS-010")
    (world.folder / "our-ca.crt").write_bytes(world.authority.cert_pem)
    friend = make_postgres(ServerOptions(client_ca=world.folder / "our-ca.crt"))
    world.tunnels = (tunnel(pki, friend.port),)
    assert (await world.rotate()).result is Result.ROTATED


def test_the_files_of_a_version_stand_in_for_those_of_current(world: World, tmp_path: Path) -> None:
    from mtlskit.store.identities import Version, VersionFacts

    version = Version(7, tmp_path / "versions" / "0007", VersionFacts("ca", "1", "CN=a", "", "", "", ""))
    world.settings["ca"] = world.identity.cert.parent / "root.crt"
    moved = files_of(world.identity, version)
    assert (moved.cert, moved.key, moved.ca) == tuple(
        version.folder / name for name in ("client.crt", "client.key", "root.crt")
    )
    world.settings["ca"] = tmp_path / "root.crt"
    assert files_of(world.identity, version).ca == tmp_path / "root.crt"


@pytest.mark.parametrize(("name", "user"), [("reporting", "reporting"), ("x" * 64, "mtlskit"), ("a\tb", "mtlskit")])
async def test_the_user_that_is_asked_for(pki: Pki, world: World, name: str, user: str) -> None:
    seen: list[bytes] = []

    def handle(client: socket.socket) -> None:
        seen.append(client.recv(4096))
        client.sendall(WELCOME)
        waiting(client)

    ours = Authority.create("another", now=NOW)
    issued = ours.issue_client(name, now=NOW) if name != "a\tb" else None
    if issued is None:
        from tests.support.x509_builder import DAY, make_certificate

        made = make_certificate(name, begins=NOW - DAY, ends=NOW + DAY)
        cert, key, anchor = made.cert_pem, made.key_pem, made.cert_pem
    else:
        cert, key, anchor = issued.cert_pem, issued.key_pem, ours.cert_pem
    pair = Pair(world.folder / "c.crt", world.folder / "c.key")
    pair.cert.write_bytes(cert)
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(key)
    context = context_for(pki)
    context.load_verify_locations(cadata=anchor.decode("ascii"))
    with listening(answering(b"S", shaking(context, handle))) as port, trio.fail_after(LONG):
        [proof] = await proofs(tunnel(pki, port, pair=pair))
    assert proof.answer == f"takes the certificate, and lets {user} in"
    assert f"user\0{user}\0database\0{user}\0".encode() in seen[0]
