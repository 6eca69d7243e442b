"""Whether the files of an identity are the ones that were read: their marks, which cost a few system calls.

A file's mark is its device, inode, size, time of change, mode and owner. Mode and owner count because a key that was
refused for being open to all becomes usable by `chmod` alone. The time that a file's status has changed (ctime) does
not: back-up programs change it every night.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mtlskit.config.values import IdentityConfig
from mtlskit.net.identity import resolved

__all__ = ["Mark", "Marks", "marks_of"]

Mark: TypeAlias = tuple[int, ...] | int
"""Of one file; the errno where it cannot be looked at."""


@dataclass(frozen=True)
class Marks:
    """Of all files of an identity, by the key that names them in the configuration: cert, key, ca, passphrase_file."""

    files: tuple[tuple[str, Mark], ...]

    def changed(self, since: Marks) -> tuple[str, ...]:
        """The keys of the files that are not what they were."""
        before = dict(since.files)
        return tuple(key for key, mark in self.files if before.get(key) != mark)


def marks_of(config: IdentityConfig) -> Marks:
    """Look at the files that `load_snapshot` would read now. Blocks on the disk; raises nothing.

    The system follows the links, which is cheaper than to resolve them first. A link that is switched in between gives
    marks of two versions: others than those of either, which is all that counts.
    """
    marks = _marks(config)
    if any(mark == errno.ENOTDIR for _, mark in marks.files):  # a `current` that is a file, where there are no links
        return _marks(resolved(config))
    return marks


def _marks(config: IdentityConfig) -> Marks:
    files = (("cert", config.cert), ("key", config.key), ("ca", config.ca), ("passphrase_file", config.passphrase_file))
    return Marks(tuple((key, _mark(path)) for key, path in files if path is not None))


def _mark(path: Path) -> Mark:
    try:
        status = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, and this is asked all day
    except (OSError, ValueError) as exc:  # ValueError: the path has a null character in it
        return getattr(exc, "errno", None) or -1
    return (
        *(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns),
        *(status.st_mode, status.st_uid, status.st_gid),
    )
