"""Several tunnels that fail for one cause: people read it once, scripts have it at each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtlskit.cli.main import app
from mtlskit.doctor.diagnosis import Diagnosis
from mtlskit.doctor.finding import Layer, failed
from mtlskit.doctor.report.folding import grouped
from mtlskit.errors import Code, DoctorError, IdentityError
from tests.services.postgres import PostgresServer
from tests.support.reports import diagnosis, healthy, no_tcp
from tests.support.tls_servers import closed_port

_TUNNEL = """
[tunnel.{name}]
kind = "postgres"
listen = "127.0.0.1:{listen}"
upstream = "localhost:{port}"
ca = "{ca}"
cert = "{cert}"
key = "{key}"
"""


def _expired(name: str, file: str, *commands: str) -> Diagnosis:
    error = IdentityError(Code.CERTIFICATE_EXPIRED, f"{file}: CN=reporting expired yesterday", "get a new one")
    return diagnosis(name, failed(Layer.IDENTITY, "identity.dates", error, about=file, commands=commands))


def _no_proxy(name: str) -> Diagnosis:
    error = DoctorError(Code.LOCAL_NOT_RUNNING, f"no proxy runs with tunnel {name}", "start it")
    commands = (f"mtlskit proxy --config f {name}",)
    return diagnosis(name, failed(Layer.LOCAL, "local.proxy", error, commands=commands))


def _names(*diagnoses: Diagnosis) -> list[list[str]]:
    return [[each.name for each in group.diagnoses] for group in grouped(diagnoses)]


def test_the_same_words_and_code_are_one_cause() -> None:
    found = (_expired("a", "x.crt"), healthy("b"), _expired("c", "x.crt"), _expired("d", "y.crt"), healthy("e"))
    assert _names(*found) == [["a", "c"], ["b"], ["d"], ["e"]]
    assert [group.shared is not None for group in grouped(found)] == [True, False, False, False]


def test_another_code_is_another_cause() -> None:
    assert _names(diagnosis("a", no_tcp()), diagnosis("b", no_tcp(Code.TCP_TIMEOUT))) == [["a"], ["b"]]


def test_what_is_said_of_one_tunnel_alone_is_not_said_of_two() -> None:
    assert _names(_no_proxy("a"), _no_proxy("b")) == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (("date -u",), ("date -u",), ("date -u",)),
        (("mtlskit proxy a",), ("mtlskit proxy b",), ("mtlskit proxy a b",)),
        (("mtlskit certs rotate a",), ("mtlskit certs rotate a",), ("mtlskit certs rotate a",)),
        (("ls -l a",), ("ls -l b",), ("ls -l a", "ls -l b")),
    ],
)
def test_commands_for_all_of_them(first: tuple[str, ...], second: tuple[str, ...], joined: tuple[str, ...]) -> None:
    (group,) = grouped([_expired("a", "x.crt", *first), _expired("b", "x.crt", *second)])
    assert group.shared is not None
    assert group.shared.commands == joined


def test_no_proxy_runs_for_two_of_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer
) -> None:
    pki, pair = postgres.pki, postgres.pki.client
    with closed_port() as dead, closed_port() as one, closed_port() as two:
        upstreams = (("reporting", one, postgres.port), ("elsewhere", 1, dead), ("events", two, postgres.port))
        tables = [
            _TUNNEL.format(name=name, listen=listen, port=port, ca=pki.server_ca, cert=pair.cert, key=pair.key)
            for name, listen, port in upstreams
        ]
        (tmp_path / "mtlskit.toml").write_text("".join(tables))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        command = ["doctor", "--offline", "--control", str(tmp_path / "control")]
        said = CliRunner().invoke(app, command).stdout
        report = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert said.startswith(
        "reporting, events: one cause for 2 tunnels\n"
        "\n"
        "  Cause  no proxy runs with these tunnels [MTLS-LCL-001]\n"
        "  To do  start it, and wait until it says `ready`\n"
        "           mtlskit proxy --config mtlskit.toml reporting events\n"
        "\n"
        "reporting: postgres to "
    )
    assert said.count("  Cause  ") == 2  # and that of the third
    assert said.index("\nevents: postgres to ") < said.index("\nelsewhere: postgres to ")
    beneath = " ".join(said.split())
    for name, port in (("reporting", one), ("events", two)):
        told = f"no proxy runs with tunnel {name}: nothing listens on 127.0.0.1:{port}"
        assert f"the cause, above: {told}" in beneath
        (cause,) = [each["cause"] for each in report["tunnels"] if each["name"] == name]
        assert (cause["seen"], cause["code"]) == (told, "MTLS-LCL-001")
        assert "shared" not in cause
