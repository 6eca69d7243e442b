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
from mtlskit.config.loading import load_config, select
from mtlskit.config.values import HerokuConfig
from mtlskit.doctor.case import Case, Means
from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.examine import examine_all
from mtlskit.doctor.finding import Layer, failed
from mtlskit.doctor.watching import Watcher
from mtlskit.errors import ConfigError

if TYPE_CHECKING:
    from mtlskit.heroku.client import Heroku

__all__ = ["Gathered", "diagnose", "from_file", "from_flags", "heroku_door"]

_NO_FILE: Final = "not-given"
"""Stands for a certificate, a key or a listener that flags have not named; never opened."""


@dataclass(frozen=True)
class Gathered:
    """What there is to examine."""

    cases: tuple[Case, ...]
    broken: tuple[Diagnosis, ...] = ()
    """What is wrong with the configuration itself."""
    source: Path | None = None


def from_file(path: Path, names: Sequence[str], means: Means) -> Gathered:
    """The tunnels of a file, those in `names` or all. A file that cannot be read is a finding, and no error.

    Raises ConfigError (CONFIG_UNKNOWN_NAME) for a tunnel that the file does not have.
    """
    try:
        config = load_config(path, environ=means.environ)
    except ConfigError as exc:
        return Gathered((), (_unreadable(path, exc),), path)
    chosen = select(config, names)
    cases = [Case(tunnel.name, tunnel, tunnel.identity, config, of_file=True, means=means) for tunnel in chosen.tunnels]
    return Gathered(tuple(cases), (), path)


def from_flags(given: Mapping[str, Any], means: Means, *, base: Path | None = None) -> Gathered:
    """One tunnel by flags, as `config_from_flags` takes them; `cert`, `key` and `listen` may be missing.

    Raises ConfigError for a flag that is wrong.
    """
    without_identity = not (given.get("cert") and given.get("key"))
    required = {"listen": "127.0.0.1:0", "upstream": (), "cert": _NO_FILE, "key": _NO_FILE}
    filled = required | {name: value for name, value in given.items() if value is not None}
    config = config_from_flags(**filled, base=base or Path.cwd(), environ=means.environ)
    (tunnel,) = config.tunnels
    identity = None if without_identity else tunnel.identity
    return Gathered((Case(tunnel.name, tunnel, identity, config, of_file=False, means=means),))


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
    from mtlskit.heroku.client import open_heroku
    from mtlskit.heroku.settings import Settings, settings_from

    def find() -> Settings:  # asks programs for the token, which takes its time
        return settings_from(environ, config)

    settings = await trio.to_thread.run_sync(find, abandon_on_cancel=True)
    async with open_heroku(settings) as heroku:
        yield heroku


def _unreadable(path: Path, error: ConfigError) -> Diagnosis:
    finding = failed(Layer.CONFIGURATION, "configuration.read", error, about=str(path))
    return Diagnosis(name=path.name, kind="configuration", upstream="", findings=(finding,), seconds=0.0)
