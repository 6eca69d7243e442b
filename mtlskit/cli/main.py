"""The command line's root: global options, and the commands by name.

Start-up is felt, so this module and those of the commands import nothing heavy: trio, cryptography and pydantic are
imported inside the commands that need them, and help is plain text (rich costs another 100 ms).
"""

from __future__ import annotations

from typing import Annotated

import typer

from mtlskit.cli import csr, demo, keys, proxy, sandbox
from mtlskit.cli.render import line
from mtlskit.cli.usage import Command, Group, Root

__all__ = ["app", "main"]

app = typer.Typer(
    name="mtlskit",
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# "\b" keeps the lines of a paragraph as they are.
EPILOG = """\b
Exit status:
  0    done, or stopped by a signal
  1    it failed
  2    wrong usage or configuration, or nothing could start
  130  interrupted before it had begun"""


def _version(value: bool) -> None:
    if value:
        from mtlskit import __version__

        line(f"mtlskit {__version__}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Plain Postgres clients to databases behind mutual TLS.

    Start with `mtlskit demo`, which shows all of it on this machine.
    """


for name, command, epilog, summary in (
    ("demo", demo.demo, demo.EPILOG, "Show all of it on this machine, in seconds."),
    ("proxy", proxy.proxy, proxy.EPILOG, "Take plain connections, forward them over mutual TLS."),
    ("sandbox", sandbox.sandbox, sandbox.EPILOG, "Run a database that demands mutual TLS, to try with."),
):
    app.command(name, cls=Command, epilog=epilog, short_help=summary)(command)


def _group(name: str, summary: str) -> typer.Typer:
    group = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help=summary)
    app.add_typer(group, name=name)
    return group


_keys = _group("keys", "Make private keys.")
_keys.command("new", cls=Command, epilog=keys.NEW_EPILOG, short_help="Make a private key.")(keys.new)
_csr = _group("csr", "Make and show certificate requests.")
_csr.command("new", cls=Command, epilog=csr.NEW_EPILOG, short_help="Make a request for a key.")(csr.new)
_csr.command("show", cls=Command, epilog=csr.SHOW_EPILOG, short_help="Show what a request asks for.")(csr.show)


def main() -> None:
    """The `mtlskit` command."""
    app()
