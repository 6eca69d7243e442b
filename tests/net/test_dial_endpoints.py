"""Several endpoints, several addresses, and names that lead nowhere."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.config.values import Endpoint, Negotiation, TunnelKind
from mtlskit.errors import (
    Code,
    UpstreamError,
    UpstreamRefusedUs,
)
from mtlskit.net.dial import Dialler, Route
from mtlskit.net.identity import IdentitySnapshot
from tests.services.pki import Pki
from tests.support.dialling import CA, TIMEOUT, dialler_for, echoes, refused, server_context, snapshot
from tests.support.relay_peers import read_all
from tests.support.tls_servers import answering, closed_port, echoing, full_backlog, listening

# Several endpoints.


async def test_the_next_endpoint_is_tried(pki: Pki, identity: IdentitySnapshot) -> None:
    with ExitStack() as stack:
        ports = [
            stack.enter_context(closed_port()),
            stack.enter_context(listening(answering(b"N"))),
            stack.enter_context(listening(answering(b"S", echoing(server_context(pki))))),
        ]
        route = await echoes(dialler_for(*ports), identity)
    assert route.port == ports[-1]


async def test_those_that_were_skipped_are_remembered(pki: Pki, identity: IdentitySnapshot) -> None:
    with (
        closed_port() as first,
        listening(answering(b"N")) as second,
        listening(answering(b"S", echoing(server_context(pki)))) as third,
    ):
        upstream = await dialler_for(first, second, third).dial(identity)
        upstream.tls.close()
    told = [(endpoint.port, error.code) for endpoint, error in upstream.skipped]
    assert told == [(first, Code.TCP_REFUSED), (second, Code.TLS_NOT_OFFERED)]


async def test_the_error_that_came_furthest_names_them_all(identity: IdentitySnapshot) -> None:
    with closed_port() as first, listening(answering(b"N")) as second, closed_port() as third:
        error = await refused(dialler_for(first, second, third), identity)
    assert error.code is Code.TLS_NOT_OFFERED
    assert all(f"localhost:{port}" in error.sentence for port in (first, second, third))
    assert isinstance(error.__cause__, UpstreamRefusedUs)


async def test_a_black_hole_leaves_the_others_their_share(
    pki: Pki, identity: IdentitySnapshot, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.autojump_threshold = 0.1  # the answers that do come take less
    with full_backlog() as hole, listening(answering(b"S", echoing(server_context(pki)))) as port:
        dialler = dialler_for(hole, port, host="127.0.0.1")
        began = trio.current_time()
        assert (await echoes(dialler, identity)).port == port
        assert trio.current_time() - began == pytest.approx(TIMEOUT / 2)


async def test_cancelling_leaves_no_connection_behind(identity: IdentitySnapshot) -> None:
    seen: list[bytes] = []
    with listening(answering(b"S", lambda client: seen.append(read_all(client)))) as port:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialler_for(port).dial, identity)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
    assert len(seen) == 1


# Names.


class _Names(trio.abc.HostnameResolver):
    """A resolver that knows what the test tells it; None never answers."""

    def __init__(self, known: dict[str, list[str] | None]) -> None:
        self._known = known
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        self.asked += 1
        addresses = self._known.get(host.decode(), [])
        if addresses is None:
            await trio.sleep_forever()
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses or ()]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def test_a_name_that_does_not_resolve(identity: IdentitySnapshot) -> None:
    trio.socket.set_custom_hostname_resolver(_Names({}))
    dialler = dialler_for(5432, host="db.invalid")
    assert (await refused(dialler, identity)).code is Code.DNS_FAILED
    with pytest.raises(UpstreamError, match=r"db\.invalid cannot be resolved"):
        await dialler.resolve()


async def test_a_resolver_that_does_not_answer(
    identity: IdentitySnapshot, autojump_clock: trio.testing.MockClock
) -> None:
    trio.socket.set_custom_hostname_resolver(_Names({"db.invalid": None, "good.invalid": ["192.0.2.7"]}))
    slow, good = Endpoint("db.invalid", 1), Endpoint("good.invalid", 2)
    dialler = Dialler(TunnelKind.POSTGRES, (slow,), Negotiation.SSLREQUEST, (), TIMEOUT)
    error = await refused(dialler, identity)
    assert (error.code, "the resolver did not answer within 20 s" in error.sentence) == (Code.DNS_FAILED, True)
    with pytest.raises(UpstreamError, match="the resolver does not answer"):
        await dialler.resolve()
    both = Dialler(TunnelKind.POSTGRES, (slow, good), Negotiation.SSLREQUEST, (), TIMEOUT)
    assert await both.resolve() == {Route(good, "192.0.2.7", 2)}


async def test_the_second_address_of_a_name(pki: Pki) -> None:
    with listening(answering(b"S", echoing(server_context(pki))), "127.0.0.2") as port:
        trio.socket.set_custom_hostname_resolver(_Names({"db.invalid": ["127.0.0.1", "127.0.0.2"]}))
        dialler = dialler_for(port, host="db.invalid")
        route = await echoes(dialler, snapshot(pki, verify=CA))
        assert str(route) == f"db.invalid:{port} (127.0.0.2)"
        assert {route.address for route in await dialler.resolve()} == {"127.0.0.1", "127.0.0.2"}


async def test_a_burst_of_connections_asks_for_the_name_once(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlskit.net.names.FRESH", 3600.0)  # however slow this host is
    names = _Names({"db.invalid": ["127.0.0.1"]})
    trio.socket.set_custom_hostname_resolver(names)
    with listening(answering(b"S", echoing(server_context(pki)))) as port:
        dialler = dialler_for(port, host="db.invalid")
        for _ in range(3):
            await echoes(dialler, snapshot(pki, verify=CA))
    assert names.asked == 1
