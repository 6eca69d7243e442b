"""The login of the Heroku CLI: in the system's store of passwords, or asked of the CLI itself.

The CLI keeps its token under the service `heroku-cli` and the account of the login, which stands in `login.json` of its
data folder (npm `@heroku-cli/command`: credential-manager-core; the folder: npm `@oclif/core`, `config.dataDir`). Older
versions of the CLI wrote no `login.json`; `heroku auth:token` serves those. Only names are handed to programs, never a
secret, and each has a deadline: a store that is locked asks on the screen, where perhaps nobody sits.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["Found", "ProgramFailed", "RunProgram", "ask_cli", "ask_store", "data_folder", "run_program"]

SERVICE = "heroku-cli"

STORE_SECONDS = 10.0
"""A store answers at once, or waits for somebody to unlock it."""

CLI_SECONDS = 20.0
"""The CLI takes seconds to start, and asks the API when the token ends."""

_LARGEST_LOGIN = 64 * 1024
"""Bytes of login.json, which holds one name."""


@dataclass(frozen=True)
class Found:
    """What one place had: a secret, or why it had none."""

    place: str
    secret: str | None = field(default=None, repr=False)
    why: str = ""


class ProgramFailed(Exception):
    """A program gave no answer; the text says why in some words, without anything that it printed."""


RunProgram: TypeAlias = Callable[[Sequence[str], Mapping[str, str], float], str]
"""(argv, environment, seconds) → what it printed. Raises `ProgramFailed`."""


def ask_store(environ: Mapping[str, str], *, home: Path, platform: str, run: RunProgram) -> Found:
    """The token in the system's store of passwords, where that is one that we know."""
    if environ.get("HEROKU_NETRC_WRITE", "").lower() == "true":
        return Found("the system's store of passwords", why="HEROKU_NETRC_WRITE leaves it out")
    program = {"linux": "secret-tool", "darwin": "security"}.get(platform)
    if program is None:
        return Found("the system's store of passwords", why="only the Heroku CLI can read it here")
    login = data_folder(environ, home=home, platform=platform) / "login.json"
    account = _account(login)
    if account is None:
        return Found(program, why=f"not asked, because {login} names no account")
    argv = (
        [program, "lookup", "service", SERVICE, "account", account]
        if platform == "linux"
        else [program, "find-generic-password", "-a", account, "-s", SERVICE, "-w"]
    )
    return _asked(program, argv, environ, STORE_SECONDS, run)


def ask_cli(environ: Mapping[str, str], *, run: RunProgram) -> Found:
    """The token that `heroku auth:token` prints."""
    return _asked("heroku auth:token", ["heroku", "auth:token"], environ, CLI_SECONDS, run)


def _asked(place: str, argv: Sequence[str], environ: Mapping[str, str], seconds: float, run: RunProgram) -> Found:
    try:
        printed = run(argv, environ, seconds)
    except ProgramFailed as exc:
        return Found(place, why=str(exc))
    secret = printed.strip()
    return Found(place, secret) if secret else Found(place, why="printed nothing")


def data_folder(environ: Mapping[str, str], *, home: Path, platform: str) -> Path:
    """Where the Heroku CLI keeps its data: as oclif's `config.dataDir`, which is the same on Linux and macOS."""
    named = environ.get("HEROKU_DATA_DIR")
    if named:
        return Path(named)
    base = environ.get("XDG_DATA_HOME") or (environ.get("LOCALAPPDATA") if platform == "win32" else None)
    return (Path(base) if base else home / ".local" / "share") / "heroku"


def _account(login: Path) -> str | None:
    """The account of login.json. Anything else than a name that may stand in an argument list is none."""
    try:
        if not login.is_file():  # nothing else ends, or need ever begin
            return None
        with login.open("rb") as file:
            content = json.loads(file.read(_LARGEST_LOGIN))
    except (OSError, ValueError, RecursionError):
        return None
    account = content.get("account") if isinstance(content, dict) else None
    if not isinstance(account, str) or not account.isprintable() or account.startswith("-"):
        return None  # a leading dash would be an option
    return account or None


def run_program(argv: Sequence[str], environ: Mapping[str, str], seconds: float) -> str:
    """Run `argv` without a shell and without a terminal to ask on. Raises `ProgramFailed`, which shows no output."""
    program = shutil.which(argv[0], path=_whole_folders(environ.get("PATH", os.defpath)))
    # Windows looks in the current folder first, whatever PATH says: what is found there is not what the user has.
    if program is None or not Path(program).is_absolute():
        raise ProgramFailed("not installed")
    try:
        process = subprocess.Popen(  # noqa: S603 - found in the user's PATH, with names that we have made
            [program, *argv[1:]],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=os.name == "posix",  # its children end with it
        )
    except OSError as exc:
        raise ProgramFailed(f"cannot be run: {exc.strerror}") from exc
    done = False
    with process:
        try:
            printed, _ = process.communicate(timeout=seconds)
            done = True
        except subprocess.TimeoutExpired as exc:
            raise ProgramFailed(f"not done within {seconds:g} s") from exc
        finally:
            if not done:  # Ctrl-C, too
                _kill(process)
    if process.returncode:
        raise ProgramFailed(f"ended with status {process.returncode}")
    return printed.decode("utf-8", "replace")


def _whole_folders(path: str) -> str:
    """PATH without what depends on the current folder: whoever filled that must not be asked for the token."""
    return os.pathsep.join(folder for folder in path.split(os.pathsep) if Path(folder).is_absolute())


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
