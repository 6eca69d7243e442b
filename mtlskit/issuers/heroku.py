"""Issuer `heroku`: the data API makes key and certificate, and hands both out.

A certificate is made by one call that takes nothing and cannot be repeated safely, so the ids that exist are written
down before it. A rotation that was killed in the middle looks for what is new since then, and takes it as its own. Of
several that are new, made by other hosts at the same time, it takes the oldest, and remembers that it may not be its
own: such a one is never revoked by itself.

How the API is reached is not this module's business: `CertificateApi` is the part of it that is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from mtlskit.errors import Code, RotationError
from mtlskit.issuers.base import Delivery, Facts, Order

__all__ = ["CertificateApi", "HerokuIssuer", "RemoteCertificate"]

_READY = "ready"
_COMING = frozenset({"pending", ""})
_ENDING = frozenset({"disabling", "disabled"})


@dataclass(frozen=True)
class RemoteCertificate:
    """A certificate as the API tells of it. Key and chain come with a single one only, and only when it is ready."""

    id: str
    status: str
    created_at: str = ""
    private_key: str | None = field(default=None, repr=False)
    certificate_with_chain: str | None = None


class CertificateApi(Protocol):
    """The calls for one add-on's certificates. Each raises `MtlskitError` with what the API said."""

    async def list(self) -> Sequence[RemoteCertificate]:
        """Every certificate, disabled ones too, in no order."""

    async def create(self) -> RemoteCertificate:
        """Make one more."""

    async def get(self, id: str) -> RemoteCertificate | None:  # noqa: A002 - the API's word
        """One with key and chain; None if it is gone."""

    async def delete(self, id: str) -> None:  # noqa: A002
        """Disable one at once and for good. One that is gone already is no error."""


class HerokuIssuer:
    """One add-on's. `root_pem` are the CAs of its endpoint, where they are known."""

    makes_key = True
    pause = 20.0

    def __init__(self, addon: str, api: CertificateApi) -> None:
        self._addon = addon
        self._api = api

    async def survey(self, order: Order) -> Facts:
        """The ids that exist."""
        return {"ids": sorted(each.id for each in await self._api.list())}

    async def request(self, order: Order, before: Facts) -> Facts:
        """Make a certificate, or find the one that an earlier try has made. Its id is the receipt."""
        known = set(before.get("ids", ()))
        new = [each for each in await self._api.list() if each.id not in known and each.status not in _ENDING]
        if new:
            chosen = min(new, key=lambda each: (each.created_at, each.id))
            return {"id": chosen.id, "surely_ours": len(new) == 1}
        return {"id": (await self._api.create()).id, "surely_ours": True}

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        """Key and chain, once they are ready. Raises `RotationError` (ISSUER_FAILED) if there will be none."""
        id = str(receipt["id"])  # noqa: A001 - the API's word
        found = await self._api.get(id)
        if found is None or found.status in _ENDING:
            raise RotationError(
                Code.ISSUER_FAILED,
                f"{order.identity}: certificate {id} of {self._addon} was disabled before it was fetched",
                f"begin anew: mtlskit certs rotate {order.identity} --fresh",
            )
        if found.private_key is None or found.certificate_with_chain is None:
            if found.status in _COMING or found.status != _READY:
                return None
            raise RotationError(
                Code.ISSUER_FAILED,
                f"{order.identity}: certificate {id} of {self._addon} is ready, and came without key or chain",
                f"look at it with the Heroku CLI, or begin anew: mtlskit certs rotate {order.identity} --fresh",
            )
        return Delivery(
            found.certificate_with_chain.encode("utf-8"),
            key_pem=found.private_key.encode("utf-8"),
            remote_id=id,
            ours=bool(receipt.get("surely_ours")),
        )

    def waiting_for(self, order: Order, receipt: Facts) -> str:
        """Heroku's side is at work; it may take minutes."""
        return f"Heroku is making certificate {receipt['id']} of {self._addon}; this may take some minutes"

    async def revoke(self, serial: str, remote_id: str | None, *, now: datetime) -> str:
        """Disable the certificate. Raises `RotationError` (ROTATION_REFUSED) for one without an id."""
        if remote_id is None:
            raise RotationError(
                Code.ROTATION_REFUSED,
                f"serial {serial} of {self._addon}: its id at Heroku is not recorded here, so another host may own it",
                "see who uses it, then disable it with the Heroku CLI",
            )
        await self._api.delete(remote_id)
        return f"certificate {remote_id} of {self._addon} is disabled, at once and for good"
