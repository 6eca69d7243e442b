"""Heroku's side: the endpoint's state, our certificate there, plan, the customer's key, and the IP rules."""

from __future__ import annotations

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Credentials, Identified
from mtlskit.doctor.finding import Finding

__all__ = ["HerokuSide", "look_at_heroku"]

from dataclasses import dataclass


@dataclass(frozen=True)
class HerokuSide:
    """What Heroku says."""

    findings: tuple[Finding, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    """Where the tunnel leads to, if its upstream is an add-on."""
    credentials: Credentials | None = None
    """Of the add-on, where the tunnel logs in with them."""
    prefix: str = ""
    """What names on a Kafka add-on begin with."""


async def look_at_heroku(case: Case, identified: Identified) -> HerokuSide:
    """Layers HEROKU and ALLOWLIST. Ends within the deadline; WARN where it cannot be looked at."""
    raise NotImplementedError
