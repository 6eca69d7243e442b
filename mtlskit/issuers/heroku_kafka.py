"""Issuer `heroku` for a Kafka add-on, whose certificates are nobody's but the app's.

Apache Kafka on Heroku hands out no certificates. Each add-on has one credential, and the app finds it in its config
vars: see `mtlskit.heroku.kafka_vars`.

So there are two things to do. To follow: take what the config vars hold, whenever that is something else than what is
stored. And to reset: have Heroku make a new credential, which ends the old one, changes the config vars of every app
that the add-on is attached to, and restarts their dynos. A reset is done for an order that says so, and never twice
for one order: what the config vars held before is written down first, and where nobody knows whether Heroku has got
the request, nothing but a change of them is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from mtlskit.errors import Code, HerokuError, RotationError
from mtlskit.heroku.kafka_vars import CERT, ROOTS, KafkaVars, find_kafka_vars
from mtlskit.heroku.values import Addon
from mtlskit.issuers.base import Delivery, Facts, Order, Withdrawn
from mtlskit.issuers.heroku_api import HerokuCalls, OpenHeroku, asked
from mtlskit.pki.certificates import fingerprint_sha256, load_certificates

__all__ = ["KafkaIssuer", "kafka_vars"]


def kafka_vars(addon: Addon, config: Mapping[str, str]) -> KafkaVars:
    """The add-on's credential among the config vars of the app that owns it.

    Raises `RotationError` (ISSUER_FAILED) where one of its parts is missing, or where another add-on's may be meant.
    """
    try:
        return find_kafka_vars(addon, config)
    except HerokuError as exc:
        raise RotationError(Code.ISSUER_FAILED, exc.sentence, exc.hint) from exc


class KafkaIssuer:
    """One Kafka add-on's. Every method that asks raises `RotationError`."""

    makes_key = True

    def __init__(self, addon: Addon, opened: OpenHeroku, *, pause: float = 20.0) -> None:
        self.pause = pause
        self._addon = addon
        self._opened = opened
        self._untried = ""
        """The rotation whose survey we have just made: no reset has been asked for since."""

    async def now(self) -> KafkaVars:
        """What the config vars hold."""
        config = await asked(self._opened, lambda heroku: heroku.platform.config_vars(self._addon.app))
        return kafka_vars(self._addon, config)

    async def apps(self) -> tuple[str, ...]:
        """The apps whose dynos a reset restarts, sorted; the one that owns the add-on is always among them."""
        found = await asked(self._opened, lambda heroku: heroku.platform.attachments(self._addon.name))
        return tuple(sorted({self._addon.app, *(each.app for each in found)}))

    async def changed(self, cert_pem: bytes, root_pem: bytes | None) -> bool:
        """Whether the config vars hold another certificate, or other CAs, than these. Also raises `IdentityError`."""
        held = await self.now()
        certificates = _prints(held.certificate.encode(), f"{held.attachment}{CERT} of app {held.app}")
        roots = _prints(held.roots.encode(), f"{held.attachment}{ROOTS} of app {held.app}")
        if certificates != _prints(cert_pem, "the stored certificate"):
            return True
        return root_pem is None or roots != _prints(root_pem, "the stored CAs")

    async def survey(self, order: Order) -> Facts:
        """What the config vars hold before anything is asked for."""
        held = await self.now()
        self._untried = order.rotation
        return {"before": held.digest, "reset": order.reset}

    async def request(self, order: Order, before: Facts) -> Facts:
        """Ask for a reset, if that is what is wanted. Raises `Withdrawn` where Heroku will not do it."""
        untried, self._untried = self._untried, ""
        receipt = {"app": self._addon.app, "surely_ours": False}
        if not before.get("reset"):
            return receipt
        receipt |= {"reset": True, "before": before.get("before"), "answered": False}
        if untried != order.rotation:
            return receipt  # an earlier run was killed here: it may have asked
        try:
            told = await asked(self._opened, self._reset)
        except RotationError as exc:
            if exc.code is Code.API_UNCERTAIN:
                return receipt
            # A definite no: this order must not go on waiting for a change that nobody is going to make.
            raise Withdrawn(exc.code, exc.sentence, exc.hint) from exc
        return receipt | {"answered": True, "told": told}

    async def _reset(self, heroku: HerokuCalls) -> str:
        return await heroku.data.rotate_kafka_credentials(self._addon.name)

    async def find(self, order: Order, before: Facts) -> Facts | None:
        """Nothing: a reset makes nothing that could be taken back."""
        return None

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        """What the config vars hold; after a reset None until that is something new."""
        held = await self.now()
        if receipt.get("reset") and held.digest == receipt.get("before"):
            return None
        return Delivery(
            held.certificate.encode("utf-8"),
            key_pem=held.key.encode("utf-8"),
            root_pem=held.roots.encode("utf-8"),
            ours=False,
            followed=True,
        )

    def waiting_for(self, order: Order, receipt: Facts) -> str:
        """Heroku's side is at work."""
        told = f"Heroku to change the config vars of app {self._addon.app}, after the reset of {self._addon.name}"
        if receipt.get("answered"):
            return told
        again = f"mtlskit certs rotate {order.identity} --reset-app-credentials --yes --fresh"
        return f"{told}; its answer was lost, so if nothing changes within some minutes, ask again: {again}"

    async def revoke(self, serial: str, remote_id: str | None, *, now: datetime) -> str:
        """Refused. Raises `RotationError` (ROTATION_REFUSED)."""
        raise RotationError(
            Code.ROTATION_REFUSED,
            f"serial {serial} is the credential of {self._addon.name}, which its apps use too: it cannot be revoked",
            "only a reset ends it, and makes a new one: mtlskit certs rotate NAME --reset-app-credentials",
        )


def _prints(pem: bytes, source: str) -> frozenset[bytes]:
    return frozenset(fingerprint_sha256(each) for each in load_certificates(pem, source=source))
