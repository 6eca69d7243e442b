"""The add-on's certificates, as Heroku's API tells of them: the space makes key and certificate, and hands both out.

This stands in for the API until the sandbox speaks HTTP: the same words for what becomes of a certificate (`pending`,
`ready`, `disabled`), the same lack of a request, the same list that goes on naming what is disabled. What it hands out
is signed by the space's CA, so the gateway takes it, and refuses it once it is disabled.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from mtlskit.errors import Code, IdentityError, SandboxError
from mtlskit.heroku.values import RemoteCertificate
from mtlskit.net.files import read_private, read_public
from mtlskit.pki.keys import generate_key, private_key_pem
from mtlskit.pki.profiles import Profile
from mtlskit.pki.requests import Wishes, make_request
from mtlskit.store.authority_folder import AuthorityFolder
from mtlskit.store.files import write_file
from mtlskit.store.lines import append_line, read_lines

__all__ = ["VARIABLE", "SandboxCertificates"]

VARIABLE: Final = "MTLSKIT_SANDBOX"
"""Names the space's `sandbox.json`; `sandbox.env` sets it."""

TAKES: Final = timedelta(seconds=2)
"""Until a certificate is ready. Heroku takes minutes."""

_FOLDER = "certificates"


class SandboxCertificates:
    """The certificates of the space whose CA is in `ca_dir`. Every method raises `IdentityError` and `StoreError`."""

    def __init__(self, ca_dir: Path, *, takes: timedelta = TAKES) -> None:
        self._ca = ca_dir
        self._folder = ca_dir.parent / _FOLDER
        self._journal = self._folder / "certificates.jsonl"
        self._takes = takes

    @classmethod
    def of(cls, description: Path, addon: str) -> SandboxCertificates:
        """Those of the add-on `addon` of a running space. Raises `SandboxError` if it has none of that name."""
        try:
            found = json.loads(read_private(description, "description of the sandbox"))
            ours, ca_dir = str(found["postgres"]["addon"]), Path(found["pki"]["ca_dir"])
        except (IdentityError, ValueError, KeyError, TypeError) as exc:
            raise SandboxError(
                Code.SANDBOX_DIR,
                f"{VARIABLE} names {description}, which is not the description of a running sandbox",
                f"start it, or go to Heroku itself: unset {VARIABLE}",
            ) from exc
        if addon != ours:
            raise SandboxError(
                Code.SANDBOX_DIR,
                f"the sandbox of {VARIABLE} has no add-on {addon}; its own is {ours}",
                f'write addon = "{ours}" to try with, or go to Heroku itself: unset {VARIABLE}',
            )
        return cls(ca_dir)

    async def list(self) -> Sequence[RemoteCertificate]:
        """Every certificate, disabled ones too, without keys."""
        return [RemoteCertificate(id, _status(each), str(each["created_at"])) for id, each in self._read().items()]  # noqa: A001

    async def create(self) -> RemoteCertificate:
        """Make one more; it is `pending` for a while."""
        id, now = str(uuid.uuid4()), datetime.now(UTC)  # noqa: A001 - the API's word
        key = generate_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, id)])
        ca = AuthorityFolder.open(self._ca)
        signed = ca.sign(make_request(key, Wishes(subject)), Profile.CLIENT, now=now, request_id=id)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_file(self._folder / f"{id}.key", private_key_pem(key))
        write_file(self._folder / f"{id}.crt", signed.cert_pem)
        ready = (now + self._takes).isoformat()
        append_line(
            self._journal, {"id": id, "created_at": now.isoformat(), "ready_at": ready, "serial": signed.serial}
        )
        return RemoteCertificate(id, "pending", now.isoformat())

    async def get(self, id: str) -> RemoteCertificate | None:  # noqa: A002 - the API's word
        """One with key and chain, when it is ready; None for one that is disabled or unknown."""
        found = self._read().get(id)
        if found is None or _status(found) == "disabled":
            return None
        created = str(found["created_at"])
        if _status(found) == "pending":
            return RemoteCertificate(id, "pending", created)
        key = read_private(self._folder / f"{id}.key", "key").decode("ascii")
        chain = read_public(self._folder / f"{id}.crt", "certificate").decode("ascii")
        return RemoteCertificate(id, "ready", created, private_key=key, certificate_with_chain=chain)

    async def delete(self, id: str) -> None:  # noqa: A002
        """Disable one at once: the gateway refuses it from its next connection on."""
        found = self._read().get(id)
        if found is None or _status(found) == "disabled":
            return
        AuthorityFolder.open(self._ca).revoke(str(found["serial"]), now=datetime.now(UTC))
        append_line(self._journal, {"id": id, "disabled": True})

    async def authorities(self) -> str | None:
        """The CA that the gateway's own certificate leads to."""
        return read_public(self._ca / "ca.crt", "CA of the sandbox").decode("ascii")

    def _read(self) -> Mapping[str, Mapping[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for record in read_lines(self._journal):
            found.setdefault(str(record.get("id")), {}).update(record)
        return found


def _status(found: Mapping[str, Any]) -> str:
    if found.get("disabled"):
        return "disabled"
    return "ready" if datetime.now(UTC) >= datetime.fromisoformat(str(found["ready_at"])) else "pending"
