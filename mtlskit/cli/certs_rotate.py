"""`mtlskit certs rotate`, `issue` and `import`: an identity of the store gets a new certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlskit.cli.certs_reset import agreed_to_reset, refuse_credentials, refuse_reset, show_plans
from mtlskit.cli.chosen import ConfigOption, HerokuDoor, identities_called, load, stored_target, tools_for
from mtlskit.cli.options import JsonOption, LogOption, QuietOption, log_sink, wants_json
from mtlskit.cli.render import line, print_json, reported

if TYPE_CHECKING:
    from mtlskit.config.values import IdentityConfig, ProxyConfig
    from mtlskit.lifecycle.target import Outcome, Target, Wanted
    from mtlskit.telemetry import Emit

__all__ = ["ISSUE_EPILOG", "ROTATE_EPILOG", "issue", "progress", "rotate", "run_rotations", "wanted_of"]

ROTATE_EPILOG = """\b
Examples:
  mtlskit certs rotate reporting                   replace this one now
  mtlskit certs rotate reporting --wait --json     for a script: wait until all of it is done
  mtlskit certs rotate --due                       for cron: those that are due, or were left unfinished
  mtlskit certs rotate --all --dry-run             what would be done
  mtlskit certs rotate events --reset-app-credentials   of a Kafka add-on: restarts its apps' dynos

