"""The gateway byte by byte: odd clients in front of it, and a server behind it that does what a test tells it."""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing

from mtlskit.config.values import Endpoint, TcpAddress, UnixAddress
from mtlskit.net.listen import open_listeners
from mtlskit.sandbox.credentials import SpacePki
from mtlskit.sandbox.events import ChannelBindingVerified, ClientRefused, UpstreamFailed
from mtlskit.sandbox.gateway import ALPN, ANY_PORT, Gateway, GatewayConfig
from mtlskit.sandbox.tls import TlsStream
from mtlskit.sandbox.upstream import Upstream
from mtlskit.telemetry import Event
from mtlskit.wire.postgres.messages import (
    GSSENC_REQUEST,
    SSL_REQUEST,
    ErrorFields,
    authentication_ok,
    authentication_sasl,
    authentication_sasl_continue,
    authentication_sasl_final,
    cancel_request,
    error_response,
    frame,
    parse_error_fields,
    startup_message,
)
from mtlskit.wire.postgres.scram import SCRAM, SCRAM_PLUS, ScramClient, ScramKeys, ScramServer

STARTUP = startup_message({"user": "alice", "database": "db"})
READY = frame(b"Z", b"I")
Server = Callable[[trio.SocketStream], Awaitable[None]]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> SpacePki:
    folder = tmp_path_factory.mktemp("pki")
    return SpacePki.open(folder, server_names=["localhost", "127.0.0.1"], now=datetime.now(UTC))


@dataclass(frozen=True)
class Running:
    """A gateway before a scripted server."""

    gateway: Gateway
    address: TcpAddress
    pki: SpacePki
    events: list[Event]
    opened: list[trio.SocketStream]

    async def plain(self) -> trio.SocketStream:
        """A connection, which is closed at the end of the test."""
        stream = await trio.open_tcp_stream(self.address.host, self.address.port)
        self.opened.append(stream)
        return stream

    async def secure(self, *, direct: bool = False, alpn: str | None = ALPN) -> trio.SSLStream[trio.SocketStream]:
        stream = await self.plain()
        if not direct:
            await stream.send_all(SSL_REQUEST)
            assert await stream.receive_some(1) == b"S"
        return trio.SSLStream(
            stream, self.client_context(alpn), server_hostname=self.address.host, https_compatible=True
        )

    def client_context(self, alpn: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.pki.ca)
        context.load_cert_chain(self.pki.client.cert, self.pki.client.key)
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        return context

    def refusals(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, ClientRefused)]


@asynccontextmanager
async def gateway_before(
    pki: SpacePki, server: Server | None = None, *, upstream: Upstream | None = None, **config: object
) -> AsyncIterator[Running]:
    events: list[Event] = []

    async def handle(stream: trio.SocketStream) -> None:
        assert server is not None
        async with stream:
            await server(stream)

    async with trio.open_nursery() as nursery:
        if upstream is None:
            listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, handle, 0)
            upstream = Endpoint("127.0.0.1", listeners[0].socket.getsockname()[1])
        options = GatewayConfig(upstream, {"alice": "secret"}, **config)  # type: ignore[arg-type]
        gateway = Gateway(options, pki.server_tls(), emit=events.append)
        address: TcpAddress = await nursery.start(gateway.run, open_listeners(ANY_PORT))
        running = Running(gateway, address, pki, events, [])
        try:
            yield running
        finally:
            for stream in running.opened:
                await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()


