"""No report shows a secret: not those it has used, not those it has found and not used, whatever came of it."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from typer.testing import CliRunner

from mtlskit.cli.main import app
from tests.services.template import DATABASE, PASSWORDS

if TYPE_CHECKING:
    from tests.services.postgres import PostgresServer

PASSPHRASE = "correct-horse-battery"
TOKEN = "HRKU-AAplanted-0123456789"
OF_THE_URL = "Pl4ntedInAUrl"
OF_THE_FILE = "Pl4ntedInPgpass"


@pytest.fixture
def key(tmp_path: Path, postgres: PostgresServer) -> Path:
    """The client's key, encrypted."""
    loaded = load_pem_private_key(Path(postgres.pki.client.key).read_bytes(), None)
    path = tmp_path / "client.key"
    path.touch(mode=0o600)
    encryption = BestAvailableEncryption(PASSPHRASE.encode())
    path.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return path


@pytest.mark.parametrize("password", [PASSWORDS["scram"], "Wr0ng-and-planted"])
@pytest.mark.parametrize("passphrase", [PASSPHRASE, "Wr0ng-passphrase"])
def test_secrets_stay_where_they_are(
    tmp_path: Path,
    postgres: PostgresServer,
    key: Path,
    password: str,
    passphrase: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, text in (("passphrase", passphrase), (".pgpass", f"localhost:*:*:scram:{OF_THE_FILE}")):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(f"{text}\n")
    environment = {
        "PGHOST": "localhost",  # without it, the URL would go before
        "PGPORT": str(postgres.port),
        "PGUSER": "scram",
        "PGDATABASE": DATABASE,
        "PGPASSWORD": password,
        "DATABASE_URL": f"postgres://scram:{OF_THE_URL}@localhost:{postgres.port}/{DATABASE}",
        "HEROKU_API_KEY": TOKEN,
        "MTLSKIT_UPSTREAM": f"postgres://scram:{OF_THE_URL}@localhost:{postgres.port}/{DATABASE}",
    }
    pki = postgres.pki
    flags = ["--cert", str(pki.client.cert), "--key", str(key), "--ca", str(pki.server_ca)]
    flags += ["--passphrase-file", "passphrase", "--offline"]
    told = ""
    for how in (["--verbose", "--html", "report.html"], ["--json"], ["--quiet"]):
        done = CliRunner().invoke(app, ["doctor", *flags, *how], env=environment)
        assert done.exit_code == (0 if (password, passphrase) == (PASSWORDS["scram"], PASSPHRASE) else 3), done.output
        told += done.output
    told += (tmp_path / "report.html").read_text(encoding="utf-8")
    secrets = [password, passphrase, PASSPHRASE, OF_THE_URL, OF_THE_FILE, TOKEN]
    secrets += [line for line in key.read_text().splitlines() if not line.startswith("-")]
    secrets += [line for line in Path(pki.client.key).read_text().splitlines() if not line.startswith("-")]
    written = [form for secret in secrets for form in (secret, json.dumps(secret)[1:-1], html.escape(secret))]
    assert not [secret for secret in written if secret in told]
    assert "localhost" in told
