"""The credential of a Kafka add-on, found among the config vars of the app that owns it.

Apache Kafka on Heroku tells where it is, and who may come, in config vars only: `KAFKA_URL`, `KAFKA_CLIENT_CERT`,
`KAFKA_CLIENT_CERT_KEY`, `KAFKA_TRUSTED_CERT`, and on shared plans `KAFKA_PREFIX` (Heroku Dev Center, "Apache Kafka on
Heroku"). An attachment may be called otherwise than KAFKA, so it is the ends of the names that count; an app may have
several Kafka add-ons, so only names that belong to this one count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.values import Addon

__all__ = ["CERT", "ROOTS", "URL", "KafkaVars", "find_kafka_vars"]

CERT: Final = "_CLIENT_CERT"
ROOTS: Final = "_TRUSTED_CERT"
URL: Final = "_URL"
_KEY, _PREFIX = "_CLIENT_CERT_KEY", "_PREFIX"
_NEEDED = (CERT, _KEY, ROOTS)


@dataclass(frozen=True)
class KafkaVars:
    """The credential of one Kafka add-on, as an app's config vars hold it. Certificates and key are PEM."""

    app: str
    attachment: str
    """What the names of the vars begin with, such as `KAFKA`."""
    certificate: str
    key: str = field(repr=False)
    roots: str
    """The CAs of the brokers: several while Heroku changes its CA."""
    url: str = field(default="", repr=False)
    """Brokers, `kafka+ssl://host:port`, separated by commas."""
    prefix: str = ""
    """What the names of topics and groups begin with, on shared plans."""

    @property
    def digest(self) -> str:
        """Tells one certificate from another, and nothing about it."""
        return hashlib.sha256(self.certificate.strip().encode("utf-8")).hexdigest()


def find_kafka_vars(addon: Addon, config: Mapping[str, str]) -> KafkaVars:
    """The add-on's credential among the config vars of the app that owns it.

    Raises `HerokuError` (API_NOT_FOUND) where one of its parts is missing, or where another add-on's may be meant.
    """
    known: Collection[str] = addon.config_vars or config.keys()
    names = sorted({name.removesuffix(end) for name in known for end in (CERT, _KEY, ROOTS) if name.endswith(end)})
    whole = [name for name in names if all(config.get(name + end, "").strip() for end in _NEEDED)]
    if not whole:
        raise _missing(addon, names, config)
    parts = {tuple(config[name + end].strip() for end in _NEEDED) for name in whole}
    if len(parts) > 1:
        raise HerokuError(
            Code.API_NOT_FOUND,
            f"app {addon.app} has the config vars of several Kafka add-ons ({', '.join(whole)}), and Heroku does not"
            f" say which belong to {addon.name}",
            f"see heroku addons:info {addon.name}",
        )
    name = whole[0]  # attachments of one add-on hold the same
    return KafkaVars(
        addon.app,
        name,
        certificate=config[name + CERT],
        key=config[name + _KEY],
        roots=config[name + ROOTS],
        url=config.get(name + URL, ""),
        prefix=config.get(name + _PREFIX, ""),
    )


def _missing(addon: Addon, names: Collection[str], config: Mapping[str, str]) -> HerokuError:
    wanted = [name + end for name in names or ("KAFKA",) for end in _NEEDED]
    gone = [name for name in wanted if not config.get(name, "").strip()]
    return HerokuError(
        Code.API_NOT_FOUND,
        f"app {addon.app} has no config var {', '.join(gone)}, so the credential of {addon.name} is not whole",
        f"the add-on may still be on its way: heroku addons:info {addon.name}; then run it again",
    )
