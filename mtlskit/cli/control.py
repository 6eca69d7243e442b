"""`mtlskit status`, `reload` and `stop`: what is asked of the running proxies, over their control sockets."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mtlskit.cli.options import JsonOption
from mtlskit.cli.render import line, print_json, reported, warn
from mtlskit.cli.usage import whole_number
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.control.client import Asked, Running
    from mtlskit.control.places import Place
    from mtlskit.errors import ControlError

__all__ = ["RELOAD_EPILOG", "STATUS_EPILOG", "STOP_EPILOG", "ControlOption", "reload", "status", "stop"]

ATTENTION = 3
"""The exit status of a command that has looked, and found something to be done."""

_Result = TypeVar("_Result")

STATUS_EPILOG = """\b
Examples:
  mtlskit status                           every proxy that this user runs
  mtlskit status --control /run/mtlskit    those of a service
  mtlskit status --json

Its exit status is 0 when all is well, and 2 after wrong usage. It is 3 when something needs attention: a tunnel has
failed, its last client got no connection to the upstream or to a broker of a Kafka, a broker can have no listener,
the tunnel keeps an old identity because a reload failed, its identity is due for renewal, or Heroku cannot tell where
its add-on is; a proxy does not answer; or no proxy is running."""

RELOAD_EPILOG = """\b
Examples:
  mtlskit reload
  mtlskit reload --config mtlskit.toml     only the proxies that run this file

A proxy notices new files by itself within seconds; this waits until they are loaded, and says how it went. Its exit
status is 1 when a tunnel could not load its identity, or no proxy is running."""

STOP_EPILOG = """\b
Examples:
  mtlskit stop
  mtlskit stop --config mtlskit.toml --no-wait

As SIGTERM does: no new clients, and the sessions may finish within the drain time of the configuration. Of several
proxies, --config, --pid or --all says which is meant; also where the only one does not run the ./mtlskit.toml of this
folder."""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Only the proxies that run this configuration file."),
]
ControlOption = Annotated[
    Path | None,
    typer.Option(
        "--control",
        metavar="DIR",
        envvar="MTLSKIT_CONTROL",
        help="The folder of control sockets. Default: `control` of the file, or the user's own.",
    ),
]


def status(config: ConfigOption = None, control: ControlOption = None, as_json: JsonOption = False) -> None:
    """Show the running proxies: their tunnels, sessions and identities, and what is wrong."""
    with reported(as_json=as_json):
        from mtlskit.cli.control_view import needs_attention, show_status, show_unanswered

        config = _file(config)
        place = _place(config, control, as_json=as_json)
        answers = _run(lambda: _survey(place, config))
        attention = not answers or any(each.answer is None or needs_attention(each.answer) for each in answers)
        if as_json:
            print_json(
                {"control": str(place.folder), "attention": attention, "proxies": [_entry(each) for each in answers]}
            )
        else:
            for each in answers:
                if each.error is not None:
                    show_unanswered(each.proxy.pid, str(each.error), each.error.hint)
                else:
                    show_status(each.answer or {})
            if not answers:
                nobody = _nobody(place, config)
                line(f"{nobody.sentence}; {nobody.hint}")
        if attention:
            raise typer.Exit(ATTENTION)


def reload(config: ConfigOption = None, control: ControlOption = None, as_json: JsonOption = False) -> None:
    """Have the running proxies read their certificates again, and show what each tunnel serves now.

    New sessions use the new certificate, old ones go on. What fails keeps the certificate that it had.
    """
    with reported(as_json=as_json):
        from mtlskit.cli.control_view import show_reload, show_unanswered
        from mtlskit.control.client import ask_each, reload_of

        config = _file(config)
        place = _place(config, control, as_json=as_json)

        async def ask() -> list[Asked]:
            return await ask_each(_chosen(await _survey(place, config), place, config), reload_of)

        answers = _run(ask)
        if not answers:
            raise _nobody(place, config)
        if as_json:
            print_json({"proxies": [_entry(each) for each in answers]})
        for each in () if as_json else answers:
            if each.error is not None:
                show_unanswered(each.proxy.pid, str(each.error), each.error.hint)
            else:
                show_reload(each.proxy.pid, each.answer or {})
        if not all(each.answer is not None and _all_ok(each.answer) for each in answers):
            raise typer.Exit(1)


def stop(
    config: ConfigOption = None,
    control: ControlOption = None,
    pid: Annotated[str | None, typer.Option("--pid", metavar="PID", help="Only this process.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All of them, where there are several.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for their end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop the running proxy, and wait until it has ended. Its sessions may finish first."""
    with reported(as_json=as_json):
        from mtlskit.control.client import ask_each
        from mtlskit.control.client import stop as stop_one

        config = _file(config)
        place = _place(config, control, as_json=as_json)
        wanted = None if pid is None else whole_number("--pid", pid)

        names: dict[int, str] = {}

        async def tell(proxy: Running) -> dict[str, Any]:
            def heard(answer: dict[str, Any]) -> None:
                if not as_json:
                    line(f"{names[proxy.pid]}: {_stopping(answer)}")

            return await stop_one(proxy, wait=not no_wait, heard=heard)

        async def ask() -> list[Asked]:
            found = await _survey(place, config)
            proxies = _chosen(found, place, config)
            names.update((each.proxy.pid, _described(each)) for each in found)
            if wanted is not None:
                proxies = _with_pid(proxies, wanted, names)
            elif not everyone:
                proxies = _at_most_one(proxies)
                if config is None:
                    _check_meant(found[0])
            return await ask_each(proxies, tell)

        answers = _run(ask)
        failures = [each.error for each in answers if each.error is not None]
        if as_json and not failures:
            print_json({"proxies": [_entry(each) for each in answers]})
        elif not no_wait and not as_json:
            for each in answers:
                if each.error is None:
                    line(f"proxy {each.proxy.pid}: stopped")
        if failures:
            raise ExceptionGroup("some could not be stopped", failures)


