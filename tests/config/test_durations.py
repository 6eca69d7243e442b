"""Durations."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.durations import LONGEST, parse_duration
from mtlskit.errors import Code, ConfigError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("10s", 10.0),
        ("500ms", 0.5),
        ("1h30m", 5_400.0),
        ("1.5h", 5_400.0),
        ("30d", 2_592_000.0),
        ("2w", 1_209_600.0),
        ("1d2h3m4s5ms", 93_784.005),
        (" 10s ", 10.0),
        ("10", 10.0),
        ("0.25", 0.25),
        (10, 10.0),
        (0.25, 0.25),
    ],
)
def test_durations(value: str | float, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "not a duration"),
        ("s", "not a duration"),
        ("10 s", "not a duration"),
        ("10y", "not a duration"),
        ("-10s", "not a duration"),
        ("1e3", "not a duration"),
        ("inf", "not a duration"),
        ("\u0661s", "not a duration"),
        ("30m1h", "from large to small"),
        ("1s1s", "from large to small"),
        ("0s", "longer than nothing"),
        (0, "longer than nothing"),
        (-1.5, "longer than nothing"),
        (-math.inf, "longer than nothing"),
        (math.nan, "not a duration"),
        (math.inf, "longer than ten years"),
        ("999999d", "longer than ten years"),
        pytest.param(10**400, "longer than ten years", id="huge"),
    ],
)
def test_refused(value: str | float, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_duration(value)
    assert caught.value.code is Code.CONFIG_BAD_VALUE
    assert '"10s"' in caught.value.hint


@given(st.one_of(st.text(max_size=20), st.text("0123456789.wdhms", max_size=20), st.floats(), st.integers()))
def test_whatever_is_given_the_result_is_a_usable_deadline(value: str | float) -> None:
    try:
        seconds = parse_duration(value)
    except ConfigError:
        return
    assert 0 < seconds <= LONGEST
