"""How the API runs, as flags of `mtlskit sandbox` say it."""

from __future__ import annotations

from dataclasses import dataclass

from mtlskit.config.values import TcpAddress
from mtlskit.errors import Code, ConfigError
from mtlskit.sandbox.api.faults import FAULTS, Fault, parse_fault

__all__ = ["MOST_ADDONS", "ApiOptions"]

MOST_ADDONS = 100
"""Postgres add-ons of one space: five times what anything here is measured with."""

_ANY_PORT = TcpAddress("127.0.0.1", 0)


@dataclass(frozen=True)
class ApiOptions:
    """Settings of `run_api`. Raises ConfigError (CONFIG_BAD_VALUE) for one that cannot be."""

    listen: TcpAddress = _ANY_PORT
    speed_up: float = 300
    """How many times as quick as Heroku the sandbox is."""
    latency: float = 0
    """Seconds before each call is looked at."""
    faults: tuple[str, ...] = ()
    """Switched on from the start, as `faults.parse_fault` reads them."""
    addons: int = 1
    """How many Postgres add-ons share the database."""
    bare: bool = False
    """A fresh space is as Heroku hands a database out: mutual TLS is not enabled, and nobody is let in."""

    def __post_init__(self) -> None:
        if not 0 < self.speed_up <= 1_000_000:
            raise _bad("--speed-up", self.speed_up, "a number above 0, such as 300; 1 is Heroku's own pace")
        if not 0 <= self.latency <= 600:
            raise _bad("--latency", self.latency, "seconds from 0 to 600, such as 0.1")
        if not 1 <= self.addons <= MOST_ADDONS:
            raise _bad("--addons", self.addons, f"a number from 1 to {MOST_ADDONS}")
        self.parsed_faults()

    def parsed_faults(self) -> tuple[Fault, ...]:
        """The faults as values. Raises ConfigError (CONFIG_BAD_VALUE)."""
        try:
            return tuple(parse_fault(text) for text in self.faults)
        except ValueError as exc:
            raise ConfigError(
                Code.CONFIG_BAD_VALUE,
                f"--fault: {exc}",
                f"write --fault NAME or NAME=VALUE, such as --fault 429=2,times=3; NAME is one of {', '.join(FAULTS)}",
            ) from exc


def _bad(flag: str, value: float, wanted: str) -> ConfigError:
    return ConfigError(Code.CONFIG_BAD_VALUE, f"{flag} {value:g} cannot be", f"write {wanted}")
