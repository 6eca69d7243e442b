"""The data API's objects as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from mtlskit.heroku.parsing import Fields, Misshapen
from mtlskit.heroku.values import Credential, IpRule, KafkaCluster, RemoteCertificate, TlsEndpoint

__all__ = [
    "WaitStatus",
    "certificate_of",
    "cluster_of",
    "credential_of",
    "endpoint_of",
    "listed_credential_of",
    "rule_of",
    "wait_status_of",
]


@dataclass(frozen=True)
class WaitStatus:
    """Whether an add-on is being made or changed."""

    waiting: bool
    """It is not there yet."""
    message: str
    failed: bool = False
    """It never will be: the message says why."""


def endpoint_of(fields: Fields, addon: str) -> TlsEndpoint:
    """`{app, addon, status, enabled_by, active_ip_rules[]}`, and a chain where the API sends one."""
    return TlsEndpoint(
        addon=fields.name("addon", addon),
        status=fields.text("status"),
        app=fields.name("app"),
        enabled_by=fields.name("enabled_by"),
        authorities=fields.text_or("certificate_authority_chain") or None,
    )


def certificate_of(fields: Fields) -> RemoteCertificate:
    """`{id, name, created_at, updated_at, expires_at, status}`, and for a single one key and chain."""
    return RemoteCertificate(
        id=fields.text("id"),
        status=fields.text("status"),
        created_at=fields.text_or("created_at"),
        name=fields.text_or("name"),
        expires_at=fields.time("expires_at"),
        private_key=fields.text_or("private_key") or None,
        certificate_with_chain=fields.text_or("certificate_with_chain") or None,
    )


def rule_of(fields: Fields) -> IpRule:
    """`{id, cidr, description, status, created_at, updated_at}`."""
    return IpRule(
        id=fields.text("id"),
        cidr=fields.text("cidr"),
        description=fields.text_or("description"),
        status=fields.text_or("status"),
        created_at=fields.time("created_at"),
        updated_at=fields.time("updated_at"),
    )


def credential_of(fields: Fields) -> Credential:
    """`{uuid, name, state, database, host, port, credentials: [{user, password, state}]}`."""
    login = _login(fields)
    if login is None:
        raise Misshapen("a login in `credentials` of the answer")
    return _credential(fields, login.text("user"), login.text("password"))


def listed_credential_of(fields: Fields) -> Credential:
    """The same in a list, where one that has no login (any more) is in its place too."""
    login = _login(fields)
    if login is None:
        return _credential(fields, "", "")
    return _credential(fields, login.text_or("user"), login.text_or("password"))


def _credential(fields: Fields, user: str, password: str) -> Credential:
    return Credential(
        name=fields.text("name"),
        state=fields.text_or("state"),
        host=fields.text("host"),
        port=fields.number("port"),
        database=fields.text("database"),
        user=user,
        password=password,
    )


def _login(fields: Fields) -> Fields | None:
    """The active one: while a rotation is under way there are two, and the old one is about to end."""
    logins = fields.objects("credentials")
    active = [each for each in logins if each.text_or("state", "active").casefold() == "active"]
    return next(iter(active or logins), None)


def cluster_of(fields: Fields, addon: str) -> KafkaCluster:
    """`{state: {message, status, healthy?, waiting?}, topic_prefix, shared_cluster …}`; `?` is part of the names."""
    state = fields.object("state")
    return KafkaCluster(
        id=fields.text_or("id", addon),
        name=fields.text_or("name") or fields.name("addon", addon),
        status=state.text_or("status"),
        message=state.text_or("message"),
        healthy=state.flag("healthy?", "healthy"),
        waiting=state.flag("waiting?", "waiting"),
        topic_prefix=fields.text_or("topic_prefix") or None,
        shared=fields.flag("shared_cluster") is True,
    )


def wait_status_of(fields: Fields) -> WaitStatus:
    """`{waiting?, message, error?}` (the Heroku CLI's `pg:wait`); `?` is part of the names."""
    return WaitStatus(
        waiting=fields.flag("waiting?", "waiting") is True,
        message=fields.text_or("message"),
        failed=fields.flag("error?", "error") is True,
    )
