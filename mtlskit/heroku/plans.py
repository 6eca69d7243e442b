"""Which add-ons can have mutual TLS, judged by their plan.

How the API says that a plan has none is not known (Dev Center: Private and Shield plans only, not Heroku Postgres
Advanced), so nothing is read out of its messages: when it says no, the plan decides whether that is why.
"""

from __future__ import annotations

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.values import Addon

__all__ = ["no_mtls", "why_no_mtls"]


def why_no_mtls(addon: Addon) -> str | None:
    """A reason on one line, or None: it has mutual TLS, as far as its plan says."""
    if addon.kind is None:
        return f"{addon.name} is {addon.service or 'something else'}, neither Heroku Postgres nor Heroku Kafka"
    tier = addon.plan.partition(":")[2].casefold()
    if "advanced" in tier:
        return f"{addon.name} has plan {addon.plan}: Heroku Postgres Advanced has no mutual TLS"
    if tier and not any(word in ("private", "shield") for word in tier.split("-")):
        return f"{addon.name} has plan {addon.plan}: only Private and Shield plans have mutual TLS"
    return None


def no_mtls(addon: Addon, reason: str, *, status: int | None = None, request_id: str = "") -> HerokuError:
    """The error for it."""
    return HerokuError(
        Code.API_NO_MTLS,
        reason,
        f"name another add-on, or move its data to a Private or Shield plan: heroku addons:plans {addon.service}"
        if addon.kind is not None
        else "name a Heroku Postgres or Heroku Kafka add-on: heroku addons --all",
        status=status,
        request_id=request_id,
    )
