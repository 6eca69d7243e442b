"""What Heroku tells of an add-on that a tunnel leads to, and how each kind of tunnel asks for it.

A Postgres add-on's credential says where to connect and as whom. A Kafka add-on's config vars say where its brokers
are, and on shared plans what the names of topics and groups begin with; the certificate that stands beside them is the
identity's affair, and never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from mtlskit.config.values import Endpoint, TunnelConfig, TunnelKind
from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.values import Credential, KafkaBrokers
from mtlskit.proxy.password_keys import PasswordKeys

__all__ = ["AddonLookup", "Known", "KnownLogin", "asked"]

_FIELDS: Final = ("host", "port", "database", "user", "password")


class AddonLookup(Protocol):
    """Asks Heroku. Raises HerokuError, or ConfigError where it cannot even ask and for an add-on of another kind."""

    async def postgres(self, addon: str, credential: str) -> Credential:
        """The credential of that name."""
        ...

    async def kafka(self, addon: str) -> KafkaBrokers:
        """Where the brokers are."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Known:
    """What was told, once. Sessions hold on to the one they began with; a change makes a new one."""

    endpoints: tuple[Endpoint, ...]
    """Where to connect; at least one."""
    prefix: str = ""
    """What names of topics and groups must begin with; empty where any will do."""

    def changes_since(self, before: Known | None) -> tuple[str, ...]:
        """What is another than it was, by name only; empty where nothing is."""
        brokers = before is None or self.endpoints != before.endpoints
        prefix = before is None or self.prefix != before.prefix
        return tuple(name for name, changed in (("brokers", brokers), ("prefix", prefix)) if changed)


@dataclass(frozen=True, eq=False, kw_only=True)
class KnownLogin(Known):
    """Of a Postgres add-on, which has one endpoint."""

    credential: Credential
    keys: PasswordKeys = field(repr=False)

    @property
    def endpoint(self) -> Endpoint:
        """Where to connect."""
        return self.endpoints[0]

    def changes_since(self, before: Known | None) -> tuple[str, ...]:
        """As above; which fields of the credential."""
        old = before.credential if isinstance(before, KnownLogin) else None
        return tuple(one for one in _FIELDS if getattr(self.credential, one) != getattr(old, one, None))


async def asked(lookup: AddonLookup, addon: str, config: TunnelConfig) -> Known:
    """What Heroku tells now. Raises HerokuError, ConfigError."""
    if config.kind is TunnelKind.KAFKA:
        found = await lookup.kafka(addon)
        return Known(endpoints=found.endpoints, prefix=found.prefix)
    credential = await lookup.postgres(addon, config.credential)
    _check(addon, credential)
    endpoint = Endpoint(credential.host, credential.port)
    return KnownLogin(endpoints=(endpoint,), credential=credential, keys=PasswordKeys(credential.password))


def _check(addon: str, credential: Credential) -> None:
    """Raises HerokuError for what cannot be dialled or sent: better here than in a client's login."""
    texts = (credential.host, credential.database, credential.user)
    if all(text and text.isprintable() for text in texts) and 0 < credential.port < 65536:
        return
    raise HerokuError(
        Code.API_RUBBISH,
        f"the credential {credential.name} of {addon} has no host, port, database or user that can be used",
        f"look at it: `heroku pg:credentials:url {addon}`; a credential that is being made or rotated may lack them",
    )
