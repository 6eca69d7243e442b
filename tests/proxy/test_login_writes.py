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
from mtlskit.proxy.login import Login
from mtlskit.wire.postgres.messages import frame

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
