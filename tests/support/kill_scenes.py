"""States of a store from which a rotation begins, and what must hold of them after it was ended, wherever that was."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mtlskit.pki.authority import Authority
from mtlskit.pki.identity import CheckedPair, check_pair
from mtlskit.pki.requests import subject_name
from mtlskit.store.audit import read_audit
from mtlskit.store.authority_folder import AuthorityFolder
from mtlskit.store.identities import Store, resolve_current
from mtlskit.store.journal import ABANDONED, BEGUN, Journal, Rotation
from tests.support.fake_heroku import make_remote, remote_certificates
from tests.support.kill_run import REMOTE, KillRunner, Order

__all__ = ["ROTATE", "SCENES", "Scene", "check_always", "check_done", "current_pair", "make_scene"]

ROTATE = ("certs", "rotate", "reporting", "--no-prove", "--quiet", "--json")

_CONFIG = """
[identity.reporting]
revoke_old = {revoke_old}
{issuer}
"""

# What a company's script may look like: it keeps account of whom it was asked for.
_PROGRAM = """set -e
echo "$MTLSKIT_ROTATION" >> remote/asked
exec openssl x509 -req -CA remote/ca.crt -CAkey remote/ca.key -extfile remote/extensions \\
    -set_serial 0x7$(openssl rand -hex 15) -days 90
"""


@dataclass(frozen=True)
class Scene:
    """A folder with a configuration and a store, to be copied for each run."""

    name: str
    folder: Path
    issuer: str
    revoke_old: bool
    begins_with: int | None
    """The number of `current`; None where there is none."""

    def copy_to(self, folder: Path) -> Path:
        """A folder to work in, with the owner and the modes of this one."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return folder


SCENES: dict[str, tuple[str, int]] = {
    "ca": ("ca", 2),
    "heroku": ("heroku", 2),
    "command": ("command", 2),
    "first": ("ca", 0),
    "first from heroku": ("heroku", 0),
}
"""By name: the issuer, and how many rotations there were before."""


def make_scene(name: str, folder: Path, runner: KillRunner) -> Scene:
    """Set one of `SCENES` up in `folder`, which is made."""
    issuer, rotations = SCENES[name]
    folder.mkdir()
    (folder / "runtime").mkdir()
    settings = {
        "ca": 'issuer = "ca"\nca_dir = "ca"',
        "heroku": 'issuer = "heroku"\naddon = "database"',
        "command": 'issuer = "command"\ncommand = ["sh", "issue.sh"]',
    }
    revoke_old = issuer != "command"  # which has no way to
    config = _CONFIG.format(issuer=settings[issuer], revoke_old=json.dumps(revoke_old))
    (folder / "mtlskit.toml").write_text(config, encoding="ascii")
    if issuer == "ca":
        AuthorityFolder.init(folder / "ca", subject_name("CN=our ca"), now=datetime.now(UTC))
    elif issuer == "heroku":
        make_remote(folder / REMOTE)
    else:
        ca = Authority.create("a company's CA", now=datetime.now(UTC))
        (folder / REMOTE).mkdir()
        (folder / REMOTE / "ca.crt").write_bytes(ca.cert_pem)
        (folder / REMOTE / "ca.key").write_bytes(ca.key_pem)
        (folder / REMOTE / "asked").touch()
        (folder / REMOTE / "extensions").write_text("extendedKeyUsage=clientAuth\n", encoding="ascii")
        (folder / "issue.sh").write_text(_PROGRAM, encoding="ascii")
    for _ in range(rotations):
        ran = runner.run(Order(str(folder), ROTATE))
        assert ran.status == 0, ran.stdout + ran.stderr
    return Scene(name, folder, issuer, revoke_old, rotations or None)


def current_pair(folder: Path) -> CheckedPair:
    """What a reader of `current` gets: both files through one look at the link, and checked."""
    version = resolve_current(folder / "identities" / "reporting" / "current")
    cert, key = version / "client.crt", version / "client.key"
    return check_pair(
        cert.read_bytes(), key.read_bytes(), now=datetime.now(UTC), cert_source=str(cert), key_source=str(key)
    )


def check_always(scene: Scene, folder: Path) -> None:
    """What holds at any instant."""
    stored = Store(folder / "identities").identity("reporting")
    if scene.begins_with is not None or stored.current() is not None:
        current_pair(folder)
    for version in stored.versions():
        assert version.key.exists()
    for root in (folder / "identities", folder / "ca"):
        assert not (found := list(_exposed(root))), f"open to others: {found}"
    assert not (unknown := _UNKNOWN[scene.issuer](folder)), f"nobody here knows of: {unknown}"
    if (folder / "identities").exists():
        read_audit(folder / "identities")


def check_done(scene: Scene, folder: Path, *, alone: bool = True) -> None:
    """What holds when a rotation has come to its end; `alone`: with `revoke_old` no other certificate is alive."""
    check_always(scene, folder)
    stored = Store(folder / "identities").identity("reporting")
    current = stored.current()
    assert current is not None
    assert current.number > (scene.begins_with or 0)
    assert current.number == stored.versions()[-1].number
    assert current_pair(folder).serial == current.facts.serial
    journal = Journal(stored.journal_path)
    assert journal.unfinished() is None
    assert not journal.owed()
    assert not (left := list(_leftovers(folder))), f"left over: {left}"
    if scene.revoke_old and alone:
        assert _ALIVE[scene.issuer](folder) == {current.facts.remote_id or current.facts.serial}


def _exposed(root: Path) -> Iterator[str]:
    for path in [root, *root.rglob("*")] if root.exists() else []:
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            if mode != 0o700:
                yield f"{path} {mode:04o}"
        elif mode & 0o077 and (path.name.endswith(".key") or b"PRIVATE KEY" in path.read_bytes()):
            yield f"{path} {mode:04o}"


def _leftovers(folder: Path) -> Iterator[str]:
    for root in (folder / "identities", folder / "ca"):
        for path in root.rglob("*") if root.exists() else []:
            if path.name.startswith(".") or path.name == "pending":
                yield str(path)


def _rotations(folder: Path) -> list[Rotation]:
    return Journal(folder / "identities" / "reporting" / "journal.jsonl").rotations()


def _alive_at_ca(folder: Path) -> set[str]:
    return {entry.serial for entry in AuthorityFolder.open(folder / "ca").entries() if entry.revoked_at is None}


def _unknown_at_ca(folder: Path) -> set[str]:
    known = {rotation.id for rotation in _rotations(folder)}  # by which our CA finds what it has signed
    entries = AuthorityFolder.open(folder / "ca").entries()
    return {entry.serial for entry in entries if entry.revoked_at is None and entry.request_id not in known}


def _alive_at_heroku(folder: Path) -> set[str]:
    return {each["id"] for each in remote_certificates(folder / REMOTE) if each["status"] == "ready"}


def _unknown_at_heroku(folder: Path) -> set[str]:
    """Those without a receipt, but for the one that an open rotation finds by its survey."""
    known: set[str] = set()
    rotations = _rotations(folder)
    for rotation in rotations:
        known |= {
            str(rotation.facts("request").get("receipt", {}).get("id")),
            str(rotation.facts("stage").get("remote_id")),
        }
        known.add(str(rotation.facts(BEGUN).get("old_remote_id")))
        known |= {
            each for each in _alive_at_heroku(folder) if f" {each} " in str(rotation.facts(ABANDONED).get("told"))
        }
    unknown = _alive_at_heroku(folder) - known
    if rotations and rotations[-1].open and "survey" in rotations[-1].steps and len(unknown) == 1:
        unknown -= _alive_at_heroku(folder) - set(rotations[-1].facts("survey")["found"]["ids"])
    return unknown


def _unknown_to_program(folder: Path) -> set[str]:
    asked = (folder / REMOTE / "asked").read_text(encoding="ascii").split()
    return set(asked) - {rotation.id for rotation in _rotations(folder)}


_UNKNOWN: dict[str, Callable[[Path], set[str]]] = {
    "ca": _unknown_at_ca,
    "heroku": _unknown_at_heroku,
    "command": _unknown_to_program,
}
_ALIVE: dict[str, Callable[[Path], set[str]]] = {"ca": _alive_at_ca, "heroku": _alive_at_heroku}
