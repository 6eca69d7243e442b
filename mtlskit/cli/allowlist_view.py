"""How rules and plans are shown: tables and coloured differences for people, plain values for scripts."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mtlskit.cli.render import Colour, colourful, line, painted
from mtlskit.cli.table import Cell, Column, table
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.allowlist.applied import Applied
    from mtlskit.allowlist.gather import Found
    from mtlskit.allowlist.plan import AddonPlan, Plan, Wanted
    from mtlskit.heroku.values import IpRule

__all__ = ["plain_applied", "plain_found", "plain_plan", "plain_rule", "show_applied", "show_found", "show_plan"]

_GREEN, _YELLOW, _RED, _DIM = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m"

_MOST_NAMED = 6
"""Ranges on one line; the rest is counted."""

_COLUMNS = (
    Column("CIDR"),
    Column("STATE"),
    Column("DESCRIPTION", least=12),
    Column("OWNER", least=8, missable=1),
    Column("ADDED (UTC)", missable=2),
)


# For scripts.


def plain_found(found: Sequence[Found]) -> dict[str, Any]:
    """What `list --json` prints."""
    from mtlskit.heroku.values import MOST_RULES

    return {
        "addons": [
            {
                "addon": each.addon,
                "kind": each.kind.value,
                "app": each.app or None,
                "limit": MOST_RULES,
                "rules": [plain_rule(rule) for rule in each.rules],
            }
            for each in found
        ]
    }


def plain_rule(rule: IpRule) -> dict[str, Any]:
    """One rule; `description` as Heroku tells it, tag included."""
    from mtlskit.allowlist.owner import owner_of

    owner = owner_of(rule.description)
    return {
        "id": rule.id,
        "cidr": rule.cidr,
        "description": rule.description,
        "owner": str(owner) if owner is not None else None,
        "status": rule.status,
        "authorized": rule.authorized,
        "created_at": rule.created_at.isoformat() if rule.created_at is not None else None,
        "updated_at": rule.updated_at.isoformat() if rule.updated_at is not None else None,
    }


def plain_plan(plan: Plan) -> dict[str, Any]:
    """What `plan --json` prints."""
    return {
        "changes": plan.has_changes,
        "hash": plan.hash,
        "lists": list(plan.lists),
        "addons": [
            {
                "addon": each.addon,
                "kind": each.kind.value,
                "owner": str(each.owner) or None,
                "add": [
                    {"cidr": str(want.cidr), "description": each.description(want), "origin": want.origin}
                    for want in each.add
                ],
                "remove": [plain_rule(rule) for rule in each.remove],
                "remove_first": [rule.id for rule in each.remove_first],
                "keep": [plain_rule(rule) for rule in each.keep],
                "foreign": [plain_rule(rule) for rule in each.foreign],
                "unreadable": [plain_rule(rule) for rule in each.unreadable],
                "relied": [rule.id for rule in each.relied],
            }
            for each in plan.addons
        ],
    }


def plain_applied(applied: Applied) -> dict[str, Any]:
    """What `add`, `remove` and `apply` print with --json."""
    return {
        "done": applied.done,
        "seconds": round(applied.seconds, 3),
        "addons": [
            {
                "addon": each.addon,
                "kind": each.kind.value,
                "done": each.done,
                "added": [plain_rule(rule) for rule in each.added],
                "removed": [plain_rule(rule) for rule in each.removed],
                "waiting": [plain_rule(rule) for rule in each.waiting],
                "missing": [str(missing.cidr) for missing in each.missing],
                "left": [plain_rule(rule) for rule in each.left],
                "error": None
                if each.failure is None
                else {"code": each.failure.code.value, "reason": each.failure.sentence, "hint": each.failure.hint},
            }
            for each in applied.addons
        ],
    }


# For people.


def show_found(found: Sequence[Found]) -> None:
    """A table for each add-on."""
    from mtlskit.heroku.values import MOST_RULES

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    colour = colourful(sys.stdout)
    for number, each in enumerate(found):
        if number:
            line()
        line(f"{printable(each.addon)} ({each.kind.value}): {len(each.rules)} of {MOST_RULES} rules")
        if each.rules:
            rows = [_row(rule, colour=colour) for rule in sorted(each.rules, key=_by_range)]
            line("\n".join(table(_COLUMNS, rows, width=width)))
        else:
            line("  nobody can connect from outside")


def _by_range(rule: IpRule) -> tuple[bool, Any]:
    from mtlskit.allowlist.coverage import network_of

    network = network_of(rule)
    return (network is None, network if network is not None else rule.cidr)


def _row(rule: IpRule, *, colour: bool) -> list[Cell]:
    from mtlskit.allowlist.owner import bare, owner_of

    owner = owner_of(rule.description)
    shade = _GREEN if rule.authorized else _YELLOW
    return [
        Cell(printable(rule.cidr)),
        Cell(printable(rule.status), shade if colour else ""),
        Cell(printable(bare(rule.description))),
        Cell(str(owner) if owner is not None else "-"),
        Cell(f"{rule.created_at:%Y-%m-%d %H:%M}" if rule.created_at is not None else "-"),
    ]


def show_plan(plan: Plan) -> None:
    """What would be done, add-on by add-on, in the order in which it would be done."""
    for each in plan.addons:
        stays = len(each.keep) + len(each.foreign) + len(each.unreadable)
        line(f"{printable(each.addon)} ({each.kind.value}): {_count(stays)}, {stays + len(each.add)} afterwards")
        for text, colour in _differences(each):
            line(painted(f"  {text}", colour))
    adds, removes = (sum(len(getattr(each, what)) for each in plan.addons) for what in ("add", "remove"))
    if plan.has_changes:
        line(f"plan {plan.hash}: {adds} to add, {removes} to remove")
    else:
        line("nothing to do")


def _differences(plan: AddonPlan) -> Iterator[tuple[str, Colour | None]]:
    for rule in plan.remove_first:
        yield f"- {_told(rule)}  (first, to make room)", Colour.RED
    for want in plan.add:
        yield f"+ {want.cidr}  {printable(want.description)}{_origin(want)}", Colour.GREEN
    for rule in plan.waiting:
        yield f"~ {_told(rule)}  (does not act yet)", Colour.YELLOW
    for rule in plan.remove_last:
        yield f"- {_told(rule)}", Colour.RED
    for rule in plan.relied:
        yield f"  {_told(rule)}  (not ours: it lets in what is wanted as long as its owner keeps it)", Colour.DIM
    for rule in plan.unreadable:
        yield f"? {_told(rule)}  (cannot be read, and is left alone)", Colour.YELLOW
    others = list(plan.foreign)
    if others:
        yield f"  {len(others)} not ours and not wanted, left alone", Colour.DIM


def _told(rule: IpRule) -> str:
    return f"{printable(rule.cidr)}  {printable(rule.description)}"


def _origin(want: Wanted) -> str:
    if want.origin in ("file", "flag", "my-ip"):
        return ""
    kind, _, name = want.origin.partition(":")
    return f"  (from {'the space ' if kind == 'space' else ''}{printable(name)})"


def _count(rules: int) -> str:
    return "1 rule stays" if rules == 1 else f"{rules} rules stay"


def show_applied(applied: Applied) -> None:
    """What was done, a line for each add-on."""
    for each in applied.addons:
        parts = []
        if each.added:
            parts.append(f"added {_ranges(each.added)}")
        if each.removed:
            parts.append(f"removed {_ranges(each.removed)}")
        if each.waiting:
            parts.append(f"not acting yet: {_ranges(each.waiting)}")
        line(f"{printable(each.addon)}: {'; '.join(parts) or 'nothing to do'}")


def _ranges(rules: Sequence[IpRule]) -> str:
    ranges = list(dict.fromkeys(printable(rule.cidr) for rule in sorted(rules, key=_by_range)))
    more = len(ranges) - _MOST_NAMED
    return ", ".join(ranges[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
