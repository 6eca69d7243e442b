"""The add-on itself: where it is, whether its plan has mutual TLS, its endpoint, and whether Heroku says it is well.

Nothing tells that a customer's own key (BYOK) was revoked: no field of the APIs is known for it, only that the data
cannot be had then. So where Heroku says that the add-on has failed, its own words are repeated, and only if they speak
of a key is the key named as the cause.
"""

from __future__ import annotations

import re
from typing import Any, Final

from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.heroku.asking import Condition, Question, Told
from mtlskit.errors import Code, HerokuError, MtlskitError
from mtlskit.heroku.plans import no_mtls, why_no_mtls
from mtlskit.heroku.values import Addon, AddonKind, TlsEndpoint
from mtlskit.pki.certificates import bounded_text

__all__ = ["condition", "endpoint", "not_looked", "plan", "upstream"]

_OF_A_KEY: Final = re.compile(
    r"\b(?:encryption|customer|managed|kms|byok)\b.*\bkey\b|\bkey\b.*\b(?:kms|revoked)\b", re.I
)


def not_looked(name: str, error: MtlskitError, questions: tuple[Question, ...] = ()) -> Finding:
    """Heroku did not say: its side is unknown, and nothing fails for that."""
    about = f"Heroku does not tell ({', '.join(questions)}): " if questions else ""
    told = HerokuError(Code.API_NOT_LOOKED, f"{about}{error.sentence} [{error.code}]", error.hint)
    commands = (f"mtlskit heroku status {name}",) if questions else ()
    return warned(Layer.HEROKU, "heroku.api", told, about=name, commands=commands)


def upstream(told: Told) -> Finding | None:
    """Where the tunnel leads to, if this add-on says it."""
    if not told.leads:
        return None
    problem = told.problems.get(Question.UPSTREAM)
    if problem is not None:
        return failed(
            Layer.HEROKU, "heroku.endpoint", problem, about=told.name, commands=_after(told.name, problem.code)
        )
    where = ", ".join(str(each) for each in told.endpoints)
    facts: dict[str, Any] = {"endpoints": [str(each) for each in told.endpoints]}
    words = f"{told.name} is at {where}"
    if told.login is not None:
        facts |= {"user": told.login.user, "database": told.login.database, "credential": told.login.name}
        words += f": user {bounded_text(told.login.user)}, database {bounded_text(told.login.database)}"
    if told.prefix:
        facts["prefix"] = told.prefix
        words += f"; names begin with {bounded_text(told.prefix)}"
    return passed(Layer.HEROKU, "heroku.upstream", words, about=told.name, **facts)


def _after(name: str, code: Code) -> tuple[str, ...]:
    """What to type next."""
    if code is Code.API_TOKEN_REFUSED:
        return ("unset HEROKU_API_KEY", "heroku login")  # while it is set, it goes before any login
    if code is Code.API_NO_TOKEN:
        return ("heroku login",)
    if code in (Code.API_NOT_FOUND, Code.CONFIG_BAD_VALUE):
        return ("heroku addons --all",)
    return (f"mtlskit heroku status {name}",)


def plan(told: Told) -> Finding | None:
    """Whether the add-on can have mutual TLS. An endpoint that works says more than the plan's name."""
    if told.addon is None:
        return None
    addon = told.addon
    works = told.endpoint is not None and told.endpoint.operational
    reason = why_no_mtls(addon)
    # Kafka speaks mutual TLS on every plan; what smaller ones lack is IP rules.
    if reason is not None and not works and addon.kind is not AddonKind.KAFKA:
        return failed(
            Layer.HEROKU,
            "heroku.plan",
            no_mtls(addon, reason),
            about=told.name,
            commands=(f"heroku addons:plans {addon.service}",) if addon.kind is not None else ("heroku addons --all",),
            plan=addon.plan,
        )
    return passed(
        Layer.HEROKU,
        "heroku.plan",
        bounded_text(f"plan {addon.plan} of app {addon.app}"),
        about=told.name,
        plan=bounded_text(addon.plan),
        app=bounded_text(addon.app),
        state=bounded_text(addon.state),
    )


def endpoint(told: Told, seconds: float) -> Finding | None:
    """The TLS endpoint of a Postgres add-on; a Kafka add-on has none that could be missing."""
    if told.addon is None or told.addon.kind is not AddonKind.POSTGRES or Question.ENDPOINT not in told.answered:
        return None
    name, found = told.name, told.endpoint
    if found is None and why_no_mtls(told.addon) is not None:
        return skipped(Layer.HEROKU, "heroku.endpoint", "heroku.plan", about=name)
    if found is not None and found.operational:
        seen = f"mutual TLS of {name} is {bounded_text(found.status)}"
        return passed(
            Layer.HEROKU, "heroku.endpoint", seen, about=name, seconds=seconds, status=bounded_text(found.status)
        )
    return _down(told.addon, found, name)


def _down(addon: Addon, found: TlsEndpoint | None, name: str) -> Finding:
    if found is None:
        words, hint, command = "is not enabled", "enable it, which takes some minutes", "enable"
    elif found.status.casefold() == "provisioning":
        words, hint, command = "is still being made (Provisioning)", "wait until it is in operation", "wait"
    elif found.ending:
        words = "is being taken down (Deprovisioning)"
        hint, command = "enable it again once it is gone; certificates and IP rules have to be made anew", "enable"
    else:
        words = f"has the status {bounded_text(found.status)!r}, which is not Operational"
        hint, command = "wait until it is in operation; if it stays so, ask Heroku's support", "wait"
    commands = [f"mtlskit heroku {command} {name}{' --wait' if command == 'enable' else ''}"]
    if found is not None and found.ending:
        commands.insert(0, f"mtlskit heroku wait {name} --gone")
    return failed(
        Layer.HEROKU,
        "heroku.endpoint",
        HerokuError(Code.API_ENDPOINT_DOWN, f"mutual TLS of {name} (app {bounded_text(addon.app)}) {words}", hint),
        about=name,
        commands=tuple(commands),
        status=None if found is None else bounded_text(found.status),
    )


def condition(told: Told) -> Finding | None:
    """What Heroku says of the add-on's health."""
    if told.condition is None:
        return None
    found, name = told.condition, told.name
    words = bounded_text(found.message) or "nothing more"
    if found.failed and _OF_A_KEY.search(found.message):
        error = HerokuError(
            Code.API_KEY_REVOKED,
            f"Heroku says of {name}: {words}",
            "give Heroku the use of the key back in AWS KMS: until then nobody reaches the data, followers and forks"
            " included",
        )
        return failed(Layer.HEROKU, "heroku.key", error, about=name, message=words)
    if found.failed or found.waiting:
        return _unwell(found, words, name)
    seen = f"Heroku says of {name}: {words}"
    return passed(Layer.HEROKU, "heroku.condition", seen, about=name, message=words)


def _unwell(found: Condition, words: str, name: str) -> Finding:
    """Not well, and it may work all the same: a cluster that lacks one broker, a database that is being moved."""
    what = "is not well" if found.failed else "is being made or changed"
    error = HerokuError(
        Code.API_ENDPOINT_DOWN,
        f"{name} {what}; Heroku says: {words}",
        "see https://status.heroku.com, and the add-on itself with the command below"
        if found.failed
        else "wait until it is done",
    )
    command = f"heroku addons:info {name}" if found.failed else f"heroku addons:wait {name}"
    return warned(Layer.HEROKU, "heroku.condition", error, about=name, commands=(command,), message=words)
