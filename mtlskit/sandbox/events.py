"""What happens in the sandbox, as events."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mtlskit.telemetry import Event, Level

__all__ = [
    "AddressRefused",
    "ApiReady",
    "BrokerStarted",
    "BrokerStopped",
    "CancelForwarded",
    "CertificateRevoked",
    "ChannelBindingVerified",
    "ClientAdmitted",
    "ClientRefused",
    "GatewayReady",
    "KafkaAbsent",
    "KafkaClientAdmitted",
    "KafkaLost",
    "KafkaReady",
    "LeaderMoved",
    "OtherServerUsed",
    "OwnDataLeftAside",
    "PasswordChanged",
    "PostgresStarted",
    "PostgresStopped",
    "SandboxReady",
    "SandboxStopped",
    "SessionClosed",
    "UpstreamFailed",
]


@dataclass(frozen=True, kw_only=True)
class PostgresStarted(Event):
    """The sandbox's PostgreSQL accepts connections on a unix socket."""

    process_id: int
    socket: str

    def sentence(self) -> str:
        return f"PostgreSQL is ready on {self.socket} (process {self.process_id})"


@dataclass(frozen=True, kw_only=True)
class PostgresStopped(Event):
    """The sandbox's PostgreSQL has ended, with all its processes."""

    process_id: int

    def sentence(self) -> str:
        return f"PostgreSQL has stopped (process {self.process_id})"


@dataclass(frozen=True, kw_only=True)
class OtherServerUsed(Event):
    """Behind the gateway is a server of the user's own. `source` is where it was named, `server` has no password."""

    server: str
    source: str

    def sentence(self) -> str:
        return f"behind the gateway is {self.server}, named by {self.source}, and no PostgreSQL of the sandbox's own"


@dataclass(frozen=True, kw_only=True)
class OwnDataLeftAside(Event):
    """The folder holds data of a PostgreSQL of the sandbox's own, and another server is behind the gateway."""

    level: ClassVar[Level] = Level.WARNING
    data: str
    source: str

    def sentence(self) -> str:
        undo = f"leave {self.source} out" if self.source.startswith("-") else f"unset {self.source}"
        return f"the sandbox's own data in {self.data} are not served; to serve them, {undo}"


@dataclass(frozen=True, kw_only=True)
class GatewayReady(Event):
    """The mTLS gateway accepts connections."""

    address: str

    def sentence(self) -> str:
        return f"the mTLS gateway is ready on {self.address}"


@dataclass(frozen=True, kw_only=True)
class KafkaReady(Event):
    """The Kafka brokers accept connections, each on an address of its own. `brokers`: those, separated by commas."""

    brokers: str

    def sentence(self) -> str:
        return f"the Kafka brokers are ready on {self.brokers}"


@dataclass(frozen=True, kw_only=True)
class KafkaAbsent(Event):
    """The sandbox has no Kafka brokers, because this machine lacks what they need."""

    level: ClassVar[Level] = Level.WARNING
    reason: str

    def sentence(self) -> str:
        return f"there are no Kafka brokers: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class KafkaLost(Event):
    """The process of the Kafka brokers has ended by itself. The rest of the sandbox goes on."""

    level: ClassVar[Level] = Level.ERROR
    status: int
    log: str

    def sentence(self) -> str:
        return f"the Kafka brokers are gone (status {self.status}): look into {self.log}, and start the sandbox again"


@dataclass(frozen=True, kw_only=True)
class KafkaClientAdmitted(Event):
    """A client has shown the Kafka add-on's certificate and passed the handshake. `serial` is hexadecimal."""

    peer: str
    broker: int
    serial: str

    def sentence(self) -> str:
        return f"{self.peer} came in to Kafka broker {self.broker} with the add-on's certificate (serial {self.serial})"


@dataclass(frozen=True, kw_only=True)
class LeaderMoved(Event):
    """A partition of the sandbox's Kafka has got another leader."""

    topic: str
    partition: int
    broker: int

    def sentence(self) -> str:
        return f"Kafka broker {self.broker} leads partition {self.partition} of {self.topic} now"


