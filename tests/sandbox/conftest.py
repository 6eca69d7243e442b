"""One real space for all tests of this folder: a PostgreSQL start costs half a second, so it is paid once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtlskit.sandbox.space import SpaceOptions
from tests.support.space import RunningSpace, running_space


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """A running space with the real PostgreSQL behind it."""
    with running_space(SpaceOptions(tmp_path_factory.mktemp("space") / "space", keep_data=False)) as running:
        yield running


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user can reach. pytest's own are 0700."""
    folder = Path(tempfile.mkdtemp(prefix="mtlskit-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
