"""The space's Heroku: the API's state, which the gateway asks whom to let in, and its server.

Everything in `sandbox.api` is imported here and only when a space starts: it brings a web framework along, and no other
command should pay for that.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import trio

from mtlskit.errors import Code, SandboxError
from mtlskit.sandbox.strangers import Refusal

if TYPE_CHECKING:
    from mtlskit.net.listen import Listener
    from mtlskit.sandbox.api.hooks import Brokers, SpaceHooks
    from mtlskit.sandbox.api.options import ApiOptions
    from mtlskit.sandbox.api.state import ApiState
    from mtlskit.telemetry import Emit

__all__ = ["StandIn", "load_stand_in"]


def load_stand_in() -> None:
    """Imports what a `StandIn` needs, which takes some tenths of a second. Raises SandboxError where it is missing."""
    try:
        import mtlskit.sandbox.api.server
        import mtlskit.sandbox.api.state  # noqa: F401 - to have it loaded
    except ImportError as exc:
        raise SandboxError(
            Code.SANDBOX_EXTRA_MISSING,
            f"the sandbox's API cannot be served: {exc}",
            "pip install 'mtlskit[sandbox]'",
        ) from exc


class StandIn:
    """The Heroku of one space."""

    def __init__(self, state: ApiState) -> None:
        self._state = state

    @classmethod
    def open(cls, path: Path, options: ApiOptions, *, addon: str) -> Self:
        """Takes up the state in `path`, or begins one. `addon` is the one behind the gateway. Raises SandboxError."""
        from mtlskit.sandbox.api.state import ApiState

        state = ApiState.open(path, addon=addon, addons=options.addons, bare=options.bare, speed_up=options.speed_up)
        return cls(state)

    @property
    def kafka_addon(self) -> str:
        """The name of the Kafka add-on."""
        return self._state.kafka.name

    def admit(self, host: str) -> Refusal | None:
        """The gateway's question: whether the first add-on's rules let this address in."""
        answer = self._state.admits(host)
        return None if answer.allowed else Refusal(answer.reason, reset=answer.reset)

    def admit_to_kafka(self, host: str) -> Refusal | None:
        """The same question, asked by the Kafka brokers."""
        answer = self._state.admits(host, addon=self._state.kafka)
        return None if answer.allowed else Refusal(answer.reason, reset=answer.reset)

    def is_of_kafka(self, serial: int) -> bool:
        """Whether a certificate of the space's CA is the one that the Kafka add-on has now."""
        current = self._state.kafka.kafka_serial
        return bool(current) and int(current, 16) == serial

    @property
    def kafka_pair(self) -> tuple[Path, Path]:
        """The files of that certificate and of its key."""
        stem = self._state.files / self.kafka_addon
        return Path(f"{stem}.crt"), Path(f"{stem}.key")

    def has_brokers(self, brokers: Brokers) -> None:
        """From now on the API knows the Kafka behind the add-on."""
        self._state.brokers = brokers

    def move(self, here: str, there: str) -> None:
        """From now on the space sees `there` where `here` connects: the office has another address."""
        self._state.move(here, there)

    async def start(
        self,
        nursery: trio.Nursery,
        listener: Listener,
        hooks: SpaceHooks,
        options: ApiOptions,
        *,
        token: str,
        emit: Emit,
    ) -> None:
        """Serves in `nursery`, on a listener that is open already."""
        from mtlskit.sandbox.api.server import run_api

        await nursery.start(partial(run_api, self._state, options, hooks, token=token, listener=listener, emit=emit))
