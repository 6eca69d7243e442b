"""Lengths of time and ends of certificates in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mtlskit.cli.spans import end_text, left_text, span_text

BEGINS = datetime(2026, 11, 22, 17, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        *((0, "0 s"), (119.9, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172799, "47 h")),
        (172800, "2 d"),
    ],
)
def test_the_largest_unit_that_is_there_twice(seconds: float, told: str) -> None:
    assert span_text(seconds) == told
    assert left_text(timedelta(seconds=seconds)) == told


def test_what_is_over_has_a_sign() -> None:
    assert left_text(timedelta(seconds=-12)) == "-12 s"
    assert left_text(timedelta(days=-3)) == "-3 d"


def test_a_short_life_ends_at_a_time_of_day() -> None:
    far = timezone(timedelta(hours=9))
    assert end_text((BEGINS + timedelta(hours=7)).astimezone(far), BEGINS) == "2026-11-23 00:25 UTC"
    assert end_text((BEGINS + timedelta(days=2)).astimezone(far), BEGINS) == "2026-11-24"
