"""What goes wrong where a real server or client cannot be had: never a skip, and each says what to install."""

from __future__ import annotations


class UnavailableError(Exception):
    """A server or client that the tests need is not here and could not be fetched; `hint` says what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"{what}\n  what to do: {hint}")
        self.what = what
        self.hint = hint


class IntegrityError(Exception):
    """A fetched file is not the one that was pinned. Never worked around: another source must not hide it."""


class ServerError(Exception):
    """A server did not start, did not stop, or ended by itself; the message ends with its log."""
