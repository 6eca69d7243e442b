"""Paths of calls: a name from outside stays one segment, whatever is in it."""

from __future__ import annotations

from urllib.parse import quote

from mtlskit.errors import Code, HerokuError
from mtlskit.telemetry.logs import printable

__all__ = ["path_of"]


def path_of(template: str, *names: str) -> str:
    """`template` with each `{}` replaced by a name. Raises `HerokuError` (API_NOT_FOUND) for what cannot be a name."""
    for name in names:
        # These would be another path: dots are removed with what is before them, an empty name joins its neighbours.
        if name in ("", ".", "..") or len(name) > 300:
            raise HerokuError(
                Code.API_NOT_FOUND,
                f"{printable(name[:60])!r} is no name of anything at Heroku",
                "look at the names: heroku addons --all",
            )
    return template.format(*(quote(name, safe="", errors="replace") for name in names))