\b
Exit status:
  0  done, or nothing to do
  1  one of them failed, and says which certificate is in use; the next run goes on where this one ended
  2  wrong usage or configuration
  3  one of them waits for something, or --wait has ended before the old sessions did;
     with --dry-run: something would be done"""

ISSUE_EPILOG = """\b
Examples:
  mtlskit certs issue reporting --wait
  mtlskit certs issue reporting --no-prove      the database does not know our CA yet"""

WaitOption = Annotated[
    bool,
    typer.Option("--wait", help="Wait until the certificate is there, and until no session uses the old one."),
]
TimeoutOption = Annotated[
    str,
    typer.Option("--timeout", metavar="DURATION", show_default=False, help="How long --wait may take. Default: 15m."),
]
NoProveOption = Annotated[
    bool, typer.Option("--no-prove", help="Use the certificate without trying it at the database first.")
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Give up what an earlier run has left unfinished, and begin anew.")
]


def rotate(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", hidden=True)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every identity that has an issuer.")] = False,
    due: Annotated[bool, typer.Option("--due", help="Those that are due, or were left unfinished.")] = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = "15m",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    no_prove: NoProveOption = False,
    fresh: FreshOption = False,
    reset: Annotated[
        bool,
        typer.Option("--reset-app-credentials", help="Of a Kafka add-on: have Heroku make new ones for its apps, too."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether the apps' dynos may restart.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    log: LogOption = "text",
    quiet: QuietOption = False,
) -> None:
    """Replace certificates: ask the issuer, prove the new pair at the database, switch, tell the running proxies.

    Without --wait, what is not ready is left for the next run, and old sessions are left alone. A Kafka add-on has one
    credential for its apps and for us: it is followed, and replaced with --reset-app-credentials only.
    """
    with reported(as_json=as_json or wants_json(log)):
        from mtlskit.errors import Code, ConfigError

        chosen = [bool(names), everything, due]
        if sum(chosen) != 1:
            raise ConfigError(
                Code.USAGE,
                "say which: NAME, --all or --due" if not any(chosen) else "NAME, --all and --due exclude each other",
                "see mtlskit certs rotate --help",
            )
        refuse_reset(reset=reset, names=names or [])
        emit = progress(log, quiet=quiet)
        loaded = load(config)
        door = HerokuDoor(loaded, emit)
        found = _wanted_ones(loaded, names or [], due=due)
        # A reset is waited for: meanwhile the old credential may be of no use any more.
        reason = "due" if due else "a reset is asked for" if reset else "asked for"
        wanted = wanted_of(reason, wait or reset, timeout, prove=not no_prove, fresh=fresh)
        wanted = replace(wanted, only_if_due=due, by_name=bool(names) and not reset, reset=reset)
        if names and not reset:
            refuse_credentials(loaded, found)
        if dry_run:
            show_plans(loaded, found, wanted, door, as_json=as_json)
            return
        if reset and not agreed_to_reset(loaded, found[0], door, yes=yes, as_json=wants_json(log)):
            raise typer.Exit(1)
        run_rotations(loaded, found, wanted, emit, as_json=as_json, log=log, door=door)


def issue(
    names: Annotated[list[str], typer.Argument(metavar="NAME", hidden=True)],
    wait: WaitOption = False,
    timeout: TimeoutOption = "15m",
    no_prove: NoProveOption = False,
    fresh: FreshOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    log: LogOption = "text",
    quiet: QuietOption = False,
) -> None:
    """Get the first certificate of an identity. One that has a certificate is left as it is."""
    with reported(as_json=as_json or wants_json(log)):
        from mtlskit.errors import Code, ConfigError

        emit = progress(log, quiet=quiet)
        loaded = load(config)
        found = identities_called(loaded, names)
        for identity in found:
            current = stored_target(loaded, identity).stored.current()
            if current is not None:
                raise ConfigError(
                    Code.ROTATION_REFUSED,
                    f"{identity.name} has a certificate: version {current.number}, serial {current.facts.serial}",
                    f"replace it: mtlskit certs rotate {identity.name}",
                )
        wanted = wanted_of("first certificate", wait, timeout, prove=not no_prove, fresh=fresh)
        run_rotations(loaded, found, wanted, emit, as_json=as_json, log=log)


def _wanted_ones(config: ProxyConfig, names: Sequence[str], *, due: bool) -> list[IdentityConfig]:
    from mtlskit.config.values import IssuerKind

    found = identities_called(config, names)
    if names:
        for identity in found:
            stored_target(config, identity)  # one that cannot be rotated is told before any is
        return found
    found = [identity for identity in found if identity.issuer.kind is not IssuerKind.FILES]
    if due:
        found = [identity for identity in found if _is_due(stored_target(config, identity))]
    return found


def _is_due(target: Target) -> bool:
    from mtlskit.errors import StoreError
    from mtlskit.lifecycle.due import why_due

    try:
        if why_due(target, _now()):
            return True
        current = target.stored.current()
        return current is not None and current.facts.followed  # whether it has changed, its rotation asks
    except StoreError:
        return True  # its rotation says what is wrong, and holds up no other


def wanted_of(reason: str, wait: bool, timeout: str, *, prove: bool, fresh: bool) -> Wanted:
    from mtlskit.config.durations import parse_duration
    from mtlskit.errors import ConfigError
    from mtlskit.lifecycle.target import Wanted

    try:
        seconds = parse_duration(timeout)
    except ConfigError as exc:
        raise ConfigError(exc.code, f"--timeout: {exc.sentence}", exc.hint) from exc
    return Wanted(reason, wait=seconds if wait else None, prove=prove, fresh=fresh)


def run_rotations(
    config: ProxyConfig,
    identities: Sequence[IdentityConfig],
    wanted: Wanted,
    emit: Emit,
    *,
    as_json: bool,
    log: str = "text",
    door: HerokuDoor | None = None,
) -> None:
    import trio

    from mtlskit.errors import MtlskitError
    from mtlskit.lifecycle.events import RotationFailed
    from mtlskit.lifecycle.rotate import rotate as rotate_one
    from mtlskit.lifecycle.target import Outcome, Result

    outcomes: list[Outcome] = []
    shared = door or HerokuDoor(config, emit)

    async def work() -> None:
        for identity in identities:
            try:
                target = stored_target(config, identity)
                tools = tools_for(config, identity, emit, asked=wanted.material is None, door=shared)
            except MtlskitError as exc:
                if len(identities) == 1:
                    raise
                outcomes.append(Outcome(identity.name, Result.FAILED, exc.sentence, step="begin", error=exc))
                reason = {"code": exc.code.value, "reason": exc.sentence, "hint": exc.hint}
                emit(RotationFailed(identity=identity.name, step="begin", **reason))
                continue
            outcomes.append(await rotate_one(target, tools, wanted))

    trio.run(work)
    finish(outcomes, as_json=as_json, log=log)


def progress(log: str, *, quiet: bool) -> Emit:
    """The log of a rotation. Where people read it, how it ends is told by the command itself."""
    from mtlskit.lifecycle.events import Rotated, RotationFailed
    from mtlskit.telemetry import Event

    sink = log_sink(log, quiet=quiet, verbose=False)
    if wants_json(log):
        return sink

    def emit(event: Event) -> None:
        if not isinstance(event, Rotated | RotationFailed):
            sink(event)

    return emit


def finish(outcomes: Sequence[Outcome], *, as_json: bool, log: str = "text") -> None:
    """Show what came of it, and leave with the status that says it."""
    from mtlskit.lifecycle.target import Result

    if as_json:
        print_json({"identities": [_plain(outcome) for outcome in outcomes]})
    elif not outcomes:
        line("nothing to do")
    else:
        for outcome in outcomes:
            _tell(outcome, log)
    results = {outcome.result for outcome in outcomes}
    if Result.FAILED in results:
        raise typer.Exit(1)
    if Result.WAITING in results or any(outcome.left for outcome in outcomes):
        raise typer.Exit(3)


def _tell(outcome: Outcome, log: str) -> None:
    from mtlskit.cli.render import fail
    from mtlskit.errors import MtlskitError
    from mtlskit.lifecycle.target import Result

    match outcome.result:
        case Result.FAILED if wants_json(log):
            pass  # `rotation_failed` has told it
        case Result.FAILED if isinstance(outcome.error, MtlskitError):
            error = outcome.error
            fail(type(error)(error.code, outcome.told, error.hint))
        case Result.WAITING:
            line(f"{outcome.identity}: not done yet, waiting: {outcome.told}")
        case Result.ROTATED:
            line(outcome.told)
        case _:
            line(f"{outcome.identity}: nothing to do, {outcome.told}")


def _plain(outcome: Outcome) -> dict[str, Any]:
    error = outcome.error
    return {
        "identity": outcome.identity,
        "result": outcome.result.value,
        "told": outcome.told,
        "rotation": outcome.rotation,
        "version": outcome.version,
        "serial": outcome.serial,
        "old_serial": outcome.old_serial,
        "not_after": outcome.not_after,
        "step": outcome.step,
        "error": None if error is None else {"code": error.code.value, "reason": error.sentence, "hint": error.hint},
        "notes": list(outcome.notes),
    }


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)
