"""TCP to each address: taken, refused, swallowed, forbidden."""

from __future__ import annotations

import errno
import os
import socket
import threading
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.doctor.case import Reached
from mtlskit.doctor.checks import tcp
from mtlskit.doctor.checks.tcp import reach
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.errors import Code
from mtlskit.net import connect
from tests.doctor.network_cases import addresses_of, case_for
from tests.support.tls_servers import closed_port, listening, waiting


@pytest.fixture(autouse=True)
def _a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host has one, whatever this host has."""
    monkeypatch.setattr(tcp, "has_way_out", lambda: True)


async def reached(upstream: str, *addresses: str, **options: Any) -> Reached:
    case, endpoint = case_for(upstream, **options)
    return await reach(case, endpoint, addresses_of(*addresses, port=endpoint.port))


def failing(monkeypatch: pytest.MonkeyPatch, *numbers: int | None) -> None:
    """Connections end so, in their order; None: never."""
    left = list(numbers)

    async def open_socket(*_: Any) -> Any:
        number = left.pop(0)
        if number is None:
            await trio.sleep_forever()
            return
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tcp, "open_socket", open_socket)


def only(found: Reached) -> Finding:
    (finding,) = found.findings
    return finding


async def test_one_address() -> None:
    with listening(waiting) as port:
        found = await reached(f"127.0.0.1:{port}", "127.0.0.1")
    finding = only(found)
    assert finding.verdict is Verdict.PASS
    assert finding.seen.startswith(f"127.0.0.1:{port} takes connections (")
    assert found.open == addresses_of("127.0.0.1", port=port)
    assert found.round_trip == finding.seconds == finding.facts["addresses"][0]["seconds"]


async def test_it_starts_from_the_source() -> None:
    peers: list[str] = []
    seen = threading.Event()

    def note(client: socket.socket) -> None:
        peers.append(client.getpeername()[0])
        seen.set()

    with listening(note) as port:
        found = await reached(f"127.0.0.1:{port}", "127.0.0.1", source="127.0.0.77")
        assert await trio.to_thread.run_sync(seen.wait, 60)
    assert found.open
    assert peers == ["127.0.0.77"]


async def test_refused() -> None:
    with closed_port() as port:
        found = await reached(f"db.other:{port}", "127.0.0.1", "127.0.0.2")
    finding = only(found)
    assert not found.open
    assert finding.code is Code.DNS_ODD_ADDRESS
    assert finding.seen == (
        f"db.other leads to 127.0.0.1 and 127.0.0.2, which is this host itself: db.other:{port} (127.0.0.1) refused the"
        f" connection (also tried: db.other:{port} (127.0.0.2) refused the connection)"
    )


@pytest.mark.parametrize("upstream", ["localhost", "127.0.0.1", "db.localhost"])
async def test_refused_by_this_host_on_purpose(upstream: str) -> None:
    with closed_port() as port:
        finding = only(await reached(f"{upstream}:{port}", "127.0.0.1"))
    assert finding.code is Code.TCP_REFUSED


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (errno.ECONNREFUSED, Code.TCP_REFUSED, "refused the connection"),
        (errno.ECONNRESET, Code.TCP_RESET, "reset the connection"),
        (errno.ENETUNREACH, Code.TCP_UNREACHABLE, "this host has no route to it"),
        (errno.EHOSTUNREACH, Code.TCP_UNREACHABLE, "nothing can be delivered there"),
        (errno.EACCES, Code.TCP_UNREACHABLE, "this host forbids it (Permission denied)"),
        (errno.EPERM, Code.TCP_UNREACHABLE, "this host forbids it (Operation not permitted)"),
        (errno.EADDRNOTAVAIL, Code.TCP_UNREACHABLE, "this host has no address to start from"),
        (errno.EMFILE, Code.TCP_UNREACHABLE, "this process has no file descriptor left"),
        (errno.ENFILE, Code.TCP_UNREACHABLE, "this host has no file descriptor left"),
        (errno.EINVAL, Code.TCP_UNREACHABLE, "cannot be reached: Invalid argument"),
    ],
)
async def test_errors_are_told_apart(number: int, code: Code, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, number)
    finding = only(await reached("db.example:5432", "10.0.0.1"))
    assert finding.code is code
    assert finding.seen.startswith("db.example:5432 (10.0.0.1) ")
    assert told in finding.seen
    assert finding.facts["addresses"] == [{"address": "10.0.0.1", "open": False, "code": str(code)}]


async def test_silence_ends(monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock) -> None:
    mock_clock.autojump_threshold = 0
    failing(monkeypatch, None, None)
    began = trio.current_time()
    finding = only(await reached("db.example:5432", "54.1.2.3", "54.1.2.4"))
    assert finding.code is Code.TCP_TIMEOUT
    assert "did not accept a TCP connection within 5 s" in finding.seen
    assert "allowlist" in finding.hint
    assert trio.current_time() - began == pytest.approx(5), "side by side"


async def test_who_answers_tells_more_than_silence(
    monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    failing(monkeypatch, None, errno.EHOSTUNREACH, errno.ECONNREFUSED)
    finding = only(await reached("db.example:5432", "10.0.0.1", "10.0.0.2", "10.0.0.3"))
    assert finding.code is Code.TCP_REFUSED
    assert finding.seen.count("db.example:5432 (10.0.0.") == 3


async def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, errno.ENETUNREACH, errno.EADDRNOTAVAIL)
    monkeypatch.setattr(tcp, "has_way_out", lambda: False)
    finding = only(await reached("db.example:5432", "10.0.0.1", "fd00::1"))
    assert finding.code is Code.NET_NO_ROUTE_OUT


@pytest.mark.parametrize(
    ("upstream", "commands"),
    [
        ("ec2-1-2-3-4.compute-1.amazonaws.com:5432", ("mtlskit my-ip", "mtlskit allowlist list")),
        ("db.example:5432", ("mtlskit my-ip",)),
    ],
)
async def test_a_silent_server_of_herokus_has_an_allowlist(
    upstream: str,
    commands: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    mock_clock: trio.testing.MockClock,
) -> None:
    mock_clock.autojump_threshold = 0
    failing(monkeypatch, None)
    assert only(await reached(upstream, "54.1.2.3")).commands == commands


@pytest.mark.parametrize("others", [(), ("fd00::1", "100.64.0.9")])
async def test_a_silent_private_address_has_none(
    others: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    failing(monkeypatch, *[None] * (1 + len(others)))
    found = only(await reached("db.example:5432", "10.0.0.1", *others))
    assert found.code is Code.TCP_TIMEOUT
    assert "the address is private" in found.hint
    assert found.commands == ("ip route get 10.0.0.1",)


async def test_one_public_address_among_them_may_have_one(
    monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    failing(monkeypatch, None, None)
    assert only(await reached("db.example:5432", "10.0.0.1", "54.1.2.3")).commands == ("mtlskit my-ip",)


async def test_a_web_proxy_is_no_way(monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock) -> None:
    mock_clock.autojump_threshold = 0
    failing(monkeypatch, None)
    environ = {"https_proxy": "http://ann:planted-secret@proxy.example:3128"}
    finding = only(await reached("db.example:5432", "10.0.0.1", environ=environ))
    assert finding.facts["proxy_variables"] == ["HTTPS_PROXY"]
    assert "HTTPS_PROXY is set here, and no database is reached through it" in finding.hint
    assert "planted-secret" not in repr(finding)


async def test_some_addresses_only() -> None:
    with listening(waiting) as port:
        found = await reached(f"db.other:{port}", "127.0.0.1", "127.0.0.2")
    connect, partly = found.findings
    assert connect.verdict is Verdict.PASS
    assert (partly.verdict, partly.code) == (Verdict.WARN, Code.TCP_PARTLY)
    assert f"but db.other:{port} (127.0.0.2) refused the connection" in partly.seen
    assert found.open == addresses_of("127.0.0.1", port=port)


async def test_localhost_in_one_family_is_healthy() -> None:
    with listening(waiting) as port:
        finding = only(await reached(f"localhost:{port}", "::1", "127.0.0.1"))
    assert finding.verdict is Verdict.PASS


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
async def test_a_family_without_a_route_is_healthy(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = connect.open_socket

    async def open_socket(family: Any, *rest: Any) -> trio.socket.SocketType:
        if family == trio.socket.AF_INET6:
            raise OSError(number, os.strerror(number))
        return await real(family, *rest)

    monkeypatch.setattr(tcp, "open_socket", open_socket)
    with listening(waiting) as port:
        finding = only(await reached(f"db.other:{port}", "fd00::1", "127.0.0.1"))
    assert finding.verdict is Verdict.PASS
    assert [each["open"] for each in finding.facts["addresses"]] == [False, True]


async def test_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "_round_trip", lambda _sock: 0.45)
    with listening(waiting) as port:
        connect, slow = (await reached(f"127.0.0.1:{port}", "127.0.0.1")).findings
    assert connect.verdict is Verdict.PASS
    assert slow.code is Code.NET_SLOW
    assert slow.seen == f"a round trip to 127.0.0.1:{port} takes 450 ms"


async def test_a_fleet_is_tried_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, *([errno.ECONNREFUSED] * 16))
    finding = only(await reached("db.example:5432", *(f"10.0.0.{last}" for last in range(1, 201))))
    assert len(finding.facts["addresses"]) == 16
