"""One root for every error that a person may see: a code, a sentence for what happened, a hint for what to do.

The classes say whose fault it was, because that decides who is told and how: a `ConfigError` ends the command with
status 2 before anything has started, an `UpstreamError` becomes an ErrorResponse to the client that was waiting, a
`ClientError` closes one client and nothing else. Foreign exceptions (`OSError`, `ssl.SSLError`, `ValueError`) are
mapped to these once, at the boundary where they arise, with ``raise … from exc``.

The sentence stands on one line, names the file, field or peer, and never holds a secret. Each code has a section in
``docs/reference/errors.md``, which a test keeps complete.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

__all__ = [
    "AllowlistError",
    "ClientError",
    "ClientLimitReached",
    "ClientNotAllowed",
    "ClientProtocolError",
    "ClientTooSlow",
    "Code",
    "ConfigError",
    "ControlError",
    "DoctorError",
    "HerokuError",
    "IdentityError",
    "ListenError",
    "MtlskitError",
    "RotationError",
    "SandboxError",
    "StoreError",
    "UpstreamError",
    "UpstreamLost",
    "UpstreamProtocolError",
    "UpstreamRefusedUs",
    "UpstreamTimeout",
    "UpstreamUnreachable",
    "UpstreamUntrusted",
]


class Code(StrEnum):
    """The stable name of an error. Scripts may match on it; sentences may change."""

    # Configuration and usage.
    CONFIG_NOT_FOUND = "MTLS-CFG-001"
    CONFIG_UNREADABLE = "MTLS-CFG-002"
    CONFIG_SYNTAX = "MTLS-CFG-003"
    CONFIG_UNKNOWN_KEY = "MTLS-CFG-004"
    CONFIG_BAD_VALUE = "MTLS-CFG-005"
    CONFIG_MISSING_KEY = "MTLS-CFG-006"
    CONFIG_DUPLICATE_LISTENER = "MTLS-CFG-007"
    CONFIG_OPEN_DOOR = "MTLS-CFG-008"
    CONFIG_UNKNOWN_NAME = "MTLS-CFG-009"
    CONFIG_MISSING_VARIABLE = "MTLS-CFG-010"
    CONFIG_NOT_SUPPORTED = "MTLS-CFG-011"
    USAGE = "MTLS-CFG-012"
    NO_TUNNEL_STARTED = "MTLS-CFG-013"

    # Keys, certificates and trust anchors on disk.
    FILE_MISSING = "MTLS-ID-001"
    FILE_UNREADABLE = "MTLS-ID-002"
    PEM_WRONG_KIND = "MTLS-ID-003"
    PEM_DAMAGED = "MTLS-ID-004"
    PEM_TOO_LARGE = "MTLS-ID-005"
    KEY_MISMATCH = "MTLS-ID-006"
    CERTIFICATE_EXPIRED = "MTLS-ID-007"
    CERTIFICATE_NOT_YET_VALID = "MTLS-ID-008"
    CERTIFICATE_NOT_FOR_CLIENTS = "MTLS-ID-009"
    KEY_ENCRYPTED = "MTLS-ID-010"
    KEY_PASSPHRASE_WRONG = "MTLS-ID-011"  # noqa: S105 - the name of an error, no secret
    KEY_WEAK = "MTLS-ID-012"
    KEY_EXPOSED = "MTLS-ID-013"
    OPENSSL_REFUSED = "MTLS-ID-014"
    REQUEST_NOT_SIGNED = "MTLS-ID-015"
    FILE_EXISTS = "MTLS-ID-016"
    FILE_UNWRITABLE = "MTLS-ID-017"
    KEY_TOO_COSTLY = "MTLS-ID-018"
    SIGNATURE_WEAK = "MTLS-ID-019"
    CERTIFICATE_ENDS_SOON = "MTLS-ID-020"
    CHAIN_INCOMPLETE = "MTLS-ID-021"
    CERTIFICATE_REVOKED = "MTLS-ID-022"

    # This host's clock.
    CLOCK_WRONG = "MTLS-CLK-001"
    CLOCK_DRIFTS = "MTLS-CLK-002"

    # Our own listeners.
    LISTEN_PORT_IN_USE = "MTLS-LSN-001"
    LISTEN_NOT_OUR_ADDRESS = "MTLS-LSN-002"
    LISTEN_DENIED = "MTLS-LSN-003"
    LISTEN_UNIX_PATH = "MTLS-LSN-004"
    LISTEN_FAILED = "MTLS-LSN-005"

    # Reaching the upstream: DNS and TCP.
    DNS_FAILED = "MTLS-NET-001"
    TCP_REFUSED = "MTLS-NET-002"
    TCP_TIMEOUT = "MTLS-NET-003"
    TCP_UNREACHABLE = "MTLS-NET-004"
    TCP_RESET = "MTLS-NET-005"
    UPSTREAM_CLOSED = "MTLS-NET-006"
    DNS_ODD_ADDRESS = "MTLS-NET-007"
    TCP_PARTLY = "MTLS-NET-008"
    NET_SLOW = "MTLS-NET-009"
    NET_NO_ROUTE_OUT = "MTLS-NET-010"

    # TLS with the upstream.
    TLS_NOT_OFFERED = "MTLS-TLS-001"
    TLS_BYTES_AFTER_ANSWER = "MTLS-TLS-002"
    TLS_UNKNOWN_ANSWER = "MTLS-TLS-003"
    TLS_CHAIN_NOT_TRUSTED = "MTLS-TLS-004"
    TLS_NAME_MISMATCH = "MTLS-TLS-005"
    TLS_SERVER_EXPIRED = "MTLS-TLS-006"
    TLS_PIN_MISMATCH = "MTLS-TLS-007"
    TLS_CLIENT_CERTIFICATE_REFUSED = "MTLS-TLS-008"
    TLS_CLIENT_CERTIFICATE_REQUIRED = "MTLS-TLS-009"
    TLS_CLIENT_CA_UNKNOWN = "MTLS-TLS-010"
    TLS_CLIENT_CERTIFICATE_EXPIRED = "MTLS-TLS-011"
    TLS_CLIENT_CERTIFICATE_REVOKED = "MTLS-TLS-012"
    TLS_VERSION = "MTLS-TLS-013"
    TLS_HANDSHAKE_FAILED = "MTLS-TLS-014"
    TLS_TIMEOUT = "MTLS-TLS-015"
    TLS_ALPN = "MTLS-TLS-016"
    TLS_BROKEN = "MTLS-TLS-017"
    TLS_SERVER_ENDS_SOON = "MTLS-TLS-018"
    TLS_OLD_VERSIONS = "MTLS-TLS-019"
    TLS_NO_CERTIFICATE_ASKED = "MTLS-TLS-020"
    TLS_OTHER_CA_ASKED = "MTLS-TLS-021"
    TLS_SERVER_WEAK = "MTLS-TLS-022"
    TLS_SERVER_CHAIN_INCOMPLETE = "MTLS-TLS-023"
    TLS_SERVER_CERTIFICATE_REVOKED = "MTLS-TLS-024"

    # The Postgres protocol, either side.
    PG_STARTUP_TOO_LONG = "MTLS-PG-001"
    PG_CLIENT_SPEAKS_TLS = "MTLS-PG-002"
    PG_CLIENT_SPEAKS_HTTP = "MTLS-PG-003"
    PG_CLIENT_RUBBISH = "MTLS-PG-004"
    PG_CLIENT_VERSION = "MTLS-PG-005"
    PG_CLIENT_TOO_SLOW = "MTLS-PG-006"
    PG_CLIENT_TOO_MANY_NEGOTIATIONS = "MTLS-PG-007"
    PG_SERVER_RUBBISH = "MTLS-PG-008"
    PG_ONLY_CHANNEL_BINDING = "MTLS-PG-009"
    PG_LOGIN_TIMEOUT = "MTLS-PG-010"
    PG_CANCEL_BUSY = "MTLS-PG-011"
    PG_LOGIN_METHOD = "MTLS-PG-012"
    PG_SERVER_UNPROVEN = "MTLS-PG-013"
    PG_LOGIN_REFUSED = "MTLS-PG-014"
    PG_NO_DATABASE = "MTLS-PG-015"
    PG_NOT_LET_IN = "MTLS-PG-016"
    PG_FULL = "MTLS-PG-017"
    PG_NOT_READY = "MTLS-PG-018"
    PG_NEARLY_FULL = "MTLS-PG-019"
    PG_CERTIFICATE_UNUSED = "MTLS-PG-020"
    PG_WEAK_LOGIN = "MTLS-PG-021"
    PG_QUERY_FAILED = "MTLS-PG-022"
    PG_STANDBY = "MTLS-PG-023"

    # The Kafka protocol, either side.
    KAFKA_CLIENT_SPEAKS_TLS = "MTLS-KFK-001"
    KAFKA_CLIENT_SPEAKS_HTTP = "MTLS-KFK-002"
    KAFKA_CLIENT_RUBBISH = "MTLS-KFK-003"
    KAFKA_CLIENT_VERSION = "MTLS-KFK-004"
    KAFKA_CLIENT_FLOODS = "MTLS-KFK-005"
    KAFKA_SASL_V0 = "MTLS-KFK-006"
    KAFKA_SERVER_SPEAKS_TLS = "MTLS-KFK-007"
    KAFKA_SERVER_RUBBISH = "MTLS-KFK-008"
    KAFKA_RESPONSE_TOO_LARGE = "MTLS-KFK-009"
    KAFKA_CONTROLLERS = "MTLS-KFK-010"
    KAFKA_NO_LISTENER = "MTLS-KFK-011"
    KAFKA_BROKER_UNREACHABLE = "MTLS-KFK-012"
    KAFKA_ODD_ADDRESS = "MTLS-KFK-013"
    KAFKA_NOT_AUTHORIZED = "MTLS-KFK-014"
    KAFKA_WRITE_FAILED = "MTLS-KFK-015"
    KAFKA_WANTS_LOGIN = "MTLS-KFK-016"
    KAFKA_PLAIN = "MTLS-KFK-017"
    KAFKA_NO_LEADER = "MTLS-KFK-018"
    KAFKA_OTHER_CLUSTER = "MTLS-KFK-019"

    # The front door.
    DOOR_ADDRESS = "MTLS-DOOR-001"
    DOOR_USER = "MTLS-DOOR-002"
    DOOR_USER_UNKNOWN = "MTLS-DOOR-003"
    DOOR_FULL = "MTLS-DOOR-004"
    DOOR_DRAINING = "MTLS-DOOR-005"
    DOOR_CERTIFICATE_ENDS = "MTLS-DOOR-006"

    # The store of identities, and rotation.
    STORE_UNUSABLE = "MTLS-ROT-001"
    STORE_BUSY = "MTLS-ROT-002"
    STORE_DAMAGED = "MTLS-ROT-003"
    NOTHING_STORED = "MTLS-ROT-004"
    ISSUER_FAILED = "MTLS-ROT-005"
    ISSUER_MISSING = "MTLS-ROT-006"
    ISSUED_WRONG = "MTLS-ROT-007"
    PROOF_FAILED = "MTLS-ROT-008"
    NOT_SERVED = "MTLS-ROT-009"
    HOOK_FAILED = "MTLS-ROT-010"
    ROTATION_REFUSED = "MTLS-ROT-011"

    # The control socket of a running proxy.
    CTL_FOLDER = "MTLS-CTL-001"
    CTL_SOCKET = "MTLS-CTL-002"
    CTL_REQUEST = "MTLS-CTL-003"
    CTL_NOT_ALLOWED = "MTLS-CTL-004"
    CTL_NO_ANSWER = "MTLS-CTL-005"
    CTL_NO_PROXY = "MTLS-CTL-006"
    CTL_BUSY = "MTLS-CTL-007"
    CTL_STOPPING = "MTLS-CTL-008"

    # The local side, as the doctor sees it.
    LOCAL_NOT_RUNNING = "MTLS-LCL-001"
    LOCAL_PORT_TAKEN = "MTLS-LCL-002"
    LOCAL_OLD_IDENTITY = "MTLS-LCL-003"
    LOCAL_OLD_CONFIG = "MTLS-LCL-004"
    LOCAL_TUNNEL_FAILED = "MTLS-LCL-005"
    LOCAL_DOOR_CLOSED = "MTLS-LCL-006"
    LOCAL_CLIENT_INSISTS = "MTLS-LCL-007"
    LOCAL_OTHER_VERSION = "MTLS-LCL-008"
    LOCAL_SILENT = "MTLS-LCL-009"

    # The small CA.
    CA_FOLDER_MISSING = "MTLS-CA-001"
    CA_FOLDER_TAKEN = "MTLS-CA-002"
    CA_REQUEST_REFUSED = "MTLS-CA-003"
    CA_UNKNOWN_SERIAL = "MTLS-CA-004"
    CA_OUT_OF_DATE = "MTLS-CA-005"

    # Heroku's APIs.
    API_NO_TOKEN = "MTLS-API-001"  # noqa: S105 - the name of an error, no secret
    API_TOKEN_REFUSED = "MTLS-API-002"  # noqa: S105
    API_FORBIDDEN = "MTLS-API-003"
    API_TWO_FACTOR = "MTLS-API-004"
    API_NOT_FOUND = "MTLS-API-005"
    API_NO_MTLS = "MTLS-API-006"
    API_REFUSED = "MTLS-API-007"
    API_BUSY = "MTLS-API-008"
    API_FAILED = "MTLS-API-009"
    API_UNREACHABLE = "MTLS-API-010"
    API_RUBBISH = "MTLS-API-011"
    API_WAIT_OVER = "MTLS-API-012"
    API_HOST = "MTLS-API-013"
    API_NOT_ENABLED = "MTLS-API-014"
    API_UNCERTAIN = "MTLS-API-015"
    API_ENDPOINT_DOWN = "MTLS-API-016"
    API_CERTIFICATE_GONE = "MTLS-API-017"
    API_KEY_REVOKED = "MTLS-API-018"
    API_NOT_LOOKED = "MTLS-API-019"

    # The allowlist.
    ALLOW_BAD_CIDR = "MTLS-ALW-001"
    ALLOW_TOO_WIDE = "MTLS-ALW-002"
    ALLOW_IPV6 = "MTLS-ALW-003"
    ALLOW_PRIVATE = "MTLS-ALW-004"
    ALLOW_FULL = "MTLS-ALW-005"
    ALLOW_LOCKOUT = "MTLS-ALW-006"
    ALLOW_NOT_SEEN = "MTLS-ALW-007"
    ALLOW_SOURCE = "MTLS-ALW-008"
    ALLOW_MY_IP_UNKNOWN = "MTLS-ALW-009"
    ALLOW_MY_IP_DISAGREE = "MTLS-ALW-010"
    ALLOW_NO_RULE = "MTLS-ALW-011"
    ALLOW_UNFINISHED = "MTLS-ALW-012"
    ALLOW_NOT_LET_IN = "MTLS-ALW-013"
    ALLOW_PENDING = "MTLS-ALW-014"

    # The doctor itself.
    DOCTOR_CHECK_BROKE = "MTLS-DOC-001"
    DOCTOR_NOT_UNDERSTOOD = "MTLS-DOC-002"
    DOCTOR_UNWRITABLE = "MTLS-DOC-003"

    # The sandbox and the demo.
    SANDBOX_EXTRA_MISSING = "MTLS-SBX-001"
    SANDBOX_DIR = "MTLS-SBX-002"
    SANDBOX_POSTGRES = "MTLS-SBX-003"
    SANDBOX_GATEWAY = "MTLS-SBX-004"
    DEMO_STEP_FAILED = "MTLS-SBX-005"
    SANDBOX_KAFKA = "MTLS-SBX-006"


class MtlskitError(Exception):
    """The root. `sentence` says what happened, `hint` what to do next (may be empty), `code` is stable."""

    exit_status: ClassVar[int] = 1

    def __init__(self, code: Code, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.sentence} [{self.code}]"


class ConfigError(MtlskitError):
    """A flag, a variable or a line of the configuration file is wrong. Nothing has started."""

    exit_status = 2


class IdentityError(MtlskitError):
    """A key, certificate or trust anchor cannot be used."""

    exit_status = 2


class ControlError(MtlskitError):
    """A running proxy cannot be asked, or does not do what it was asked."""


class ListenError(MtlskitError):
    """A listener of ours cannot be opened."""

    exit_status = 2


class UpstreamError(MtlskitError):
    """The far side cannot be reached or used; the subclasses say how."""


class UpstreamUnreachable(UpstreamError):
    """No TCP connection: DNS, refused, no route."""


class UpstreamTimeout(UpstreamError):
    """A deadline ran out while dialling, in the handshake, or before the login was done."""


class UpstreamUntrusted(UpstreamError):
    """We refuse the server: its chain, its name or its pin is not what the configuration demands."""


class UpstreamRefusedUs(UpstreamError):
    """The server refuses us: a TLS alert about our certificate, or no TLS at all."""


class UpstreamProtocolError(UpstreamError):
    """The server sent what the protocol does not allow."""


class UpstreamLost(UpstreamError):
    """The connection ended before the session was established."""


class ClientError(MtlskitError):
    """One client's fault; the others do not notice."""


