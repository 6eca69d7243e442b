"""A Kafka add-on's certificate. It is no call of its own at Heroku: it stands in config vars, and changes with them."""

from __future__ import annotations

from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.hooks import SpaceHooks
from mtlskit.sandbox.api.keys import KeyFiles
from mtlskit.sandbox.api.state import ApiState

__all__ = ["Kafka"]

NO_BROKERS = "kafka+ssl://127.0.0.1:9096"
"""Where the brokers would be of a sandbox that has none."""
KAFKA_SUFFIXES = ("URL", "TRUSTED_CERT", "CLIENT_CERT", "CLIENT_CERT_KEY")
"""Of the config vars that each add-on has."""
KAFKA_PREFIX = "PREFIX"
"""Of the one that only a multi-tenant plan has."""


class Kafka:
    """Raises `ApiRefusal`, and `MtlskitError` of the space."""

    def __init__(self, state: ApiState, hooks: SpaceHooks) -> None:
        self._state = state
        self._hooks = hooks
        self._keys = KeyFiles(state.files)

    def make_first_certificates(self) -> None:
        """What a fresh space lacks."""
        for addon in self._state.world.addons:
            if addon.kind is AddonKind.KAFKA and not addon.kafka_serial:
                self.rotate(addon.name)

    def rotate(self, name: str) -> None:
        """Another certificate and key take the place of those that there are; the old ones are revoked.

        The order survives a crash: at worst the files hold a newer pair than the state knows, and the next rotation
        leaves that one unrevoked.
        """
        addon = self._state.addon(name, AddonKind.KAFKA)
        serial, key, chain = self._hooks.issue(addon.name)
        self._keys.write(addon.name, key, chain)
        self._state.change_addon(addon, kafka_serial=serial)
        if addon.kafka_serial:
            self._hooks.revoke(addon.kafka_serial)

    def config_vars(self, name: str) -> dict[str, str]:
        """By suffix: the caller puts the attachment's name before it."""
        key, chain = self._keys.read(self._state.addon(name, AddonKind.KAFKA).name)
        url = self._state.brokers.url if self._state.brokers is not None else NO_BROKERS
        values = (url, self._hooks.authorities(), chain, key, self.prefix)
        return dict(zip(self.suffixes, values, strict=False))

    @property
    def prefix(self) -> str:
        """What the names of topics and groups begin with; empty on most plans."""
        return self._state.brokers.prefix if self._state.brokers is not None else ""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the config vars that there are."""
        return (*KAFKA_SUFFIXES, KAFKA_PREFIX) if self.prefix else KAFKA_SUFFIXES
