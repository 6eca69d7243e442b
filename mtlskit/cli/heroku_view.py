"""How add-ons and their mTLS are shown: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mtlskit.cli.spans import left_text
from mtlskit.cli.table import Cell, Column, table
from mtlskit.heroku.values import MOST_RULES, AddonKind
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.errors import MtlskitError
    from mtlskit.heroku.overview import Overview
    from mtlskit.heroku.values import Addon, IpRule, RemoteCertificate, TlsEndpoint

__all__ = ["counted", "entry", "error_entry", "overview_entry", "overview_lines"]

_GREEN, _YELLOW, _RED, _DIM = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m"

_COLUMNS = (
    Column("  CERTIFICATE", least=12),
    Column("STATUS"),
    Column("EXPIRES (UTC)", missable=1),
    Column("LEFT"),
)


def counted(number: int, what: str) -> str:
    """`1 certificate`, `2 certificates`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


# For scripts.


def entry(addon: Addon, endpoint: TlsEndpoint | None) -> dict[str, Any]:
    """An add-on and its endpoint; what is not known is null."""
    return {
        "addon": addon.name,
        "app": addon.app or None,
        "kind": addon.kind.value if addon.kind is not None else None,
        "plan": addon.plan or None,
        "endpoint": None
        if endpoint is None
        else {
            "status": endpoint.status,
            "operational": endpoint.operational,
            "enabled_by": endpoint.enabled_by or None,
        },
        "error": None,
    }


def error_entry(addon: str, error: MtlskitError) -> dict[str, Any]:
    """An add-on that could not be looked at or changed, with the same keys."""
    from mtlskit.control.protocol import error_facts

    unknown = dict.fromkeys(("app", "kind", "plan", "endpoint"))
    return {"addon": addon, **unknown, "error": error_facts(error)}


def overview_entry(overview: Overview) -> dict[str, Any]:
    """All that is known of an add-on. No key and no certificate is in it."""
    cluster = overview.cluster
    return {
        **entry(overview.addon, overview.endpoint),
        "certificates": [_certificate(each) for each in overview.certificates],
        "rules": {
            "used": len(overview.rules),
            "limit": MOST_RULES,
            "authorizing": overview.authorizing,
            "list": [_rule(each) for each in overview.rules],
        },
        "cluster": None if cluster is None else {"status": cluster.status, "healthy": cluster.healthy},
    }


def _certificate(found: RemoteCertificate) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name or None,
        "status": found.status,
        "created_at": found.created_at or None,
        "expires_at": found.expires_at.isoformat() if found.expires_at is not None else None,
    }


def _rule(rule: IpRule) -> dict[str, Any]:
    return {"id": rule.id, "cidr": rule.cidr, "description": rule.description, "status": rule.status}


# For people.


def overview_lines(
    overviews: Mapping[str, Overview], *, now: datetime, width: int | None, colour: bool
) -> Iterator[str]:
    """A block of lines for each add-on. `now` is aware; `width` None: as wide as it takes."""
    for number, overview in enumerate(overviews.values()):
        if number:
            yield ""
        yield _title(overview.addon)
        yield from _body(overview, now, width, colour)


def _title(addon: Addon) -> str:
    plan = addon.plan.rpartition(":")[2]
    facts = [addon.kind.value if addon.kind else "", plan, f"app {addon.app}" if addon.app else ""]
    return printable(f"{addon.name} ({', '.join(fact for fact in facts if fact)})")


def _body(overview: Overview, now: datetime, width: int | None, colour: bool) -> Iterator[str]:
    if overview.addon.kind is AddonKind.KAFKA:
        yield "  endpoint   none of its own: a Kafka add-on always speaks mTLS"
        if overview.cluster is not None and overview.cluster.status:
            yield f"  cluster    {printable(overview.cluster.status)}"
        yield f"  rules      {_rules(overview)}"
        return
    endpoint = overview.endpoint
    if endpoint is None:
        todo = f"mtlskit heroku enable {printable(overview.addon.name)}"
        yield f"  endpoint   {_painted('not enabled', _RED, colour)}; {todo}"
        return
    shade = _GREEN if endpoint.operational else _YELLOW
    by = f" (enabled by {printable(endpoint.enabled_by)})" if endpoint.enabled_by else ""
    yield f"  endpoint   {_painted(printable(endpoint.status), shade, colour)}{by}"
    yield f"  rules      {_rules(overview)}"
    yield from _certificates(overview.certificates, now, width, colour)


def _rules(overview: Overview) -> str:
    waiting = f", {overview.authorizing} not authorized yet" if overview.authorizing else ""
    return f"{len(overview.rules)} of {MOST_RULES}{waiting}"


def _certificates(found: Sequence[RemoteCertificate], now: datetime, width: int | None, colour: bool) -> Iterable[str]:
    """Those that are of use, as a table; Heroku goes on listing the others, which are only counted."""
    live = [each for each in found if not each.ending]
    if live:
        yield from table(_COLUMNS, [_row(each, now, colour) for each in live], width=width)
    else:
        yield "  certificates none"
    if len(live) < len(found):
        yield f"  and {len(found) - len(live)} disabled"


def _row(found: RemoteCertificate, now: datetime, colour: bool) -> list[Cell]:
    shade = _GREEN if found.ready else _YELLOW
    ends = found.expires_at
    if ends is not None and ends <= now:
        shade = _RED
    painted = shade if colour else ""
    return [
        Cell(f"  {printable(found.id)}"),
        Cell(printable(found.status), painted),
        Cell(f"{ends.astimezone(UTC):%Y-%m-%d %H:%M}" if ends is not None else "-"),
        Cell(left_text(ends - now) if ends is not None else "-", painted),
    ]


def _painted(text: str, shade: str, colour: bool) -> str:
    return f"{shade}{text}\x1b[0m" if colour else text
