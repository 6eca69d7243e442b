"""Where `mtlskit ca` finds its folder, and where it puts what it has issued."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.usage import harmless

if TYPE_CHECKING:
    from mtlskit.store.authority_folder import Signed

__all__ = ["DirOption", "check_place", "hand_out"]


def _folder(path: Path) -> Path:
    """Raises `ConfigError` for a file: mostly it is the CA's certificate, where its folder is meant."""
    from mtlskit.errors import Code, ConfigError

    with suppress(OSError, ValueError):  # whoever opens it says what is wrong
        if path.is_file():
            raise ConfigError(
                Code.USAGE,
                f"--dir {harmless(str(path))}: a file, and no folder",
                f"name the folder: --dir {path.parent}" if path.name == "ca.crt" else "name the folder of the CA",
            )
    return path


DirOption = Annotated[
    Path, typer.Option("--dir", metavar="DIR", show_default=False, help="The folder of the CA.", callback=_folder)
]


def check_place(out: Path, *, force: bool) -> None:
    """Raises `IdentityError` where no certificate could be put: before one is issued that would have no place."""
    from mtlskit.errors import Code, IdentityError

    with suppress(OSError, ValueError):  # write_file will say what is wrong with it
        if not force and (out.is_symlink() or out.exists()):
            raise IdentityError(
                Code.FILE_EXISTS,
                f"{out} exists already, and nothing was issued",
                "name another file, or say --force to replace this one",
            )
        if why := _unfit(out.parent):
            raise IdentityError(
                Code.FILE_UNWRITABLE,
                f"{out}: cannot be written, and nothing was issued: {out.parent} {why}",
                "name a file in a folder that is there and that you may write to",
            )


def _unfit(folder: Path) -> str:
    """Why no file can be made in `folder`; empty where one can."""
    if not folder.exists():
        return "does not exist"
    if not folder.is_dir():
        return "is no folder"
    return "" if os.access(folder, os.W_OK) else "is not yours to write to"


def hand_out(signed: Signed, out: Path, folder: Path, *, force: bool) -> None:
    """Write the certificate; where that fails, it has been issued all the same, so say where it is."""
    from mtlskit.errors import IdentityError
    from mtlskit.store.files import PUBLIC, write_file

    try:
        write_file(out, signed.cert_pem, mode=PUBLIC, replace=force)
    except IdentityError as exc:
        kept = folder / "issued" / f"{signed.serial}.crt"
        raise IdentityError(exc.code, exc.sentence, f"the certificate was issued: cp {kept} FILE") from exc
