"""The doctor names each fault on the way, and blames nothing else."""

from __future__ import annotations

import pytest

from mtlskit.doctor.finding import Layer, Verdict
from tests.doctor.catalogue.base import Fault, Stage, check_fault, told_of
from tests.doctor.catalogue.network import FAULTS

BEHIND = (Layer.TLS, Layer.CLIENT_CERTIFICATE, Layer.POSTGRES, Layer.KAFKA)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_the_fault_is_named(fault: Fault, stage: Stage) -> None:
    report = check_fault(fault, stage)
    if fault.verdict is Verdict.FAIL:
        (diagnosis,) = report.diagnoses
        behind = [finding for finding in diagnosis.findings if finding.layer in BEHIND]
        assert behind
        assert all(finding.verdict is Verdict.SKIPPED for finding in behind), told_of(diagnosis)


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)
