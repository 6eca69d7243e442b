"""What a running proxy says of itself and of the tunnel, held against the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mtlskit import __version__
from mtlskit.config.values import TunnelKind
from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.local.commands import mended_first, reload_command, restart_commands
from mtlskit.doctor.local.outdated import Difference, changed
from mtlskit.doctor.local.proxies import Served
from mtlskit.errors import Code, DoctorError
from mtlskit.pki.certificates import fingerprint_sha256
from mtlskit.telemetry.logs import printable

__all__ = ["about_proxy", "is_stopped", "tunnel_failed"]

_LONG: Final = 400
"""Characters of what a proxy repeats of others."""


def about_proxy(
    case: Case, identified: Identified, served: Served, of_file: Finding | None, differing: Sequence[Difference]
) -> Iterator[Finding]:
    """All of it but how a client fares. `of_file`: whether it does as the file says; `differing`: where it does not."""
    yield _process(served)
    yield from _version(case, served)
    if of_file is not None:
        yield of_file
    yield _tunnel(case, served)
    if not tunnel_failed(served):
        yield _identity(case, identified, served, differing)
    if case.kind is TunnelKind.KAFKA and not tunnel_failed(served):
        yield from _brokers(served)


def is_stopped(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether the process was stopped by a signal (proc_pid_stat(5), state T); False where that cannot be seen."""
    try:
        return (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _process(served: Served) -> Finding:
    status = served.status
    facts: dict[str, Any] = {"pid": served.pid, "version": _short(status.get("version"))}
    if status.get("draining"):
        error = DoctorError(
            Code.CTL_STOPPING,
            f"the proxy (process {served.pid}) is stopping, and takes no new clients",
            "wait until it has ended, then start it again",
        )
        return failed(Layer.LOCAL, "local.proxy", error, about=f"process {served.pid}", **facts)
    of = f", from {_short(status.get('config') or 'flags')}" if served.other_file else ""
    seen = f"process {served.pid} serves it{of}: version {_short(status.get('version'))}, since {_time(status)}"
    return passed(Layer.LOCAL, "local.proxy", seen, about=f"process {served.pid}", **facts)


def _time(status: Mapping[str, Any]) -> str:
    return _short(status.get("started_at"))


def _version(case: Case, served: Served) -> Iterator[Finding]:
    theirs = served.status.get("version")
    if theirs != __version__:
        error = DoctorError(
            Code.LOCAL_OTHER_VERSION,
            f"process {served.pid} is version {_short(theirs)}, and this command is {__version__}",
            mended_first(case, "restart the proxy to have both alike"),
        )
        yield warned(Layer.LOCAL, "local.version", error, about=f"process {served.pid}", version=_short(theirs))


def tunnel_failed(served: Served) -> bool:
    """It does not serve: it could not start, and has said why."""
    return served.tunnel.get("state") == "failed"


def _tunnel(case: Case, served: Served) -> Finding:
    tunnel = served.tunnel
    addresses = [str(each) for each in served.addresses]
    if tunnel_failed(served):
        told = _mapping(tunnel.get("error"))
        hint = _short(told.get("hint")) or "mend that, then have the proxy try again"
        commands: tuple[str, ...] = (reload_command(case),)
        if changed(served):  # perhaps it has been mended there, and a reload does not read it
            restart = mended_first(case, "restart the proxy, which does as the file said when it was started")
            hint, commands = f"{hint}; then {restart}", restart_commands(case, served.pid)
        error = DoctorError(
            Code.LOCAL_TUNNEL_FAILED,
            f"process {served.pid} runs, and its tunnel {case.name} does not: {_why(told)}",
            hint,
        )
        return failed(Layer.LOCAL, "local.tunnel", error, commands=commands, code_of_tunnel=_short(told.get("code")))
    sessions = tunnel.get("sessions") if isinstance(tunnel.get("sessions"), int) else None
    facts: dict[str, Any] = {"addresses": addresses, "sessions": sessions, "state": _short(tunnel.get("state"))}
    seen = f"{case.name} listens on {', '.join(addresses)}: {sessions} sessions"
    last = _mapping(tunnel.get("upstream_error"))
    if last:  # history: whether it still is so, the way to the upstream has shown
        seen += f"; its last failure was at {_short(last.get('at'))}: {_reason(last)}"
        facts["upstream_error"] = {name: _short(last.get(name)) for name in ("code", "reason", "at")}
    return passed(Layer.LOCAL, "local.tunnel", seen, **facts)


def _identity(case: Case, identified: Identified, served: Served, differing: Sequence[Difference]) -> Finding:
    check = "local.identity"
    if any(each.key == "cert" for each in differing):
        return skipped(Layer.LOCAL, check, "local.config")
    facts = _mapping(served.tunnel.get("identity"))
    theirs, serial = facts.get("fingerprint_sha256"), _short(facts.get("serial"))
    if identified.pair is None:
        return skipped(Layer.LOCAL, check, "identity")
    if not isinstance(theirs, str):
        return skipped(Layer.LOCAL, check, "the proxy does not say what it serves")
    pair = identified.pair
    if theirs == fingerprint_sha256(pair.leaf).hex():
        return passed(Layer.LOCAL, check, f"it serves the certificate of the files (serial {serial})", serial=serial)
    ends = _moment(facts.get("not_after"))
    over = ends is not None and ends <= case.means.now()
    what = f", ended at {_short(facts.get('not_after'))}" if over else ""
    hint, commands = _loaded_by(case, served, over=over)
    error = DoctorError(
        Code.LOCAL_OLD_IDENTITY,
        f"process {served.pid} serves another certificate (serial {serial}{what}) than the files hold now"
        f" (serial {pair.serial})",
        hint,
    )
    make = failed if over else warned
    return make(Layer.LOCAL, check, error, commands=commands, serial=serial, of_files=pair.serial)


def _loaded_by(case: Case, served: Served, *, over: bool) -> tuple[str, tuple[str, ...]]:
    """How a proxy comes to what the identity's files hold. The restart that a changed file asks for does that, too."""
    if not changed(served) or case.file_is_broken:
        hint = "have it load the files; its log says what it did not like about them, if it has tried"
        return hint, (reload_command(case),)
    if over:
        return "restart the proxy for what is new in the file", restart_commands(case, served.pid)
    return "the restart that the changed file asks for is enough", ()


def _brokers(served: Served) -> Iterator[Finding]:
    """Those that the proxy has heard of: each needs a listener of its own."""
    brokers = served.tunnel.get("brokers")
    known = [_mapping(each) for each in brokers] if isinstance(brokers, list) else []
    for broker in known:
        told = _mapping(broker.get("error"))
        if told and not broker.get("addresses"):
            error = DoctorError(
                _code(told, Code.KAFKA_NO_LISTENER),
                f"broker {_short(broker.get('id'))} has no listener: {_why(told)}",
                _short(told.get("hint")) or "give the tunnel more ports",
            )
            yield failed(Layer.LOCAL, "local.brokers", error, about=f"broker {_short(broker.get('id'))}")
    open_ones = [broker for broker in known if broker.get("addresses")]
    if open_ones:
        words = ", ".join(_broker(broker) for broker in open_ones)
        yield passed(Layer.LOCAL, "local.brokers", f"clients find {words}", brokers=len(open_ones))


def _broker(broker: Mapping[str, Any]) -> str:
    told = _mapping(broker.get("error"))
    where = ", ".join(
        f"{each.get('host')}:{each.get('port')}" for each in broker["addresses"] if isinstance(each, dict)
    )
    last = f" (last failure at {_short(told.get('at'))}: {_reason(told)})" if told else ""
    return f"broker {_short(broker.get('id'))} at {_short(where)}{last}"


def _why(told: Mapping[str, Any]) -> str:
    """For a sentence that ends with a code of its own."""
    return _short(told.get("reason") or "it does not say why")


def _reason(told: Mapping[str, Any]) -> str:
    code = told.get("code")
    return f"{_why(told)}{f' [{_short(code)}]' if code else ''}"


def _code(told: Mapping[str, Any], otherwise: Code) -> Code:
    try:
        return Code(str(told.get("code")))
    except ValueError:
        return otherwise


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _short(value: object) -> str:
    return "" if value is None else printable(str(value)[:_LONG])


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
