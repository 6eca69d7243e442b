"""Issuer `heroku`, whichever add-on it is: Postgres makes certificates, Kafka has one credential to be followed.

Which of the two an add-on is, only the platform API knows. It is asked once, when it is first needed.
"""

from __future__ import annotations

from datetime import datetime

from mtlskit.errors import Code, RotationError
from mtlskit.heroku.named_by import naming
from mtlskit.heroku.values import Addon, AddonKind
from mtlskit.issuers.base import Delivery, Facts, Order
from mtlskit.issuers.heroku import HerokuIssuer
from mtlskit.issuers.heroku_api import HerokuCertificates, OpenHeroku, asked
from mtlskit.issuers.heroku_kafka import KafkaIssuer

__all__ = ["HerokuAddonIssuer"]


class HerokuAddonIssuer:
    """The issuer of the add-on called `addon`, and what follows its credential where that is the app's.

    `named_by`: where that name was written, for errors about it.
    """

    makes_key = True
    pause = 20.0

    def __init__(self, addon: str, opened: OpenHeroku, named_by: str = "") -> None:
        self._addon = addon
        self._named_by = named_by
        self._opened = opened
        self._chosen: HerokuIssuer | KafkaIssuer | None = None

    async def follows(self) -> bool:
        """As `Following.follows`."""
        return isinstance(await self._issuer(), KafkaIssuer)

    async def changed(self, cert_pem: bytes, root_pem: bytes | None) -> bool:
        """As `Following.changed`."""
        return await (await self._kafka()).changed(cert_pem, root_pem)

    async def apps(self) -> tuple[str, ...]:
        """The apps whose dynos a reset restarts. Raises `RotationError` (ROTATION_REFUSED) for a Postgres add-on."""
        return await (await self._kafka()).apps()

    async def survey(self, order: Order) -> Facts:
        """As `Issuer.survey`."""
        return await (await self._issuer()).survey(order)

    async def request(self, order: Order, before: Facts) -> Facts:
        """As `Issuer.request`."""
        return await (await self._issuer()).request(order, before)

    async def find(self, order: Order, before: Facts) -> Facts | None:
        """As `Issuer.find`."""
        return await (await self._issuer()).find(order, before)

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        """As `Issuer.fetch`."""
        return await (await self._issuer()).fetch(order, receipt)

    def waiting_for(self, order: Order, receipt: Facts) -> str:
        """As `Issuer.waiting_for`."""
        return self._chosen.waiting_for(order, receipt) if self._chosen is not None else f"Heroku, for {self._addon}"

    async def revoke(self, serial: str, remote_id: str | None, *, now: datetime) -> str:
        """As `Issuer.revoke`."""
        return await (await self._issuer()).revoke(serial, remote_id, now=now)

    async def _kafka(self) -> KafkaIssuer:
        issuer = await self._issuer()
        if not isinstance(issuer, KafkaIssuer):
            raise RotationError(
                Code.ROTATION_REFUSED,
                f"{self._addon} is a Postgres add-on: its certificates are no credential of an app",
                "replace one without --reset-app-credentials: nothing restarts",
            )
        return issuer

    async def _issuer(self) -> HerokuIssuer | KafkaIssuer:
        if self._chosen is None:
            with naming(self._named_by):
                self._chosen = self._of(await asked(self._opened, lambda heroku: heroku.platform.addon(self._addon)))
        return self._chosen

    def _of(self, addon: Addon) -> HerokuIssuer | KafkaIssuer:
        match addon.kind:
            case AddonKind.POSTGRES:
                return HerokuIssuer(addon.name, HerokuCertificates(addon.name, self._opened), pause=self.pause)
            case AddonKind.KAFKA:
                return KafkaIssuer(addon, self._opened, pause=self.pause)
            case None:
                raise RotationError(
                    Code.API_NO_MTLS,
                    f"{addon.name} is {addon.service}, which has no client certificates",
                    "name a Heroku Postgres or an Apache Kafka on Heroku add-on: heroku addons --all",
                )
