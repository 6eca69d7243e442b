"""Every identity there is: those of the configuration, and those that only the store knows. Nothing is changed.

Two looks are to be had. `take_stock` is quick: it reads both files of an identity, and decodes the certificate: nothing
else is a witness of its dates. Whether the key belongs to it is not looked at, because an RSA key costs up to a quarter
of a second. `examine` does what the proxy does when it loads the identity, short of TLS itself.

What is wrong with one identity becomes its state, and never keeps the others from being seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from mtlskit.config.values import IdentityConfig, IssuerKind, ProxyConfig, RenewBefore
from mtlskit.errors import Code, MtlskitError, StoreError
from mtlskit.lifecycle.decide import Decision, State, decide
from mtlskit.lifecycle.following import reset_command
from mtlskit.net.files import read_private, read_public
from mtlskit.net.identity import pair_of, resolved, trust_of
from mtlskit.pki.certificates import load_certificates, serial_text, subject_text
from mtlskit.pki.chains import assemble
from mtlskit.store.identities import Store, StoredIdentity, Version
from mtlskit.store.journal import ABANDONED, DONE, FAILED, Journal, Rotation

__all__ = ["Condition", "Inventory", "Item", "examine", "take_stock"]


_LAST_LINE = 1024
"""Bytes. A rotation's last line has its number, the time and few facts."""
_ENDED = re.compile(rb'\{[^{}\n]*"step":"(?:%s|%s)"[^{}\n]*\}\n\Z' % (DONE.encode("ascii"), ABANDONED.encode("ascii")))


_RIGHTS = frozenset(
    {
        Code.STORE_UNUSABLE,
        Code.FILE_UNREADABLE,
        Code.KEY_EXPOSED,
        Code.KEY_ENCRYPTED,
        Code.KEY_PASSPHRASE_WRONG,
    }
)
"""The pair may be good, and another one would fare no better."""


class Condition(StrEnum):
    """What is to be said of an identity."""

    FINE = "fine"
    DUE = "due"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    NONE_YET = "none yet"
    """Nothing has been issued."""
    PENDING = "pending"
    """The first certificate has been asked for, and is not there yet."""
    DAMAGED = "damaged"
    """The files cannot be read, or are not what they should be."""
    NOT_IN_FILE = "not in the file"
    """The store has it, and the configuration does not name it."""


