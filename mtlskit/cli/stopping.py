"""Running something until it is done or a signal asks it to stop, so that it can clean up after itself."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

__all__ = ["run_until_stopped"]


def run_until_stopped(work: Callable[[], Awaitable[None]]) -> bool:
    """Run `work` under trio. True if it ended by itself; False if SIGINT, SIGTERM or SIGHUP ended it.

    A signal cancels `work`, whose clean-up runs to its end; further signals do not cut it short. A SIGHUP that whoever
    started us has made ignored (nohup) stays so: a terminal that is closed then is none of our business.
    """
    import trio

    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    numbers = [number for number in numbers if not (number.name == "SIGHUP" and _ignored(number))]
    stopped = False

    async def listen(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        nonlocal stopped
        with trio.open_signal_receiver(*numbers) as signals:
            task_status.started()
            async for _ in signals:
                stopped = True
                scope.cancel()

    async def supervise() -> None:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                await nursery.start(listen, scope)
                await work()
            nursery.cancel_scope.cancel()

    trio.run(supervise)
    return not stopped


def _ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN
