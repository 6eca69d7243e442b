"""Heroku's certificate API as a folder: what was made and deleted there outlives the process that asked for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtlskit.errors import Code, RotationError
from mtlskit.heroku.values import RemoteCertificate
from mtlskit.pki.authority import Authority

__all__ = ["FakeHeroku", "make_remote", "no_answer", "remote_certificates"]

_STATE = "certificates.json"


def make_remote(folder: Path) -> None:
    """An add-on without certificates."""
    folder.mkdir()
    ca = Authority.create("Heroku's CA", now=datetime.now(UTC))
    (folder / "ca.crt").write_bytes(ca.cert_pem)
    (folder / "ca.key").write_bytes(ca.key_pem)
    (folder / _STATE).write_text("[]", encoding="ascii")


def remote_certificates(folder: Path) -> list[dict[str, Any]]:
    """Every certificate that was ever made there, oldest first; `status` is `ready` or `disabled`."""
    found: list[dict[str, Any]] = json.loads((folder / _STATE).read_text(encoding="ascii"))
    return found


class FakeHeroku:
    """A `CertificateApi`. `happened` hears of every call when it has been done; what it raises is the answer.

    `alone` surrounds what the fake does to its own files. With a file `mixes-up` in the folder it hands out a key that
    belongs to another certificate.
    """

    def __init__(
        self, folder: Path, happened: Callable[[str], None], alone: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._folder = folder
        self._happened = happened
        self._alone = alone

    async def list(self) -> Sequence[RemoteCertificate]:
        """Every certificate, without its key."""
        with self._alone():
            found = [RemoteCertificate(each["id"], each["status"], each["created_at"]) for each in self._read()]
        self._happened("list")
        return found

    async def create(self) -> RemoteCertificate:
        """Ready at once."""
        with self._alone():
            known = self._read()
            number = len(known) + 1
            id = f"certificate-{number}"  # noqa: A001 - the API's word
            now = datetime.now(UTC)
            ca = Authority.load((self._folder / "ca.crt").read_bytes(), (self._folder / "ca.key").read_bytes())
            issued, other = (ca.issue_client("reporting", now=now) for _ in range(2))
            key = other.key_pem if (self._folder / "mixes-up").exists() else issued.key_pem
            made = {
                "id": id,
                "status": "ready",
                "created_at": f"{number:04d}",
                "key": key.decode("ascii"),
                "chain": issued.cert_pem.decode("ascii"),
                "serial": f"{issued.serial:x}",
            }
            self._write([*known, made])
        self._happened("create")
        return RemoteCertificate(id, "pending", made["created_at"])

    async def authorities(self) -> str | None:
        """Not told: that is optional."""
        return None

    async def get(self, id: str) -> RemoteCertificate | None:  # noqa: A002 - the API's word
        """One with key and chain."""
        with self._alone():
            found = next((each for each in self._read() if each["id"] == id), None)
        self._happened("get")
        if found is None:
            return None
        return RemoteCertificate(
            id,
            found["status"],
            found["created_at"],
            private_key=found["key"],
            certificate_with_chain=found["chain"],
        )

    async def delete(self, id: str) -> None:  # noqa: A002
        """At once and for good."""
        with self._alone():
            known = self._read()
            for each in known:
                if each["id"] == id:
                    each["status"] = "disabled"
            self._write(known)
        self._happened("delete")

    def _read(self) -> Any:
        return remote_certificates(self._folder)

    def _write(self, certificates: Any) -> None:
        (self._folder / _STATE).write_text(json.dumps(certificates), encoding="ascii")


def no_answer() -> RotationError:
    """What a lost answer becomes."""
    return RotationError(Code.ISSUER_FAILED, "the API has not answered in time", "try again")
