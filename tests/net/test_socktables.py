"""Answers of the kernel, real and made up: what is not clearly this connection's owner is nobody."""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.net import socktables
from mtlskit.net.socktables import (
    NetlinkUnusableError,
    SocketRow,
    TcpEnd,
    certain_uid,
    diag_question,
    listening_program,
    owner_of,
    parse_diag_answer,
    parse_proc_rows,
    read_proc,
    trusted_uid,
)

CLIENT = TcpEnd(IPv4Address("127.0.0.1"), 40000)
SERVER = TcpEnd(IPv4Address("127.0.0.1"), 6432)
ROW = SocketRow(local=CLIENT, remote=SERVER, state=1, uid=1000, inode=77)


def diag_answer(
    *, kind: int = 20, sequence: int = 1, family: int = socket.AF_INET, state: int = 1, uid: int = 1000, inode: int = 77
) -> bytes:
    """What the kernel would say of ROW: struct nlmsghdr and struct inet_diag_msg, by hand from linux/inet_diag.h."""
    address = socket.inet_aton("127.0.0.1")
    packed = address.ljust(16, b"\0") if family == socket.AF_INET else bytes(10) + b"\xff\xff" + address
    ids = struct.pack("!HH", 40000, 6432) + packed + packed + bytes(12)
    body = bytes([family, state, 0, 0]) + ids + struct.pack("=IIIII", 0, 0, 0, uid, inode)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body


def diag_error(number: int) -> bytes:
    body = struct.pack("=i", -number) + bytes(16)
    return struct.pack("=IHHII", 16 + len(body), 2, 0, 1, 0) + body


def proc_line(client: str = "0100007F:9C40", server: str = "0100007F:1920", state: str = "01", uid: int = 1000) -> str:
    return (
        f"  12: {client} {server} {state} 00000000:00000000 00:00000000 00000000 {uid:5} 0 77 1 0000000000000000 20 4\n"
    )


MAPPED_CLIENT = "0000000000000000FFFF00000100007F:9C40"
MAPPED_SERVER = "0000000000000000FFFF00000100007F:1920"


def make_proc(root: Path, tcp: str, tcp6: str = "") -> Path:
    (root / "net").mkdir(parents=True)
    (root / "net/tcp").write_text("  sl  local_address rem_address   st tx_queue …\n" + tcp)
    (root / "net/tcp6").write_text("  sl  local_address …\n" + tcp6)
    return root


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_diag_answer_is_read_also_when_ipv4_goes_through_an_ipv6_socket(family: int) -> None:
    assert parse_diag_answer(diag_answer(family=family)) == ROW


def test_an_ipv6_answer_keeps_its_addresses() -> None:
    packed = IPv6Address("::1").packed
    body = (
        bytes([socket.AF_INET6, 1, 0, 0])
        + struct.pack("!HH", 1, 2)
        + packed * 2
        + bytes(12)
        + struct.pack("=5I", 0, 0, 0, 3, 4)
    )
    row = parse_diag_answer(struct.pack("=IHHII", 16 + len(body), 20, 0, 1, 0) + body)
    assert row == SocketRow(TcpEnd(IPv6Address("::1"), 1), TcpEnd(IPv6Address("::1"), 2), 1, 3, 4)


def test_no_such_entry_is_none() -> None:
    assert parse_diag_answer(diag_error(errno.ENOENT)) is None


@pytest.mark.parametrize(
    "answer",
    [
        diag_error(errno.EPERM),
        diag_error(errno.EOPNOTSUPP),
        diag_answer(sequence=2),
        diag_answer(kind=3),
        *(diag_answer()[:cut] for cut in range(len(diag_answer()))),
    ],
)
def test_every_other_answer_is_no_answer(answer: bytes) -> None:
    with pytest.raises(NetlinkUnusableError):
        parse_diag_answer(answer)


