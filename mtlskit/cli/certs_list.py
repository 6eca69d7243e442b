"""`mtlskit certs list` and `mtlskit certs check`: which identities there are, and what is to be done about them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlskit.cli.certs_remote import look_far, remote_json, tell_remote
from mtlskit.cli.chosen import ConfigOption, identities_called, load
from mtlskit.cli.options import JsonOption
from mtlskit.cli.render import colourful, line, print_json, reported
from mtlskit.cli.spans import left_text, span_text
from mtlskit.cli.table import Cell, Column, table
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.lifecycle.inventory import Inventory, Item

__all__ = ["ATTENTION", "CHECK_EPILOG", "LIST_EPILOG", "check", "list_identities"]

ATTENTION = 3
"""The exit status of `check` where something is to be done."""

LIST_EPILOG = """\b
Examples:
  mtlskit certs list
  mtlskit certs list --remote         also what Heroku has, and where it is in use
  mtlskit certs list --json | jq '.identities[] | select(.state != "fine")'

\b
Exit status:
  0  done
  1  with --remote: Heroku could not be asked about all of them
  2  wrong usage or configuration"""

CHECK_EPILOG = """\b
Examples:
  mtlskit certs check                 every identity of ./mtlskit.toml
  mtlskit certs check reporting || mtlskit certs rotate reporting

