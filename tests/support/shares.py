"""Which tests go to one process when several share a run (``-n 2``), and in which order.

A file is never divided: its tests may count on what its fixtures made once, and on being alone with that. What needs
Kafka goes to one process altogether: a cluster is three virtual machines of Java, which take seconds to start.

What takes long comes first: where one process still has minutes to go and the other is given nothing more, a core is
wasted. Kafka's share takes longest of all, and waits for half of its time.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

KAFKA = "kafka"
FIRST = (KAFKA, "tests/docs/", "tests/e2e/", "tests/lifecycle/", "tests/cli/", "tests/bench/", "tests/allowlist/")
_WITH_KAFKA = ("tests/doctor", "tests/e2e", "tests/lifecycle", "tests/services")


class Shares(LoadFileScheduling):
    """By files, but for Kafka; in the order in which the tests come."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        """Nothing is shared out before `schedule`."""
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests: a page of docs/ is one, and takes a minute

    def _split_scope(self, nodeid: str) -> str:
        return share_of(nodeid)


def share_of(nodeid: str) -> str:
    """The name of the share that a test belongs to: its file, or `KAFKA`."""
    file = nodeid.partition("::")[0]
    folder, _, name = file.rpartition("/")
    return KAFKA if folder in _WITH_KAFKA and "kafka" in name else file


def turn_of(nodeid: str) -> int:
    """The place of a test's share in the run: a smaller one comes first."""
    share = share_of(nodeid)
    return next((turn for turn, start in enumerate(FIRST) if share.startswith(start)), len(FIRST))