def _at_most_one(proxies: list[Running]) -> list[Running]:
    """Raises ConfigError (USAGE) for several: nobody should stop what they have not thought of."""
    from mtlskit.errors import Code, ConfigError

    if len(proxies) > 1:
        pids = ", ".join(str(proxy.pid) for proxy in proxies)
        raise ConfigError(
            Code.USAGE,
            f"{len(proxies)} proxies are running ({pids}), and it is not said which to stop",
            "say --pid PID, --config FILE or --all",
        )
    return proxies


def _with_pid(proxies: list[Running], pid: int, names: Mapping[int, str]) -> list[Running]:
    """Raises ControlError (CTL_NO_PROXY) where none of them is the process, with those that there are."""
    from mtlskit.errors import Code, ControlError

    chosen = [proxy for proxy in proxies if proxy.pid == pid]
    if not chosen:
        told = ", ".join(names[proxy.pid] for proxy in proxies)
        raise ControlError(
            Code.CTL_NO_PROXY, f"no proxy is process {pid}; running: {told}", "say --pid with one of these"
        )
    return chosen


def _check_meant(only: Asked) -> None:
    """Raises ConfigError (USAGE) where a configuration file lies here, and the only proxy runs another one."""
    from mtlskit.config.locate import FILE_NAME
    from mtlskit.errors import Code, ConfigError

    here = Path(FILE_NAME)
    if only.answer is not None and os.path.lexists(here) and not _runs(only.answer, here):
        raise ConfigError(
            Code.USAGE,
            f"{_described(only)} runs, and not {here} of this folder: it is not said whether it is meant",
            f"say --pid {only.proxy.pid} or --all to stop it, or --config FILE for another",
        )


def _described(asked: Asked) -> str:
    """`proxy 4711 (/etc/mtlskit/mtlskit.toml)`. What it runs is its own word: escaped."""
    if asked.answer is None:
        return f"proxy {asked.proxy.pid}"
    return f"proxy {asked.proxy.pid} ({printable(str(asked.answer.get('config') or 'from flags'))})"


