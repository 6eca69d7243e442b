"""Ranges that an IP rule can let in."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.cidrs import WIDEST_PREFIX, parse_cidr
from mtlskit.errors import Code, ConfigError


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        (" 203.0.113.0/24\n", "203.0.113.0/24"),
        ("8.0.0.0/8", "8.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("127.0.0.77/32", "127.0.0.77/32"),
        ("198.18.0.0/15", "198.18.0.0/15"),
        ("172.0.0.0/8", "172.0.0.0/8"),
    ],
)
def test_what_a_rule_can_let_in(text: str, network: str) -> None:
    assert parse_cidr(text) == IPv4Network(network)


BAD = [
    ("", Code.ALLOW_BAD_CIDR, '"" is not an IPv4', "203.0.113.7"),
    ("office", Code.ALLOW_BAD_CIDR, '"office" is not an IPv4', "203.0.113.0/24"),
    ("203.0.113.256", Code.ALLOW_BAD_CIDR, "is not an IPv4", ""),
    ("203.0.113.07", Code.ALLOW_BAD_CIDR, "is not an IPv4", ""),
    ("203.0.113.0/33", Code.ALLOW_BAD_CIDR, "is not an IPv4", ""),
    ("203.0.113.0/", Code.ALLOW_BAD_CIDR, "is not an IPv4", ""),
    ("203.0.113.7/24", Code.ALLOW_BAD_CIDR, "203.0.113.7/24 has bits beyond its prefix of 24", '"203.0.113.0/24"'),
    ("203.0.113.0/255.255.255.0", Code.ALLOW_BAD_CIDR, "a netmask is not a prefix", 'write "203.0.113.0/24"'),
    ("203.0.113.0/0.0.0.255", Code.ALLOW_BAD_CIDR, "a netmask is not a prefix", 'write "203.0.113.0/24"'),
    ("203.0.113.0/²4", Code.ALLOW_BAD_CIDR, "is not an IPv4", ""),
    ("postgres://ann:s3cret@db", Code.ALLOW_BAD_CIDR, "what stands here is not an IPv4", ""),
    ("2001:db8::/32", Code.ALLOW_IPV6, '"2001:db8::/32" is IPv6, and Heroku', "my-ip"),
    ("::1", Code.ALLOW_IPV6, "is IPv6", ""),
    ("::ffff:203.0.113.7", Code.ALLOW_IPV6, "is IPv6", 'write "203.0.113.7"'),
    ("10.1.2.3", Code.ALLOW_PRIVATE, "10.1.2.3/32 is private (RFC 1918)", "mtlskit my-ip"),
    ("10.0.0.0/8", Code.ALLOW_PRIVATE, "private", ""),
    ("172.16.0.0/12", Code.ALLOW_PRIVATE, "private", ""),
    ("192.168.1.0/24", Code.ALLOW_PRIVATE, "private", ""),
    ("100.64.0.1", Code.ALLOW_PRIVATE, "a provider's inner network", ""),
    ("169.254.169.254", Code.ALLOW_PRIVATE, "link-local", ""),
    ("224.0.0.1", Code.ALLOW_PRIVATE, "multicast", ""),
    ("255.255.255.255", Code.ALLOW_PRIVATE, "reserved", ""),
    ("0.0.0.0", Code.ALLOW_PRIVATE, "no address of a host", '"0.0.0.0/0"'),
    ("0.0.0.0/0", Code.ALLOW_TOO_WIDE, "0.0.0.0/0 would let everybody in", "add 0.0.0.0/0 --addon NAME"),
    ("8.0.0.0/7", Code.ALLOW_TOO_WIDE, "let 33,554,432 addresses in", "--i-mean-it"),
]


@pytest.mark.parametrize(("text", "code", "part", "hint"), BAD, ids=range(len(BAD)))
def test_what_no_rule_can_have(text: str, code: Code, part: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cidr(text)
    assert caught.value.code is code
    assert part in caught.value.sentence
    assert hint in caught.value.hint
    assert "s3cret" not in caught.value.sentence


def test_a_further_word() -> None:
    assert parse_cidr("0.0.0.0/0", wide_ok=True) == IPv4Network("0.0.0.0/0")
    assert parse_cidr("10.0.0.0/8", private_ok=True) == IPv4Network("10.0.0.0/8")
    with pytest.raises(ConfigError) as caught:
        parse_cidr("240.0.0.0/4", wide_ok=True)
    assert caught.value.code is Code.ALLOW_PRIVATE


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_any_range_is_taken_or_named(address: int, prefix: int) -> None:
    text = f"{IPv4Address(address)}/{prefix}"
    network = IPv4Network(text, strict=False)
    exact = str(network) == text
    if not exact:
        with pytest.raises(ConfigError, match=text):
            parse_cidr(text, wide_ok=True, private_ok=True)
        return
    assert parse_cidr(text, wide_ok=True, private_ok=True) == network
    sentence = ""
    try:
        found = parse_cidr(text)
    except ConfigError as exc:
        sentence = exc.sentence
    assert str(network) in sentence or (found == network and found.prefixlen >= WIDEST_PREFIX)


@given(st.text(max_size=30))
def test_any_text_is_taken_or_refused_on_one_line(text: str) -> None:
    told = "taken"
    try:
        parse_cidr(text)
    except ConfigError as exc:
        told = exc.sentence + exc.hint
    assert told.isprintable()
