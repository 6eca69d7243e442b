"""What stops the commands that run until they are stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from mtlskit.cli.stopping import run_until_stopped


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP as this process had it, afterwards."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


async def _hung_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)
    await trio.testing.wait_all_tasks_blocked()


async def _hung_up_for_good() -> None:
    await _hung_up()
    await trio.sleep_forever()


def test_a_terminal_that_is_closed_stops_the_work(hangup: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert not run_until_stopped(_hung_up_for_good)


def test_under_nohup_it_does_not(hangup: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert run_until_stopped(_hung_up)
