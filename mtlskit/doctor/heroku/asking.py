"""What Heroku is asked about the add-ons of a tunnel: every question side by side, and all of them within one time.

A question that fails takes no other with it: what was answered is told, and what was not is said to be unknown. Nothing
that Heroku is asked here changes anything there, and no private key of a Postgres add-on's is fetched for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from mtlskit.allowlist.my_ip import MyAddresses, my_addresses, services_of
from mtlskit.config.values import Endpoint, IssuerKind, TunnelKind
from mtlskit.doctor.case import Case
from mtlskit.errors import Code, HerokuError, MtlskitError
from mtlskit.heroku.values import Addon, AddonKind, Credential, IpRule, TlsEndpoint
from mtlskit.heroku.whereabouts import kafka_brokers, postgres_login
from mtlskit.lifecycle.remote import FarCertificate, far_certificates

if TYPE_CHECKING:
    from mtlskit.heroku.client import Heroku

__all__ = ["Asked", "Condition", "Question", "Told", "ask", "concerned"]

OpenHeroku: TypeAlias = "Callable[[], AbstractAsyncContextManager[Heroku]]"

_SHARE: Final = 0.5
"""Of the deadline: where Heroku says where the tunnel leads to, the way there is still to be followed after that."""


class Question(StrEnum):
    """What is asked about one add-on, as a sentence names it."""

    ADDON = "the add-on"
    UPSTREAM = "where it is"
    ENDPOINT = "its endpoint"
    CERTIFICATES = "its certificates"
    RULES = "its IP rules"
    CONDITION = "its condition"


@dataclass(frozen=True)
class Condition:
    """How Heroku says that the add-on is. `message` is in its own words."""

    message: str = ""
    failed: bool = False
    waiting: bool = False


@dataclass
class Told:
    """About one add-on. What is None was not answered: `problems` say why, or it does not belong to its kind."""

    name: str
    leads: bool
    """The tunnel's upstream depends on it."""
    addon: Addon | None = None
    endpoints: tuple[Endpoint, ...] = ()
    login: Credential | None = None
    prefix: str = ""
    endpoint: TlsEndpoint | None = None
    certificates: list[FarCertificate] | None = None
    rules: tuple[IpRule, ...] | None = None
    condition: Condition | None = None
    answered: set[Question] = field(default_factory=set)
    problems: dict[Question, MtlskitError] = field(default_factory=dict)


@dataclass
class Asked:
    """Everything that was asked."""

    told: tuple[Told, ...]
    refusal: MtlskitError | None = None
    """Heroku could not be asked at all: no token, or a host that must not see it."""
    me: MyAddresses | None = None
    me_problem: MtlskitError | None = None
    seconds: float = 0.0


def concerned(case: Case) -> tuple[str, ...]:
    """The add-ons that the tunnel certainly has to do with: the one it leads to, and the one its identity is from."""
    issuer = None if case.identity is None else case.identity.issuer
    of_identity = issuer.addon if issuer is not None and issuer.kind is IssuerKind.HEROKU else None
    return tuple(dict.fromkeys(name for name in (case.tunnel.addon, of_identity) if name))


async def ask(case: Case, opened: OpenHeroku, addons: tuple[str, ...]) -> Asked:
    """Everything about these add-ons. Never raises for what is found; ends within a part of the deadline."""
    began = trio.current_time()
    asked = Asked(tuple(Told(name, leads=name == case.tunnel.addon) for name in addons))
    seconds = min(2 * case.means.step, case.means.deadline * _SHARE)
    is_open = False
    with trio.move_on_after(seconds) as scope:
        try:
            async with opened() as heroku:
                is_open = True
                await _Asking(case, heroku, asked).everything()
        except MtlskitError as exc:
            asked.refusal = exc
    if scope.cancelled_caught:
        _not_in_time(asked, is_open=is_open, seconds=seconds)
    asked.seconds = trio.current_time() - began
    return asked


