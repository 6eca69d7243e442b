"""What a proof is worth: servers that would answer anybody, kinds of keys that a server does not take, and how long a
proof lasts."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import cycle

import pytest

from mtlskit.config.values import (
    Endpoint,
    Hooks,
    IdentityConfig,
    IssuerConfig,
    IssuerKind,
    TcpAddress,
    Timeouts,
    TunnelConfig,
    TunnelKind,
)
from mtlskit.errors import Code
from mtlskit.lifecycle.prove import Proof, prove_tunnel
from mtlskit.lifecycle.target import Outcome
from mtlskit.net import first_answer as proving
from mtlskit.net.dial import Dialler, Route, Upstream
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.wire.postgres.messages import error_response
from tests.services.pki import Pair, Pki
from tests.services.postgres import PostgresServer
from tests.services.settings import ServerOptions
from tests.support.dialling import server_context
from tests.support.fake_upstream import WELCOME
from tests.support.rotating import DAY, World
from tests.support.rotations import done, failed
from tests.support.s_server import s_server
from tests.support.tls_servers import Handler, answering, listening, waiting

LONG = 20.0
VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"]
)
SCRAM = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"
NO_CERTIFICATE = error_response(sqlstate="28000", message="connection requires a valid client certificate")
NO_INSISTING = "does not insist on a client certificate"

MakePostgres = Callable[..., PostgresServer]


def tunnel(pki: Pki, port: int, *, kind: TunnelKind = TunnelKind.POSTGRES, pair: Pair | None = None) -> TunnelConfig:
    pair = pair or pki.client
    return TunnelConfig(
        name="sales",
        kind=kind,
        listen=TcpAddress("127.0.0.1", 0),
        upstream=(Endpoint("localhost", port),),
        identity=IdentityConfig("reporting", pair.cert, pair.key, pki.server_ca),
        timeouts=Timeouts(dial=LONG),
    )


async def proof_of(config: TunnelConfig) -> Proof:
    [proof] = await prove_tunnel(config, config.identity, now=datetime.now(UTC))
    return proof


def asking(pki: Pki, world: World, mode: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> ssl.SSLContext:
    """What a server asks of its clients that trusts the identity's issuer."""
    context = server_context(pki)
    context.load_verify_locations(cadata=world.authority.cert_pem.decode("ascii"))
    context.verify_mode = mode
    return context


