"""What a session in Postgres tells: its certificate, its version, how full the server is, whether it takes writes, its
clock, and how long a query takes.

Each question is one simple query of its own, so that one that a server does not know (a pooler, an old version) spoils
no other. The search path is set to the system's catalogue within each, as whoever owns the database could have put
functions of his own in front of it (CVE-2018-1058). SET LOCAL ends with the query: a pooler's connection stays clean.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import trio

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.postgres.refusals import said
from mtlskit.doctor.postgres.session import Session
from mtlskit.errors import Code, DoctorError, UpstreamError, UpstreamLost
from mtlskit.pki.certificates import bounded_text
from mtlskit.wire.postgres.query import Answer

__all__ = ["Inside"]

_SAFELY: Final = "SET LOCAL search_path TO pg_catalog; "

_CERTIFICATE: Final = (
    "SELECT ssl, version, cipher, client_dn, client_serial, issuer_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
)
_SYSTEM_USER: Final = "SELECT system_user"
_SETTINGS: Final = (
    "SELECT current_setting('max_connections'), current_setting('superuser_reserved_connections'),"
    " current_setting('reserved_connections', true), current_setting('is_superuser')"
)
# Of other users' sessions, everybody sees the database and the user, and not the type of backend. What has no user is a
# process of the server's own and takes no connection.
_SESSIONS: Final = (
    "SELECT count(*), count(*) FILTER (WHERE usename = current_user),"
    " count(*) FILTER (WHERE datname = current_database()),"
    " (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),"
    " (SELECT datconnlimit FROM pg_database WHERE datname = current_database()), current_user, current_database()"
    " FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL"
    " AND coalesce(backend_type, 'client backend') = 'client backend' AND pid <> pg_backend_pid()"
)
_WRITES: Final = (
    "SELECT pg_is_in_recovery(), setting, source FROM pg_settings WHERE name = 'default_transaction_read_only'"
)
_CLOCK: Final = "SELECT extract(epoch FROM clock_timestamp())"
_NOTHING: Final = "SELECT 1"

_ROUNDS: Final = 10
_LEAST_ROUNDS: Final = 3
_ENOUGH: Final = 500.0
"""Milliseconds for these queries: from far away three of them say what ten would."""
_SHARE: Final = 2
"""Steps (`Means.step`) for all questions: what was found by then must be told before the whole time is up."""
_DRIFT: Final = timedelta(seconds=60)
_MEANT: Final = re.compile(r"follower|replica|standby|read[-_]?only|reader|(?<![a-z])ro(?![a-z])", re.IGNORECASE)
"""In a name: who calls a tunnel so knows where it leads."""
_MEANT_ATTRIBUTES: Final = frozenset({"standby", "prefer-standby", "read-only"})
"""Values of PGTARGETSESSIONATTRS that ask for a server that takes no writes (libpq)."""
_OWN_WILL: Final = frozenset({"user", "database user", "client"})
"""Sources of a setting that say that it is meant for this user (pg_settings.source)."""


@dataclass(frozen=True)
class _Limit:
    """A number of connections that may not be exceeded."""

    of: str
    """The server, the role, the database."""
    told: str
    limit: int
    used: int
    """By others than us."""

    @property
    def free(self) -> int:
        return self.limit - self.used


class Inside:
    """The look inside one session."""

    def __init__(self, case: Case, endpoint: Endpoint, session: Session, serial: str) -> None:
        """`serial` is that of our certificate, hexadecimal."""
        self._case = case
        self._endpoint = endpoint
        self._session = session
        self._serial = serial
        self._about = str(endpoint)
        self._parameters = session.entry.parameters
        self._broken: UpstreamError | None = None
        self.certificate_unseen = False
        """The server knows no client certificate of this session; whether it should is for another to find out."""

    async def look(self) -> tuple[Finding, ...]:
        """All of it, as far as the session lasts. Never raises UpstreamError."""
        findings: list[Finding] = [self._version()]
        looks: tuple[Callable[[], Awaitable[Finding]], ...] = (
            self._certificate,
            self._headroom,
            self._standby,
            self._clock,
            self._round_trip,
        )
        try:
            if self._broken is not None:
                raise self._broken
            with trio.move_on_after(_SHARE * self._case.means.step) as share:
                for look in looks:
                    findings.append(await look())
            if share.cancelled_caught:
                rest = "the server is slow: the time for questions was up"
                findings.append(skipped(Layer.POSTGRES, "postgres.unfinished", rest, about=self._about))
        except UpstreamError as exc:
            findings.append(failed(Layer.POSTGRES, "postgres.session", exc, about=self._about))
        return tuple(findings)

    async def system_user(self) -> str | None:
        """How the server knows us: "cert:CN=…" (PostgreSQL 16 and later); None where it does not say.

        Never raises UpstreamError: `look` tells of a session that has broken.
        """
        if _number(self._parameters.get("server_version", "").partition(".")[0]) < 16:
            return None
        try:
            answer = await self._ask(_SYSTEM_USER)
        except UpstreamError as exc:
            self._broken = exc
            return None
        return answer.rows[0][0] if _has(answer, 1) else None

    def _version(self) -> Finding:
        version = bounded_text(self._parameters.get("server_version", "")) or "of a version that it does not tell"
        return self._passed("version", f"the server is PostgreSQL {version}", version=version)

    async def _certificate(self) -> Finding:
        answer = await self._ask(_CERTIFICATE)
        if not _has(answer, 6):
            return self._unknown("certificate", answer)
        encrypted, version, cipher, subject, serial, issuer = answer.rows[0]
        facts: dict[str, Any] = {"ssl": encrypted == "t", "version": version, "cipher": cipher}
        if encrypted != "t":
            self.certificate_unseen = True
            return self._passed("certificate", "the server sees a session without TLS: TLS ends before it", **facts)
        tls = f"{bounded_text(version or '')} with {bounded_text(cipher or '')}"
        if subject is None:
            self.certificate_unseen = True
            return self._passed("certificate", f"the server sees {tls}, and no client certificate", **facts)
        facts |= {"client_dn": bounded_text(subject), "issuer_dn": bounded_text(issuer or "")}
        facts["client_serial"] = f"{_number(serial):x}" if serial else None
        ours = serial is None or _number(serial) == int(self._serial, 16)
        whose = "our certificate" if ours else "another certificate than ours, of something between here and there"
        return self._passed(
            "certificate", f"the server sees {tls} and {whose}: {facts['client_dn']}", ours=ours, **facts
        )

    async def _headroom(self) -> Finding:
        settings, sessions = await self._ask(_SETTINGS), await self._ask(_SESSIONS)
        if not (_has(settings, 4) and _has(sessions, 7)):
            return self._unknown("headroom", sessions if _has(settings, 4) else settings)
        limits = _limits(settings, sessions)
        facts: dict[str, Any] = {
            "max_connections": _number(settings.rows[0][0]),
            "used": limits[0].used,
            "limits": [{"of": each.of, "limit": each.limit, "used": each.used} for each in limits],
        }
        told = "; ".join(f"{each.used} of {each.told}" for each in limits)
        tightest = min(limits, key=lambda each: each.free / max(each.limit, 1))
        if tightest.free * 10 >= tightest.limit:
            return self._passed("headroom", f"others have taken {told}", **facts)
        error = UpstreamLost(
            Code.PG_NEARLY_FULL,
            f"{self._endpoint} is nearly full: others have taken {told}",
            "close sessions that nobody needs (pg_stat_activity shows them), put a pooler before the server, or raise"
            " the limit; connections in advance (`warm`) count",
        )
        return warned(Layer.POSTGRES, "postgres.headroom", error, about=self._about, **facts)

    async def _standby(self) -> Finding:
        answer = await self._ask(_WRITES)
        if not _has(answer, 3):
            return self._unknown("standby", answer)
        recovering, read_only, source = answer.rows[0]
        facts: dict[str, Any] = {"in_recovery": recovering == "t", "default_transaction_read_only": read_only == "on"}
        if recovering != "t" and read_only != "on":
            return self._passed("standby", "the server is a primary and takes writes", **facts)
        what = "is a standby: it takes no writes" if recovering == "t" else "takes no writes unless one insists"
        if recovering != "t":
            what += f" (default_transaction_read_only is on, by {bounded_text(source or 'default')})"
        if self._reading_is_meant() or (recovering != "t" and source in _OWN_WILL):
            return self._passed("standby", f"the server {what}, as is meant", **facts)
        error = UpstreamLost(
            Code.PG_STANDBY,
            f"{self._endpoint} {what}",
            "if a follower is meant, all is well: a tunnel with follower, standby or readonly in its name, or"
            " PGTARGETSESSIONATTRS=standby, says so; else find out where the primary is, which may have changed",
        )
        return warned(Layer.POSTGRES, "postgres.standby", error, about=self._about, **facts)

    def _reading_is_meant(self) -> bool:
        tunnel = self._case.tunnel
        # Further endpoints are tried when the first does not answer: there, a standby stands ready.
        further = self._endpoint in tunnel.upstream[1:]
        names = (self._case.name, tunnel.addon or "", self._endpoint.host)
        wanted = self._case.means.environ.get("PGTARGETSESSIONATTRS", "")
        return further or wanted in _MEANT_ATTRIBUTES or any(_MEANT.search(name) for name in names)

    async def _clock(self) -> Finding:
        began, before = time.perf_counter(), self._case.means.now()
        answer = await self._ask(_CLOCK)
        middle = before + timedelta(seconds=(time.perf_counter() - began) / 2)
        theirs = _moment(answer)
        if theirs is None:
            return self._unknown("clock", answer)
        offset = (middle - theirs).total_seconds()
        facts: dict[str, Any] = {"server_time": theirs.isoformat(), "offset_seconds": round(offset, 3)}
        ahead = "ahead of" if offset > 0 else "behind"
        if abs(offset) <= _DRIFT.total_seconds():
            return self._passed("clock", f"this host's clock is {abs(offset):.1f} s {ahead} the server's", **facts)
        error = DoctorError(
            Code.CLOCK_DRIFTS,
            f"this host's clock is {abs(offset):.0f} s {ahead} that of {self._endpoint}",
            "one of the two is wrong: see that a time service runs here",
        )
        return warned(
            Layer.POSTGRES, "postgres.clock", error, about=self._about, commands=("timedatectl status",), **facts
        )

    async def _round_trip(self) -> Finding:
        times: list[float] = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            answer = await self._ask(_NOTHING, prefix="")
            times.append(1000 * (time.perf_counter() - began))
            if answer.error is not None or answer.rows != (("1",),):
                why = said(answer.error) if answer.error else "it answers with something else than 1"
                error = UpstreamLost(
                    Code.PG_QUERY_FAILED,
                    f"{self._endpoint} lets us in, and SELECT 1 fails: {why}",
                    "the words are the server's own; its log says more",
                )
                return failed(Layer.POSTGRES, "postgres.round-trip", error, about=self._about)
            if len(times) >= _LEAST_ROUNDS and sum(times) > _ENOUGH:
                break
        least, middle, most = min(times), statistics.median(times), max(times)
        return passed(
            Layer.POSTGRES,
            "postgres.round-trip",
            f"{len(times)} queries took {least:.1f} to {most:.1f} ms each, {middle:.1f} ms in the middle",
            about=self._about,
            seconds=sum(times) / 1000,
            queries=len(times),
            min_ms=round(least, 3),
            median_ms=round(middle, 3),
            max_ms=round(most, 3),
        )

    async def _ask(self, statement: str, *, prefix: str = _SAFELY) -> Answer:
        answer = await self._session.ask(f"{prefix}{statement}")
        if answer.error is not None and answer.error.severity in ("FATAL", "PANIC"):
            raise UpstreamLost(
                Code.PG_QUERY_FAILED,
                f"{self._endpoint} has ended the session: {said(answer.error)}",
                "the words are the server's own; its log says more",
            )
        return answer

    def _passed(self, what: str, seen: str, **facts: Any) -> Finding:
        return passed(Layer.POSTGRES, f"postgres.{what}", seen, about=self._about, **facts)

    def _unknown(self, what: str, answer: Answer) -> Finding:
        """The server does not tell, which harms nobody."""
        why = said(answer.error) if answer.error is not None else "its answer has another form"
        return skipped(
            Layer.POSTGRES, f"postgres.{what}", "the server does not tell", about=self._about, seen=f"not told: {why}"
        )


def _limits(settings: Answer, sessions: Answer) -> list[_Limit]:
    """The server's limit first, then the role's and the database's where they have one."""
    most, reserved, kept, superuser = settings.rows[0]
    used, of_role, of_database, role_limit, database_limit, role, database = sessions.rows[0]
    server = _number(most)
    free_for_all = server if superuser == "on" else server - _number(reserved) - _number(kept)
    limits = [_Limit("server", f"the server's {free_for_all} connections", free_for_all, _number(used))]
    named = (
        ("role", role, role_limit, of_role),
        ("database", database, database_limit, of_database),
    )
    for kind, name, limit, taken in named:
        if (count := _number(limit, missing=-1)) >= 0 and superuser != "on":
            told = f"the {count} that the {kind} {bounded_text(name or '')} may have"
            limits.append(_Limit(kind, told, count, _number(taken)))
    return limits


def _has(answer: Answer, columns: int) -> bool:
    return answer.error is None and len(answer.rows) == 1 and len(answer.rows[0]) == columns


def _number(text: str | None, *, missing: int = 0) -> int:
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,60}", text, re.ASCII) else missing


def _moment(answer: Answer) -> datetime | None:
    """The time in an answer of seconds since 1970."""
    if not _has(answer, 1):
        return None
    try:
        return datetime.fromtimestamp(float(answer.rows[0][0] or "nan"), UTC)
    except (ValueError, OverflowError, OSError):
        return None
