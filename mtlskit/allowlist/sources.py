"""Lists that others publish: the bytes of a file, or of an https URL. What they say is `mtlskit.allowlist.listed`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trio

from mtlskit.allowlist.fetching import FetchFailed, checked_url, fetch
from mtlskit.errors import AllowlistError, Code

__all__ = ["MOST_BYTES", "is_url", "read_source"]

MOST_BYTES: Final = 1024 * 1024
"""Of a list. The longest that a vendor publishes have some hundred KiB; an add-on takes 60 rules."""

_DEADLINE: Final = 30.0  # seconds


def is_url(source: str) -> bool:
    """Whether this names something on the network, and not a file."""
    return "://" in source


async def read_source(source: str, *, deadline: float = _DEADLINE) -> bytes:
    """What the file or the URL holds. Raises `AllowlistError` (ALLOW_SOURCE)."""
    if is_url(source):
        return await _download(source, deadline)
    # Abandoned, so that Ctrl-C ends it where it is a pipe that nobody writes to.
    return await trio.to_thread.run_sync(_read, Path(source), abandon_on_cancel=True)


async def _download(url: str, deadline: float) -> bytes:
    try:
        checked_url(url)
    except ValueError as exc:
        raise _failed("the URL of a list", str(exc), "name an https URL without a password in it") from exc
    try:
        return await fetch(url, most=MOST_BYTES, deadline=deadline, follow=True)
    except FetchFailed as exc:
        shown = url.partition("?")[0]  # a query may hold a key
        raise _failed(shown, f"cannot be had: {exc}", "try it again, or download it and name the file") from exc


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise _failed(str(path), f"cannot be read: {reason}", f"see `ls -ld {path}`") from exc
    if len(content) > MOST_BYTES:
        raise _failed(str(path), f"is larger than {MOST_BYTES // 1024} KiB", "name a list of IP ranges")
    return content


def _failed(what: str, why: str, hint: str) -> AllowlistError:
    return AllowlistError(Code.ALLOW_SOURCE, f"{what} {why}", hint)
