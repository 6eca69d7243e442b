"""The front door as a table, and as a property: whoever is not clearly allowed is refused."""

from __future__ import annotations

import os
import pwd
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.values import FROM_FLAGS, Network
from mtlskit.errors import ClientNotAllowed, Code, ConfigError
from mtlskit.net.peer import LocalUser, Peer, identify
from mtlskit.proxy.front_door import FrontDoor
from tests.support.local_users import available_uids, finish, running_as


def at(address: str, uid: int | None = None) -> Peer:
    return Peer(ip_address(address), 40000, None if uid is None else LocalUser(uid))


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


def refusal(door: FrontDoor, peer: Peer) -> ClientNotAllowed:
    with pytest.raises(ClientNotAllowed) as caught:
        door.decide(peer)
    return caught.value


UNIX = Peer(None, None)


@pytest.mark.parametrize(
    ("allow", "address", "allowed"),
    [
        ((), "127.0.0.1", True),
        ((), "127.255.0.9", True),
        ((), "::1", True),
        ((), "::ffff:127.0.0.1", True),
        ((), "128.0.0.1", False),
        ((), "::ffff:192.0.2.1", False),
        ((), "::2", False),
        ((), "0.0.0.0", False),
        (("10.0.0.0/8",), "10.255.255.255", True),
        (("10.0.0.0/8",), "11.0.0.0", False),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), "127.0.0.1", False),  # what is written down is all that is allowed
        (("10.0.0.0/8", "127.0.0.0/8"), "127.0.0.1", True),
        (("0.0.0.0/0",), "2001:db8::1", False),
        (("::/0",), "192.0.2.1", False),
        (("::/0",), "::ffff:192.0.2.1", False),  # it is an IPv4 address
        (("::ffff:10.0.0.0/104",), "10.1.2.3", True),
        (("::ffff:10.0.0.0/104",), "11.1.2.3", False),
        (("::1:0:0:0/96",), "0.0.0.1", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("2001:db8::/32",), "2001:db9::1", False),
    ],
)
def test_addresses(allow: tuple[str, ...], address: str, allowed: bool) -> None:
    door = FrontDoor(networks(*allow))
    door.decide(UNIX)
    if allowed:
        door.decide(at(address))
    else:
        assert refusal(door, at(address)).code is Code.DOOR_ADDRESS


@pytest.mark.parametrize(
    ("allow", "loopback_only"),
    [((), True), (("127.0.0.0/8", "::1"), True), (("::ffff:127.0.0.0/104",), True), (("127.0.0.1", "10.0.0.1"), False)],
)
def test_a_door_says_whether_it_admits_other_hosts(allow: tuple[str, ...], loopback_only: bool) -> None:
    assert FrontDoor(networks(*allow)).loopback_only is loopback_only


def test_the_kernel_need_not_be_asked_when_nobody_wants_to_know() -> None:
    assert not FrontDoor().needs_user
    assert FrontDoor(allow_users=["0"]).needs_user
    FrontDoor().decide(at("127.0.0.1"))


def test_users_by_name_and_number() -> None:
    own = pwd.getpwuid(os.getuid()).pw_name
    door = FrontDoor(allow_users=(own, "3000000000"))
    for uid in (os.getuid(), 3_000_000_000):
        door.decide(at("127.0.0.1", uid))
        door.decide(Peer(None, None, LocalUser(uid)))
    assert refusal(door, at("127.0.0.1", 3_000_000_001)).code is Code.DOOR_USER
    assert refusal(door, Peer(None, None, LocalUser(3_000_000_001))).code is Code.DOOR_USER


@pytest.mark.parametrize("peer", [UNIX, at("127.0.0.1"), at("::1")])
def test_a_user_whom_nobody_knows_is_refused_even_where_root_is_allowed(peer: Peer) -> None:
    assert refusal(FrontDoor(allow_users=["root", "0"]), peer).code is Code.DOOR_USER_UNKNOWN


def test_an_allowed_user_does_not_make_up_for_the_address() -> None:
    door = FrontDoor(networks("127.0.0.0/8"), ["0"])
    assert refusal(door, at("10.0.0.1", 0)).code is Code.DOOR_ADDRESS