\b
Exit status:
  0  all is fine
  2  wrong usage or configuration
  3  one is due, has expired, is missing or damaged, or its rotation is
     unfinished: see its line"""

_GREEN, _YELLOW, _RED, _DIM = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m"
_COLOURS = {"fine": _GREEN, "due": _YELLOW, "pending": _YELLOW, "none yet": _YELLOW, "not in the file": _DIM}
"""By state; the others are red."""

_COLUMNS = (
    Column("NAME", least=12),  # what commands take: other columns go first
    Column("ISSUER", missable=3),
    Column("SUBJECT", least=10, missable=4),
    Column("SERIAL", least=8, missable=5),
    Column("EXPIRES (UTC)", missable=2),
    Column("LEFT"),
    Column("STATE"),
    Column("USED BY", least=8, missable=1),
)
_BAR = 10
"""Cells."""


def list_identities(
    remote: Annotated[
        bool, typer.Option("--remote", help="Ask Heroku for its certificates, and show where each is in use.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every identity: those of the configuration file, and those that only the store has."""
    with reported(as_json=as_json):
        from datetime import UTC, datetime

        from mtlskit.lifecycle.inventory import take_stock

        loaded = load(config)
        inventory = take_stock(loaded, datetime.now(UTC))
        far = look_far(loaded) if remote else None
        if as_json:
            print_json(_plain(inventory) | ({} if far is None else remote_json(far)))
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            line("\n".join(_listed(inventory, width=width, colour=colourful(sys.stdout))))
            if far is not None:
                line()
                tell_remote(far)
        if far is not None and far.failed:
            raise typer.Exit(1)


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", hidden=True),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell whether every certificate is good and lasts, and what to do if not.

    Looks at the named identities of the configuration file, or at all of them. For scripts: see the exit status.
    """
    with reported(as_json=as_json):
        from datetime import UTC, datetime

        from mtlskit.lifecycle.inventory import examine

        loaded = load(config)
        inventory = examine(loaded, identities_called(loaded, names or []), datetime.now(UTC))
        if as_json:
            print_json(_plain(inventory))
        else:
            line("\n".join(_verdicts(inventory, colour=colourful(sys.stdout))))
        if not _fine(inventory):
            raise typer.Exit(ATTENTION)


def _fine(inventory: Inventory) -> bool:
    return all(
        item.condition.value == "not in the file" or (item.condition.value == "fine" and not item.rotating)
        for item in inventory.items
    )


# For scripts.


def _plain(inventory: Inventory) -> dict[str, Any]:
    return {
        "fine": _fine(inventory),
        "store": str(inventory.store) if inventory.store is not None else None,
        "store_problem": inventory.reason or None,
        "identities": [_plain_item(item) for item in inventory.items],
    }


def _plain_item(item: Item) -> dict[str, Any]:
    decision = item.decision
    return {
        "name": item.name,
        "issuer": item.issuer or None,
        "state": item.condition.value,
        "todo": item.todo or None,
        "reason": item.reason or None,
        "code": item.code.value if item.code is not None else None,
        "warnings": list(item.warnings),
        "version": item.version,
        "subject": item.subject or None,
        "serial": item.serial or None,
        "not_before": item.not_before.isoformat() if item.not_before is not None else None,
        "not_after": decision.not_after.isoformat() if decision is not None else None,
        "due_at": decision.due_at.isoformat(timespec="seconds") if decision is not None else None,
        "days_left": decision.days_left if decision is not None else None,
        "rotating": item.rotating,
        "rotation_problem": item.failed or None,
        "tunnels": list(item.tunnels),
    }


# For people.


def _listed(inventory: Inventory, *, width: int | None, colour: bool) -> Iterator[str]:
    rows = [_row(item, bar=width is not None, colour=colour) for item in inventory.items]
    yield from table(_COLUMNS, rows, width=width)
    notes = [f"{printable(item.name)}: {item.reason}; {item.todo}" for item in inventory.items if item.reason]
    notes += [f"{printable(item.name)}: {_unfinished(item)}; {item.todo}" for item in inventory.items if item.failed]
    if inventory.reason:
        notes.append(f"the store: {inventory.reason}")
    if notes:
        yield ""
        yield from notes


def _row(item: Item, *, bar: bool, colour: bool) -> list[Cell]:
    state = item.condition.value
    shade = _shade(item) if colour else ""
    expires = f"{item.decision.not_after:%Y-%m-%d %H:%M}" if item.decision else "-"
    return [
        Cell(printable(item.name)),
        Cell(item.issuer or "-"),
        Cell(item.subject or "-"),
        Cell(item.serial or "-"),
        Cell(expires),
        Cell(_left(item, bar=bar), shade),
        Cell(f"{state}, unfinished" if item.rotating and state != "pending" else state, shade),
        Cell(", ".join(item.tunnels) or "-"),
    ]


def _shade(item: Item) -> str:
    return _YELLOW if item.condition.value == "fine" and item.rotating else _COLOURS.get(item.condition.value, _RED)


def _left(item: Item, *, bar: bool) -> str:
    """`██████░░░░ 219 d`: how much of the life is left, and how long that is."""
    if item.decision is None or item.not_before is None:
        return "-"
    told = left_text(item.decision.remaining)
    if not bar:
        return told
    life = max(item.decision.not_after - item.not_before, timedelta(seconds=1))
    full = min(max(round(item.decision.remaining / life * _BAR), 0), _BAR)
    drawn, empty = ("█", "░") if "utf" in (sys.stdout.encoding or "").lower() else ("#", ".")
    return f"{drawn * full}{empty * (_BAR - full)} {told}"


def _verdicts(inventory: Inventory, *, colour: bool) -> Iterator[str]:
    for item in inventory.items:
        state = f"{_shade(item)}{item.condition.value}\x1b[0m" if colour else item.condition.value
        told = f": {item.reason}" if item.reason else _dates(item)
        if item.rotating:
            told += f"; {_unfinished(item)}"
        todo = f"; {item.todo}" if item.todo else ""
        yield f"{item.name}: {state}{told}{todo}"
        for warning in item.warnings:
            yield f"  warning: {warning}"


def _dates(item: Item) -> str:
    """`, expires 2027-01-31 12:00 UTC (43 d)`, and after `expired` only when that was."""
    if item.decision is None:
        return ""
    end, seconds = f"{item.decision.not_after:%Y-%m-%d %H:%M} UTC", item.decision.remaining.total_seconds()
    if seconds < 0:
        return f" {end} ({span_text(-seconds)} ago)"
    return f", expires {end} ({span_text(seconds)})"


def _unfinished(item: Item) -> str:
    return f"rotation unfinished: {printable(item.failed)}" if item.failed else "rotation unfinished"