def _not_in_time(asked: Asked, *, is_open: bool, seconds: float) -> None:
    """Say of every question that is open that there was no answer."""
    hint = "see that this machine reaches api.heroku.com and api.data.heroku.com, through HTTPS_PROXY where it must"
    if not is_open:
        asked.refusal = HerokuError(
            Code.API_UNREACHABLE, f"the token for Heroku was not found within {seconds:g} s", "set HEROKU_API_KEY"
        )
        return
    for told in asked.told:
        open_questions = set(Question) - told.answered - told.problems.keys()
        for question in open_questions if told.addon is not None else (Question.ADDON, Question.UPSTREAM):
            if question in _belonging(told):
                told.problems.setdefault(
                    question,
                    HerokuError(
                        Code.API_UNREACHABLE, f"{told.name}: Heroku has not answered within {seconds:g} s", hint
                    ),
                )


def _belonging(told: Told) -> set[Question]:
    """What is asked about this add-on at all."""
    left_out = set() if told.leads else {Question.UPSTREAM}
    if told.addon is not None and told.addon.kind is not AddonKind.POSTGRES:
        left_out.add(Question.ENDPOINT)
    return set(Question) - left_out


class _Asking:
    """With both APIs open."""

    def __init__(self, case: Case, heroku: Heroku, asked: Asked) -> None:
        self._case = case
        self._heroku = heroku
        self._asked = asked
        self._me_asked = False

    async def everything(self) -> None:
        """About all of them at once."""
        async with trio.open_nursery() as nursery:
            for told in self._asked.told:
                if told.leads:
                    nursery.start_soon(self._question, told, Question.UPSTREAM, self._upstream)
                nursery.start_soon(self._about, told)

    async def _about(self, told: Told) -> None:
        """What the add-on is decides what is asked about it."""
        await self._question(told, Question.ADDON, self._addon)
        if told.addon is None or told.addon.kind is None:
            return
        async with trio.open_nursery() as nursery:
            if told.addon.kind is AddonKind.POSTGRES:
                nursery.start_soon(self._question, told, Question.ENDPOINT, self._endpoint)
            nursery.start_soon(self._question, told, Question.CERTIFICATES, self._certificates)
            nursery.start_soon(self._question, told, Question.RULES, self._rules)
            nursery.start_soon(self._question, told, Question.CONDITION, self._condition)
            nursery.start_soon(self._who_am_i)

    async def _question(self, told: Told, question: Question, work: Callable[[Told], Awaitable[None]]) -> None:
        try:
            await work(told)
        except MtlskitError as exc:
            told.problems[question] = exc
        else:
            told.answered.add(question)

    async def _addon(self, told: Told) -> None:
        told.addon = await self._heroku.platform.addon(told.name)

    async def _upstream(self, told: Told) -> None:
        if self._case.kind is TunnelKind.KAFKA:
            brokers = await kafka_brokers(self._heroku, told.name)
            told.endpoints, told.prefix = brokers.endpoints, brokers.prefix
        else:
            login = await postgres_login(self._heroku, told.name, self._case.tunnel.credential)
            told.endpoints, told.login = (Endpoint(login.host, login.port),), login

    async def _endpoint(self, told: Told) -> None:
        told.endpoint = await self._heroku.data.tls_endpoint(told.name)

    async def _certificates(self, told: Told) -> None:
        known = None if told.addon is None else told.addon.kind
        told.certificates = await far_certificates(self._heroku, told.name, known)

    async def _rules(self, told: Told) -> None:
        kind = AddonKind.POSTGRES if told.addon is None or told.addon.kind is None else told.addon.kind
        told.rules = await self._heroku.data.ip_rules(told.name, kind)

    async def _condition(self, told: Told) -> None:
        if told.addon is not None and told.addon.kind is AddonKind.KAFKA:
            cluster = await self._heroku.data.kafka_cluster(told.name)
            told.condition = Condition(
                cluster.message or cluster.status, cluster.healthy is False, cluster.waiting is True
            )
            told.prefix = told.prefix or cluster.topic_prefix or ""
        else:
            found = await self._heroku.data.wait_status(told.name, AddonKind.POSTGRES)
            told.condition = Condition(found.message, found.failed, found.waiting)

    async def _who_am_i(self) -> None:
        """Once, and only where there are rules to hold it against: these services belong to strangers."""
        if self._me_asked:
            return
        self._me_asked = True
        case = self._case
        try:
            self._asked.me = await my_addresses(
                services_of(case.means.environ, case.config.my_ip),
                source=case.tunnel.source or case.config.my_ip.source,
                deadline=case.means.step,
            )
        except MtlskitError as exc:
            self._asked.me_problem = exc
