"""What a server means that ends a login with an ErrorResponse, and what to do about it.

The SQLSTATE decides (PostgreSQL docs, "PostgreSQL Error Codes"). The texts may be in any language: where one is looked
at, it only makes the advice better.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from shlex import quote
from typing import Final

from mtlskit.doctor.case import Credentials
from mtlskit.errors import Code, UpstreamLost, UpstreamRefusedUs
from mtlskit.pki.certificates import bounded_text
from mtlskit.wire.postgres.messages import ErrorFields

__all__ = ["Refusal", "refusal_of", "said"]

_SHOWN: Final = 300
"""Characters of a server's own words."""

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")

_PASSWORD_WRONG, _NOT_LET_IN, _NO_DATABASE = "28P01", "28000", frozenset({"3D000", "42501", "55000"})
_FULL: Final = "53300"
_RESOURCES, _INTERVENTION, _SYSTEM, _INTERNAL = "53", "57", "58", "XX"


@dataclass(frozen=True)
class Refusal:
    """The error, and what to type."""

    error: UpstreamRefusedUs | UpstreamLost
    commands: tuple[str, ...] = ()
    about_user: bool = False
    """It may be about this very user or database; else it would have met any."""


def said(fields: ErrorFields) -> str:
    """The server's own words, bounded and safe to show."""
    detail = f" ({fields.detail})" if fields.detail else ""
    words = bounded_text(f"{fields.message}{detail}"[:_SHOWN]).rstrip(".") or "nothing"
    return f"{words}, SQLSTATE {bounded_text(fields.sqlstate[:5]) or 'none'}"


@dataclass(frozen=True)
class _Login:
    where: str
    who: Credentials
    common_name: str
    password_known: bool
    """The server has proven that it knows the password, so that ours is right."""
    by_scram: bool
    key: str

    @property
    def user(self) -> str:
        return bounded_text(self.who.user)

    @property
    def name_differs(self) -> bool:
        return bool(self.common_name) and self.common_name != self.who.user


def refusal_of(
    fields: ErrorFields,
    *,
    where: str,
    who: Credentials,
    common_name: str,
    password_known: bool = False,
    by_scram: bool = False,
    key: str = "",
) -> Refusal:
    """What it means. `common_name` is our certificate's, `key` the file of its key.

    With `by_scram`, the password was checked in a way that tells whether it is right (`password_known`).
    """
    login = _Login(where, who, common_name, password_known, by_scram, key)
    state, kind = fields.sqlstate, fields.sqlstate[:2]
    if (of_user := _of_user(login, fields, password_known)) is not None:
        return replace(of_user, about_user=True)
    if state == _FULL:
        return _full(login, fields)
    if kind in (_RESOURCES, _INTERVENTION, _SYSTEM, _INTERNAL):
        return _not_ready(login, fields)
    return Refusal(
        UpstreamRefusedUs(
            Code.PG_NOT_LET_IN,
            f"{where} ends the login of {login.user}: {said(fields)}",
            "the words are the server's own; its log says more, at this moment and with this user",
        )
    )


def _of_user(login: _Login, fields: ErrorFields, password_known: bool) -> Refusal | None:
    """What the SQLSTATE says of the user, its password or its database; None for other states."""
    state = fields.sqlstate
    if state == _PASSWORD_WRONG and password_known:
        return _certificate_names_another(login, fields)
    if state == _PASSWORD_WRONG or (state == _NOT_LET_IN and "does not exist" in fields.message):
        return _wrong_password(login, fields)
    if state == _NOT_LET_IN:
        return _not_let_in(login, fields)
    return _no_database(login, fields) if state in _NO_DATABASE else None


def _wrong_password(login: _Login, fields: ErrorFields) -> Refusal:
    unknown = "does not exist" in fields.message
    source = login.who.source or "nowhere"
    if unknown:
        hint = f"the name came from {source}: set PGUSER to a role that the server has"
    else:
        hint = (
            f"user and password came from {source}: mend them there, or set PGUSER and PGPASSWORD"
            " (heroku pg:credentials:url shows an add-on's)"
        )
        if login.name_differs and not login.by_scram:
            hint += (
                "; if they are right, a line of pg_hba.conf with clientcert=verify-full may want another certificate:"
                f" this one's common name is {bounded_text(login.common_name)}"
            )
    what = "knows no user" if unknown else "does not take the password of the user"
    sentence = f"{login.where} {what} {login.user}: {said(fields)}"
    return Refusal(UpstreamRefusedUs(Code.PG_LOGIN_REFUSED, sentence, hint))


