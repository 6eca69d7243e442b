"""What every command that talks to Heroku is made of: the settings, the client, trio, and which add-ons are meant."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mtlskit.cli.render import warn
from mtlskit.cli.usage import harmless
from mtlskit.errors import MtlskitError
from mtlskit.telemetry import Emit, Event, Level

if TYPE_CHECKING:
    from mtlskit.config.values import ProxyConfig
    from mtlskit.heroku.client import Heroku, TwoFactor
    from mtlskit.heroku.settings import Settings

__all__ = [
    "AddonOption",
    "AddonsArgument",
    "addons_of",
    "config_for",
    "each_addon",
    "named_by",
    "run_with_heroku",
    "second_factor",
    "settings_for",
    "unwrapped",
]

_T = TypeVar("_T")

_ADDON = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
"""Names and ids of add-ons. It becomes a part of a path, so nothing else gets there."""

AddonsArgument = Annotated[list[str] | None, typer.Argument(metavar="ADDON", hidden=True)]
AddonOption = Annotated[
    list[str] | None,
    typer.Option(
        "--addon", metavar="NAME", show_default=False, help="An add-on; repeatable. Default: those of the file."
    ),
]


def config_for(path: Path | None, *, named: bool, as_json: bool = False) -> ProxyConfig | None:
    """The configuration file, or None where none was named and none is found.

    Where add-ons are `named` on the command line, a file that nobody has asked for and that cannot be used is only a
    warning: it would have said where the API is, and no more. Raises `ConfigError`.
    """
    from mtlskit.cli.chosen import load
    from mtlskit.config.locate import VARIABLE
    from mtlskit.errors import Code, ConfigError

    asked_for = path is not None or bool(os.environ.get(VARIABLE))
    try:
        return load(path)
    except ConfigError as exc:
        if asked_for or not (named or exc.code is Code.CONFIG_NOT_FOUND):
            raise
        if exc.code is not Code.CONFIG_NOT_FOUND:
            warn(f"{exc.sentence}; so its table [heroku] is not known, and does not count", as_json=as_json)
        return None


def addons_of(
    config: ProxyConfig | None, positional: Sequence[str] | None = None, named: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The add-ons that are meant, each once: those on the command line, else every one that the file names.

    The file names them in identities that Heroku issues, in allowlists and in tunnels. Raises `ConfigError` (USAGE).
    """
    from mtlskit.errors import Code, ConfigError

    given = [*(positional or ()), *(named or ())]
    for name in given:
        if not _ADDON.fullmatch(name):
            raise ConfigError(
                Code.USAGE,
                f"{harmless(name) or 'an empty text'}: not the name of an add-on",
                "write it as `heroku addons` shows it, such as postgresql-curved-12345",
            )
    found = tuple(dict.fromkeys(given)) or (_addons_in(config) if config is not None else ())
    if not found:
        where = f"{config.source} names none" if config is not None else "there is no configuration file"
        raise ConfigError(
            Code.USAGE, f"no add-on is named, and {where}", "name one: --addon NAME; `heroku addons` shows them"
        )
    return found


def _addons_in(config: ProxyConfig) -> tuple[str, ...]:
    from mtlskit.config.values import IssuerKind

    found = [each.issuer.addon for each in config.identities if each.issuer.kind is IssuerKind.HEROKU]
    found += [addon for allowlist in config.allowlists for addon in allowlist.addons]
    found += [tunnel.addon for tunnel in config.tunnels]
    return tuple(dict.fromkeys(addon for addon in found if addon))


def named_by(
    config: ProxyConfig | None, positional: Sequence[str] | None = None, named: Sequence[str] | None = None
) -> dict[str, str]:
    """Where each of the add-ons that `addons_of` gives is named, for errors about it: a flag, or keys of the file."""
    given = dict.fromkeys(positional or (), "an argument") | dict.fromkeys(named or (), "--addon")
    if given or config is None:
        return given
    places: dict[str, list[str]] = {}
    for identity in config.identities:
        places.setdefault(identity.issuer.addon or "", []).append(identity.issuer.addon_named_by)
    for allowlist in config.allowlists:
        for addon in allowlist.addons:
            places.setdefault(addon, []).append(allowlist.addons_named_by)
    for tunnel in config.tunnels:
        places.setdefault(tunnel.addon or "", []).append(tunnel.addon_named_by)
    return {addon: " and ".join(filter(None, dict.fromkeys(found))) for addon, found in places.items()}


