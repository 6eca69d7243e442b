"""When a certificate is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mtlskit.config.values import RenewBefore
from mtlskit.pki.renewal import due_at

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "wish", "left"),
    [
        (365, None, 30),
        (90, None, 30),
        (9, None, 3),
        (90, RenewBefore(share=0.5), 45),
        (90, RenewBefore(seconds=86400), 1),
        (30, RenewBefore(seconds=30 * 86400), 20),
        (0, None, 0),
    ],
)
def test_how_many_days_before_its_end(days: int, wish: RenewBefore | None, left: int) -> None:
    end = BEGIN + timedelta(days=days)
    assert due_at(BEGIN, end, wish) == end - timedelta(days=left)


def test_dates_in_the_wrong_order_are_due_at_the_end() -> None:
    end = BEGIN - timedelta(days=1)
    assert due_at(BEGIN, end, None) == end
