"""Faults of revocation, of the store, and of the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from mtlskit.config.values import HerokuConfig
from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_file, from_flags, heroku_door
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Fault, Stage
from tests.doctor.catalogue.places import NOT_RUNNING, Flags, Place, by_flags, means, placed
from tests.services.pki import Pair
from tests.support.date_server import date_server
from tests.support.own_authority import OwnAuthority
from tests.support.tls_servers import echoing, listening
from tests.support.x509_builder import DAY

# Revocation.


def _revoked(place: Place) -> Flags:
    """By a list that lies beside the certificate, and that the server reads as well."""
    pair: Pair = place.pki.client_revoked
    return {"cert": pair.cert, "key": pair.key}


@contextmanager
def _stored(stage: Stage, spoil: Callable[[OwnAuthority], None], issued: bool = True) -> Iterator[Gathered]:
    """An identity of the store, issued by a CA of our own, for a server that trusts it."""
    own = OwnAuthority.make(stage.folder)
    if issued:
        own.issue("reporting")
    spoil(own)
    with listening(echoing(own.server_context())) as port:
        own.configure(port)
        yield from_file(own.file, (), means())


def _nothing(own: OwnAuthority) -> None:
    """All is well."""


# The clock.


@contextmanager
def _by_api(stage: Stage, ahead: timedelta) -> Iterator[Gathered]:
    """Our clock is ahead of the API's by so much."""
    with placed(stage) as place, date_server() as url:
        environ = {"HEROKU_DATA_HOST": url, "HEROKU_HOST": url, "HEROKU_API_KEY": "a-token-of-tests"}
        bare = means(datetime.now(UTC) + ahead, environ)
        door = heroku_door(HerokuConfig(), environ)
        yield from_flags(place.flags(), Means(bare.now, bare.deadline, bare.step, environ, door))


@contextmanager
def _all_of_tomorrow(stage: Stage) -> Iterator[Gathered]:
    """Our certificate and the server's were made an hour from now, by our clock."""
    own = OwnAuthority.make(stage.folder)
    later = datetime.now(UTC) + timedelta(hours=1)
    own.issue("reporting", now=later)
    with listening(echoing(own.server_context(begins=later))) as port:
        own.configure(port)
        yield from_file(own.file, (), means())


FAULTS: tuple[Fault, ...] = (
    Fault(
        "revoked-by-list",
        "A revoked certificate, by the list that the server reads",
        Code.CERTIFICATE_REVOKED,
        by_flags(_revoked),
        also=frozenset({Code.TLS_CLIENT_CERTIFICATE_REVOKED}),
        seen="client-ca.crl",
    ),
    Fault(
        "revoked-by-ledger",
        "A certificate that our own CA has revoked",
        Code.CERTIFICATE_REVOKED,
        partial(_stored, spoil=OwnAuthority.revoke),
        also=NOT_RUNNING,
        seen="ledger",
    ),
    Fault(
        "store-empty",
        "An identity of the store for which no certificate was issued yet",
        Code.NOTHING_STORED,
        partial(_stored, spoil=_nothing, issued=False),
        also=NOT_RUNNING,
        seen="no certificate has been issued yet",
    ),
    Fault(
        "store-dangling",
        "The link of the store leads to a version that is gone",
        Code.STORE_DAMAGED,
        partial(_stored, spoil=OwnAuthority.lose_version),
        also=NOT_RUNNING,
        seen="versions/0001",
    ),
    Fault(
        "clock-behind",
        "This host's clock is five days behind",
        Code.CLOCK_WRONG,
        partial(_by_api, ahead=-5 * DAY),
        seen="behind that of Heroku's data API",
        also=frozenset({Code.CERTIFICATE_NOT_YET_VALID, Code.TLS_SERVER_EXPIRED}),
    ),
    Fault(
        "clock-ahead",
        "This host's clock is 100 days ahead",
        Code.CLOCK_WRONG,
        partial(_by_api, ahead=100 * DAY),
        seen="ahead of that of Heroku's data API",
        also=frozenset({Code.CERTIFICATE_EXPIRED, Code.TLS_SERVER_EXPIRED}),
    ),
    Fault(
        "clock-drifts",
        "This host's clock is three minutes ahead",
        Code.CLOCK_DRIFTS,
        partial(_by_api, ahead=timedelta(minutes=3)),
        verdict=Verdict.WARN,
        seen="minutes ahead of",
    ),
    Fault(
        "clock-behind-certificates",
        "This host's clock is behind, and certificates alone show it",
        Code.CLOCK_WRONG,
        _all_of_tomorrow,
        seen="seems to be behind",
        also=frozenset({Code.TLS_SERVER_EXPIRED, Code.CERTIFICATE_NOT_YET_VALID}) | NOT_RUNNING,
    ),
)
