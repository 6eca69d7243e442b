"""Which configuration file is meant."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from pathlib import Path

from mtlskit.config.paths import parse_path
from mtlskit.errors import Code, ConfigError

__all__ = ["FILE_NAME", "VARIABLE", "WITHOUT_A_FILE", "default_user_folder", "locate_config"]

FILE_NAME = "mtlskit.toml"
VARIABLE = "MTLSKIT_CONFIG"

WITHOUT_A_FILE = (
    "mtlskit proxy --listen 127.0.0.1:6432 --upstream HOST:5432 --cert client.crt --key client.key --ca root.crt"
)
"""One tunnel by flags alone."""


def locate_config(
    explicit: Path | None, *, cwd: Path, environ: Mapping[str, str], user_folder: Path | None = None
) -> Path:
    """The file to read: `explicit` (--config), else $MTLSKIT_CONFIG, else `mtlskit.toml` in `cwd` or `user_folder`.

    A file that was named is returned whether it exists or not: no other is tried in its stead, and reading it tells
    what is wrong. `user_folder` is this program's folder in the user's configuration folder, by default the platform's.
    Raises `ConfigError` (CONFIG_NOT_FOUND; CONFIG_BAD_VALUE for a path that cannot be one).
    """
    if explicit is not None:
        return parse_path(str(explicit), base=cwd, environ=environ)
    if variable := environ.get(VARIABLE):
        return parse_path(variable, base=cwd, environ=environ)
    places = [cwd / FILE_NAME, (default_user_folder() if user_folder is None else user_folder) / FILE_NAME]
    for place in places:
        if os.path.exists(place):  # noqa: PTH110 (Path.exists raises where a folder may not be searched)
            return place
    looked = " and ".join(str(place.absolute()) for place in places)
    raise ConfigError(
        Code.CONFIG_NOT_FOUND,
        f"there is no configuration file: looked for {looked}",
        f"name one with --config FILE, or do without: {WITHOUT_A_FILE}",
    )


def default_user_folder() -> Path:
    """Where the platform keeps a user's configuration of this program: `~/.config/mtlskit` on Linux."""
    import platformdirs  # here, because only a command that reads a file has to pay for it

    return platformdirs.user_config_path("mtlskit", appauthor=False)
