"""A tunnel with several endpoints: whose failure stops clients, and whose does not."""

from __future__ import annotations

import pytest

from mtlskit.doctor.diagnosis import spared
from mtlskit.doctor.finding import Finding, Layer, Verdict, failed
from mtlskit.errors import Code, UpstreamUnreachable

FIRST, SECOND = "db.example:5432", "db.example:54321"


def failure(about: str, layer: Layer = Layer.TCP) -> Finding:
    error = UpstreamUnreachable(Code.TCP_REFUSED, f"{about} refused the connection", "look whether it runs")
    return failed(layer, f"{layer}.connect", error, about=about)


def verdicts(findings: list[Finding]) -> list[Verdict]:
    return [finding.verdict for finding in findings]


def test_nobody_is_spared_where_no_endpoint_takes_us() -> None:
    assert verdicts(spared([failure(FIRST), failure(SECOND)], [FIRST, SECOND], [])) == [Verdict.FAIL] * 2


@pytest.mark.parametrize("about", [FIRST, f"{FIRST} (10.0.0.1)"])
def test_the_others_cost_time_and_no_more(about: str) -> None:
    (found,) = spared([failure(about)], [FIRST, SECOND], [SECOND])
    assert found.verdict is Verdict.WARN
    assert found.code is Code.TCP_REFUSED
    assert found.hint


def test_the_endpoint_itself_is_not_spared() -> None:
    # One of its addresses takes us, another does not: whoever is led to that one is not led further.
    assert verdicts(spared([failure(f"{SECOND} (10.0.0.2)")], [FIRST, SECOND], [SECOND])) == [Verdict.FAIL]


@pytest.mark.parametrize("layer", [Layer.IDENTITY, Layer.POSTGRES, Layer.LOCAL, Layer.HEROKU])
def test_only_the_way_is_spared(layer: Layer) -> None:
    assert verdicts(spared([failure(FIRST, layer)], [FIRST, SECOND], [SECOND])) == [Verdict.FAIL]
