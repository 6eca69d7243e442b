"""The password of `api.heroku.com` in netrc, where older versions of the Heroku CLI keep the token."""

from __future__ import annotations

import netrc
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mtlskit.errors import Code, ConfigError
from mtlskit.heroku.cli_login import Found
from mtlskit.telemetry import Emit, Event, Level

__all__ = ["MACHINE", "NetrcExposed", "netrc_password"]

MACHINE = "api.heroku.com"

_LARGEST = 1024 * 1024
"""Bytes. A file of a thousand machines has a tenth of that, and the parser reads all of it."""


@dataclass(frozen=True, kw_only=True)
class NetrcExposed(Event):
    """The token that is used lies in a file that every user of the host can read."""

    level: ClassVar[Level] = Level.WARNING

    path: str

    def sentence(self) -> str:
        return f"{self.path}: every user of this host can read the token in it; chmod 600 {self.path}"


def netrc_password(home: Path, *, platform: str, emit: Emit) -> Found:
    """The password of `MACHINE`; never that of `default`, which was not meant for Heroku.

    Raises `ConfigError` (API_NO_TOKEN) for a file that cannot be parsed. The parser's own words are left out: they
    quote the file.
    """
    path = home / ("_netrc" if platform == "win32" else ".netrc")
    place = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Found(place, why="not a plain file")
        if status.st_size > _LARGEST:
            return Found(place, why=f"larger than {_LARGEST // 1024} KiB")
        entry = netrc.netrc(place).hosts.get(MACHINE)
    except FileNotFoundError:
        encrypted = path.with_name(f"{path.name}.gpg")
        also = f"; {encrypted} is encrypted, and only the Heroku CLI reads it" if encrypted.exists() else ""
        return Found(place, why=f"does not exist{also}")
    except OSError as exc:
        return Found(place, why=f"cannot be read: {exc.strerror}")
    except netrc.NetrcParseError as exc:
        raise _damaged(f"{place}, near line {exc.lineno}: not what a netrc file may hold", place) from exc
    except ValueError as exc:  # UnicodeDecodeError
        raise _damaged(f"{place}: not text", place) from exc
    if entry is None or not entry[2]:
        return Found(place, why=f"has no password for the machine {MACHINE}")
    if os.name == "posix" and status.st_mode & stat.S_IROTH:
        emit(NetrcExposed(path=place))
    return Found(place, entry[2])


def _damaged(sentence: str, place: str) -> ConfigError:
    return ConfigError(
        Code.API_NO_TOKEN,
        sentence,
        f"mend {place} (`machine NAME login NAME password WORD`), or set HEROKU_API_KEY, which is looked at first",
    )
