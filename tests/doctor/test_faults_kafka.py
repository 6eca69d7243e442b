"""The faults of Kafka clusters: the doctor names each of them first, and blames nothing else."""

from __future__ import annotations

import pytest

from tests.doctor.catalogue.base import Fault, Stage, check_fault
from tests.doctor.catalogue.kafka import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_fault(fault: Fault, stage: Stage) -> None:
    check_fault(fault, stage)
