"""One change at a time: processes of one host that change the rules of one owner take turns.

Two that ran at once would each add what the other is adding, and remove what it found before. The lock is the kernel's,
so that a process which is killed holds nobody up. Two hosts that share an owner id cannot take turns: there, `apply`
looks at the end whether everything is still as it should be, and mends it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from mtlskit.allowlist.events import TurnAwaited
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.state import prepare_state
from mtlskit.store.lock import FileLock
from mtlskit.telemetry import Emit, silent

__all__ = ["lock_path", "turn"]

_PAUSE: Final = 0.25  # seconds between two tries


def lock_path(folder: Path, owner: Owner) -> Path:
    """The lock of an owner, in the state folder. Hashed: a name need not be one that a file can have."""
    return folder / f"allowlist-{hashlib.sha256(owner.tag.encode()).hexdigest()[:16]}.lock"


@asynccontextmanager
async def turn(folder: Path, owner: Owner, *, wait: float, emit: Emit = silent) -> AsyncIterator[None]:
    """Hold the owner's turn while the block lasts; wait for it up to `wait` seconds.

    Raises `StoreError`: STORE_BUSY, STORE_UNUSABLE.
    """
    prepare_state(folder)
    lock = FileLock(lock_path(folder, owner))
    began = trio.current_time()
    told = False
    while not lock.acquire():
        if trio.current_time() - began >= wait:
            raise lock.busy(wait)
        if not told:
            told = True
            emit(TurnAwaited(owner=owner.tag, holder=lock.holder()))
        await trio.sleep(_PAUSE)
    try:
        yield
    finally:
        lock.release()
