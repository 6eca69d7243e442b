"""The configuration as frozen values. Operator strings become these once, at start-up; nothing parses them again."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import TypeAlias

__all__ = [
    "FROM_FLAGS",
    "MOST_WARM",
    "AllowRule",
    "AllowlistConfig",
    "Endpoint",
    "ExpiringSessions",
    "HerokuConfig",
    "Hooks",
    "IdentityConfig",
    "IssuerConfig",
    "IssuerKind",
    "KafkaDoors",
    "ListenAddress",
    "Login",
    "MyIpConfig",
    "Negotiation",
    "Network",
    "ProxyConfig",
    "RenewBefore",
    "TcpAddress",
    "Timeouts",
    "TunnelConfig",
    "TunnelKind",
    "UnixAddress",
    "Verify",
    "VerifyMode",
]

Network: TypeAlias = IPv4Network | IPv6Network

FROM_FLAGS = "default"
"""The name of a tunnel that flags describe. In a file the name is free, so hints about it show both spellings."""

MOST_WARM = 100
"""Connections made in advance, of one tunnel and of all together: each costs the server a process that idles."""


class TunnelKind(StrEnum):
    """What a tunnel speaks."""

    POSTGRES = "postgres"
    KAFKA = "kafka"
    TCP = "tcp"


class Negotiation(StrEnum):
    """How a Postgres upstream begins TLS: after an SSLRequest, or at once with ALPN (PostgreSQL 17 and later)."""

    SSLREQUEST = "sslrequest"
    DIRECT = "direct"


class VerifyMode(StrEnum):
    """What is checked of the server's certificate beyond its chain, which is always checked."""

    FULL = "full"
    CA = "ca"
    NAME = "name"


@dataclass(frozen=True)
class Verify:
    """A verification mode; `name` is set with `VerifyMode.NAME` only."""

    mode: VerifyMode = VerifyMode.FULL
    name: str | None = None

    def __str__(self) -> str:
        return f"name:{self.name}" if self.mode is VerifyMode.NAME else self.mode.value


@dataclass(frozen=True)
class TcpAddress:
    """An address to listen on. `host` is an IP address or `localhost`, port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    """A unix socket to listen on. libpq finds it when its name is `.s.PGSQL.PORT`."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


ListenAddress: TypeAlias = TcpAddress | UnixAddress


@dataclass(frozen=True)
class Endpoint:
    """A host (name or IP address) and port to dial."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class IssuerKind(StrEnum):
    """Where an identity's certificates come from."""

    FILES = "files"
    """Somebody else puts them in place."""
    CA = "ca"
    """A CA of ours, in a folder (`mtlskit ca init`)."""
    CSR = "csr"
    """Somebody signs a request by hand, and `mtlskit certs import` brings the certificate back."""
    COMMAND = "command"
    """A program gets the request on its standard input and prints the certificate."""
    HEROKU = "heroku"
    """The data API makes key and certificate."""


@dataclass(frozen=True)
class IssuerConfig:
    """How an identity's certificates are had. What does not belong to the kind keeps its default."""

    kind: IssuerKind = IssuerKind.FILES
    subject: str | None = None
    """RFC 4514, as `mtlskit csr new --subject` takes it. None: CN=NAME."""
    san: tuple[str, ...] = ()
    """Each as `mtlskit csr new --san` takes it."""
    key_type: str = "ec-p256"
    ca_dir: Path | None = None
    ca_passphrase_file: Path | None = None
    """Where the key of that CA is encrypted."""
    lifetime: float | None = None
    """Seconds; of a certificate that our own CA signs. None: the CA's default."""
    command: tuple[str, ...] = ()
    command_timeout: float = 60.0
    addon: str | None = None
    addon_named_by: str = field(default="", compare=False)
    """Where `addon` is written, for errors about it."""


@dataclass(frozen=True)
class RenewBefore:
    """When a certificate is due: `seconds` before its end, or when only `share` of its life (0 to 1) is left."""

    seconds: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class IdentityConfig:
    """Where a client identity lives on disk. `ca` are the trust anchors for the server (None: the system's roots).

    For an identity that the store keeps, `cert` and `key` lie in the store's `NAME/current`.
    """

    name: str
    cert: Path
    key: Path
    ca: Path | None = None
    passphrase_file: Path | None = None
    issuer: IssuerConfig = IssuerConfig()
    renew_before: RenewBefore | None = None
    """None: 30 days before the end, or when a third of the life is left, whichever comes later."""
    revoke_old: bool = False
    """After a rotation, the certificate that was replaced is revoked."""


@dataclass(frozen=True)
class Hooks:
    """Programs (argv) to run around a rotation; empty: none. `timeout` in seconds."""

    before_switch: tuple[str, ...] = ()
    after_switch: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    timeout: float = 60.0


class ExpiringSessions(StrEnum):
    """What becomes of sessions whose client certificate is about to end."""

    KEEP = "keep"
    """They go on: PostgreSQL looks at a certificate in the handshake only."""
    DRAIN = "drain"
    """They are ended before, where nothing is in flight."""


class Login(StrEnum):
    """Who logs in to a Postgres upstream."""

    CLIENT = "client"
    """The client, with its own user and password; the proxy passes them on."""
    HEROKU = "heroku"
    """The proxy, as the add-on's credential says: whoever may use the door is let in."""


