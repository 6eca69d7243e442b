"""The kernel says who a client is: real users over real sockets, and clients that try to be taken for somebody else."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from mtlskit.errors import ClientNotAllowed, Code
from mtlskit.net import peer, socktables
from mtlskit.net.peer import LocalUser, Peer, identify, local_user, peer_address
from mtlskit.net.socktables import NetlinkUnusableError, SocketRow, TcpEnd
from tests.support.local_users import available_uids, finish, running_as

UIDS = available_uids()

CONNECT = """
sock = socket.create_connection((sys.argv[2], int(sys.argv[3])))
sock.sendall(b"hello")
sys.stdin.read()
"""

# An IPv6 socket that reaches IPv4, as Java's do.
CONNECT_MAPPED = """
sock = socket.socket(socket.AF_INET6)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
sock.connect(("::ffff:127.0.0.1", int(sys.argv[3])))
sys.stdin.read()
"""

SEND_AND_CLOSE = """
sock = socket.create_connection((sys.argv[2], int(sys.argv[3])))
sock.sendall(b"do something and do not ask who I am")
sock.close()
"""

SEND_AND_RESET = """
sock = socket.create_connection((sys.argv[2], int(sys.argv[3])))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
sock.sendall(b"do something and do not ask who I am")
sock.close()
"""

# A source address that nobody else uses: the port is then free to be taken again.
LONELY = "127.77.66.55"
SEND_AND_RESET_FROM = SEND_AND_RESET.replace("int(sys.argv[3]))", "int(sys.argv[3])), source_address=(sys.argv[4], 0)")

HALF_CLOSE = """
sock = socket.create_connection((sys.argv[2], int(sys.argv[3])))
sock.sendall(b"do something and do not ask who I am")
sock.shutdown(socket.SHUT_WR)
print("closed", flush=True)
sys.stdin.read()
"""

CONNECT_UNIX = """
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[2])
sys.stdin.read()
"""


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


HOSTS = ("127.0.0.1", "127.8.9.10", *(("::1",) if _has_ipv6() else ()))


@contextmanager
def listening(host: str, *, dual_stack: bool = False) -> Iterator[tuple[socket.socket, int]]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, dualstack_ipv6=dual_stack) as server:
        server.settimeout(10)
        yield server, server.getsockname()[1]


@pytest.fixture(params=["netlink where permitted", "proc"])
def _source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sources must tell the same; the second is what is used where netlink is not permitted."""

    def refuse(local: TcpEnd, remote: TcpEnd) -> SocketRow | None:
        raise NetlinkUnusableError

    if request.param == "proc":
        monkeypatch.setattr(socktables, "look_up", refuse)


@pytest.mark.usefixtures("_source")
@pytest.mark.parametrize("uid", UIDS)
@pytest.mark.parametrize("host", HOSTS)
def test_a_loopback_client_is_its_own_user(host: str, uid: int) -> None:
    with (
        listening(host) as (server, port),
        running_as(uid, CONNECT, host, port) as child,
    ):
        accepted, where = server.accept()
        with accepted:
            assert identify(accepted, with_user=True) == Peer(
                ip_address("127.0.0.1" if "." in host else "::1"), where[1], LocalUser(uid)
            )
        assert finish(child) == 0


@pytest.mark.usefixtures("_source")
@pytest.mark.parametrize("uid", UIDS)
def test_a_client_that_reaches_ipv4_through_an_ipv6_socket(uid: int) -> None:
    with (
        listening("127.0.0.1") as (server, port),
        running_as(uid, CONNECT_MAPPED if _has_ipv6() else CONNECT, "127.0.0.1", port) as child,
    ):
        accepted, _ = server.accept()
        with accepted:
            assert local_user(accepted) == uid
        assert finish(child) == 0


@pytest.mark.usefixtures("_source")
@pytest.mark.parametrize("uid", UIDS)
def test_an_ipv4_client_of_a_dual_stack_listener(uid: int) -> None:
    dual_stack = socket.has_dualstack_ipv6()
    with (
        listening("::" if dual_stack else "0.0.0.0", dual_stack=dual_stack) as (server, port),
        running_as(uid, CONNECT, "127.0.0.1", port) as child,
    ):
        accepted, _ = server.accept()
        with accepted:
            assert peer_address(accepted)[0] == IPv4Address("127.0.0.1")
            assert local_user(accepted) == uid
        assert finish(child) == 0


