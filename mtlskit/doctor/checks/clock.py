"""This host's clock, against those of others.

Others show theirs in two ways. Heroku's API and servers that tell the time are measured, and a difference is a fact.
A certificate that has not begun yet says no more than that one of two is wrong, the clock or the certificate. It counts
where nothing was measured, and where one of ours and the server's say the same: two are not made for later by mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from mtlskit.config.values import IssuerKind
from mtlskit.doctor.case import Case, Identified, Shaken, Taken
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.errors import Code, ConfigError, DoctorError
from mtlskit.pki.certificates import subject_text

__all__ = ["compare_clocks"]

_CHECK: Final = "clock.difference"
_DRIFT: Final = 60.0
"""Seconds, from which on a difference is worth a word: a host with a time service stays within one."""
_WRONG: Final = 300.0
"""Seconds, from which on it explains certificates that do not pass. Kerberos allows as much, too."""
_ZONES: Final = timedelta(hours=15)
"""A clock set to another zone's time is off by up to 14 hours. What begins later was made for later."""
_COMMANDS: Final = ("date -u", "timedatectl status", "sudo timedatectl set-ntp true")
_HINT: Final = "set the clock of this host, and see that a time service keeps it right"
_VARIABLES: Final = ("HEROKU_API_KEY", "HEROKU_DATA_HOST", "HEROKU_HOST")
_DATES: Final = (Code.CERTIFICATE_EXPIRED, Code.CERTIFICATE_NOT_YET_VALID)


@dataclass(frozen=True)
class _Shown:
    """Somebody's clock. `ahead`: seconds by which ours is ahead of it; negative where it is behind."""

    who: str
    ahead: float
    give: float
    """Seconds by which `ahead` may be off."""


@dataclass(frozen=True)
class _Dates:
    """Of a certificate that counts."""

    whose: str
    begins: datetime
    ends: datetime

    def hold(self, moment: datetime) -> bool:
        return self.begins <= moment <= self.ends


async def compare_clocks(
    case: Case, identified: Identified, shaken: tuple[Shaken, ...], taken: tuple[Taken, ...]
) -> tuple[Finding, ...]:
    """Layer CLOCK. Looks at what others have shown; asks Heroku's API for its Date where it may be asked."""
    findings: list[Finding] = []
    shown: list[_Shown] = []
    if case.means.heroku is not None and _concerns_heroku(case):
        answer = await _ask_heroku(case)
        if isinstance(answer, str):
            seen = f"Heroku's data API has not shown its clock: {answer}"
            findings.append(skipped(Layer.CLOCK, "clock.api", "Heroku's API has not answered", seen=seen))
        else:
            shown.append(answer)
    now = case.means.now()
    for each in taken:
        if each.server_time is not None:
            ahead = (now - each.server_time).total_seconds()
            # It was looked at some time ago, at the latest when all this began.
            shown.append(_Shown(str(each.endpoint or "the server"), ahead, case.means.deadline))
    dates = (*_of_ours(identified), *_of_servers(shaken))
    findings += [_compared(each, dates, now) for each in shown]
    if not shown:
        findings.append(_guessed(identified, shaken, now))
    return tuple(findings)


def _concerns_heroku(case: Case) -> bool:
    """A host that has nothing to do with Heroku does not ask it for the time."""
    config = case.config
    named = case.tunnel.addon or config.allowlists or config.heroku.api_host or config.heroku.data_host
    issued = case.tunnel.identity.issuer.kind is IssuerKind.HEROKU
    return bool(named) or issued or any(case.means.environ.get(name) for name in _VARIABLES)


async def _ask_heroku(case: Case) -> _Shown | str:
    # Here, because both load an HTTP library, which takes longer than most of what the doctor does without Heroku.
    from mtlskit.doctor.network.http_date import ServerDate, ask_date
    from mtlskit.heroku.settings import find_data_url

    try:
        url = find_data_url(case.means.environ, case.config.heroku)
    except ConfigError as exc:
        return exc.sentence
    answer = await ask_date(f"{url}/", case.means.environ, patience=case.means.step)
    if not isinstance(answer, ServerDate):
        return answer
    middle = case.means.now() - timedelta(seconds=answer.seconds / 2)
    ahead = (middle - answer.at).total_seconds()
    return _Shown(f"Heroku's data API ({answer.host})", ahead, 0.5 + answer.seconds / 2)


