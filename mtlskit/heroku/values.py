"""What the two APIs tell, as frozen values.

Statuses are kept as they were told: the list of them is not official, and one that we do not know must not end
anything. Properties say what is known of them. Timestamps are aware, or None where the API sent none that can be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from mtlskit.config.values import Endpoint

__all__ = [
    "MOST_RULES",
    "Addon",
    "AddonKind",
    "Attachment",
    "Credential",
    "InboundRule",
    "IpRule",
    "KafkaBrokers",
    "KafkaCluster",
    "RemoteCertificate",
    "Space",
    "SpaceNat",
    "TlsEndpoint",
]

MOST_RULES = 60
"""IP rules of one database or cluster (Heroku Dev Center, "Connecting to a Private or Shield Heroku Postgres database
from an external resource")."""


class AddonKind(StrEnum):
    """What an add-on is. Only Postgres has certificates and a TLS endpoint; both have IP rules."""

    POSTGRES = "postgres"
    KAFKA = "kafka"


@dataclass(frozen=True)
class Addon:
    """An add-on, as the platform API tells of it."""

    id: str
    name: str
    kind: AddonKind | None
    """None: neither Postgres nor Kafka."""
    service: str
    """Such as `heroku-postgresql`."""
    plan: str
    """Such as `heroku-postgresql:private-0`."""
    app: str
    """The name of the app that owns it."""
    state: str = ""
    config_vars: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attachment:
    """An app that uses an add-on, under a name of its own (`DATABASE`, `KAFKA` …)."""

    app: str
    name: str


@dataclass(frozen=True)
class TlsEndpoint:
    """The mutual-TLS endpoint of a Postgres add-on."""

    addon: str
    status: str
    app: str = ""
    enabled_by: str = ""
    authorities: str | None = None
    """The CAs, PEM, that the endpoint's certificate leads to, where the API tells them."""

    @property
    def operational(self) -> bool:
        """Clients can connect."""
        return self.status.casefold() == "operational"

    @property
    def ending(self) -> bool:
        """It is being taken down."""
        return self.status.casefold() == "deprovisioning"


@dataclass(frozen=True)
class RemoteCertificate:
    """A client certificate. Key and chain come with a single one only, and only when it is ready."""

    id: str
    status: str
    created_at: str = ""
    """As it was sent: it only orders."""
    name: str = ""
    expires_at: datetime | None = None
    private_key: str | None = field(default=None, repr=False)
    certificate_with_chain: str | None = None

    @property
    def ready(self) -> bool:
        """Key and chain can be had."""
        return self.status.casefold() == "ready"

    @property
    def ending(self) -> bool:
        """It is of no use any more."""
        return self.status.casefold() in ("disabling", "disabled")


@dataclass(frozen=True)
class IpRule:
    """One CIDR that may connect. `cidr` and `description` as they were told: a person may have written them."""

    id: str
    cidr: str
    description: str
    status: str
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def authorized(self) -> bool:
        """It acts."""
        return self.status.casefold() == "authorized"


@dataclass(frozen=True)
class Credential:
    """One login of a Postgres add-on: where and as whom to connect."""

    name: str
    state: str
    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class KafkaBrokers:
    """Where to connect to a Kafka add-on."""

    endpoints: tuple[Endpoint, ...]
    """At least one."""
    prefix: str = ""
    """What the names of topics and groups begin with, on shared plans."""


@dataclass(frozen=True)
class KafkaCluster:
    """A Kafka add-on's cluster."""

    id: str
    name: str
    status: str
    message: str = ""
    healthy: bool | None = None
    waiting: bool | None = None
    topic_prefix: str | None = None
    shared: bool = False


@dataclass(frozen=True)
class Space:
    """A Private Space."""

    name: str
    state: str
    shield: bool = False
    region: str = ""


@dataclass(frozen=True)
class SpaceNat:
    """A space's stable outbound addresses."""

    state: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class InboundRule:
    """One trusted range of a space."""

    action: str
    source: str
