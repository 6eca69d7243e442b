"""The proof at Kafka brokers: they must answer whoever shows the new pair, and may not answer whoever shows nothing."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mtlskit.config.values import (
    Endpoint,
    IdentityConfig,
    TcpAddress,
    Timeouts,
    TunnelConfig,
    TunnelKind,
    Verify,
    VerifyMode,
)
from mtlskit.errors import Code
from mtlskit.lifecycle.prove import Proof, prove_tunnel
from mtlskit.lifecycle.rotate import rotate
from mtlskit.lifecycle.target import Result, Wanted
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_settings import KafkaOptions
from tests.services.pki import Pair, Pki
from tests.support.dialling import server_context
from tests.support.rotating import World
from tests.support.tls_servers import Handler, listening, waiting

ADDON = "kafka-rigid-4711"
NOTHING_SPOKEN = struct.pack("!ihi", 1, 0, 0)
"""The answer to ApiVersions 0: correlation id, no error, no api keys."""

MakeKafka = Callable[..., KafkaCluster]


def tunnel(pki: Pki, *upstream: Endpoint, pair: Pair | None = None, **settings: Any) -> TunnelConfig:
    pair = pair or pki.client
    identity = IdentityConfig("events", pair.cert, pair.key, pki.server_ca)
    defaults: dict[str, Any] = {"verify": Verify(VerifyMode.CA), "timeouts": Timeouts(dial=20.0)}
    listen = TcpAddress("127.0.0.1", 0)
    return TunnelConfig("events", TunnelKind.KAFKA, listen, upstream, identity, **(defaults | settings))


def brokers(cluster: KafkaCluster) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(host, port) for host, port in cluster.brokers.values())


async def proofs(config: TunnelConfig) -> list[Proof]:
    return list(await prove_tunnel(config, config.identity, now=datetime.now(UTC)))


async def test_real_brokers_are_asked_one_by_one(each_kafka: KafkaCluster, pki: Pki) -> None:
    where = brokers(each_kafka)
    found = await proofs(tunnel(pki, *where))
    assert [(proof.endpoint, proof.answer, proof.note) for proof in found] == [
        (str(endpoint), "takes the certificate, and answers as a Kafka broker", "") for endpoint in where
    ]
    # Java has its handshake done first, and says no after ours.
    [proof] = await proofs(tunnel(pki, where[0], pair=pki.client_stranger))
    assert proof.error is not None
    assert (proof.refused, proof.shaken) == (True, True)


async def test_a_rotation_is_proved_where_heroku_says(make_kafka: MakeKafka, pki: Pki, tmp_path: Path) -> None:
    world = World.make(tmp_path)
    trusted = tmp_path / "our-ca.crt"
    trusted.write_bytes(world.authority.cert_pem)
    friend = make_kafka(KafkaOptions(node_ids=(1001,), client_ca=trusted))
    world.tunnels = (tunnel(pki, addon=ADDON),)

    async def endpoints(config: TunnelConfig) -> tuple[Endpoint, ...]:
        assert (config.addon, config.kind) == (ADDON, TunnelKind.KAFKA)
        return brokers(friend)

    outcome = await rotate(world.target, replace(world.tools(), endpoints=endpoints), Wanted("asked for"))
    assert outcome.result is Result.ROTATED
    assert outcome.notes == ()
    shown = [visit.identity for visit in friend.visits(1001)]
    assert "CN=client" in shown
    assert len(shown) > 1, "without a certificate as well"


# Brokers of our own.


def broker(pki: Pki, answer: bytes, *, insists: bool = True) -> Handler:
    context = server_context(pki)
    context.verify_mode = ssl.CERT_REQUIRED if insists else ssl.CERT_OPTIONAL

    def handle(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            request = tls.recv(4096)
            assert request[4:12] == struct.pack("!hhi", 18, 0, 1)
            tls.sendall(answer[:5])  # not all at once
            tls.sendall(answer[5:])
            waiting(tls)

    return handle


def framed(frame: bytes) -> bytes:
    return struct.pack("!i", len(frame)) + frame


async def test_a_broker_that_answers_anybody_proves_nothing(pki: Pki) -> None:
    with listening(broker(pki, framed(NOTHING_SPOKEN), insists=False)) as port:
        [proof] = await proofs(tunnel(pki, Endpoint("localhost", port)))
    assert proof.error is None
    assert "does not insist on a client certificate" in proof.note


@pytest.mark.parametrize(
    "answer", [framed(struct.pack("!ihi", 2, 0, 0)), framed(struct.pack("!ihi", 1, 35, 0)), b"HTTP/1.1 400 No\r\n\r\n"]
)
async def test_what_is_no_broker_takes_nothing(pki: Pki, answer: bytes) -> None:
    with listening(broker(pki, answer)) as port:
        [proof] = await proofs(tunnel(pki, Endpoint("localhost", port)))
    assert proof.error is not None
    assert (proof.error.code, proof.refused) == (Code.KAFKA_SERVER_RUBBISH, True)


async def test_a_broker_that_hangs_up_refuses(pki: Pki) -> None:
    context = server_context(pki)

    def handle(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            tls.recv(4096)

    with listening(handle) as port:
        [proof] = await proofs(tunnel(pki, Endpoint("localhost", port)))
    assert proof.error is not None
    assert (proof.error.code, proof.refused) == (Code.UPSTREAM_CLOSED, True)


async def test_a_broker_that_says_nothing_is_out_of_reach(pki: Pki) -> None:
    def silent(client: socket.socket) -> None:
        with server_context(pki).wrap_socket(client, server_side=True) as tls:
            waiting(tls)

    with listening(silent) as port:
        [proof] = await proofs(tunnel(pki, Endpoint("localhost", port), timeouts=Timeouts(dial=1.0)))
    assert proof.error is not None
    assert (proof.error.code, proof.refused) == (Code.TLS_TIMEOUT, False)
