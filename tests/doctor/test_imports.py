"""What a look loads: whoever is woken at night waits for it each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.services.postgres import PostgresServer
from tests.support.tls_servers import closed_port

_LOOK = """
import sys
from mtlskit.cli.main import main
sys.argv = ["mtlskit", "doctor", "reporting"]
try:
    main()
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""

_FILE = """
[tunnel.reporting]
kind = "postgres"
listen = "127.0.0.1:1"
upstream = "localhost:{port}"
ca = "{ca}"
cert = "{cert}"
key = "{key}"
"""


def _look(folder: Path, postgres: PostgresServer, **environment: str) -> tuple[str, set[str]]:
    """What is printed, and which modules are loaded in the end."""
    pki = postgres.pki
    text = _FILE.format(port=postgres.port, ca=pki.server_ca, cert=pki.client.cert, key=pki.client.key)
    (folder / "mtlskit.toml").write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEROKU", "MTLSKIT"))}
    done = subprocess.run(
        [sys.executable, "-c", _LOOK],
        cwd=folder,
        env={**kept, "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, set(done.stderr.split())


def test_without_heroku_no_http_library_is_loaded(tmp_path: Path, postgres: PostgresServer) -> None:
    said, loaded = _look(tmp_path, postgres)
    assert "PGPASSWORD" in said  # it went all the way to the login, for which it has no password
    assert {"trio", "cryptography"} <= loaded
    assert not {"httpx", "mtlskit.heroku.client"} & loaded


def test_where_heroku_is_asked_for_the_time_it_is(tmp_path: Path, postgres: PostgresServer) -> None:
    with closed_port() as port:
        said, loaded = _look(tmp_path, postgres, HEROKU_DATA_HOST=f"http://127.0.0.1:{port}")
    assert "not looked at: Heroku's API has not answered" in said
    assert "httpx" in loaded
