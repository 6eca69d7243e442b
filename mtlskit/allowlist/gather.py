"""What is there: the kind of each add-on and its rules, of many add-ons at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import trio

from mtlskit.allowlist.api import AddonApi, RuleApi
from mtlskit.errors import Code, HerokuError, MtlskitError
from mtlskit.heroku.named_by import told_who_named_it
from mtlskit.heroku.values import AddonKind, IpRule

__all__ = ["Found", "gather"]

_AT_ONCE: Final = 16
"""Add-ons. How many requests there are at once, the client bounds."""


@dataclass(frozen=True)
class Found:
    """An add-on and the rules that were there."""

    addon: str
    kind: AddonKind
    rules: tuple[IpRule, ...]
    id: str = ""
    app: str = ""


async def gather(
    api: RuleApi,
    platform: AddonApi,
    addons: Sequence[str],
    *,
    at_once: int = _AT_ONCE,
    named_by: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Found, ...]:
    """Look at each add-on, once, in the order of `addons`; two names of one add-on give one.

    `named_by` says of each where its name was written, for errors about it. Raises the first error in that order:
    `HerokuError`, with API_NO_MTLS for an add-on that has no IP rules.
    """
    names = list(dict.fromkeys(addons))
    found: dict[str, Found | MtlskitError] = {}
    limit = trio.CapacityLimiter(at_once)

    async def one(name: str) -> None:
        async with limit:
            try:
                found[name] = await _look(api, platform, name)
            except MtlskitError as exc:
                found[name] = told_who_named_it(exc, named_by.get(name, ""))

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(one, name)
    unique: dict[str, Found] = {}
    for name in names:
        each = found[name]
        if isinstance(each, MtlskitError):
            raise each
        unique.setdefault(each.id or each.addon, each)
    return tuple(unique.values())


async def _look(api: RuleApi, platform: AddonApi, name: str) -> Found:
    addon = await platform.addon(name)
    if addon.kind is None:
        raise HerokuError(
            Code.API_NO_MTLS,
            f"{addon.name}: an add-on of {addon.service} has no IP rules",
            "name an add-on of Heroku Postgres or of Apache Kafka on Heroku: heroku addons",
        )
    rules = await api.ip_rules(addon.name, addon.kind)
    return Found(addon.name, addon.kind, tuple(rules), addon.id, addon.app)
