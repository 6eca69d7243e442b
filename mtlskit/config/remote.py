"""What is asked over the network: `[heroku]`, `[my_ip]`, and URLs and local addresses that those and others hold.

Where a token may be sent is judged by who sends it; here the texts are checked in form only.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from mtlskit.config.addresses import parse_host
from mtlskit.config.fields import each, one
from mtlskit.config.origins import Origin, ValuePath
from mtlskit.config.reach import leads_here
from mtlskit.config.schema import HerokuTable, MyIpTable
from mtlskit.config.values import HerokuConfig, MyIpConfig
from mtlskit.errors import Code, ConfigError

__all__ = ["LONGEST_URL", "build_heroku", "build_my_ip", "parse_source", "parse_url"]

LONGEST_URL = 2000
"""Characters. What servers and proxies take in practice."""

_HOST_HINT = 'write a host of heroku.com, or a URL such as "https://api.data.heroku.com"'
_SOURCE_HINT = 'write an address of this machine, such as "192.0.2.10" (ip address shows them)'


def build_heroku(table: HerokuTable, origin: Origin) -> HerokuConfig:
    """Where Heroku's APIs are. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    path: ValuePath = ("heroku",)
    return HerokuConfig(
        api_host=None if table.api_host is None else one(table.api_host, _host, (*path, "api_host"), origin),
        data_host=None if table.data_host is None else one(table.data_host, _host, (*path, "data_host"), origin),
    )


def build_my_ip(table: MyIpTable, origin: Origin) -> MyIpConfig:
    """Who is asked for this host's address. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    path: ValuePath = ("my_ip",)
    services = each(table.services, parse_url, (*path, "services"), origin)
    source = None if table.source is None else one(table.source, _ipv4_source, (*path, "source"), origin)
    return MyIpConfig(services=tuple(dict.fromkeys(services)), source=source)


def parse_url(text: str) -> str:
    """Check a URL whose answer is believed: https, or http of this machine. Raises `ConfigError` (CONFIG_BAD_VALUE).

    One with a user or a password is refused: it would be shown with the plan, and told in errors.
    """
    text = text.strip()
    hint = 'write a URL such as "https://example.com/addresses.json"'
    if len(text) > LONGEST_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise _bad("not a URL", hint)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise _bad("not a URL", hint) from exc
    if parts.scheme not in ("https", "http") or port == 0:
        raise _bad("not a URL of https", hint)
    if parts.username is not None or parts.password is not None:
        raise _bad("a user or a password has no place in this URL", hint)
    parse_host(host, hint=hint)
    if parts.scheme == "http" and not leads_here(host):
        raise _bad("over http, anybody on the way could change the answer", "write https://")
    return text


def parse_source(text: str) -> str:
    """Check a local IP address that connections start from. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    return str(_source(text))


def _ipv4_source(text: str) -> str:
    address = _source(text)
    if isinstance(address, IPv6Address):
        raise _bad("an IPv6 address is of no use here: IP rules take IPv4 only", _SOURCE_HINT)
    return str(address)


def _source(text: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text.strip())
    except ValueError as exc:
        raise _bad("not an IP address", _SOURCE_HINT) from exc
    if address.is_unspecified or address.is_multicast or "%" in str(address):
        raise _bad("not an address that a connection can start from", _SOURCE_HINT)
    return address


def _host(text: str) -> str:
    text = text.strip()
    if not text or len(text) > LONGEST_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise _bad("not a host or a URL", _HOST_HINT)
    if "@" in text:
        raise _bad("a user or a password has no place in it", _HOST_HINT)
    return text


def _bad(sentence: str, hint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_BAD_VALUE, sentence, hint)
