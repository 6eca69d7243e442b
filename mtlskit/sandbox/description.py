"""What a running space is, and how it tells: `sandbox.json` for programs, `sandbox.env` for a shell."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mtlskit.config.values import TcpAddress
from mtlskit.sandbox.account import Account
from mtlskit.sandbox.credentials import ClientIdentity, SpacePki
from mtlskit.sandbox.events import CertificateRevoked
from mtlskit.sandbox.folder import write_private
from mtlskit.sandbox.gateway import Gateway
from mtlskit.sandbox.kafka import SpaceKafka
from mtlskit.sandbox.postgres import PostgresServer
from mtlskit.sandbox.stand_in import StandIn

__all__ = ["APP", "Space"]

APP: Final = "sandbox"


@dataclass(frozen=True)
class Space:
    """A running space."""

    directory: Path
    file: Path
    env_file: Path
    gateway_address: TcpAddress
    api_address: TcpAddress
    addon: str
    kafka_addon: str
    api_key: str = field(repr=False)
    user: str
    database: str
    ca: Path
    client: ClientIdentity
    postgres: PostgresServer | None
    kafka: SpaceKafka | None
    """None: there are no brokers behind the Kafka add-on."""
    kafka_pair: tuple[Path, Path]
    """Where the Kafka add-on's certificate and its key are; they change when its credentials are rotated."""
    _account: Account = field(repr=False)
    _pki: SpacePki = field(repr=False)
    _gateway: Gateway = field(repr=False)
    _stand_in: StandIn = field(repr=False)

    @property
    def password(self) -> str:
        """The user's, as it is now: the API changes it."""
        return self._account.password

    @property
    def url(self) -> str:
        """The database through the gateway: a client certificate is needed."""
        return self._account.url(self.gateway_address)

    @property
    def direct_url(self) -> str:
        """The server itself, past the gateway."""
        return self._account.direct_url

    @property
    def api_url(self) -> str:
        """The base of both of Heroku's APIs, as the sandbox plays them."""
        return f"http://{self.api_address}"

    @property
    def echo_urls(self) -> tuple[str, ...]:
        """Services that tell a client the address that the space sees it come from."""
        return tuple(f"{self.api_url}/echo/{name}" for name in ("a", "b", "c"))

    def new_client_identity(self, common_name: str) -> ClientIdentity:
        """Issues another client certificate. Blocks for milliseconds. Raises ValueError for an impossible name."""
        return self._pki.new_client(common_name, now=datetime.now(UTC))

    def revoke(self, serial: int) -> None:
        """Revokes a client certificate: new connections with it are refused, established ones go on as in PostgreSQL.

        Blocks for milliseconds. It must be called in trio's thread.
        """
        self._pki.revoke(f"{serial:x}", now=datetime.now(UTC))
        self._gateway.replace_tls(self._pki.server_tls())
        self._gateway.emit(CertificateRevoked(serial=f"{serial:x}"))

    def move(self, here: str, there: str) -> None:
        """From now on the space sees `there` where `here` connects, as `POST /sandbox/move` has it."""
        self._stand_in.move(here, there)

    def description(self) -> dict[str, Any]:
        """What `sandbox.json` holds."""
        return {
            "data_api": self.api_url,
            "platform_api": self.api_url,
            "api_key": self.api_key,
            "app": APP,
            "postgres": {"addon": self.addon, "url": self.url, "direct_url": self.direct_url},
            "pki": {
                "ca": str(self.ca),
                "ca_dir": str(self.ca.parent),
                "cert": str(self.client.cert),
                "key": str(self.client.key),
            },
            "kafka": {"addon": self.kafka_addon} | self._kafka_description(),
            "my_ip": list(self.echo_urls),
        }

    def _kafka_description(self) -> dict[str, Any]:
        if self.kafka is None:
            return {}
        cert, key = self.kafka_pair
        return {
            "url": self.kafka.url,
            "brokers": [{"id": node, "address": str(address)} for node, address in self.kafka.addresses.items()],
            "prefix": self.kafka.prefix,
            "ca": str(self.ca),
            "cert": str(cert),
            "key": str(key),
        }

    def environment(self) -> dict[str, str]:
        """What `sandbox.env` exports."""
        return {
            "MTLSKIT_SANDBOX": str(self.file),
            "MTLSKIT_SANDBOX_ADDON": self.addon,
            "MTLSKIT_SANDBOX_KAFKA": self.kafka_addon,
            "HEROKU_API_KEY": self.api_key,
            "HEROKU_HOST": self.api_url,
            "HEROKU_DATA_HOST": self.api_url,
            "MTLSKIT_MY_IP": ",".join(self.echo_urls),
            "DATABASE_URL": self.url,
            **self._kafka_environment(),
            "PGSSLROOTCERT": str(self.ca),
            "PGSSLCERT": str(self.client.cert),
            "PGSSLKEY": str(self.client.key),
        }

    def _kafka_environment(self) -> dict[str, str]:
        if self.kafka is None:
            return {}
        return {"KAFKA_URL": self.kafka.url, "KAFKA_PREFIX": self.kafka.prefix}

    def tell(self) -> None:
        """Writes both files, each whole; the one that says "ready" by being there comes last."""
        write_private(self.env_file, _shell(self.environment()))
        write_private(self.file, json.dumps(self.description(), indent=2) + "\n")


_ENV_HEAD: Final = """\
# A local Private Space of mtlskit, while it runs. Load it into a shell:  . sandbox.env
#
# MTLSKIT_SANDBOX  the same and more, as JSON
# MTLSKIT_SANDBOX_ADDON, MTLSKIT_SANDBOX_KAFKA
#                  the names of its add-ons
# HEROKU_API_KEY   the sandbox's token; it is worth nothing anywhere else
# HEROKU_HOST, HEROKU_DATA_HOST
#                  where the sandbox plays Heroku's APIs: while they are set, nothing goes to Heroku itself
# MTLSKIT_MY_IP    services of the sandbox that tell a client its address
# DATABASE_URL     the database, behind mutual TLS: no client gets in without a certificate
# KAFKA_URL        its Kafka brokers, behind mutual TLS too; the certificate is in the config vars of the Kafka add-on
# KAFKA_PREFIX     what the names of topics begin with; empty unless the sandbox was told one
# PGSSL…           a client identity for libpq (psql, psycopg …), so that  psql "$DATABASE_URL"  works directly.
#                  Through a tunnel they are not used: there the tunnel shows the certificate.
"""


def _shell(variables: dict[str, str]) -> str:
    exports = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return _ENV_HEAD + "".join(exports)
