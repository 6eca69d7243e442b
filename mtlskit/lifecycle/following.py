"""Credentials that others use too: an identity that is a copy of one is replaced when it has changed, and never else.

Today that is Apache Kafka on Heroku, whose client certificate is the credential of the apps that it is attached to. A
new one cannot be had beside the old: it has to be reset, which restarts the dynos of those apps. So neither a timer nor
a watcher does that, however near its end the certificate is; they take what the apps have got.
"""

from __future__ import annotations

from datetime import datetime

from mtlskit.errors import Code, IdentityError, RotationError
from mtlskit.lifecycle import due
from mtlskit.lifecycle.due import damage_of, why_renewed
from mtlskit.lifecycle.taking_back import current_of
from mtlskit.lifecycle.target import Target, Tools, Wanted
from mtlskit.net.files import read_public
from mtlskit.store.identities import Version
from mtlskit.store.journal import Journal

__all__ = ["REASON", "SAME", "has_changed", "is_followed", "plan_of", "refused", "reset_command", "stuck"]

REASON = "the app's credential has changed"
SAME = "it is what the app's config vars hold"


async def is_followed(tools: Tools, wanted: Wanted, current: Version, *, fine: bool) -> bool:
    """Whether this run is to follow. `fine`: its dates ask for nothing.

    The issuer is asked only where the store does not know and something would be begun: what is not due must not need
    a network. Raises `RotationError`.
    """
    if tools.following is None or wanted.material is not None or wanted.reset:
        return False
    return current.facts.followed or (not fine and await tools.following.follows())


async def has_changed(target: Target, tools: Tools, version: Version) -> bool:
    """Whether `version` is no copy, or no whole copy, of the credential any more. Raises `MtlskitError`."""
    if tools.following is None or damage_of(target, version, tools.clock()):
        return True
    try:
        cert = read_public(version.cert, "client certificate")
        roots = None if version.root is None else read_public(version.root, "CA file")
    except IdentityError:
        return True
    return await tools.following.changed(cert, roots)


def stuck(target: Target, version: Version, now: datetime) -> str:
    """What is waited for where the certificate is due and the credential is still the same; empty where it is not due.

    Raises `StoreError`.
    """
    if not (why := why_renewed(target, version, now)):
        return ""
    return (
        f"{why}, and the app's config vars hold no other: a person has to reset the credential, which restarts the"
        f" app's dynos: {reset_command(target.name)}"
    )


async def plan_of(target: Target, tools: Tools, wanted: Wanted, now: datetime) -> str:
    """As `mtlskit.lifecycle.due.plan_of`, for an identity whose current version is a copy; empty for nothing at all.

    Raises `MtlskitError`: it has to ask.
    """
    current = current_of(target)
    if current is None or Journal(target.stored.journal_path).unfinished() is not None:
        return due.plan_of(target, wanted, now)
    if await has_changed(target, tools, current):
        tunnels = ", ".join(tunnel.name for tunnel in target.tunnels)
        proved = f", prove it for {tunnels}" if tunnels and wanted.prove else ""
        return (
            f"take what the app's config vars hold by now, in place of serial {current.facts.serial}{proved},"
            " and switch to it"
        )
    told = stuck(target, current, now)
    return f"do nothing: {told}" if told else ""


def refused(target: Target) -> RotationError:
    """Why a certificate of such an identity is not replaced by itself."""
    return RotationError(
        Code.ROTATION_REFUSED,
        f"{target.name}: its certificate is the credential of the apps that use {target.identity.issuer.addon}: a new"
        " one ends theirs and restarts their dynos",
        f"to do that: {reset_command(target.name)}; to take what the apps have by now: mtlskit certs rotate --due",
    )


def reset_command(name: str) -> str:
    """How a person has the credential replaced."""
    return f"mtlskit certs rotate {name} --reset-app-credentials --yes"
