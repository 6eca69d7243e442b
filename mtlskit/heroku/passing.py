"""Which errors of Heroku's APIs another try may not meet."""

from __future__ import annotations

from typing import Final

from mtlskit.errors import Code, MtlskitError

__all__ = ["may_pass"]

_PASSING: Final = frozenset(
    {Code.API_BUSY, Code.API_FAILED, Code.API_UNREACHABLE, Code.API_RUBBISH, Code.API_UNCERTAIN}
)


def may_pass(error: MtlskitError) -> bool:
    """Whether this may be gone the next time: the API is out of reach or broken, or we do not know what it did.

    What it refuses (a token, a name, a rule) it refuses again, until somebody mends it.
    """
    return error.code in _PASSING
