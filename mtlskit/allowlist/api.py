"""The part of Heroku's APIs that the allowlist needs. `mtlskit.heroku.client.Heroku` has it; tests have fakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mtlskit.heroku.values import Addon, AddonKind, IpRule, SpaceNat

__all__ = ["AddonApi", "RuleApi", "SpaceApi"]


class RuleApi(Protocol):
    """IP rules of one add-on. Everything raises `HerokuError`."""

    async def ip_rules(self, addon: str, kind: AddonKind, /) -> Sequence[IpRule]:
        """Every rule of the add-on."""

    async def add_ip_rule(self, addon: str, kind: AddonKind, cidr: str, description: str, /) -> IpRule:
        """Make a rule. Where its outcome is not known (API_UNCERTAIN), the caller looks it up."""

    async def delete_ip_rule(self, addon: str, kind: AddonKind, rule_id: str, /) -> None:
        """Take a rule away. One that is gone already is no error."""


class AddonApi(Protocol):
    """What add-ons there are."""

    async def addon(self, name: str, /) -> Addon:
        """The add-on of this name. Raises `HerokuError`: API_NOT_FOUND and the others."""


class SpaceApi(Protocol):
    """What a Private Space says of itself."""

    async def space_nat(self, name: str, /) -> SpaceNat:
        """Its stable outbound addresses. Raises `HerokuError`."""