@pytest.mark.usefixtures("_source")
@pytest.mark.parametrize("uid", UIDS)
@pytest.mark.parametrize("script", [SEND_AND_CLOSE, SEND_AND_RESET], ids=["closed", "reset"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_client_that_is_gone_already_is_nobody(host: str, script: str, uid: int) -> None:
    """The kernel shows an orphaned socket with uid 0: such a client must not be taken for root."""
    with (
        listening(host) as (server, port),
        running_as(uid, script, host, port) as child,
    ):
        assert finish(child) == 0
        accepted, _ = server.accept()
        with accepted:
            assert local_user(accepted) is None


@pytest.mark.usefixtures("_source")
@pytest.mark.parametrize("uid", UIDS)
def test_a_client_that_has_half_closed_is_nobody(uid: int) -> None:
    with (
        listening("127.0.0.1") as (server, port),
        running_as(uid, HALF_CLOSE, "127.0.0.1", port) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == b"closed\n"
        accepted, _ = server.accept()
        with accepted:
            assert local_user(accepted) is None
        assert finish(child) == 0


@pytest.mark.parametrize("uid", UIDS)
def test_a_port_taken_over_after_a_reset_does_not_lend_its_user(uid: int) -> None:
    """The first client's bytes are still in our buffer when another user owns the same four numbers."""
    with (
        listening("127.0.0.1") as (server, port),
        running_as(uid, SEND_AND_RESET_FROM, "127.0.0.1", port, LONELY) as child,
    ):
        assert finish(child) == 0
        first, where = server.accept()
        with first, socket.socket() as second:
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            second.bind(where)
            second.connect(("127.0.0.1", port))
            accepted, _ = server.accept()
            with accepted:
                assert local_user(first) is None
                assert local_user(accepted) == os.getuid()


def test_a_reset_during_the_look_up_voids_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("127.0.0.1") as (server, port):
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()

        def reset_and_answer(local: TcpEnd, remote: TcpEnd) -> int:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return 0

        monkeypatch.setattr(peer, "owner_of", reset_and_answer)
        with accepted:
            assert local_user(accepted) is None


def test_a_client_that_went_away_has_no_address_and_does_not_pass_for_a_unix_peer() -> None:
    with (
        listening("127.0.0.1") as (server, port),
        running_as(os.getuid(), SEND_AND_RESET, "127.0.0.1", port) as child,
    ):
        assert finish(child) == 0
        accepted, _ = server.accept()
        with accepted, pytest.raises(ClientNotAllowed) as caught:
            identify(accepted, with_user=False)
    assert caught.value.code is Code.DOOR_ADDRESS


@pytest.mark.parametrize("uid", UIDS)
def test_a_unix_client_is_its_own_user_and_has_no_address(uid: int, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(10)
        server.bind(str(folder / "s"))
        (folder / "s").chmod(0o666)
        server.listen()
        with running_as(uid, CONNECT_UNIX, "s", cwd=folder) as child:
            accepted, _ = server.accept()
            with accepted:
                assert identify(accepted, with_user=True) == Peer(None, None, LocalUser(uid))
            assert finish(child) == 0


async def test_trio_sockets_do_as_well() -> None:
    with trio.socket.socket() as server:
        await server.bind(("127.0.0.1", 0))
        server.listen()
        with trio.socket.socket() as client:
            await client.connect(server.getsockname())
            accepted, _ = await server.accept()
            with accepted:
                assert identify(accepted, with_user=True).user == LocalUser(os.getuid())


class FarSocket:
    """An accepted connection from another host, as far as this module can see one."""

    family = socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        return ("192.0.2.7", 40000)

    def getsockname(self) -> tuple[str, int]:
        return ("192.0.2.1", 6432)


def test_another_host_has_no_local_user() -> None:
    far = cast("socket.socket", FarSocket())
    assert identify(far, with_user=True) == Peer(IPv4Address("192.0.2.7"), 40000, None)


@pytest.mark.parametrize("missing", ["SO_PEERCRED", "AF_NETLINK"])
def test_a_platform_without_the_means_knows_nobody(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = socket.socketpair()
    with left, right:
        assert local_user(left) == os.getuid()
        monkeypatch.delattr(socket, missing)
        assert local_user(left) is None


def test_a_kernel_that_answers_in_part_knows_nobody() -> None:
    def getsockopt(*_: object) -> bytes:
        return b"\0\0\0\0"

    partial = cast("socket.socket", SimpleNamespace(family=socket.AF_UNIX, getsockopt=getsockopt))
    assert local_user(partial) is None


def test_neither_internet_nor_unix_is_nobody() -> None:
    assert local_user(cast("socket.socket", SimpleNamespace(family=-1))) is None


def test_the_kernel_is_asked_on_demand_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(peer, "local_user", asked.append)
    left, right = socket.socketpair()
    with left, right:
        assert identify(left, with_user=False) == Peer(None, None, None)
        assert asked == []
        identify(left, with_user=True)
        assert asked == [left]


@pytest.mark.parametrize(
    ("who", "text"),
    [
        (Peer(None, None), "a unix socket"),
        (Peer(None, None, LocalUser(7)), "user id 7 on a unix socket"),
        (Peer(IPv4Address("10.1.2.3"), 5), "10.1.2.3:5"),
        (Peer(IPv6Address("::1"), 5, LocalUser(7)), "[::1]:5 (user id 7)"),
    ],
)
def test_a_peer_says_itself(who: Peer, text: str) -> None:
    assert str(who) == text