def _certificate_names_another(login: _Login, fields: ErrorFields) -> Refusal:
    """PostgreSQL checks the certificate's name after the password, and answers as if the password were wrong."""
    sentence = (
        f"{login.where} has accepted the password of {login.user} and refuses the certificate:"
        f" its common name is {bounded_text(login.common_name) or 'empty'} ({said(fields)})"
    )
    return Refusal(UpstreamRefusedUs(Code.PG_NOT_LET_IN, sentence, _name_hint(login)), _csr(login))


def _name_hint(login: _Login) -> str:
    return (
        "the server compares the common name with the user (clientcert=verify-full, or the method cert): log in as"
        f" the user that the certificate names, get a certificate for {login.user}, or map the name in pg_ident.conf"
        " (map=…)"
    )


def _csr(login: _Login) -> tuple[str, ...]:
    user = login.who.user
    if not login.key or not _PLAIN_NAME.fullmatch(user):
        return ()
    return (f"mtlskit csr new --key {quote(login.key)} --subject CN={user} --out {user}.csr",)


def _not_let_in(login: _Login, fields: ErrorFields) -> Refusal:
    sentence = f"{login.where} does not let {login.user} in: {said(fields)}"
    if "no pg_hba.conf entry" in fields.message:
        hint = (
            "pg_hba.conf has no line for this user, database, address and kind of connection: add one on the server"
            " (hostssl DATABASE USER ADDRESS scram-sha-256 clientcert=verify-ca), then SELECT pg_reload_conf()"
        )
    elif "rejects" in fields.message:
        hint = "a line of pg_hba.conf with the method reject comes first for this user, database and address"
    elif "certificate" in fields.message:
        return Refusal(UpstreamRefusedUs(Code.PG_NOT_LET_IN, sentence, _name_hint(login)), _csr(login))
    elif "log in" in fields.message:
        hint = "the role may not log in: ALTER ROLE … LOGIN, or log in as another"
    else:
        hint = "look at the server's pg_hba.conf and its log: the lines for this user, this database and this address"
        if login.name_differs:
            hint += f"; {_name_hint(login)}"
    return Refusal(UpstreamRefusedUs(Code.PG_NOT_LET_IN, sentence, hint))


def _no_database(login: _Login, fields: ErrorFields) -> Refusal:
    database = bounded_text(login.who.database)
    sentence = f"{login.where} does not let {login.user} into the database {database}: {said(fields)}"
    hint = {
        "3D000": "set PGDATABASE to a database that the server has; without it, libpq takes the user's name",
        "42501": "the owner lets a user in with GRANT CONNECT ON DATABASE … TO …",
        "55000": "the database takes no connections (ALTER DATABASE … ALLOW_CONNECTIONS true): choose another",
    }[fields.sqlstate]
    return Refusal(UpstreamRefusedUs(Code.PG_NO_DATABASE, sentence, hint))


def _full(login: _Login, fields: ErrorFields) -> Refusal:
    message = fields.message
    if " role " in message and "for role" in message:
        who, more = f"all connections that the role {login.user} may have", "ALTER ROLE … CONNECTION LIMIT raises it"
    elif "for database" in message:
        who = f"all connections that the database {bounded_text(login.who.database)} may have"
        more = "ALTER DATABASE … CONNECTION LIMIT raises it"
    else:
        who, more = "all connections of the server", "max_connections raises it (a restart), or a larger plan"
    sentence = f"{login.where} is full: {who} are taken: {said(fields)}"
    hint = f"close sessions that nobody needs (pg_stat_activity shows them), put a pooler before the server; {more}"
    return Refusal(UpstreamRefusedUs(Code.PG_FULL, sentence, hint))


def _not_ready(login: _Login, fields: ErrorFields) -> Refusal:
    sentence = f"{login.where} takes nobody now: {said(fields)}"
    hint = "it may be starting, stopping or recovering: try again in a minute"
    if "standby" in fields.detail:
        hint = "it is a standby that takes no queries (hot_standby = off): find out where the primary is"
    elif fields.sqlstate[:2] != _INTERVENTION:
        hint = "the server is in trouble: whoever runs it must look at its log, its memory and its disks"
    return Refusal(UpstreamLost(Code.PG_NOT_READY, sentence, hint), ("mtlskit doctor --watch",))
