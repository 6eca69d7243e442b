"""Whether an identity of the store needs a rotation, and what one would do now. Reads, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from mtlskit.errors import Code, IdentityError, StoreError
from mtlskit.lifecycle.decide import Decision, State, decide
from mtlskit.lifecycle.target import Target, Wanted
from mtlskit.net.identity import pair_of
from mtlskit.store.identities import Version
from mtlskit.store.journal import Journal

__all__ = ["damage_of", "decision_of", "plan_of", "why_due", "why_renewed"]

_DAMAGE = frozenset(
    {Code.FILE_MISSING, Code.PEM_WRONG_KIND, Code.PEM_DAMAGED, Code.KEY_MISMATCH, Code.CERTIFICATE_NOT_FOR_CLIENTS}
)
"""What only another certificate mends. Files that may not be read, or a wrong passphrase, are not among it."""


def decision_of(target: Target, version: Version, now: datetime) -> Decision:
    """What the dates of a version say. `now` is aware. Raises `StoreError` (STORE_DAMAGED)."""
    facts = version.facts
    try:
        dates = datetime.fromisoformat(facts.not_before), datetime.fromisoformat(facts.not_after)
        return decide(*dates, now, target.identity.renew_before)
    except (ValueError, TypeError) as exc:  # TypeError: dates without a zone
        raise StoreError(
            Code.STORE_DAMAGED,
            f"{version.folder}: its dates are not what was written there: {facts.not_before}, {facts.not_after}",
            "restore it from a backup, or issue anew",
        ) from exc


def damage_of(target: Target, version: Version, now: datetime) -> str:
    """What makes the files of a version useless, whatever their dates; empty where they will do."""
    files = replace(target.identity, cert=version.cert, key=version.key)
    try:
        pair_of(files, now=now)
    except IdentityError as exc:
        return exc.sentence if exc.code in _DAMAGE else ""
    return ""


def why_due(target: Target, now: datetime) -> str:
    """Why there is something to do; empty where there is not. Raises `StoreError`."""
    journal = Journal(target.stored.journal_path)
    if left := journal.unfinished():
        return f"rotation {left.id} was left unfinished after {left.last}"
    current = target.stored.current()
    if current is None:
        return "it has no certificate yet"
    if why := why_renewed(target, current, now):
        return why
    return DEBT if journal.owed() else ""


DEBT = "an old certificate is still to be revoked"


def why_renewed(target: Target, current: Version, now: datetime) -> str:
    """Why the certificate in use is to be replaced; empty where it is not. Raises `StoreError`."""
    decision = decision_of(target, current, now)
    if decision.renew:
        word = "expired" if decision.state is State.EXPIRED else "due since"
        moment = decision.not_after if decision.state is State.EXPIRED else decision.due_at
        return f"{word} {moment:%Y-%m-%d %H:%M} UTC"
    return damage_of(target, current, now)


def plan_of(target: Target, wanted: Wanted, now: datetime) -> str:
    """What a rotation would do, to follow "would". Raises `StoreError`."""
    left = Journal(target.stored.journal_path).unfinished()
    if left is not None and not wanted.fresh:
        return f"go on with rotation {left.id}, which ended after: {left.last}"
    why = why_due(target, now)
    if why == DEBT and wanted.only_if_due:
        return "revoke the certificate that an earlier rotation has replaced, once no session uses it"
    current = target.stored.current()
    replaced = f" in place of serial {current.facts.serial}" if current is not None else ""
    tunnels = ", ".join(tunnel.name for tunnel in target.tunnels)
    proved = f", prove it for {tunnels}" if tunnels and wanted.prove else ""
    because = f" ({why})" if why else " (it is not due)"
    return f"ask {target.identity.issuer.kind} for a certificate{replaced}{proved}, and switch to it{because}"
