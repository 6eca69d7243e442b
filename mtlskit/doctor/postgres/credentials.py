"""Who logs in for the look inside: found as psql would find it, or a URL that leads to the same place.

In this order, the first that names a user:

1. the add-on's credential, where Heroku was asked;
2. `PGUSER` (with `PGDATABASE`), unless `PGHOST` and `PGPORT` name another server;
3. `DATABASE_URL`, then any other variable with a Postgres URL (by name), if it leads to the endpoint or to the tunnel;
4. the first rule of the password file that names this host, this port and a user;
5. the system's user, if `PGPASSWORD` is set and nothing says that it is for another server.

A password comes from the same source, from `PGPASSWORD`, or from the password file (`PGPASSFILE`, `~/.pgpass`), by the
rules of libpq (PostgreSQL docs, "The Password File"). Nothing that was read is ever shown but its place.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from mtlskit.config.upstreams import parse_upstream
from mtlskit.config.values import Endpoint, ListenAddress, TcpAddress, TunnelKind, UnixAddress
from mtlskit.doctor.case import Case, Credentials
from mtlskit.errors import Code, ConfigError, IdentityError, MtlskitError

__all__ = ["Found", "find_credentials"]

_URL: Final = re.compile(r"postgres(?:ql)?://(.*)", re.DOTALL | re.IGNORECASE)
_MAX_URL: Final = 8192
"""Characters of a variable that is taken for a URL, at most."""
_MAX_PASSFILE: Final = 1 << 20
"""Bytes of the password file that are read."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_EVERY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})
_WILDCARD: Final = "*"


@dataclass(frozen=True)
class Found:
    """What there is to log in with."""

    credentials: Credentials | None = None
    """Its password may be None: some servers ask for none."""
    trouble: MtlskitError | None = None
    """Why the password file, which might have helped, was not used."""
    missing: str = "no user: set PGUSER and PGPASSWORD"
    """What to say where something is missing."""
    sure: bool = True
    """They are for this server. Not sure: PGUSER may be meant for another tunnel of the file."""


def find_credentials(case: Case, endpoint: Endpoint, given: Credentials | None) -> Found:
    """Look for a user, a database and a password. Reads a file; never raises for what it finds."""
    if given is not None:
        return Found(given)
    environ = case.means.environ
    places = (endpoint, *_doors(case.tunnel.listen if case.of_file else None))
    file = _PassFile.of(environ)
    elsewhere = _names_another(environ, places, case.tunnel.listen if case.of_file else None)
    chosen = _from_pg_variables(environ) if not elsewhere else None
    named = None if chosen else _from_urls(environ, places) or file.first_user(places)
    chosen = chosen or named
    if chosen is None and not elsewhere:
        chosen = _from_system_user(environ)
    if chosen is None:
        because = "no user: PGHOST and PGPORT name another server" if elsewhere and environ.get("PGUSER") else None
        return Found(None, file.trouble, because or Found.missing)
    if chosen.password is None and not elsewhere and environ.get("PGPASSWORD"):
        chosen = replace(chosen, password=environ["PGPASSWORD"], source=f"{chosen.source} and PGPASSWORD")
    if chosen.password is None and (rule := file.rule_for(places, chosen)) is not None:
        chosen = replace(chosen, password=rule.password, source=f"{chosen.source} and {rule.place}")
    trouble = file.trouble if chosen.password is None else None
    missing = f"no password for {chosen.user}: set PGUSER and PGPASSWORD"
    sure = named is not None or bool(environ.get("PGHOST")) or not _among_others(case)
    return Found(chosen, trouble, missing, sure)


def _among_others(case: Case) -> bool:
    """Whether the file has another Postgres tunnel, which PGUSER could be for."""
    return sum(tunnel.kind is TunnelKind.POSTGRES for tunnel in case.config.tunnels) > 1


def _doors(listen: ListenAddress | None) -> Iterator[Endpoint]:
    """Where clients of this host find the tunnel."""
    if not isinstance(listen, TcpAddress) or not listen.port:
        return
    yield Endpoint(listen.host, listen.port)
    if listen.host in _LOOPBACK or listen.host in _EVERY_ADDRESS:
        for host in _LOOPBACK:
            yield Endpoint(host, listen.port)


def _names_another(environ: Mapping[str, str], places: Sequence[Endpoint], listen: ListenAddress | None) -> bool:
    """Whether `PGHOST` and `PGPORT` are set, and lead neither to the endpoint nor to the tunnel."""
    hosts = environ.get("PGHOST", "")
    if not hosts:
        return False
    if hosts.startswith("/"):
        return not isinstance(listen, UnixAddress) or str(listen.path.parent) != hosts.rstrip("/")
    ports = (environ.get("PGPORT") or "5432").split(",")
    named = zip(hosts.split(","), ports * (len(hosts.split(",")) if len(ports) == 1 else 1), strict=False)
    return not any(_same(host, port, place) for host, port in named for place in places)


