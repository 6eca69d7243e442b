"""The faults of Heroku's side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mtlskit.sandbox.space import SpaceOptions
from tests.doctor.catalogue.base import Fault, Stage, check_fault
from tests.doctor.catalogue.heroku import FAULTS
from tests.support.space import RunningSpace, running_space


@pytest.fixture(scope="module")
def shared_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """Whose PostgreSQL stands behind the spaces of all faults."""
    with running_space(SpaceOptions(tmp_path_factory.mktemp("space") / "space", keep_data=False)) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_the_doctor_names_it_first(fault: Fault, stage: Stage) -> None:
    check_fault(fault, stage)