class Reader:
    """Takes messages off a stream."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self._stream.receive_some()
            assert data, "the connection ended"
            self._buffer += bytes(data)
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    async def message(self) -> tuple[bytes, bytes]:
        head = await self.exactly(5)
        return head[:1], await self.exactly(struct.unpack("!I", head[1:])[0] - 4)

    async def packet(self) -> bytes:
        head = await self.exactly(4)
        return head + await self.exactly(struct.unpack("!I", head)[0] - 4)

    async def error(self) -> ErrorFields:
        kind, body = await self.message()
        assert kind == b"E"
        return parse_error_fields(body)

    async def end(self) -> None:
        assert not self._buffer
        with suppress(trio.BrokenResourceError):  # as good an end as any
            assert await self._stream.receive_some() == b""


async def unreachable_server(stream: trio.SocketStream) -> None:
    pytest.fail("the gateway must not dial for this client")


async def send_for_ever(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(bytes(65_536))


async def echo_after_login(stream: trio.SocketStream) -> None:
    """Trusts everybody, says back what it hears, and says goodbye after the client's end of file."""
    reader = Reader(stream)
    assert await reader.packet() == STARTUP
    await stream.send_all(authentication_ok() + READY)
    async for data in stream:
        await stream.send_all(data)
    await stream.send_all(b"goodbye")


