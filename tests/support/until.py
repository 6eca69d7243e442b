"""Waiting for what nobody announces: the state of another process, looked at again and again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

_DEADLINE = 30.0  # seconds; a safety net, nothing is measured by it
_PAUSE = 0.01

_Found = TypeVar("_Found")


def until(look: Callable[[], _Found], what: str) -> _Found:
    """Look until there is something (a truth), and return it. `what` is for the failure."""
    deadline = time.monotonic() + _DEADLINE
    while not (found := look()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(_PAUSE)
    return found


def accepts(address: tuple[str, int]) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection(address, _DEADLINE).close()
    except ConnectionRefusedError:
        return False
    return True
