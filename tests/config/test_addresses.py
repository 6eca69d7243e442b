"""Listen addresses, endpoints and paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlskit.config.addresses import parse_endpoint, parse_listen
from mtlskit.config.paths import parse_path
from mtlskit.config.values import Endpoint, ListenAddress, TcpAddress, UnixAddress
from mtlskit.errors import Code, ConfigError

BASE = Path("/etc/mtlskit")
HOME = {"HOME": "/home/ann"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:6432", TcpAddress("127.0.0.1", 6432)),
        ("127.0.0.1:0", TcpAddress("127.0.0.1", 0)),
        (" 10.0.0.1:65535 ", TcpAddress("10.0.0.1", 65535)),
        ("[::1]:6432", TcpAddress("::1", 6432)),
        ("[0:0:0:0:0:0:0:1]:6432", TcpAddress("::1", 6432)),
        ("[fe80::1%eth0]:1", TcpAddress("fe80::1%eth0", 1)),
        ("LocalHost:6432", TcpAddress("localhost", 6432)),
        ("unix:/run/x/.s.PGSQL.6432", UnixAddress(Path("/run/x/.s.PGSQL.6432"))),
        ("unix:run/.s.PGSQL.1", UnixAddress(BASE / "run/.s.PGSQL.1")),
        ("unix:~/.s.PGSQL.1", UnixAddress(Path("/home/ann/.s.PGSQL.1"))),
    ],
)
def test_listen(text: str, address: ListenAddress) -> None:
    assert parse_listen(text, base=BASE, environ=HOME) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("6432", "a port alone"),
        (":6432", "not written down"),
        ("*:6432", "not written down"),
        ("", "not written down"),
        ("127.0.0.1", "port is missing"),
        ("[::1]", "port is missing"),
        ("127.0.0.1:", "port must be a number from 0 to 65535"),
        ("127.0.0.1:65536", "port must be a number"),
        ("127.0.0.1:-1", "port must be a number"),
        ("127.0.0.1:\u0663", "port must be a number"),
        ("localhost:pg", "port must be a number"),
        ("::1:6432", "must stand in brackets"),
        ("[::1", "brackets of the IPv6 address are not closed"),
        ("[::1]6432", "brackets of the IPv6 address are not closed"),
        ("[127.0.0.1]:1", "only an IPv6 address"),
        ("[fe80::1%a\nb]:1", "only an IPv6 address"),
        ("db.example.com:6432", "IP address or localhost"),
        ("127.0.0.01:1", "IP address or localhost"),
        ("unix:", "path is empty"),
        ("unix:/run/", "names a folder"),
        ("unix:@abstract", "abstract sockets"),
    ],
)
def test_listen_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_listen(text, base=BASE, environ={})
    assert caught.value.code is Code.CONFIG_BAD_VALUE
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("db.example.com:5433", Endpoint("db.example.com", 5433)),
        ("db", Endpoint("db", 5432)),
        ("my_db-1:1", Endpoint("my_db-1", 1)),
        ("[2001:db8::7]", Endpoint("2001:db8::7", 5432)),
        ("10.0.0.1:1", Endpoint("10.0.0.1", 1)),
    ],
)
def test_endpoint(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text, default_port=5432) == endpoint
    assert parse_endpoint(str(endpoint), default_port=None) == endpoint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "host is missing"),
        (":5432", "host is missing"),
        ("db:0", "from 1 to 65535"),
        ("db:x", "from 1 to 65535"),
        ("db name:1", "not a host name"),
        ("-db:1", "not a host name"),
        ("db..x:1", "not a host name"),
        (f"{'a' * 64}:1", "not a host name"),
        (f"{'a.' * 127}a:1", "not a host name"),
        ("300.1.1.1:1", "not an IP address"),
        ("bücher.example:1", "not ASCII"),
        ("2001:db8::7", "must stand in brackets"),
    ],
)
def test_endpoint_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_endpoint(text, default_port=5432)


def test_without_a_default_the_port_must_be_written() -> None:
    with pytest.raises(ConfigError, match="port is missing"):
        parse_endpoint("db", default_port=None)


@pytest.mark.parametrize(
    ("text", "environ", "path"),
    [
        ("keys/c.pem", {}, BASE / "keys/c.pem"),
        ("/keys/c.pem", {}, Path("/keys/c.pem")),
        ("~/c.pem", HOME, Path("/home/ann/c.pem")),
        ("~/c.pem", {"USERPROFILE": "/users/ann"}, Path("/users/ann/c.pem")),
        ("a~b", {}, BASE / "a~b"),
    ],
)
def test_paths(text: str, environ: dict[str, str], path: Path) -> None:
    assert parse_path(text, base=BASE, environ=environ) == path


def test_without_a_variable_the_home_folder_is_the_systems() -> None:
    assert parse_path("~/c.pem", base=BASE, environ={}) == Path("~/c.pem").expanduser()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a\x00b", "control character"),
        ("C:\new", "control character"),
        ("~nobody-of-this-name/c.pem", "home folder of ~nobody-of-this-name is not known"),
    ],
)
def test_paths_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_path(text, base=BASE, environ={})
