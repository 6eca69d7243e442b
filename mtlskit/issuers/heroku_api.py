"""The certificates of one Postgres add-on, through Heroku's data API, and how an issuer reaches the API at all.

A rotation may take a quarter of an hour and a watcher months, with one call now and then. So the API is opened for
each call and closed after it, and nobody holds a connection, or a token that was changed meanwhile.

What the API says in its own words becomes a `RotationError` with the same code, sentence and hint: to a rotation it is
one of the things that an issuer says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from mtlskit.errors import HerokuError, RotationError
from mtlskit.heroku.values import Addon, Attachment, RemoteCertificate, TlsEndpoint

__all__ = ["DataCalls", "HerokuCalls", "HerokuCertificates", "OpenHeroku", "PlatformCalls", "asked"]

T = TypeVar("T")


class DataCalls(Protocol):
    """What issuers need of the data API. `mtlskit.heroku.data.DataApi` has it."""

    async def tls_endpoint(self, addon: str) -> TlsEndpoint | None:
        """None: mutual TLS is not enabled."""

    async def certificates(self, addon: str) -> Sequence[RemoteCertificate]:
        """All of them, without keys."""

    async def create_certificate(self, addon: str) -> RemoteCertificate:
        """One more; API_UNCERTAIN where nobody knows whether it was made."""

    async def certificate(self, addon: str, id: str) -> RemoteCertificate | None:  # noqa: A002 - the API's word
        """One, with its key when it is ready."""

    async def delete_certificate(self, addon: str, id: str) -> None:  # noqa: A002
        """Disable it."""

    async def rotate_kafka_credentials(self, addon: str) -> str:
        """Reset the credential of a Kafka add-on; what the API says to that."""


class PlatformCalls(Protocol):
    """What issuers need of the platform API. `mtlskit.heroku.platform.PlatformApi` has it."""

    async def addon(self, name: str) -> Addon:
        """What an add-on is, and whose."""

    async def attachments(self, addon: str) -> Sequence[Attachment]:
        """The apps that use it."""

    async def config_vars(self, app: str) -> Mapping[str, str]:
        """An app's settings, secrets among them."""


class HerokuCalls(Protocol):
    """Both APIs, opened."""

    @property
    def data(self) -> DataCalls:
        """Databases and clusters."""

    @property
    def platform(self) -> PlatformCalls:
        """Apps and add-ons."""


OpenHeroku = Callable[[], AbstractAsyncContextManager[HerokuCalls]]
"""Opens both APIs for as long as the block lasts. Raises `ConfigError` where there is no token."""


async def asked(opened: OpenHeroku, call: Callable[[HerokuCalls], Awaitable[T]]) -> T:
    """The answer to one question. Raises `RotationError` for what the API says instead of an answer."""
    answers: list[T] = []
    errors: list[HerokuError] = []
    try:
        async with opened() as heroku:
            answers.append(await call(heroku))
    except* HerokuError as group:  # in a group where the client has tasks of its own
        errors.extend(_leaves(group))
    if answers:
        return answers[0]  # what went wrong while closing does not unsay it
    raise RotationError(errors[0].code, errors[0].sentence, errors[0].hint) from errors[0]


def _leaves(group: BaseExceptionGroup[HerokuError]) -> list[HerokuError]:
    found: list[HerokuError] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


class HerokuCertificates:
    """Those of `addon`: a `CertificateApi`. Every method raises `RotationError`."""

    def __init__(self, addon: str, opened: OpenHeroku) -> None:
        self._addon = addon
        self._opened = opened

    async def list(self) -> Sequence[RemoteCertificate]:
        """Every certificate, disabled ones too, in no order."""
        return await asked(self._opened, lambda heroku: heroku.data.certificates(self._addon))

    async def create(self) -> RemoteCertificate:
        """Make one more. Never repeated from here: API_UNCERTAIN says that nobody knows whether it was made."""
        return await asked(self._opened, lambda heroku: heroku.data.create_certificate(self._addon))

    async def get(self, id: str) -> RemoteCertificate | None:  # noqa: A002 - the API's word
        """One with key and chain; None if it is gone."""
        return await asked(self._opened, lambda heroku: heroku.data.certificate(self._addon, id))

    async def delete(self, id: str) -> None:  # noqa: A002
        """Disable one at once and for good. One that is gone already is no error."""
        await asked(self._opened, lambda heroku: heroku.data.delete_certificate(self._addon, id))

    async def authorities(self) -> str | None:
        """The CAs, PEM, that the endpoint's own certificate leads to; None where the API does not tell."""
        endpoint = await asked(self._opened, lambda heroku: heroku.data.tls_endpoint(self._addon))
        return None if endpoint is None else endpoint.authorities
