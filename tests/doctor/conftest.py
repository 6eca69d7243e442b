"""What the doctor's tests share: the stage of a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.catalogue.base import Stage


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Stage:
    """A folder, and the fixtures of this test."""
    return Stage(tmp_path, request)
