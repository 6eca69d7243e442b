"""What `mtlskit heroku enable`, `disable` and `wait` share: which add-ons, the work on each, and how it ended."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtlskit.cli.heroku_api import addons_of, config_for, each_addon, named_by
from mtlskit.cli.render import fail, line, print_json, warn
from mtlskit.cli.waiting import Progress
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.config.values import ProxyConfig
    from mtlskit.errors import MtlskitError
    from mtlskit.heroku.client import Heroku
    from mtlskit.heroku.overview import Overview
    from mtlskit.heroku.values import Addon, TlsEndpoint

__all__ = [
    "ATTENTION",
    "Changed",
    "Job",
    "agree",
    "change",
    "check_askable",
    "ended",
    "job_of",
    "losses",
    "seconds_of",
    "show",
]

ATTENTION = 3
"""The exit status where an endpoint is not what was looked or waited for."""


@dataclass
class Job:
    """One run of a command."""

    config: ProxyConfig | None = None
    addons: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    """Where each is named."""
    named: bool = True
    """The add-ons stood on the command line."""
    gone: bool = False
    """The endpoints shall be gone, and not operational."""
    as_json: bool = False
    begun: list[str] = field(default_factory=list)
    """What Heroku may be at work on."""
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(as_json=self.as_json)

    def interrupted(self) -> None:
        """After a Ctrl-C: what becomes of what was begun, and how to go on."""
        names = " ".join(self.begun) + (" --gone" if self.gone else "")
        told = f"it goes on at Heroku; wait on with `mtlskit heroku wait {names}`"
        warn(f"interrupted; {told if self.begun else 'nothing was changed'}", as_json=self.as_json)


def job_of(
    job: Job, config: Path | None, positional: Sequence[str] | None, named: Sequence[str] | None, *, from_file: bool
) -> None:
    """Fill in which add-ons are meant; `from_file`: without names, those of the file. Raises `ConfigError`."""
    job.named = bool(positional or named)
    job.config = config_for(config, named=job.named or not from_file, as_json=job.as_json)
    job.addons = addons_of(job.config if from_file else None, positional, named)
    job.places = named_by(job.config if from_file else None, positional, named)


def seconds_of(timeout: str) -> float:
    """The value of --timeout. Raises `ConfigError`, which names it."""
    from mtlskit.config.durations import parse_duration
    from mtlskit.errors import ConfigError

    try:
        return parse_duration(timeout)
    except ConfigError as exc:
        raise ConfigError(exc.code, f"--timeout: {exc.sentence}", exc.hint) from exc


@dataclass(frozen=True)
class Changed:
    """How it went: each add-on by the name that it was called by, and its endpoint or the error."""

    addons: Mapping[str, Addon]
    endpoints: Mapping[str, TlsEndpoint | None]
    failed: Mapping[str, MtlskitError]


async def change(heroku: Heroku, job: Job, work: Callable[[str], Awaitable[TlsEndpoint | None]]) -> Changed:
    """Do `work` for each add-on at once, and show how the waits go.

    All of them are looked up first: a slip in one name leaves the others as they are. Kafka add-ons that only the file
    names are passed over.
    """
    from mtlskit.heroku.named_by import naming
    from mtlskit.heroku.overview import mtls_addon, postgres_addon
    from mtlskit.heroku.values import AddonKind

    look = postgres_addon if job.named else mtls_addon
    found, failed = await each_addon(job.addons, lambda name: look(heroku, name), job.places)
    if failed:
        return Changed(found, {}, failed)
    chosen = {name: addon for name, addon in found.items() if addon.kind is not AddonKind.KAFKA}
    if not chosen:
        for name in found:  # raises, and says why
            with naming(job.places.get(name, "")):
                await postgres_addon(heroku, name)

    async def one(name: str) -> TlsEndpoint | None:
        return await work(chosen[name].name)

    endpoints, failed = await job.progress.during(lambda: each_addon(list(chosen), one, job.places))
    return Changed(chosen, endpoints, failed)


def losses(overviews: Mapping[str, Overview]) -> list[str]:
    """A line for each endpoint that is there: what goes with it."""
    from mtlskit.cli.heroku_view import counted

    lines = []
    for overview in overviews.values():
        if overview.endpoint is None:
            continue
        certificates = counted(sum(not each.ending for each in overview.certificates), "client certificate")
        rules = counted(len(overview.rules), "IP rule")
        app = f" (app {overview.addon.app})" if overview.addon.app else ""
        lines.append(printable(f"{overview.addon.name}{app}: {certificates} and {rules}"))
    return lines


def check_askable() -> None:
    """Raises `ConfigError` (USAGE) where nobody could be asked, before Heroku is."""
    from mtlskit.errors import Code, ConfigError

    if not sys.stdin.isatty():
        raise ConfigError(
            Code.USAGE,
            "nobody can be asked whether every certificate and IP rule may be lost: there is no terminal",
            "say --yes",
        )


def agree(found: Mapping[str, Overview]) -> None:
    """Ask whether to go on. Raises `typer.Exit` for a no."""
    from mtlskit.cli.asking import agreed

    lines = losses(found)
    if not lines:
        return  # nothing is lost
    told = [
        "This takes the mTLS endpoint down. With it go:",
        *(f"  {each}" for each in lines),
        "Nobody can connect over mTLS then. Not known is whether open sessions end at",
        "once, and whether Heroku would bring any of this back: take it as lost.",
    ]
    typer.echo("\n".join(told), err=True)
    if not agreed("Disable mTLS?"):
        raise typer.Exit(1)


def show(job: Job, changed: Changed) -> None:
    """Print how it went, and end with its status."""
    from mtlskit.cli.heroku_view import entry, error_entry

    done = changed.endpoints
    if job.as_json:
        entries = {name: entry(changed.addons[name], endpoint) for name, endpoint in done.items()}
        entries |= {name: error_entry(name, error) for name, error in changed.failed.items()}
        operational = bool(done) and not changed.failed
        operational = operational and all(each is not None and each.operational for each in done.values())
        print_json({"operational": operational, "addons": [entries[name] for name in job.addons if name in entries]})
    for name, endpoint in () if job.as_json else done.items():
        line(f"{printable(changed.addons[name].name)}: {_told(changed.addons[name].name, endpoint, gone=job.gone)}")
    ended(changed.failed, as_json=job.as_json)


def _told(name: str, endpoint: TlsEndpoint | None, *, gone: bool) -> str:
    if endpoint is None:
        return "mTLS is not enabled"
    if endpoint.operational and not gone:
        return printable(endpoint.status)
    then = " --gone" if gone else ""
    return f"{printable(endpoint.status)}; this takes minutes: mtlskit heroku wait {printable(name)}{then}"


def ended(failed: Mapping[str, MtlskitError], *, as_json: bool, attention: bool = False) -> None:
    """End with the status that fits, after telling each error once (in JSON they stand with their add-on).

    Raises `typer.Exit`: 3 where only a wait was too short, or `attention` is due; else that of the errors.
    """
    from mtlskit.errors import Code

    if not as_json:
        for error in {(error.code, error.sentence): error for error in failed.values()}.values():
            fail(error)
    statuses = [ATTENTION if error.code is Code.API_WAIT_OVER else error.exit_status for error in failed.values()]
    if statuses:
        raise typer.Exit(min(statuses))
    if attention:
        raise typer.Exit(ATTENTION)
