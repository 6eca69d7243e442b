"""`mtlskit my-ip`: the address that others see this host with."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import typer

from mtlskit.cli.allowlist_common import SourceOption, my_ip_of
from mtlskit.cli.chosen import ConfigOption
from mtlskit.cli.heroku_api import config_for
from mtlskit.cli.options import JsonOption
from mtlskit.cli.render import line, print_json, reported, warn
from mtlskit.cli.table import Cell, Column, table
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.allowlist.my_ip import MyAddresses

__all__ = ["EPILOG", "my_ip"]

EPILOG = """\b
Examples:
  mtlskit my-ip
  mtlskit my-ip --source 192.0.2.10        a host with several ways out
  mtlskit my-ip --json | jq -r '.addresses[]'

Several independent services are asked over https; MTLSKIT_MY_IP, or `services` in [my_ip] of the file, names others.

\b
Exit status:
  0  they agree
  1  none of them answers
  3  they disagree: this host leaves through several addresses, or one of them is wrong"""

_COLUMNS = (Column("SERVICE", least=20), Column("ANSWER", least=15))


def my_ip(source: SourceOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the external address of this host, and who says so."""
    with reported(as_json=as_json):
        import trio

        from mtlskit.allowlist.my_ip import my_addresses, services_of

        settings = my_ip_of(config_for(config, named=True, as_json=as_json))
        services = services_of(os.environ, settings)

        async def work() -> MyAddresses:
            return await my_addresses(services, source=source or settings.source)

        found = trio.run(work)
        if as_json:
            print_json(_plain(found))
        else:
            _show(found)
        if found.agreed is None:
            raise typer.Exit(3)


def _plain(found: MyAddresses) -> dict[str, Any]:
    return {
        "agreed": str(found.agreed) if found.agreed is not None else None,
        "addresses": [str(address) for address in sorted(found.addresses)],
        "answers": [
            {
                "service": answer.service,
                "address": str(answer.address) if answer.address is not None else None,
                "error": answer.error or None,
            }
            for answer in found.answers
        ],
    }


def _show(found: MyAddresses) -> None:
    """One address a line on standard output, for `$(…)`; who said so only where a person looks."""
    for address in sorted(found.addresses):
        line(str(address))
    if sys.stdout.isatty():
        rows = [
            [Cell(printable(each.service)), Cell(str(each.address or printable(each.error)))] for each in found.answers
        ]
        line()
        line("\n".join(table(_COLUMNS, rows, width=shutil.get_terminal_size().columns)))
    if found.agreed is None:
        warn("they disagree: this host leaves through several addresses, or one of the services is wrong")
