"""What every issuer can do: be asked for a certificate, deliver it, and in some cases take it back.

A rotation that is killed repeats the step it was in, so each of these bears to be done twice with the same order. What
`survey` finds is on the disk before `request` changes anything far away, and what `request` returns is on the disk
before `fetch`: both are plain JSON values, and no secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from mtlskit.errors import RotationError

__all__ = ["Delivery", "Facts", "Following", "Issuer", "Order", "Withdrawn"]

Facts = Mapping[str, Any]
"""JSON values that the journal keeps for an issuer."""


@dataclass(frozen=True)
class Order:
    """One certificate that is wanted."""

    rotation: str
    """The same each time that a rotation asks; another one for each rotation."""
    identity: str
    pending: Path
    """A private folder that lasts as long as the rotation."""
    now: datetime
    """Aware."""
    request_pem: bytes | None = None
    """Our signed request; None for an issuer that makes the key itself."""
    reset: bool = False
    """The credential that is followed may be replaced for it, for everybody who uses it."""


@dataclass(frozen=True)
class Delivery:
    """What an issuer hands out. `key_pem` is there when the issuer has made the key."""

    cert_pem: bytes
    key_pem: bytes | None = field(default=None, repr=False)
    root_pem: bytes | None = None
    """The CAs of the server, where the issuer knows them."""
    remote_id: str | None = None
    ours: bool = True
    """We asked for this very one. Where that is not sure, nobody revokes it without being told to."""
    followed: bool = False
    """It is a copy of a credential that others use too, and is of no use any more when they get another one."""
    notes: tuple[str, ...] = ()


class Withdrawn(RotationError):
    """What was asked for was taken back, or refused for good: going on with this order is of no use."""


class Issuer(Protocol):
    """One way to certificates. Every method raises `RotationError` for what goes wrong at the issuer's."""

    makes_key: bool
    """The issuer makes the key; otherwise it is asked with a request of ours."""
    pause: float
    """Seconds between two looks whether a certificate is ready, at most: the first ones come quicker."""

    async def survey(self, order: Order) -> Facts:
        """What is to be known before anything is asked for, so that a repeated request finds its own."""

    async def request(self, order: Order, before: Facts) -> Facts:
        """Ask for a certificate, or find the one that was asked for already. What it returns is the receipt."""

    async def find(self, order: Order, before: Facts) -> Facts | None:
        """The receipt for what a `request` that was killed has got; None where there is none. Asks for nothing.

        `surely_ours` in it is false where somebody else may have asked for that certificate.
        """

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        """The certificate that a receipt stands for; None while it is not ready."""

    def waiting_for(self, order: Order, receipt: Facts) -> str:
        """For people: what is being waited for, and what they can do about it."""

    async def revoke(self, serial: str, remote_id: str | None, *, now: datetime) -> str:
        """Take a certificate back; a sentence on what was done. Taking it back twice is no error."""


class Following(Protocol):
    """An issuer whose certificate may be a credential that others use too, and that is followed when it changes."""

    async def follows(self) -> bool:
        """Whether it is one. Raises `RotationError`."""

    async def changed(self, cert_pem: bytes, root_pem: bytes | None) -> bool:
        """Whether the credential, or the CAs that belong to it, are others than these by now. Raises `MtlskitError`."""
