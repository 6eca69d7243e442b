"""Who logs in for the look inside: found as psql would find it, or a URL that leads to the same place.

In this order, the first that names a user:

1. the add-on's credential, where Heroku was asked;
2. `PGUSER` (with `PGDATABASE`), unless `PGHOST`, `PGHOSTADDR`, `PGPORT` or `PGSERVICE` name another server, or none of
   them is set and the next names this very one;
3. `DATABASE_URL`, then any other variable with a Postgres URL (by name), if it leads to the endpoint or to the tunnel;
4. the first rule of the password file that names this host, this port and a user;
5. the system's user, if `PGPASSWORD` is set and nothing says that it is for another server.

A password comes from the same source, from `PGPASSWORD`, or from the password file (`PGPASSFILE`, `~/.pgpass`), by the
rules of libpq (PostgreSQL docs, "The Password File"). Nothing that was read is ever shown but its place.

Where a password may be meant for another server, `Found.doubt` says why. Such a one is for SCRAM alone, of which the
server learns nothing that it could log in with elsewhere.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from mtlskit.config.upstreams import parse_upstream
from mtlskit.config.values import Endpoint, TunnelKind
from mtlskit.doctor.case import Case, Credentials
from mtlskit.doctor.postgres.places import WILDCARD, Fit, Places
from mtlskit.errors import Code, ConfigError, IdentityError, MtlskitError

__all__ = ["Found", "find_credentials"]

_URL: Final = re.compile(r"postgres(?:ql)?://(.*)", re.DOTALL | re.IGNORECASE)
_MAX_URL: Final = 8192
"""Characters of a variable that is taken for a URL, at most."""
_MAX_PASSFILE: Final = 1 << 20
"""Bytes of the password file that are read."""
_ELSEWHERE: Final = "no user: PGHOST, PGHOSTADDR, PGPORT or PGSERVICE name another server"


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
    """Clients of this tunnel log in with them. Not sure: they may be meant for another server altogether."""
    doubt: str = ""
    """Why the password may be another server's, for sentences; empty: it certainly belongs to this one."""


@dataclass(frozen=True)
class _Named:
    """Somebody to log in as, and how sure it is that he is meant for this server."""

    credentials: Credentials
    fit: Fit


def find_credentials(case: Case, endpoint: Endpoint, given: Credentials | None) -> Found:
    """Look for a user, a database and a password. Reads a file; never raises for what it finds."""
    if given is not None:
        return Found(given)
    environ = case.means.environ
    places = Places(endpoint, case.tunnel.listen if case.of_file else None)
    file = _PassFile.of(environ)
    said = places.named_by(environ)
    here = said is not Fit.ELSEWHERE
    by_variable = _from_pg_variables(environ) if here else None
    by_url = _from_urls(environ, places)
    if said is None and by_url is not None and by_url.fit is Fit.HERE:
        by_variable = None  # as to libpq, a URL of this very server says more than variables that name none
    named = None if by_variable else by_url or file.first_user(places)
    chosen = by_variable or (named.credentials if named else None) or (_from_system_user(environ) if here else None)
    if chosen is None:
        elsewhere = not here and environ.get("PGUSER")
        return Found(None, file.trouble, _ELSEWHERE if elsewhere else Found.missing)
    unclear = _unclear(case, environ, said, by_system=not by_variable and named is None)
    doubt = _of_door(named) if named else unclear
    if chosen.password is None and here and environ.get("PGPASSWORD"):
        chosen = replace(chosen, password=environ["PGPASSWORD"], source=f"{chosen.source} and PGPASSWORD")
        doubt = doubt or unclear
    if chosen.password is None and (rule := file.rule_for(places, chosen)) is not None:
        chosen = replace(chosen, password=rule.password, source=f"{chosen.source} and {rule.place}")
        doubt = "" if rule.fit(places) is Fit.HERE else f"{rule.place} does not name this very server"
    trouble = file.trouble if chosen.password is None else None
    missing = f"no password for {chosen.user}: set PGUSER and PGPASSWORD"
    guessed = _among_others(case) or (by_variable is None and _url_of_another(environ, places))
    sure = named is not None or said is not None or not guessed
    return Found(chosen, trouble, missing, sure, doubt)


