"""Whether an identity of the store needs a rotation, and what one would do now. Reads, and changes nothing."""

from __future__ import annotations

from datetime import datetime

from mtlskit.errors import Code, StoreError
from mtlskit.lifecycle.decide import Decision, State, decide
from mtlskit.lifecycle.target import Target, Wanted
from mtlskit.store.identities import Version
from mtlskit.store.journal import Journal

__all__ = ["decision_of", "plan_of", "why_due"]


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


def why_due(target: Target, now: datetime) -> str:
    """Why there is something to do; empty where there is not. Raises `StoreError`."""
    journal = Journal(target.stored.journal_path)
    if left := journal.unfinished():
        return f"rotation {left.id} was left unfinished after {list(left.steps)[-1]}"
    current = target.stored.current()
    if current is None:
        return "it has no certificate yet"
    decision = decision_of(target, current, now)
    if decision.renew:
        word = "expired" if decision.state is State.EXPIRED else "due since"
        return (
            f"{word} {(decision.not_after if decision.state is State.EXPIRED else decision.due_at):%Y-%m-%d %H:%M} UTC"
        )
    return "an old certificate is still to be revoked" if journal.owed() else ""


def plan_of(target: Target, wanted: Wanted, now: datetime) -> str:
    """What a rotation would do, to follow "would". Raises `StoreError`."""
    left = Journal(target.stored.journal_path).unfinished()
    if left is not None and not wanted.fresh:
        return f"go on with rotation {left.id}, which ended after: {list(left.steps)[-1]}"
    why = why_due(target, now)
    current = target.stored.current()
    replaced = f" in place of serial {current.facts.serial}" if current is not None else ""
    tunnels = ", ".join(tunnel.name for tunnel in target.tunnels)
    proved = f", prove it for {tunnels}" if tunnels and wanted.prove else ""
    because = f" ({why})" if why else " (it is not due)"
    return f"ask {target.identity.issuer.kind} for a certificate{replaced}{proved}, and switch to it{because}"
