"""Listen addresses and endpoints: "127.0.0.1:6432", "[::1]:6432", "unix:/run/x/.s.PGSQL.6432", "db.example.com:5432".

The sentences of these errors never repeat what was given: an operator may have pasted a URL with a password into the
wrong place, or a variable may hold one. Whoever knows where the text stood puts that in front.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from mtlskit.config.paths import parse_path
from mtlskit.config.values import Endpoint, ListenAddress, TcpAddress, UnixAddress
from mtlskit.errors import Code, ConfigError

__all__ = ["parse_endpoint", "parse_host", "parse_listen", "split_host_port"]

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_LONGEST_NAME = 253
"""RFC 1035, section 2.3.4: 255 octets on the wire, which leaves 253 characters of text."""

_HIGHEST_PORT = 65_535
_LISTEN_HINT = 'write an IP address and a port, such as "127.0.0.1:6432" or "[::1]:6432", or "unix:/path/.s.PGSQL.6432"'
_ENDPOINT_HINT = 'write HOST:PORT, such as "db.example.com:5432" or "[2001:db8::7]:5432"'


def parse_listen(text: str, *, base: Path, environ: Mapping[str, str]) -> ListenAddress:
    """Turn `text` into an address to listen on; a relative unix path starts at `base`.

    A host must be written: ":6432" means every interface to some programs and none to others, so it is refused. Names
    other than `localhost` are refused too: what they resolve to may change behind the operator's back.
    Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    text = text.strip()
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"), base, environ)
    if text.isascii() and text.isdigit():
        raise _bad("a port alone is not enough", _LISTEN_HINT)
    host, port = split_host_port(text, hint=_LISTEN_HINT)
    if host in {"", "*"}:
        raise _bad(
            "the address to listen on is not written down",
            "write 127.0.0.1:PORT for this machine only, or 0.0.0.0:PORT (or [::]:PORT) together with"
            " --allow-client CIDR (allow_clients in a file)",
        )
    if port is None:
        raise _bad("the port is missing", _LISTEN_HINT)
    if host.lower() == "localhost":
        return TcpAddress("localhost", _parse_port(port, lowest=0, hint=_LISTEN_HINT))
    if _as_ip(host) is None:
        raise _bad("the host to listen on must be an IP address or localhost", _LISTEN_HINT)
    return TcpAddress(parse_host(host, hint=_LISTEN_HINT), _parse_port(port, lowest=0, hint=_LISTEN_HINT))


def parse_endpoint(text: str, *, default_port: int | None) -> Endpoint:
    """Turn "host:port" into an `Endpoint`; without `default_port` the port must be written.

    Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    host, port = split_host_port(text.strip(), hint=_ENDPOINT_HINT)
    checked = parse_host(host, hint=_ENDPOINT_HINT)
    if port is not None:
        return Endpoint(checked, _parse_port(port, lowest=1, hint=_ENDPOINT_HINT))
    if default_port is None:
        raise _bad("the port is missing", _ENDPOINT_HINT)
    return Endpoint(checked, default_port)


def split_host_port(text: str, *, hint: str = _ENDPOINT_HINT) -> tuple[str, str | None]:
    """Split "host", "host:port", "[v6]" or "[v6]:port" at the right colon; the brackets stay off the host.

    Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _bad("the brackets of the IPv6 address are not closed before the port", hint)
        if not isinstance(_as_ip(host), IPv6Address):
            raise _bad("only an IPv6 address stands in brackets", hint)
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        raise _bad("an IPv6 address must stand in brackets", hint)
    host, colon, port = text.partition(":")
    return host, port if colon else None


def parse_host(text: str, *, hint: str = _ENDPOINT_HINT) -> str:
    """Check a host name or IP address, and return it (IP addresses in their shortest form).

    Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    address = _as_ip(text)
    if address is not None:
        return str(address)
    if not text:
        raise _bad("the host is missing", hint)
    if not text.isascii():
        raise _bad("the host name is not ASCII", "write it in its encoded form, which begins with xn--")
    labels = text.split(".")
    if len(text) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad("not a host name", hint)
    if labels[-1].isdigit():
        raise _bad("not an IP address", hint)
    return text


def _as_ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.scope_id is not None and not _ZONE.fullmatch(address.scope_id):
        return None
    return address


def _parse_unix(text: str, base: Path, environ: Mapping[str, str]) -> UnixAddress:
    if text.startswith(("@", "\0")):
        raise _bad("abstract sockets are open to every user of the host", "name a file: unix:/path/.s.PGSQL.6432")
    if text.endswith("/"):
        raise _bad("this names a folder, not a socket", "add the socket's name: unix:/path/.s.PGSQL.6432")
    return UnixAddress(parse_path(text, base=base, environ=environ))


def _parse_port(text: str, *, lowest: int, hint: str) -> int:
    # isascii: int() also takes digits of other scripts; the length bound keeps it from its own limit of 4,300.
    if text.isascii() and text.isdigit() and len(text) <= 5 and lowest <= int(text) <= _HIGHEST_PORT:
        return int(text)
    raise _bad(f"the port must be a number from {lowest} to {_HIGHEST_PORT}", hint)


def _bad(sentence: str, hint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_BAD_VALUE, sentence, hint)