def _run(work: Callable[[], Awaitable[_Result]]) -> _Result:
    import trio

    return trio.run(work)


async def _survey(place: Place, config: Path | None) -> list[Asked]:
    """The status of every proxy in the folder, or of those that run `config`, with those that do not answer."""
    from mtlskit.control.client import ask_each, running, status_of

    answers = await ask_each(await running(place.folder), status_of)
    if config is None:
        return answers
    return [each for each in answers if each.answer is None or _runs(each.answer, config)]


def _runs(facts: dict[str, Any], config: Path) -> bool:
    source = facts.get("config")
    return isinstance(source, str) and os.path.realpath(source) == os.path.realpath(config)


def _chosen(answers: list[Asked], place: Place, config: Path | None) -> list[Running]:
    """The proxies to ask for something. Raises ControlError if there is none."""
    if not answers:
        raise _nobody(place, config)
    return [each.proxy for each in answers]


def _nobody(place: Place, config: Path | None) -> ControlError:
    from mtlskit.errors import Code, ControlError

    which = "no proxy is running" if config is None else f"no proxy is running with {config}"
    return ControlError(
        Code.CTL_NO_PROXY,
        f"{which}: looked in {place.folder}",
        "start one with `mtlskit proxy`; the proxies of another user or a service are found with --control DIR",
    )


def _entry(asked: Asked) -> dict[str, Any]:
    """A proxy's answer, or why there is none, for scripts."""
    from mtlskit.control.protocol import error_facts

    if asked.error is not None:
        return {"pid": asked.proxy.pid, "error": error_facts(asked.error)}
    return {"pid": asked.proxy.pid, **(asked.answer or {})}


def _stopping(answer: dict[str, Any]) -> str:
    sessions, seconds = answer.get("sessions", 0), float(answer.get("seconds", 0))
    if not sessions:
        return "stopping, no sessions are open"
    return f"stopping, {sessions} session{'s' if sessions != 1 else ''} may finish within {seconds:g} s"


def _all_ok(answer: dict[str, Any]) -> bool:
    return all(tunnel.get("ok") for tunnel in answer.get("tunnels", ()))


def _file(config: Path | None) -> Path | None:
    """The configuration file that was named, on the command line or by the variable."""
    from mtlskit.config.locate import VARIABLE, locate_config

    if config is None and not os.environ.get(VARIABLE):
        return None
    return locate_config(config, cwd=Path(), environ=os.environ)


def _place(config: Path | None, control: Path | None, *, as_json: bool) -> Place:
    """The folder to look in: --control, its variable, `control` of the file that is named or found, the default one."""
    from mtlskit.config.locate import locate_config
    from mtlskit.config.paths import parse_path
    from mtlskit.control.places import check_folder, control_place
    from mtlskit.errors import Code, ConfigError

    named = None if control is None else parse_path(str(control), base=Path(), environ=os.environ)
    if config is not None:
        found = _control_of(config)
        named = named or found
    elif named is None:
        # The file that a proxy would read here. Nobody has asked for it, so it need neither be there nor do.
        try:
            named = _control_of(locate_config(None, cwd=Path(), environ=os.environ))
        except ConfigError as exc:
            if exc.code is not Code.CONFIG_NOT_FOUND:
                told = f"{exc.sentence}; so its `control` is not known, and the default folder is looked in"
                warn(told, as_json=as_json)
    place = control_place(named, os.environ)
    check_folder(place)
    return place


def _control_of(path: Path) -> Path | None:
    """`control` of a configuration file, whose other keys may need variables that this shell does not have."""
    import tomllib

    from mtlskit.config.interpolate import interpolate_text
    from mtlskit.config.loading import load_config
    from mtlskit.config.paths import parse_path

    try:
        text = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("control")
    except (OSError, ValueError, RecursionError):
        load_config(path, environ=os.environ)  # says what is wrong with it
        return None
    if not isinstance(text, str):
        return None
    return parse_path(interpolate_text(text, os.environ), base=path.absolute().parent, environ=os.environ)
