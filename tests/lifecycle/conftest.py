"""A CA that is made once, and a world of one identity for each test."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mtlskit.pki.authority import Authority
from tests.support.rotating import DAY, World

MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Of the identity's issuer."""
    return Authority.create("our ca", now=datetime.now(UTC) - 100 * DAY)


@pytest.fixture
def make_world(tmp_path: Path, authority: Authority) -> MakeWorld:
    """``make_world(makes_key=True, hooks=…)``"""

    def make(**more: Any) -> World:
        return World.make(tmp_path, authority, **more)

    return make


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """The usual one: our key, and an issuer that signs at once."""
    return make_world()