def _compared(shown: _Shown, dates: Sequence[_Dates], now: datetime) -> Finding:
    """What a difference that was measured means."""
    off = max(0.0, abs(shown.ahead) - shown.give)
    facts = {"seconds_ahead": round(shown.ahead, 1), "uncertainty": round(shown.give, 1)}
    if off <= _DRIFT:
        seen = f"this host's clock agrees with that of {shown.who}, within {max(abs(shown.ahead), shown.give):.1f} s"
        return passed(Layer.CLOCK, _CHECK, seen, about=shown.who, seconds=None, **facts)
    way = "ahead of" if shown.ahead > 0 else "behind"
    told = f"this host's clock is {span(off)} {way} that of {shown.who}: it says {now:%Y-%m-%d %H:%M:%S} UTC"
    right = now - timedelta(seconds=shown.ahead)
    victims = [each.whose for each in dates if not each.hold(now) and each.hold(right)]
    if off > _WRONG and victims:
        sentence = f"{told}, and for that {' and '.join(dict.fromkeys(victims))} is outside its dates"
        error = DoctorError(Code.CLOCK_WRONG, sentence, _HINT)
        return failed(Layer.CLOCK, _CHECK, error, about=shown.who, commands=_COMMANDS, seconds=None, **facts)
    error = DoctorError(Code.CLOCK_DRIFTS, told, _HINT)
    return warned(Layer.CLOCK, _CHECK, error, about=shown.who, commands=_COMMANDS, seconds=None, **facts)


def _guessed(identified: Identified, shaken: Sequence[Shaken], now: datetime) -> Finding:
    """From certificates that have not begun, where nobody has shown a clock."""
    theirs = [each for each in _of_servers(shaken) if now < each.begins]
    ours = [each for each in _of_ours(identified) if now < each.begins]
    just_issued = [each for each in ours if each.begins <= now + _ZONES]
    latest = max((*theirs, *ours), key=lambda each: each.begins, default=None)
    if latest is None:
        return skipped(Layer.CLOCK, _CHECK, "no other clock was seen")
    says = f"this host's clock says {now:%Y-%m-%d %H:%M:%S} UTC, and {latest.whose} begins at {_moment(latest)} only"
    if not just_issued and not (ours and theirs):
        seen = f"{says}; no other clock was seen that would tell which of the two is wrong"
        return skipped(Layer.CLOCK, _CHECK, "no other clock was seen", seen=seen)
    behind = (latest.begins - now).total_seconds()
    error = DoctorError(
        Code.CLOCK_WRONG,
        f"{says}: the clock seems to be behind, by {span(behind)} at least",
        f"compare it with another clock, and if it is behind, {_HINT}",
    )
    tell = failed if ours and theirs else warned
    return tell(Layer.CLOCK, _CHECK, error, commands=_COMMANDS, seconds_behind=round(behind, 1))


def _moment(dates: _Dates) -> str:
    return f"{dates.begins:%Y-%m-%d %H:%M:%S} UTC"


def _of_ours(identified: Identified) -> Iterator[_Dates]:
    """Of our certificate and of the trust anchors: those that were refused for their dates are in the findings."""
    for finding in identified.findings:
        begins, ends = finding.facts.get("not_before"), finding.facts.get("not_after")
        if finding.code in _DATES and isinstance(begins, str) and isinstance(ends, str):
            yield _Dates(finding.about, datetime.fromisoformat(begins), datetime.fromisoformat(ends))


def _of_servers(shaken: Sequence[Shaken]) -> Iterator[_Dates]:
    certificates: dict[x509.Certificate, None] = {}
    for each in shaken:
        certificates |= dict.fromkeys(each.chain)
    for certificate in certificates:
        whose = f"the certificate {subject_text(certificate)} of the server"
        yield _Dates(whose, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def span(seconds: float) -> str:
    """A length of time as people say it, in its one largest unit."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:.0f} seconds"
