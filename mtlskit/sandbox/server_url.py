"""The URL of a server that stands behind the gateway: the sandbox's own, or one that the user brings.

The forms are those of libpq (PostgreSQL docs, "Connection URIs"), for one host: `postgres://user:password@host:port/db`,
and for a unix socket `postgres://user:password@/db?host=/folder` or the folder percent-encoded in place of the host.
No error here repeats the URL: it may hold a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mtlskit.config.values import Endpoint, TcpAddress, UnixAddress
from mtlskit.errors import Code, ConfigError
from mtlskit.sandbox.upstream import Upstream

__all__ = ["ServerUrl", "gateway_url", "parse_server_url", "socket_url"]

_HINT: Final = 'such as "postgres://user:password@127.0.0.1:5432/db" (percent-encode special characters)'
_PLAIN_MODES: Final = frozenset({"disable", "allow", "prefer"})
_DEFAULT_PORT: Final = 5432


@dataclass(frozen=True)
class ServerUrl:
    """What a URL says. `password` is empty where it has none."""

    upstream: Upstream
    user: str
    password: str = field(repr=False)
    database: str


def parse_server_url(url: str, *, source: str = "--postgres") -> ServerUrl:
    """Parses the URL of a server that the gateway can reach. Raises ConfigError, which names `source`."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port or _DEFAULT_PORT
    except ValueError as exc:
        raise _bad(source, "the URL cannot be read") from exc
    if parts.scheme not in ("postgres", "postgresql"):
        raise _bad(source, "the URL does not begin with postgres://")
    options = dict(parse_qsl(parts.query))
    if options.get("sslmode", "prefer") not in _PLAIN_MODES:
        raise ConfigError(
            Code.CONFIG_NOT_SUPPORTED,
            f"{source}: the gateway speaks plain text to the server, and the URL says sslmode={options['sslmode']}",
            "name a server on this host or network, without sslmode",
        )
    user = unquote(parts.username or "")
    if not user:
        raise _bad(source, "the URL names no user")
    host = options.get("host") or _host_of(parts.netloc)
    if not host:
        raise _bad(source, "the URL names no host")
    port = int(options["port"]) if options.get("port", "").isdigit() else port
    return ServerUrl(
        upstream=UnixAddress(Path(host) / f".s.PGSQL.{port}") if host.startswith("/") else Endpoint(host, port),
        user=user,
        password=unquote(parts.password or ""),
        database=unquote(parts.path.lstrip("/")) or user,
    )


def _host_of(netloc: str) -> str:
    """The host as it is written: urlsplit's own makes it lower-case, which changes a folder's name."""
    location = netloc.rpartition("@")[2]
    if location.startswith("["):
        return location[1:].partition("]")[0]
    return unquote(location.partition(":")[0])


def socket_url(folder: Path, *, user: str, password: str, database: str) -> str:
    """The URL of a server on a unix socket in `folder`, port 5432."""
    return f"postgres://{_credentials(user, password)}@/{_encode(database)}?host={_encode(str(folder))}"


def gateway_url(address: TcpAddress, *, user: str, password: str, database: str) -> str:
    """The URL of the gateway itself."""
    return f"postgres://{_credentials(user, password)}@{address}/{_encode(database)}"


def _credentials(user: str, password: str) -> str:
    return f"{_encode(user)}:{_encode(password)}" if password else _encode(user)


def _encode(text: str) -> str:
    return quote(text, safe="")


def _bad(source: str, sentence: str) -> ConfigError:
    return ConfigError(Code.CONFIG_BAD_VALUE, f"{source}: {sentence}", _HINT)