class TestBeforeTls:
    async def test_gssapi_is_declined_and_tls_follows(self, pki: SpacePki) -> None:
        async with gateway_before(pki, echo_after_login) as running:
            stream = await running.plain()
            await stream.send_all(GSSENC_REQUEST)
            assert await stream.receive_some(1) == b"N"
            await stream.send_all(SSL_REQUEST)
            assert await stream.receive_some(10) == b"S"

    @pytest.mark.parametrize("request_packet", [SSL_REQUEST, GSSENC_REQUEST])
    @pytest.mark.parametrize("extra", [b"\0", STARTUP, b"\x16\x03\x01"])
    async def test_bytes_that_do_not_wait_are_refused(self, pki: SpacePki, request_packet: bytes, extra: bytes) -> None:
        async with gateway_before(pki, unreachable_server) as running:
            stream = await running.plain()
            await stream.send_all(request_packet + extra)
            fields = await Reader(stream).error()
            assert fields.sqlstate == "08P01"
            assert "unencrypted data" in fields.message

    async def test_a_request_in_single_bytes(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server) as running:
            stream = await running.plain()
            for byte in SSL_REQUEST:
                await stream.send_all(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            assert await stream.receive_some(10) == b"S"

    async def test_plain_text_is_refused(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server) as running:
            stream = await running.plain()
            await stream.send_all(STARTUP)
            fields = await Reader(stream).error()
            assert (fields.severity, fields.sqlstate) == ("FATAL", "28000")
            assert fields.message.endswith('user "alice", database "db", no encryption')

    async def test_a_plain_cancel_is_dropped(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server) as running:
            stream = await running.plain()
            await stream.send_all(cancel_request(1, b"abcd"))
            await Reader(stream).end()
            assert running.refusals() == ["a CancelRequest without TLS"]

    @pytest.mark.parametrize(
        "opening",
        [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x04", b"\0\0\0\x08\0\x02\0\0", b"\0\x01\0\0\0\x03\0\0", b"hello"],
    )
    async def test_rubbish_is_refused_and_the_next_client_is_served(self, pki: SpacePki, opening: bytes) -> None:
        async with gateway_before(pki, echo_after_login) as running:
            stream = await running.plain()
            await stream.send_all(opening)
            assert (await Reader(stream).error()).sqlstate == "08P01"
            secure = await running.secure()
            await secure.send_all(STARTUP)
            assert (await Reader(secure).message())[0] == b"R"

    async def test_a_health_check_is_no_refusal(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server) as running:
            stream = await running.plain()
            await stream.send_eof()
            await Reader(stream).end()
            assert running.refusals() == []

    async def test_a_client_that_says_nothing_is_cut_off(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server, handshake=0.05) as running:
            await Reader(await running.plain()).end()
            assert running.refusals() == ["it took too long"]

    async def test_a_client_that_stops_in_the_handshake_is_cut_off(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server, handshake=0.05) as running:
            stream = await running.plain()
            await stream.send_all(SSL_REQUEST)
            await Reader(stream).exactly(1)
            await Reader(stream).end()
            assert running.refusals() == ["it took too long"]

    async def test_a_full_gateway_says_so(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server, max_connections=1) as running:
            first = await running.plain()
            await first.send_all(GSSENC_REQUEST)
            await Reader(first).exactly(1)
            second = await running.plain()
            assert (await Reader(second).error()).sqlstate == "53300"


class TestTls:
    async def test_direct_tls(self, pki: SpacePki) -> None:
        async with gateway_before(pki, echo_after_login) as running:
            stream = await running.secure(direct=True)
            await stream.send_all(STARTUP)
            assert (await Reader(stream).message())[0] == b"R"

    async def test_direct_tls_demands_alpn(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server) as running:
            stream = await running.secure(direct=True, alpn=None)
            await stream.do_handshake()
            await Reader(stream).end()
            assert running.refusals() == ["direct TLS without the ALPN protocol postgresql"]

    async def test_a_second_ssl_request_inside_tls_is_refused(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server) as running:
            stream = await running.secure()
            await stream.send_all(SSL_REQUEST)
            assert (await Reader(stream).error()).sqlstate == "0A000"

    async def test_plain_bytes_in_place_of_a_handshake(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server) as running:
            stream = await running.plain()
            await stream.send_all(SSL_REQUEST)
            await Reader(stream).exactly(1)
            await stream.send_all(STARTUP)
            while await stream.receive_some():  # an alert, then the end
                pass
            assert "handshake failed" in running.refusals()[0]

    async def test_a_client_that_leaves_in_the_handshake(self, pki: SpacePki) -> None:
        async with gateway_before(pki, unreachable_server) as running:
            stream = await running.plain()
            await stream.send_all(SSL_REQUEST)
            await Reader(stream).exactly(1)
            await stream.send_eof()
            while await stream.receive_some():  # an alert, then the end
                pass
            assert running.refusals() == ["it broke off the TLS handshake"]

    async def test_a_cancel_goes_to_the_server_whole_and_the_client_is_held(self, pki: SpacePki) -> None:
        packet, release, got = cancel_request(7, b"k" * 32), trio.Event(), list[bytes]()

        async def server(stream: trio.SocketStream) -> None:
            got.append(await Reader(stream).packet())
            await release.wait()

        async with gateway_before(pki, server) as running, trio.open_nursery() as nursery:
            stream = await running.secure()
            await stream.send_all(packet)
            ended = trio.Event()

            async def wait() -> None:
                await Reader(stream).end()
                ended.set()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not ended.is_set()
            release.set()
            await ended.wait()
            assert got == [packet]


class TestForwarding:
    async def test_the_servers_last_words_follow_the_clients_close(self, pki: SpacePki) -> None:
        async with gateway_before(pki, echo_after_login) as running:
            plain = await running.plain()
            await plain.send_all(SSL_REQUEST)
            assert await plain.receive_some(1) == b"S"
            async with TlsStream.wrap(plain, running.client_context(), server_hostname="127.0.0.1") as stream:
                await stream.handshake()
                await stream.send_all(STARTUP)
                reader = Reader(stream)
                assert [(await reader.message())[0], (await reader.message())[0]] == [b"R", b"Z"]
                await stream.send_all(b"x" * 300_000)
                assert await reader.exactly(300_000) == b"x" * 300_000
                with pytest.raises(ssl.SSLWantReadError):
                    stream.socket.unwrap()  # sends close_notify, and does not wait for the gateway's
                assert await reader.exactly(7) == b"goodbye"
                await reader.end()

    async def test_a_connection_that_just_ends(self, pki: SpacePki) -> None:
        """Without a close_notify it may have been cut by anybody: nothing more is said over it."""
        ended = trio.Event()

        async def server(stream: trio.SocketStream) -> None:
            await echo_after_login(stream)
            ended.set()

        async with gateway_before(pki, server) as running:
            stream = await running.secure()
            await stream.send_all(STARTUP)
            assert (await Reader(stream).message())[0] == b"R"
            await stream.transport_stream.aclose()
            await ended.wait()

    async def test_bytes_sent_with_the_startup_message_are_kept(self, pki: SpacePki) -> None:
        async with gateway_before(pki, echo_after_login) as running:
            stream = await running.secure()
            await stream.send_all(STARTUP + b"too early")
            reader = Reader(stream)
            await reader.message()
            await reader.message()
            assert await reader.exactly(9) == b"too early"

    async def test_a_client_that_reads_late_gets_everything(self, pki: SpacePki) -> None:
        pattern = bytes(range(251)) * 4_000  # a length that fits no buffer

        async def server(stream: trio.SocketStream) -> None:
            await Reader(stream).packet()
            await stream.send_all(authentication_ok() + READY)
            for _ in range(20):
                await stream.send_all(pattern)

        async with gateway_before(pki, server) as running:
            stream = await running.secure()
            await stream.send_all(STARTUP)
            reader = Reader(stream)
            await reader.message()
            await reader.message()
            await trio.testing.wait_all_tasks_blocked(0.01)  # everybody waits for us to read
            for _ in range(20):
                assert await reader.exactly(len(pattern)) == pattern
            await reader.end()

    async def test_a_client_that_never_reads_and_leaves_frees_the_server(self, pki: SpacePki) -> None:
        freed = trio.Event()

        async def server(stream: trio.SocketStream) -> None:
            await Reader(stream).packet()
            await stream.send_all(authentication_ok() + READY)
            with pytest.raises(trio.BrokenResourceError):
                await send_for_ever(stream)
            freed.set()

        async with gateway_before(pki, server) as running:
            stream = await running.secure()
            await stream.send_all(STARTUP)
            await Reader(stream).message()
            await trio.testing.wait_all_tasks_blocked(0.01)
            await trio.aclose_forcefully(stream.transport_stream)
            await freed.wait()

    async def test_rubbish_after_the_login(self, pki: SpacePki) -> None:
        said = trio.Event()

        async def server(stream: trio.SocketStream) -> None:
            await Reader(stream).packet()
            await stream.send_all(authentication_ok())
            await said.wait()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await stream.receive_some()

        async with gateway_before(pki, server) as running:
            stream = await running.secure()
            await stream.send_all(STARTUP)
            reader = Reader(stream)
            assert (await reader.message())[0] == b"R"
            said.set()
            assert (await reader.error()).sqlstate == "08006"

    async def test_a_server_that_is_not_there(self, pki: SpacePki, tmp_path: Path) -> None:
        async with gateway_before(pki, upstream=UnixAddress(tmp_path / "nothing")) as running:
            stream = await running.secure()
            await stream.send_all(STARTUP)
            fields = await Reader(stream).error()
            assert (fields.severity, fields.sqlstate) == ("FATAL", "08006")
            assert fields.message.endswith("nothing, cannot be reached: there is no such socket")
            assert "whether the server is running" in fields.hint
            [failed] = [event for event in running.events if isinstance(event, UpstreamFailed)]
            assert fields.message in failed.reason

    @pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
    async def test_a_server_that_is_no_postgres(self, pki: SpacePki, answer: bytes) -> None:
        async def server(stream: trio.SocketStream) -> None:
            await Reader(stream).packet()
            await stream.send_all(answer)

        async with gateway_before(pki, server) as running:
            stream = await running.secure()
            await stream.send_all(STARTUP)
            assert (await Reader(stream).error()).sqlstate == "08006"


async def scram_server(stream: trio.SocketStream, *, split: bool = False) -> None:
    """The server's side of SCRAM-SHA-256, as PostgreSQL without TLS does it."""
    reader = Reader(stream)
    await reader.packet()

    async def send(data: bytes) -> None:
        for piece in [data[i : i + 1] for i in range(len(data))] if split else [data]:
            await stream.send_all(piece)
            await trio.lowlevel.checkpoint()

    server = ScramServer(ScramKeys.derive("secret", iterations=1), plus=False, binding=None)
    version_negotiation = frame(b"v", struct.pack("!II", 3 << 16, 1) + b"_pq_.x\0")
    await send(version_negotiation + authentication_sasl([SCRAM]))
    _, body = await reader.message()
    mechanism, _, rest = body.partition(b"\0")
    assert mechanism == SCRAM.encode()
    await send(authentication_sasl_continue(server.first(rest[4:])))
    _, final = await reader.message()
    await send(authentication_sasl_final(server.final(final)) + authentication_ok() + READY)
    await stream.receive_some()


def initial_response(mechanism: str, data: bytes) -> bytes:
    return frame(b"p", mechanism.encode() + b"\0" + struct.pack("!i", len(data)) + data)


class TestScram:
    async def offer(self, stream: trio.SSLStream[trio.SocketStream], startup: bytes = STARTUP) -> Reader:
        """Sends the StartupMessage and reads up to the offer, which must hold PLUS first."""
        await stream.send_all(startup)
        reader = Reader(stream)
        kind, body = await reader.message()
        if kind == b"v":
            kind, body = await reader.message()
        assert (kind, body[4:]) == (b"R", f"{SCRAM_PLUS}\0{SCRAM}\0\0".encode())
        return reader

    @pytest.mark.parametrize("split", [False, True])
    async def test_both_conversations_of_channel_binding(self, pki: SpacePki, split: bool) -> None:
        async with gateway_before(pki, lambda stream: scram_server(stream, split=split)) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            client = ScramClient("secret", binding=running.gateway.tls.binding)
            await stream.send_all(initial_response(SCRAM_PLUS, client.first()))
            _, challenge = await reader.message()
            await stream.send_all(frame(b"p", client.final(challenge[4:])))
            _, outcome = await reader.message()
            client.verify(outcome[4:])
            assert await reader.message() == (b"R", bytes(4))
            assert (await reader.message())[0] == b"Z"
            await trio.testing.wait_all_tasks_blocked()
            assert any(isinstance(event, ChannelBindingVerified) for event in running.events)

    async def test_a_client_without_channel_binding_passes_through(self, pki: SpacePki) -> None:
        async with gateway_before(pki, scram_server) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            client = ScramClient("secret")
            await stream.send_all(initial_response(SCRAM, client.first()))
            await stream.send_all(frame(b"p", client.final((await reader.message())[1][4:])))
            client.verify((await reader.message())[1][4:])
            assert await reader.message() == (b"R", bytes(4))

    @pytest.mark.parametrize(
        ("mechanism", "first", "sqlstate"),
        [
            (SCRAM, b"y,,n=,r=abc", "28000"),  # the offer was removed on the way
            (SCRAM, b"p=tls-server-end-point,,n=,r=abc", "08P01"),
            (SCRAM, b"", "08P01"),
            (SCRAM_PLUS, b"n,,n=,r=abc", "08P01"),
            (SCRAM_PLUS, b"y,,n=,r=abc", "08P01"),
            (SCRAM_PLUS, b"", "08P01"),
        ],
    )
    async def test_choices_that_are_refused(self, pki: SpacePki, mechanism: str, first: bytes, sqlstate: str) -> None:
        async with gateway_before(pki, silent_after_offer) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            await stream.send_all(initial_response(mechanism, first))
            fields = await reader.error()
            assert (fields.severity, fields.sqlstate) == ("FATAL", sqlstate)
            await reader.end()

    async def test_a_downgrade_is_told_as_such(self, pki: SpacePki) -> None:
        async with gateway_before(pki, silent_after_offer) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            await stream.send_all(initial_response(SCRAM, b"y,,n=,r=abc"))
            assert (await reader.error()).message == "SCRAM channel binding negotiation error"
            assert running.refusals() == ["SCRAM channel binding negotiation error (user alice)"]

    @pytest.mark.parametrize(
        ("password", "binding", "sqlstate", "message"),
        [
            ("secret", bytes(32), "28000", "SCRAM channel binding check failed"),
            ("wrong", None, "28P01", 'password authentication failed for user "alice"'),
        ],
    )
    async def test_proofs_that_are_refused(
        self, pki: SpacePki, password: str, binding: bytes | None, sqlstate: str, message: str
    ) -> None:
        async with gateway_before(pki, silent_after_offer) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            client = ScramClient(password, binding=binding or running.gateway.tls.binding)
            await stream.send_all(initial_response(SCRAM_PLUS, client.first()))
            await stream.send_all(frame(b"p", client.final((await reader.message())[1][4:])))
            fields = await reader.error()
            assert (fields.sqlstate, fields.message) == (sqlstate, message)

    @pytest.mark.parametrize("say", ["refusal", "rubbish", "too-long", "end"])
    async def test_a_server_that_breaks_off_after_the_clients_proof(self, pki: SpacePki, say: str) -> None:
        answers = {
            "refusal": error_response(sqlstate="28P01", message="not you"),
            "rubbish": frame(b"R", bytes(4)),  # AuthenticationOk in place of a challenge: we believe no such server
            "too-long": b"R" + struct.pack("!I", 1 << 30),
            "end": b"",
        }
        expected = {"refusal": "28P01", "rubbish": "08006", "too-long": "08006", "end": "08006"}

        async def server(stream: trio.SocketStream) -> None:
            reader = Reader(stream)
            await reader.packet()
            await stream.send_all(authentication_sasl([SCRAM]))
            await reader.message()
            await stream.send_all(answers[say])

        async with gateway_before(pki, server) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            client = ScramClient("secret", binding=running.gateway.tls.binding)
            await stream.send_all(initial_response(SCRAM_PLUS, client.first()))
            await stream.send_all(frame(b"p", client.final((await reader.message())[1][4:])))
            assert (await reader.error()).sqlstate == expected[say]

    async def test_a_server_that_does_not_know_the_password(self, pki: SpacePki) -> None:
        """It sends a signature that is none. The gateway must not let the client believe in it."""

        async def server(stream: trio.SocketStream) -> None:
            reader = Reader(stream)
            await reader.packet()
            await stream.send_all(authentication_sasl([SCRAM]))
            first = (await reader.message())[1].partition(b"r=")[2]
            await stream.send_all(authentication_sasl_continue(b"r=" + first + b"x,s=AAAA,i=1"))
            await reader.message()
            await stream.send_all(authentication_sasl_final(b"v=AAAA") + authentication_ok() + READY)

        async with gateway_before(pki, server) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            client = ScramClient("secret", binding=running.gateway.tls.binding)
            await stream.send_all(initial_response(SCRAM_PLUS, client.first()))
            await stream.send_all(frame(b"p", client.final((await reader.message())[1][4:])))
            assert (await reader.error()).severity == "FATAL"

    async def test_a_client_that_leaves_to_ask_for_a_password(self, pki: SpacePki) -> None:
        async with gateway_before(pki, silent_after_offer) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            await stream.transport_stream.send_eof()
            await reader.end()
            assert running.refusals() == []

    async def test_another_message_than_a_choice(self, pki: SpacePki) -> None:
        async with gateway_before(pki, silent_after_offer) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            await stream.send_all(frame(b"Q", b"select 1\0"))
            assert (await reader.error()).sqlstate == "08P01"

    async def test_a_login_that_takes_too_long(self, pki: SpacePki) -> None:
        async with gateway_before(pki, silent_after_offer, login=0.05) as running:
            stream = await running.secure()
            reader = await self.offer(stream)
            await reader.end()
            assert running.refusals() == ["it took too long"]

    async def test_no_offer_where_the_password_is_not_known(self, pki: SpacePki) -> None:
        async with gateway_before(pki, silent_after_offer) as running:
            stream = await running.secure()
            await stream.send_all(startup_message({"user": "bob"}))
            assert await Reader(stream).message() == (b"R", struct.pack("!I", 10) + f"{SCRAM}\0\0".encode())


async def silent_after_offer(stream: trio.SocketStream) -> None:
    await Reader(stream).packet()
    await stream.send_all(authentication_sasl([SCRAM]))
    assert await stream.receive_some() == b"", "nothing of this conversation may reach the server"
