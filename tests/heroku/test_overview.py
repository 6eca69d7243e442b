"""What is gathered about an add-on."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.overview import mtls_addon, overview_of, postgres_addon
from mtlskit.heroku.values import Addon, AddonKind, IpRule, KafkaCluster, RemoteCertificate, TlsEndpoint

POSTGRES = Addon("1", "pg-1", AddonKind.POSTGRES, "heroku-postgresql", "heroku-postgresql:private-0", "app")
KAFKA = Addon("2", "kafka-1", AddonKind.KAFKA, "heroku-kafka", "heroku-kafka:private-standard-0", "app")
REDIS = Addon("3", "redis-1", None, "heroku-redis", "heroku-redis:private-7", "app")
RULES = (IpRule("r1", "203.0.113.7/32", "one", "Authorized"), IpRule("r2", "203.0.113.8/32", "two", "Authorizing"))
CERTIFICATES = (RemoteCertificate("c1", "ready"),)


@dataclass
class Fake:
    """Both halves of the client."""

    endpoint: TlsEndpoint | None = None
    listing: HerokuError | None = None
    asked: list[str] = field(default_factory=list)

    @property
    def platform(self) -> Fake:
        return self

    @property
    def data(self) -> Fake:
        return self

    async def addon(self, name: str) -> Addon:
        return {each.name: each for each in (POSTGRES, KAFKA, REDIS)}[name]

    async def tls_endpoint(self, addon: str) -> TlsEndpoint | None:
        self.asked.append("endpoint")
        return self.endpoint

    async def certificates(self, addon: str) -> tuple[RemoteCertificate, ...]:
        self.asked.append("certificates")
        if self.listing is not None:
            raise self.listing
        return CERTIFICATES

    async def ip_rules(self, addon: str, kind: AddonKind) -> tuple[IpRule, ...]:
        self.asked.append(f"{kind} rules")
        if self.listing is not None:
            raise self.listing
        return RULES

    async def kafka_cluster(self, addon: str) -> KafkaCluster:
        self.asked.append("cluster")
        return KafkaCluster("k", addon, "available")


async def test_a_database() -> None:
    overview = await overview_of(Fake(TlsEndpoint("pg-1", "Operational")), "pg-1")
    assert (overview.addon, overview.certificates, overview.rules) == (POSTGRES, CERTIFICATES, RULES)
    assert (overview.fine, overview.authorizing, overview.cluster) == (True, 1, None)


async def test_a_database_whose_endpoint_is_coming() -> None:
    not_yet = HerokuError(Code.API_NOT_ENABLED, "not enabled")
    overview = await overview_of(Fake(TlsEndpoint("pg-1", "Provisioning"), not_yet), "pg-1")
    assert (overview.fine, overview.certificates, overview.rules) == (False, (), ())


async def test_an_operational_endpoint_has_lists() -> None:
    with pytest.RaisesGroup(HerokuError, HerokuError):
        await overview_of(Fake(TlsEndpoint("pg-1", "Operational"), HerokuError(Code.API_NOT_ENABLED, "no")), "pg-1")


async def test_a_database_without_an_endpoint_is_asked_for_nothing_more() -> None:
    fake = Fake()
    overview = await overview_of(fake, "pg-1")
    assert (overview.fine, overview.endpoint, fake.asked) == (False, None, ["endpoint"])


async def test_kafka_has_no_endpoint_and_needs_none() -> None:
    fake = Fake()
    overview = await overview_of(fake, "kafka-1")
    assert (overview.fine, overview.rules, sorted(fake.asked)) == (True, RULES, ["cluster", "kafka rules"])
    assert overview.cluster is not None
    assert overview.cluster.status == "available"


async def test_other_add_ons_have_no_mtls() -> None:
    with pytest.raises(HerokuError, match="heroku-redis") as caught:
        await mtls_addon(Fake(), "redis-1")
    assert caught.value.code is Code.API_NO_MTLS


async def test_only_postgres_has_an_endpoint_to_enable() -> None:
    assert await postgres_addon(Fake(), "pg-1") == POSTGRES
    with pytest.raises(HerokuError, match="Kafka add-on") as caught:
        await postgres_addon(Fake(), "kafka-1")
    assert caught.value.code is Code.API_NO_MTLS
    assert "mtlskit allowlist add" in caught.value.hint
