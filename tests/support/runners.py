"""Who can run `mtlskit` here: ourselves, and where we are root an ordinary user too.

An ordinary user may not reach our interpreter (root's home is closed), so one of the same version is looked for that it
can run, with our packages on its path. Where there is none, ourselves is all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.services.accounts import Account, credentials
from tests.support.command_process import TIMEOUT
from tests.support.local_users import NOBODY, available_uids

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Runner:
    """A user and how it starts mtlskit. `account` is None for ourselves."""

    name: str
    command: tuple[str, ...]
    account: Account | None = None
    environment: dict[str, str] = field(default_factory=dict)


@cache
def runners() -> tuple[Runner, ...]:
    """Ourselves first."""
    ourselves = Runner("ourselves", (str(Path(sys.executable).with_name("mtlskit")),))
    return (ourselves, *_another_user())


def _another_user() -> Iterator[Runner]:
    if os.geteuid() != 0 or NOBODY not in available_uids():
        return
    account = Account("nobody", NOBODY, NOBODY)
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    environment = {"PYTHONPATH": os.pathsep.join([*sorted(packages), str(_ROOT)]), "PYTHONDONTWRITEBYTECODE": "1"}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if _can_run(python, account, environment):
            yield Runner(account.name, (python, "-m", "mtlskit"), account, environment)
            return


def _can_run(python: str, account: Account, environment: dict[str, str]) -> bool:
    check = "import mtlskit.cli.main, cryptography, psycopg, trio"
    try:
        done = subprocess.run(
            [python, "-c", check],
            env=environment,
            cwd="/",
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            **credentials(account),
        )
    except OSError:
        return False
    return done.returncode == 0
