"""Addresses where no database is expected."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mtlskit.doctor.network import addresses
from mtlskit.doctor.network.addresses import has_way_out, in_hosts_file, is_own_name, oddities_of, oddity_of


@pytest.mark.parametrize(
    ("address", "words", "hopeless"),
    [
        ("0.0.0.0", "the address of no host", True),
        ("::", "the address of no host", True),
        ("224.0.0.1", "a multicast address", True),
        ("ff02::1", "a multicast address", True),
        ("255.255.255.255", "a reserved address", True),
        ("240.0.0.1", "a reserved address", True),
        ("127.0.0.1", "this host itself", False),
        ("127.0.1.1", "this host itself", False),
        ("::1", "this host itself", False),
        ("::ffff:127.0.0.1", "this host itself", False),
        ("169.254.1.1", "a link-local address, good for one network segment only", False),
        ("fe80::1%2", "a link-local address, good for one network segment only", False),
        ("192.0.2.1", "an address for examples in documentation", False),
        ("2001:db8::1", "an address for examples in documentation", False),
    ],
)
def test_odd(address: str, words: str, hopeless: bool) -> None:
    odd = oddity_of(address)
    assert odd is not None
    assert (odd.words, odd.hopeless) == (words, hopeless)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "54.1.2.3", "fd00::1", "2a01::1", "64:ff9b::1"]
)
def test_usual(address: str) -> None:
    assert oddity_of(address) is None


def test_several_are_told_in_one_breath() -> None:
    told = oddities_of(["127.0.0.1", "::1", "10.0.0.1", "0.0.0.0"])
    assert told == "127.0.0.1 and ::1, which is this host itself and to 0.0.0.0, which is the address of no host"


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "db.localhost", "localhost.localdomain", "ip6-localhost"])
def test_names_of_this_host(name: str) -> None:
    assert is_own_name(name)


def test_this_host_knows_its_own_name() -> None:
    assert is_own_name(socket.gethostname())
    assert not is_own_name("db.example")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"127.0.0.1 localhost\n127.0.0.1\tother DB.example # ours\n", True),
        (b"127.0.0.1 localhost # db.example\n", False),
        (b"\xff\xfe\0 rubbish\n\n127.0.0.1", False),
        (None, False),
    ],
)
def test_the_hosts_file(content: bytes | None, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hosts"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(addresses, "HOSTS", path)
    assert in_hosts_file("db.example") is found


@pytest.mark.parametrize("content", ["", "nameserver\nnameserver not-an-address\nnameserver 127.0.0.53\n"])
def test_a_way_out_is_asked_of_the_table_of_routes(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(content)
    monkeypatch.setattr(addresses, "RESOLVERS", path)
    monkeypatch.setattr(addresses, "_FAR", ())
    assert not has_way_out()
    monkeypatch.setattr(addresses, "_FAR", ((socket.AF_INET, "127.0.0.1"),))
    assert has_way_out()
