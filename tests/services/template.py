"""A data folder as initdb leaves it, with the roles and the database of the tests, made once for each build.

initdb takes a second or two and always does the same, so its result is kept in the cache; a server starts from a copy.
The roles are made in single-user mode, which needs no port and no authentication.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.services import cache
from tests.services.accounts import Account, credentials, give
from tests.services.builds import PostgresBuild
from tests.services.errors import ServerError
from tests.services.places import scratch_folder

SUPERUSER = "postgres"
DATABASE = "app"

# One role for each way to authenticate, and its password. No password is a secret, and each is told apart in a log.
# `scram` holds characters that have to be quoted in conninfo strings, URLs and properties files alike.
PASSWORDS: dict[str, str] = {
    "scram": "scram p@ss'w\\rd%:",
    "md5user": "md5-password",
    "plain": "plain-password",
    "trustuser": "",
    "certuser": "",
}
_MD5 = frozenset({"md5user"})

_INITDB = ("--encoding=UTF8", "--locale=C", "--auth=trust", f"--username={SUPERUSER}", "--no-sync", "--no-instructions")


def role_statements() -> list[str]:
    """The SQL that makes roles and database, one statement a line, for template1."""
    statements = ["GRANT ALL ON SCHEMA public TO PUBLIC"]
    for role, password in PASSWORDS.items():
        statements.append(f"SET password_encryption = '{'md5' if role in _MD5 else 'scram-sha-256'}'")
        quoted = password.replace("'", "''")
        statements.append(f"CREATE ROLE {role} LOGIN" + (f" PASSWORD '{quoted}'" if password else ""))
    return [*statements, f"CREATE DATABASE {DATABASE} OWNER scram"]


def data_template(build: PostgresBuild, account: Account | None) -> Path:
    """The data folder to copy, made on first use. Raises `ServerError` with initdb's output where it cannot be."""
    recipe = "\n".join([build.key, *_INITDB, *role_statements()])
    name = f"data-{build.major}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"

    def fill(work: Path) -> None:
        with scratch_folder("mtlskit-initdb-", account) as scratch:
            data = scratch / "data"
            _run(account, scratch, [str(build.bin / "initdb"), *_INITDB, f"--pgdata={data}"])
            single = [
                str(build.bin / "postgres"),
                "--single",
                "-F",
                "-c",
                "exit_on_error=on",
                "-D",
                str(data),
                "template1",
            ]
            _run(account, scratch, single, "".join(f"{statement}\n" for statement in role_statements()))
            shutil.copytree(data, work / "data")

    return cache.entry(name, fill) / "data"


def copy_data(template: Path, target: Path, account: Account | None) -> None:
    """Copy a template for a server's own use. PostgreSQL insists on 0700 for the top folder."""
    shutil.copytree(template, target, symlinks=True)
    give(target, account)
    target.chmod(0o700)


def _run(account: Account | None, scratch: Path, command: list[str], script: str = "") -> None:
    done = subprocess.run(
        command,
        cwd=scratch,
        input=script,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **credentials(account),
    )
    if done.returncode != 0:
        raise ServerError(f"{command[0]} failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