@dataclass(frozen=True)
class KafkaDoors:
    """Where clients of a Kafka tunnel find each broker: at an address of ours that follows from its node id."""

    advertised: str | None = None
    """The host that clients are told. None: the address at which they reached us."""
    first_port: int | None = None
    """Node N listens on `first_port` + N. None: the port after the tunnel's own; 0: the kernel chooses each of them,
    and they are others after a restart."""
    last_port: int = 65535
    """The highest port that a broker's listener may have, if `ports` does not name it."""
    first_address: IPv4Address | None = None
    """Node N listens on this loopback address + N instead, on the tunnel's own port."""
    ports: tuple[tuple[int, int], ...] = ()
    """Node ids with ports of their own."""


@dataclass(frozen=True)
class Timeouts:
    """Deadlines of a tunnel, in seconds. Every one is finite."""

    startup: float = 10.0
    """A client's start-up packet must be complete by then."""
    dial: float = 15.0
    """DNS, TCP, SSLRequest and TLS together, over all addresses."""
    login: float = 90.0
    """From StartupMessage to the first ReadyForQuery. Longer than PostgreSQL's own authentication_timeout (60 s), so
    that the server's own message reaches the client."""
    linger: float = 300.0
    """After one side has closed: how long the other may stay silent before the session is ended."""
    drain: float = 30.0
    """After SIGTERM: how long established sessions may go on."""


@dataclass(frozen=True)
class TunnelConfig:
    """One tunnel: a local door, an upstream behind mutual TLS, and the identity that opens it."""

    name: str
    kind: TunnelKind
    listen: ListenAddress
    upstream: tuple[Endpoint, ...]
    """Empty where `addon` says where to ask for it."""
    identity: IdentityConfig
    verify: Verify = Verify()
    verify_by_default: bool = False
    """Nobody has written it: it is what such an upstream needs."""
    negotiation: Negotiation = Negotiation.SSLREQUEST
    pins: tuple[bytes, ...] = ()
    """SHA-256 digests (32 bytes) of the server leaf's SubjectPublicKeyInfo; one must match, when any are given."""
    allow_clients: tuple[Network, ...] = ()
    """Who may connect, by address. Empty: loopback only (a wider bind is refused by the configuration)."""
    allow_users: tuple[str, ...] = ()
    """Local users (names or numeric ids) who may connect. Empty: any local user."""
    max_connections: int = 1000
    warm: int = 0
    """Upstream connections made in advance, at most. Postgres only."""
    addon: str | None = None
    """The add-on that says where to connect: `upstream = "heroku:ADDON"`. Postgres (its credential) and Kafka (the
    config vars of its app)."""
    addon_named_by: str = field(default="", compare=False)
    """Where `addon` is written, for errors about it."""
    credential: str = "default"
    """Which of the add-on's credentials. Postgres only."""
    login: Login = Login.CLIENT
    source: str | None = None
    """The local IP address that upstream connections start from; None: the system chooses."""
    expiring_sessions: ExpiringSessions = ExpiringSessions.KEEP
    """Postgres only."""
    kafka: KafkaDoors = KafkaDoors()
    """Kafka only."""
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True)
class AllowRule:
    """A range of addresses that shall be let in."""

    cidr: IPv4Network
    description: str


@dataclass(frozen=True)
class AllowlistConfig:
    """One `[allowlist.NAME]`: what shall be let in, at which add-ons."""

    name: str
    addons: tuple[str, ...]
    addons_named_by: str = field(default="", compare=False, kw_only=True)
    """Where `addons` is written, for errors about them."""
    rules: tuple[AllowRule, ...] = ()
    my_ip: bool = False
    """Let in the address that this host is seen with from outside."""
    rules_from: tuple[str, ...] = ()
    """Files (absolute paths) and https URLs of lists that others publish."""
    spaces: tuple[str, ...] = ()
    """Private Spaces whose stable outbound addresses are let in."""
    collapse: bool = False
    """Join ranges that lie side by side."""
    owner_id: str | None = None
    """The part after the slash of the owner's tag. None: one of this host's own, made when it is first needed."""


@dataclass(frozen=True)
class HerokuConfig:
    """Where Heroku's APIs are. None: as the environment says, then Heroku's own."""

    api_host: str | None = None
    data_host: str | None = None


@dataclass(frozen=True)
class MyIpConfig:
    """Who is asked for this host's external address, and from where."""

    services: tuple[str, ...] = ()
    """URLs that answer with the caller's address; none: the built-in ones."""
    source: str | None = None
    """The local IP address to ask from, on a host with several ways out."""


@dataclass(frozen=True)
class ProxyConfig:
    """All tunnels of one proxy process. `source` names the file, or None where flags described the only tunnel."""

    tunnels: tuple[TunnelConfig, ...]
    source: Path | None = None
    identities: tuple[IdentityConfig, ...] = ()
    """Every identity of the file, in its order, whether a tunnel uses it or not; and those that tunnels hold inline."""
    store: Path | None = None
    """The folder of the store: by default `identities` beside the file."""
    control: Path | None = None
    """The folder in which running proxies keep their control sockets. None: the user's default one."""
    hooks: Hooks = Hooks()
    allowlists: tuple[AllowlistConfig, ...] = ()
    heroku: HerokuConfig = HerokuConfig()
    my_ip: MyIpConfig = MyIpConfig()
