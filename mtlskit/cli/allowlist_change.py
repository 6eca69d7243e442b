"""`mtlskit allowlist add` and `remove`: single ranges, at one or many add-ons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.allowlist_common import (
    LockMeOutOption,
    SourceOption,
    SpacesOption,
    TimeoutOption,
    YesOption,
    addresses_or_none,
    again,
    interrupted,
    my_address,
    my_ip_of,
    parse_ranges,
    seconds_of,
    shown,
)
from mtlskit.cli.allowlist_view import plain_applied, show_applied
from mtlskit.cli.asking import agreed
from mtlskit.cli.chosen import ConfigOption
from mtlskit.cli.heroku_api import AddonOption, addons_of, config_for, named_by, run_with_heroku, settings_for
from mtlskit.cli.options import JsonOption, LogOption, QuietOption, wants_json
from mtlskit.cli.render import line, print_json, reported

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network

    from mtlskit.allowlist.applied import Applied
    from mtlskit.allowlist.gather import Found
    from mtlskit.heroku.client import Heroku

__all__ = ["ADD_EPILOG", "REMOVE_EPILOG", "add", "remove"]

ADD_EPILOG = """\b
Examples:
  mtlskit allowlist add 203.0.113.7 --addon postgresql-curved-12345 --description office --wait
  mtlskit allowlist add --my-ip --addon postgresql-curved-12345 --description "build host" --wait
  mtlskit allowlist add 198.51.100.0/24 203.0.113.0/28 --addon postgresql-curved-12345 --addon kafka-rigid-4711

A rule acts 10 to 15 minutes after it was made; --wait returns when all of them do. A range that has a rule already gets
no second one. To keep the list in a file instead: mtlskit allowlist apply.

\b
Exit status:
  0  done
  1  it failed, or --timeout ended before all rules act: what was done is told
  2  wrong usage or configuration"""

REMOVE_EPILOG = """\b
Examples:
  mtlskit allowlist remove 203.0.113.7 --addon postgresql-curved-12345 --yes

Whoever made the rule, it is removed at once. Connections that are open stay open."""

_DESCRIPTION = "added with mtlskit"
"""Heroku's own clients have had trouble with rules that have none."""


def add(
    ranges: Annotated[list[str] | None, typer.Argument(metavar="CIDR", hidden=True)] = None,
    mine: Annotated[bool, typer.Option("--my-ip", help="The address that this host is seen with.")] = False,
    spaces: SpacesOption = None,
    addon: AddonOption = None,
    description: Annotated[
        str,
        typer.Option("--description", metavar="TEXT", show_default=False, help="What the rule is for."),
    ] = _DESCRIPTION,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the rules act.")] = False,
    timeout: TimeoutOption = "30m",
    wide: Annotated[
        bool, typer.Option("--i-mean-it", help="Take a range that lets very many in, such as 0.0.0.0/0.")
    ] = False,
    source: SourceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    log: LogOption = "text",
    quiet: QuietOption = False,
) -> None:
    """Let ranges of addresses in, at every add-on that is named."""
    plain = as_json or wants_json(log)
    with reported(as_json=plain, on_interrupt=partial(interrupted, as_json=plain)):
        from mtlskit.allowlist.gather import gather
        from mtlskit.allowlist.owner import NOBODY
        from mtlskit.allowlist.plan import Wanted
        from mtlskit.allowlist.several import add_rules
        from mtlskit.allowlist.wanted import space_rules
        from mtlskit.errors import Code, ConfigError

        if not (ranges or mine or spaces):
            hint = "add one: CIDR, --my-ip for this host's own address, or --from-space SPACE"
            raise ConfigError(Code.USAGE, "no range is named", hint)
        show = shown(log, quiet=quiet)
        patience = seconds_of(timeout) if wait else None
        named = parse_ranges(ranges or (), wide_ok=wide)
        told = _checked(description)
        loaded = config_for(config, named=bool(addon), as_json=as_json)
        addons = addons_of(loaded, named=addon)

        async def work(heroku: Heroku) -> Applied:
            from ipaddress import IPv4Network

            found = await gather(heroku.data, heroku.platform, addons, named_by=named_by(loaded, named=addon))
            own = [IPv4Network(await my_address(my_ip_of(loaded), source))] if mine else []
            theirs = [rule.cidr for space in spaces or () for rule in await space_rules(heroku.platform, space)]
            wanted = [Wanted(cidr, told, "flag") for cidr in dict.fromkeys((*named, *own, *theirs))]
            go_on = f"{again('add', addons, [want.cidr for want in wanted])} --wait"
            add_all = partial(add_rules, heroku.data, found, wanted, owner=NOBODY, wait=patience)
            return await show.during(partial(add_all, emit=show.emit, again=go_on))

        _tell(run_with_heroku(loaded, work, emit=show.emit, as_json=as_json), as_json=as_json)


