"""The endpoint's and the certificates' calls: what they check, and what they change.

Where the facts do not say what Heroku does, the answer here is the stricter one: a certificate or a rule cannot be made
before the endpoint is operational; taking the endpoint down disables every certificate at once and forgets the rules.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.answers import ApiRefusal, not_found
from mtlskit.sandbox.api.clock import CERTIFICATE_LIFETIME
from mtlskit.sandbox.api.hooks import SpaceHooks
from mtlskit.sandbox.api.keys import KeyFiles
from mtlskit.sandbox.api.model import AddonRecord, CertificateRecord, EndpointRecord
from mtlskit.sandbox.api.state import ApiState

__all__ = ["Mtls"]

NO_MTLS = "Mutual TLS is available for databases on Private and Shield plans only; this one is on {plan}."


class Mtls:
    """The calls, for `state`, with the CA of `hooks`. Each raises `ApiRefusal`, and `MtlskitError` of the space."""

    def __init__(self, state: ApiState, hooks: SpaceHooks) -> None:
        self._state = state
        self._hooks = hooks
        self._keys = KeyFiles(state.files)

    def make_first_certificates(self) -> None:
        """What a fresh space lacks: an endpoint has had a certificate since it was enabled."""
        now = self._state.now()
        for addon in self._state.world.addons:
            if addon.endpoint is not None and not addon.certificates:
                self._state.change_addon(addon, certificates=(self._issue(addon, now, now),))

    def database(self, name: str) -> AddonRecord:
        """A Postgres add-on."""
        return self._state.addon(name, AddonKind.POSTGRES)

    def with_endpoint(self, name: str, *, working: bool = False) -> AddonRecord:
        """A Postgres add-on that has an endpoint; `working`: to be changed, so it must be operational."""
        addon = self.database(name)
        status = addon.endpoint_status(self._state.now())
        if status is None:
            if working and not addon.mtls:
                raise ApiRefusal(422, "invalid_params", NO_MTLS.format(plan=addon.plan))
            raise not_found(f"Mutual TLS is not enabled for {addon.name}.")
        if working and status != "Operational":
            raise ApiRefusal(422, "invalid_params", f"The mutual TLS endpoint of {addon.name} is {status}.")
        return addon

    def enable(self, name: str) -> AddonRecord:
        """Begin to provision the endpoint, and its first certificate with it."""
        addon, now = self.database(name), self._state.now()
        if not addon.mtls:
            raise ApiRefusal(422, "invalid_params", NO_MTLS.format(plan=addon.plan))
        if (status := addon.endpoint_status(now)) is not None:
            raise ApiRefusal(409, "conflict", f"The mutual TLS endpoint of {addon.name} is {status} already.")
        ready = now + self._state.durations.endpoint
        first = self._issue(addon, now, ready)
        return self._state.change_addon(
            addon,
            endpoint=EndpointRecord(ready_at=ready),
            certificates=(*addon.certificates, first),
            rules=(),
            deleted=(),
        )

    def disable(self, name: str) -> AddonRecord:
        """Begin to take the endpoint down. Asked a second time it goes on as before."""
        addon, now = self.with_endpoint(name), self._state.now()
        if addon.endpoint is None or addon.endpoint.gone_at is not None:
            return addon
        ended = tuple(self._end(each, now) for each in addon.certificates)
        endpoint = addon.endpoint.model_copy(update={"gone_at": now + self._state.durations.disable})
        return self._state.change_addon(addon, endpoint=endpoint, certificates=ended)

    def create_certificate(self, name: str) -> CertificateRecord:
        """One more, pending at first."""
        addon, now = self.with_endpoint(name, working=True), self._state.now()
        made = self._issue(addon, now, now + self._state.durations.certificate)
        self._state.change_addon(addon, certificates=(*addon.certificates, made))
        return made

    def certificate(self, name: str, id: str) -> CertificateRecord:  # noqa: A002 - the API's word
        """One that is not disabled."""
        for each in self.with_endpoint(name).certificates:
            if each.id == id and each.status(self._state.now()) != "disabled":
                return each
        raise not_found("Couldn't find that certificate.")

    def secrets(self, certificate: CertificateRecord) -> tuple[str, str] | None:
        """Key and chain, when it is ready."""
        if certificate.status(self._state.now()) != "ready":
            return None
        return self._keys.read(certificate.id)

    def delete_certificate(self, name: str, id: str) -> CertificateRecord:  # noqa: A002
        """Disable one at once: the gateway refuses it from its next connection on."""
        ended = self._end(self.certificate(name, id), self._state.now())
        addon = self.database(name)
        self._state.change_addon(
            addon, certificates=tuple(ended if each.id == id else each for each in addon.certificates)
        )
        return ended

    def _issue(self, addon: AddonRecord, now: datetime, ready: datetime) -> CertificateRecord:
        """The key is on the disk before anybody hears of the certificate."""
        id = str(uuid.uuid4())  # noqa: A001
        serial, key, chain = self._hooks.issue(id)
        self._keys.write(id, key, chain)
        return CertificateRecord(
            id=id,
            name=f"certificate-{len(addon.certificates) + 1}",
            serial=serial,
            created_at=now,
            ready_at=ready,
            expires_at=now + CERTIFICATE_LIFETIME,
        )

    def _end(self, certificate: CertificateRecord, now: datetime) -> CertificateRecord:
        """Revoked first, recorded then: after a crash in between, asking again finishes it."""
        if certificate.gone_at is not None:
            return certificate
        self._hooks.revoke(certificate.serial)
        return certificate.model_copy(update={"deleted_at": now, "gone_at": now + self._state.durations.disable})
