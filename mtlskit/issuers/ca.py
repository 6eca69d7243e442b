"""Issuer `ca`: our own CA, in a folder on this host (`mtlskit ca init`). It signs at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import trio

from mtlskit.issuers.base import Delivery, Facts, Order
from mtlskit.net.files import read_passphrase_file
from mtlskit.pki.profiles import Profile
from mtlskit.pki.revocation import Reason
from mtlskit.store.authority_folder import AuthorityFolder, Signed

__all__ = ["CaIssuer"]


class CaIssuer:
    """Signs with the CA in `folder`. `lifetime` in seconds; None: the CA's default. The file holds its passphrase.

    Every method raises what `AuthorityFolder` does: `IdentityError` and `StoreError`, naming the folder.
    """

    makes_key = False
    pause = 1.0

    def __init__(self, folder: Path, lifetime: float | None = None, passphrase_file: Path | None = None) -> None:
        self._folder = folder
        self._passphrase_file = passphrase_file
        self._lifetime = None if lifetime is None else timedelta(seconds=lifetime)

    async def survey(self, order: Order) -> Facts:
        """Nothing: the CA itself knows a request that is repeated."""
        return {}

    async def request(self, order: Order, before: Facts) -> Facts:
        """Have the request signed; the CA's ledger holds the certificate from then on."""
        return {"serial": (await self._sign(order)).serial}

    async def find(self, order: Order, before: Facts) -> Facts | None:
        """What the CA's ledger has for this rotation."""
        entries = await trio.to_thread.run_sync(self._open().entries)
        found = [entry.serial for entry in entries if entry.request_id == order.rotation]
        return {"serial": found[-1]} if found else None

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        """The certificate that was signed for this order."""
        signed = await self._sign(order)
        return Delivery(signed.cert_pem, notes=signed.notes)

    def waiting_for(self, order: Order, receipt: Facts) -> str:
        """Nothing is waited for."""
        return f"the CA in {self._folder} has signed"

    async def revoke(self, serial: str, remote_id: str | None, *, now: datetime) -> str:
        """Revoke, and write the CA's list anew."""
        ca = self._open()
        await trio.to_thread.run_sync(lambda: ca.revoke(serial, now=now, reason=Reason.SUPERSEDED))
        return f"serial {serial} is on {self._folder / 'ca.crl'}, which servers have to load"

    def _open(self) -> AuthorityFolder:
        passphrase = None
        if self._passphrase_file is not None:
            passphrase = read_passphrase_file(self._passphrase_file)
        return AuthorityFolder.open(self._folder, passphrase)

    async def _sign(self, order: Order) -> Signed:
        ca = self._open()
        request = order.request_pem or b""
        # In a thread: the CA's lock may be held by another process.
        return await trio.to_thread.run_sync(
            lambda: ca.sign(
                request,
                Profile.CLIENT,
                now=order.now,
                lifetime=self._lifetime,
                request_id=order.rotation,
                source=str(order.pending / "client.csr"),
            )
        )
