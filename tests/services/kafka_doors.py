"""A way to a Kafka, direct or through a tunnel, and how each family of clients is told of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.services.pki import Pair


@dataclass(frozen=True)
class Door:
    """Where clients begin. Without `ca` they speak plainly, as to a tunnel; with it TLS, and with `client` mutual TLS.

    `folder` is where files are written that a client wants to read: it is private, and goes away with its owner.
    """

    bootstrap: str
    folder: Path
    ca: Path | None = None
    client: Pair | None = None

    def librdkafka(self) -> dict[str, str]:
        """For librdkafka (CONFIGURATION.md): kcat and confluent-kafka."""
        settings = {"bootstrap.servers": self.bootstrap, "log.connection.close": "false", "log_level": "5"}
        if self.ca is not None:
            settings |= {"security.protocol": "ssl", "ssl.ca.location": str(self.ca)}
        if self.client is not None:
            settings |= {
                "ssl.certificate.location": str(self.client.cert),
                "ssl.key.location": str(self.client.key),
            }
        return settings

    def java(self) -> dict[str, str]:
        """For the clients of Java (Kafka docs, "Security"), with PEM stores (KIP-651)."""
        if self.ca is None:
            return {}
        settings = {
            "security.protocol": "SSL",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
        }
        if self.client is not None:
            pem = self.client.key.read_bytes() + self.client.cert.read_bytes()
            settings |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(self._write("client", ".pem", pem))}
        return settings

    def java_file(self, more: Mapping[str, str]) -> Path:
        """The same as a properties file, with more lines."""
        lines = "".join(f"{name}={value}\n" for name, value in {**self.java(), **more}.items())
        return self._write("client", ".properties", lines.encode())

    def _write(self, name: str, suffix: str, content: bytes) -> Path:
        """Named by what is in it, so that clients which start at once do not overwrite each other's."""
        path = self.folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
        path.touch(mode=0o600)  # before the key is in it
        path.write_bytes(content)
        return path