@given(st.binary(max_size=200))
def test_rubbish_never_becomes_our_row(answer: bytes) -> None:
    try:
        row = parse_diag_answer(answer)
    except NetlinkUnusableError:
        return
    assert trusted_uid(row, CLIENT, SERVER) is None


def test_the_question_names_one_socket() -> None:
    question = diag_question(CLIENT, SERVER)
    assert struct.unpack_from("=IHHII", question) == (len(question), 20, 1, 1, 0)
    assert len(question) == 16 + 56  # struct inet_diag_req_v2
    assert struct.pack("!HH", 40000, 6432) in question


def test_a_row_with_an_owner_is_trusted() -> None:
    assert trusted_uid(ROW, CLIENT, SERVER) == 1000


@pytest.mark.parametrize(
    "row",
    [
        None,
        SocketRow(CLIENT, SERVER, 1, 0, 0),  # an orphan
        SocketRow(CLIENT, SERVER, 4, 0, 77),  # FIN_WAIT1
        SocketRow(CLIENT, SERVER, 5, 0, 77),  # FIN_WAIT2
        SocketRow(CLIENT, SERVER, 6, 0, 77),  # TIME_WAIT
        SocketRow(CLIENT, TcpEnd(IPv4Address("0.0.0.0"), 0), 10, 0, 77),  # a listener
        SocketRow(SERVER, CLIENT, 1, 0, 77),  # our own end
        SocketRow(TcpEnd(CLIENT.address, 40001), SERVER, 1, 0, 77),
        SocketRow(CLIENT, SERVER, 1, 0xFFFF_FFFF, 77),
    ],
)
def test_any_other_row_is_not(row: SocketRow | None) -> None:
    assert trusted_uid(row, CLIENT, SERVER) is None


@given(
    st.builds(
        SocketRow,
        st.sampled_from([CLIENT, SERVER]),
        st.sampled_from([CLIENT, SERVER]),
        st.integers(0, 13),
        st.just(0),
        st.integers(0, 2),
    )
)
def test_root_is_never_seen_by_accident(row: SocketRow) -> None:
    clear = row.local == CLIENT and row.remote == SERVER and row.state == 1 and row.inode != 0
    assert trusted_uid(row, CLIENT, SERVER) == (0 if clear else None)


@pytest.mark.parametrize(
    ("uid", "uid_map", "expected"),
    [
        (1000, "0 0 4294967295", 1000),
        (65534, "0 0 4294967295", 65534),  # nobody, on a host
        (65534, "0 100000 65536", None),  # anybody at all, in a container
        (0, "0 100000 65536", 0),
    ],
)
def test_the_overflow_uid_names_nobody_in_a_user_namespace(
    uid: int, uid_map: str, expected: int | None, tmp_path: Path
) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "sys/kernel/overflowuid").write_text("65534\n")
    (tmp_path / "self/uid_map").write_text(uid_map)
    assert certain_uid(uid, tmp_path) == expected


@pytest.mark.parametrize(("uid", "expected"), [(65534, None), (1000, 1000)])
def test_without_proc_the_usual_overflow_uid_is_assumed(uid: int, expected: int | None, tmp_path: Path) -> None:
    assert certain_uid(uid, tmp_path) == expected


def test_proc_rows_are_read_in_both_tables(tmp_path: Path) -> None:
    other = proc_line(client="0100007F:9C41", uid=0)
    four = make_proc(tmp_path / "4", other + proc_line(), other)
    six = make_proc(tmp_path / "6", other, proc_line(MAPPED_CLIENT, MAPPED_SERVER))
    assert list(read_proc(CLIENT, SERVER, four)) == [ROW]
    assert list(read_proc(CLIENT, SERVER, six)) == [ROW]
    assert list(read_proc(CLIENT, SERVER, tmp_path / "none")) == []


@given(st.lists(st.binary(max_size=120)))
def test_rubbish_in_proc_is_passed_over(lines: list[bytes]) -> None:
    assert list(parse_proc_rows([*lines, proc_line().encode()]))[-1] == ROW