def settings_for(config: ProxyConfig | None, *, emit: Emit | None = None, as_json: bool = False) -> Settings:
    """Hosts and token for this user. `emit`: None for warnings on the error stream.

    Raises `ConfigError` (API_HOST, API_NO_TOKEN).
    """
    from mtlskit.config.values import HerokuConfig
    from mtlskit.heroku.settings import settings_from

    chosen = config.heroku if config is not None else HerokuConfig()
    return settings_from(os.environ, chosen, emit=emit or _warnings(as_json))


def _warnings(as_json: bool) -> Emit:
    def emit(event: Event) -> None:
        if event.level >= Level.WARNING:
            warn(event.sentence(), as_json=as_json)

    return emit


def run_with_heroku(
    config: ProxyConfig | None,
    work: Callable[[Heroku], Awaitable[_T]],
    *,
    emit: Emit | None = None,
    settings: Settings | None = None,
    as_json: bool = False,
) -> _T:
    """Open the client, run `work` under trio, and return its result.

    `emit`: None for warnings on the error stream, such as that Heroku is slow. `settings`: those of an earlier call, so
    that the token is not looked for twice. An error that comes alone in exception groups is raised by itself. Raises
    what `work` does, `ConfigError` and `HerokuError`.
    """
    import trio

    from mtlskit.heroku.client import open_heroku

    emit = emit or _warnings(as_json)
    chosen = settings or settings_for(config, emit=emit)

    async def run() -> _T:
        async with open_heroku(chosen, two_factor=second_factor(), emit=emit) as heroku:
            return await work(heroku)

    try:
        return trio.run(run)
    except BaseExceptionGroup as group:
        only = _only(group)
        if only is None:
            raise
        raise only from group


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one exception that the group holds, however deep; None for several."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        if len(found.exceptions) != 1:
            return None
        found = found.exceptions[0]
    return found


def unwrapped(exc: BaseException) -> MtlskitError | None:
    """The first error of ours in `exc`, which may be a group or such an error itself."""
    if isinstance(exc, BaseExceptionGroup):
        return next((found for each in exc.exceptions if (found := unwrapped(each)) is not None), None)
    return exc if isinstance(exc, MtlskitError) else None


async def each_addon(
    addons: Sequence[str], work: Callable[[str], Awaitable[_T]], places: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, _T], dict[str, MtlskitError]]:
    """Do `work` for every add-on at once: results and errors by add-on, in the order of `addons`.

    `places`: where each is named, for errors about it. One add-on's failure does not stop the others. How many requests
    run at once is the client's affair.
    """
    import trio

    from mtlskit.heroku.named_by import told_who_named_it

    done: dict[str, _T] = {}
    failed: dict[str, MtlskitError] = {}

    async def one(addon: str) -> None:
        try:
            done[addon] = await work(addon)
        except* MtlskitError as group:
            error = unwrapped(group)
            if error is not None:
                failed[addon] = told_who_named_it(error, places.get(addon, ""))

    async with trio.open_nursery() as nursery:
        for addon in addons:
            nursery.start_soon(one, addon)
    return {each: done[each] for each in addons if each in done}, {
        each: failed[each] for each in addons if each in failed
    }


def second_factor() -> TwoFactor | None:
    """Who asks for the code of a second factor: the person at the terminal; None where there is none."""
    return _ask_for_code if sys.stdin.isatty() and sys.stderr.isatty() else None


async def _ask_for_code() -> str | None:
    """No thread reads the terminal: one that still waits there at the end would keep Python from ending cleanly."""
    import trio

    typer.echo("Two-factor code: ", nl=False, err=True)
    if os.name == "posix":
        await trio.lowlevel.wait_readable(sys.stdin.fileno())
    return sys.stdin.readline().strip() or None
