"""A folder for control sockets, short enough for a unix socket's path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.places import scratch_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """Ours, 0700."""
    with scratch_folder("mtlskit-ctl-", None) as folder:
        yield folder
