"""One Kafka connection, both directions: whoever moves its bytes asks here what to move.

Theory of operation
===================
A `KafkaSession` sees every byte of a client and of the broker behind it, from the first one on. Nearly all of them it
only counts. What it changes, and why:

* **Responses that name brokers** (`tables.TABLES`) are held until they are whole, their addresses replaced by what
  `resolve` says, and passed on. `resolve` is called before the first byte of such a response leaves, so a listener that
  it opens is there before the client can know of it.
* **ApiVersions responses** are capped (`capping`), so that client and broker agree on versions that we can read. A
  client that asks for more all the same, not having negotiated, is refused: its answer could carry an address.
* **ApiVersions requests newer than 4** never reach the broker; the session answers "unsupported, try 0 to 4" itself.
  From version 5 on they name the node that the client believes to reach, by what we told it.
* **Responses that say what the cluster refuses** are looked at for it (`denials`), where the owner wants to know, and
  changed in nothing. So are FindCoordinator requests of a kind whose responses do not repeat the question.
* **SaslHandshake version 0** is refused: what follows it are tokens without a frame's header. Version 1, with
  SaslAuthenticate, passes like anything else.

**Turns.** A broker answers in the order of the requests, and clients rely on it. So the requests wait in a queue
(`inflight`) and the answers of our own wait among them: one is given when all responses before it have been passed on
to their last byte, and never in the middle of another. A Produce request with `acks` = 0 is not in the queue: it gets
no response (`acks`), and a broker's that gives one all the same is dropped.

**The contract with the owner**, who calls from one thread:

* Each call of `receive_from_client` and `receive_from_server` returns `Moves`: what to send to the server and what to
  send to the client *now*, each in this order, behind all that earlier calls returned. A request may cause bytes for
  the client (an answer of our own); a response never causes any for the server.
* A piece may be a range of the buffer that was given. It is valid as long as the owner leaves that buffer alone: send
  it, or copy what is left, before reading into the buffer again. Every other piece is the owner's to keep. There are no
  empty pieces.
* While `client_may_send` is false, do not read the client: too many of its requests wait already. It becomes true as
  the broker answers.
* An error ends the connection. It is a ClientProtocolError or an UpstreamProtocolError, or the MtlskitError that
  `resolve` raised; the bytes of the call that raised are lost, and every further call raises the same again.
* An end of either stream is the owner's business: nothing is kept here that could be of use to anybody. `quiet` says
  whether the connection could be closed with nothing under way.

What a session keeps is bounded: `MAX_HELD` for a response, 128 KiB for the front of a Produce request, 65,536 requests
in flight, the names that the first 64 of them ask for, and 4,096 correlation ids of requests that get no response.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from mtlskit.errors import ClientProtocolError, Code, MtlskitError
from mtlskit.wire.kafka import capping, denials, walker
from mtlskit.wire.kafka.acks import AcksReader
from mtlskit.wire.kafka.advertised import Advertised, Listed, Notice, Resolve, unheard
from mtlskit.wire.kafka.frames import MAX_HELD, REQUESTS, RESPONSES, Fate, FrameReader
from mtlskit.wire.kafka.inflight import ENOUGH_IN_FLIGHT, InFlight, Waiting
from mtlskit.wire.kafka.primitives import Buffer
from mtlskit.wire.kafka.tables import (
    API_VERSIONS,
    FIND_COORDINATOR,
    METADATA,
    NAMES,
    NEWEST,
    PRODUCE,
    SASL_HANDSHAKE,
    TABLES,
    WITHHELD,
)

__all__ = ["KafkaSession", "Moves"]

_REQUEST: Final = struct.Struct("!hhi")  # api key, version, correlation id: the same in all request headers
_CORRELATION_ID: Final = struct.Struct("!i")
_SPECIAL: Final = NEWEST.keys() | WITHHELD | {SASL_HANDSHAKE}
_NO_PIECES: Final = ()

_POSTGRES_STARTUP: Final = (METADATA, 0, int.from_bytes(b"user"))
"""As which PostgreSQL's StartupMessage reads: version 3.0, and the name of its first parameter."""


class Moves(NamedTuple):
    """What to send now, in this order."""

    to_server: Sequence[Buffer]
    to_client: Sequence[Buffer]


