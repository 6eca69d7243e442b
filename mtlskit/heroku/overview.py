"""All that Heroku tells of an add-on and its mTLS, gathered at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.values import Addon, AddonKind, IpRule, KafkaCluster, RemoteCertificate, TlsEndpoint

__all__ = ["Overview", "OverviewApi", "mtls_addon", "overview_of", "postgres_addon"]


@dataclass(frozen=True)
class Overview:
    """One add-on. What it cannot have (Kafka: endpoint and certificates; Postgres: cluster) is None or empty."""

    addon: Addon
    endpoint: TlsEndpoint | None = None
    certificates: tuple[RemoteCertificate, ...] = ()
    rules: tuple[IpRule, ...] = ()
    cluster: KafkaCluster | None = None

    @property
    def fine(self) -> bool:
        """Clients can connect, as far as the endpoint goes; a Kafka add-on has none that could be missing."""
        if self.addon.kind is AddonKind.KAFKA:
            return True
        return self.endpoint is not None and self.endpoint.operational

    @property
    def authorizing(self) -> int:
        """How many rules do not act yet."""
        return sum(not rule.authorized for rule in self.rules)


class _Platform(Protocol):
    async def addon(self, name: str) -> Addon: ...


class _Data(Protocol):
    async def tls_endpoint(self, addon: str) -> TlsEndpoint | None: ...
    async def certificates(self, addon: str) -> tuple[RemoteCertificate, ...]: ...
    async def ip_rules(self, addon: str, kind: AddonKind) -> tuple[IpRule, ...]: ...
    async def kafka_cluster(self, addon: str) -> KafkaCluster: ...


class OverviewApi(Protocol):
    """What of the client is needed here."""

    @property
    def platform(self) -> _Platform:
        """The platform API."""

    @property
    def data(self) -> _Data:
        """The data API."""


async def mtls_addon(api: OverviewApi, name: str) -> Addon:
    """The add-on `name`. Raises `HerokuError`: API_NO_MTLS for one that is neither Postgres nor Kafka."""
    addon = await api.platform.addon(name)
    if addon.kind is None:
        raise HerokuError(
            Code.API_NO_MTLS,
            f"{addon.name}: an add-on of {addon.service}; only Heroku Postgres and Apache Kafka on Heroku have mTLS",
            "`heroku addons` shows the add-ons of an app",
        )
    return addon


async def postgres_addon(api: OverviewApi, name: str) -> Addon:
    """The add-on `name`, which can have a TLS endpoint. Raises `HerokuError` (API_NO_MTLS) for any other."""
    addon = await mtls_addon(api, name)
    if addon.kind is AddonKind.KAFKA:
        raise HerokuError(
            Code.API_NO_MTLS,
            f"{addon.name}: a Kafka add-on has no endpoint to enable or disable: it always speaks mTLS, with the"
            " certificate in its config vars",
            f"let addresses in with `mtlskit allowlist add CIDR --addon {addon.name}`",
        )
    return addon


async def overview_of(api: OverviewApi, name: str) -> Overview:
    """Everything about the add-on `name`. Raises `HerokuError`, perhaps in an exception group."""
    addon = await mtls_addon(api, name)
    endpoint: TlsEndpoint | None = None
    cluster: KafkaCluster | None = None
    certificates: tuple[RemoteCertificate, ...] = ()
    rules: tuple[IpRule, ...] = ()

    async def get_rules(kind: AddonKind) -> None:
        nonlocal rules
        rules = await api.data.ip_rules(addon.name, kind)

    async def get_certificates() -> None:
        nonlocal certificates
        with _unless(endpoint):
            certificates = await api.data.certificates(addon.name)

    async def get_endpoint_rules() -> None:
        with _unless(endpoint):
            await get_rules(AddonKind.POSTGRES)

    async def get_cluster() -> None:
        nonlocal cluster
        cluster = await api.data.kafka_cluster(addon.name)

    async with trio.open_nursery() as nursery:
        if addon.kind is AddonKind.KAFKA:
            nursery.start_soon(get_cluster)
            nursery.start_soon(get_rules, AddonKind.KAFKA)
        else:
            endpoint = await api.data.tls_endpoint(addon.name)
            if endpoint is not None:  # without it, there is nothing to list
                nursery.start_soon(get_certificates)
                nursery.start_soon(get_endpoint_rules)
    return Overview(addon, endpoint, certificates, rules, cluster)


@contextmanager
def _unless(endpoint: TlsEndpoint | None) -> Iterator[None]:
    """Nothing is listed while the endpoint comes or goes, and the API may then say that it is not there."""
    try:
        yield
    except HerokuError as exc:
        if exc.code is not Code.API_NOT_ENABLED or endpoint is None or endpoint.operational:
            raise
