"""Where the passphrase of a key comes from: a file, a variable, a command or a prompt, and never the command line.

An argument is there for every user of the host to read, so no option takes the passphrase itself.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from mtlskit.errors import Code, ConfigError

__all__ = ["CommandOption", "FileOption", "PromptOption", "VariableOption", "read_passphrase"]

_PATIENCE = 120.0
"""Seconds that a command may take: somebody may have to type, or to touch a token."""

_LONGEST = 64 * 1024
"""Bytes of what a command prints. Password managers print notes below the password."""

FileOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="The passphrase of the key is the first line of FILE."),
]
VariableOption = Annotated[
    str | None,
    typer.Option("--passphrase-env", metavar="NAME", help="… is the value of this environment variable."),
]
CommandOption = Annotated[
    str | None,
    typer.Option("--passphrase-command", metavar="COMMAND", help="… is the first line that COMMAND prints."),
]
PromptOption = Annotated[bool, typer.Option("--passphrase-prompt", help="… is asked for.")]


def read_passphrase(
    file: Path | None,
    variable: str | None,
    command: str | None,
    prompt: bool,
    *,
    new: bool = False,
    option: str = "--passphrase",
) -> bytes | None:
    """The passphrase from the one source that was named; None where none was. `new`: it is asked for twice.

    `option` is how the four options begin, for errors.

    Raises `ConfigError` (USAGE), and `IdentityError` for the file.
    """
    given = {f"{option}-file": file, f"{option}-env": variable, f"{option}-command": command}
    flags = [flag for flag, value in given.items() if value is not None] + [f"{option}-prompt"] * prompt
    if len(flags) > 1:
        raise ConfigError(Code.USAGE, f"{' and '.join(flags)} exclude each other", "name one source")
    if file is not None:
        from mtlskit.net.files import read_private

        return _checked(read_private(file, "passphrase file"), f"{file}: the first line")
    if variable is not None:
        return _checked(_from_variable(variable), f"the variable {variable}")
    if command is not None:
        return _checked(_from_command(command, f"{option}-command"), f"the first line of what {option}-command prints")
    return _asked(f"{option}-prompt", new=new) if prompt else None


def _checked(text: bytes, what: str) -> bytes:
    line = text.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line:
        raise ConfigError(Code.USAGE, f"{what} is empty, not a passphrase", "write one there, on one line")
    return line


def _from_variable(name: str) -> bytes:
    value = os.environ.get(name)
    if value is None:
        raise ConfigError(Code.USAGE, f"the variable {name} is not set", f"export {name}, or name another one")
    return os.fsencode(value)


def _from_command(command: str, option: str) -> bytes:
    try:
        words = shlex.split(command)
    except ValueError as exc:
        raise ConfigError(Code.USAGE, f"{option}: a quote is not closed", "quote as in a shell") from exc
    if not words:
        raise ConfigError(Code.USAGE, f"{option} is empty", "name a program, such as: pass show client-key")
    program = words[0]
    try:
        # Not through a shell. What the program says on its error stream, and asks at the terminal, is between the two.
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:  # noqa: S603 - the user's own
            return _first_line(process, program, option)
    except OSError as exc:
        raise ConfigError(Code.USAGE, f"{program}: cannot be run: {exc.strerror}", f"check {option}") from exc


def _first_line(process: subprocess.Popen[bytes], program: str, option: str) -> bytes:
    """What it prints up to the end of its first line, once it has ended well. A program that goes on is ended."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(_PATIENCE, expire)
    timer.start()
    try:
        line = process.stdout.readline(_LONGEST + 1) if process.stdout is not None else b""
        too_long = len(line) > _LONGEST
        if process.stdout is not None and not too_long:
            rest = process.stdout.read(_LONGEST)  # a note after the passphrase is allowed, a flood is not
            too_long = len(rest) == _LONGEST
        if too_long:
            process.kill()
        status = process.wait()
    finally:
        timer.cancel()
    if too_long:
        raise ConfigError(Code.USAGE, f"{program}: prints more than {_LONGEST} bytes", f"check {option}")
    if expired.is_set():
        raise ConfigError(Code.USAGE, f"{program}: no passphrase within {_PATIENCE:g} s", f"check {option}")
    if status:
        raise ConfigError(Code.USAGE, f"{program}: ended with status {status}", "its own message should say why")
    return line


def _asked(option: str, *, new: bool) -> bytes:
    if not sys.stdin.isatty():
        raise ConfigError(
            Code.USAGE,
            f"{option}: there is no terminal to ask at",
            f"use {option.removesuffix('-prompt')}-file or -env",
        )
    what = "Passphrase" if option == "--passphrase-prompt" else "Passphrase of what is written"
    answer: str = typer.prompt(what, hide_input=True, confirmation_prompt=new, err=True)
    return _checked(answer.encode(), "the answer")
