"""`mtlskit heroku status`, `enable`, `disable` and `wait`: the mutual-TLS endpoint of add-ons."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.chosen import ConfigOption
from mtlskit.cli.heroku_api import AddonOption, AddonsArgument, each_addon, run_with_heroku, settings_for
from mtlskit.cli.heroku_endpoints import Changed, Job, agree, change, check_askable, ended, job_of, seconds_of, show
from mtlskit.cli.options import JsonOption
from mtlskit.cli.render import colourful, line, print_json, reported

if TYPE_CHECKING:
    from mtlskit.errors import MtlskitError
    from mtlskit.heroku.client import Heroku
    from mtlskit.heroku.overview import Overview
    from mtlskit.heroku.values import TlsEndpoint

__all__ = ["DISABLE_EPILOG", "ENABLE_EPILOG", "STATUS_EPILOG", "WAIT_EPILOG", "disable", "enable", "status", "wait"]

STATUS_EPILOG = """\b
Examples:
  mtlskit heroku status postgresql-curved-12345
  mtlskit heroku status --json | jq -r '.addons[] | select(.error) | .addon'

\b
Exit status:
  0  every endpoint is operational (a Kafka add-on has none)
  1  an add-on could not be looked at
  2  wrong usage or configuration, or no token
  3  an endpoint is not operational, or not enabled"""

ENABLE_EPILOG = """\b
Examples:
  mtlskit heroku enable postgresql-curved-12345 --wait

\b
Exit status:
  0    begun, or there already; with --wait: operational
  1    it failed
  2    wrong usage or configuration, or no token
  3    with --wait: not operational within the time
  130  interrupted by Ctrl-C; what was begun goes on at Heroku"""

DISABLE_EPILOG = """\b
Examples:
  mtlskit heroku disable postgresql-curved-12345
  mtlskit heroku disable postgresql-curved-12345 --yes --wait    in a script

\b
Exit status:
  0    begun, or there was none; with --wait: gone
  1    it failed, or the answer was no
  2    wrong usage or configuration, or no token
  3    with --wait: not gone within the time
  130  interrupted by Ctrl-C; what was begun goes on at Heroku"""

WAIT_EPILOG = """\b
Examples:
  mtlskit heroku wait postgresql-curved-12345 && ./load-report
  mtlskit heroku wait postgresql-curved-12345 --gone --timeout 1h

\b
Exit status:
  0    operational; with --gone: gone
  1    it failed, or mTLS is not enabled
  2    wrong usage or configuration, or no token
  3    not yet, within the time
  130  interrupted by Ctrl-C; it goes on at Heroku"""

WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until it is done.")]
TimeoutOption = Annotated[
    str,
    typer.Option("--timeout", metavar="DURATION", show_default=False, help="How long to wait. Default: 30m."),
]


def status(
    addons: AddonsArgument = None, addon: AddonOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show the endpoint, the certificates and the IP rules of add-ons."""
    with reported(as_json=as_json):
        from datetime import UTC, datetime

        from mtlskit.cli.heroku_view import error_entry, overview_entry, overview_lines
        from mtlskit.heroku.overview import overview_of

        job = Job(as_json=as_json)
        job_of(job, config, addons, addon, from_file=True)

        async def look(heroku: Heroku) -> tuple[dict[str, Overview], dict[str, MtlskitError]]:
            return await each_addon(job.addons, lambda name: overview_of(heroku, name), job.places)

        found, failed = run_with_heroku(job.config, look, emit=job.progress.emit, as_json=as_json)
        fine = not failed and all(each.fine for each in found.values())
        if as_json:
            unknown = {"certificates": None, "rules": None, "cluster": None}
            entries = {name: error_entry(name, error) | unknown for name, error in failed.items()}
            entries |= {name: overview_entry(each) for name, each in found.items()}
            print_json({"operational": fine, "addons": [entries[name] for name in job.addons]})
        elif found:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            now, colour = datetime.now(UTC), colourful(sys.stdout)
            line("\n".join(overview_lines(found, now=now, width=width, colour=colour)))
        ended(failed, as_json=as_json, attention=not fine)


