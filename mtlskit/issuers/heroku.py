"""Issuer `heroku`: the data API makes key and certificate, and hands both out.

A certificate is made by one call that takes nothing and cannot be repeated safely, so the ids that exist are written
down before it. A rotation that was killed in the middle looks for what is new since then, and takes the oldest of it;
so does one whose connection was lost after it had asked.
Another host may have made that one, so it is remembered that it may not be ours: such a one is never revoked by itself,
because that would end it at once wherever it is used.

How the API is reached is not this module's business: `CertificateApi` is the part of it that is needed, and
`mtlskit.issuers.heroku_api` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from mtlskit.errors import Code, MtlskitError, RotationError
from mtlskit.heroku.values import RemoteCertificate
from mtlskit.issuers.base import Delivery, Facts, Order, Withdrawn

__all__ = ["CertificateApi", "HerokuIssuer"]


_FOUND = (
    "the answer to the request for a certificate was lost, so {id} was looked up and taken; in case another host has"
    " asked for that one, it will not be revoked by itself"
)


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

    async def authorities(self) -> str | None:
        """The CAs, PEM, that the endpoint's own certificate leads to; None where the API does not tell."""


class HerokuIssuer:
    """One add-on's. `pause`: seconds between two looks whether a certificate is ready, at most."""

    makes_key = True

    def __init__(self, addon: str, api: CertificateApi, *, pause: float = 20.0) -> None:
        self.pause = pause
        self._addon = addon
        self._api = api
        self._untried = ""
        """The rotation whose survey we have just made: nothing has been asked for since."""

    async def survey(self, order: Order) -> Facts:
        """The ids that exist."""
        ids = sorted(each.id for each in await self._api.list())
        self._untried = order.rotation
        return {"ids": ids}

    async def request(self, order: Order, before: Facts) -> Facts:
        """Make a certificate, or find the one that an earlier try has made. Its id is the receipt.

        Where the answer is lost, and nothing new is found, API_UNCERTAIN is raised and nothing repeated: the next run
        looks again before it asks.
        """
        untried, self._untried = self._untried, ""
        if untried != order.rotation and (found := await self.find(order, before)) is not None:
            return found
        try:
            made = await self._api.create()
        except MtlskitError as exc:
            if exc.code is not Code.API_UNCERTAIN or (found := await self.find(order, before)) is None:
                raise
            return found
        return {"id": made.id, "surely_ours": True}

    async def find(self, order: Order, before: Facts) -> Facts | None:
        """The oldest of what was not there before."""
        known = set(before.get("ids", ()))
        new = [each for each in await self._api.list() if each.id not in known and not each.ending]
        if not new:
            return None
        oldest = min(new, key=lambda each: (each.created_at, each.id))
        return {"id": oldest.id, "surely_ours": False}

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        """Key and chain, once they are ready. Raises `RotationError` (ISSUER_FAILED); `Withdrawn` if it is disabled."""
        id = str(receipt["id"])  # noqa: A001 - the API's word
        found = await self._api.get(id)
        if found is None or found.ending:
            raise Withdrawn(
                Code.ISSUER_FAILED,
                f"{order.identity}: certificate {id} of {self._addon} was disabled before it was fetched",
                f"begin anew: mtlskit certs rotate {order.identity}",
            )
        if found.private_key is None or found.certificate_with_chain is None:
            if not found.ready:
                return None
            raise RotationError(
                Code.ISSUED_WRONG,
                f"{order.identity}: certificate {id} of {self._addon} is ready, and came without key or chain",
                f"look at it with the Heroku CLI, or begin anew: mtlskit certs rotate {order.identity} --fresh",
            )
        roots = await self._api.authorities()
        return Delivery(
            found.certificate_with_chain.encode("utf-8"),
            key_pem=found.private_key.encode("utf-8"),
            root_pem=None if roots is None else roots.encode("utf-8"),
            remote_id=id,
            ours=bool(receipt.get("surely_ours")),
            notes=() if receipt.get("surely_ours") else (_FOUND.format(id=id),),
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
