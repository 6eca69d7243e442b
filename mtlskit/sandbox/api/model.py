"""The add-ons and what belongs to them, as frozen records that a file can hold; statuses follow from the time."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Network

from pydantic import BaseModel, ConfigDict, field_validator

from mtlskit.heroku.values import AddonKind

__all__ = ["AddonRecord", "CertificateRecord", "DeletedRule", "EndpointRecord", "InboundRecord", "RuleRecord", "World"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RuleRecord(_Record):
    """One IP rule. It acts from `acts_at` on."""

    id: str
    cidr: str
    description: str
    created_at: datetime
    acts_at: datetime

    @field_validator("cidr")
    @classmethod
    def _is_network(cls, cidr: str) -> str:
        """The gateway relies on it."""
        return str(IPv4Network(cidr))

    def status(self, now: datetime) -> str:
        """`Authorizing`, then `Authorized`."""
        return "Authorized" if now >= self.acts_at else "Authorizing"

    def touched(self, now: datetime) -> datetime:
        """When it last changed."""
        return self.acts_at if now >= self.acts_at else self.created_at


class DeletedRule(_Record):
    """A CIDR that cannot be added again before `until`."""

    cidr: str
    until: datetime


class CertificateRecord(_Record):
    """One client certificate. Key and chain lie in files of their own."""

    id: str
    name: str
    serial: str
    created_at: datetime
    ready_at: datetime
    expires_at: datetime
    deleted_at: datetime | None = None
    gone_at: datetime | None = None

    def status(self, now: datetime) -> str:
        """`pending`, `ready`; once it was deleted, `disabling` and `disabled`."""
        if self.gone_at is not None:
            return "disabled" if now >= self.gone_at else "disabling"
        return "ready" if now >= self.ready_at else "pending"

    def touched(self, now: datetime) -> datetime:
        """When it last changed."""
        times = (self.created_at, self.ready_at, self.deleted_at, self.gone_at)
        return max((time for time in times if time is not None and time <= now), default=self.created_at)


class EndpointRecord(_Record):
    """A TLS endpoint that was asked for. `gone_at`: it was asked to go."""

    ready_at: datetime
    gone_at: datetime | None = None

    def status(self, now: datetime) -> str | None:
        """`Provisioning`, `Operational`, `Deprovisioning`; None: it is no more."""
        if self.gone_at is not None:
            return "Deprovisioning" if now < self.gone_at else None
        return "Operational" if now >= self.ready_at else "Provisioning"


class AddonRecord(_Record):
    """An add-on. `mtls`: its plan has it, which for Kafka means IP rules only."""

    id: str
    name: str
    kind: AddonKind
    plan: str
    attachment: str
    created_at: datetime
    mtls: bool = True
    endpoint: EndpointRecord | None = None
    certificates: tuple[CertificateRecord, ...] = ()
    rules: tuple[RuleRecord, ...] = ()
    deleted: tuple[DeletedRule, ...] = ()
    kafka_serial: str = ""
    """Of a Kafka add-on's client certificate."""

    @property
    def service(self) -> str:
        """The add-on service."""
        return f"heroku-{'postgresql' if self.kind is AddonKind.POSTGRES else 'kafka'}"

    def endpoint_status(self, now: datetime) -> str | None:
        """The endpoint's; None: there is none."""
        return None if self.endpoint is None else self.endpoint.status(now)


class InboundRecord(_Record):
    """One trusted range of the space."""

    action: str
    source: str


class World(_Record):
    """Everything that `api.json` holds."""

    format: int = 1
    addons: tuple[AddonRecord, ...] = ()
    inbound: tuple[InboundRecord, ...] = (InboundRecord(action="allow", source="0.0.0.0/0"),)
