"""Where an add-on is, for a tunnel that names one: a Postgres add-on's credential says it, or a Kafka's config vars.

The two kinds are asked in different ways, and a name does not show its kind. So a tunnel that names an add-on of the
other kind is told that, and not what the API makes of a question that was meant for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

from mtlskit.config.upstreams import join_upstreams, parse_upstream
from mtlskit.config.values import Endpoint, TunnelConfig, TunnelKind
from mtlskit.errors import Code, ConfigError, HerokuError
from mtlskit.heroku.kafka_vars import URL, KafkaVars, find_kafka_vars
from mtlskit.heroku.named_by import naming
from mtlskit.heroku.values import Addon, AddonKind, Credential, KafkaBrokers

__all__ = ["Whereabouts", "WhereaboutsApi", "kafka_brokers", "postgres_login"]


class _Platform(Protocol):
    async def addon(self, name: str) -> Addon: ...
    async def config_vars(self, app: str) -> Mapping[str, str]: ...


class _Data(Protocol):
    async def credential(self, addon: str, name: str) -> Credential: ...


class WhereaboutsApi(Protocol):
    """What of the client is needed here."""

    @property
    def platform(self) -> _Platform:
        """The platform API."""

    @property
    def data(self) -> _Data:
        """The data API."""


class Whereabouts:
    """Asks for each question anew, with an API that `opened` opens: there is one every few minutes.

    Every method raises what `opened` raises, and as `postgres_login` and `kafka_brokers`.
    """

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[WhereaboutsApi]]) -> None:
        self._opened = opened

    async def postgres(self, addon: str, credential: str) -> Credential:
        """One credential of a Postgres add-on."""
        async with self._opened() as heroku:
            return await postgres_login(heroku, addon, credential)

    async def kafka(self, addon: str) -> KafkaBrokers:
        """The brokers of a Kafka add-on."""
        async with self._opened() as heroku:
            return await kafka_brokers(heroku, addon)

    async def endpoints(self, tunnel: TunnelConfig) -> tuple[Endpoint, ...]:
        """Where a tunnel leads to, as it is written or as Heroku tells."""
        if tunnel.addon is None:
            return tunnel.upstream
        with naming(tunnel.addon_named_by):
            if tunnel.kind is TunnelKind.KAFKA:
                return (await self.kafka(tunnel.addon)).endpoints
            found = await self.postgres(tunnel.addon, tunnel.credential)
            return (Endpoint(found.host, found.port),)


async def postgres_login(api: WhereaboutsApi, addon: str, credential: str) -> Credential:
    """One credential of a Postgres add-on.

    Raises `HerokuError`; `ConfigError` (CONFIG_BAD_VALUE) where the add-on is no Postgres.
    """
    try:
        return await api.data.credential(addon, credential)
    except HerokuError as exc:
        if exc.code not in (Code.API_NOT_FOUND, Code.API_REFUSED):
            raise
        with suppress(HerokuError):  # who cannot tell what it is says nothing better
            found = await api.platform.addon(addon)
            if found.kind is not AddonKind.POSTGRES:
                raise _other_kind(found, TunnelKind.POSTGRES) from exc
        raise


async def kafka_brokers(api: WhereaboutsApi, addon: str) -> KafkaBrokers:
    """Where a Kafka add-on's brokers are, and what names on it begin with. What else its config vars hold is dropped.

    Raises `HerokuError`; `ConfigError` (CONFIG_BAD_VALUE) where the add-on is no Kafka.
    """
    found = await api.platform.addon(addon)
    if found.kind is not AddonKind.KAFKA:
        raise _other_kind(found, TunnelKind.KAFKA)
    try:
        config = await api.platform.config_vars(found.app)
    except HerokuError as exc:
        # The API speaks of the app, which nobody has named.
        told = f"{found.name}, whose brokers are told by its app: {exc.sentence}"
        raise HerokuError(exc.code, told, exc.hint, status=exc.status, request_id=exc.request_id) from exc
    return _brokers(found, find_kafka_vars(found, config))


def _brokers(addon: Addon, held: KafkaVars) -> KafkaBrokers:
    """Raises `HerokuError` (API_RUBBISH) for what cannot be dialled."""
    name = held.attachment + URL
    try:
        endpoints = join_upstreams([parse_upstream(held.url, TunnelKind.KAFKA)])
    except ConfigError as exc:
        raise HerokuError(
            Code.API_RUBBISH,
            f"config var {name} of app {held.app} does not say where the brokers of {addon.name} are: {exc.sentence}",
            f"look at it: `heroku config:get {name} --app {held.app}`, and at `heroku addons:info {addon.name}`:"
            " an add-on that is being made may lack it",
        ) from exc
    return KafkaBrokers(endpoints, held.prefix.strip())


def _other_kind(addon: Addon, wanted: TunnelKind) -> ConfigError:
    if addon.kind is None:
        return ConfigError(
            Code.CONFIG_BAD_VALUE,
            f"{addon.name} is an add-on of {addon.service}, and a {wanted} tunnel cannot lead to it",
            "name a Heroku Postgres or an Apache Kafka on Heroku add-on: heroku addons --all",
        )
    return ConfigError(
        Code.CONFIG_BAD_VALUE,
        f"{addon.name} is a {addon.kind} add-on, and the tunnel that names it is of kind {wanted}",
        f'set kind = "{addon.kind}", or name a {wanted} add-on: heroku addons --all',
    )
