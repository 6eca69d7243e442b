"""`mtlskit certs list --remote`: what Heroku has, and where each certificate is in use."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtlskit.cli.chosen import HerokuDoor, control_folder
from mtlskit.cli.render import colourful, fail, line
from mtlskit.cli.table import Cell, Column, table
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.config.values import IdentityConfig, ProxyConfig
    from mtlskit.errors import MtlskitError
    from mtlskit.lifecycle.remote import FarCertificate, Holding, Uses

__all__ = ["Remote", "look_far", "remote_json", "tell_remote"]

NOT_OURS = "not of this store"

_YELLOW, _DIM = "\x1b[33m", "\x1b[2m"

_COLUMNS = (
    Column("ADD-ON", least=12, missable=2),
    Column("CERTIFICATE"),  # what `certs revoke --id` takes
    Column("STATUS"),
    Column("EXPIRES (UTC)", missable=1),
    Column("IN USE", least=20),
)


@dataclass(frozen=True)
class _Addon:
    """One add-on's certificates, or the error that came instead."""

    name: str
    identities: tuple[str, ...]
    certificates: Sequence[FarCertificate] = ()
    holdings: Mapping[str, Sequence[Holding]] = field(default_factory=dict)
    """By id and by serial."""
    error: MtlskitError | None = None


@dataclass(frozen=True)
class Remote:
    """Everything that was found, and what keeps it from being all."""

    addons: tuple[_Addon, ...]
    uses: Uses
    problems: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Heroku could not be asked about one of the add-ons."""
        return any(addon.error is not None for addon in self.addons)


def look_far(config: ProxyConfig) -> Remote:
    """Ask Heroku, the store and the running proxies. Raises `ConfigError` where there is no token."""
    import trio

    from mtlskit.control.places import control_place
    from mtlskit.lifecycle.remote import Uses, addons_in_use, look_at_proxies
    from mtlskit.telemetry import silent

    addons = addons_in_use(config)
    if not addons:
        return Remote((), Uses({}), ())
    door = HerokuDoor(config, silent)
    door.prepare()

    async def work() -> Remote:
        uses = await look_at_proxies(control_place(control_folder() or config.control, os.environ))
        found, problems = await _ask_all(config, addons, door)
        return Remote(tuple(found[name] for name in addons), uses, tuple(filter(None, (uses.problem, *problems))))

    return trio.run(work)


async def _ask_all(
    config: ProxyConfig, addons: Mapping[str, tuple[IdentityConfig, ...]], door: HerokuDoor
) -> tuple[dict[str, _Addon], list[str]]:
    """All add-ons at once, as far as the client's own limit lets them."""
    import trio

    from mtlskit.lifecycle.remote import holdings

    found: dict[str, _Addon] = {}
    problems: list[str] = []

    async def one(addon: str, identities: tuple[IdentityConfig, ...], heroku: Any) -> None:
        from mtlskit.errors import MtlskitError
        from mtlskit.heroku.named_by import told_who_named_it
        from mtlskit.lifecycle.remote import far_certificates, kind_known

        names = tuple(identity.name for identity in identities)
        held, wrong = holdings(config, identities)
        problems.extend(wrong)
        try:
            certificates = await far_certificates(heroku, addon, kind_known(config, identities))
        except MtlskitError as exc:
            places = " and ".join(filter(None, (each.issuer.addon_named_by for each in identities)))
            found[addon] = _Addon(addon, names, error=told_who_named_it(exc, places))
        else:
            found[addon] = _Addon(addon, names, certificates, held)

    async with door.opened() as heroku, trio.open_nursery() as nursery:
        for addon, identities in addons.items():
            nursery.start_soon(one, addon, identities, heroku)
    return found, problems


# For scripts.


def remote_json(remote: Remote) -> dict[str, Any]:
    """By add-on."""
    return {
        "remote": [_plain(addon, remote.uses) for addon in remote.addons],
        "remote_problems": list(remote.problems),
    }


def _plain(addon: _Addon, uses: Uses) -> dict[str, Any]:
    error = addon.error
    return {
        "addon": addon.name,
        "identities": list(addon.identities),
        "error": None if error is None else {"code": error.code.value, "reason": error.sentence, "hint": error.hint},
        "certificates": [_plain_certificate(each, addon, uses) for each in addon.certificates],
    }


def _plain_certificate(each: FarCertificate, addon: _Addon, uses: Uses) -> dict[str, Any]:
    holdings = _holdings(each, addon)
    serial = _serial(each, holdings)
    return {
        "id": each.id,
        "name": each.name or None,
        "status": each.status,
        "created_at": each.created_at or None,
        "expires_at": None if each.expires_at is None else each.expires_at.isoformat(timespec="seconds"),
        "serial": serial or None,
        "of_this_store": bool(holdings),
        "held_by": [
            {
                "identity": held.identity,
                "version": held.version,
                "current": held.current,
                "rotation": held.rotation or None,
            }
            for held in holdings
        ],
        "proxies": [
            {"pid": serving.pid, "tunnels": list(serving.tunnels), "sessions": serving.sessions}
            for serving in uses.by_serial.get(serial, ())
        ],
    }


def _holdings(each: FarCertificate, addon: _Addon) -> Sequence[Holding]:
    return addon.holdings.get(each.serial or each.id, ())


def _serial(each: FarCertificate, holdings: Sequence[Holding]) -> str:
    return each.serial or next((held.serial for held in holdings if held.serial), "")


# For people.


def tell_remote(remote: Remote) -> None:
    """A table, and what is wrong below it. Errors go to the error stream."""
    if not remote.addons:
        line("no identity has its certificates from Heroku")
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    colour = colourful(sys.stdout)
    rows = [row for addon in remote.addons for row in _rows(addon, remote.uses, colour=colour)]
    if rows:
        line("\n".join(table(_COLUMNS, rows, width=width)))
    for addon in remote.addons:
        if addon.error is None and not addon.certificates:
            line(f"{addon.name}: no certificates")
    for problem in remote.problems:
        line(f"not known in full: {printable(problem)}")
    for addon in remote.addons:
        if addon.error is not None:
            fail(addon.error)


def _rows(addon: _Addon, uses: Uses, *, colour: bool) -> Iterator[list[Cell]]:
    for each in addon.certificates:
        holdings = _holdings(each, addon)
        expires = "-" if each.expires_at is None else f"{each.expires_at:%Y-%m-%d %H:%M}"
        over = each.status.casefold() in ("disabled", "disabling")
        shade = (_DIM if over else "" if holdings else _YELLOW) if colour else ""
        yield [
            Cell(printable(addon.name)),
            Cell(printable(each.id)),
            Cell(printable(each.status) or "-", shade),
            Cell(expires),
            Cell(_told(each, holdings, uses), shade),
        ]


def _told(each: FarCertificate, holdings: Sequence[Holding], uses: Uses) -> str:
    parts = [_of_store(held) for held in holdings] or [NOT_OURS]
    for serving in uses.by_serial.get(_serial(each, holdings), ()):
        count = f", {serving.sessions} session{'' if serving.sessions == 1 else 's'}"
        parts.append(f"process {serving.pid} ({printable(', '.join(serving.tunnels))}{count})")
    return "; ".join(parts)


def _of_store(held: Holding) -> str:
    if held.version is None:
        return f"{printable(held.identity)}: made by rotation {held.rotation}, and replaced or given up since"
    return f"{printable(held.identity)} version {held.version}{', current' if held.current else ''}"