def _unclear(case: Case, environ: Mapping[str, str], said: Fit | None, *, by_system: bool) -> str:
    """Why `PGPASSWORD` may be for another server; `said` is where the variables lead to."""
    if said is Fit.HERE:
        return ""
    if said is Fit.PERHAPS:
        return "PGHOST, PGHOSTADDR or PGPORT lead to the tunnel's own port or name, where another server may be meant"
    if _among_others(case):
        return "PGPASSWORD may be for another tunnel of the file"
    return "nothing says for which server PGPASSWORD is" if by_system else ""


def _of_door(named: _Named) -> str:
    if named.fit is Fit.HERE:
        return ""
    return f"{named.credentials.source} leads to the tunnel's own port, where another server may be meant"


def _among_others(case: Case) -> bool:
    """Whether the file has another Postgres tunnel, which PGUSER could be for."""
    return sum(tunnel.kind is TunnelKind.POSTGRES for tunnel in case.config.tunnels) > 1


def _from_pg_variables(environ: Mapping[str, str]) -> Credentials | None:
    user = environ.get("PGUSER", "")
    return Credentials(user, environ.get("PGDATABASE") or user, source="PGUSER") if user else None


def _from_system_user(environ: Mapping[str, str]) -> Credentials | None:
    """As libpq: without PGUSER, one logs in under the name that one has on this host."""
    user = environ.get("USER") or environ.get("LOGNAME") or ""
    if not user or not environ.get("PGPASSWORD"):
        return None
    return Credentials(user, environ.get("PGDATABASE") or user, source="the name of the system's user")


def _from_urls(environ: Mapping[str, str], places: Places) -> _Named | None:
    """The first that leads to the endpoint, or else the first that leads to the tunnel."""
    found: list[_Named] = []
    for name in sorted(environ, key=lambda name: (name != "DATABASE_URL", name)):
        text = environ[name].strip()
        match = _URL.fullmatch(text) if len(text) <= _MAX_URL else None
        fit = _fit_of_url(text, places) if match is not None else Fit.ELSEWHERE
        if match is not None and fit is not Fit.ELSEWHERE and (read := _user_of(match[1], name)) is not None:
            found.append(_Named(read, fit))
    return max(found, key=lambda named: named.fit, default=None)


def _url_of_another(environ: Mapping[str, str], places: Places) -> bool:
    """Whether some variable has the URL of another Postgres, which `PGPASSWORD` could be for as well."""
    urls = [text for text in map(str.strip, environ.values()) if len(text) <= _MAX_URL and _URL.fullmatch(text)]
    return any(_fit_of_url(url, places) is Fit.ELSEWHERE for url in urls)


def _fit_of_url(url: str, places: Places) -> Fit:
    if any(name == "service" for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True)):
        return Fit.ELSEWHERE  # what a service file holds is not read
    try:
        endpoints = parse_upstream(url, TunnelKind.POSTGRES)
    except ConfigError:
        return Fit.ELSEWHERE
    return max((places.fit(each.host, str(each.port)) for each in endpoints), default=Fit.ELSEWHERE)


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

    def fit(self, places: Places) -> Fit:
        return places.fit_of_rule(self.host, self.port)


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

    def rule_for(self, places: Places, credentials: Credentials) -> _Rule | None:
        """The first that fits, as in libpq; what names another place than the tunnel's door comes before that."""
        fitting = [
            rule
            for rule in self.rules
            if _fits(rule.database, credentials.database) and _fits(rule.user, credentials.user)
        ]
        of_server = Places(places.endpoint)
        for where in (of_server, places):
            for rule in fitting:
                if rule.fit(where) is not Fit.ELSEWHERE:
                    return rule
        return None

    def first_user(self, places: Places) -> _Named | None:
        """Of the first rule that speaks of this very server, or else of the tunnel, and names a user."""
        found: list[_Named] = []
        for rule in self.rules:
            fit = rule.fit(places)
            if WILDCARD in (rule.host, rule.port, rule.user) or fit is Fit.ELSEWHERE:
                continue
            database = rule.user if rule.database == WILDCARD else rule.database
            found.append(_Named(Credentials(rule.user, database, rule.password, rule.place), fit))
        return max(found, key=lambda named: named.fit, default=None)


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
    return rule in (WILDCARD, name)
