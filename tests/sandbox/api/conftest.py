"""One API for each test: it starts in milliseconds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.sandbox_api import RunningApi, running_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    """At Heroku's own pace, with a clock that stands still."""
    async with running_api(tmp_path) as running:
        yield running
