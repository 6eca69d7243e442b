"""Whether the add-on's IP rules let this host in, by the address that others see it with."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from mtlskit.allowlist.coverage import Coverage, network_of
from mtlskit.allowlist.my_ip import Answer, MyAddresses
from mtlskit.doctor.finding import Finding, Layer, Verdict, failed, passed, skipped, warned
from mtlskit.doctor.heroku.asking import Asked, Question, Told
from mtlskit.errors import AllowlistError, Code
from mtlskit.heroku.values import AddonKind, IpRule
from mtlskit.pki.certificates import bounded_text

__all__ = ["my_ip", "rules"]

_ME: Final = "allowlist.my-ip"
_RULES: Final = "allowlist.rules"


def my_ip(asked: Asked) -> Finding | None:
    """The address of this host. None where nobody was asked."""
    if asked.me_problem is not None:
        return warned(Layer.ALLOWLIST, _ME, asked.me_problem, commands=("mtlskit my-ip",))
    if asked.me is None:
        return None
    good = [each for each in asked.me.answers if each.address is not None]
    facts: dict[str, Any] = {
        "addresses": [str(each) for each in sorted(asked.me.addresses)],
        "answers": {each.service: str(each.address or each.error) for each in asked.me.answers},
    }
    if asked.me.agreed is not None:
        seen = f"this host is seen as {asked.me.agreed} ({len(good)} of {len(asked.me.answers)} services say so)"
        return passed(Layer.ALLOWLIST, _ME, seen, **facts)
    error = AllowlistError(
        Code.ALLOW_MY_IP_DISAGREE,
        f"services see this host with different addresses: {_told(good)}",
        "it leaves through several addresses, and each needs a rule; or one of the services is wrong: [my_ip] names"
        " others",
    )
    return warned(Layer.ALLOWLIST, _ME, error, commands=("mtlskit my-ip",), **facts)


def _told(answers: list[Answer]) -> str:
    return ", ".join(f"{bounded_text(each.service)}: {each.address}" for each in answers)


def rules(told: Told, asked: Asked) -> Finding | None:
    """Whether the rules of one add-on let this host in. None for an add-on that has none."""
    if told.addon is None:
        failed_first = Question.UPSTREAM in told.problems
        return skipped(Layer.ALLOWLIST, _RULES, "heroku.endpoint" if failed_first else "heroku.api", about=told.name)
    if told.addon.kind is None:
        return None
    problem = told.problems.get(Question.RULES)
    if problem is not None:
        return skipped(Layer.ALLOWLIST, _RULES, _why_unknown(told, problem.code), about=told.name)
    if told.rules is None:
        return skipped(Layer.ALLOWLIST, _RULES, "heroku.api", about=told.name)
    if told.addon.kind is AddonKind.POSTGRES and told.endpoint is None and Question.ENDPOINT in told.answered:
        return skipped(Layer.ALLOWLIST, _RULES, "heroku.endpoint", about=told.name)
    if asked.me is None:
        return skipped(Layer.ALLOWLIST, _RULES, _ME, about=told.name)
    return _judged(told.name, told.rules, asked.me)


def _why_unknown(told: Told, code: Code) -> str:
    if code is Code.API_NO_MTLS:
        return "its plan has no IP rules" if told.addon and told.addon.kind is AddonKind.KAFKA else "heroku.plan"
    return "heroku.endpoint" if code is Code.API_NOT_ENABLED else "heroku.api"


def _judged(name: str, found: tuple[IpRule, ...], me: MyAddresses) -> Finding:
    act = _coverage(rule for rule in found if rule.authorized)
    will = _coverage(found)
    mine = sorted(me.addresses)
    shut = [each for each in mine if not act.covers(IPv4Network(each))]
    pending = [each for each in shut if will.covers(IPv4Network(each))]
    absent = [each for each in shut if each not in pending]
    facts: dict[str, Any] = {
        "rules": len(found),
        "in_force": sum(rule.authorized for rule in found),
        "addresses": [str(each) for each in mine],
        "not_let_in": [str(each) for each in shut],
    }
    if not shut:
        seen = f"{name} lets {_list(mine)} in: {facts['in_force']} of {len(found)} rules are in force"
        return passed(Layer.ALLOWLIST, _RULES, seen, about=name, **facts)
    # Where the services disagree and one of the addresses is let in, connections may leave with that one.
    verdict = Verdict.FAIL if len(shut) == len(mine) else Verdict.WARN
    error = _not_in(name, absent, len(found), of_several=len(mine) > 1) if absent else _not_yet(name, pending)
    make = failed if verdict is Verdict.FAIL else warned
    return make(Layer.ALLOWLIST, _RULES, error, about=name, commands=_commands(name, absent), **facts)


def _not_in(name: str, absent: list[IPv4Address], count: int, *, of_several: bool) -> AllowlistError:
    whose = "one of the addresses that this host is seen with" if of_several else "the address of this host"
    none = f"none of the {count} rules of {name} lets" if count > 1 else f"no rule of {name} lets"
    return AllowlistError(
        Code.ALLOW_NOT_LET_IN,
        f"{none} {_list(absent)} in, {whose}" if count else f"{name} has no rules, and lets nobody in: {_list(absent)}",
        "let it in; a rule acts 10 to 15 minutes after it was made",
    )


def _not_yet(name: str, pending: list[IPv4Address]) -> AllowlistError:
    return AllowlistError(
        Code.ALLOW_PENDING,
        f"{name} has a rule for {_list(pending)}, the address of this host, and it is not in force yet",
        "wait: it takes 10 to 15 minutes",
    )


def _commands(name: str, absent: list[IPv4Address]) -> tuple[str, ...]:
    if not absent:
        return (f"mtlskit allowlist list --addon {name}",)
    return (f"mtlskit allowlist add {' '.join(f'{each}/32' for each in absent)} --addon {name} --wait",)


def _list(addresses: list[IPv4Address]) -> str:
    return ", ".join(str(each) for each in addresses)


def _coverage(found: Iterable[IpRule]) -> Coverage:
    return Coverage(network for rule in found if (network := network_of(rule)) is not None)
