"""The command line's root: global options, and the commands by name.

Start-up is felt, so this module and those of the commands import nothing heavy: trio, cryptography and pydantic are
imported inside the commands that need them, and help is plain text (rich costs another 100 ms).
"""

from __future__ import annotations

from typing import Annotated

import typer

from mtlskit.cli import demo, proxy, sandbox

__all__ = ["app", "main"]

app = typer.Typer(
    name="mtlskit",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from mtlskit import __version__

        typer.echo(f"mtlskit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Plain Postgres clients to databases behind mutual TLS.

    Start with `mtlskit demo`, which shows all of it on this machine.

    Exit status: 0 done, 1 it failed, 2 wrong usage or configuration, 3 checked and something needs attention.
    """


app.command("demo", epilog=demo.EPILOG)(demo.demo)
app.command("proxy", epilog=proxy.EPILOG)(proxy.proxy)
app.command("sandbox", epilog=sandbox.EPILOG)(sandbox.sandbox)


def main() -> None:
    """The `mtlskit` command."""
    app()
