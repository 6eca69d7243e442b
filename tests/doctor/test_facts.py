"""A report for scripts: its keys are those of report.schema.json, and what it holds is plain and without secrets."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import trio

from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Finding, Layer, Verdict
from mtlskit.doctor.gather import diagnose, from_flags
from mtlskit.doctor.report.changes import Change, Memory
from mtlskit.doctor.report.facts import SCHEMA, change_facts, report_facts
from tests.services.template import DATABASE, PASSWORDS
from tests.support.reports import AT, PLANTED, diagnosis, healthy, hostile, no_tcp, refused, report, tcp

if TYPE_CHECKING:
    from tests.services.postgres import PostgresServer

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "doctor.md").read_text(encoding="utf-8")


@cache
def schema() -> Any:
    """As it is installed."""
    return json.loads((resources.files("mtlskit.doctor") / "report.schema.json").read_text(encoding="utf-8"))


def checked(value: Any) -> Any:
    """`value` after its way through JSON, if the schema has nothing against it."""
    read = json.loads(json.dumps(value, allow_nan=False))
    jsonschema.validate(read, schema())
    return read


def facts_on_the_page() -> dict[str, set[str]]:
    """The facts by the check, as the page tells of them."""
    section = PAGE.partition("\n### The facts of a check\n")[2].partition("\n## ")[0]
    return {
        check: set(re.findall(r"`(\w+)`", facts))
        for checks, facts in re.findall(r"^\| (`[a-z].*?) \| (.*) \|$", section, re.MULTILINE)
        for check in re.findall(r"`([a-z.-]+)`", checks)
    }


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_a_report_fits_the_schema() -> None:
    read = checked(report_facts(report(healthy(), refused(), hostile())))
    assert [(each["name"][:9], each["healthy"]) for each in read["tunnels"]] == [
        ("events", True),
        ("reporting", False),
        ("warehouse", False),
    ]
    assert read["healthy"] is False
    assert read["at"] == "2026-03-01T15:02:11Z"
    assert read["tunnels"][0]["cause"] is None
    cause = read["tunnels"][1]["cause"]
    assert (cause["check"], cause["code"], cause["verdict"]) == ("tcp.connect", "MTLS-NET-002", "fail")
    assert cause["commands"][0] == "getent ahosts db.example.com"
    assert read["tunnels"][1]["counts"] == {"pass": 5, "warn": 1, "fail": 1, "skipped": 6}


def test_a_report_of_a_real_server_fits_the_schema(postgres: PostgresServer) -> None:
    papers = postgres.pki.client
    flags = {"upstream": [f"localhost:{postgres.port}"], "cert": papers.cert, "key": papers.key}
    login = {"PGUSER": "scram", "PGDATABASE": DATABASE, "PGPASSWORD": PASSWORDS["scram"]}
    gathered = from_flags(flags | {"ca": postgres.pki.server_ca}, Means(environ=login))
    read = checked(report_facts(trio.run(diagnose, gathered)))
    assert read["tunnels"][0]["complete"] is True
    assert read["tunnels"][0]["counts"]["pass"] > 10
    told = facts_on_the_page()
    passing = [each for each in read["tunnels"][0]["findings"] if each["verdict"] == "pass" and each["facts"]]
    unknown = [(each["check"], set(each["facts"]) - told.get(each["check"], set())) for each in passing]
    assert not [each for each in unknown if each[1]]


def test_a_report_of_nothing_fits_the_schema() -> None:
    assert checked(report_facts(report()))["tunnels"] == []


@pytest.mark.parametrize("after", [no_tcp(), tcp(), None])
def test_a_change_fits_the_schema(after: Finding | None) -> None:
    before = None if after is not None and after.verdict is Verdict.FAIL else Verdict.FAIL
    read = checked(change_facts(Change(AT, "reporting", "tcp.connect", "db:5432", before, after)))
    assert read["after"] == (None if after is None else after.verdict.value)


def test_changes_between_two_reports_fit_the_schema() -> None:
    changes = Memory(report(diagnosis("a", tcp()))).changes(report(diagnosis("a", no_tcp())))
    assert [checked(change_facts(each))["before"] for each in changes] == ["pass"]


def test_what_is_missing_or_wrong_is_noticed() -> None:
    facts = report_facts(report(refused()))
    del facts["tunnels"][0]["cause"]["hint"]
    with pytest.raises(jsonschema.ValidationError):
        checked(facts)


def test_secrets_are_taken_out_of_every_text() -> None:
    written = json.dumps(report_facts(report(hostile())))
    assert not [secret for secret in PLANTED if secret in written]
    assert "db.example.com" in written


def test_values_that_json_has_not() -> None:
    facts = checked(report_facts(report(hostile())))["tunnels"][0]["cause"]["facts"]
    assert facts["deep"]["list"] == ["[redacted]", None, "2026-03-01T15:02:11+00:00", [1]]


def test_the_schema_knows_every_layer_and_verdict() -> None:
    known = schema()["$defs"]
    assert known["finding"]["properties"]["layer"]["enum"] == [layer.value for layer in Layer]
    assert known["verdict"]["enum"] == [verdict.value for verdict in Verdict]
    assert known["report"]["properties"]["schema"]["const"] == SCHEMA


@pytest.mark.parametrize("part", ["report", "tunnel", "finding", "change"])
def test_the_page_tells_of_every_key(part: str) -> None:
    section = PAGE.partition(f"\n### A {part}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    told = {name for row in re.findall(r"^\| (.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert told == set(schema()["$defs"][part]["properties"])


def test_the_page_tells_of_every_layer() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \|", PAGE.partition("\n## The layers\n")[2], re.MULTILINE)[: len(Layer)] == [
        layer.value for layer in Layer
    ]
