"""The papers of the fake upstream, made once."""

from __future__ import annotations

import pytest

from tests.support.fake_upstream import Papers, make_papers


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """A CA, a client identity and a server certificate, which no test changes."""
    return make_papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def own_papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """The same for a test that changes them."""
    return make_papers(tmp_path_factory.mktemp("own-papers"))
