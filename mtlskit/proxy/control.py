"""What the control socket can have done: status, reload, stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtlskit.control.events import ControlAsked
from mtlskit.control.protocol import Request
from mtlskit.control.server import Answer, Handler
from mtlskit.errors import Code, ControlError
from mtlskit.proxy.status import Started, reloaded_facts, status
from mtlskit.telemetry import Emit

if TYPE_CHECKING:
    from mtlskit.proxy.run import Proxy

__all__ = ["handlers"]


def handlers(proxy: Proxy, started: Started, emit: Emit) -> Mapping[str, Handler]:
    """The requests that a proxy does."""

    async def tell(request: Request) -> Answer:
        return Answer(status(proxy, started, config_changed=await started.outdated()))

    async def reload(request: Request) -> Answer:
        if proxy.stopping:
            raise ControlError(
                Code.CTL_STOPPING, "the proxy is stopping, and reads no certificates any more", "start it again"
            )
        emit(ControlAsked(do="reload"))
        results = await proxy.reload()
        facts = reloaded_facts(results)  # at once: another reload may follow while the file is looked at
        return Answer({**facts, "config_changed": await started.outdated()})

    async def stop(request: Request) -> Answer:
        def close_doors() -> None:
            # Once: a second stop would cut the sessions that the first one lets finish.
            if not proxy.stopping:
                proxy.stop()

        emit(ControlAsked(do="stop"))
        facts = {"sessions": proxy.sessions, "seconds": proxy.drain_seconds}
        return Answer(facts, then=close_doors, hold=True)

    return {"status": tell, "reload": reload, "stop": stop}
