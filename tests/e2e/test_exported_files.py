"""psql and pgjdbc connect to a real server directly, with exactly the files that `mtlskit certs export` wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.services.clients import jdbc, psql, psql_command
from tests.services.pki import Pair, Pki
from tests.services.postgres import PostgresServer

WHOAMI = "select current_user, version, client_dn from pg_stat_ssl where pid = pg_backend_pid()"
PLAIN = ("host", "port", "dbname", "user", "password")
SECRET = "a pass+phrase/of %40 mine"


def exported(pair: Pair, pki: Pki, form: str, out: Path, *more: str) -> dict[str, object]:
    """What the command wrote, and says."""
    command = [sys.executable, "-m", "mtlskit", "certs", "export", "--format", form, "--out", str(out), "--json", *more]
    files = ["--cert", str(pair.cert), "--key", str(pair.key), "--ca", str(pki.server_ca)]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told: dict[str, object] = json.loads(done.stdout)
    return told


def parameters(server: PostgresServer, folder: Path, cert: str, key: str) -> dict[str, str]:
    files = {"sslcert": cert, "sslkey": key, "sslrootcert": "root.crt"}
    changed = {name: str(folder / file) for name, file in files.items()}
    return {**server.parameters("scram"), "sslmode": "verify-full", **changed}


@pytest.fixture(params=["client", "client_chained"])
def pair(request: pytest.FixtureRequest, pki: Pki) -> Pair:
    """A certificate of the clients' CA, and one of an intermediate below it."""
    found: Pair = getattr(pki, request.param)
    return found


@pytest.mark.parametrize("form", ["psql", "pem"])
def test_psql(postgres: PostgresServer, pki: Pki, pair: Pair, form: str, tmp_path: Path) -> None:
    exported(pair, pki, form, tmp_path / "out")
    stem = {"psql": "postgresql", "pem": "client"}[form]
    done = psql(parameters(postgres, tmp_path / "out", f"{stem}.crt", f"{stem}.key"), WHOAMI)
    assert (done.stdout, done.stderr) == ("scram\tTLSv1.3\t/CN=client\n", "")


def test_psql_finds_the_files_in_the_home_folder(postgres: PostgresServer, pki: Pki, tmp_path: Path) -> None:
    exported(pki.client, pki, "psql", tmp_path / ".postgresql")
    plain = {name: value for name, value in postgres.parameters("scram").items() if name in PLAIN}
    command = psql_command({**plain, "sslmode": "verify-full"}, WHOAMI)
    done = replace(command, environment={**command.environment, "HOME": str(tmp_path)}).run()
    assert (done.stdout, done.stderr) == ("scram\tTLSv1.3\t/CN=client\n", "")


def test_pgjdbc(postgres: PostgresServer, pki: Pki, pair: Pair, tmp_path: Path) -> None:
    """With the files and the URL that the command tells."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "secret").chmod(0o600)
    told = exported(pair, pki, "jdbc", tmp_path / "out dir", "--out-passphrase-file", str(tmp_path / "secret"))
    use = urlsplit(str(told["use"]).removeprefix("jdbc:"))
    assert use.path == "/DATABASE"
    settings = {**dict(parse_qsl(use.query)), "sslpassword": SECRET}
    assert set(settings) == {"sslmode", "sslkey", "sslpassword", "sslrootcert"}
    plain = {name: value for name, value in postgres.parameters("scram").items() if name in PLAIN}
    # The tests' own client gives the driver a key together with a certificate only: an archive holds both.
    certificate = {"sslcert": settings["sslkey"]}
    done = jdbc({**plain, **settings, **certificate}, WHOAMI)
    assert (done.stdout, done.stderr) == ("scram\tTLSv1.3\t/CN=client\n", "")
    wrong = jdbc({**plain, **settings, **certificate, "sslpassword": "wrong"}, WHOAMI)
    assert wrong.returncode == 1


def test_pgjdbc_with_the_der_key(postgres: PostgresServer, pki: Pki, tmp_path: Path) -> None:
    exported(pki.client, pki, "der", tmp_path / "out")
    done = jdbc(parameters(postgres, tmp_path / "out", "client.der", "client.pk8"), WHOAMI)
    assert (done.stdout, done.stderr) == ("scram\tTLSv1.3\t/CN=client\n", "")