def remove(
    ranges: Annotated[list[str], typer.Argument(metavar="CIDR", hidden=True)],
    addon: AddonOption = None,
    yes: YesOption = False,
    lock_me_out: LockMeOutOption = False,
    source: SourceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    log: LogOption = "text",
    quiet: QuietOption = False,
) -> None:
    """Take rules away, at every add-on that is named. The rule that lets this host in stays, unless you insist."""
    plain = as_json or wants_json(log)
    with reported(as_json=plain, on_interrupt=partial(interrupted, as_json=plain)):
        from mtlskit.allowlist.gather import gather
        from mtlskit.allowlist.owner import NOBODY
        from mtlskit.allowlist.several import removal, remove_rules

        show = shown(log, quiet=quiet)
        named = parse_ranges(ranges, any_ok=True)
        loaded = config_for(config, named=bool(addon), as_json=as_json)
        addons = addons_of(loaded, named=addon)
        settings = settings_for(loaded, emit=show.emit, as_json=as_json)

        async def look(heroku: Heroku) -> tuple[tuple[Found, ...], frozenset[IPv4Address] | None]:
            found = await gather(heroku.data, heroku.platform, addons, named_by=named_by(loaded, named=addon))
            me = None if lock_me_out else await addresses_or_none(my_ip_of(loaded), source)
            removal(found, named, owner=NOBODY, me=me, lock_me_out=lock_me_out)
            return found, me

        found, me = run_with_heroku(loaded, look, emit=show.emit, settings=settings, as_json=as_json)
        if not yes and not agreed(_question(found, named)):
            line("nothing was removed")
            raise typer.Exit(1)

        async def work(heroku: Heroku) -> Applied:
            return await remove_rules(
                heroku.data,
                found,
                named,
                owner=NOBODY,
                me=me,
                lock_me_out=lock_me_out,
                emit=show.emit,
                again=f"{again('remove', addons, named)} --yes",
            )

        _tell(run_with_heroku(loaded, work, emit=show.emit, settings=settings, as_json=as_json), as_json=as_json)


def _question(found: Sequence[Found], named: Sequence[IPv4Network]) -> str:
    from mtlskit.allowlist.coverage import network_of
    from mtlskit.telemetry.logs import printable

    going = [
        printable(f"{each.addon}: {rule.cidr} {rule.description}").rstrip()
        for each in found
        for rule in each.rules
        if network_of(rule) in named
    ]
    return "Remove\n  " + "\n  ".join(going) + "\nat once?"


def _checked(description: str) -> str:
    """Raises `ConfigError` (USAGE) for a description that would not come back as it is."""
    from mtlskit.allowlist.owner import owner_of
    from mtlskit.errors import Code, ConfigError

    text = description.strip()
    if not text or len(text) > 200 or not text.isprintable():
        raise ConfigError(Code.USAGE, "--description: must be 1 to 200 printable characters", 'such as "office Berlin"')
    if owner_of(text) is not None:
        raise ConfigError(
            Code.USAGE,
            "--description: ends with the tag of an owner, who would remove the rule",
            "leave the tag out; `mtlskit allowlist apply` sets its own",
        )
    return text


def _tell(applied: Applied, *, as_json: bool) -> None:
    if as_json:
        print_json(plain_applied(applied))
    else:
        show_applied(applied)
