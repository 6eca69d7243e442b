"""The catalogue's faults of TLS and of our certificate."""

from __future__ import annotations

import pytest

from tests.doctor.catalogue.base import Fault, Stage, check_fault
from tests.doctor.catalogue.tls import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_named_first(fault: Fault, stage: Stage) -> None:
    check_fault(fault, stage)
