"""`mtlskit doctor`: why does it not connect, and what is to be typed now?"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mtlskit.cli.chosen import ConfigOption
from mtlskit.cli.control import ATTENTION, ControlOption
from mtlskit.cli.options import JsonOption
from mtlskit.cli.render import INTERRUPTED, line, print_json, reported
from mtlskit.cli.tunnel_flags import (
    CaOption,
    CertOption,
    KeyOption,
    KindOption,
    NegotiationOption,
    PassphraseFileOption,
    PinOption,
    UpstreamOption,
    VerifyOption,
    listed_as_set,
    path_of,
    refuse_both,
    refuse_files,
    sources_of,
    variables_of,
    warn_of_passwords,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtlskit.cli.doctor_progress import Progress
    from mtlskit.doctor.case import Case, Means
    from mtlskit.doctor.diagnosis import Report
    from mtlskit.doctor.gather import Gathered
    from mtlskit.doctor.report.changes import Change

__all__ = ["EPILOG", "doctor"]

EPILOG = """\b
Examples:
  mtlskit doctor                     every tunnel of ./mtlskit.toml
  mtlskit doctor reporting           one of them
  mtlskit doctor --upstream db.example.com:5432 --ca root.crt \\
      --cert client.crt --key client.key
  mtlskit doctor --html report.html  a page to attach to a ticket
  mtlskit doctor explain "tlsv1 alert unknown ca"
                                     what a client's error means

It changes nothing, except that --write-test writes one record. It logs in to Postgres with the add-on's credential, or
as psql would: PGUSER and PGPASSWORD, DATABASE_URL, ~/.pgpass. A tunnel called explain: mtlskit doctor -- explain