def judging(context: ssl.SSLContext, judge: Callable[[str], bytes]) -> Handler:
    """A Postgres that says what `judge` says of the serial of the client's certificate, empty for none."""

    def then(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            shown = tls.getpeercert() or {}
            tls.recv(4096)
            tls.sendall(judge(str(shown.get("serialNumber", "")).lower().lstrip("0")))
            waiting(tls)

    return answering(b"S", then)


def unproved(world: World, outcome: Outcome, before: str, *words: str) -> None:
    failed(outcome, "prove", Code.PROOF_FAILED)
    assert world.current.facts.serial == before
    for word in words:
        assert word in outcome.told


# Servers that ask for no certificate, or insist on none.


async def test_a_postgres_that_asks_for_one(postgres: PostgresServer, pki: Pki) -> None:
    """Strangers get through the handshake, and are refused afterwards."""
    proof = await proof_of(tunnel(pki, postgres.port))
    assert (proof.error, proof.note) == (None, "")
    assert "SCRAM" in proof.answer


async def test_a_postgres_that_asks_for_none(make_postgres: MakePostgres, pki: Pki) -> None:
    hba = ("local all all trust", "hostssl all all all scram-sha-256")
    server = make_postgres(ServerOptions(hba=hba, settings={"ssl_ca_file": "", "ssl_crl_file": ""}))
    proof = await proof_of(tunnel(pki, server.port))
    assert proof.error is None
    assert NO_INSISTING in proof.note


async def test_a_postgres_that_refuses_the_user_whoever_asks(make_postgres: MakePostgres, pki: Pki) -> None:
    server = make_postgres(ServerOptions(hba=("local all all trust", "hostssl all nobody 127.0.0.1/32 cert")))
    config = tunnel(pki, server.port)
    [proof] = await prove_tunnel(config, config.identity, now=datetime.now(UTC), old=config.identity)
    assert proof.error is None
    assert "refuses the user client with this certificate and without one: that proves little" in proof.note


@VERSIONS
@pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
async def test_tcp_servers_that_take_anybody_or_not(pki: Pki, mode: ssl.VerifyMode, version: ssl.TLSVersion) -> None:
    context = server_context(pki)
    context.verify_mode = mode
    context.minimum_version = context.maximum_version = version

    def greeting(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            tls.sendall(b"220 hello\r\n")
            waiting(tls)

    with listening(greeting) as port:
        proof = await proof_of(tunnel(pki, port, kind=TunnelKind.TCP))
    assert proof.error is None
    assert (NO_INSISTING in proof.note) is (mode is not ssl.CERT_REQUIRED)


async def test_what_proves_nothing_is_noted_and_does_not_stop_a_rotation(pki: Pki, world: World) -> None:
    done(await world.rotate())
    with listening(judging(asking(pki, world, ssl.CERT_NONE), lambda serial: WELCOME)) as port:
        world.tunnels = (tunnel(pki, port),)
        outcome = done(await world.rotate())
    [note] = outcome.notes
    assert note.startswith(f"tunnel sales: localhost:{port} {NO_INSISTING}")


# A key whose signatures the server does not take: OpenSSL shows no certificate then.


ED25519 = IssuerConfig(IssuerKind.COMMAND, subject="CN=client", key_type="ed25519")
EC_P256 = IssuerConfig(IssuerKind.COMMAND, subject="CN=client")


@contextmanager
def ecdsa_only(pki: Pki, world: World, *options: str) -> Iterator[int]:
    """Its port: OpenSSL's own server, for two connections."""
    ca = world.folder / "our-ca.crt"
    ca.write_bytes(world.authority.cert_pem)
    with s_server(pki, "-CAfile", ca, "-client_sigalgs", "ECDSA+SHA256", "-naccept", "2", *options) as server:
        yield server.port


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_server_that_takes_other_signatures_only(services: None, pki: Pki, world: World, version: str) -> None:
    first = done(await world.rotate())
    world.settings["issuer"] = ED25519
    with ecdsa_only(pki, world, version) as port:
        world.tunnels = (tunnel(pki, port, kind=TunnelKind.TCP),)
        unproved(world, await world.rotate(), first.serial, f"localhost:{port}")
    world.settings["issuer"] = EC_P256
    with ecdsa_only(pki, world, version) as port:
        world.tunnels = (tunnel(pki, port, kind=TunnelKind.TCP),)
        assert done(await world.rotate(fresh=True)).notes == ()


async def test_a_server_that_takes_other_signatures_or_nothing(
    services: None, pki: Pki, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not insist, so the new pair gets through without being shown."""
    monkeypatch.setattr(proving, "_SILENCE", 0.2)
    world.settings["issuer"] = ED25519
    with ecdsa_only(pki, world, "-verify", "2") as port:
        world.tunnels = (tunnel(pki, port, kind=TunnelKind.TCP),)
        [note] = done(await world.rotate()).notes
    assert NO_INSISTING in note


async def test_a_postgres_that_was_shown_nothing(pki: Pki, world: World) -> None:
    """It answers the new pair as it does nobody, and the old one otherwise."""
    first = done(await world.rotate())
    with listening(
        judging(asking(pki, world), lambda serial: SCRAM if serial == first.serial else NO_CERTIFICATE)
    ) as port:
        world.tunnels = (tunnel(pki, port),)
        outcome = await world.rotate()
        unproved(world, outcome, first.serial, "and not as it does to the old one", "requires a valid client cert")
    assert outcome.error is not None
    assert "key_type" in outcome.error.hint


async def test_a_postgres_that_says_the_same_to_everybody(pki: Pki, world: World) -> None:
    done(await world.rotate())
    with listening(judging(asking(pki, world), lambda serial: NO_CERTIFICATE)) as port:
        world.tunnels = (tunnel(pki, port),)
        outcome = done(await world.rotate())
    [note] = outcome.notes
    assert note.endswith("with this certificate and without one: that proves little")


async def test_a_postgres_that_refuses_strangers(pki: Pki, world: World) -> None:
    done(await world.rotate())
    seen: list[str] = []

    def judge(serial: str) -> bytes:
        seen.append(serial)
        return SCRAM if serial else NO_CERTIFICATE

    with listening(judging(asking(pki, world), judge)) as port:
        world.tunnels = (tunnel(pki, port),)
        outcome = done(await world.rotate())
    assert outcome.notes == ()
    assert seen == [outcome.serial, ""]


async def test_answers_are_compared_address_by_address(pki: Pki, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to another server each time: what one says of a stranger tells nothing of the other."""
    done(await world.rotate())
    asked: list[str] = []

    def judge(name: str) -> Callable[[str], bytes]:
        def said(serial: str) -> bytes:
            asked.append(name)
            return error_response(sqlstate="28000", message=f"no pg_hba.conf entry, says {name}")

        return said

    context = asking(pki, world)
    with listening(judging(context, judge("one"))) as one, listening(judging(context, judge("two"))) as two:
        ports = cycle((one, two))

        async def dial(dialler: Dialler, snapshot: IdentitySnapshot) -> Upstream:
            [endpoint] = dialler.endpoints
            return await dialler.dial_route(Route(endpoint, "127.0.0.1", next(ports)), snapshot)

        monkeypatch.setattr(Dialler, "dial", dial)
        world.tunnels = (tunnel(pki, one),)
        [note] = done(await world.rotate()).notes
    assert "proves little" in note
    assert asked == ["one"] * 3


async def test_an_old_certificate_that_has_expired_is_no_witness(pki: Pki, world: World) -> None:
    world.now, now = world.now - 5 * DAY, world.now
    world.issuer.lifetime = DAY
    done(await world.rotate())
    world.now, world.issuer.lifetime = now, 90 * DAY
    with listening(judging(asking(pki, world), lambda serial: NO_CERTIFICATE)) as port:
        world.tunnels = (tunnel(pki, port),)
        outcome = done(await world.rotate())
    assert "proves little" in outcome.notes[0]


# A proof does not last until another run.


class Turncoat:
    """A Postgres that trusts the identity's issuer until it is told to trust another one."""

    def __init__(self, pki: Pki, world: World) -> None:
        ours, theirs = asking(pki, world, ssl.CERT_REQUIRED), server_context(pki)
        self.trusts = True
        self._judges = {
            True: judging(ours, lambda serial: SCRAM),
            False: judging(theirs, lambda serial: SCRAM),
        }

    def __call__(self, client: socket.socket) -> None:
        self._judges[self.trusts](client)


@pytest.mark.parametrize("prove", [True, False])
async def test_what_an_earlier_run_has_proved_or_not_is_proved_again(pki: Pki, world: World, prove: bool) -> None:
    first = done(await world.rotate())
    server = Turncoat(pki, world)
    with listening(server) as port:
        world.tunnels = (tunnel(pki, port),)
        world.hooks = Hooks(before_switch=("/bin/false",))
        left = failed(await world.rotate(prove=prove), "before_switch", Code.HOOK_FAILED)
        world.hooks = Hooks()
        server.trusts = False
        unproved(world, await world.rotate("due", only_if_due=True), first.serial, "tunnel sales")
        server.trusts = True
        outcome = done(await world.rotate("due", only_if_due=True))
    assert (outcome.rotation, len(world.issuer.orders)) == (left.rotation, 2)
    assert world.journal.rotations()[-1].facts("prove")["proofs"][0][1] == f"localhost:{port}"


async def test_what_was_not_to_be_proved_is_not_when_asked_again(pki: Pki, world: World) -> None:
    server = Turncoat(pki, world)
    server.trusts = False
    with listening(server) as port:
        world.tunnels = (tunnel(pki, port),)
        world.hooks = Hooks(before_switch=("/bin/false",))
        failed(await world.rotate(prove=False), "before_switch", Code.HOOK_FAILED)
        world.hooks = Hooks()
        done(await world.rotate(prove=False))


async def test_after_the_switch_nothing_is_proved_any_more(pki: Pki, world: World) -> None:
    """It would help nobody: what is left is to tell the proxies."""
    server = Turncoat(pki, world)
    with listening(server) as port:
        world.tunnels = (tunnel(pki, port),)
        world.proxies.fault = world.cannot(Code.NOT_SERVED)
        failed(await world.rotate(), "tell", Code.NOT_SERVED)
        world.proxies.fault, server.trusts = None, False
        done(await world.rotate())
