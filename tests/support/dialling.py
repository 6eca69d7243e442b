"""Diallers for the tests, and what a dial must look like when it fails or works."""

from __future__ import annotations

import ssl

import pytest

from mtlskit.config.values import Endpoint, IdentityConfig, Negotiation, TunnelKind, Verify, VerifyMode
from mtlskit.errors import UpstreamError
from mtlskit.net.dial import POSTGRES_ALPN, Dialler, Route
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from tests.services.pki import Pair, Pki

TIMEOUT = 20.0
CA = Verify(VerifyMode.CA)
FULL = Verify()


def snapshot(pki: Pki, *, verify: Verify = FULL, pair: Pair | None = None, direct: bool = False) -> IdentitySnapshot:
    pair = pair or pki.client
    alpn = (POSTGRES_ALPN,) if direct else ()
    return load_snapshot(IdentityConfig("test", pair.cert, pair.key, pki.server_ca), verify=verify, alpn=alpn)


def dialler_for(
    *ports: int,
    host: str = "localhost",
    kind: TunnelKind = TunnelKind.POSTGRES,
    negotiation: Negotiation = Negotiation.SSLREQUEST,
    pins: tuple[bytes, ...] = (),
    timeout: float = TIMEOUT,
) -> Dialler:
    return Dialler(kind, tuple(Endpoint(host, port) for port in ports), negotiation, pins, timeout)


def server_context(pki: Pki, pair: Pair | None = None, *, alpn: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = pair or pki.server
    context.load_cert_chain(pair.cert, pair.key)
    context.load_verify_locations(pki.client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


async def refused(dialler: Dialler, identity: IdentitySnapshot) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await dialler.dial(identity)
    assert "\n" not in caught.value.sentence
    assert caught.value.hint
    assert dialler.endpoints[-1].host in caught.value.sentence
    return caught.value


async def echoes(dialler: Dialler, identity: IdentitySnapshot) -> Route:
    upstream = await dialler.dial(identity)
    await upstream.tls.send_all(b"hello")
    assert await upstream.tls.receive_some() == b"hello"
    upstream.tls.close()
    assert upstream.identity is identity
    return upstream.route
