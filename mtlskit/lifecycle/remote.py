"""Which certificates Heroku has for the add-ons of our identities, and where each of them is in use. Changes nothing.

Heroku's list has no serials and the running proxies know no ids, so the store stands between them: its versions and
its journals know both. What neither knows of was made by somebody else, or by a run that was killed; that is worth
seeing, because nobody here will ever take it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mtlskit.config.values import IdentityConfig, IssuerKind, ProxyConfig
from mtlskit.control.client import running, status_of
from mtlskit.control.places import Place, check_folder
from mtlskit.errors import ConfigError, ControlError, StoreError
from mtlskit.heroku.values import AddonKind, RemoteCertificate
from mtlskit.issuers.heroku_api import HerokuCalls
from mtlskit.issuers.heroku_kafka import kafka_vars
from mtlskit.pki.certificates import load_certificates, serial_text
from mtlskit.store.identities import Store
from mtlskit.store.journal import BEGUN, Journal

__all__ = [
    "FarCertificate",
    "Holding",
    "Serving",
    "Uses",
    "addons_in_use",
    "far_certificates",
    "holdings",
    "kind_known",
    "look_at_proxies",
]


@dataclass(frozen=True)
class FarCertificate:
    """One certificate that Heroku has. `serial`, lower-case hexadecimal, is known of an app's credential only."""

    id: str
    """Of an app's credential: the config var that holds it."""
    status: str
    expires_at: datetime | None
    created_at: str = ""
    name: str = ""
    serial: str = ""


@dataclass(frozen=True)
class Holding:
    """Where the store has a certificate. `version`: None where only a journal still knows of it."""

    identity: str
    serial: str
    version: int | None = None
    current: bool = False
    rotation: str = ""


@dataclass(frozen=True)
class Serving:
    """A proxy that serves a certificate, or has sessions that were opened with it."""

    pid: int
    tunnels: tuple[str, ...]
    sessions: int


@dataclass(frozen=True)
class Uses:
    """What the proxies said, by serial; and why that may not be all of it."""

    by_serial: Mapping[str, tuple[Serving, ...]]
    problem: str = ""


def addons_in_use(config: ProxyConfig) -> dict[str, tuple[IdentityConfig, ...]]:
    """The identities that Heroku issues, by add-on, in the order of the file."""
    found: dict[str, tuple[IdentityConfig, ...]] = {}
    for identity in config.identities:
        if identity.issuer.kind is IssuerKind.HEROKU and (addon := identity.issuer.addon):
            found[addon] = (*found.get(addon, ()), identity)
    return found


async def far_certificates(heroku: HerokuCalls, addon: str, known: AddonKind | None) -> list[FarCertificate]:
    """Every certificate of an add-on. `known`: what the store says the add-on is, which spares a question.

    Raises `HerokuError`, `RotationError`, and `IdentityError` for a config var that holds no certificate.
    """
    if known is not AddonKind.POSTGRES:
        found = await heroku.platform.addon(addon)
        if found.kind is AddonKind.KAFKA:
            held = kafka_vars(found, await heroku.platform.config_vars(found.app))
            place = f"{held.attachment}_CLIENT_CERT of {held.app}"
            leaf = load_certificates(held.certificate.encode("utf-8"), source=place)[0]
            return [FarCertificate(place, "in the config vars", leaf.not_valid_after_utc, serial=serial_text(leaf))]
    return [_plain(each) for each in await heroku.data.certificates(addon)]


def _plain(each: RemoteCertificate) -> FarCertificate:
    return FarCertificate(each.id, each.status, each.expires_at, each.created_at, each.name)


def holdings(config: ProxyConfig, identities: Iterable[IdentityConfig]) -> tuple[dict[str, list[Holding]], list[str]]:
    """What the store knows of certificates of these identities, by the id at Heroku and by serial; and its problems."""
    found: dict[str, list[Holding]] = {}
    problems = []
    for identity in identities:
        try:
            for keys, holding in _held(config, identity):
                for key in filter(None, keys):
                    found.setdefault(key, []).append(holding)
        except StoreError as exc:
            problems.append(exc.sentence)
    return found, problems


def _held(config: ProxyConfig, identity: IdentityConfig) -> Iterator[tuple[Sequence[str | None], Holding]]:
    """With the keys under which each is found. Raises `StoreError`."""
    if config.store is None:
        return
    stored = Store(config.store).identity(identity.name)
    current = stored.current()
    seen: set[str] = set()
    for version in stored.versions():
        facts = version.facts
        if facts.origin in ("", identity.issuer.addon):
            seen |= {facts.remote_id or "", facts.serial}
            in_use = current is not None and current.number == version.number
            yield (facts.remote_id, facts.serial), Holding(identity.name, facts.serial, version.number, in_use)
    for rotation in Journal(stored.journal_path).rotations():
        begun, staged = rotation.facts(BEGUN), rotation.facts("stage")
        if begun.get("origin") not in (None, "", identity.issuer.addon):
            continue
        receipt = rotation.facts("request").get("receipt") or {}
        for id, serial in (  # noqa: A001 - the API's word
            (staged.get("remote_id") or receipt.get("id"), staged.get("serial")),
            (begun.get("old_remote_id"), begun.get("old_serial")),
        ):
            if id and id not in seen:
                seen.add(str(id))
                yield (str(id),), Holding(identity.name, str(serial or ""), rotation=rotation.id)


def kind_known(config: ProxyConfig, identities: Iterable[IdentityConfig]) -> AddonKind | None:
    """What the store knows an add-on to be, by what it has got from there; None where it does not."""
    if config.store is None:
        return None
    for identity in identities:
        try:
            versions = Store(config.store).identity(identity.name).versions()
        except StoreError:
            continue
        for version in versions:
            if version.facts.origin == identity.issuer.addon and version.facts.remote_id:
                return AddonKind.POSTGRES
    return None


async def look_at_proxies(place: Place) -> Uses:
    """Which certificates the running proxies serve. A proxy that cannot be asked is a problem, and no error."""
    found: dict[str, list[Serving]] = {}
    problems = []
    try:
        check_folder(place)
        proxies = await running(place.folder)
    except (ControlError, ConfigError) as exc:
        return Uses({}, exc.sentence)
    for proxy in proxies:
        try:
            status = await status_of(proxy)
        except ControlError as exc:
            problems.append(f"process {proxy.pid}: {exc.sentence}")
            continue
        for serial, serving in _served(proxy.pid, status).items():
            found.setdefault(serial, []).append(serving)
    return Uses({serial: tuple(each) for serial, each in found.items()}, "; ".join(problems))


def _served(pid: int, status: Mapping[str, Any]) -> dict[str, Serving]:
    tunnels: dict[str, list[str]] = {}
    sessions: dict[str, int] = {}
    for tunnel in status.get("tunnels", ()):
        by_serial = tunnel.get("sessions_by_serial") or {}
        serial = (tunnel.get("identity") or {}).get("serial")
        for each in dict.fromkeys([*([serial] if serial else []), *by_serial]):
            sessions[each] = sessions.get(each, 0) + int(by_serial.get(each, 0))
            if each == serial or by_serial.get(each):
                tunnels.setdefault(each, []).append(str(tunnel.get("name")))
    return {serial: Serving(pid, tuple(names), sessions[serial]) for serial, names in tunnels.items()}
