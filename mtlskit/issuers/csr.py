"""Issuer `csr`: the request is written down, somebody has it signed, and `mtlskit certs import` brings the answer."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from mtlskit.errors import Code, RotationError
from mtlskit.issuers.base import Delivery, Facts, Order
from mtlskit.net.files import read_public
from mtlskit.store.files import PUBLIC, write_file

__all__ = ["CsrIssuer", "bring_answer"]

_ANSWER = "answer.pem"
_ROOT = "root.pem"


class CsrIssuer:
    """Waits for people. `kind` is what the configuration calls the issuer in whose place they stand."""

    makes_key = False
    pause = 1.0

    def __init__(self, kind: str = "csr") -> None:
        self._kind = kind

    async def survey(self, order: Order) -> Facts:
        """Nothing: nobody is asked but people."""
        return {}

    async def request(self, order: Order, before: Facts) -> Facts:
        """Where the request lies; it was written with the key."""
        return {"request": str(order.pending / "client.csr")}

    async def find(self, order: Order, before: Facts) -> Facts | None:
        """Nothing: nobody has got a certificate but by `fetch`."""
        return None

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        """The certificate, once it was brought. Raises `IdentityError` if it cannot be read."""
        answer = order.pending / _ANSWER
        if not answer.exists():
            return None
        root = order.pending / _ROOT
        return Delivery(
            read_public(answer, "certificate"), root_pem=read_public(root, "CA file") if root.exists() else None
        )

    def waiting_for(self, order: Order, receipt: Facts) -> str:
        """Where the request lies, and what to do with it."""
        return (
            f"have {order.pending / 'client.csr'} signed, then: mtlskit certs import {order.identity} CERTIFICATE-FILE"
        )

    async def revoke(self, serial: str, remote_id: str | None, *, now: datetime) -> str:
        """Refused: whoever signed it has to. Raises `RotationError` (ROTATION_REFUSED)."""
        raise RotationError(
            Code.ROTATION_REFUSED,
            f'serial {serial}: issuer "{self._kind}" cannot revoke',
            "ask whoever runs the CA to revoke it",
        )


def bring_answer(pending: Path, cert_pem: bytes, root_pem: bytes | None = None) -> None:
    """Put a signed certificate where the rotation that waits for it will find it. Raises `IdentityError`."""
    if root_pem is not None:
        write_file(pending / _ROOT, root_pem, mode=PUBLIC, replace=True)
    write_file(pending / _ANSWER, cert_pem, mode=PUBLIC, replace=True)
