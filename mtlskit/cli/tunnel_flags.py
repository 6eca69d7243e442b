"""A tunnel that flags or environment variables describe, and not a file: spelled and checked alike in every command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlskit.cli.render import warn
from mtlskit.cli.usage import harmless, password_warning, typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlskit.errors import ConfigError

__all__ = [
    "CaOption",
    "CertOption",
    "KeyOption",
    "KindOption",
    "NegotiationOption",
    "PassphraseFileOption",
    "PinOption",
    "UpstreamOption",
    "VerifyOption",
    "listed_as_set",
    "path_of",
    "refuse_both",
    "refuse_files",
    "sources_of",
    "variables_of",
    "warn_of_passwords",
]


def _option(metavar: str, text: str, *, envvar: str | None = None) -> Any:
    return typer.Option(metavar=metavar, envvar=envvar, help=text)


UpstreamOption = Annotated[
    list[str] | None,
    _option(
        "ADDR",
        "HOST:PORT, or a postgres:// or kafka+ssl:// URL; repeatable, tried in order; or heroku:ADDON. A URL with a"
        " password belongs in the variable.",
        envvar="MTLSKIT_UPSTREAM",
    ),
]
CertOption = Annotated[
    str | None, _option("FILE", "The client certificate with its chain, PEM.", envvar="MTLSKIT_CERT")
]
KeyOption = Annotated[str | None, _option("FILE", "Its private key, PEM.", envvar="MTLSKIT_KEY")]
CaOption = Annotated[
    str | None,
    _option("FILE", "The CAs that the server is checked against, PEM. Default: the system's.", envvar="MTLSKIT_CA"),
]
PassphraseFileOption = Annotated[
    str | None, _option("FILE", "A file with the key's passphrase.", envvar="MTLSKIT_PASSPHRASE_FILE")
]
KindOption = Annotated[str | None, _option("KIND", "postgres, kafka or tcp. Default: postgres.", envvar="MTLSKIT_KIND")]
VerifyOption = Annotated[
    str | None,
    _option(
        "MODE",
        "full (chain and host name), or with --ca: ca (chain), name:HOST (chain, and this name). Default: full; for"
        " a Kafka of Heroku's: ca.",
        envvar="MTLSKIT_VERIFY",
    ),
]
NegotiationOption = Annotated[
    str | None, _option("HOW", "sslrequest, or direct for PostgreSQL 17 and later. Default: sslrequest.")
]
PinOption = Annotated[list[str] | None, _option("PIN", "sha256/BASE64 of the server's public key; repeatable.")]


def sources_of(ctx: typer.Context, given: dict[str, Any]) -> dict[str, str]:
    """What gave each value: the flag that was typed, or the environment variable."""
    from mtlskit.config.flags import FLAGS

    options = {option.opts[0]: option for option in ctx.command.params}
    found = {}
    for name in given:
        option = options[FLAGS[name]]
        found[name] = FLAGS[name] if typed(ctx, str(option.name)) else str(option.envvar)
    return found


def variables_of(sources: dict[str, str]) -> list[str]:
    """The variables that have described a tunnel, where nothing was typed: they may be left over from other work."""
    return [] if any(source.startswith("--") for source in sources.values()) else list(sources.values())


def refuse_both(sources: dict[str, str], tunnels: Sequence[str] | None, config: Path | None, hint: str) -> None:
    """Raises `ConfigError` (USAGE) where a tunnel of the file, or the file, is named beside flags that describe one."""
    if not tunnels and config is None:
        return
    what = f"TUNNEL {harmless(tunnels[0])}" if tunnels else f"--config {config}"
    raise _excluded(what, list(sources.values()), variables_of(sources), hint)


def _excluded(what: str, flags: list[str], variables: list[str], hint: str) -> ConfigError:
    from mtlskit.errors import Code, ConfigError

    if variables:
        return ConfigError(
            Code.USAGE,
            f"{what} and the environment exclude each other: {listed_as_set(variables)}, for a tunnel without a file",
            f"unset {' '.join(variables)}",
        )
    first = next(flag for flag in flags if flag.startswith("--"))
    return ConfigError(Code.USAGE, f"{what} and {first} exclude each other", hint)


def listed_as_set(variables: list[str]) -> str:
    """`A is set`, or `A, B and C are set`."""
    *before, last = variables
    return f"{', '.join(before)} and {last} are set" if before else f"{last} is set"


def refuse_files(words: list[str]) -> None:
    """Raises `ConfigError` (USAGE) for files that stand where the names of tunnels belong."""
    import shlex

    from mtlskit.errors import Code, ConfigError

    for word in words:
        shown = harmless(word)
        raise ConfigError(
            Code.USAGE,
            f"{shown}: a file, where the name of a tunnel belongs",
            f"for a file: --config {shlex.quote(word) if shown == word else 'FILE'}",
        )


def path_of(given: Path) -> Path:
    """A path from a flag or a variable, with `~` and the like as in the file. Raises `ConfigError`."""
    from mtlskit.config.paths import parse_path

    return parse_path(str(given), base=Path(), environ=os.environ)


def warn_of_passwords(ctx: typer.Context, upstream: list[str] | None, *, as_json: bool) -> None:
    """Every user of the host can read a command line."""
    from mtlskit.config.upstreams import holds_password

    if upstream and typed(ctx, "upstream") and any(holds_password(text) for text in upstream):
        warn(password_warning("--upstream", "MTLSKIT_UPSTREAM"), as_json=as_json)
