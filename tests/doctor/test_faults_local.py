"""The faults of the local side."""

from __future__ import annotations

import pytest

from tests.doctor.catalogue.base import Fault, Stage, check_fault
from tests.doctor.catalogue.local import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_the_doctor_names_it_first(fault: Fault, stage: Stage) -> None:
    check_fault(fault, stage)