def _same(host: str, port: str, place: Endpoint) -> bool:
    return host.strip().lower() == place.host.lower() and port.strip() == str(place.port)


def _from_pg_variables(environ: Mapping[str, str]) -> Credentials | None:
    user = environ.get("PGUSER", "")
    return Credentials(user, environ.get("PGDATABASE") or user, source="PGUSER") if user else None


def _from_system_user(environ: Mapping[str, str]) -> Credentials | None:
    """As libpq: without PGUSER, one logs in under the name that one has on this host."""
    user = environ.get("USER") or environ.get("LOGNAME") or ""
    if not user or not environ.get("PGPASSWORD"):
        return None
    return Credentials(user, environ.get("PGDATABASE") or user, source="the name of the system's user")


def _from_urls(environ: Mapping[str, str], places: Sequence[Endpoint]) -> Credentials | None:
    for name in sorted(environ, key=lambda name: (name != "DATABASE_URL", name)):
        text = environ[name].strip()
        match = _URL.fullmatch(text) if len(text) <= _MAX_URL else None
        if match is None or not _leads_to(text, places):
            continue
        if (read := _user_of(match[1], name)) is not None:
            return read
    return None


def _leads_to(url: str, places: Sequence[Endpoint]) -> bool:
    try:
        endpoints = parse_upstream(url, TunnelKind.POSTGRES)
    except ConfigError:
        return False
    return any(_same(one.host, str(one.port), place) for one in endpoints for place in places)


def _user_of(rest: str, name: str) -> Credentials | None:
    """Of what follows `postgres://`: as in `config.upstreams`, credentials end at the last "@" before the slash."""
    head, _, tail = rest.partition("/")
    credentials, _, hosts = head.rpartition("@")
    path, _, query = tail.partition("?")
    options = dict(parse_qsl(query or hosts.partition("?")[2]))
    user, colon, password = credentials.partition(":")
    user = options.get("user") or unquote(user)
    if not user:
        return None
    secret = options.get("password") or (unquote(password) if colon else None)
    return Credentials(user, options.get("dbname") or unquote(path) or user, secret or None, name)


@dataclass(frozen=True)
class _Rule:
    """A line of the password file."""

    place: str
    host: str
    port: str
    database: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"<rule of {self.place}>"  # never the password

    def covers(self, place: Endpoint) -> bool:
        return _fits(self.host, place.host) and _fits(self.port, str(place.port))


@dataclass(frozen=True)
class _PassFile:
    rules: tuple[_Rule, ...] = ()
    trouble: MtlskitError | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> _PassFile:
        """`PGPASSFILE`, or `.pgpass` in the home folder; empty where there is none."""
        path = environ.get("PGPASSFILE") or (f"{environ['HOME']}/.pgpass" if environ.get("HOME") else "")
        if not path:
            return cls()
        try:
            text = _read(Path(path))
        except IdentityError as exc:
            return cls(trouble=exc)
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return cls()  # libpq goes on without a word as well
        return cls(tuple(_rules(text, path)))

    def rule_for(self, places: Sequence[Endpoint], credentials: Credentials) -> _Rule | None:
        """The first that fits, as in libpq."""
        for rule in self.rules:
            if not (_fits(rule.database, credentials.database) and _fits(rule.user, credentials.user)):
                continue
            if any(rule.covers(place) for place in places):
                return rule
        return None

    def first_user(self, places: Sequence[Endpoint]) -> Credentials | None:
        """Of the first rule that speaks of this very server and names a user."""
        for rule in self.rules:
            if _WILDCARD in (rule.host, rule.port, rule.user) or not any(rule.covers(place) for place in places):
                continue
            database = rule.user if rule.database == _WILDCARD else rule.database
            return Credentials(rule.user, database, rule.password, rule.place)
        return None


def _read(path: Path) -> str:
    """Raises OSError, and IdentityError for a file that libpq would not use because of its rights."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a plain file")
        if os.name == "posix" and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise IdentityError(
                Code.KEY_EXPOSED,
                f"{path}: the password file is open to others than its owner (mode {stat.S_IMODE(status.st_mode):04o}),"
                " and libpq does not use it",
                "give it to its owner alone, and change the passwords if others have had a login here",
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(_MAX_PASSFILE).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)


def _rules(text: str, path: str) -> Iterator[_Rule]:
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        fields = _fields(line)
        if not line.startswith("#") and len(fields) >= 5:
            host, port, database, user, password = fields[:5]
            yield _Rule(f"{path}, line {number}", host, port, database, user, password)


def _fields(line: str) -> list[str]:
    """Parted by colons; a backslash takes the next character as it is."""
    parts = re.findall(r"((?:\\.|[^:\\]|\\$)*)(?::|$)", line)
    return [re.sub(r"\\(.)", r"\1", part) for part in parts]


def _fits(rule: str, name: str) -> bool:
    return rule in (_WILDCARD, name)
