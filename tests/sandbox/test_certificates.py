"""Issuer "heroku" against the sandbox's API, with a real database behind the gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli.main import app
from mtlskit.sandbox.credentials import ClientIdentity
from mtlskit.store.identities import Store, Version
from tests.support.space import RunningSpace

Run = Callable[..., Result]

CONFIG = """\
[identity.reporting]
issuer = "heroku"
addon = "{addon}"
revoke_old = true

[tunnel.reporting]
kind = "postgres"
listen = "127.0.0.1:0"
upstream = "localhost:{port}"
identity = "reporting"
"""


@pytest.fixture
def run(live: RunningSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    configure(live, live.space.addon)

    def invoke(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(app, arguments, env=live.space.environment())
        assert result.exit_code == status, result.output
        return result

    return invoke


def configure(live: RunningSpace, addon: str) -> None:
    Path("mtlskit.toml").write_text(CONFIG.format(addon=addon, port=live.space.gateway_address.port))


def current() -> Version:
    version = Store(Path("identities")).identity("reporting").current()
    assert version is not None
    return version


def outcome(result: Result) -> dict[str, Any]:
    [found] = json.loads(result.stdout)["identities"]
    return dict(found)


def identity() -> ClientIdentity:
    version = current()
    return ClientIdentity(version.cert, version.key, int(version.facts.serial, 16))


def test_issue_and_rotate_as_with_heroku(live: RunningSpace, run: Run, tmp_path: Path) -> None:
    waiting = outcome(run("certs", "issue", "reporting", "--json", status=3))
    assert "Heroku is making certificate" in waiting["told"]
    run("certs", "rotate", "reporting", "--wait")
    assert current().root is not None
    with live.connect(identity()) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    # No proxy runs, so nobody knows whether sessions use the old one: it is left to a later run.
    done = outcome(run("certs", "rotate", "reporting", "--wait", "--json"))
    assert any("not revoked yet" in note for note in done["notes"])
    old = Store(Path("identities")).identity("reporting").versions()[0]
    run("certs", "revoke", "reporting", "--yes", status=2)
    run("certs", "revoke", "reporting", "--id", "an-id-of-nobodys", "--yes", status=1)
    run("certs", "revoke", "reporting", "--id", str(old.facts.remote_id), "--yes")
    with pytest.raises(psycopg.OperationalError, match="certificate revoked"):
        live.connect(ClientIdentity(old.cert, old.key, int(old.facts.serial, 16)))
    live.connect(identity()).close()


def test_another_add_on_is_refused_by_name(live: RunningSpace, run: Run) -> None:
    configure(live, "postgresql-curved-12345")
    refused = run("certs", "issue", "reporting", status=1)
    assert live.space.addon in refused.stderr
