"""What `mtlskit status`, `reload` and `stop` show to people. The facts come from other processes: all is escaped."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mtlskit.cli.render import Colour, line, painted
from mtlskit.cli.spans import span_text
from mtlskit.cli.table import Cell, Column, table
from mtlskit.telemetry.logs import printable

__all__ = ["needs_attention", "show_reload", "show_status", "show_unanswered"]

_COLUMNS = (
    Column("TUNNEL", least=8),
    Column("LISTENS ON", least=14),
    Column("STATE"),
    Column("SESSIONS", right=True),
    Column("IDENTITY", least=8, missable=2),
    Column("SERIAL", least=8, missable=1),
    Column("DAYS LEFT", right=True),
)
_INDENT = "  "
_SERIAL_SHOWN = 16
_BROKERS_SHOWN = 12
_NOT_NAMED = "no longer named by the cluster"


def needs_attention(status: Mapping[str, Any]) -> bool:
    """Whether a tunnel of this proxy failed, keeps what it had before, or has an identity that is due."""
    return any(_trouble(tunnel) for tunnel in status.get("tunnels", ()))


def show_status(status: Mapping[str, Any], *, now: datetime | None = None) -> None:
    """One proxy and its tunnels."""
    moment = now or datetime.now(UTC)
    draining = ", stopping" if status.get("draining") else ""
    line(
        f"proxy {status.get('pid')}{draining}: {printable(str(status.get('config') or 'from flags'))},"
        f" version {printable(str(status.get('version')))}, up {span_text(float(status.get('uptime', 0)))}"
    )
    _tell_of_file(status)
    tunnels = list(status.get("tunnels", ()))
    width = shutil.get_terminal_size().columns - len(_INDENT) if sys.stdout.isatty() else None
    rows = [[Cell(text) for text in _row(tunnel, moment)] for tunnel in tunnels]
    heads, *laid_out = table(_COLUMNS, rows, width=width)
    line(_INDENT + painted(heads, Colour.DIM))
    for tunnel, text in zip(tunnels, laid_out, strict=True):
        line(_INDENT + painted(text, Colour.RED if _trouble(tunnel) else None))
        _show_brokers(list(tunnel.get("brokers") or ()))
        _show_prefix(tunnel.get("addon") or {})
        for trouble, hint in _trouble(tunnel):
            _show_error(trouble, hint)


def _show_brokers(brokers: list[Mapping[str, Any]]) -> None:
    """Where clients of a Kafka tunnel find each broker. Those that have no listener are among what is wrong."""
    listening = [broker for broker in brokers if broker.get("addresses")]
    for broker in listening[:_BROKERS_SHOWN]:
        where = ", ".join(_address(address) for address in broker.get("addresses", ()))
        gone = "" if _is_named(broker) else f" ({_NOT_NAMED})"
        told = f"    broker {broker.get('id')} on {where} to {broker.get('upstream')}{gone}"
        line(painted(printable(told), Colour.DIM))
    if len(listening) > _BROKERS_SHOWN:
        line(painted(f"    and {len(listening) - _BROKERS_SHOWN} more (--json lists them)", Colour.DIM))


def _is_named(broker: Mapping[str, Any]) -> bool:
    """A proxy of an older version does not say."""
    return bool(broker.get("named", True))


def _show_prefix(addon: Mapping[str, Any]) -> None:
    """Whoever leaves it out is refused by the brokers, in words that do not name it."""
    if prefix := addon.get("prefix"):
        told = f"    names of topics and groups on {addon.get('name')} begin with {prefix}"
        line(painted(printable(told), Colour.DIM))


def show_reload(pid: int, answer: Mapping[str, Any]) -> None:
    """What each tunnel of a proxy serves after a reload."""
    line(f"proxy {pid}:")
    _tell_of_file(answer)
    for tunnel in answer.get("tunnels", ()):
        name, error, serial = printable(str(tunnel.get("name"))), tunnel.get("error"), tunnel.get("serial")
        serves = f"serial {printable(str(serial))}, valid until {_day(tunnel.get('not_after'))}"
        if tunnel.get("ok"):
            line(f"  {name}: identity {printable(str(tunnel.get('identity')))}, {serves}")
            if isinstance(looked := tunnel.get("addon_error"), dict):
                _show_error(
                    f"where Heroku's side is could not be looked up: {looked.get('reason')}",
                    str(looked.get("hint", "")),
                )
            continue
        line(painted(f"  {name}: not loaded; " + (f"it keeps {serves}" if serial else "it does not run"), Colour.RED))
        if isinstance(error, dict):
            _show_error(f"{error.get('reason')} [{error.get('code')}]", str(error.get("hint", "")))


def _tell_of_file(facts: Mapping[str, Any]) -> None:
    if facts.get("config_changed"):
        told = "  its configuration file has changed since it started: what is new there counts after a restart"
        line(painted(told, Colour.YELLOW))


def show_unanswered(pid: int, reason: str, hint: str) -> None:
    """A proxy that could not be asked."""
    line(painted(f"proxy {pid}:", Colour.RED))
    _show_error(reason, hint)


def _show_error(reason: str, hint: str) -> None:
    line(f"    {painted('error:', Colour.RED)} {printable(reason)}")
    if hint:
        line(f"    {painted('hint:', Colour.DIM)}  {printable(hint)}")


def _trouble(tunnel: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a tunnel, each with what to do."""
    found = []
    error, identity = tunnel.get("error"), tunnel.get("identity") or {}
    if isinstance(error, dict):
        kept = "reload failed, the old identity stays in use: " if tunnel.get("state") == "serving" else ""
        at = f" (at {error['at']})" if "at" in error else ""
        found.append((f"{kept}{error.get('reason')} [{error.get('code')}]{at}", str(error.get("hint", ""))))
    elif tunnel.get("state") == "failed":
        found.append(("the tunnel does not run", "see the log of the proxy"))
    if isinstance(failed := tunnel.get("upstream_error"), dict):
        why = f"{failed.get('reason')} [{failed.get('code')}] (at {failed.get('at')})"
        found.append((f"the last client got no connection: {why}", str(failed.get("hint", ""))))
    for broker in tunnel.get("brokers") or ():
        if isinstance(failed := broker.get("error"), dict):
            why = f"{failed.get('reason')} [{failed.get('code')}]" + (f" (at {failed['at']})" if "at" in failed else "")
            which = f"broker {broker.get('id')}" + ("" if _is_named(broker) else f", {_NOT_NAMED},")
            found.append((f"{which} cannot be reached: {why}", str(failed.get("hint", ""))))
    addon = tunnel.get("addon") or {}
    if isinstance(unanswered := addon.get("error"), dict):
        reason = f"{unanswered.get('reason')} [{unanswered.get('code')}]"
        told = f"{addon.get('name')} cannot be looked up, what is known of it stays in use: {reason}"
        found.append((told, str(unanswered.get("hint", ""))))
    if identity.get("due"):
        name = identity.get("name")
        found.append(
            (
                f"the certificate ends at {_day(identity.get('not_after'))}, and is due for renewal",
                f"`mtlskit certs rotate {name}`, or new files in their place; the proxy loads them by itself",
            )
        )
    return found


def _row(tunnel: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    identity = tunnel.get("identity") or {}
    serial = str(identity.get("serial") or "-")
    cells = (
        tunnel.get("name"),
        ", ".join(_address(address) for address in tunnel.get("addresses", ())) or "-",
        tunnel.get("state"),
        tunnel.get("sessions", 0),
        identity.get("name"),
        serial if len(serial) <= _SERIAL_SHOWN else f"{serial[:_SERIAL_SHOWN]}…",
        _days_left(identity.get("not_after"), now),
    )
    return tuple(printable(str(cell)) for cell in cells)


def _address(address: Mapping[str, Any]) -> str:
    if "path" in address:
        return f"unix:{address['path']}"
    host = str(address.get("host"))
    return f"[{host}]:{address.get('port')}" if ":" in host else f"{host}:{address.get('port')}"


def _days_left(not_after: object, now: datetime) -> str:
    if not isinstance(not_after, str):
        return "-"
    return str(math.floor((datetime.fromisoformat(not_after) - now) / timedelta(days=1)))


def _day(moment: object) -> str:
    return f"{printable(str(moment))[:16].replace('T', ' ')} UTC"
