"""What the tests of the way share: a case without a file, and names that lead where a test wants them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import trio

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Means
from mtlskit.doctor.gather import from_flags
from mtlskit.net.names import Address


def case_for(
    upstream: str,
    kind: str = "postgres",
    *,
    step: float = 5.0,
    source: str | None = None,
    environ: Mapping[str, str] | None = None,
    **flags: Any,
) -> tuple[Case, Endpoint]:
    """A tunnel by flags without an identity, and its only endpoint."""
    means = Means(step=step, environ=dict(environ or {}))
    (case,) = from_flags({"kind": kind, "upstream": [upstream], **flags}, means).cases
    if source is not None:
        case = replace(case, tunnel=replace(case.tunnel, source=source))
    return case, case.tunnel.upstream[0]


def addresses_of(*texts: str, port: int) -> tuple[Address, ...]:
    """As a look-up gives them."""
    return tuple(
        (family, sockaddr)
        for text in texts
        for family, *_, sockaddr in socket.getaddrinfo(text, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    )


class Resolver(trio.abc.HostnameResolver):
    """Leads every name to the same addresses, or fails as it is told; with neither, it never answers."""

    def __init__(self, *addresses: str, failure: Exception | None = None, delay: float = 0.0) -> None:
        self._addresses = addresses
        self._failure = failure
        self._delay = delay

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        await trio.sleep(self._delay)
        if self._failure is not None:
            raise self._failure
        if not self._addresses:
            await trio.sleep_forever()
        return [
            (family, socket.SOCK_STREAM, 6, "", sockaddr)
            for family, sockaddr in addresses_of(*self._addresses, port=port)
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError
