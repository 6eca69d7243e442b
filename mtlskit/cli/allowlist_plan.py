"""`mtlskit allowlist plan` and `apply`: the rules become what the file says.

A plan is made twice: once to be seen, and once again, while no other process of this host changes the same rules, to be
carried out. If the two differ, what was seen is not what would be done, and nothing is done; unless nothing is left to
do, or (with `--yes`) nobody had to see it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.allowlist_common import (
    LockMeOutOption,
    Shown,
    SourceOption,
    TimeoutOption,
    YesOption,
    addresses_or_none,
    interrupted,
    my_address,
    places_of,
    seconds_of,
    shown,
)
from mtlskit.cli.allowlist_view import plain_applied, plain_plan, show_applied, show_plan
from mtlskit.cli.asking import agreed
from mtlskit.cli.chosen import ConfigOption, load
from mtlskit.cli.heroku_api import run_with_heroku, settings_for
from mtlskit.cli.options import JsonOption, LogOption, QuietOption, log_sink, wants_json
from mtlskit.cli.render import line, print_json, reported
from mtlskit.cli.usage import harmless

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from mtlskit.allowlist.applied import Applied
    from mtlskit.allowlist.owner import Owner
    from mtlskit.allowlist.plan import Plan
    from mtlskit.config.values import AllowlistConfig, ProxyConfig
    from mtlskit.errors import AllowlistError
    from mtlskit.heroku.client import Heroku
    from mtlskit.telemetry import Emit

__all__ = ["APPLY_EPILOG", "PLAN_EPILOG", "allowlists_called", "apply", "owner_of_list", "plan"]

PLAN_EPILOG = """\b
Examples:
  mtlskit allowlist plan               every [allowlist.NAME] of ./mtlskit.toml
  mtlskit allowlist plan offices --json

\b
Exit status:
  0  nothing to do
  1  it failed
  2  wrong usage or configuration
  3  there are changes"""

APPLY_EPILOG = """\b
Examples:
  mtlskit allowlist apply                      shows the plan, and asks where rules would go
  mtlskit allowlist apply offices --yes        for a script
  mtlskit allowlist apply vendor --yes --plan 3f9a2c81d0e4b7715a20

Rules are added, waited for, and only then are old ones removed; those of other owners stay. A list that others publish
(rules_from) is applied only after it was seen: by an answer on the terminal, or with the hash that `plan` has shown.

\b
Exit status:
  0  done: everything is as the file says, and acts
  1  it failed, or --timeout ended before that: what was done is told, and the next run goes on
  2  wrong usage or configuration"""

PruneOption = Annotated[
    bool, typer.Option("--prune", help="Remove the rules of everybody else as well; they are shown first.")
]
CollapseOption = Annotated[
    bool, typer.Option("--collapse", help="Join ranges that lie side by side, as collapse = true in the file.")
]
GapOption = Annotated[
    bool,
    typer.Option("--allow-gap", help="Where all 60 rules are taken, remove first; some are locked out for a while."),
]


@dataclass(frozen=True)
class _Wish:
    """What the command line says."""

    config: ProxyConfig
    lists: Sequence[AllowlistConfig]
    prune: bool
    allow_gap: bool
    lock_me_out: bool
    source: str | None
    yes: bool = False
    seen: str | None = None
    """The hash of the plan that somebody has looked at."""


def plan(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", hidden=True)] = None,
    prune: PruneOption = False,
    allow_gap: GapOption = False,
    collapse: CollapseOption = False,
    lock_me_out: LockMeOutOption = False,
    source: SourceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would have to change, and change nothing."""
    with reported(as_json=as_json):
        wish = _wish(config, names, prune, allow_gap, collapse, lock_me_out, source)
        emit = log_sink("text", quiet=True, verbose=False)

        async def work(heroku: Heroku) -> Plan:
            return _together(await _plans(heroku, wish, emit))

        found = run_with_heroku(wish.config, work, as_json=as_json)
        if as_json:
            print_json(plain_plan(found))
        else:
            show_plan(found)
        if found.has_changes:
            raise typer.Exit(3)


def apply(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", hidden=True)] = None,
    yes: YesOption = False,
    seen: Annotated[
        str | None,
        typer.Option("--plan", metavar="HASH", show_default=False, help="Only if the plan is still the one shown."),
    ] = None,
    prune: PruneOption = False,
    allow_gap: GapOption = False,
    collapse: CollapseOption = False,
    lock_me_out: LockMeOutOption = False,
    timeout: TimeoutOption = "30m",
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait for rules to act; what is to go, goes with the next run.")
    ] = False,
    source: SourceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    log: LogOption = "text",
    quiet: QuietOption = False,
) -> None:
    """Make the rules what the file says: add, wait until they act, then remove what is not wanted any more."""
    plain = as_json or wants_json(log)
    with reported(as_json=plain, on_interrupt=partial(interrupted, as_json=plain)):
        show = shown(log, quiet=quiet)
        patience = None if no_wait else seconds_of(timeout)
        wish = replace(_wish(config, names, prune, allow_gap, collapse, lock_me_out, source), yes=yes, seen=seen)
        settings = settings_for(wish.config, emit=show.emit, as_json=as_json)

        async def look(heroku: Heroku) -> Plan:
            return _together(await _plans(heroku, wish, show.emit))

        found = run_with_heroku(wish.config, look, emit=show.emit, settings=settings, as_json=as_json)
        if not as_json:
            show_plan(found)
        if not _agreed(found, wish):
            line("nothing was changed")
            raise typer.Exit(1)

        async def work(heroku: Heroku) -> tuple[Plan, Applied]:
            return await _carry_out(heroku, wish, found, patience, show, _again(names, wish, seen), quiet=as_json)

        done, applied = run_with_heroku(wish.config, work, emit=show.emit, settings=settings, as_json=as_json)
        if as_json:
            print_json({"hash": done.hash, **plain_applied(applied)})
        else:
            show_applied(applied)


def allowlists_called(config: ProxyConfig, names: Sequence[str]) -> list[AllowlistConfig]:
    """The allowlists with these names, in the file's order; all of them for no names. Raises `ConfigError`."""
    from difflib import get_close_matches

    from mtlskit.errors import Code, ConfigError

    known = {each.name: each for each in config.allowlists}
    if not known:
        raise ConfigError(
            Code.CONFIG_MISSING_KEY,
            f"{config.source}: there is no allowlist",
            "add a table [allowlist.NAME] with addons and rules, or name an add-on: mtlskit allowlist add --help",
        )
    for name in names:
        if name not in known:
            near = get_close_matches(name[:64], known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                Code.CONFIG_UNKNOWN_NAME,
                f"{config.source}: there is no allowlist {harmless(name)}{meant}",
                f"the allowlists are {', '.join(known)}",
            )
    return [each for each in config.allowlists if not names or each.name in names]


def owner_of_list(config: AllowlistConfig) -> Owner:
    """Whose tag its rules carry: the list's name, and the file's `owner` or this host's id. Raises `StoreError`."""
    from mtlskit.allowlist.owner import Owner
    from mtlskit.allowlist.state import host_id, state_folder

    return Owner(config.name, config.owner_id or host_id(state_folder(os.environ)))


def _wish(
    config: Path | None,
    names: list[str] | None,
    prune: bool,
    allow_gap: bool,
    collapse: bool,
    lock_me_out: bool,
    source: str | None,
) -> _Wish:
    loaded = load(config)
    lists = [replace(each, collapse=each.collapse or collapse) for each in allowlists_called(loaded, names or [])]
    return _Wish(loaded, lists, prune, allow_gap, lock_me_out, source)


async def _plans(heroku: Heroku, wish: _Wish, emit: Emit) -> list[Plan]:
    """A plan for each list, of what is there now."""
    import trio

    from mtlskit.allowlist.gather import gather
    from mtlskit.allowlist.plan import Plan, plan_addon
    from mtlskit.allowlist.wanted import wanted_of

    addons = list(dict.fromkeys(addon for each in wish.lists for addon in each.addons))
    seen: list[frozenset[IPv4Address]] = []

    async def look_at_ourselves() -> None:
        seen.append(await _me(wish))

    async with trio.open_nursery() as nursery:  # who is asked for the address is not who is asked for the rules
        nursery.start_soon(look_at_ourselves)
        gathered = await gather(heroku.data, heroku.platform, addons, named_by=places_of(wish.lists))
    found = {name: each for each in gathered for name in (each.id, each.addon)}  # the file may name either
    [me] = seen
    wanted = {each.name: await wanted_of(each, heroku.platform, me=me, emit=emit) for each in wish.lists}
    rules = {each.addon: each.rules for each in gathered}
    plans = []
    for each in wish.lists:
        plan_one = partial(
            plan_addon,
            wanted=wanted[each.name],
            owner=owner_of_list(each),
            prune=wish.prune,
            me=me or None,
            lock_me_out=wish.lock_me_out,
            allow_gap=wish.allow_gap,
        )
        made = []
        for addon in dict.fromkeys(found[name] for name in each.addons):
            others = [
                other
                for other in wish.config.allowlists
                if other.name != each.name and addon in (found.get(name) for name in other.addons)
            ]
            spared = {rule.cidr for other in others for rule in wanted.get(other.name, other.rules)}
            made.append(plan_one(addon.addon, addon.kind, found=rules[addon.addon], spared=spared))
            rules[addon.addon] = made[-1].after(rules[addon.addon])
        plans.append(Plan(tuple(made)))
    return plans


