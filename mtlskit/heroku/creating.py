"""Making something once, by calls that may fail without a word on whether they took effect.

After a failure that leaves it open, what was to be made is looked for. Only if it is not there, twice, with a pause in
which a server that was still at work could finish, is the call made again. What cannot be recognised afterwards (a
certificate, a rotation) must not be made this way: there the caller has to decide.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.events import HerokuLookedUp
from mtlskit.heroku.retries import Asker, Call
from mtlskit.heroku.transport import Answer

__all__ = ["make_looked_up"]

_T = TypeVar("_T")


async def make_looked_up(
    asker: Asker,
    call: Call,
    make: Callable[[Answer], _T],
    look: Callable[[], Awaitable[_T | None]],
    *,
    patience: float,
) -> _T:
    """What `call` makes, or what `look` finds of it. `patience`: seconds after which no further try begins.

    Raises `HerokuError`: API_UNCERTAIN if it cannot be looked for; API_FAILED if the API failed all the time, and it is
    not there; whatever else the call ends with.
    """
    began = trio.current_time()
    tries = 0
    while True:
        tries += 1
        try:
            return make(await asker.ask(call))
        except HerokuError as exc:
            failed = exc
        # What exists already may be refused as a second one, after a try whose answer was lost or from another process.
        refused = failed.code is Code.API_REFUSED and failed.status in (409, 422)
        if failed.code is not Code.API_UNCERTAIN and not refused:
            raise failed
        found = await _look(asker, call, failed, look)
        if found is not None:
            return found
        if refused:
            raise failed
        pause = _settling(asker, failed) + asker.patience.pause(tries)
        if trio.current_time() - began + pause > patience:
            raise _never_made(call, failed, tries)
        await trio.sleep(pause)
        found = await _look(asker, call, failed, look)
        if found is not None:
            return found


def _settling(asker: Asker, failed: HerokuError) -> float:
    """Seconds. Where no answer came, the server may be at work still; where it failed, it has ended."""
    return asker.patience.settle if failed.status is None else asker.patience.base


async def _look(asker: Asker, call: Call, failed: HerokuError, look: Callable[[], Awaitable[_T | None]]) -> _T | None:
    try:
        found = await look()
    except HerokuError as exc:
        if failed.code is not Code.API_UNCERTAIN:
            raise failed from exc
        raise HerokuError(
            Code.API_UNCERTAIN,
            f"{failed.sentence}; and it could not be looked up: {exc.sentence}",
            failed.hint,
            status=failed.status,
            request_id=failed.request_id,
        ) from exc
    if found is None and failed.code is not Code.API_UNCERTAIN:
        return None  # a refusal that is one: its error says everything
    reason = failed.sentence.removeprefix(f"{call.about}: ")
    asker.emit(HerokuLookedUp(about=call.about, reason=reason, found=found is not None))
    return found


def _never_made(call: Call, failed: HerokuError, tries: int) -> HerokuError:
    if failed.status is None or failed.status < 500:
        return failed
    return HerokuError(
        Code.API_FAILED,
        f"{failed.sentence.partition(';')[0]}; given up after {tries} tries, and it is not there",
        "what was removed a moment ago may be refused for some minutes: run the same again later",
        status=failed.status,
        request_id=failed.request_id,
    )
