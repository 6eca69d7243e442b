"""The faults of Kafka clusters: the doctor names each of them first, and blames nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import diagnose
from tests.doctor.catalogue import kafka_space as catalogue_of_space
from tests.doctor.catalogue.base import Fault, Stage, check_fault, told_of
from tests.doctor.catalogue.kafka import FAULTS
from tests.support.space import RunningSpace

BOTH = FAULTS + catalogue_of_space.FAULTS


@pytest.fixture(scope="module")
def kafka_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """A space with a Kafka add-on that has a prefix."""
    with catalogue_of_space.space(tmp_path_factory.mktemp("space") / "space") as live:
        yield live


@pytest.mark.parametrize("fault", BOTH, ids=lambda fault: fault.id)
def test_fault(fault: Fault, stage: Stage) -> None:
    check_fault(fault, stage)


def test_a_forgotten_prefix_is_what_the_hint_speaks_of(stage: Stage) -> None:
    [fault] = [each for each in BOTH if each.id == "kafka-space-prefix"]
    [diagnosis] = check_fault(fault, stage).diagnoses
    assert diagnosis.cause is not None
    assert diagnosis.cause.hint.startswith(f"names of topics begin with {catalogue_of_space.PREFIX}")


def test_a_space_in_good_order(kafka_space: RunningSpace, stage: Stage) -> None:
    found = catalogue_of_space.gathered(kafka_space, stage.folder, catalogue_of_space.TOPIC)
    [diagnosis] = trio.run(diagnose, found).diagnoses
    assert not {each.verdict for each in diagnosis.findings} & {Verdict.FAIL, Verdict.WARN}, told_of(diagnosis)
    [written] = [each for each in diagnosis.findings if each.check == "kafka.write-test"]
    assert written.verdict is Verdict.PASS