async def _me(wish: _Wish) -> frozenset[IPv4Address]:
    """This host's addresses: exactly one where a list lets it in; none where they are not known."""
    settings = wish.config.my_ip
    if any(each.my_ip for each in wish.lists):
        return frozenset({await my_address(settings, wish.source)})
    return await addresses_or_none(settings, wish.source) or frozenset()


def _together(plans: Sequence[Plan]) -> Plan:
    from mtlskit.allowlist.plan import Plan

    return Plan(tuple(addon for each in plans for addon in each.addons))


def _agreed(found: Plan, wish: _Wish) -> bool:
    """Whether it may be carried out. Raises `AllowlistError` (ALLOW_NOT_SEEN), `ConfigError` where nobody can say."""
    if not found.has_changes:
        return True
    if wish.seen is not None and wish.seen != found.hash:
        raise _changed(found, harmless(wish.seen))
    if found.lists and wish.seen is None and wish.yes:
        from mtlskit.errors import AllowlistError, Code

        raise AllowlistError(
            Code.ALLOW_NOT_SEEN,
            f"rules come from a list that others publish ({', '.join(found.lists)}), and nobody has seen this plan",
            f"look at it (mtlskit allowlist plan), then apply just that: --yes --plan {found.hash}",
        )
    removes = sum(len(each.remove) for each in found.addons)
    if wish.yes or not (removes or found.lists):
        return True
    whose = ", those of others among them" if wish.prune else ""
    return agreed(f"Apply this{f', and remove {removes} rules{whose}' if removes else ''}?")


def _needs_no_eyes(found: Plan, wish: _Wish) -> bool:
    """Whether a plan that nobody has seen may be carried out."""
    if not found.has_changes:
        return True
    return wish.yes and wish.seen is None and not wish.prune and not found.lists


async def _carry_out(
    heroku: Heroku, wish: _Wish, seen: Plan, wait: float | None, show: Shown, again: str, *, quiet: bool
) -> tuple[Plan, Applied]:
    """All lists at once, in the turns of their owners; and what was planned then. `quiet`: a plan is not shown.

    Raises `AllowlistError`, `StoreError`.
    """
    from contextlib import AsyncExitStack

    from mtlskit.allowlist.apply import apply as carry_out
    from mtlskit.allowlist.state import state_folder
    from mtlskit.allowlist.turns import turn

    state = state_folder(os.environ)
    async with AsyncExitStack() as turns:
        for owner in sorted({owner_of_list(each) for each in wish.lists}, key=str):  # always in one order
            await turns.enter_async_context(turn(state, owner, wait=wait or 0.0, emit=show.emit))
        found = _together(await _plans(heroku, wish, show.emit))
        if found.hash != seen.hash:
            if not _needs_no_eyes(found, wish):
                raise _changed(found, seen.hash)
            if not quiet:
                show_plan(found)
        work = partial(carry_out, heroku.data, found, wait=wait, emit=show.emit, again=again)
        return found, await show.during(work)


def _changed(found: Plan, seen: str) -> AllowlistError:
    from mtlskit.errors import AllowlistError, Code

    return AllowlistError(
        Code.ALLOW_NOT_SEEN,
        f"the plan is not {seen} any more: it is {found.hash} now, because the rules or a list have changed; nothing"
        " was done",
        "look at it again: mtlskit allowlist plan",
    )


def _again(names: list[str] | None, wish: _Wish, seen: str | None) -> str:
    flags = [flag for flag, on in (("--prune", wish.prune), ("--allow-gap", wish.allow_gap)) if on]
    listed = any(each.rules_from for each in wish.lists)
    return " ".join(["mtlskit allowlist", "plan" if listed and seen else "apply", *(names or ()), *flags])