def test_rows_that_contradict_each_other_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(local: TcpEnd, remote: TcpEnd) -> SocketRow | None:
        raise NetlinkUnusableError

    monkeypatch.setattr(socktables, "look_up", refuse)
    monkeypatch.setattr(socktables, "read_proc", lambda local, remote: iter([ROW, ROW]))
    assert owner_of(CLIENT, SERVER) is None
    monkeypatch.setattr(socktables, "read_proc", lambda local, remote: iter([ROW]))
    assert owner_of(CLIENT, SERVER) == 1000


def test_the_table_is_read_only_where_netlink_sees_nothing_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[TcpEnd] = []

    def table(local: TcpEnd, remote: TcpEnd) -> list[SocketRow]:
        read.append(local)
        return [ROW]

    monkeypatch.setattr(socktables, "read_proc", table)
    own_end_only = {(SERVER, CLIENT): SocketRow(SERVER, CLIENT, 1, 0, 78)}
    monkeypatch.setattr(socktables, "look_up", lambda *ends: own_end_only.get(ends))
    assert owner_of(CLIENT, SERVER) is None  # netlink works, and the client is gone
    assert read == []
    monkeypatch.setattr(socktables, "look_up", lambda *ends: None)
    assert owner_of(CLIENT, SERVER) == 1000  # a kernel without tcp_diag
    assert read == [CLIENT]


def test_a_port_that_only_a_listener_holds_has_no_owner() -> None:
    """The kernel's look-up falls back to a listening socket, which is ours."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = TcpEnd(IPv4Address("127.0.0.1"), server.getsockname()[1])
        assert owner_of(listener, TcpEnd(IPv4Address("127.0.0.1"), 1)) is None


@pytest.mark.parametrize("source", ["netlink where permitted", "proc"])
def test_a_real_orphan_is_not_root(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client has closed; its socket stays in the kernel's tables, without an owner, as long as we do not close."""

    def refuse(local: TcpEnd, remote: TcpEnd) -> SocketRow | None:
        raise NetlinkUnusableError

    if source == "proc":
        monkeypatch.setattr(socktables, "look_up", refuse)
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            ends = [TcpEnd(IPv4Address(host), port) for host, port in (client.getsockname(), server.getsockname())]
            assert owner_of(*ends) == os.getuid()
            client.close()
            assert owner_of(*ends) is None


def test_a_kernel_that_refuses_netlink_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(NetlinkUnusableError):
        socktables.look_up(CLIENT, SERVER)
    monkeypatch.delattr(socket, "AF_NETLINK")
    with pytest.raises(NetlinkUnusableError):
        socktables.look_up(CLIENT, SERVER)


class ChattyNeighbour:
    """A netlink socket on which another process answers first."""

    def __enter__(self) -> ChattyNeighbour:
        return self

    def __exit__(self, *_: object) -> None: ...
    def settimeout(self, seconds: float) -> None: ...
    def sendto(self, data: bytes, address: tuple[int, int]) -> None: ...
    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        return diag_answer(uid=0), (4242, 0)


def test_only_the_kernel_may_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: ChattyNeighbour())
    with pytest.raises(NetlinkUnusableError):
        socktables.look_up(CLIENT, SERVER)


def test_the_program_that_holds_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listening_program(server.getsockname()[1]).endswith(f"(pid {os.getpid()})")


def test_a_program_that_cannot_be_seen_is_not(tmp_path: Path) -> None:
    assert listening_program(6432, tmp_path) == ""
    make_proc(tmp_path, proc_line(client="0100007F:1920", server="00000000:0000", state="0A"))
    (tmp_path / "1/fd").mkdir(parents=True)
    (tmp_path / "1/fd/0").write_text("not a link")
    (tmp_path / "2").mkdir()
    assert listening_program(6432, tmp_path) == ""
