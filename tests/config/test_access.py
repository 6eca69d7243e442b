"""Client networks, users, verification modes and pins; how far addresses reach."""

from __future__ import annotations

import base64
from ipaddress import ip_network
from pathlib import Path

import pytest

from mtlskit.config.access import parse_network, parse_pin, parse_user, parse_verify
from mtlskit.config.reach import is_own_listener, is_this_machine_only, leads_here, overlap
from mtlskit.config.values import Endpoint, ListenAddress, TcpAddress, UnixAddress, Verify, VerifyMode
from mtlskit.errors import ConfigError

DIGEST = bytes(range(32))
PIN = base64.b64encode(DIGEST).decode()


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        (" 203.0.113.7 ", "203.0.113.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("fd00::/8", "fd00::/8"),
        ("::1", "::1/128"),
    ],
)
def test_networks(text: str, network: str) -> None:
    assert parse_network(text) == ip_network(network)


@pytest.mark.parametrize(
    ("text", "reason", "hint"),
    [
        ("10.0.0.5/8", "bits beyond its prefix of 8", 'write "10.0.0.0/8" for the network, or "10.0.0.5"'),
        ("fd00::1/8", "bits beyond its prefix of 8", 'write "fd00::/8"'),
        ("::ffff:10.0.0.0/104", "would match nobody", 'write "10.0.0.0/8"'),
        ("::ffff:10.0.0.5", "would match nobody", 'write "10.0.0.5/32"'),
        ("10.0.0.0/255.0.0.0", "not an IP address or CIDR", "10.0.0.0/8"),
        ("10.0.0.0/", "not an IP address or CIDR", "10.0.0.0/8"),
        ("10.0.0.0/33", "not an IP address or CIDR", "10.0.0.0/8"),
        ("fe80::%eth0/64", "not an IP address or CIDR", "10.0.0.0/8"),
        ("office", "not an IP address or CIDR", "10.0.0.0/8"),
        ("", "not an IP address or CIDR", "10.0.0.0/8"),
    ],
)
def test_networks_refused(text: str, reason: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_network(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(("value", "user"), [("tableau", "tableau"), (0, "0"), (1001, "1001"), (r"AD\ann", r"AD\ann")])
def test_users(value: str | int, user: str) -> None:
    assert parse_user(value) == user


@pytest.mark.parametrize(
    "value", ["", "a b", "a:b", "-x", "a\0", "../x", -1, 2**32 - 1, pytest.param(16**5000, id="huge")]
)
def test_users_refused(value: str | int) -> None:
    with pytest.raises(ConfigError, match="not the name or number of a user"):
        parse_user(value)


@pytest.mark.parametrize(
    ("text", "verify"),
    [
        ("full", Verify()),
        ("ca", Verify(VerifyMode.CA)),
        ("name:db.internal", Verify(VerifyMode.NAME, "db.internal")),
        ("name: 10.0.0.1", Verify(VerifyMode.NAME, "10.0.0.1")),
    ],
)
def test_verify(text: str, verify: Verify) -> None:
    assert parse_verify(text) == verify


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("none", "not a way to verify"),
        ("FULL", "not a way to verify"),
        ("", "not a way to verify"),
        ("name", "not a way to verify"),
        ("name:", "host is missing"),
        ("name:a b", "not a host name"),
    ],
)
def test_verify_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_verify(text)


@pytest.mark.parametrize("text", [f"sha256/{PIN}", f"sha256//{PIN}", f" sha256/{PIN} "])
def test_pins(text: str) -> None:
    assert parse_pin(text) == DIGEST


def test_a_pin_may_begin_with_a_slash_of_its_own() -> None:
    digest = b"\xff" * 32
    assert parse_pin(f"sha256/{base64.b64encode(digest).decode()}") == digest


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PIN, "begins with sha256/"),
        (f"sha1/{PIN}", "begins with sha256/"),
        ("sha256", "begins with sha256/"),
        ("sha256/AAAA", "holds 3 bytes"),
        ("sha256/", "holds 0 bytes"),
        ("sha256/A", "not base64"),
        (f"sha256/{PIN[:-2]}é=", "not base64"),
        (f"sha256/{PIN[:20]}\n{PIN[20:]}", "not base64"),
    ],
)
def test_pins_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_pin(text)
    assert "openssl" in caught.value.hint


@pytest.mark.parametrize(
    ("address", "only_here"),
    [
        (TcpAddress("127.0.0.1", 1), True),
        (TcpAddress("127.9.9.9", 1), True),
        (TcpAddress("::1", 1), True),
        (TcpAddress("localhost", 1), True),
        (UnixAddress(Path("/run/x")), True),
        (TcpAddress("0.0.0.0", 1), False),
        (TcpAddress("::", 1), False),
        (TcpAddress("::ffff:127.0.0.1", 1), False),
        (TcpAddress("192.168.0.1", 1), False),
        (TcpAddress("fe80::1%eth0", 1), False),
    ],
)
def test_reach(address: ListenAddress, only_here: bool) -> None:
    assert is_this_machine_only(address) is only_here


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("192.0.2.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_where_a_host_leads(host: str, here: bool) -> None:
    assert leads_here(host) is here


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (TcpAddress("127.0.0.1", 1), TcpAddress("127.0.0.1", 1), True),
        (TcpAddress("127.0.0.1", 1), TcpAddress("127.0.0.1", 2), False),
        (TcpAddress("127.0.0.1", 0), TcpAddress("127.0.0.1", 0), False),
        (TcpAddress("127.0.0.1", 1), TcpAddress("127.0.0.2", 1), False),
        (TcpAddress("127.0.0.1", 1), TcpAddress("::1", 1), False),
        (TcpAddress("127.0.0.1", 1), TcpAddress("localhost", 1), True),
        (TcpAddress("::1", 1), TcpAddress("localhost", 1), True),
        (TcpAddress("0.0.0.0", 1), TcpAddress("127.0.0.1", 1), True),
        (TcpAddress("0.0.0.0", 1), TcpAddress("localhost", 1), True),
        (TcpAddress("::", 1), TcpAddress("fd00::1", 1), True),
        (TcpAddress("::", 1), TcpAddress("0.0.0.0", 1), False),
        (TcpAddress("::ffff:127.0.0.1", 1), TcpAddress("127.0.0.1", 1), True),
        (UnixAddress(Path("/run/x")), UnixAddress(Path("/run/y/../x")), True),
        (UnixAddress(Path("/run/x")), UnixAddress(Path("/run/y")), False),
        (UnixAddress(Path("/run/x")), TcpAddress("127.0.0.1", 1), False),
    ],
)
def test_overlap(one: ListenAddress, other: ListenAddress, clash: bool) -> None:
    assert overlap(one, other) is clash
    assert overlap(other, one) is clash


def test_own_listener() -> None:
    assert is_own_listener(Endpoint("LOCALHOST", 1), TcpAddress("127.0.0.1", 1))
    assert is_own_listener(Endpoint("10.0.0.1", 1), TcpAddress("0.0.0.0", 1))
    assert not is_own_listener(Endpoint("db.example.com", 1), TcpAddress("0.0.0.0", 1))
    assert not is_own_listener(Endpoint("127.0.0.1", 1), UnixAddress(Path("/run/x")))
