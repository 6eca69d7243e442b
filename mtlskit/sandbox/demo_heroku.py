"""The demo's Heroku side: what an operator does with the API, done with the same parts as the commands have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import SystemRandom

import trio

from mtlskit.allowlist.apply import apply
from mtlskit.allowlist.gather import gather
from mtlskit.allowlist.my_ip import my_addresses
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Plan, plan_addon
from mtlskit.allowlist.several import addition
from mtlskit.allowlist.wanted import my_address_rules, wanted_of
from mtlskit.allowlist.watch import watch
from mtlskit.config.values import ProxyConfig
from mtlskit.control.places import Place
from mtlskit.heroku.client import Heroku, open_heroku
from mtlskit.heroku.settings import Settings
from mtlskit.heroku.token import Token
from mtlskit.heroku.waiting import until_operational
from mtlskit.heroku.whereabouts import Whereabouts
from mtlskit.issuers.heroku_addon import HerokuAddonIssuer
from mtlskit.lifecycle.proxies import ControlledProxies
from mtlskit.lifecycle.rotate import rotate
from mtlskit.lifecycle.target import Outcome, Result, Tools, Wanted, target_of
from mtlskit.sandbox.demo_client import unexpected
from mtlskit.sandbox.description import Space
from mtlskit.store.identities import Version
from mtlskit.telemetry import Emit, silent

__all__ = ["Operator"]

_PATIENCE = 60.0
"""Seconds for anything that the sandbox does: it takes about one."""
_OWNER = "demo"


@dataclass(frozen=True)
class Operator:
    """Somebody with a token, a configuration file and a folder for state. All methods raise `MtlskitError`."""

    space: Space
    config: ProxyConfig
    state: Path
    control: Place

    def opened(self) -> AbstractAsyncContextManager[Heroku]:
        """Both APIs of the sandbox."""
        token = Token(self.space.api_key, "the sandbox")
        return open_heroku(Settings(self.space.api_url, self.space.api_url, token), environ={})

    async def enable(self) -> tuple[str, str]:
        """`mtlskit heroku enable --wait`: what the endpoint's status was at first, and in the end."""
        async with self.opened() as heroku:
            begun = await heroku.data.enable_tls(self.space.addon)
            done = await until_operational(heroku.data, self.space.addon, seconds=_PATIENCE, just_asked=True)
        return begun.status, done.status

    async def let_in(self) -> Plan:
        """`mtlskit allowlist apply`: the plan, carried out."""
        [allowlist] = self.config.allowlists
        async with self.opened() as heroku:
            [found] = await gather(heroku.data, heroku.platform, allowlist.addons)
            seen = await my_addresses(self.space.echo_urls)
            wanted = await wanted_of(allowlist, heroku.platform, me=seen.addresses)
            made = plan_addon(found.addon, found.kind, wanted, found.rules, owner=self.owner, me=seen.addresses)
            plan = Plan((made,))
            await apply(heroku.data, plan, wait=_PATIENCE)
        return plan

    async def let_in_at(self, addon: str) -> None:
        """`mtlskit allowlist add ADDON --my-ip --wait`."""
        async with self.opened() as heroku:
            found = await gather(heroku.data, heroku.platform, [addon])
            seen = await my_addresses(self.space.echo_urls)
            plan = addition(found, my_address_rules(seen.addresses), owner=self.owner)
            await apply(heroku.data, plan, wait=_PATIENCE)

    @property
    def owner(self) -> Owner:
        """Whose tag the rules carry."""
        return Owner(self.config.allowlists[0].name, _OWNER)

    async def rotate(self, reason: str) -> tuple[Outcome, Version]:
        """`mtlskit certs issue` or `rotate`, with --wait: what came of it, and what is in use now."""
        [identity] = self.config.identities
        target = target_of(self.config, identity)
        issuer = HerokuAddonIssuer(self.space.addon, self.opened)
        tools = Tools(
            issuer, ControlledProxies(self.control), silent, lambda: datetime.now(UTC), issuer, self.lookup.endpoints
        )
        outcome = await rotate(target, tools, Wanted(reason, wait=_PATIENCE))
        version = target.stored.current()
        if outcome.result is not Result.ROTATED or version is None:
            raise unexpected("no certificate was put in place", outcome.told)
        if outcome.left or outcome.notes:
            raise unexpected(
                "the rotation left something undone", "; ".join(outcome.notes) or f"{outcome.left} sessions"
            )
        return outcome, version

    async def status_of(self, version: Version) -> str:
        """What Heroku says of a version's certificate: `mtlskit certs list --remote`."""
        async with self.opened() as heroku:
            listed = await heroku.data.certificates(self.space.addon)
        return next((each.status for each in listed if each.id == version.facts.remote_id), "unknown")

    @property
    def lookup(self) -> Whereabouts:
        """Whom the proxy asks for tunnels that name an add-on."""
        return Whereabouts(self.opened)

    @asynccontextmanager
    async def following(self, emit: Emit) -> AsyncIterator[None]:
        """`mtlskit allowlist watch`, while the block lasts."""
        async with self.opened() as heroku, trio.open_nursery() as nursery:
            found = await gather(heroku.data, heroku.platform, self.config.allowlists[0].addons)
            nursery.start_soon(
                partial(
                    watch,
                    heroku.data,
                    found,
                    owner=self.owner,
                    look=partial(my_addresses, self.space.echo_urls, trusted_only=True),
                    state=self.state,
                    emit=emit,
                    interval=0.5,
                    rng=SystemRandom(),
                )
            )
            yield
            nursery.cancel_scope.cancel()
