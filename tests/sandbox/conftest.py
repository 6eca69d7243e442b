"""One real space for all tests of this folder: a PostgreSQL start costs half a second, so it is paid once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mtlskit.sandbox.space import SpaceOptions
from tests.support.space import RunningSpace, running_space


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """A running space with the real PostgreSQL behind it."""
    with running_space(SpaceOptions(tmp_path_factory.mktemp("space") / "space", keep_data=False)) as running:
        yield running