@dataclass(frozen=True)
class Item:
    """One identity. What is not known is None or empty; the times are aware."""

    name: str
    issuer: str
    condition: Condition
    version: int | None = None
    subject: str = ""
    serial: str = ""
    """Lower-case hexadecimal."""
    not_before: datetime | None = None
    decision: Decision | None = None
    tunnels: tuple[str, ...] = ()
    rotating: bool = False
    """A rotation has begun and is not finished."""
    failed: str = ""
    """Why that rotation did not come further when it was tried last, in a sentence; empty where it only waits."""
    reason: str = ""
    """What is wrong, in a sentence."""
    code: Code | None = None
    todo: str = ""
    """What to do; empty where nothing is to be done."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """Everything that was found, in the order of the file; what the file does not name comes last."""

    items: tuple[Item, ...]
    store: Path | None = None
    reason: str = ""
    """Why the store could not be looked through."""


@dataclass(frozen=True)
class _Found:
    """The certificate of an identity, and the version it stands in."""

    leaf: x509.Certificate
    version: Version | None = None


def take_stock(config: ProxyConfig, now: datetime) -> Inventory:
    """Look at every identity at `now` (aware)."""
    used = _used(config)
    items = [_look(identity, config, used.get(identity.name, ()), now) for identity in config.identities]
    if config.store is None:
        return Inventory(tuple(items))
    store = Store(config.store)
    known = {identity.name for identity in config.identities if identity.issuer.kind is not IssuerKind.FILES}
    try:
        others = [name for name in store.names() if name not in known]
    except StoreError as exc:
        return Inventory(tuple(items), config.store, exc.sentence)
    items.extend(_left_over(store.identity(name), config, now) for name in others)
    return Inventory(tuple(items), config.store)


def examine(config: ProxyConfig, identities: Iterable[IdentityConfig], now: datetime) -> Inventory:
    """Look at `identities`, which are of `config`, as closely as a proxy does that loads them."""
    used = _used(config)
    items = []
    for identity in identities:
        item = _look(identity, config, used.get(identity.name, ()), now)
        if item.condition in {Condition.FINE, Condition.DUE}:
            item = _closer(item, identity, config, now)
        items.append(item)
    return Inventory(tuple(items), config.store)


def _used(config: ProxyConfig) -> Mapping[str, tuple[str, ...]]:
    """The tunnels of each identity, by name."""
    used: dict[str, tuple[str, ...]] = {}
    for tunnel in config.tunnels:
        used[tunnel.identity.name] = (*used.get(tunnel.identity.name, ()), tunnel.name)
    return used


def _look(identity: IdentityConfig, config: ProxyConfig, tunnels: tuple[str, ...], now: datetime) -> Item:
    item = Item(identity.name, identity.issuer.kind.value, Condition.NONE_YET, tunnels=tunnels)
    try:
        if identity.issuer.kind is IssuerKind.FILES or config.store is None:
            files = resolved(identity)
            return _judged(item, _Found(_leaf(files.cert, files.key)), identity, now)
        stored = Store(config.store).identity(identity.name)
        try:
            left = _unfinished(stored)
        except MtlskitError as exc:
            return _damaged(item, exc, exc.hint)  # a rotation would stop at its journal too
        if left is not None:
            item = replace(item, rotating=True, failed=_failure(left))
        found = _current(stored)
    except MtlskitError as exc:
        return _damaged(item, exc, _remedy(exc, identity))
    if found is not None:
        return _judged(item, found, identity, now)
    if not item.rotating:
        return replace(item, todo=f"mtlskit certs issue {identity.name}")
    return replace(item, condition=Condition.PENDING, todo=_next_step(identity))


def _unfinished(stored: StoredIdentity) -> Rotation | None:
    """The rotation that is not finished, if there is one. Raises `StoreError`.

    Mostly the last line says that the last one is done, and the rest of the journal need not be read.
    """
    with suppress(OSError), stored.journal_path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_LINE))
        if _ENDED.search(file.read(_LAST_LINE)):
            return None
    return Journal(stored.journal_path).unfinished()


def _failure(left: Rotation) -> str:
    """Why the last try failed; empty where none has, or where a step was done since."""
    failed = left.facts(FAILED)
    since = max((str(facts.get("time", "")) for step, facts in left.steps.items() if step != FAILED), default="")
    return str(failed.get("reason") or "") if str(failed.get("time", "")) >= since else ""


def _left_over(stored: StoredIdentity, config: ProxyConfig, now: datetime) -> Item:
    where = config.source or "the configuration"
    item = Item(
        stored.name,
        "",
        Condition.NOT_IN_FILE,
        todo=f"add [identity.{stored.name}] to {where}, or remove {stored.folder}",
    )
    try:
        found = _current(stored)
    except MtlskitError as exc:
        return replace(item, reason=exc.sentence, code=exc.code)
    if found is None:
        return item
    issuer = found.version.facts.issuer if found.version else ""
    item = replace(item, issuer=issuer)
    return _with_facts(item, found, _decision(found.leaf, None, now), item.condition, item.todo)


def _current(stored: StoredIdentity) -> _Found | None:
    """What is in force, or None. Raises `MtlskitError` where the files are not what was put there."""
    version = stored.current()
    if version is None:
        return None
    leaf = _leaf(version.cert, version.key)
    if serial_text(leaf) != version.facts.serial:
        raise StoreError(
            Code.STORE_DAMAGED,
            f"{version.cert}: not the certificate that was put there: its serial is {serial_text(leaf)},"
            f" and that of the version {version.facts.serial}",
            "issue anew",
        )
    return _Found(leaf, version)


def _leaf(cert: Path, key: Path) -> x509.Certificate:
    certificates = load_certificates(read_public(cert, "client certificate"), source=str(cert))
    read_private(key, "private key")
    return certificates[0] if len(certificates) == 1 else assemble(certificates).leaf


def _decision(leaf: x509.Certificate, renew_before: RenewBefore | None, now: datetime) -> Decision:
    return decide(leaf.not_valid_before_utc, leaf.not_valid_after_utc, now, renew_before)


def _with_facts(item: Item, found: _Found, decision: Decision, condition: Condition, todo: str) -> Item:
    leaf = found.leaf
    return replace(
        item,
        condition=condition,
        todo=todo,
        version=found.version.number if found.version else None,
        subject=subject_text(leaf),
        serial=serial_text(leaf),
        not_before=leaf.not_valid_before_utc,
        decision=decision,
    )


def _judged(item: Item, found: _Found, identity: IdentityConfig, now: datetime) -> Item:
    decision = _decision(found.leaf, identity.renew_before, now)
    state = decision.state
    todo = ""
    if state is State.NOT_YET_VALID:
        todo = "set this machine's clock (date -u shows it), if the certificate was issued just now"
    elif item.rotating or state is not State.FINE:
        followed = found.version is not None and found.version.facts.followed
        todo = _next_step(identity, reset=followed and not item.rotating)
    return _with_facts(item, found, decision, Condition(state.value), todo)


def _closer(item: Item, identity: IdentityConfig, config: ProxyConfig, now: datetime) -> Item:
    """With the key, and the CAs of the identity and of its tunnels."""
    try:
        warnings = dict.fromkeys(pair_of(identity, now=now).warnings)
    except MtlskitError as exc:
        return _damaged(item, exc, _remedy(exc, identity))
    variants = [identity, *(tunnel.identity for tunnel in config.tunnels if tunnel.identity.name == item.name)]
    try:
        for variant in dict.fromkeys(variants):
            warnings |= dict.fromkeys(trust_of(variant, now=now).warnings)
    except MtlskitError as exc:
        return _damaged(item, exc, exc.hint)
    # One that is due is about to be replaced, and its dates have been told.
    return replace(item, warnings=tuple(warnings)) if item.condition is Condition.FINE else item


def _damaged(item: Item, exc: MtlskitError, todo: str) -> Item:
    return replace(item, condition=Condition.DAMAGED, reason=exc.sentence, code=exc.code, todo=todo)


def _remedy(exc: MtlskitError, identity: IdentityConfig) -> str:
    """What to do about a bad pair: what lies in the store is made anew, unless it only must not be read as it is."""
    if identity.issuer.kind is IssuerKind.FILES or exc.code in _RIGHTS:
        return exc.hint
    return _next_step(identity)


def _next_step(identity: IdentityConfig, *, reset: bool = False) -> str:
    if identity.issuer.kind is IssuerKind.FILES:
        return f"put new files in place of {identity.cert} and {identity.key}"
    if identity.issuer.kind is IssuerKind.CSR:
        return f"mtlskit certs rotate {identity.name}, which tells what to have signed"
    if reset:
        return f"{reset_command(identity.name)}, which restarts the app's dynos"
    return f"mtlskit certs rotate {identity.name}"
