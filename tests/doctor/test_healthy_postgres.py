"""Nothing is said of a Postgres that is well: no failure and no warning, whatever way of logging in it wants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from mtlskit.doctor.diagnosis import Diagnosis
from mtlskit.doctor.finding import Layer, Verdict
from mtlskit.doctor.gather import diagnose, from_flags
from mtlskit.sandbox.space import SpaceOptions
from tests.doctor.catalogue.base import told_of
from tests.doctor.catalogue.postgres import gathered, login, means
from tests.services.fleet import Fleet
from tests.services.postgres import PostgresServer
from tests.support.space import running_space

LOGINS = {
    "scram": login(),
    "trust": login("trustuser"),
    "cert": login("certuser"),
    "nobody": {},
}


def _diagnosis(server: PostgresServer, environ: Mapping[str, str], verify: str, negotiation: str) -> Diagnosis:
    found = gathered(server.port, server.pki, environ, verify=verify, negotiation=negotiation)
    (diagnosis,) = trio.run(diagnose, found).diagnoses
    return diagnosis


def _is_healthy(diagnosis: Diagnosis, *, entered: bool) -> None:
    told = told_of(diagnosis)
    assert {finding.verdict for finding in diagnosis.findings} <= {Verdict.PASS, Verdict.SKIPPED}, told
    assert diagnosis.complete, told
    inside = {finding.check for finding in diagnosis.findings if finding.verdict is Verdict.PASS}
    assert ("postgres.round-trip" in inside) == entered, told


@pytest.mark.parametrize("verify", ["full", "ca", "name:localhost"])
@pytest.mark.parametrize("way", LOGINS)
def test_every_login_and_every_way_to_verify(each_postgres: PostgresServer, way: str, verify: str) -> None:
    diagnosis = _diagnosis(each_postgres, LOGINS[way], verify, "sslrequest")
    _is_healthy(diagnosis, entered=way != "nobody")


@pytest.mark.parametrize("major", [17, 18])
@pytest.mark.parametrize("way", LOGINS)
def test_direct_tls(postgres_fleet: Fleet, way: str, major: int) -> None:
    diagnosis = _diagnosis(postgres_fleet.of(major), LOGINS[way], "full", "direct")
    _is_healthy(diagnosis, entered=way != "nobody")


def test_the_password_is_bound_to_the_certificate(each_postgres: PostgresServer) -> None:
    diagnosis = _diagnosis(each_postgres, login(), "full", "sslrequest")
    seen = {finding.check: finding for finding in diagnosis.findings if finding.layer is Layer.POSTGRES}
    assert seen["postgres.login"].facts["method"] == "SCRAM-SHA-256-PLUS"
    assert seen["postgres.certificate"].facts["ours"] is True
    assert seen["postgres.version"].facts["version"].startswith(str(each_postgres.major))


def test_behind_a_gateway_that_ends_tls(tmp_path: Path) -> None:
    """The server itself sees no TLS then, and no certificate: the gateway has looked at it."""
    with running_space(SpaceOptions(tmp_path / "space", keep_data=False)) as live:
        space = live.space
        where = f"127.0.0.1:{space.gateway_address.port}"
        url = f"postgres://{quote(space.user)}:{quote(space.password, safe='')}@{where}/{quote(space.database)}"
        files = {"cert": space.client.cert, "key": space.client.key, "ca": space.ca}
        flags = {"kind": "postgres", "upstream": [where], "verify": "full", **files}
        (diagnosis,) = trio.run(diagnose, from_flags(flags, means({"DATABASE_URL": url}))).diagnoses
    _is_healthy(diagnosis, entered=True)
    certificate = next(each for each in diagnosis.findings if each.check == "postgres.certificate")
    assert certificate.facts["ssl"] is False
