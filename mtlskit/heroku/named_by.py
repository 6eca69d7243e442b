"""Saying of an error about an add-on who named it: several tables of a file may each do so, and flags.

Heroku's answer tells the name alone, and what is to be mended is where that was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from mtlskit.errors import Code, HerokuError, MtlskitError

__all__ = ["naming", "told_who_named_it"]

_OF_THE_NAME: Final = frozenset(
    {
        Code.API_FORBIDDEN,
        Code.API_NOT_ENABLED,
        Code.API_NOT_FOUND,
        Code.API_NO_MTLS,
        Code.API_REFUSED,
        Code.CONFIG_BAD_VALUE,
    }
)
"""What another name might have spared. That Heroku is away, or knows no token, has nothing to do with the name."""


def told_who_named_it(error: MtlskitError, named_by: str) -> MtlskitError:
    """The same error with `named_by`, a key of a file with its line or a flag; empty: it is not known, nor told."""
    if not named_by or error.code not in _OF_THE_NAME:
        return error
    sentence = f"{error.sentence} (the add-on is named by {named_by})"
    if isinstance(error, HerokuError):
        return HerokuError(error.code, sentence, error.hint, status=error.status, request_id=error.request_id)
    return type(error)(error.code, sentence, error.hint)


@contextmanager
def naming(named_by: str) -> Iterator[None]:
    """What the block raises about an add-on says who named that. An error in an exception group stays as it is."""
    try:
        yield
    except MtlskitError as exc:
        told = told_who_named_it(exc, named_by)
        if told is exc:
            raise
        raise told from exc
