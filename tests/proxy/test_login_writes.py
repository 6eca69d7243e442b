"""A write to the server that fails during the login: the reason may still be on its way, and is waited for."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.config.values import Verify
from mtlskit.errors import Code, MtlskitError, UpstreamLost, UpstreamRefusedUs
from mtlskit.proxy.behalf import Behalf
from mtlskit.proxy.login import Login
from mtlskit.wire.postgres.messages import authentication_sasl, error_response, frame
from mtlskit.wire.postgres.scram import SCRAM
from mtlskit.wire.postgres.startup import StartupReceived

ALERT = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
ALERT.reason = "TLSV1_ALERT_UNKNOWN_CA"


class _Broken:
    """A TLS connection whose writes fail, and whose reads bring `reads`, one each second, and then nothing."""

    def __init__(self, failure: OSError, *reads: bytes | OSError) -> None:
        self._failure = failure
        self._reads = list(reads)

    async def send_all(self, data: bytes) -> None:
        await trio.sleep(0.5)
        raise self._failure

    async def receive_some(self) -> bytes:
        if not self._reads:
            await trio.sleep_forever()
        read = self._reads.pop(0)
        if isinstance(read, OSError):
            await trio.sleep(1.0)
            raise read
        return read


async def test_a_refusal_is_heard_where_we_log_in_ourselves(autojump_clock: trio.testing.MockClock) -> None:
    """A server that is full may say so and close before it has read our StartupMessage."""
    full = error_response(sqlstate="53300", message="sorry, too many clients already")
    tls: Any = _Broken(ConnectionResetError(104, "Connection reset"), authentication_sasl([SCRAM]) + full)
    tls.engine = SimpleNamespace(peer_certificate=lambda: None)
    known: Any = SimpleNamespace(credential=SimpleNamespace(user="u17", database="d4f8"))
    behalf = Behalf(known, StartupReceived((3, 0), {}, b""))
    upstream: Any = SimpleNamespace(tls=tls, route="db.example.com:5432", identity=SimpleNamespace(verify=Verify()))
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        login = Login(ours, upstream, lambda event: None, behalf=behalf)
        await login.run(behalf.packet, b"", 60.0)
        assert login.to_client == full


class _Slow:
    """A TLS connection that takes its time to write; a server that speaks at once, and again when it was answered."""

    def __init__(self) -> None:
        self.engine = SimpleNamespace(peer_certificate=lambda: None)
        self.sent: list[bytes] = []
        self._speak, self._hear = trio.open_memory_channel[bytes](2)
        self._speak.send_nowait(authentication_sasl([SCRAM]))

    async def send_all(self, data: bytes) -> None:
        await trio.sleep(0.5 if data[:1] == b"p" else 1.0)
        self.sent.append(data[:1])
        if data[:1] == b"p":
            self._speak.send_nowait(error_response(sqlstate="28000", message="no"))

    async def receive_some(self) -> bytes:
        return await self._hear.receive()


async def test_nothing_gets_before_the_startup_message(autojump_clock: trio.testing.MockClock) -> None:
    tls: Any = _Slow()
    known: Any = SimpleNamespace(credential=SimpleNamespace(user="u17", database="d4f8"))
    behalf = Behalf(known, StartupReceived((3, 0), {}, b""))
    upstream: Any = SimpleNamespace(tls=tls, route="db.example.com:5432", identity=SimpleNamespace(verify=Verify()))
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        await Login(ours, upstream, lambda event: None, behalf=behalf).run(behalf.packet, b"", 60.0)
    assert tls.sent == [b"\0", b"p"]


async def _fault(tls: _Broken) -> MtlskitError:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        upstream: Any = SimpleNamespace(tls=tls, route="db.example.com:5432", identity=SimpleNamespace(verify=Verify()))
        login = Login(ours, upstream, lambda event: None)
        with pytest.raises(MtlskitError) as caught:
            await login.run(b"startup", b"", 60.0)
        assert login.at_boundary
        return caught.value


@pytest.mark.parametrize(
    ("tls", "kind", "code"),
    [
        (_Broken(BrokenPipeError(32, "Broken pipe"), ALERT), UpstreamRefusedUs, Code.TLS_CLIENT_CA_UNKNOWN),
        (_Broken(BrokenPipeError(32, "Broken pipe")), UpstreamLost, Code.UPSTREAM_CLOSED),
        (_Broken(ALERT), UpstreamRefusedUs, Code.TLS_CLIENT_CA_UNKNOWN),
        (
            _Broken(ConnectionResetError(104, "Connection reset"), frame(b"R", b"\0\0\0\x03")),
            UpstreamLost,
            Code.TCP_RESET,
        ),
        (
            _Broken(BrokenPipeError(32, "Broken pipe"), frame(b"R", b"\0\0\0\x03"), ConnectionResetError(104, "reset")),
            UpstreamLost,
            Code.TCP_RESET,
        ),
    ],
)
async def test_a_failed_write_leaves_the_news_to_the_reader(
    autojump_clock: trio.testing.MockClock, tls: _Broken, kind: type[MtlskitError], code: Code
) -> None:
    fault = await _fault(tls)
    assert (type(fault), fault.code) == (kind, code)
    assert trio.current_time() < 10
