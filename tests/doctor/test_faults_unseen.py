"""The doctor, before faults that were set up without a look at it."""

from __future__ import annotations

import pytest

from tests.doctor.catalogue.base import Stage
from tests.doctor.catalogue.unseen import POSTGRES, Unseen, check_unseen, check_well

each = pytest.mark.parametrize("fault", POSTGRES, ids=lambda fault: fault.id)


@each
def test_the_cause_is_named_first(fault: Unseen, stage: Stage) -> None:
    check_unseen(fault, stage)


@each
def test_without_the_fault_nothing_fails(fault: Unseen, stage: Stage) -> None:
    check_well(fault, stage)
