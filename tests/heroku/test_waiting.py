"""Waiting for an endpoint, on a clock that jumps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import pytest
import trio
import trio.testing

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.values import TlsEndpoint
from mtlskit.heroku.waiting import PACE, EndpointLookFailed, EndpointSeen, pauses, until_gone, until_operational
from mtlskit.telemetry import Event

ADDON = "postgresql-curved-12345"


class Scripted:
    """An API that gives one answer after the other, and the last one for ever. A text is a status."""

    def __init__(self, *answers: str | HerokuError | None, takes: float = 0.0) -> None:
        self.answers = answers
        self.takes = takes
        self.looks: list[float] = []

    async def tls_endpoint(self, addon: str) -> TlsEndpoint | None:
        assert addon == ADDON
        answer = self.answers[min(len(self.looks), len(self.answers) - 1)]
        self.looks.append(trio.current_time())
        await trio.sleep(self.takes)
        if isinstance(answer, HerokuError):
            raise answer
        return None if answer is None else TlsEndpoint(addon, answer)


def statuses(events: Sequence[Event]) -> list[str]:
    return [event.status for event in events if isinstance(event, EndpointSeen)]


def test_the_first_looks_are_quick() -> None:
    assert list(islice(pauses(), 8)) == [1, 2, 4, 8, 16, PACE, PACE, PACE]


async def test_what_is_there_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    api, seen = Scripted("Operational"), list[Event]()
    endpoint = await until_operational(api, ADDON, seconds=60, emit=seen.append)
    assert endpoint.operational
    assert seen == [EndpointSeen(addon=ADDON, status="Operational", elapsed=0.0, next_look=None)]


async def test_every_look_is_told(autojump_clock: trio.testing.MockClock) -> None:
    api, seen = Scripted("Provisioning", "Provisioning", "what is this?", "operational"), list[Event]()
    start = trio.current_time()
    assert (await until_operational(api, ADDON, seconds=600, emit=seen.append)).status == "operational"
    assert [look - start for look in api.looks] == [0, 1, 3, 7]
    assert statuses(seen) == ["Provisioning", "Provisioning", "what is this?", "operational"]
    assert [(e.elapsed, e.next_look) for e in seen if isinstance(e, EndpointSeen)] == [
        (0, 1),
        (1, 2),
        (3, 4),
        (7, None),
    ]
    assert seen[2].sentence() == f"{ADDON}: what is this?"


async def test_the_time_is_over(autojump_clock: trio.testing.MockClock) -> None:
    api = Scripted("Provisioning")
    start = trio.current_time()
    with pytest.raises(HerokuError) as caught:
        await until_operational(api, ADDON, seconds=100)
    assert trio.current_time() - start == 100
    assert caught.value.code is Code.API_WAIT_OVER
    assert caught.value.sentence == f"{ADDON}: not Operational within 100 s; the last look: Provisioning"
    assert caught.value.hint.endswith(f"`mtlskit heroku wait {ADDON}`")
    assert [look - start for look in api.looks] == [0, 1, 3, 7, 15, 31, 51, 71, 91]


async def test_a_look_that_hangs_is_bounded_too(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(HerokuError) as caught:
        await until_gone(Scripted(None, takes=1000), ADDON, seconds=100)
    assert caught.value.code is Code.API_WAIT_OVER
    assert caught.value.sentence == f"{ADDON}: not gone within 100 s; the last look: it could not be looked at"
    assert caught.value.hint.endswith(f"`mtlskit heroku wait {ADDON} --gone`")


async def test_trouble_on_the_way_does_not_end_the_wait(autojump_clock: trio.testing.MockClock) -> None:
    lost = HerokuError(Code.API_UNREACHABLE, "no connection: Network is unreachable")
    api, seen = Scripted("Provisioning", lost, "Operational"), list[Event]()
    assert (await until_operational(api, ADDON, seconds=60, emit=seen.append)).operational
    assert seen[1] == EndpointLookFailed(addon=ADDON, reason=lost.sentence, elapsed=1, next_look=2)
    assert "Network is unreachable" in seen[1].sentence()


async def test_trouble_until_the_end_is_told(autojump_clock: trio.testing.MockClock) -> None:
    lost = HerokuError(Code.API_BUSY, "too many requests")
    with pytest.raises(HerokuError, match="the last look: too many requests") as caught:
        await until_operational(Scripted(lost), ADDON, seconds=5)
    assert caught.value.code is Code.API_WAIT_OVER


async def test_what_no_look_will_change_ends_the_wait(autojump_clock: trio.testing.MockClock) -> None:
    refused = HerokuError(Code.API_TOKEN_REFUSED, "the token is refused")
    api = Scripted("Provisioning", refused)
    with pytest.raises(HerokuError) as caught:
        await until_operational(api, ADDON, seconds=60)
    assert caught.value is refused
    assert len(api.looks) == 2


async def test_nothing_to_wait_for(autojump_clock: trio.testing.MockClock) -> None:
    for answers, looks in (((None,), 1), (("Deprovisioning", None), 2)):
        api = Scripted(*answers)
        with pytest.raises(HerokuError) as caught:
            await until_operational(api, ADDON, seconds=60)
        assert (caught.value.code, len(api.looks)) == (Code.API_NOT_ENABLED, looks)
        assert caught.value.hint == f"mtlskit heroku enable {ADDON}"


async def test_one_that_was_just_enabled_may_not_be_seen_at_once(autojump_clock: trio.testing.MockClock) -> None:
    api, seen = Scripted(None, None, "Provisioning", "Operational"), list[Event]()
    assert (await until_operational(api, ADDON, seconds=60, emit=seen.append, just_asked=True)).operational
    assert statuses(seen) == ["not enabled", "not enabled", "Provisioning", "Operational"]
    with pytest.raises(HerokuError) as caught:
        await until_operational(Scripted(None), ADDON, seconds=600, just_asked=True)
    assert caught.value.code is Code.API_NOT_ENABLED


async def test_gone(autojump_clock: trio.testing.MockClock) -> None:
    seen = list[Event]()
    await until_gone(Scripted("Operational", "Deprovisioning", None), ADDON, seconds=60, emit=seen.append)
    assert statuses(seen) == ["Operational", "Deprovisioning", "not enabled"]