class ClientProtocolError(ClientError):
    """The client sent what the protocol does not allow."""


class ClientNotAllowed(ClientError):
    """The front door refuses this client."""


class ClientTooSlow(ClientError):
    """The client did not finish its start-up packet in time."""


class ClientLimitReached(ClientError):
    """The tunnel is full, or draining, or drains the sessions of a certificate that ends."""


class StoreError(MtlskitError):
    """The store of identities cannot be read or written, or another process holds it."""


class RotationError(MtlskitError):
    """An identity could not be issued or replaced; the pair that was there goes on serving."""


class HerokuError(MtlskitError):
    """Heroku's API cannot be asked, or says no. `request_id` is what Heroku's support asks for; empty where none came.

    `status` is the HTTP status that it answered with, None without an answer.
    """

    def __init__(
        self, code: Code, sentence: str, hint: str = "", *, status: int | None = None, request_id: str = ""
    ) -> None:
        super().__init__(code, sentence, hint)
        self.status = status
        self.request_id = request_id


class AllowlistError(MtlskitError):
    """A change of the allowlist is refused by us, or could not be finished."""


class DoctorError(MtlskitError):
    """The doctor cannot say what it was asked, or cannot write it down."""


class SandboxError(MtlskitError):
    """The sandbox cannot start or go on."""
