"""The catalogue's faults of configuration, files, identity, revocation and clock."""

from __future__ import annotations

import pytest

from tests.doctor.catalogue.base import Fault, Stage, check_fault
from tests.doctor.catalogue.identity import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_the_cause_is_named_first(fault: Fault, stage: Stage) -> None:
    check_fault(fault, stage)
