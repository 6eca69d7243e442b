"""The data API: the mutual-TLS endpoint of an add-on, its certificates, IP rules, credentials and clusters.

Where it says 404, the platform API is asked whether the add-on exists at all and can have mutual TLS: "not enabled",
"no such add-on" and "not on this plan" need three different things done.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.creating import make_looked_up
from mtlskit.heroku.data_values import (
    WaitStatus,
    certificate_of,
    cluster_of,
    credential_of,
    endpoint_of,
    listed_credential_of,
    rule_of,
    wait_status_of,
)
from mtlskit.heroku.parsing import Fields, parse_list, parse_object
from mtlskit.heroku.paths import path_of
from mtlskit.heroku.plans import no_mtls, why_no_mtls
from mtlskit.heroku.platform import PlatformApi
from mtlskit.heroku.refusals import refusal, told, uncertain
from mtlskit.heroku.retries import Asker, Call
from mtlskit.heroku.token_forms import clean
from mtlskit.heroku.transport import Answer
from mtlskit.heroku.values import (
    Addon,
    AddonKind,
    Credential,
    IpRule,
    KafkaCluster,
    RemoteCertificate,
    TlsEndpoint,
)

__all__ = ["DataApi", "WaitStatus"]

_T = TypeVar("_T")

_DATABASE = "/postgres/v0/databases/{}"
_ENDPOINT = f"{_DATABASE}/tls-endpoint"
_CERTIFICATES = f"{_ENDPOINT}/certificates"
_CLUSTER = "/data/kafka/v0/clusters/{}"
_RULES = {AddonKind.POSTGRES: f"{_ENDPOINT}/ip-rules", AddonKind.KAFKA: f"{_CLUSTER}/ip-rules"}
_WAIT = {AddonKind.POSTGRES: "/client/v11/databases/{}/wait_status", AddonKind.KAFKA: f"{_CLUSTER}/wait_status"}

_GONE = (404, 410)


class DataApi:
    """The calls of the data API. `addon` is an add-on's name. Every call raises `HerokuError`."""

    def __init__(self, asker: Asker, platform: PlatformApi) -> None:
        self._asker = asker
        self._platform = platform
        self._known: dict[str, Addon] = {}

    async def tls_endpoint(self, addon: str) -> TlsEndpoint | None:
        """None: mutual TLS is not enabled. API_NOT_FOUND and API_NO_MTLS where it cannot be."""
        about = self._about("TLS endpoint", addon)
        answer = await self._asker.ask(Call("GET", path_of(_ENDPOINT, addon), about), also=_GONE)
        if answer.status in _GONE:
            await self._could_be(addon, answer, about)
            return None
        return self._object(answer, about, partial(endpoint_of, addon=addon))

    async def enable_tls(self, addon: str) -> TlsEndpoint:
        """Enable mutual TLS; one that is enabled already is returned."""
        about = self._about("enabling mutual TLS", addon)

        async def look() -> TlsEndpoint | None:
            found = await self.tls_endpoint(addon)
            return None if found is None or found.ending else found

        call = Call("POST", path_of(_ENDPOINT, addon), about)
        read = partial(self._made, about=about, make=partial(endpoint_of, addon=addon))
        try:
            return await make_looked_up(self._asker, call, read, look, patience=self._asker.patience.total)
        except HerokuError as exc:
            better = await self._explained(exc, addon)
            if better is None:
                raise
            raise better from exc

    async def disable_tls(self, addon: str) -> TlsEndpoint | None:
        """Disable mutual TLS: every connection through it ends. None: it is disabled already."""
        about = self._about("disabling mutual TLS", addon)
        answer = await self._asker.ask(Call("DELETE", path_of(_ENDPOINT, addon), about), also=_GONE)
        if answer.status in _GONE:
            await self._could_be(addon, answer, about)
            return None
        if not answer.body:
            return None
        return self._object(answer, about, partial(endpoint_of, addon=addon))

    async def certificates(self, addon: str) -> tuple[RemoteCertificate, ...]:
        """Every certificate, disabled ones too, none with its key. API_NOT_ENABLED without an endpoint."""
        about = self._about("certificates", addon)
        answer = await self._enabled(Call("GET", path_of(_CERTIFICATES, addon), about), addon)
        return parse_list(answer, about, self._asker.token, certificate_of)

    async def create_certificate(self, addon: str) -> RemoteCertificate:
        """One more. API_UNCERTAIN if that may have happened: look through the list before it is asked for again."""
        about = self._about("a new certificate", addon)
        answer = await self._enabled(Call("POST", path_of(_CERTIFICATES, addon), about, body={}), addon)
        return self._made(answer, about, certificate_of)

    async def certificate(self, addon: str, id: str) -> RemoteCertificate | None:  # noqa: A002 - the API's word
        """One, with key and chain once it is ready. None: there is none, or it is disabled."""
        about = self._about(f"certificate {clean(id, self._asker.token)}", addon)
        answer = await self._asker.ask(Call("GET", path_of(_CERTIFICATES + "/{}", addon, id), about), also=_GONE)
        return None if answer.status in _GONE else self._object(answer, about, certificate_of)

    async def delete_certificate(self, addon: str, id: str) -> None:  # noqa: A002
        """Disable one at once and for good. One that is gone already is no error."""
        about = self._about(f"disabling certificate {clean(id, self._asker.token)}", addon)
        await self._delete(path_of(_CERTIFICATES + "/{}", addon, id), about)

    async def ip_rules(self, addon: str, kind: AddonKind) -> tuple[IpRule, ...]:
        """Every rule."""
        about = self._about("IP rules", addon)
        answer = await self._enabled(Call("GET", path_of(_RULES[kind], addon), about), addon, kind)
        return parse_list(answer, about, self._asker.token, rule_of)

    async def ip_rule(self, addon: str, kind: AddonKind, id: str) -> IpRule | None:  # noqa: A002
        """One rule; None: there is none."""
        about = self._about(f"IP rule {clean(id, self._asker.token)}", addon)
        answer = await self._asker.ask(Call("GET", path_of(_RULES[kind] + "/{}", addon, id), about), also=_GONE)
        return None if answer.status in _GONE else self._object(answer, about, rule_of)

    async def add_ip_rule(self, addon: str, kind: AddonKind, cidr: str, description: str) -> IpRule:
        """Let a range in. It acts once its status says so, which takes minutes."""
        about = self._about(f"letting in {clean(cidr, self._asker.token)}", addon)

        async def look() -> IpRule | None:
            found = [rule for rule in await self.ip_rules(addon, kind) if _same(rule, cidr, description)]
            return found[-1] if found else None

        call = Call("POST", path_of(_RULES[kind], addon), about, body={"cidr": cidr, "description": description})
        read = partial(self._made, about=about, make=rule_of)
        try:
            return await make_looked_up(self._asker, call, read, look, patience=self._asker.patience.recreate)
        except HerokuError as exc:
            better = await self._explained(exc, addon, needs_endpoint=kind is AddonKind.POSTGRES)
            if better is None:
                raise
            raise better from exc

    async def delete_ip_rule(self, addon: str, kind: AddonKind, id: str) -> None:  # noqa: A002
        """Shut a range out. A rule that is gone already is no error."""
        about = self._about(f"removing IP rule {clean(id, self._asker.token)}", addon)
        await self._delete(path_of(_RULES[kind] + "/{}", addon, id), about)

    async def credential(self, addon: str, name: str = "default") -> Credential:
        """One credential with its active login."""
        about = self._about(f"credential {clean(name, self._asker.token)}", addon)
        call = Call("GET", path_of(_DATABASE + "/credentials/{}", addon, name), about)
        answer = await self._asker.ask(call, also=(404,))
        if answer.status == 404:
            await self._exists(addon, answer, about)
            names = [each.name for each in await self.credentials(addon)]
            error = refusal(answer, about, self._asker.token)
            hint = clean(f"it has these credentials: {', '.join(names) or 'none'}", self._asker.token)
            raise HerokuError(error.code, error.sentence, hint, status=404, request_id=error.request_id)
        return self._object(answer, about, credential_of)

    async def credentials(self, addon: str) -> tuple[Credential, ...]:
        """Every credential; where the list leaves out a login, its user and password are empty."""
        about = self._about("credentials", addon)
        answer = await self._existing(Call("GET", path_of(_DATABASE + "/credentials", addon), about), addon)
        return parse_list(answer, about, self._asker.token, listed_credential_of)

    async def rotate_credential(self, addon: str, name: str = "default") -> None:
        """Give a credential a new password. API_UNCERTAIN if that may have happened: compare the password first."""
        about = self._about(f"rotating credential {clean(name, self._asker.token)}", addon)
        path = path_of(_DATABASE + "/credentials/{}/credentials_rotation", addon, name)
        answer = await self._existing(Call("POST", path, about), addon)
        if answer.body:
            self._made(answer, about, lambda fields: None)

    async def kafka_cluster(self, addon: str) -> KafkaCluster:
        """The cluster of a Kafka add-on."""
        about = self._about("cluster", addon)
        answer = await self._existing(Call("GET", path_of(_CLUSTER, addon), about), addon)
        return self._object(answer, about, partial(cluster_of, addon=addon))

    async def rotate_kafka_credentials(self, addon: str) -> str:
        """Make a new certificate, key and CA, and restart the app. What the API says of it. API_UNCERTAIN as above."""
        about = self._about("rotating credentials", addon)
        answer = await self._existing(Call("POST", path_of(_CLUSTER + "/rotate-credentials", addon), about), addon)
        message = self._made(answer, about, lambda fields: fields.text_or("message")) if answer.body else ""
        return clean(message, self._asker.token)

    async def wait_status(self, addon: str, kind: AddonKind) -> WaitStatus:
        """Whether the add-on is being made or changed. API_NOT_FOUND for one that is removed (410)."""
        about = self._about("state", addon)
        answer = await self._asker.ask(Call("GET", path_of(_WAIT[kind], addon), about), also=_GONE)
        if answer.status == 410:
            raise HerokuError(
                Code.API_NOT_FOUND,
                f"{about}: it has been removed: {told(answer, self._asker.token)}",
                "see what is there: heroku addons --all",
                status=410,
                request_id=answer.request_id,
            )
        if answer.status == 404:
            await self._exists(addon, answer, about)
            raise refusal(answer, about, self._asker.token)
        return self._object(answer, about, wait_status_of)

    # What the calls have in common.

    def _about(self, what: str, addon: str) -> str:
        return f"{clean(addon, self._asker.token, most=100)}: {what}"

    def _object(self, answer: Answer, about: str, make: Callable[[Fields], _T]) -> _T:
        return parse_object(answer, about, self._asker.token, make)

    def _made(self, answer: Answer, about: str, make: Callable[[Fields], _T]) -> _T:
        """Read the answer to a POST: one that says yes and cannot be read leaves open what has happened."""
        try:
            return self._object(answer, about, make)
        except HerokuError as exc:
            reason = exc.sentence.removeprefix(f"{about}: ")
            raise uncertain(about, reason, status=exc.status, request_id=exc.request_id) from exc

    async def _delete(self, path: str, about: str) -> None:
        answer = await self._asker.ask(Call("DELETE", path, about), also=_GONE)
        if answer.status not in _GONE and answer.body:
            self._object(answer, about, lambda fields: None)  # some page's "200 OK" has deleted nothing

    async def _enabled(self, call: Call, addon: str, kind: AddonKind = AddonKind.POSTGRES) -> Answer:
        """The answer of a call that needs the endpoint (of Postgres: Kafka has none)."""
        try:
            return await self._asker.ask(call)
        except HerokuError as exc:
            better = await self._explained(exc, addon, needs_endpoint=kind is AddonKind.POSTGRES)
            if better is None:
                raise
            raise better from exc

    async def _existing(self, call: Call, addon: str) -> Answer:
        """The answer of a call that needs the add-on and nothing else."""
        answer = await self._asker.ask(call, also=(404,))
        if answer.status == 404:
            await self._exists(addon, answer, call.about)
            raise refusal(answer, call.about, self._asker.token)
        return answer

    async def _exists(self, addon: str, answer: Answer, about: str) -> Addon:
        """The add-on, after a 404. Raises `HerokuError` (API_NOT_FOUND): there is none, or nobody knows."""
        if addon not in self._known:
            try:
                self._known[addon] = await self._platform.addon(addon)
            except HerokuError as exc:
                if exc.code is Code.API_NOT_FOUND:
                    raise
                raise HerokuError(
                    Code.API_NOT_FOUND,
                    f"{about}: not found, and whether {clean(addon, self._asker.token)} exists could not be asked: "
                    f"{exc.sentence}",
                    exc.hint,
                    status=answer.status,
                    request_id=answer.request_id,
                ) from exc
        return self._known[addon]

    async def _could_be(self, addon: str, answer: Answer, about: str) -> None:
        """Raises `HerokuError` if there is no such add-on, or one whose plan has no mutual TLS."""
        found = await self._exists(addon, answer, about)
        reason = why_no_mtls(found)
        if reason is not None:
            raise no_mtls(found, reason, status=answer.status, request_id=answer.request_id)

    async def _explained(self, error: HerokuError, addon: str, *, needs_endpoint: bool = False) -> HerokuError | None:
        """The reason for a refusal that the platform API knows; None: it knows none.

        `needs_endpoint`: the call is a 404 where mutual TLS is not enabled.
        """
        if error.code not in (Code.API_NOT_FOUND, Code.API_REFUSED) or error.status is None:
            return None
        about = error.sentence.partition(": not found")[0]
        try:
            await self._could_be(addon, Answer(error.status, b"", request_id=error.request_id), about)
        except HerokuError as exc:
            # A refusal says more than that nobody could be asked for its reason.
            return None if error.code is Code.API_REFUSED and exc.code is Code.API_NOT_FOUND else exc
        if not needs_endpoint or error.code is not Code.API_NOT_FOUND:
            return None
        return HerokuError(
            Code.API_NOT_ENABLED,
            f"{about}: mutual TLS is not enabled",
            f"mtlskit heroku enable {addon}",
            status=error.status,
            request_id=error.request_id,
        )


def _same(rule: IpRule, cidr: str, description: str) -> bool:
    return _network(rule.cidr) == _network(cidr) and rule.description.strip() == description.strip()


def _network(cidr: str) -> object:
    """Comparable: `203.0.113.7` is `203.0.113.7/32`."""
    try:
        return ipaddress.ip_network(cidr.strip(), strict=False)
    except ValueError:
        return cidr.strip()
