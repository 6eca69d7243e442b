"""The files of an identity: whether they are there, may be read, and are closed to others. Layer FILES.

Each is read once, and what was read is handed on, so that all that is wrong with it can be told at once. A key that the
proxy refuses because others can read it is looked into all the same.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlskit.config.values import IdentityConfig, IssuerKind, ProxyConfig
from mtlskit.doctor.finding import Finding, Layer, Verdict, failed, passed, skipped, warned
from mtlskit.errors import Code, IdentityError, StoreError
from mtlskit.net.files import read_passphrase_file, read_private, read_public
from mtlskit.net.identity import resolved
from mtlskit.pki import der
from mtlskit.store.current import CURRENT
from mtlskit.store.identities import StoredIdentity

__all__ = ["CA", "CERTIFICATE", "KEY", "PASSPHRASE", "IdentityFiles", "read_files", "rotate_command"]

CERTIFICATE, KEY, CA, PASSPHRASE = "files.certificate", "files.key", "files.ca", "files.passphrase"
_STORE = "files.store"
_BINARY_KEYS = (der.DER_KEY, der.ENCRYPTED_DER_KEY, der.PKCS12)


@dataclass(frozen=True)
class IdentityFiles:
    """What was read. What is None could not be, or is not configured; `findings` say which."""

    findings: tuple[Finding, ...]
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    passphrase: bytes | None = field(default=None, repr=False)
    ca: bytes | None = None

    def failed(self, check: str) -> bool:
        """Whether that file is in the way."""
        return any(each.check == check and each.verdict is Verdict.FAIL for each in self.findings)


def read_files(config: IdentityConfig, proxy: ProxyConfig, *, with_pair: bool) -> IdentityFiles:
    """Every file of the identity; without the pair, that of the trust anchors alone. Blocks on the disk."""
    reader = _Reader()
    stored = _look_at_store(config, proxy, reader) if with_pair else True
    files = config
    with suppress(IdentityError):
        files = resolved(config)
    certificate = key = passphrase = None
    if not with_pair:
        reader.findings.append(skipped(Layer.FILES, CERTIFICATE, "no certificate given"))
    elif not stored:
        reader.findings += [skipped(Layer.FILES, check, _STORE) for check in (CERTIFICATE, KEY)]
    else:
        certificate = reader.read(CERTIFICATE, files.cert, "client certificate", read_public)
        key = reader.read(KEY, files.key, "private key", read_private)
        if files.passphrase_file is not None:
            path = files.passphrase_file
            passphrase = reader.read(PASSPHRASE, path, "passphrase", lambda path, _: read_passphrase_file(path))
        reader.look_at_folder(files.key.parent)
    ca = None
    if files.ca is not None and not stored and files.ca.parent == files.cert.parent:
        reader.findings.append(skipped(Layer.FILES, CA, _STORE))
    elif files.ca is not None:
        ca = reader.read(CA, files.ca, "CA file", read_public)
    return IdentityFiles(tuple(reader.findings), certificate, key, passphrase, ca)


def rotate_command(config: IdentityConfig, proxy: ProxyConfig, verb: str = "rotate") -> str:
    """What to type to have a new certificate of an identity that the store keeps."""
    where = f" --config {shlex.quote(str(proxy.source))}" if proxy.source is not None else ""
    return f"mtlskit certs {verb} {shlex.quote(config.name)}{where}"


def _look_at_store(config: IdentityConfig, proxy: ProxyConfig, reader: _Reader) -> bool:
    """Whether the identity has files at all: of those that the store keeps, one version is in use."""
    if config.issuer.kind is IssuerKind.FILES:
        return True
    stored = StoredIdentity(config.name, config.cert.parent.parent)
    about = str(stored.folder)
    try:
        version = stored.current()
        if version is None:
            resolved(config)  # says that nothing is stored
    except IdentityError as exc:
        command = rotate_command(config, proxy, "issue")
        reader.findings.append(failed(Layer.FILES, _STORE, exc, about=about, commands=(command,)))
        return False
    except StoreError as exc:
        usable = config.cert.exists() and config.key.exists()
        tell = warned if usable else failed  # the proxy needs the two files alone, a rotation needs the rest
        commands = (f"ls -l {shlex.quote(str(stored.folder / CURRENT))}", rotate_command(config, proxy))
        reader.findings.append(tell(Layer.FILES, _STORE, exc, about=about, commands=commands))
        return usable
    if version is not None:
        seen = f"{stored.folder}: version {version.number} is in use, of issuer {config.issuer.kind}"
        facts: dict[str, Any] = {
            "version": version.number,
            "issuer": config.issuer.kind.value,
            "created_at": version.facts.created_at,
        }
        reader.findings.append(passed(Layer.FILES, _STORE, seen, about=about, **facts))
    return True


class _Reader:
    """Reads files, and notes what it finds."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def read(self, check: str, path: Path, what: str, how: Callable[[Path, str], bytes]) -> bytes | None:
        """The content, also where others can read it too; None where it cannot be had."""
        about = str(path)
        content: bytes | None = None
        try:
            content = how(path, what)
        except IdentityError as exc:
            if exc.code is Code.KEY_EXPOSED and check == KEY:
                with suppress(IdentityError):
                    content = read_public(path, what)
                if content is not None and not _holds_key(content):
                    return content  # a certificate given as the key may be read by everybody
            self.findings.append(failed(Layer.FILES, check, exc, about=about, commands=_commands(exc.code, path)))
            return content
        facts = _facts(path)
        seen = f"{path}: the {what} can be read"
        if check != PASSPHRASE:
            facts["bytes"] = len(content)
            seen += f", {len(content)} bytes"
        if "mode" in facts:
            seen += f", mode {facts['mode']}"
        self.findings.append(passed(Layer.FILES, check, seen, about=about, **facts))
        return content

    def look_at_folder(self, folder: Path) -> None:
        """Who may write to the key's folder may put another key there."""
        if os.name != "posix":
            return
        with suppress(OSError, ValueError):
            mode = folder.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                error = IdentityError(
                    Code.KEY_EXPOSED,
                    f"{folder}: every user of this host may replace the files in it (mode {stat.S_IMODE(mode):04o})",
                    "take the right to write away from others",
                )
                command = f"chmod o-w {shlex.quote(str(folder))}"
                finding = warned(Layer.FILES, "files.folder", error, about=str(folder), commands=(command,))
                self.findings.append(finding)


def _facts(path: Path) -> dict[str, Any]:
    if os.name != "posix":
        return {}
    try:
        status = path.stat()
    except (OSError, ValueError):
        return {}
    return {"mode": f"{stat.S_IMODE(status.st_mode):04o}", "uid": status.st_uid}


def _commands(code: Code, path: Path) -> tuple[str, ...]:
    quoted, folder = shlex.quote(str(path)), shlex.quote(str(path.parent))
    match code:
        case Code.FILE_MISSING:
            return (f"ls -l {folder}",)
        case Code.FILE_UNREADABLE:
            return ("id", f"ls -ld {folder} {quoted}")
        case Code.KEY_EXPOSED:
            return (f"chmod 600 {quoted}",)
    return (f"ls -l {quoted}",)


def _holds_key(content: bytes) -> bool:
    return b"PRIVATE KEY-----" in content or der.describe(content) in _BINARY_KEYS
