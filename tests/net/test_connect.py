"""The race between the addresses of a name, against connections that come when the test says."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.config.values import Endpoint
from mtlskit.errors import Code, UpstreamError
from mtlskit.net import connect
from mtlskit.net.connect import connect_tcp
from mtlskit.net.names import FRESH, Names

ENDPOINT = Endpoint("db.invalid", 5432)


class _Net(trio.abc.HostnameResolver):
    """Addresses of a name, and for each the seconds until it connects; None: it refuses at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, addresses: dict[str, float | None], *, scope: int = 0) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.lookups = 0
        self.made: dict[str, trio.socket.SocketType] = {}
        self._addresses = addresses
        self._scope = scope
        monkeypatch.setattr(connect, "open_socket", self._open)
        trio.socket.set_custom_hostname_resolver(self)

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        self.lookups += 1
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, self._scope))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self._addresses
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError

    async def _open(self, family: socket.AddressFamily, sockaddr: Any, source: str | None) -> trio.socket.SocketType:
        address = sockaddr[0]
        assert (":" in address) == (family == socket.AF_INET6)
        self.asked.append(sockaddr)
        seconds = self._addresses[address]
        if seconds is None:
            await trio.lowlevel.checkpoint()
            raise OSError(errno.ECONNREFUSED, f"{address} refuses")
        with trio.CancelScope(shield=seconds == 1):  # one that connects in the moment in which it is called off
            await trio.sleep(seconds)
        self.made[address] = trio.socket.socket()
        return self.made[address]


async def _connect(names: Names | None = None) -> trio.socket.SocketType:
    return await connect_tcp(ENDPOINT.host, ENDPOINT.port, ENDPOINT, names or Names(), lambda: None)


async def test_the_other_family_comes_second_after_a_head_start(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    net = _Net(monkeypatch, {"2001:db8::1": 900, "2001:db8::2": 900, "192.0.2.1": 0.1})
    began = trio.current_time()
    sock = await _connect()
    assert trio.current_time() - began == pytest.approx(0.25 + 0.1)
    assert [sockaddr[0] for sockaddr in net.asked] == ["2001:db8::1", "192.0.2.1"]
    assert net.made == {"192.0.2.1": sock}
    sock.close()


async def test_a_refusal_starts_the_next_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    net = _Net(monkeypatch, {"192.0.2.1": None, "192.0.2.2": 0})
    began = trio.current_time()
    (await _connect()).close()
    assert (list(net.made), trio.current_time()) == (["192.0.2.2"], began)


@pytest.mark.parametrize("addresses", [("192.0.2.1",), ("192.0.2.1", "192.0.2.2")])
async def test_when_all_refuse_the_first_refusal_is_told(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    _Net(monkeypatch, dict.fromkeys(addresses))
    with pytest.raises(UpstreamError, match=r"db\.invalid:5432 refused the connection") as caught:
        await _connect()
    assert caught.value.code is Code.TCP_REFUSED
    assert str(caught.value.__cause__).endswith("192.0.2.1 refuses")


async def test_whoever_comes_in_second_is_closed(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    net = _Net(monkeypatch, {"192.0.2.1": 1, "192.0.2.2": 0.5})
    sock = await _connect()
    assert sock is net.made["192.0.2.2"]
    assert (sock.fileno() >= 0, net.made["192.0.2.1"].fileno()) == (True, -1)
    sock.close()


async def test_a_deadline_in_the_last_moment_leaves_no_socket_behind(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    net = _Net(monkeypatch, {"192.0.2.1": 1, "192.0.2.2": None})
    with trio.move_on_after(0.5) as scope:
        (await _connect()).close()
    assert net.made["192.0.2.1"].fileno() == -1
    assert trio.current_time() >= scope.deadline


async def test_a_link_local_address_keeps_its_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    net = _Net(monkeypatch, {"fe80::1": 0}, scope=3)
    (await _connect()).close()
    assert net.asked == [("fe80::1", 5432, 0, 3)]


# What was looked up a moment ago.


async def test_a_name_is_looked_up_once_a_second(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    net, names = _Net(monkeypatch, {"192.0.2.1": 0}), Names()
    seen = []
    for later in (0, FRESH / 2, FRESH / 4, FRESH / 4):
        await trio.sleep(later)
        (await _connect(names)).close()
        seen.append(net.lookups)
    assert seen == [1, 1, 1, 2]


async def test_each_name_and_port_has_an_answer_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    net, names = _Net(monkeypatch, {"192.0.2.1": 0}), Names()
    ports = [
        (await names.addresses(host, port))[0][1][1]
        for host, port in (("a.invalid", 1), ("a.invalid", 2), ("b.invalid", 1), ("a.invalid", 1))
    ]
    assert (ports, net.lookups) == ([1, 2, 1, 1], 3)


@pytest.mark.parametrize("others", [{}, {"192.0.2.2": None}])
async def test_after_a_refusal_the_name_is_asked_for_anew(
    monkeypatch: pytest.MonkeyPatch, others: dict[str, float | None]
) -> None:
    net, names = _Net(monkeypatch, {"192.0.2.1": None, **others}), Names()
    with pytest.raises(UpstreamError):
        await _connect(names)
    _Net(monkeypatch, {"192.0.2.3": 0})
    (await _connect(names)).close()
    assert [sockaddr[0] for sockaddr in net.asked] == ["192.0.2.1", *others]


@pytest.mark.parametrize("others", [{}, {"192.0.2.2": 900}])
async def test_after_silence_the_name_is_asked_for_anew(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, others: dict[str, float | None]
) -> None:
    net, names = _Net(monkeypatch, {"192.0.2.1": 900, **others}), Names()
    with trio.move_on_after(FRESH / 2) as scope:
        (await _connect(names)).close()
    assert scope.cancelled_caught
    net = _Net(monkeypatch, {"192.0.2.3": 0})
    (await _connect(names)).close()
    assert list(net.made) == ["192.0.2.3"]


async def test_what_is_no_longer_fresh_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    _Net(monkeypatch, {"192.0.2.1": 0})
    names = Names()
    for number in range(100):
        await names.addresses(f"host{number}.invalid", 1)
        await trio.sleep(FRESH / 4)
    assert len(names._known) <= 5