@dataclass(frozen=True, kw_only=True)
class BrokerStopped(Event):
    """A broker of the sandbox's Kafka was stopped by a call."""

    broker: int

    def sentence(self) -> str:
        return f"Kafka broker {self.broker} is down"


@dataclass(frozen=True, kw_only=True)
class BrokerStarted(Event):
    """A broker that was stopped takes connections again."""

    broker: int

    def sentence(self) -> str:
        return f"Kafka broker {self.broker} is up again"


@dataclass(frozen=True, kw_only=True)
class ApiReady(Event):
    """The sandbox answers in place of Heroku's data and platform API. `url` is the base of both."""

    url: str

    def sentence(self) -> str:
        return f"the API in place of Heroku's is ready on {self.url}"


@dataclass(frozen=True, kw_only=True)
class SandboxReady(Event):
    """Everything runs, and sandbox.json tells how to reach it."""

    file: str
    then: str = 'psql "$DATABASE_URL"'
    """What to type first."""

    def sentence(self) -> str:
        environment = shlex.quote(str(Path(self.file).with_name("sandbox.env")))
        return f"the sandbox is ready: {self.file}; in another terminal: . {environment} && {self.then}"


@dataclass(frozen=True, kw_only=True)
class SandboxStopped(Event):
    """A sandbox that was ready has stopped, and its files that tell how to reach it are gone."""

    directory: str

    def sentence(self) -> str:
        return f"the sandbox has stopped; to take it up again: --dir {shlex.quote(self.directory)}"


@dataclass(frozen=True, kw_only=True)
class ClientAdmitted(Event):
    """A client has shown a certificate of the space and passed the handshake. `serial` is hexadecimal."""

    peer: str
    subject: str
    serial: str
    tls: str

    def sentence(self) -> str:
        return f"{self.peer} came in with the certificate {self.subject} (serial {self.serial}, {self.tls})"


@dataclass(frozen=True, kw_only=True)
class AddressRefused(Event):
    """A client's address is let in by no IP rule. `answer`: what the client gets, `silence` or `a reset`."""

    level: ClassVar[Level] = Level.WARNING
    peer: str
    reason: str
    answer: str

    def sentence(self) -> str:
        return f"{self.peer} gets {self.answer}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class ClientRefused(Event):
    """A client was turned away: before TLS, in the handshake, or in its login as far as the gateway decides it."""

    level: ClassVar[Level] = Level.WARNING
    peer: str
    reason: str

    def sentence(self) -> str:
        return f"{self.peer} was refused: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class ChannelBindingVerified(Event):
    """A client logged in with SCRAM-SHA-256-PLUS, bound to this gateway's certificate."""

    peer: str
    user: str

    def sentence(self) -> str:
        return f"{self.peer} logged in as {self.user} with SCRAM-SHA-256-PLUS"


@dataclass(frozen=True, kw_only=True)
class CancelForwarded(Event):
    """A CancelRequest went to the server. Whether its key was right is known to the server only."""

    peer: str

    def sentence(self) -> str:
        return f"{self.peer} asked to cancel a query"


@dataclass(frozen=True, kw_only=True)
class UpstreamFailed(Event):
    """The server behind the gateway could not be reached, or broke off."""

    level: ClassVar[Level] = Level.ERROR
    peer: str
    reason: str

    def sentence(self) -> str:
        return f"{self.peer} could not be served: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class SessionClosed(Event):
    """A session that had been admitted is over."""

    level: ClassVar[Level] = Level.DEBUG
    peer: str

    def sentence(self) -> str:
        return f"the session of {self.peer} is over"


@dataclass(frozen=True, kw_only=True)
class CertificateRevoked(Event):
    """The space's CA has revoked a certificate; the gateway refuses it from now on. `serial` is hexadecimal."""

    serial: str

    def sentence(self) -> str:
        return f"the certificate with serial {self.serial} is revoked"


@dataclass(frozen=True, kw_only=True)
class PasswordChanged(Event):
    """A user's password was rotated: the old one is of no use any more, and sandbox.env holds the new one."""

    user: str

    def sentence(self) -> str:
        return f"the password of {self.user} has changed; load sandbox.env again"
