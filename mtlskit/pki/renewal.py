"""When a certificate is due for renewal: a function of its dates and of the wish. No clock here."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from mtlskit.config.values import RenewBefore

__all__ = ["DEFAULT_NOTICE", "DEFAULT_SHARE", "LONGEST_SHARE", "due_at", "notice"]

DEFAULT_NOTICE: Final = timedelta(days=30)
"""Heroku's own "one month before"."""

DEFAULT_SHARE: Final = 1 / 3
"""For what lives shorter than three months."""

LONGEST_SHARE: Final = 2 / 3
"""A duration counts up to this much of the life: 30 days before the end of a 30-day certificate would be for ever."""


def notice(life: timedelta, wish: RenewBefore | None) -> timedelta:
    """How long before its end a certificate of this life is due.

    Without a wish: 30 days, or a third of its life if that is less.
    """
    if wish is not None and wish.share is not None:
        return life * wish.share
    if wish is not None and wish.seconds is not None:
        return min(timedelta(seconds=wish.seconds), life * LONGEST_SHARE)
    return min(DEFAULT_NOTICE, life * DEFAULT_SHARE)


def due_at(not_before: datetime, not_after: datetime, wish: RenewBefore | None) -> datetime:
    """The moment from which on a certificate is due."""
    return not_after - notice(max(not_after - not_before, timedelta()), wish)
