"""What the commands of `mtlskit allowlist` share: options, this host's address, and asking Heroku what is there."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mtlskit.cli.render import warn
from mtlskit.cli.usage import harmless

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network

    from mtlskit.cli.waiting import Progress
    from mtlskit.config.values import AllowlistConfig, MyIpConfig, ProxyConfig
    from mtlskit.telemetry import Emit

_T = TypeVar("_T")

__all__ = [
    "LockMeOutOption",
    "Shown",
    "SourceOption",
    "SpacesOption",
    "TimeoutOption",
    "YesOption",
    "addresses_or_none",
    "interrupted",
    "my_address",
    "parse_ranges",
    "places_of",
    "seconds_of",
    "shown",
]

LockMeOutOption = Annotated[
    bool, typer.Option("--lock-me-out", help="Remove the rule that lets this very host in, too.")
]
TimeoutOption = Annotated[
    str,
    typer.Option(
        "--timeout", metavar="DURATION", show_default=False, help="How long to wait for rules to act. Default: 30m."
    ),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="IP", show_default=False, help="The local address to ask from, where there are several."
    ),
]
SpacesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--from-space",
        metavar="SPACE",
        show_default=False,
        help="The stable outbound addresses of a Private Space; repeatable.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@dataclass(frozen=True)
class Shown:
    """How a change is shown while it goes on."""

    emit: Emit
    progress: Progress | None
    """None: there is only the log."""

    async def during(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """The result of `work`."""
        return await work() if self.progress is None else await self.progress.during(work)


def shown(log: str, *, quiet: bool) -> Shown:
    """What is told of a change while it goes on. How it ends is told by the command itself."""
    from mtlskit.allowlist.events import AddonFailed, RuleAdded, RuleRemoved
    from mtlskit.cli.options import log_sink, wants_json
    from mtlskit.cli.waiting import Progress
    from mtlskit.telemetry import Event, Level

    sink = log_sink(log, quiet=quiet, verbose=False)
    if quiet or wants_json(log):
        return Shown(sink, None)
    progress = Progress(level=Level.INFO)

    def emit(event: Event) -> None:
        if not isinstance(event, AddonFailed | RuleAdded | RuleRemoved):
            progress.emit(event)

    return Shown(emit, progress)


def interrupted(*, as_json: bool) -> None:
    """Say what Ctrl-C has left."""
    warn("interrupted; what was changed stays, and the same command goes on with the rest", as_json=as_json)


def seconds_of(timeout: str) -> float:
    """`--timeout` in seconds. Raises `ConfigError`."""
    from mtlskit.config.durations import parse_duration
    from mtlskit.errors import ConfigError

    try:
        return parse_duration(timeout)
    except ConfigError as exc:
        raise ConfigError(exc.code, f"--timeout: {exc.sentence}", exc.hint) from exc


def parse_ranges(texts: Iterable[str], *, wide_ok: bool = False, any_ok: bool = False) -> tuple[IPv4Network, ...]:
    """CIDRs of the command line, each once; `any_ok` for those that are to go. Raises `ConfigError`."""
    from mtlskit.config.cidrs import parse_cidr

    parsed = [parse_cidr(harmless(text), wide_ok=wide_ok or any_ok, private_ok=any_ok) for text in texts]
    return tuple(dict.fromkeys(parsed))


async def my_address(config: MyIpConfig, source: str | None) -> IPv4Address:
    """The one address that others see this host with.

    Raises `AllowlistError` (ALLOW_MY_IP_UNKNOWN, ALLOW_MY_IP_DISAGREE), `ConfigError`.
    """
    from mtlskit.allowlist.my_ip import my_addresses, services_of
    from mtlskit.errors import AllowlistError, Code

    services = services_of(os.environ, config)
    found = await my_addresses(services, source=source or config.source, trusted_only=True)
    if found.agreed is None:
        told = ", ".join(str(address) for address in sorted(found.addresses))
        raise AllowlistError(
            Code.ALLOW_MY_IP_DISAGREE,
            f"this host is seen with several addresses: {told}",
            "see who says what: mtlskit my-ip; then name the range, or all of them: mtlskit allowlist add CIDR…",
        )
    return found.agreed


async def addresses_or_none(config: MyIpConfig, source: str | None = None) -> frozenset[IPv4Address] | None:
    """Every address that this host is seen with, for a change that must not lock it out; None: not known.

    Raises `ConfigError`.
    """
    from mtlskit.allowlist.my_ip import my_addresses, services_of
    from mtlskit.errors import AllowlistError

    services = services_of(os.environ, config)
    try:
        # As careful as with adding: one service alone must not make us believe that a rule is not ours.
        return (await my_addresses(services, source=source or config.source, trusted_only=True)).addresses
    except AllowlistError:
        return None


def my_ip_of(config: ProxyConfig | None) -> MyIpConfig:
    """The table [my_ip], or its defaults."""
    from mtlskit.config.values import MyIpConfig

    return config.my_ip if config is not None else MyIpConfig()


def places_of(lists: Iterable[AllowlistConfig]) -> dict[str, str]:
    """Where each of their add-ons is named, for errors about it."""
    places: dict[str, list[str]] = {}
    for each in lists:
        for addon in each.addons:
            places.setdefault(addon, []).append(each.addons_named_by)
    return {addon: " and ".join(filter(None, found)) for addon, found in places.items()}


def again(command: str, addons: Sequence[str], ranges: Iterable[IPv4Network]) -> str:
    """The command line that takes up what was left."""
    named = " ".join(f"--addon {addon}" for addon in addons)
    return f"mtlskit allowlist {command} {' '.join(map(str, ranges))} {named}"
