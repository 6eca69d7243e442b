"""Heroku's side: the endpoint's state, our certificate there, plan, the customer's key, and the IP rules.

Only the add-ons that a tunnel certainly has to do with are asked about: the one that its upstream names, and the one
that its identity is from. Where there is none, nobody is asked for anything, this host's address least of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mtlskit.config.values import Endpoint, Login
from mtlskit.doctor.case import Case, Credentials, Identified
from mtlskit.doctor.finding import Finding, Layer, failed, skipped, warned
from mtlskit.doctor.heroku import allowlist, certificate, endpoint
from mtlskit.doctor.heroku.asking import Asked, Question, Told, ask, concerned
from mtlskit.errors import Code, HerokuError, MtlskitError

__all__ = ["HerokuSide", "look_at_heroku"]

_SAID_ELSEWHERE = (Code.API_NO_MTLS, Code.API_NOT_ENABLED)
"""Problems that are answers: another finding has them."""


@dataclass(frozen=True)
class HerokuSide:
    """What Heroku says."""

    findings: tuple[Finding, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    """Where the tunnel leads to, if its upstream is an add-on."""
    credentials: Credentials | None = None
    """Of the add-on, where the tunnel logs in with them."""
    prefix: str = ""
    """What names on a Kafka add-on begin with."""


async def look_at_heroku(case: Case, identified: Identified) -> HerokuSide:
    """Layers HEROKU and ALLOWLIST. Ends within the deadline; WARN where it cannot be looked at."""
    addons = concerned(case)
    if not addons:
        return HerokuSide(_nothing_looked_at("no add-on is named"))
    if case.means.heroku is None:
        return HerokuSide(_not_to_be_asked(case))
    asked = await ask(case, case.means.heroku, addons)
    if asked.refusal is not None:
        return HerokuSide(_refused(case, asked.refusal, addons))
    found = [finding for told in asked.told for finding in _of_addon(case, identified, told, asked)]
    me = allowlist.my_ip(asked)
    leading = next((told for told in asked.told if told.leads), None)
    return HerokuSide(
        findings=(*found, *([] if me is None else [me])),
        endpoints=() if leading is None else leading.endpoints,
        credentials=None if leading is None else _credentials(case, leading),
        prefix=next((told.prefix for told in asked.told if told.prefix), ""),
    )


def _nothing_looked_at(because: str) -> tuple[Finding, ...]:
    return tuple(skipped(layer, f"{layer}.skipped", because) for layer in (Layer.HEROKU, Layer.ALLOWLIST))


def _not_to_be_asked(case: Case) -> tuple[Finding, ...]:
    """Somebody wants it so. Where Heroku says where the tunnel leads to, that leaves little to be examined."""
    name = case.tunnel.addon
    if name is None:
        return _nothing_looked_at("Heroku is not asked")
    error = HerokuError(
        Code.API_NOT_LOOKED,
        f"only Heroku knows where {name} is, and was not asked: nothing behind that was looked at",
        "let the doctor ask Heroku: leave --offline out",
    )
    return (
        warned(Layer.HEROKU, "heroku.endpoint", error, about=name),
        skipped(Layer.ALLOWLIST, "allowlist.skipped", "Heroku is not asked"),
    )


def _refused(case: Case, refusal: MtlskitError, addons: tuple[str, ...]) -> tuple[Finding, ...]:
    """Nobody could be asked. That stops clients only where Heroku has to say where the tunnel leads to."""
    about = ", ".join(addons)
    if case.tunnel.addon is not None:
        needed = HerokuError(
            refusal.code,
            f"Heroku has to say where {case.tunnel.addon} is, and cannot be asked: {refusal.sentence}",
            refusal.hint,
        )
        shared = f"Heroku has to say where these add-ons are, and cannot be asked: {refusal.sentence}"
        return (
            replace(failed(Layer.HEROKU, "heroku.endpoint", needed, about=about), shared=shared),
            skipped(Layer.ALLOWLIST, "allowlist.skipped", "heroku.endpoint"),
        )
    if refusal.code is Code.API_NO_TOKEN:
        return _nothing_looked_at("no token")
    return endpoint.not_looked(about, refusal), skipped(Layer.ALLOWLIST, "allowlist.skipped", "heroku.api")


def _of_addon(case: Case, identified: Identified, told: Told, asked: Asked) -> Iterator[Finding]:
    """Everything about one add-on, in the order in which it matters."""
    upstream = endpoint.upstream(told)
    if upstream is not None:
        yield upstream
    unknown = {question: exc for question, exc in told.problems.items() if exc.code not in _SAID_ELSEWHERE}
    if Question.UPSTREAM in unknown:  # it has been said; and one reason is enough for what else failed with it
        code = unknown.pop(Question.UPSTREAM).code
        unknown = {question: exc for question, exc in unknown.items() if exc.code is not code}
    if unknown:
        yield endpoint.not_looked(told.name, next(iter(unknown.values())), tuple(unknown))
    if told.leads and told.addon is not None and told.addon.kind is not None and told.addon.kind != case.kind.value:
        return  # the tunnel names the wrong one: what else holds of it is of no use to anybody
    about = (
        endpoint.plan(told),
        endpoint.endpoint(told, asked.seconds),
        endpoint.condition(told),
        certificate.certificate(case, identified, told),
        allowlist.rules(told, asked),
    )
    yield from (finding for finding in about if finding is not None)


def _credentials(case: Case, told: Told) -> Credentials | None:
    if told.login is None or case.tunnel.login is not Login.HEROKU:
        return None
    return Credentials(
        user=told.login.user,
        database=told.login.database,
        password=told.login.password,
        source=f"the add-on's credential {told.login.name}",
    )