\b
Exit status:
  0    everything that could be looked at is well
  1    the page could not be written
  2    wrong usage
  3    something fails: the cause stands first, with what to do
  130  interrupted: what had been found is shown"""

_LONGEST_STEP: Final = 5.0
"""Seconds for one step on the network, where --timeout leaves it as much."""
_SHORTEST_STEP: Final = 2.0
"""Less is no proof of silence: a SYN that is lost is sent again after a second (RFC 6298)."""
_STEPS: Final = 3
"""Steps that the whole time must hold at least: a look-up, a connection and a handshake may each be slow."""


def doctor(
    ctx: typer.Context,
    tunnels: Annotated[list[str] | None, typer.Argument(metavar="TUNNEL", hidden=True)] = None,
    config: ConfigOption = None,
    upstream: UpstreamOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    ca: CaOption = None,
    passphrase_file: PassphraseFileOption = None,
    kind: KindOption = None,
    verify: VerifyOption = None,
    negotiation: NegotiationOption = None,
    pin: PinOption = None,
    write_test: Annotated[
        str | None,
        typer.Option("--write-test", metavar="TOPIC", help="Write one record to this topic of Kafka, and read it."),
    ] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", show_default=False, help="For all of it. Default: 15s.")
    ] = "15s",
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask neither Heroku nor the services that tell this host's address.")
    ] = False,
    control: ControlOption = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one page, too.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, and print what changes, until Ctrl-C.")
    ] = False,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="DURATION", help="Between two looks of --watch. Default: 10s."),
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only what is wrong.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every check with its facts.")] = False,
) -> None:
    """Say why a tunnel does not connect, and what to do about it.

    Looks at each layer in its order, from the file to the database, of all tunnels or those that are named, or of one
    that flags describe. For a first look, --upstream alone is enough.
    """
    flags: dict[str, Any] = {
        "upstream": upstream,
        "cert": cert,
        "key": key,
        "ca": ca,
        "passphrase_file": passphrase_file,
        "kind": kind,
        "verify": verify,
        "negotiation": negotiation,
        "pins": pin,
    }
    given = {name: value for name, value in flags.items() if value is not None and value != []}
    with reported(as_json=as_json):
        wanted = _Wanted(as_json, quiet, verbose, html, _interval(watch, every))
        if html is not None:
            from mtlskit.doctor.report.page_file import check_place

            check_place(html)
        means = _means(timeout, write_test)
        place = None if control is None else path_of(control)

        def gather() -> Gathered:
            if given:
                found = _from_flags(given, sources_of(ctx, given), tunnels, config, means)
            else:
                found = _from_file(config, tunnels or [], means)
            return replace(found, cases=tuple(_equipped(case, offline, place) for case in found.cases))

        gathered = gather()
        warn_of_passwords(ctx, upstream, as_json=as_json)
        status = _run(gathered, gather, wanted)
        if status:
            raise typer.Exit(status)


@dataclass(frozen=True)
class _Wanted:
    """How the report is to be shown."""

    as_json: bool
    quiet: bool
    verbose: bool
    html: Path | None
    interval: float | None
    """Seconds between two looks; None: one look."""


def _interval(watch: bool, every: str | None) -> float | None:
    from mtlskit.errors import Code, ConfigError

    if every is not None and not watch:
        raise ConfigError(Code.USAGE, "--every belongs to --watch", "add --watch, or leave --every out")
    return _seconds("--every", every or "10s") if watch else None


def _seconds(flag: str, text: str) -> float:
    from mtlskit.config.durations import parse_duration
    from mtlskit.errors import ConfigError

    try:
        return parse_duration(text)
    except ConfigError as exc:
        raise ConfigError(exc.code, f"{flag}: {exc.sentence}", exc.hint) from exc


def _means(timeout: str, write_test: str | None) -> Means:
    from mtlskit.doctor.case import Means

    deadline = _seconds("--timeout", timeout)
    step = min(_LONGEST_STEP, max(deadline / _STEPS, min(deadline, _SHORTEST_STEP)))
    return Means(deadline=deadline, step=step, environ=os.environ, write_test=write_test)


def _equipped(case: Case, offline: bool, control: Path | None) -> Case:
    """With a way to Heroku, unless it is not to be asked, and the folder of control sockets that is meant."""
    from mtlskit.doctor.gather import heroku_door

    config = case.config if control is None else replace(case.config, control=control)
    means = case.means if offline else replace(case.means, heroku=heroku_door(config.heroku, os.environ))
    return replace(case, config=config, means=means)


def _from_flags(
    given: dict[str, Any], sources: dict[str, str], tunnels: Sequence[str] | None, config: Path | None, means: Means
) -> Gathered:
    from mtlskit.doctor.gather import from_flags
    from mtlskit.errors import ConfigError

    refuse_both(sources, tunnels, config, "look at the tunnels of a file, or describe one tunnel with flags")
    variables = variables_of(sources)
    try:
        return from_flags(given, means)
    except ConfigError as exc:
        if not variables:
            raise
        raise ConfigError(
            exc.code,
            f"{listed_as_set(variables)}, so the configuration file is not read: {exc.sentence}",
            f"for the file: unset {' '.join(variables)}; to do without one: {exc.hint}",
        ) from exc


def _from_file(config: Path | None, tunnels: list[str], means: Means) -> Gathered:
    from mtlskit.config.locate import locate_config
    from mtlskit.doctor.gather import from_file
    from mtlskit.errors import Code, ConfigError

    refuse_files([word for word in tunnels if word.lower().endswith(".toml")])  # no tunnel has a dot in its name
    files = [word for word in tunnels if os.path.isfile(word)]  # noqa: PTH113 (Path.is_file raises for a NUL)
    try:
        path = locate_config(config, cwd=Path(), environ=os.environ)
    except ConfigError as exc:
        refuse_files(files)
        if config is None and exc.code is Code.CONFIG_NOT_FOUND:
            without = "mtlskit doctor --upstream HOST:5432 --cert client.crt --key client.key --ca root.crt"
            raise ConfigError(exc.code, exc.sentence, f"name one with --config FILE, or do without: {without}") from exc
        raise
    try:
        return from_file(path, tunnels, means)
    except ConfigError as exc:
        if exc.code is Code.CONFIG_UNKNOWN_NAME and "explain" in tunnels:
            raise ConfigError(
                exc.code, exc.sentence, f'{exc.hint}; for an error text: mtlskit doctor explain "TEXT"'
            ) from exc
        raise


def _run(gathered: Gathered, gather: Callable[[], Gathered], wanted: _Wanted) -> int:
    """Look, and show what was found. Returns the exit status."""
    from mtlskit.cli.doctor_progress import Progress
    from mtlskit.cli.stopping import run_until_stopped

    progress = Progress(silent=wanted.as_json and wanted.interval is not None)
    last: list[Report] = []

    async def work() -> None:
        from mtlskit.doctor.gather import diagnose

        last.append(await progress.during(partial(diagnose, gathered, progress)))
        if wanted.interval is not None:
            _show(last[0], wanted)
            await _go_on(gather, wanted, progress, last)

    ended = run_until_stopped(work)
    if not last:
        _show(_unfinished(gathered, progress), wanted, interrupted=True)
        return INTERRUPTED
    if ended:
        _show(last[0], wanted)
    return 0 if last[-1].healthy else ATTENTION


async def _go_on(gather: Callable[[], Gathered], wanted: _Wanted, progress: Progress, last: list[Report]) -> None:
    """Look again and again, and print what is new; the file is read anew each time. `last` holds the last report."""
    import trio

    from mtlskit.doctor.gather import diagnose
    from mtlskit.doctor.report.changes import Memory

    memory = Memory(last[0])
    while True:
        await trio.sleep(wanted.interval or 0)
        gathered = gather()
        last[:] = [await progress.during(partial(diagnose, gathered, progress))]
        for change in memory.changes(last[0]):
            _show_change(change, wanted)
        _write_page(last[0], wanted)


def _show_change(change: Change, wanted: _Wanted) -> None:
    from mtlskit.cli.doctor_view import show_change
    from mtlskit.cli.render import print_json_line
    from mtlskit.doctor.report.facts import change_facts

    if wanted.as_json:
        print_json_line(change_facts(change))
    else:
        show_change(change)


def _show(report: Report, wanted: _Wanted, *, interrupted: bool = False) -> None:
    from mtlskit.cli.doctor_view import show_report
    from mtlskit.cli.render import print_json_line
    from mtlskit.doctor.report.facts import report_facts

    if wanted.as_json and wanted.interval is not None:
        print_json_line(report_facts(report))
    elif wanted.as_json:
        print_json(report_facts(report))
    else:
        show_report(report, quiet=wanted.quiet, verbose=wanted.verbose, interrupted=interrupted)
    _write_page(report, wanted)
    if wanted.html is not None and not wanted.as_json and not wanted.quiet:
        line(f"the same as a page: {wanted.html}")


def _write_page(report: Report, wanted: _Wanted) -> None:
    if wanted.html is not None:
        from mtlskit.doctor.report.page_file import write_page

        write_page(wanted.html, report)


def _unfinished(gathered: Gathered, progress: Progress) -> Report:
    """What was found before somebody interrupted."""
    from datetime import UTC, datetime

    from mtlskit import __version__
    from mtlskit.doctor.diagnosis import Diagnosis, Report, in_order

    cut_short = [
        Diagnosis(
            name=case.name,
            kind=case.kind.value,
            upstream=", ".join(map(str, case.tunnel.upstream)) or f"heroku:{case.tunnel.addon}",
            findings=in_order([*case.findings, *progress.found.get(case.name, ()), *progress.cut_short(case.name)]),
            seconds=progress.elapsed,
            complete=False,
        )
        for case in gathered.cases
    ]
    return Report(
        diagnoses=(*gathered.broken, *cut_short),
        at=datetime.now(UTC),
        version=__version__,
        source=None if gathered.source is None else str(gathered.source),
        seconds=progress.elapsed,
    )
