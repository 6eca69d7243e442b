"""Where a tunnel's upstream is, and as whom to log in there, as Heroku tells it; and following it when it changes.

A credential is rotated, a database is moved: what the add-on's credential says then is looked up again every five
minutes, when somebody was turned away or no endpoint could be reached, and on a reload. Whoever was turned away waits a
few seconds for the answer, and begins again where there is news, so that a rotation is no failure to a client.

One look-up at a time, in the task of `run`; those who were turned away while one is under way share it. Refusals may
come by the thousand (every client of a tunnel whose password is wrong), so what they ask for is limited in its rate. A
look-up that fails changes nothing: what is known stays in use, and that is told once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

import trio

from mtlskit.config.values import Endpoint, TunnelConfig
from mtlskit.errors import Code, HerokuError, MtlskitError
from mtlskit.heroku.values import Credential
from mtlskit.proxy.events import AddonChanged, AddonFound, AddonKept, AddonRecovered, described
from mtlskit.proxy.password_keys import PasswordKeys
from mtlskit.telemetry import Emit

__all__ = ["AddonLookup", "Follower", "Known"]

_EVERY: Final = (270.0, 330.0)
"""Seconds between two look-ups, at random, so that many proxies do not ask in step."""

_REFUSED_AGAIN: Final = 10.0
"""Seconds that pass, at least, between a look-up and one that a refusal asks for."""

PATIENCE: Final = 5.0
"""Seconds that a client, or a reload, waits for a look-up; it goes on when they have left."""

_DEADLINE: Final = 120.0
"""Seconds of a look-up in all. Its requests have deadlines of their own; this is for what else may hang."""

_FIELDS: Final = ("host", "port", "database", "user", "password")


class AddonLookup(Protocol):
    """Asks Heroku. Raises HerokuError, or ConfigError where it cannot even ask."""

    async def __call__(self, addon: str, credential: str) -> Credential:
        """The credential of that name."""
        ...


@dataclass(frozen=True, eq=False)
class Known:
    """What was told, once. Sessions hold on to the one they began with; a change makes a new one."""

    credential: Credential
    keys: PasswordKeys = field(repr=False)

    @property
    def endpoint(self) -> Endpoint:
        """Where to connect."""
        return Endpoint(self.credential.host, self.credential.port)


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
        self.known = known = self._taken(await self._ask_heroku())
        name = self._config.name
        where = str(known.endpoint)
        self._emit(AddonFound(tunnel=name, addon=self.addon, credential=self._config.credential, upstream=where))
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
            credential = await self._ask_heroku()
        except MtlskitError as exc:
            if self.failure is None:
                self._emit(AddonKept(tunnel=name, addon=self.addon, **described(exc)))
            self.failure = exc
            return
        if self.failure is not None:
            self.failure = None
            self._emit(AddonRecovered(tunnel=name, addon=self.addon))
        before = None if self.known is None else self.known.credential
        changed = tuple(one for one in _FIELDS if getattr(credential, one) != getattr(before, one, None))
        self.looked_up_at = datetime.now(UTC)
        if not changed:
            return
        self.known = known = self._taken(credential)
        self._changed(known)
        self._emit(
            AddonChanged(
                tunnel=name,
                addon=self.addon,
                credential=self._config.credential,
                changed=changed,
                upstream=str(known.endpoint),
            )
        )

    def _taken(self, credential: Credential) -> Known:
        self.looked_up_at = datetime.now(UTC)
        self.failure = None
        return Known(credential, PasswordKeys(credential.password))

    async def _ask_heroku(self) -> Credential:
        """Raises HerokuError, ConfigError."""
        try:
            with trio.fail_after(_DEADLINE):
                credential = await self._lookup(self.addon, self._config.credential)
        except trio.TooSlowError as exc:
            raise HerokuError(
                Code.API_UNREACHABLE,
                f"the credential of {self.addon} could not be had within {_DEADLINE:g} s",
                "check that this host reaches api.data.heroku.com, and how the program that knows the token answers",
            ) from exc
        _check(self.addon, credential)
        return credential


def _check(addon: str, credential: Credential) -> None:
    """Raises HerokuError for what cannot be dialled or sent: better here than in a client's login."""
    texts = (credential.host, credential.database, credential.user)
    if all(text and text.isprintable() for text in texts) and 0 < credential.port < 65536:
        return
    raise HerokuError(
        Code.API_RUBBISH,
        f"the credential {credential.name} of {addon} has no host, port, database or user that can be used",
        f"look at it: `heroku pg:credentials:url {addon}`; a credential that is being made or rotated may lack them",
    )