class KafkaSession:
    """The codec of one connection. See the module for the contract.

    `resolve` gives the address that stands for a node (`advertised.Resolve`), `notice` hears of addresses that were
    withheld, `denied` of topics and groups that the cluster refuses, `listed` of which brokers there are, `max_held`
    bounds a response that is rewritten, in bytes. Where `denied` is None, nothing is looked for.
    """

    __slots__ = (
        *("_acks", "_client", "_denied", "_error", "_flight", "_listed", "_notice", "_resolve", "_server", "_turn"),
    )

    def __init__(
        self,
        resolve: Resolve,
        *,
        notice: Notice = unheard,
        denied: denials.Hear | None = None,
        listed: Listed | None = None,
        max_held: int = MAX_HELD,
    ) -> None:
        self._resolve = resolve
        self._notice = notice
        self._denied = denied
        self._listed = listed
        self._flight = InFlight()
        self._client = FrameReader(REQUESTS, self._request)
        self._server = FrameReader(
            RESPONSES, self._response, rewrite=self._rewritten, between=self._flight.answers, max_held=max_held
        )
        self._acks: AcksReader | None = None
        """Reads the Produce request that is coming, once a first part of it has come."""
        self._turn = Waiting(0, 0, 0)
        """The request whose response is on its way, or was the last."""
        self._error: MtlskitError | None = None

    @property
    def client_may_send(self) -> bool:
        """The client is to be read. False while `ENOUGH_IN_FLIGHT` requests wait for the broker."""
        return len(self._flight) < ENOUGH_IN_FLIGHT

    @property
    def in_flight(self) -> int:
        """Requests that wait for a response."""
        return len(self._flight)

    @property
    def quiet(self) -> bool:
        """Nothing is under way in either direction. A consumer's connection, with a Fetch always waiting, never is."""
        return not self._flight and self._client.blank and self._server.blank

    def receive_from_client(self, data: Buffer) -> Moves:
        """What to send for bytes that the client sent. Raises ClientProtocolError for what cannot be passed."""
        requests = self._do(self._client.receive, data)
        if not self._server.inside and (answers := self._flight.answers()):
            return Moves(requests, (answers,))
        return Moves(requests, _NO_PIECES)

    def receive_from_server(self, data: Buffer) -> Moves:
        """What to send for bytes that the broker sent. Raises UpstreamProtocolError, and what `resolve` raises."""
        return Moves(_NO_PIECES, self._do(self._server.receive, data))

    def _do(self, receive: Callable[[Buffer], list[Buffer]], data: Buffer) -> list[Buffer]:
        if self._error is not None:
            raise self._error
        try:
            return receive(data)
        except MtlskitError as exc:
            self._error = exc
            raise

    def _request(self, buffer: Buffer, at: int, size: int) -> Fate:
        """A request has come, or more of one whose `acks` could not be seen yet."""
        api_key, version, correlation_id = _REQUEST.unpack_from(buffer, at)
        if api_key < 0 or version < 0:
            raise ClientProtocolError(
                Code.KAFKA_CLIENT_RUBBISH,
                f"the client sent what is no Kafka request: api key {api_key} in version {version}",
                "check what connects to this port",
            )
        answer, key = b"", ""
        if api_key in _SPECIAL:
            if (api_key, version, correlation_id) == _POSTGRES_STARTUP:
                raise ClientProtocolError(
                    Code.KAFKA_CLIENT_RUBBISH,
                    "the client speaks PostgreSQL to a Kafka port",
                    "the client has the wrong port: connect it to a tunnel of kind postgres",
                )
            if api_key == API_VERSIONS and version > NEWEST[API_VERSIONS]:
                answer = capping.unsupported(correlation_id, NEWEST[API_VERSIONS])
            else:
                _check(api_key, version)
            if api_key == PRODUCE:
                acks = self._acks_of(version, buffer, at, size)
                if acks is None:
                    return Fate.MORE
                if acks == 0:
                    self._flight.add_silent(correlation_id)
                    return Fate.PASS
            elif api_key == FIND_COORDINATOR and self._denied and len(self._flight) < denials.MAX_KEYS:
                asked = denials.key_asked_for(buffer, at, size, version)
                if asked is None:
                    return Fate.MORE
                key = asked
        self._flight.add(Waiting(correlation_id, api_key, version, answer, key))
        return Fate.DROP if answer else Fate.PASS

    def _acks_of(self, version: int, buffer: Buffer, at: int, size: int) -> int | None:
        """The `acks` of a Produce request; None where more of it is needed."""
        reader = self._acks or AcksReader(version, size)
        acks = reader.acks(buffer, at)
        if acks is not None:
            self._acks = None
        elif isinstance(buffer, bytearray):
            self._acks = reader  # the same buffer grows, so the reader goes on where it is
        return acks

    def _response(self, buffer: Buffer, at: int, _size: int) -> Fate:
        """A response has begun."""
        (correlation_id,) = _CORRELATION_ID.unpack_from(buffer, at)
        turn = self._flight.answered(correlation_id)
        if turn is None:
            return Fate.DROP
        self._turn = turn
        if turn.api_key == API_VERSIONS:
            return Fate.HOLD
        table = TABLES.get(turn.api_key)
        return Fate.HOLD if table is not None and turn.version >= table.since else Fate.PASS

    def _rewritten(self, frame: memoryview) -> list[Buffer]:
        turn = self._turn
        if turn.api_key == API_VERSIONS:
            return capping.capped(frame, 0, len(frame), turn.version)
        advertised = Advertised(self._resolve, self._notice)
        pieces = walker.rewrite(frame, 0, len(frame), turn.api_key, turn.version, advertised)
        if self._listed and turn.api_key == METADATA:
            self._listed(advertised.nodes)
        if self._denied and turn.api_key in denials.LOOKED_AT:
            denials.look(frame, 0, len(frame), turn.api_key, turn.version, self._denied, turn.key)
        return pieces


def _check(api_key: int, version: int) -> None:
    """Raises ClientProtocolError for a request that must not be passed."""
    if api_key == SASL_HANDSHAKE:
        if version == 0:
            raise ClientProtocolError(
                Code.KAFKA_SASL_V0,
                "the client uses SaslHandshake version 0, after which its tokens come without a frame's header",
                "use a client from Kafka 1.0 or later, which sends SaslHandshake version 1 and SaslAuthenticate",
            )
    elif version > NEWEST.get(api_key, -1):
        newest = f"its versions up to {NEWEST[api_key]}" if api_key in NEWEST else "none of its versions"
        raise ClientProtocolError(
            Code.KAFKA_CLIENT_VERSION,
            f"the client sent {NAMES[api_key]} (api key {api_key}) in version {version}, the tunnel offers {newest}",
            "a client that asks which versions there are (ApiVersions) keeps to them: let it negotiate",
        )
