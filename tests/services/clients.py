"""Real clients: libpq's programs (psql, pgbench, pg_dump, pg_restore), pgjdbc and node-postgres; and stunnel.

All take libpq's parameters as a mapping (`PostgresServer.parameters`), and no password is ever in argv. `psql`, `jdbc`
and `node` run one statement and print rows alike: a line each, columns separated by tabs. Each also comes as a command
and an environment, for tests that run it in their own way.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.services import cache as store
from tests.services import fetch
from tests.services.builds import DEBIAN
from tests.services.errors import UnavailableError
from tests.services.pins import JDBC

_HERE = Path(__file__).parent
# Seconds, for one statement of a client that has to start a JVM on a busy machine first.
CLIENT_TIMEOUT = 60

# PostgreSQL docs, "Environment Variables" of libpq.
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}


@dataclass(frozen=True)
class Command:
    """A client to run: what `subprocess.run` and `trio.run_process` take. `stdin` holds the question, if any."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    stdin: str = ""

    def run(self, *, timeout: float = CLIENT_TIMEOUT) -> subprocess.CompletedProcess[str]:
        """Run it to its end, whatever its status; stdout and stderr come as text."""
        return subprocess.run(
            self.argv,
            env=self.environment,
            input=self.stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def libpq_environment(parameters: Mapping[str, str]) -> dict[str, str]:
    """Our environment without its own ``PG…`` variables, and with these parameters as such variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {"LC_ALL": "C", "PGPASSFILE": "/nonexistent"}  # of /dev/null libpq would complain
    for name, value in parameters.items():
        environment[_VARIABLES[name]] = value
    return environment


def conninfo(parameters: Mapping[str, str]) -> str:
    """The parameters as one connection string, quoted: ``psycopg.connect(conninfo(server.parameters()))``."""
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in parameters.items()}
    return " ".join(f"{name}='{value}'" for name, value in quoted.items())


@cache
def libpq_program(name: str) -> Path:
    """psql, pgbench, pg_dump or pg_restore: from PATH, or the newest of the distribution's folders.

    Raises `UnavailableError` where there is none, or one whose libpq has no TLS.
    """
    folders = sorted(DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    found = shutil.which(name) or next((str(f / name) for f in folders if (f / name).exists()), None)
    package = "postgresql-contrib postgresql" if name == "pgbench" else "postgresql-client"
    hint = f"apt-get install {package}"
    if found is None:
        raise UnavailableError(f"{name} is not installed", hint)
    if name == "psql":
        # libpq looks at sslmode before it connects anywhere; an unset host list entry would be an error of its own.
        probe = Command((found, "-X", "-w"), libpq_environment({"host": "/nonexistent", "sslmode": "require"})).run()
        if "not compiled in" in probe.stderr:
            raise UnavailableError(f"{found} is linked with a libpq that has no TLS", hint)
    return Path(found)


@cache
def program_major(name: str) -> int:
    """The major version of a libpq program. pg_dump refuses servers that are newer than itself."""
    said = subprocess.run([libpq_program(name), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    if found is None:
        raise UnavailableError(f"{name} --version says {said!r}", "apt-get install postgresql-client")
    return int(found[1])


def libpq_command(name: str, parameters: Mapping[str, str], *arguments: str, stdin: str = "") -> Command:
    """Any libpq program with these parameters. It never asks for a password."""
    return Command((str(libpq_program(name)), *arguments), libpq_environment(parameters), stdin)


def psql_command(parameters: Mapping[str, str], sql: str, *arguments: str) -> Command:
    """psql, bare (no psqlrc, no headings), for one statement; it stops at the first error."""
    bare = ("-X", "-w", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1")
    return libpq_command("psql", parameters, *bare, *arguments, "-c", sql)


def jdbc_command(parameters: Mapping[str, str], sql: str) -> Command:
    """pgjdbc; parameters that libpq does not know are given to the driver as they are.

    The key is read from the ``.pk8`` beside ``sslkey``, if there is one: pgjdbc reads DER. As with libpq, a certificate
    that is not there is none, and the user's own (in ~/.postgresql) is never looked at.
    """
    driver = store.entry(JDBC.entry, lambda work: _keep(fetch.maven_copy(JDBC, work), work / "pgjdbc.jar"))
    java = _program("java", "apt-get install default-jdk-headless")
    properties = {name: value for name, value in parameters.items() if name not in ("host", "port", "dbname")}
    properties["url"] = "jdbc:postgresql://{host}:{port}/{dbname}".format_map(_bracketed(parameters))
    properties["sql"] = sql
    if not Path(properties.get("sslcert", "/nonexistent")).exists():
        properties.pop("sslcert", None)
        properties.pop("sslkey", None)
    if "sslkey" in properties:
        key = Path(properties["sslkey"])
        properties["sslkey"] = str(key.with_suffix(".pk8") if key.with_suffix(".pk8").exists() else key)
    argv = (java, "-XX:TieredStopAtLevel=1", "-Duser.home=/nonexistent", "-cp", str(driver / "pgjdbc.jar"))
    return Command((*argv, str(_HERE / "java" / "Query.java")), libpq_environment({}), _java_properties(properties))


def node_command(parameters: Mapping[str, str], sql: str) -> Command:
    """node-postgres, which knows the `sslmode`s disable, require, verify-ca and verify-full here."""
    lock = (_HERE / "node" / "package-lock.json").read_bytes()
    modules = store.entry(f"node-{_short_digest(lock)}", lambda work: fetch.npm_install(_HERE / "node", work))
    node = _program("node", "apt-get install nodejs")
    environment = {**libpq_environment({}), "NODE_PATH": str(modules / "node_modules")}
    question = json.dumps({"parameters": dict(parameters), "sql": sql})
    return Command((node, str(_HERE / "node" / "query.js")), environment, question)


def psql(parameters: Mapping[str, str], sql: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one statement with psql."""
    return psql_command(parameters, sql, *arguments).run()


def jdbc(parameters: Mapping[str, str], sql: str) -> subprocess.CompletedProcess[str]:
    """Run one statement with pgjdbc."""
    return jdbc_command(parameters, sql).run()


def node(parameters: Mapping[str, str], sql: str) -> subprocess.CompletedProcess[str]:
    """Run one statement with node-postgres."""
    return node_command(parameters, sql).run()


def find_stunnel() -> Path | None:
    """stunnel, where it is installed. It is shown failing beside us, never needed: hence None and no error."""
    found = shutil.which("stunnel") or shutil.which("stunnel4")
    return Path(found) if found else None


def _program(name: str, hint: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UnavailableError(f"{name} is not installed", hint)
    return found


def _keep(fetched: Path, name: Path) -> None:
    fetched.rename(name)


def _short_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _bracketed(parameters: Mapping[str, str]) -> dict[str, str]:
    host = parameters["host"]
    return {**parameters, "host": f"[{host}]" if ":" in host else host}


def _java_properties(properties: Mapping[str, str]) -> str:
    """The format of java.util.Properties: a backslash escapes, and nothing else in a value does (read as a Reader)."""
    lines = [f"{name}={_escaped(value)}" for name, value in properties.items()]
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n")
    return f"\\{value}" if value[:1] in (" ", "\t") else value
