"""The ranges that an IP rule can let in: IPv4, seen from outside, no wider than anybody owns.

Heroku's rules match the address that a connection arrives with. An address that never crosses the Internet can match
nothing there, so it is refused with the reason and not sent. Ranges kept for documentation (RFC 5737) and benchmarks
are taken: they harm nobody, and rehearsals use them. So is loopback, which the sandbox knows its callers by.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, ip_interface
from types import MappingProxyType

from mtlskit.config.origins import shown
from mtlskit.errors import Code, ConfigError

__all__ = ["WIDEST_PREFIX", "parse_cidr"]

WIDEST_PREFIX = 8
"""The shortest prefix that needs no further word: no organisation was ever assigned more in one piece, so whatever is
wider lets strangers in."""

_NEVER_FROM_OUTSIDE: Mapping[IPv4Network, str] = MappingProxyType(
    {
        IPv4Network("10.0.0.0/8"): "private (RFC 1918)",
        IPv4Network("172.16.0.0/12"): "private (RFC 1918)",
        IPv4Network("192.168.0.0/16"): "private (RFC 1918)",
        IPv4Network("100.64.0.0/10"): "a provider's inner network (RFC 6598)",
        IPv4Network("169.254.0.0/16"): "link-local (RFC 3927)",
        IPv4Network("0.0.0.0/8"): "no address of a host (RFC 1122)",
        IPv4Network("224.0.0.0/4"): "multicast (RFC 5771)",
        IPv4Network("240.0.0.0/4"): "reserved (RFC 1112)",
    }
)

_HINT = 'write an IPv4 address or a range of them, such as "203.0.113.7" or "203.0.113.0/24"'
_ALL = 'write "0.0.0.0/0" for every address'


def parse_cidr(text: str, *, wide_ok: bool = False, private_ok: bool = False) -> IPv4Network:
    """Turn an IPv4 address ("203.0.113.7", which means /32) or CIDR into the network that a rule shall let in.

    `wide_ok` takes prefixes shorter than `WIDEST_PREFIX`, 0.0.0.0/0 among them (`--i-mean-it`); `private_ok` takes
    addresses that are never seen from outside. Bits beyond the prefix are always refused: they show that something else
    was meant. The sentences name the CIDR, but for a text that may hold a password.
    Raises `ConfigError`: ALLOW_BAD_CIDR, ALLOW_IPV6, ALLOW_PRIVATE, ALLOW_TOO_WIDE.
    """
    network = _network(text.strip())
    if not private_ok:
        _refuse_unseen(network)
    if network.prefixlen < WIDEST_PREFIX and not wide_ok:
        everyone = "everybody" if network.prefixlen == 0 else f"{network.num_addresses:,} addresses"
        raise ConfigError(
            Code.ALLOW_TOO_WIDE,
            f"{network} would let {everyone} in; without a further word, /{WIDEST_PREFIX} is the widest",
            f"name the ranges that you need; if you mean it, say so by hand:"
            f" mtlskit allowlist add {network} --addon NAME --description TEXT --i-mean-it",
        )
    return network


def _network(text: str) -> IPv4Network:
    _, slash, prefix = text.partition("/")
    try:
        # A zone is of IPv6 only, and ip_interface reads netmasks and inverted masks as well.
        interface = ip_interface(text)
    except ValueError as exc:
        raise _bad(f"{_named(text)} is not an IPv4 address or CIDR", _HINT) from exc
    if isinstance(interface.ip, IPv6Address):
        mapped = interface.ip.ipv4_mapped
        raise ConfigError(
            Code.ALLOW_IPV6,
            f"{_named(text)} is IPv6, and Heroku's IP rules take IPv4 only",
            f'write "{mapped}"' if mapped else "take the IPv4 address of the same host: mtlskit my-ip",
        )
    network = IPv4Network(interface.network)
    if slash and not (prefix.isascii() and prefix.isdigit()):
        raise _bad(f"{_named(text)}: a netmask is not a prefix", f'write "{network}"')
    if interface.ip != network.network_address:
        raise _bad(
            f"{interface.ip}/{network.prefixlen} has bits beyond its prefix of {network.prefixlen}",
            f'write "{network}" for the range, or "{interface.ip}" for the one address',
        )
    return network


def _refuse_unseen(network: IPv4Network) -> None:
    for unseen, reason in _NEVER_FROM_OUTSIDE.items():
        if network.subnet_of(unseen):
            zero = network == IPv4Network("0.0.0.0/32")
            raise ConfigError(
                Code.ALLOW_PRIVATE,
                f"{network} is {reason}: no connection reaches Heroku from there",
                _ALL if zero else "take the address that others see: mtlskit my-ip shows that of this host",
            )


def _named(text: str) -> str:
    return shown(text) or "what stands here"


def _bad(sentence: str, hint: str) -> ConfigError:
    return ConfigError(Code.ALLOW_BAD_CIDR, sentence, hint)
