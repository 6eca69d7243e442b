"""When a certificate is due, and when to look again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.values import RenewBefore
from mtlskit.lifecycle.decide import (
    LONGEST_DELAY,
    LONGEST_SPREAD,
    MOST_SLEEP,
    SHORTEST_DELAY,
    State,
    decide,
    renewal_time,
    retry_delay,
    sleep_until,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def seeded() -> Random:
    return Random(1)  # noqa: S311 - nothing secret


@pytest.mark.parametrize(
    ("life", "renew_before", "due_before_end"),
    [
        (365 * DAY, None, 30 * DAY),
        (90 * DAY, None, 30 * DAY),
        (60 * DAY, None, 20 * DAY),
        (3 * DAY, None, DAY),
        (365 * DAY, RenewBefore(seconds=43_200.0), DAY / 2),
        (365 * DAY, RenewBefore(share=0.5), 182.5 * DAY),
        (100 * DAY, RenewBefore(share=0.99), 99 * DAY),
        (30 * DAY, RenewBefore(seconds=30 * 86_400.0), 20 * DAY),
        (3 * DAY, RenewBefore(seconds=30 * 86_400.0), 2 * DAY),
        (365 * DAY, RenewBefore(), 30 * DAY),
    ],
)
def test_when_it_is_due(life: timedelta, renew_before: RenewBefore | None, due_before_end: timedelta) -> None:
    end = BEGIN + life
    due = end - due_before_end
    assert abs(decide(BEGIN, end, BEGIN, renew_before).due_at - due) < SECOND
    states = [decide(BEGIN, end, moment, renew_before).state for moment in (BEGIN, due - SECOND, due + SECOND, end)]
    assert states == [State.FINE, State.FINE, State.DUE, State.DUE]


def test_the_ends_of_its_life() -> None:
    end = BEGIN + 90 * DAY
    assert decide(BEGIN, end, BEGIN - SECOND).state is State.NOT_YET_VALID
    assert not decide(BEGIN, end, BEGIN - SECOND).renew
    assert decide(BEGIN, end, end).renew
    after = decide(BEGIN, end, end + SECOND)
    assert (after.state, after.renew, after.days_left) == (State.EXPIRED, True, -1)
    assert decide(BEGIN, end, end - SECOND).days_left == 0
    assert decide(BEGIN, end, BEGIN).days_left == 90


def test_dates_in_the_wrong_order_are_expired() -> None:
    decision = decide(BEGIN + DAY, BEGIN, BEGIN + DAY / 2)
    assert (decision.state, decision.due_at) == (State.EXPIRED, BEGIN)
    assert decide(BEGIN + DAY, BEGIN, BEGIN - DAY).state is State.NOT_YET_VALID


MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
LIVES = st.timedeltas(timedelta(), timedelta(days=20_000))
RULES = st.one_of(
    st.none(),
    st.builds(RenewBefore, seconds=st.floats(0.001, 3660 * 86_400.0)),
    st.builds(RenewBefore, share=st.integers(1, 99).map(lambda percent: percent / 100)),
)
CHANCE = st.integers(0, 2**32).map(Random)


@given(MOMENTS, LIVES, MOMENTS, RULES)
def test_a_decision_follows_from_the_dates(
    begin: datetime, life: timedelta, now: datetime, rule: RenewBefore | None
) -> None:
    end = begin + life
    decision = decide(begin, end, now, rule)
    assert begin <= decision.due_at <= end
    assert decision.remaining == end - now
    assert (decision.state is State.EXPIRED) == (now > end)
    assert (decision.state is State.NOT_YET_VALID) == (now < begin)
    assert decision.renew == (begin <= now and decision.due_at <= now)


@given(MOMENTS, LIVES, RULES)
def test_a_new_certificate_is_not_due(begin: datetime, life: timedelta, rule: RenewBefore | None) -> None:
    # Shorter than a second there is no room for anything; microseconds are rounded.
    assert life < SECOND or decide(begin, begin + life, begin, rule).state is State.FINE


@given(MOMENTS, LIVES, st.lists(MOMENTS, min_size=2, max_size=8), RULES)
def test_time_goes_one_way(begin: datetime, life: timedelta, moments: list[datetime], rule: RenewBefore | None) -> None:
    order = [State.NOT_YET_VALID, State.FINE, State.DUE, State.EXPIRED]
    states = [order.index(decide(begin, begin + life, now, rule).state) for now in sorted(moments)]
    assert states == sorted(states)


@given(MOMENTS, LIVES, RULES, CHANCE)
def test_a_renewal_comes_soon_after_it_is_due_and_in_time(
    begin: datetime, life: timedelta, rule: RenewBefore | None, rng: Random
) -> None:
    decision = decide(begin, begin + life, begin, rule)
    moment = renewal_time(decision, rng)
    assert decision.due_at <= moment <= decision.due_at + LONGEST_SPREAD
    assert moment - decision.due_at <= decision.notice / 10 + timedelta(microseconds=1)


def test_hosts_of_one_day_do_not_renew_in_one_second() -> None:
    decision = decide(BEGIN, BEGIN + 365 * DAY, BEGIN)
    rng = seeded()
    moments = sorted(renewal_time(decision, rng) for _ in range(60))
    assert moments[-1] - moments[0] > timedelta(minutes=45)


@given(MOMENTS, MOMENTS)
def test_no_sleep_is_long(moment: datetime, now: datetime) -> None:
    seconds = sleep_until(moment, now)
    assert 0 <= seconds <= MOST_SLEEP
    assert (seconds == 0) == (now >= moment)


@given(st.integers(0, 10**9), st.timedeltas(timedelta(), timedelta(days=400)), CHANCE)
def test_delays_are_bounded_for_ever(failures: int, notice: timedelta, rng: Random) -> None:
    delay = retry_delay(failures, notice, rng)
    assert SHORTEST_DELAY <= delay <= LONGEST_DELAY
    assert delay <= max(notice.total_seconds() / 10, SHORTEST_DELAY)


def test_delays_grow_and_differ() -> None:
    rng = seeded()

    def mean(failures: int) -> float:
        return sum(retry_delay(failures, 30 * DAY, rng) for _ in range(300)) / 300

    means = [mean(failures) for failures in range(1, 8)]
    assert means == sorted(means)
    assert len({retry_delay(9, 30 * DAY, rng) for _ in range(20)}) == 20


def test_a_short_notice_still_has_room_for_ten_attempts() -> None:
    rng = seeded()
    notice = timedelta(minutes=2)
    assert sum(retry_delay(failures, notice, rng) for failures in range(1, 11)) <= notice.total_seconds()
