"""The token that Heroku's APIs want, from where the Heroku CLI would take it.

The order is the CLI's (npm `@heroku-cli/command` 13 and 14): the variable HEROKU_API_KEY, the system's store of
passwords, netrc. At last the CLI itself is asked, which also knows stores that we do not. A token is never taken from
an argument: other users of the host can read those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mtlskit.errors import Code, ConfigError
from mtlskit.heroku.cli_login import Found, RunProgram, ask_cli, ask_store, run_program
from mtlskit.heroku.netrc_file import netrc_password
from mtlskit.telemetry import Emit, silent

__all__ = ["VARIABLE", "Token", "find_token", "token_of_environment"]

VARIABLE = "HEROKU_API_KEY"

_LONGEST = 4096
"""Characters. Heroku's have 36 to some hundred, and a header line must hold it."""


@dataclass(frozen=True)
class Token:
    """A token for the Authorization header, and where it was found. It never shows in a repr."""

    value: str = field(repr=False)
    source: str
    """Such as `HEROKU_API_KEY` or `~/.netrc`, for people."""


def token_of_environment(environ: Mapping[str, str]) -> Token | None:
    """The token of the variable, None where that is not set. Raises `ConfigError` (API_NO_TOKEN) for one that is none.

    An empty variable is an error and not passed over: whoever set it meant to choose the account.
    """
    value = environ.get(VARIABLE)
    return None if value is None else _checked(value, VARIABLE)


def find_token(
    environ: Mapping[str, str], *, home: Path, platform: str, run: RunProgram = run_program, emit: Emit = silent
) -> Token:
    """The first token that is found. `platform` as `sys.platform`; programs run at most some seconds each.

    Raises `ConfigError` (API_NO_TOKEN): none is there, with every place that was looked at; or what was found there
    cannot be a token, or netrc cannot be read.
    """
    token = token_of_environment(environ)
    if token is not None:
        return token
    missed = [f"{VARIABLE} is not set"]
    places: tuple[Callable[[], Found], ...] = (
        lambda: ask_store(environ, home=home, platform=platform, run=run),
        lambda: netrc_password(home, platform=platform, emit=emit),
        lambda: ask_cli(environ, run=run),
    )
    for look in places:
        found = look()
        if found.secret is not None:
            return _checked(found.secret, found.place)
        missed.append(f"{found.place}: {found.why}")
    raise ConfigError(
        Code.API_NO_TOKEN,
        f"no token for Heroku's API was found; looked at: {'; '.join(missed)}",
        f"log in with `heroku login`, or set {VARIABLE} to a token (`heroku authorizations:create` makes one)",
    )


def _checked(value: str, source: str) -> Token:
    """Raises `ConfigError` (API_NO_TOKEN), which does not show the value."""
    problem = _problem(value)
    if problem:
        advice = f"set {VARIABLE} to the token and nothing else, or unset it to use the login of the Heroku CLI"
        raise ConfigError(
            Code.API_NO_TOKEN,
            f"{source}: {problem}",
            advice if source == VARIABLE else f"log in again with `heroku login`, or set {VARIABLE}",
        )
    return Token(value, source)


def _problem(value: str) -> str:
    """Why `value` cannot be a token (RFC 6750, section 2.1: visible ASCII), or nothing."""
    if not value:
        return "is set and empty"
    if any(character.isspace() for character in value):
        return "holds a blank or the end of a line, which no token does"
    if any(not "!" <= character <= "~" for character in value):
        return "holds a character that no token has"
    if len(value) > _LONGEST:
        return f"is longer than {_LONGEST} characters: not a token"
    return ""