def enable(
    addons: AddonsArgument = None,
    addon: AddonOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = "30m",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give Postgres add-ons an endpoint for mutual TLS, and with it a first certificate. It takes Heroku minutes.

    One that has an endpoint keeps it.
    """
    job = Job(as_json=as_json)
    with reported(as_json=as_json, on_interrupt=job.interrupted):
        from mtlskit.heroku.waiting import until_operational

        seconds = seconds_of(timeout)
        job_of(job, config, addons, addon, from_file=True)

        async def work(heroku: Heroku) -> Changed:
            async def one(name: str) -> TlsEndpoint | None:
                job.begun.append(name)
                endpoint = await heroku.data.tls_endpoint(name)
                if endpoint is None or endpoint.ending:
                    endpoint = await heroku.data.enable_tls(name)
                if not wait or endpoint.operational:
                    return endpoint
                return await until_operational(
                    heroku.data, name, seconds=seconds, emit=job.progress.emit, just_asked=True
                )

            return await change(heroku, job, one)

        show(job, run_with_heroku(job.config, work, emit=job.progress.emit, as_json=as_json))


def disable(
    addons: AddonsArgument = None,
    addon: Annotated[
        list[str] | None, typer.Option("--addon", metavar="NAME", show_default=False, help="An add-on; repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = "30m",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the endpoint of Postgres add-ons down, with every certificate and IP rule of it.

    The add-ons must be named: those of the configuration file are not taken.
    """
    job = Job(as_json=as_json, gone=True)
    with reported(as_json=as_json, on_interrupt=job.interrupted):
        from mtlskit.heroku.waiting import until_gone

        seconds = seconds_of(timeout)
        job_of(job, config, addons, addon, from_file=False)
        if not yes:
            check_askable()
        settings = settings_for(job.config, as_json=as_json)

        async def look(heroku: Heroku) -> tuple[dict[str, Overview], dict[str, MtlskitError]]:
            from mtlskit.heroku.overview import overview_of

            return await each_addon(job.addons, lambda name: overview_of(heroku, name), job.places)

        if not yes:
            found, failed = run_with_heroku(job.config, look, emit=job.progress.emit, settings=settings)
            if failed:
                show(job, Changed({}, {}, failed))
            agree(found)

        async def work(heroku: Heroku) -> Changed:
            async def one(name: str) -> TlsEndpoint | None:
                job.begun.append(name)
                endpoint = await heroku.data.disable_tls(name)
                if wait and endpoint is not None:
                    await until_gone(heroku.data, name, seconds=seconds, emit=job.progress.emit)
                    return None
                return endpoint

            return await change(heroku, job, one)

        show(job, run_with_heroku(job.config, work, emit=job.progress.emit, settings=settings))


def wait(
    addons: AddonsArgument = None,
    addon: AddonOption = None,
    gone: Annotated[bool, typer.Option("--gone", help="Wait until there is none any more, as after disable.")] = False,
    timeout: TimeoutOption = "30m",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until the endpoints of Postgres add-ons are operational. This changes nothing: end it, and begin again."""
    job = Job(as_json=as_json, gone=gone)
    with reported(as_json=as_json, on_interrupt=job.interrupted):
        from mtlskit.heroku.waiting import until_gone, until_operational

        seconds = seconds_of(timeout)
        job_of(job, config, addons, addon, from_file=True)

        async def work(heroku: Heroku) -> Changed:
            async def one(name: str) -> TlsEndpoint | None:
                job.begun.append(name)
                if not gone:
                    return await until_operational(heroku.data, name, seconds=seconds, emit=job.progress.emit)
                await until_gone(heroku.data, name, seconds=seconds, emit=job.progress.emit)
                return None

            return await change(heroku, job, one)

        show(job, run_with_heroku(job.config, work, emit=job.progress.emit, as_json=as_json))
