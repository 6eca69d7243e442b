"""Who and what is trusted: client networks, local users, verification modes and pins."""

from __future__ import annotations

import base64
import binascii
import re
from ipaddress import IPv6Network, ip_interface, ip_network

from mtlskit.config.addresses import parse_host
from mtlskit.config.values import Network, Verify, VerifyMode
from mtlskit.errors import Code, ConfigError

__all__ = ["parse_network", "parse_pin", "parse_user", "parse_verify"]

_SHA256_BYTES = 32
_NETWORK_HINT = 'write an address or a network, such as "203.0.113.7", "10.0.0.0/8" or "fd00::/8"'
_PIN_HINT = (
    "make one with: openssl x509 -in server.pem -noout -pubkey | openssl pkey -pubin -outform der"
    " | openssl dgst -sha256 -binary | base64"
)
_HIGHEST_UID = 2**32 - 2
"""Linux uids are 32 bits wide; the last value stands for "no change" in chown(2)."""
_USER = re.compile(r"(?!-)[^\s:/\x00-\x1f\x7f]{1,256}")


def parse_network(text: str) -> Network:
    """Turn an address or CIDR into a network.

    Bits beyond the prefix are refused: they show that something else was meant.
    Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    text = text.strip()
    _, slash, prefix = text.partition("/")
    # ipaddress would also take netmasks and inverted masks, and a zone that no client address ever matches.
    if "%" in text or (slash and not (prefix.isascii() and prefix.isdigit())):
        raise ConfigError(Code.CONFIG_BAD_VALUE, "not an IP address or CIDR", _NETWORK_HINT)
    try:
        interface = ip_interface(text)
    except ValueError as exc:
        raise ConfigError(Code.CONFIG_BAD_VALUE, "not an IP address or CIDR", _NETWORK_HINT) from exc
    network = ip_network(interface.network)
    if interface.ip != network.network_address:
        raise ConfigError(
            Code.CONFIG_BAD_VALUE,
            f"the address has bits beyond its prefix of {network.prefixlen}",
            f'write "{network}" for the network, or "{interface.ip}" for the one address',
        )
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        inner = ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
        raise ConfigError(
            Code.CONFIG_BAD_VALUE, "an IPv4 network is written as IPv6, and would match nobody", f'write "{inner}"'
        )
    return network


def parse_user(value: str | int) -> str:
    """Check a local user, a name or a numeric id; it is returned as text. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    # The range comes first: an integer of thousands of digits cannot even be turned into text.
    text = value.strip() if isinstance(value, str) else str(value) if 0 <= value <= _HIGHEST_UID else ""
    if not _USER.fullmatch(text):
        raise ConfigError(
            Code.CONFIG_BAD_VALUE, "not the name or number of a user", 'write a login name, such as "tableau", or a uid'
        )
    return text


def parse_verify(text: str) -> Verify:
    """Turn "full", "ca" or "name:HOST" into a `Verify`. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    text = text.strip()
    hint = 'use "full" (chain and name), "ca" (chain only) or "name:HOST" (chain, and this name)'
    if text.startswith("name:"):
        host = text.removeprefix("name:").strip()
        return Verify(VerifyMode.NAME, parse_host(host, hint='write a host name after "name:"'))
    if text not in {VerifyMode.FULL, VerifyMode.CA}:
        raise ConfigError(Code.CONFIG_BAD_VALUE, "not a way to verify the server", hint)
    return Verify(VerifyMode(text))


def parse_pin(text: str) -> bytes:
    """Turn "sha256/BASE64" into a digest of 32 bytes: SHA-256 over a SubjectPublicKeyInfo (RFC 7469, section 2.4).

    curl's "sha256//BASE64" is taken too. Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    algorithm, slash, encoded = text.strip().partition("/")
    if algorithm != "sha256" or not slash:
        raise ConfigError(Code.CONFIG_BAD_VALUE, "a pin begins with sha256/", _PIN_HINT)
    # curl puts two slashes; base64 of 32 bytes has 44 characters, so the shorter reading cannot be meant.
    if len(encoded) == 45 and encoded.startswith("/"):
        encoded = encoded[1:]
    try:
        digest = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ConfigError(Code.CONFIG_BAD_VALUE, "the pin is not base64", _PIN_HINT) from exc
    if len(digest) != _SHA256_BYTES:
        raise ConfigError(
            Code.CONFIG_BAD_VALUE, f"the pin holds {len(digest)} bytes, a SHA-256 digest has {_SHA256_BYTES}", _PIN_HINT
        )
    return digest
