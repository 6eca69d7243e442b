"""Upstreams: "host:port", "h1:1,h2:2", or a connection URL, of which only the hosts and ports are kept.

Postgres URLs are read as libpq reads them (PostgreSQL docs, "Connection URIs"): several hosts parted by commas, IPv6
literals in brackets, percent-encoding. User, password, database and parameters belong to the client, which sends its
own; they are dropped here, so that no value, repr or error can hold the password.

Kafka has no URLs of its own. Heroku writes its brokers "kafka+ssl://h1:9096,kafka+ssl://h2:9096" (KAFKA_URL), and that
is what is read: there is no user, no path and no parameter in it, so whatever looks like one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote

from mtlskit.config.addresses import parse_endpoint
from mtlskit.config.values import Endpoint, TunnelKind
from mtlskit.errors import Code, ConfigError

__all__ = ["MOST_UPSTREAMS", "POSTGRES_PORT", "holds_password", "is_kafka_url", "join_upstreams", "parse_upstream"]

POSTGRES_PORT = 5432
MOST_UPSTREAMS = 64
"""Endpoints of one tunnel. They are tried in turn within one dial deadline, so more could never be reached."""

_SCHEMES = frozenset({"postgres", "postgresql"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PLACE_PARAMETERS = frozenset({"host", "hostaddr", "port"})
_HINT = 'write HOST:PORT, a list of them, or a URL such as "postgres://USER@HOST:5432/DATABASE"'

_KAFKA_SCHEME = "kafka+ssl"
_KAFKA_SCHEMES = frozenset({_KAFKA_SCHEME, "kafka"})
_KAFKA_HINT = 'write HOST:PORT, a list of them, or "kafka+ssl://HOST:PORT,kafka+ssl://HOST:PORT"'


def parse_upstream(text: str, kind: TunnelKind) -> tuple[Endpoint, ...]:
    """Parse one text, which may name several hosts. The port defaults to 5432 for Postgres; else it must be written.

    An add-on (`heroku:ADDON`) is none: `config.addons` has looked before. Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    text = text.strip()
    if kind is TunnelKind.KAFKA:
        return _kafka_endpoints(text)
    url = _SCHEME.fullmatch(text)
    if url is None:
        if "=" in text:
            raise _bad('this looks like a "host=… port=…" connection string', _HINT)
        default_port = POSTGRES_PORT if kind is TunnelKind.POSTGRES else None
        return tuple(parse_endpoint(part, default_port=default_port) for part in text.split(","))
    if url[1].lower() in _KAFKA_SCHEMES:
        raise _bad(
            f"a {kind} tunnel does not take a Kafka URL",
            f'write HOST:PORT, or set the kind to "{TunnelKind.KAFKA}"',
        )
    if url[1].lower() not in _SCHEMES:
        raise _bad("of URLs, only postgres:// and postgresql:// can be an upstream", _HINT)
    if kind is not TunnelKind.POSTGRES:
        raise _bad(
            f"a {kind} tunnel does not take a Postgres URL",
            f'write HOST:PORT, or set the kind to "{TunnelKind.POSTGRES}"',
        )
    return tuple(_url_endpoint(part) for part in _hosts_of(url[2]).split(","))


def is_kafka_url(text: str) -> bool:
    """Whether `text` is written as Heroku writes its Kafka brokers, `kafka+ssl://…`."""
    return text.strip().lower().startswith(f"{_KAFKA_SCHEME}://")


def holds_password(text: str) -> bool:
    """Whether `text` is a URL that carries a password: after the user, or as a parameter."""
    url = _SCHEME.fullmatch(text.strip())
    if url is None:
        return False
    # Up to the last "@" whatever stands between: a password may hold a bare slash.
    credentials, at, _ = url[2].rpartition("@")
    if at and credentials.partition(":")[2]:
        return True
    _, _, query = url[2].partition("?")
    return any(name == "password" for name, _ in parse_qsl(query))


def join_upstreams(parsed: Iterable[Iterable[Endpoint]]) -> tuple[Endpoint, ...]:
    """Join what several texts named, in order and without repetitions.

    Raises `ConfigError` (CONFIG_BAD_VALUE) for none at all, or more than `MOST_UPSTREAMS`.
    """
    endpoints = tuple(dict.fromkeys(endpoint for several in parsed for endpoint in several))
    if not endpoints:
        raise _bad("the list of upstreams is empty", "name the server in it: HOST:PORT")
    if len(endpoints) > MOST_UPSTREAMS:
        raise _bad(f"a tunnel takes at most {MOST_UPSTREAMS} upstreams", "give the rest tunnels of their own")
    return endpoints


def _kafka_endpoints(text: str) -> tuple[Endpoint, ...]:
    if text.partition("://")[0].lower() in _SCHEMES:
        raise _bad(
            f"a {TunnelKind.KAFKA} tunnel does not take a Postgres URL",
            f'write HOST:PORT, or set the kind to "{TunnelKind.POSTGRES}"',
        )
    # The whole text, before it is cut at its commas: a password can hold one, and its rest would become a host.
    if "@" in text:
        raise _bad("a Kafka upstream has no user and no password: it knows a client by its certificate", _KAFKA_HINT)
    if "=" in text:
        raise _bad("this looks like a setting of a Kafka client, or like parameters of a URL", _KAFKA_HINT)
    return tuple(_kafka_endpoint(part.strip()) for part in text.split(","))


def _kafka_endpoint(part: str) -> Endpoint:
    # No regular expression for the scheme: Kafka's own names of protocols (SASL_SSL) are none in a URL.
    scheme, url, rest = part.partition("://")
    if not url:
        return parse_endpoint(part, default_port=None)
    if scheme.lower() != _KAFKA_SCHEME:
        raise _bad(f"of URLs, only {_KAFKA_SCHEME}:// can be a Kafka upstream: the brokers' TLS port", _KAFKA_HINT)
    located = rest.removesuffix("/")
    if re.search("[/?#]", located):
        raise _bad("a Kafka URL ends with its port: it has no path and no parameters", _KAFKA_HINT)
    return parse_endpoint(located, default_port=None)


def _hosts_of(rest: str) -> str:
    """The hosts and ports of what follows `scheme://`.

    As in libpq, credentials end before the first slash. They end at the last "@" there, so that a password with a bare
    "@" cannot become part of a host name.
    """
    head, _, tail = rest.partition("/")
    credentials, _, located = head.rpartition("@")
    hosts, _, query_without_path = located.partition("?")
    path, _, query_after_path = tail.partition("?")
    if "@" in path and not credentials:
        # Otherwise user:5432/secret@host would be dialled as host "user", port 5432.
        raise _bad("a slash stands before the '@' of the URL", "write a slash in a password as %2F")
    query = query_without_path or query_after_path
    if any(name in _PLACE_PARAMETERS for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise _bad(
            "host, hostaddr and port as parameters of a URL are not read",
            'write them in front: "postgres://USER@HOST:PORT/DATABASE"',
        )
    return hosts


def _url_endpoint(part: str) -> Endpoint:
    decoded = unquote(part)
    if decoded.startswith("/"):
        raise _bad("a unix socket cannot be an upstream: TLS needs TCP", _HINT)
    return parse_endpoint(decoded, default_port=POSTGRES_PORT)


def _bad(sentence: str, hint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_BAD_VALUE, sentence, hint)
