"""What is to be examined: the tunnels of a file as far as it can be read, or one that flags describe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from mtlskit import __version__
from mtlskit.config.flags import config_from_flags
from mtlskit.config.loading import load_config, refuse_unknown, select
from mtlskit.config.parts import load_parts
from mtlskit.config.values import HerokuConfig, ProxyConfig, TunnelConfig
from mtlskit.doctor.case import Case, Means
from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.examine import examine_all
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped
from mtlskit.doctor.watching import Watcher
from mtlskit.errors import Code, ConfigError

if TYPE_CHECKING:
    from mtlskit.heroku.client import Heroku

__all__ = ["Gathered", "diagnose", "from_file", "from_flags", "heroku_door"]

_NO_FILE: Final = "not-given"
"""Stands for a certificate, a key or a listener that flags have not named; never opened."""

_READ: Final = "configuration.read"

_MOST_TOLD: Final = 50
"""Problems of one file. Who has more has named another file by mistake."""


@dataclass(frozen=True)
class Gathered:
    """What there is to examine."""

    cases: tuple[Case, ...]
    broken: tuple[Diagnosis, ...] = ()
    """What is wrong with the configuration itself."""
    source: Path | None = None


def from_file(path: Path, names: Sequence[str], means: Means) -> Gathered:
    """The tunnels of a file, those in `names` or all. What is wrong with the file is a finding, and no error; tunnels
    that are right beside others are examined.

    Raises ConfigError (CONFIG_UNKNOWN_NAME) for a tunnel that the file does not have.
    """
    try:
        config = load_config(path, environ=means.environ)
        chosen = select(config, names).tunnels
    except ConfigError as exc:
        return _as_far_as_possible(path, names, means, exc)
    return Gathered(tuple(_of_file(config, tunnel, means) for tunnel in chosen), (), path)


def from_flags(given: Mapping[str, Any], means: Means, *, base: Path | None = None) -> Gathered:
    """One tunnel by flags, as `config_from_flags` takes them; `listen` may be missing, and `cert` together with `key`.

    Raises ConfigError for a flag that is wrong.
    """
    without_identity = not (given.get("cert") or given.get("key"))
    required: dict[str, Any] = {"listen": "127.0.0.1:0", "upstream": (), "cert": None, "key": None}
    if without_identity:
        required |= {"cert": _NO_FILE, "key": _NO_FILE}
    filled = required | {name: value for name, value in given.items() if value is not None}
    config = config_from_flags(**filled, base=base or Path.cwd(), environ=means.environ)
    (tunnel,) = config.tunnels
    identity = None if without_identity else tunnel.identity
    told = f", {tunnel.listen}" if given.get("listen") else ""
    findings = (_described(tunnel, "flags", told),)
    return Gathered((Case(tunnel.name, tunnel, identity, config, of_file=False, means=means, findings=findings),))


async def diagnose(gathered: Gathered, watcher: Watcher | None = None) -> Report:
    """Examine everything."""
    began = trio.current_time()
    means = gathered.cases[0].means if gathered.cases else Means()
    diagnoses = await examine_all(gathered.cases, watcher)
    return Report(
        diagnoses=(*gathered.broken, *diagnoses),
        at=means.now(),
        version=__version__,
        source=None if gathered.source is None else str(gathered.source),
        seconds=trio.current_time() - began,
    )


def heroku_door(config: HerokuConfig, environ: Mapping[str, str]) -> Callable[[], AbstractAsyncContextManager[Heroku]]:
    """Opens both APIs; what is opened raises ConfigError (API_NO_TOKEN, API_HOST). Nobody is asked for anything."""
    return partial(_opened, config, environ)


@asynccontextmanager
async def _opened(config: HerokuConfig, environ: Mapping[str, str]) -> AsyncIterator[Heroku]:
    from mtlskit.heroku.client import Patience, open_heroku
    from mtlskit.heroku.settings import Settings, settings_from

    def find() -> Settings:  # asks programs for the token, which takes its time
        return settings_from(environ, config)

    settings = await trio.to_thread.run_sync(find, abandon_on_cancel=True)
    # Whoever waits for a diagnosis waits for no server that is tried again for a minute and a half.
    patience = Patience(attempt=5.0, total=6.0, tries=3, base=0.2)
    async with open_heroku(settings, patience=patience, environ=environ) as heroku:
        yield heroku


def _as_far_as_possible(path: Path, names: Sequence[str], means: Means, error: ConfigError) -> Gathered:
    """What can be had of a file of which `error` is the first thing that is wrong."""
    try:
        parts = load_parts(path, environ=means.environ)
    except ConfigError as exc:
        return Gathered((), (_misconfigured(path, (exc,), ()),), path)
    if parts.names:
        refuse_unknown(names, parts.names, path)
    cases = []
    for name, config in parts.tunnels.items():
        if not names or name in names:
            (tunnel,) = (each for each in config.tunnels if each.name == name)
            cases.append(_of_file(config, tunnel, means, file_is_broken=True))
    left_out = [name for name in parts.broken if not names or name in names]
    return Gathered(tuple(cases), (_misconfigured(path, parts.problems or (error,), left_out),), path)


def _of_file(config: ProxyConfig, tunnel: TunnelConfig, means: Means, *, file_is_broken: bool = False) -> Case:
    findings = (_described(tunnel, str(config.source), f", {tunnel.listen}"),)
    return Case(
        tunnel.name,
        tunnel,
        tunnel.identity,
        config,
        of_file=True,
        means=means,
        findings=findings,
        file_is_broken=file_is_broken,
    )


def _described(tunnel: TunnelConfig, source: str, listen: str) -> Finding:
    upstream = [str(endpoint) for endpoint in tunnel.upstream] or [f"heroku:{tunnel.addon}"]
    return passed(
        Layer.CONFIGURATION,
        _READ,
        f'{source}: {tunnel.kind}{listen} → {", ".join(upstream)}, verify = "{tunnel.verify}"',
        about=source,
        file=None if source == "flags" else source,
        kind=tunnel.kind.value,
        listen=str(tunnel.listen) if listen else None,
        upstream=upstream,
        verify=str(tunnel.verify),
        identity=tunnel.identity.name,
        issuer=tunnel.identity.issuer.kind.value,
    )


def _misconfigured(path: Path, problems: Sequence[ConfigError], left_out: Sequence[str]) -> Diagnosis:
    """Every table that is wrong, and the tunnels that are not examined for it. The proxy refuses all of the file."""
    findings = [
        failed(Layer.CONFIGURATION, _READ, _in_this_shell(problem), about=str(path))
        for problem in problems[:_MOST_TOLD]
    ]
    if len(problems) > _MOST_TOLD:
        more = f"{len(problems) - _MOST_TOLD} more problems are not shown"
        findings.append(skipped(Layer.CONFIGURATION, "configuration.more", _READ, about=str(path), seen=more))
    findings += [
        skipped(Layer.CONFIGURATION, "configuration.tunnel", _READ, about=name, seen="this tunnel was not examined")
        for name in left_out[:_MOST_TOLD]
    ]
    return Diagnosis(name=path.name, kind="configuration", upstream="", findings=tuple(findings), seconds=0.0)


def _in_this_shell(problem: ConfigError) -> ConfigError:
    """A variable that is missing here may be there for the proxy, which another program starts."""
    if problem.code is not Code.CONFIG_MISSING_VARIABLE:
        return problem
    return ConfigError(
        problem.code,
        f"{problem.sentence} in this shell",
        f"{problem.hint}; where a service starts the proxy, give the doctor what the service sets (systemctl cat)",
    )
