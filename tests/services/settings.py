"""How a test's PostgreSQL is set up: its options, and the configuration files that come of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.pki import Pair

# TLS and a client certificate for everyone; each role authenticates in its own way on top. `local` is the tests' own
# way in, as superuser: the socket's folder is closed to other users.
DEFAULT_HBA: tuple[str, ...] = (
    "local   all all           trust",
    "hostssl all md5user   all md5           clientcert=verify-ca",
    "hostssl all plain     all password      clientcert=verify-ca",
    "hostssl all trustuser all trust         clientcert=verify-ca",
    "hostssl all certuser  all cert          map=certificates",
    "hostssl all all       all scram-sha-256 clientcert=verify-ca",
)

# The name in the certificate on the left, the role it may be on the right: CN=client may be certuser too, so that one
# identity serves every role.
IDENT: tuple[str, ...] = ("certificates certuser certuser", "certificates client certuser")


@dataclass(frozen=True)
class ServerOptions:
    """What a test may want different.

    `certificate` is what the server presents (default: `Pki.server`); `client_ca` what it asks of clients (default:
    `Pki.client_ca`, with its CRL; another comes without one); `tls` false makes a server that answers SSLRequest with
    ``N`` (give it another `hba` then). `tls_min` and `tls_max` are PostgreSQL's names (``TLSv1.2``, ``TLSv1.3``; empty:
    no limit). `settings` are more lines of postgresql.conf and win over all others.
    """

    hba: tuple[str, ...] = DEFAULT_HBA
    ident: tuple[str, ...] = IDENT
    certificate: Pair | None = None
    client_ca: Path | None = None
    tls: bool = True
    tls_min: str = "TLSv1.2"
    tls_max: str = ""
    max_connections: int = 100
    settings: Mapping[str, str] = field(default_factory=dict)


def configuration(options: ServerOptions, *, addresses: tuple[str, ...], port: int, sockets: Path, tls: Path) -> str:
    """The whole postgresql.conf. Data is thrown away with the server, so nothing waits for the disk."""
    values: dict[str, str] = {
        "listen_addresses": ",".join(addresses),
        "port": str(port),
        "unix_socket_directories": str(sockets),
        "max_connections": str(options.max_connections),
        "ssl": "on" if options.tls else "off",
        "ssl_cert_file": str(tls / "server.crt"),
        "ssl_key_file": str(tls / "server.key"),
        "ssl_ca_file": str(tls / "client-ca.crt"),
        "ssl_crl_file": "" if options.client_ca else str(tls / "client-ca.crl"),
        "ssl_min_protocol_version": options.tls_min,
        "ssl_max_protocol_version": options.tls_max,
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "shared_buffers": "16MB",
        "max_wal_size": "256MB",
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_connections": "on",
        "log_disconnections": "on",
        "log_line_prefix": "%m [%p] %q%u@%d %h ",
        "lc_messages": "C",  # the log is read by tests
        "timezone": "UTC",
        "log_timezone": "UTC",
        **options.settings,
    }
    return "".join(f"{name} = '{_quoted(value)}'\n" for name, value in values.items())


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
