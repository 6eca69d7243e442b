"""How several processes share the tests: see `tests.support.shares`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shares import FIRST, KAFKA, share_of, turn_of

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("nodeid", "share"),
    [
        ("tests/e2e/test_psql.py::test_a[pg18]", "tests/e2e/test_psql.py"),
        ("tests/e2e/test_psql.py::Group::test_b", "tests/e2e/test_psql.py"),
        ("tests/docs/test_pages.py::test_c[docs/kafka.md::1]", "tests/docs/test_pages.py"),
        ("tests/services/test_kafka.py::test_d", KAFKA),
        ("tests/e2e/test_kafka_drivers.py::test_e[3.9]", KAFKA),
        ("tests/lifecycle/test_prove_kafka.py::test_h", KAFKA),
        ("tests/doctor/test_faults_kafka.py::test_i[kafka-broker-down]", KAFKA),
        ("tests/wire/kafka/test_frames.py::test_f", "tests/wire/kafka/test_frames.py"),
        ("tests/issuers/test_heroku_kafka.py::test_g", "tests/issuers/test_heroku_kafka.py"),
    ],
)
def test_a_file_is_one_share_and_kafka_is_another(nodeid: str, share: str) -> None:
    assert share_of(nodeid) == share


def test_every_share_has_its_turn() -> None:
    files = [str(file.relative_to(ROOT).as_posix()) for file in sorted((ROOT / "tests").rglob("test_*.py"))]
    turns = {file: turn_of(f"{file}::test") for file in files}
    assert set(turns.values()) == {*range(len(FIRST) + 1)}
    assert (
        turns["tests/e2e/test_kafka_clients.py"] < turns["tests/docs/test_pages.py"] < turns["tests/pki/test_keys.py"]
    )
