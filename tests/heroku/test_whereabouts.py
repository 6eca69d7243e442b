"""Where an add-on is: what a credential and config vars say, and what is said of those that cannot be used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtlskit.config.values import Endpoint, IdentityConfig, TcpAddress, TunnelConfig, TunnelKind
from mtlskit.errors import Code, ConfigError, HerokuError
from mtlskit.heroku.values import Addon, AddonKind, Credential, KafkaBrokers
from mtlskit.heroku.whereabouts import Whereabouts
from tests.support.far_heroku import KAFKA, POSTGRES, FarHeroku, far_heroku

EVENTS = Addon("id", "kafka-rigid-4711", AddonKind.KAFKA, "heroku-kafka", "heroku-kafka:basic-0", "shop")
LOGIN = Credential("default", "active", "db.invalid", 5432, "d4f8", "u17", "never-shown")
URL = "kafka+ssl://b1.invalid:9096,kafka+ssl://b2.invalid:9096"
SECRETS = {"CLIENT_CERT": "a certificate", "CLIENT_CERT_KEY": "a key", "TRUSTED_CERT": "the CAs"}


def config_vars(name: str = "KAFKA", **more: str) -> dict[str, str]:
    return {f"{name}_{end}": value for end, value in (SECRETS | {"URL": URL} | more).items()}


@dataclass
class FakeHeroku:
    """Both APIs: one add-on, one app, one credential; each call may fail."""

    addons: Addon | HerokuError = EVENTS
    config: dict[str, str] | HerokuError = field(default_factory=config_vars)
    login: Credential | HerokuError = LOGIN

    @property
    def platform(self) -> FakeHeroku:
        return self

    @property
    def data(self) -> FakeHeroku:
        return self

    async def addon(self, name: str) -> Addon:
        if isinstance(self.addons, HerokuError):
            raise self.addons
        return self.addons

    async def config_vars(self, app: str) -> dict[str, str]:
        assert app == "shop"
        if isinstance(self.config, HerokuError):
            raise self.config
        return self.config

    async def credential(self, addon: str, name: str) -> Credential:
        if isinstance(self.login, HerokuError):
            raise self.login
        return self.login

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[FakeHeroku]:
        yield self


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarHeroku]:
    with far_heroku(tmp_path) as running:
        yield running


def tunnel(addon: str, kind: TunnelKind) -> TunnelConfig:
    identity = IdentityConfig("events", Path("c.pem"), Path("c.key"))
    return TunnelConfig("events", kind, TcpAddress("127.0.0.1", 0), (), identity, addon=addon)


async def failure(heroku: FakeHeroku, kind: TunnelKind = TunnelKind.KAFKA) -> HerokuError | ConfigError:
    with pytest.raises((HerokuError, ConfigError)) as caught:
        await Whereabouts(heroku.opened).endpoints(tunnel(EVENTS.name, kind))
    assert isinstance(caught.value, HerokuError | ConfigError)
    assert not any(secret in f"{caught.value!r} {caught.value.hint}" for secret in SECRETS.values())
    return caught.value


# At the sandbox.


async def test_the_sandbox_tells_both(far: FarHeroku) -> None:
    where = Whereabouts(far.opened)
    found = await where.kafka(KAFKA)
    assert found.endpoints
    assert all(endpoint.host == "127.0.0.1" for endpoint in found.endpoints)
    assert await where.endpoints(tunnel(KAFKA, TunnelKind.KAFKA)) == found.endpoints
    login = await where.postgres(POSTGRES, "default")
    assert await where.endpoints(tunnel(POSTGRES, TunnelKind.POSTGRES)) == (Endpoint(login.host, login.port),)


async def test_the_sandbox_tells_of_a_shared_kafka(far: FarHeroku) -> None:
    brokers: Any = SimpleNamespace(url="kafka+ssl://127.0.0.1:1,kafka+ssl://127.0.0.1:2", prefix="bern-4711.")
    far.there(lambda: setattr(far.state, "brokers", brokers))
    there = (Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2))
    assert await Whereabouts(far.opened).kafka(KAFKA) == KafkaBrokers(there, "bern-4711.")


async def test_the_sandbox_is_asked_for_the_wrong_kind(far: FarHeroku) -> None:
    where = Whereabouts(far.opened)
    with pytest.raises(ConfigError) as caught:
        await where.postgres(KAFKA, "default")
    assert caught.value.sentence == f"{KAFKA} is a kafka add-on, and the tunnel that names it is of kind postgres"
    assert 'kind = "kafka"' in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        await where.kafka(POSTGRES)
    assert caught.value.sentence == f"{POSTGRES} is a postgres add-on, and the tunnel that names it is of kind kafka"
    for ask in (where.kafka("nobody"), where.postgres("nobody", "default"), where.postgres(POSTGRES, "analyst")):
        with pytest.raises(HerokuError) as refused:
            await ask
        assert refused.value.code is Code.API_NOT_FOUND


# What config vars say.


@pytest.mark.parametrize(("prefix", "told"), [({}, ""), ({"PREFIX": "bern-4711."}, "bern-4711.")])
async def test_brokers_and_prefix_are_found(prefix: dict[str, str], told: str) -> None:
    others = {"DATABASE_URL": "postgres://", "KAFKA_PREFIX": "of another"}
    heroku = FakeHeroku(
        replace(EVENTS, config_vars=("LOG_URL", "LOG_CLIENT_CERT")), others | config_vars("LOG", **prefix)
    )
    found = await Whereabouts(heroku.opened).kafka(EVENTS.name)
    assert found == KafkaBrokers((Endpoint("b1.invalid", 9096), Endpoint("b2.invalid", 9096)), told)


@pytest.mark.parametrize("url", ["", "kafka+ssl://b1.invalid", "postgres://ann:hidden@db:5432/d", "b1.invalid:none"])
async def test_a_url_that_cannot_be_used(url: str) -> None:
    error = await failure(FakeHeroku(config=config_vars(URL=url)))
    assert error.code is Code.API_RUBBISH
    assert error.sentence.startswith(
        f"config var KAFKA_URL of app shop does not say where the brokers of {EVENTS.name}"
    )
    assert f"heroku addons:info {EVENTS.name}" in error.hint
    assert "hidden" not in f"{error!r} {error.hint}"


async def test_a_credential_that_is_not_whole() -> None:
    error = await failure(FakeHeroku(config=config_vars(CLIENT_CERT="")))
    assert (error.code, "no config var KAFKA_CLIENT_CERT," in error.sentence) == (Code.API_NOT_FOUND, True)
    assert f"heroku addons:info {EVENTS.name}" in error.hint
    several = config_vars() | config_vars("LOG", CLIENT_CERT="another")
    error = await failure(FakeHeroku(config=several))
    assert (error.code, "several Kafka add-ons" in error.sentence) == (Code.API_NOT_FOUND, True)


async def test_an_app_that_may_not_be_looked_at() -> None:
    forbidden = HerokuError(
        Code.API_FORBIDDEN, "config vars of app shop: no", "ask its owner", status=403, request_id="7"
    )
    error = await failure(FakeHeroku(config=forbidden))
    assert isinstance(error, HerokuError)
    assert (error.code, error.status, error.request_id) == (Code.API_FORBIDDEN, 403, "7")
    assert error.sentence.startswith(f"{EVENTS.name}, ")
    assert error.sentence.endswith(forbidden.sentence)


async def test_an_add_on_of_a_third_kind() -> None:
    cache = replace(EVENTS, name="redis-round-1", kind=None, service="heroku-redis")
    refused = HerokuError(Code.API_NOT_FOUND, "no such database", "look", status=404)
    for kind in (TunnelKind.KAFKA, TunnelKind.POSTGRES):
        error = await failure(FakeHeroku(cache, login=refused), kind)
        assert error.code is Code.CONFIG_BAD_VALUE
        assert error.sentence == f"redis-round-1 is an add-on of heroku-redis, and a {kind} tunnel cannot lead to it"


@pytest.mark.parametrize("code", [Code.API_NOT_FOUND, Code.API_REFUSED, Code.API_BUSY])
async def test_what_the_api_says_of_a_database_stays(code: Code) -> None:
    said = HerokuError(code, "no", "look", status=404)
    postgres = replace(EVENTS, kind=AddonKind.POSTGRES)
    for addon in (postgres, HerokuError(Code.API_UNREACHABLE, "nobody answers")):
        assert await failure(FakeHeroku(addon, login=said), TunnelKind.POSTGRES) is said
