"""Which failure is the cause, and doubts that come true."""

from __future__ import annotations

import pytest

from mtlskit.doctor.diagnosis import Diagnosis, in_order, settled
from mtlskit.doctor.finding import Finding, Layer, Verdict, failed, passed, warned
from mtlskit.errors import Code, MtlskitError


def finding(layer: Layer, code: Code, verdict: Verdict = Verdict.FAIL) -> Finding:
    tell = failed if verdict is Verdict.FAIL else warned
    return tell(layer, f"{layer}.x", MtlskitError(code, "it is so", "do so"))


def diagnosis(*findings: Finding) -> Diagnosis:
    return Diagnosis("one", "postgres", "db:5432", in_order(settled(findings)), 0.1)


def test_a_wrong_clock_explains_dates() -> None:
    found = diagnosis(finding(Layer.IDENTITY, Code.CERTIFICATE_EXPIRED), finding(Layer.CLOCK, Code.CLOCK_WRONG))
    assert found.cause is not None
    assert found.cause.code is Code.CLOCK_WRONG


def test_nothing_fails() -> None:
    found = diagnosis(passed(Layer.TCP, "tcp.connect", "all is well"))
    assert found.cause is None
    assert found.healthy


@pytest.mark.parametrize(
    ("doubt", "said"),
    [
        (Code.CHAIN_INCOMPLETE, Code.TLS_CLIENT_CA_UNKNOWN),
        (Code.CHAIN_INCOMPLETE, Code.TLS_OTHER_CA_ASKED),
        (Code.CERTIFICATE_EXPIRED, Code.TLS_CLIENT_CERTIFICATE_EXPIRED),
        (Code.CERTIFICATE_REVOKED, Code.TLS_CLIENT_CERTIFICATE_REVOKED),
        (Code.SIGNATURE_WEAK, Code.TLS_CLIENT_CERTIFICATE_REFUSED),
    ],
)
def test_a_doubt_that_the_server_confirms_is_the_cause(doubt: Code, said: Code) -> None:
    warning = finding(Layer.IDENTITY, doubt, Verdict.WARN)
    found = diagnosis(warning, finding(Layer.CLIENT_CERTIFICATE, said))
    assert found.cause is not None
    assert found.cause.code is doubt
    assert diagnosis(warning).cause is None
    other = diagnosis(warning, finding(Layer.CLIENT_CERTIFICATE, Code.TLS_TIMEOUT))
    assert other.cause is not None
    assert other.cause.code is Code.TLS_TIMEOUT


def test_doubts_about_others_stay_doubts() -> None:
    found = diagnosis(
        finding(Layer.TLS, Code.CERTIFICATE_EXPIRED, Verdict.WARN),
        finding(Layer.CLIENT_CERTIFICATE, Code.TLS_CLIENT_CERTIFICATE_EXPIRED),
    )
    assert found.cause is not None
    assert found.cause.layer is Layer.CLIENT_CERTIFICATE
