"""Where a tunnel's upstream is, and as whom to log in there, as Heroku tells it; and following it when it changes.

A credential is rotated, a database is moved, brokers are replaced: what Heroku says then (see `addon_known`) is looked
up again every five minutes, when somebody was turned away or no endpoint could be reached, and on a reload. Whoever was
turned away waits a few seconds for the answer, and begins again where there is news, so that a rotation is no failure
to a client.

One look-up at a time, in the task of `run`; those who were turned away while one is under way share it. Refusals may
come by the thousand (every client of a tunnel whose password is wrong), so what they ask for is limited in its rate. A
look-up that fails changes nothing: what is known stays in use, and that is told once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import trio

from mtlskit.config.values import TunnelConfig, TunnelKind
from mtlskit.errors import Code, HerokuError, MtlskitError
from mtlskit.heroku.named_by import naming
from mtlskit.proxy.addon_known import AddonLookup, Known, KnownLogin, asked
from mtlskit.proxy.events import AddonChanged, AddonFound, AddonKept, AddonRecovered, described
from mtlskit.telemetry import Emit

__all__ = ["AddonLookup", "Follower", "Known", "KnownLogin"]

_EVERY: Final = (270.0, 330.0)
"""Seconds between two look-ups, at random, so that many proxies do not ask in step."""

_REFUSED_AGAIN: Final = 10.0
"""Seconds that pass, at least, between a look-up and one that a refusal asks for."""

PATIENCE: Final = 5.0
"""Seconds that a client, or a reload, waits for a look-up; it goes on when they have left."""

_DEADLINE: Final = 120.0
"""Seconds of a look-up in all. Its requests have deadlines of their own; this is for what else may hang."""


class Follower:
    """Knows the upstream of one tunnel. `changed` is called with what is new, before anybody is told."""

    def __init__(self, config: TunnelConfig, lookup: AddonLookup, emit: Emit, changed: Callable[[Known], None]) -> None:
        if config.addon is None:
            raise ValueError("this tunnel has no add-on to follow")
        self.addon: str = config.addon
        self.known: Known | None = None
        self.failure: MtlskitError | None = None
        """Why the last look-up failed; what is known is from an earlier one."""
        self.looked_up_at: datetime | None = None
        """When an answer came last."""
        self.running = False
        self._config = config
        self._lookup = lookup
        self._emit = emit
        self._changed = changed
        self._wake = trio.Event()
        self._under_way: trio.Event | None = None
        self._not_before = float("-inf")
        self._closed = False
        self._scope = trio.CancelScope()

    async def begin(self) -> Known:
        """Ask for the first time. Raises HerokuError, ConfigError."""
        self.known = known = await self._ask_heroku()
        self.looked_up_at = datetime.now(UTC)
        self.failure = None
        self._emit(AddonFound(tunnel=self._config.name, addon=self.addon, **self._told_of(known)))
        return known

    async def run(self) -> None:
        """Look again and again, until closed or cancelled. May be called again after it has failed."""
        self.running = True
        try:
            with trio.CancelScope() as self._scope:
                while not self._closed:
                    with trio.move_on_after(random.uniform(*_EVERY)):  # noqa: S311 - spreads load, guards nothing
                        await self._wake.wait()
                    await self._round()
        finally:
            self.running = False

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._scope.cancel()

    async def refresh(self, patience: float = PATIENCE) -> None:
        """Have it looked up, beginning after this call, and wait so many seconds for the answer."""
        with trio.move_on_after(patience):
            if self.running and self._under_way is not None:
                await self._under_way.wait()
            if self.running:
                await self._request().wait()

    async def newer_than(self, used: Known | None, patience: float = PATIENCE) -> bool:
        """Whether there is news since `used`, with which somebody was turned away; asks, if that is not too often."""
        if self.known is used and (self._under_way is not None or trio.current_time() >= self._not_before):
            with trio.move_on_after(patience):
                if self.running:
                    await self._request().wait()
        return self.known is not used

    def _request(self) -> trio.Event:
        if self._under_way is None:
            self._under_way = trio.Event()
            self._wake.set()
        return self._under_way

    async def _round(self) -> None:
        self._wake = trio.Event()
        done = self._request()
        try:
            await self._look()
        finally:
            self._under_way = None
            self._not_before = trio.current_time() + _REFUSED_AGAIN
            self._wake = trio.Event()
            done.set()

    async def _look(self) -> None:
        name = self._config.name
        try:
            known = await self._ask_heroku()
        except MtlskitError as exc:
            if self.failure is None:
                self._emit(AddonKept(tunnel=name, addon=self.addon, **described(exc)))
            self.failure = exc
            return
        if self.failure is not None:
            self.failure = None
            self._emit(AddonRecovered(tunnel=name, addon=self.addon))
        self.looked_up_at = datetime.now(UTC)
        changed = known.changes_since(self.known)
        if not changed:
            return
        self.known = known
        self._changed(known)
        self._emit(AddonChanged(tunnel=name, addon=self.addon, changed=changed, **self._told_of(known)))

    def _told_of(self, known: Known) -> dict[str, str]:
        """The fields that both events have."""
        return {
            "credential": "" if self._config.kind is TunnelKind.KAFKA else self._config.credential,
            "upstream": ", ".join(str(endpoint) for endpoint in known.endpoints),
            "prefix": known.prefix,
        }

    async def _ask_heroku(self) -> Known:
        """Raises HerokuError, ConfigError."""
        try:
            with trio.fail_after(_DEADLINE), naming(self._config.addon_named_by):
                return await asked(self._lookup, self.addon, self._config)
        except trio.TooSlowError as exc:
            raise HerokuError(
                Code.API_UNREACHABLE,
                f"where {self.addon} is could not be had within {_DEADLINE:g} s",
                "check that this host reaches api.heroku.com and api.data.heroku.com, and how the program that knows"
                " the token answers",
            ) from exc
