"""How many connections are kept ready: what a plain count of all arrivals says, with a bounded memory."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from mtlskit.net.warm import Demand

# The rule in words: clients within five seconds are one burst, and it is remembered for ten minutes.
TOGETHER = 5.0
MEMORY = 600.0

# In quarters of a second, which floats hold exactly.
GAPS = st.lists(st.one_of(st.integers(0, 8), st.integers(0, 4000)), min_size=1, max_size=60)


def times_of(gaps: list[int]) -> list[float]:
    return [quarters / 4 for quarters in accumulate(gaps)]


def counted(arrivals: list[float], now: float, limit: int) -> int:
    """The same, counted anew from every arrival."""
    bursts = [sum(end - TOGETHER <= other <= end for other in arrivals[: n + 1]) for n, end in enumerate(arrivals)]
    remembered = [size for size, end in zip(bursts, arrivals, strict=True) if end >= now - MEMORY]
    return min(limit, max(remembered, default=1))


@given(limit=st.integers(0, 12), gaps=GAPS, later=st.integers(0, 4000))
def test_it_is_the_largest_burst_in_memory(limit: int, gaps: list[int], later: int) -> None:
    demand, arrivals = Demand(limit), list[float]()
    for now in times_of(gaps):
        assert demand.wanted(now) == counted(arrivals, now, limit)
        demand.arrived(now)
        arrivals.append(now)
        assert demand.wanted(now) == counted(arrivals, now, limit)
    now = arrivals[-1] + later / 4
    assert demand.wanted(now) == counted(arrivals, now, limit)


@given(limit=st.integers(0, 100), gaps=GAPS)
def test_it_stays_within_its_bounds(limit: int, gaps: list[int]) -> None:
    demand = Demand(limit)
    for now in times_of(gaps):
        demand.arrived(now)
        assert min(1, limit) <= demand.wanted(now) <= limit


@given(limit=st.integers(1, 12), gaps=GAPS)
def test_it_forgets_everything_in_the_end(limit: int, gaps: list[int]) -> None:
    demand = Demand(limit)
    for now in times_of(gaps):
        demand.arrived(now)
    assert demand.wanted(now + MEMORY + 1) == 1


@given(limit=st.integers(1, 12), gaps=GAPS)
def test_asking_changes_nothing(limit: int, gaps: list[int]) -> None:
    asked, left_alone = Demand(limit), Demand(limit)
    for now in times_of(gaps):
        for demand in (asked, left_alone):
            demand.arrived(now)
        asked.wanted(now)
    assert asked.wanted(now) == left_alone.wanted(now)


def test_its_memory_is_bounded() -> None:
    demand = Demand(10)
    for n in range(10_000):
        demand.arrived(n / 100)
        demand.arrived(n / 100)
    assert len(demand._recent) <= 10
    assert len(demand._bursts) <= 10


def test_steady_clients_one_at_a_time_keep_one_ready() -> None:
    demand = Demand(10)
    for minute in range(120):
        demand.arrived(60.0 * minute)
        assert demand.wanted(60.0 * minute) == 1


def test_a_new_burst_renews_the_memory_of_an_equal_one() -> None:
    demand = Demand(10)
    for start in (0.0, 500.0):
        for n in range(4):
            demand.arrived(start + n)
    assert demand.wanted(1100.0) == 4
    assert demand.wanted(1104.0) == 1
