"""One handshake, and what the server showed in it, however it ended.

OpenSSL hands the server's messages over as they come (`SSLContext._msg_callback`, in CPython since 3.8), decrypted
under TLS 1.3; so it is known whether the server asks for a certificate, and of which CAs, even where the handshake
fails later. Where that is missing, these facts are unknown, and the rest is as it was.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import trio
from cryptography import x509

from mtlskit.config.values import Endpoint, Negotiation, TunnelKind
from mtlskit.doctor.tls import messages
from mtlskit.errors import IdentityError, UpstreamError
from mtlskit.net.connect import open_socket
from mtlskit.net.dial import POSTGRES_ALPN, Route, ask_for_tls
from mtlskit.net.faults import HANDSHAKE, closed_early, tcp_fault, tls_fault, tls_silence
from mtlskit.net.names import Address
from mtlskit.net.tls import TlsConnection, TlsEngine
from mtlskit.pki.certificates import decode_certificate

__all__ = ["MAX_PRESENTED", "Handshake", "Target", "shake"]

_HANDSHAKE = 22
"""The record's content type (RFC 8446 section 5.1)."""

MAX_PRESENTED: Final = 10
"""Certificates of a server that are looked at. An honest chain has two to five; OpenSSL takes 100 kB of any."""


@dataclass(frozen=True)
class Target:
    """One address, and how TLS begins there."""

    endpoint: Endpoint
    address: Address
    kind: TunnelKind
    negotiation: Negotiation = Negotiation.SSLREQUEST
    server_name: str | None = None
    """For SNI, and for what a context compares names with."""
    source: str | None = None

    def __str__(self) -> str:
        return str(Route(self.endpoint, self.address[1][0], self.endpoint.port))

    @property
    def direct(self) -> bool:
        """A Postgres that is spoken to without an SSLRequest."""
        return self.kind is TunnelKind.POSTGRES and self.negotiation is Negotiation.DIRECT

    @property
    def alpn(self) -> tuple[str, ...]:
        """What a ClientHello has to offer there."""
        return (POSTGRES_ALPN,) if self.direct else ()


@dataclass(frozen=True)
class Handshake:
    """What was seen. What is empty or None was not shown, or cannot be known."""

    done: bool
    seconds: float
    error: UpstreamError | OSError | None = None
    """Why it is not done; None with `done` false: time was up."""
    version: str = ""
    """Chosen by the server, for instance ``TLSv1.3``."""
    cipher: str = ""
    """OpenSSL's name."""
    alpn: str | None = None
    chain: tuple[x509.Certificate, ...] = ()
    unreadable: int = 0
    """Certificates presented that cannot be read; they are not in `chain`."""
    more: int = 0
    """Certificates presented that are not looked at, behind the first `MAX_PRESENTED`."""
    asks: bool | None = None
    """Whether the server asks for a client certificate."""
    ca_names: tuple[str, ...] = ()
    played: bool = False
    """The server has sent all of its part, so what follows is about ours: our certificate, or that there is none."""

    @property
    def answered(self) -> bool:
        """There was a ServerHello."""
        return bool(self.done or self.version or self.chain)

    @property
    def silent(self) -> bool:
        """The time was up."""
        return not self.done and self.error is None

    def fault(self, target: Target, seconds: float, verify: Any, trust: str = "", leaf: Any = None) -> UpstreamError:
        """Why it is not done, in words."""
        where = str(target)
        match self.error:
            case None:
                return tls_silence(where, HANDSHAKE, seconds)
            case UpstreamError():
                return self.error
            case ssl.SSLEOFError() | ConnectionResetError():
                return closed_early(where, "during the TLS handshake")
            case ssl.SSLError():
                return tls_fault(where, self.error, verify, trust=trust, leaf=leaf)
            case _:
                return tcp_fault(where, self.error)


async def shake(target: Target, context: ssl.SSLContext, *, deadline: float, record: bool = True) -> Handshake:
    """Connect, shake hands, and close. Never raises for what the server does.

    `deadline` by trio's clock. `record` puts a callback into the context, which must then be nobody else's.
    """
    heard = _Heard()
    if record:
        heard.listen(context)
    began = trio.current_time()
    error: UpstreamError | OSError | None = None
    engine: TlsEngine | None = None
    done = False
    with trio.move_on_at(deadline):
        try:
            with await open_socket(*target.address, target.source) as sock:
                if target.kind is TunnelKind.POSTGRES and not target.direct:
                    await ask_for_tls(sock, str(target))
                engine = TlsEngine(context, server_hostname=target.server_name)
                engine.belong_to(heard)
                await TlsConnection(sock, engine).handshake()
                done = True
        except (UpstreamError, OSError) as exc:  # ssl.SSLError is an OSError
            error = exc
    return heard.told(done, trio.current_time() - began, error, engine, context)


class _Heard:
    """The messages that matter, as the callback gets them."""

    def __init__(self) -> None:
        self._hello: messages.Hello | None = None
        self._asks = False
        self._names: tuple[str, ...] = ()
        self._played = False
        self._listening = False

    def listen(self, context: ssl.SSLContext) -> None:
        with suppress(AttributeError):
            context._msg_callback = self._message  # type: ignore[attr-defined]  # not in typeshed
            self._listening = True

    def _message(self, _conn: Any, direction: str, _version: Any, content: Any, kind: Any, data: bytes) -> None:
        if direction != "read" or content != _HANDSHAKE:
            return
        with suppress(ValueError):
            self._take(int(kind), data)

    def _take(self, kind: int, data: bytes) -> None:
        if kind == messages.SERVER_HELLO:
            self._hello = messages.server_hello(data)
        elif kind == messages.CERTIFICATE_REQUEST:
            self._asks = True
            version = self._hello.version if self._hello else ""
            if version in ("TLSv1.2", "TLSv1.3"):
                self._names = messages.requested_cas(data, tls13=version == "TLSv1.3")
        elif kind in (messages.SERVER_HELLO_DONE, messages.FINISHED):
            self._played = True

    def told(
        self,
        done: bool,
        seconds: float,
        error: UpstreamError | OSError | None,
        engine: TlsEngine | None,
        context: ssl.SSLContext,
    ) -> Handshake:
        encoded = engine.presented_chain() if engine is not None else ()
        looked_at = encoded[:MAX_PRESENTED]
        chain = _decoded(looked_at)
        return Handshake(
            done=done,
            seconds=seconds,
            error=error,
            version=engine.version if engine and done else self._hello.version if self._hello else "",
            cipher=_cipher(context, self._hello) if self._hello else "",
            alpn=engine.alpn if engine and done else None,
            chain=chain,
            unreadable=len(looked_at) - len(chain),
            more=len(encoded) - len(looked_at),
            asks=self._asks if self._listening and (done or self._played) else None,
            ca_names=self._names,
            played=done or self._played,
        )


def _decoded(presented: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    chain: list[x509.Certificate] = []
    for certificate in presented:
        with suppress(IdentityError):
            chain.append(decode_certificate(certificate, where="", source=""))
    return tuple(chain)


def _cipher(context: ssl.SSLContext, hello: messages.Hello) -> str:
    """OpenSSL's name, or the number where this context does not have it."""
    names = {cipher["id"] & 0xFFFF: cipher["name"] for cipher in context.get_ciphers()}
    return str(names.get(hello.cipher, f"{hello.cipher:#06x}"))