@pytest.mark.parametrize(
    "name", ["no-such-user", "", "-1", "+0", "0x0", "1.0", "٣", "4294967295", "9" * 5000, "a\0b", " root"]
)
def test_an_unknown_user_stops_the_start(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FrontDoor(allow_users=["0", name])
    assert caught.value.code is Code.CONFIG_BAD_VALUE
    assert "allow_users" in caught.value.sentence
    assert "\0" not in caught.value.sentence


def test_a_misspelt_user_gets_the_near_names() -> None:
    with pytest.raises(ConfigError, match=r"no user 'nobdy', but .*'nobody'"):
        FrontDoor(allow_users=["nobdy"])


def test_a_platform_that_does_not_tell_users_refuses_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED")
    FrontDoor()
    with pytest.raises(ConfigError) as caught:
        FrontDoor(allow_users=["0"])
    assert caught.value.code is Code.CONFIG_NOT_SUPPORTED


def test_a_refusal_names_who_and_the_key_to_change() -> None:
    by_default = refusal(FrontDoor(tunnel="reporting"), at("192.0.2.7"))
    assert "192.0.2.7" in by_default.sentence
    assert 'allow_clients = ["192.0.2.7/32"] of [tunnel.reporting]' in by_default.hint
    by_list = refusal(FrontDoor(networks("10.0.0.0/8")), at("fe80::1%eth0"))
    assert by_list.hint == 'to admit it, add "fe80::1/128" to allow_clients'
    by_user = refusal(FrontDoor(allow_users=["0"], tunnel="reporting"), at("127.0.0.1", 1001))
    assert "user id 1001" in by_user.sentence
    assert "allow_users of [tunnel.reporting]" in by_user.hint
    unlisted = refusal(FrontDoor(networks("10.0.0.0/8"), tunnel="reporting"), at("192.0.2.7"))
    assert unlisted.hint == 'to admit it, add "192.0.2.7/32" to allow_clients of [tunnel.reporting]'
    unknown = refusal(FrontDoor(allow_users=["0"]), at("127.0.0.1"))
    assert "127.0.0.1" in unknown.sentence
    assert "allow_users" in unknown.hint


def test_a_tunnel_of_flags_is_told_in_flags_too() -> None:
    by_default = refusal(FrontDoor(tunnel=FROM_FLAGS), at("192.0.2.7"))
    assert by_default.hint == (
        'to admit other hosts, say --allow-client 192.0.2.7/32 (allow_clients = ["192.0.2.7/32"] in a file)'
    )
    by_list = refusal(FrontDoor(networks("10.0.0.0/8"), tunnel=FROM_FLAGS), at("192.0.2.7"))
    assert by_list.hint.startswith("to admit it, add --allow-client 192.0.2.7/32 (")
    by_user = refusal(FrontDoor(allow_users=["0"], tunnel=FROM_FLAGS), at("127.0.0.1", 1001))
    assert by_user.hint.startswith('to admit it, add --allow-user 1001 ("1001" to allow_users in a file)')
    with pytest.raises(ConfigError, match=r"^--allow-user \(allow_users in a file\): this host has no user 'nosuch'"):
        FrontDoor(allow_users=["nosuch"], tunnel=FROM_FLAGS)


# --- as a property -------------------------------------------------------------------------------------------------

# Few bits vary, so that addresses fall inside networks often enough.
V4 = st.sampled_from([0x7F00_0000, 0x0A00_0000, 0xC000_0200]).flatmap(lambda base: st.integers(base, base + 15))
V6 = st.sampled_from([0, 0xFE80 << 112, 0x2001_0DB8 << 96]).flatmap(lambda base: st.integers(base, base + 15))
MAPPED = V4.map(lambda number: IPv6Address((0xFFFF << 32) | number))
ADDRESSES = st.one_of(V4.map(IPv4Address), V6.map(IPv6Address), MAPPED)
NETWORKS: st.SearchStrategy[Network] = st.one_of(
    st.builds(lambda number, bits: IPv4Network((number, bits), strict=False), V4, st.integers(0, 32)),
    st.builds(lambda number, bits: IPv6Network((number, bits), strict=False), V6, st.integers(0, 128)),
    st.builds(lambda address, bits: IPv6Network((address, bits), strict=False), MAPPED, st.integers(90, 128)),
)
UIDS = st.integers(0, 3)
PEERS = st.builds(
    Peer,
    address=st.one_of(st.none(), ADDRESSES),
    port=st.just(40000),
    user=st.one_of(st.none(), UIDS.map(LocalUser)),
)


def bits_of(address: IPv4Address | IPv6Address) -> tuple[int, int]:
    """Version and number, IPv4-mapped as IPv4: by arithmetic, not as the door does it."""
    number = int(address)
    if address.version == 6 and number >> 32 == 0xFFFF:
        return 4, number & 0xFFFF_FFFF
    return address.version, number


def covers(network: Network, address: IPv4Address | IPv6Address) -> bool:
    version, number = bits_of(address)
    first, last = network.network_address, network.broadcast_address
    if network.version == 6 and network.prefixlen < 96:
        # Wider than the range of mapped addresses, so no IPv4 network: what lies in that range is not meant by it.
        return version == 6 and int(first) <= number <= int(last)
    return bits_of(first)[0] == version and bits_of(first)[1] <= number <= bits_of(last)[1]


@given(st.lists(NETWORKS, max_size=3), st.lists(UIDS, max_size=2), PEERS)
def test_exactly_the_allowed_come_in(allow_clients: list[Network], allow_uids: list[int], peer: Peer) -> None:
    loopback = networks("127.0.0.0/8", "::1/128")
    address_is_fine = peer.address is None or any(covers(each, peer.address) for each in allow_clients or loopback)
    user_is_fine = not allow_uids or (peer.user is not None and peer.user.uid in allow_uids)
    door = FrontDoor(allow_clients, map(str, allow_uids))
    if address_is_fine and user_is_fine:
        door.decide(peer)
    else:
        assert (refusal(door, peer).code is Code.DOOR_ADDRESS) is not address_is_fine


@given(st.lists(NETWORKS, max_size=3), PEERS)
def test_the_unknown_never_come_in_where_users_are_named(allow_clients: list[Network], peer: Peer) -> None:
    door = FrontDoor(allow_clients, ["0", "1", "2", "3"])
    assert isinstance(refusal(door, Peer(peer.address, peer.port, None)), ClientNotAllowed)


# --- with the kernel -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", available_uids())
def test_real_users_at_a_real_door(uid: int) -> None:
    script = "sock = socket.create_connection(('127.0.0.1', int(sys.argv[2]))); sys.stdin.read()"
    door, other = FrontDoor(allow_users=[str(uid)]), FrontDoor(allow_users=[str(uid + 1)])
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        with running_as(uid, script, server.getsockname()[1]) as child:
            accepted, _ = server.accept()
            with accepted:
                peer = identify(accepted, with_user=door.needs_user)
                door.decide(peer)
                assert refusal(other, peer).code is Code.DOOR_USER
            assert finish(child) == 0
