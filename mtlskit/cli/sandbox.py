"""`mtlskit sandbox`: the local Private Space, until it is stopped."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mtlskit.cli.options import LogOption, QuietOption, VerboseOption, log_sink, wants_json
from mtlskit.cli.render import reported, warn
from mtlskit.cli.stopping import run_until_stopped
from mtlskit.cli.usage import password_warning, typed

__all__ = ["EPILOG", "sandbox"]

_URL_VARIABLE = "MTLSKIT_SANDBOX_POSTGRES"

# "\b" keeps the lines of a paragraph as they are.
EPILOG = """\b
Examples:
  mtlskit sandbox --dir ./space                       runs until Ctrl-C
  . ./space/sandbox.env && psql "$DATABASE_URL"       in another terminal

It is ready when DIR/sandbox.json exists, which holds its addresses and the paths of a client identity. SIGTERM and
SIGINT stop it; the data and the identity stay in DIR for the next start."""


def sandbox(
    ctx: typer.Context,
    directory: Annotated[
        Path,
        typer.Option(
            "--dir",
            metavar="DIR",
            envvar="MTLSKIT_SANDBOX_DIR",
            show_default=False,
            help="Its folder; made where missing.",
        ),
    ],
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres",
            metavar="URL",
            envvar=_URL_VARIABLE,
            help="Put the gateway before this Postgres instead of a new one. A URL with a password belongs in the"
            " variable.",
        ),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            "--listen",
            metavar="ADDR",
            show_default=False,
            help="Where the gateway listens; port 0: any free one. Default: 127.0.0.1:0.",
        ),
    ] = "127.0.0.1:0",
    log: LogOption = "text",
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a small Private Space on this machine: a real PostgreSQL behind a gateway that demands mutual TLS.

    A Private Space is Heroku's private network; its databases admit only clients that show a certificate.
    """
    with reported(as_json=wants_json(log)):
        emit = log_sink(log, quiet=quiet, verbose=verbose)
        from mtlskit.config.addresses import parse_listen
        from mtlskit.config.upstreams import holds_password
        from mtlskit.config.values import TcpAddress
        from mtlskit.errors import Code, ConfigError
        from mtlskit.sandbox.space import SpaceOptions, run_space

        address = parse_listen(listen, base=Path.cwd(), environ=os.environ)
        if not isinstance(address, TcpAddress):
            raise ConfigError(Code.USAGE, f"--listen {listen}: the gateway listens on TCP only", "name HOST:PORT")
        if postgres is not None and typed(ctx, "postgres") and holds_password(postgres):
            warn(password_warning("--postgres", _URL_VARIABLE), as_json=wants_json(log))
        source = "--postgres" if typed(ctx, "postgres") else _URL_VARIABLE
        options = SpaceOptions(directory, postgres_url=postgres, url_source=source, listen=address)
        run_until_stopped(partial(run_space, options, emit=emit))
