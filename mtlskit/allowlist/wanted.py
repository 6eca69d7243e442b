"""What an allowlist of the file wants let in: its own rules, my address, spaces, and lists that others publish."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

import trio

from mtlskit.allowlist.api import SpaceApi
from mtlskit.allowlist.collapse import collapse
from mtlskit.allowlist.events import ListRead
from mtlskit.allowlist.listed import read_listed
from mtlskit.allowlist.plan import MY_ADDRESS, Wanted
from mtlskit.allowlist.sources import read_source
from mtlskit.config.cidrs import parse_cidr
from mtlskit.config.values import AllowlistConfig
from mtlskit.errors import AllowlistError, Code, ConfigError, HerokuError, MtlskitError
from mtlskit.telemetry import Emit, silent

__all__ = ["my_address_rules", "space_rules", "wanted_of"]

_NAT_ENABLED: Final = "enabled"

Read = Callable[[str], Awaitable[bytes]]


async def wanted_of(
    config: AllowlistConfig,
    platform: SpaceApi,
    *,
    me: Collection[IPv4Address] | None = None,
    read: Read = read_source,
    emit: Emit = silent,
) -> tuple[Wanted, ...]:
    """Everything that `config` wants let in; spaces and lists are asked for at once.

    `me` are the addresses of this host (`mtlskit.allowlist.my_ip`), needed with `my_ip = true`. The first error is
    raised: `AllowlistError` (ALLOW_MY_IP_UNKNOWN, ALLOW_SOURCE), `HerokuError`, `ConfigError` for what a list holds.
    """
    asked = [*(("space", name) for name in config.spaces), *(("list", source) for source in config.rules_from)]
    got: dict[tuple[str, str], Sequence[Wanted] | MtlskitError] = {}

    async def ask(kind: str, name: str) -> None:
        try:
            if kind == "space":
                got[kind, name] = await space_rules(platform, name)
            else:
                listed = read_listed(await read(name), source=name)
                # Without what follows a "?", which may be a key.
                emit(ListRead(source=name.partition("?")[0], rules=len(listed.wanted), left_out=listed.ipv6))
                got[kind, name] = listed.wanted
        except MtlskitError as exc:
            got[kind, name] = exc

    async with trio.open_nursery() as nursery:
        for kind, name in dict.fromkeys(asked):
            nursery.start_soon(ask, kind, name)
    wanted = [Wanted(rule.cidr, rule.description, "file") for rule in config.rules]
    mine = my_address_rules(me) if config.my_ip else ()
    for key in dict.fromkeys(asked):
        found = got[key]
        if isinstance(found, MtlskitError):
            raise found
        wanted += found
    if not config.collapse:
        return (*wanted, *mine)
    # My address keeps a rule of its own, by which it is known again when it changes; within another it needs none.
    joined = collapse(wanted)
    return (*joined, *(each for each in mine if not any(each.cidr.subnet_of(other.cidr) for other in joined)))


def my_address_rules(me: Collection[IPv4Address] | None) -> tuple[Wanted, ...]:
    """A rule for each address of this host. Raises `AllowlistError` (ALLOW_MY_IP_UNKNOWN) where none is known."""
    if not me:
        raise AllowlistError(
            Code.ALLOW_MY_IP_UNKNOWN,
            "this host's own address is to be let in, and it is not known",
            "see who can be asked: mtlskit my-ip",
        )
    return tuple(Wanted(IPv4Network(address), MY_ADDRESS, "my-ip") for address in sorted(me))


async def space_rules(platform: SpaceApi, name: str) -> tuple[Wanted, ...]:
    """A rule for each stable outbound address of a Private Space. Raises `HerokuError`, `AllowlistError`."""
    nat = await platform.space_nat(name)
    if nat.state.casefold() != _NAT_ENABLED or not nat.sources:
        raise AllowlistError(
            Code.ALLOW_SOURCE,
            f"space {name}: its stable outbound addresses are {nat.state or 'not told'}, and cannot be relied on",
            "wait until they are enabled: heroku spaces:info",
        )
    try:
        ranges = [parse_cidr(source) for source in nat.sources]
    except ConfigError as exc:
        raise HerokuError(
            Code.API_RUBBISH, f"space {name}: one of its outbound addresses cannot be taken: {exc.sentence}", exc.hint
        ) from exc
    return tuple(Wanted(cidr, f"space {name}", f"space:{name}") for cidr in ranges)
