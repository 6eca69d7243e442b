"""`mtlskit sandbox`: the local Private Space, until it is stopped."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mtlskit.cli.options import LogFormat, LogOption, QuietOption, VerboseOption, log_sink
from mtlskit.cli.render import reported
from mtlskit.cli.stopping import run_until_stopped

__all__ = ["EPILOG", "sandbox"]

EPILOG = """Examples:

  mtlskit sandbox --dir /tmp/space

  . /tmp/space/sandbox.env && psql "$DATABASE_URL"

It is ready when DIR/sandbox.json exists, which holds its addresses and the paths of a client identity. SIGTERM and
SIGINT stop it; the data and the identity stay in DIR for the next start."""


def sandbox(
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", envvar="MTLSKIT_SANDBOX_DIR", help="Its folder; made where missing.")
    ],
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres",
            metavar="URL",
            envvar="MTLSKIT_SANDBOX_POSTGRES",
            help="Put the gateway before this Postgres instead of a new one. Other users can read a command line: hand"
            " over a URL that holds a password in the variable.",
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDR", help="Where the gateway listens. Port 0: any free one.")
    ] = "127.0.0.1:0",
    log: LogOption = LogFormat.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a small Private Space on this machine: a real PostgreSQL behind a gateway that demands mutual TLS."""
    with reported():
        from mtlskit.config.addresses import parse_listen
        from mtlskit.config.values import TcpAddress
        from mtlskit.errors import Code, ConfigError
        from mtlskit.sandbox.space import SpaceOptions, run_space

        address = parse_listen(listen, base=Path.cwd(), environ=os.environ)
        if not isinstance(address, TcpAddress):
            raise ConfigError(Code.USAGE, f"--listen {listen}: the gateway listens on TCP only", "name HOST:PORT")
        options = SpaceOptions(directory, postgres_url=postgres, listen=address)
        run_until_stopped(partial(run_space, options, emit=log_sink(log, quiet=quiet, verbose=verbose)))
