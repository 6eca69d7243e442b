"""A tunnel that works, by flags or in a file, of which a fault breaks one thing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mtlskit.doctor.case import Means
from mtlskit.doctor.gather import Gathered, from_file, from_flags
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Stage
from tests.services.pki import Pki
from tests.support.x509_builder import DAY, Made, make_certificate

Flags = Mapping[str, Any]
Build = Callable[[Stage], AbstractContextManager[Gathered]]

NOT_RUNNING = frozenset({Code.LOCAL_NOT_RUNNING})


def means(now: datetime | None = None, environ: Mapping[str, str] | None = None) -> Means:
    """With a clock that was set to `now` when the examination began."""
    began = datetime.now(UTC)
    ahead = timedelta() if now is None else now - began
    return Means(now=lambda: datetime.now(UTC) + ahead, environ=environ or {}, step=3, deadline=15)


@dataclass(frozen=True)
class Place:
    """A folder, and a PostgreSQL that would take the client of `pki`."""

    folder: Path
    pki: Pki
    port: int

    def flags(self, **other: object) -> dict[str, Any]:
        """A tunnel that works, but for `other`."""
        good = {"upstream": [f"localhost:{self.port}"], "cert": self.cert, "key": self.key, "ca": self.pki.server_ca}
        return {**good, **other}

    @property
    def cert(self) -> Path:
        return self._copied(self.pki.client.cert)

    @property
    def key(self) -> Path:
        return self._copied(self.pki.client.key)

    def _copied(self, path: Path) -> Path:
        target = self.folder / path.name
        if not target.exists():
            shutil.copy2(path, target)
        return target

    def write(self, name: str, content: bytes | str, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def pair(self, made: Made, name: str = "made", more: bytes = b"") -> Flags:
        """The files of a client that was made."""
        return {"cert": self.write(f"{name}.crt", made.cert_pem + more), "key": self.write(f"{name}.key", made.key_pem)}

    @property
    def client_ca(self) -> Made:
        """Who issues certificates for clients."""
        return Made(self.pki.clients.certificate, self.pki.clients.key)

    def client(self, **wish: Any) -> Made:
        """A client's certificate, good but for what is wished."""
        now = datetime.now(UTC)
        good: dict[str, Any] = {"common_name": "client", "issuer": self.client_ca, **life(now)}
        return make_certificate(**good | wish)

    def table(self, name: str = "reporting", *, port: int = 16432, rest: str = "", **other: str) -> str:
        """A tunnel in TOML."""
        keys = {
            "kind": "postgres",
            "listen": f"127.0.0.1:{port}",
            "upstream": f"localhost:{self.port}",
            "cert": str(self.cert),
            "key": str(self.key),
            "ca": str(self.pki.server_ca),
        } | other
        lines = [f'{key} = "{value}"' for key, value in keys.items() if value]
        return "\n".join([f"[tunnel.{name}]", *lines, rest, ""])


def life(now: datetime) -> dict[str, Any]:
    return {"begins": now - DAY, "ends": now + 60 * DAY}


@contextmanager
def placed(stage: Stage) -> Iterator[Place]:
    server = stage.fixture("postgres")
    yield Place(stage.folder, server.pki, server.port)


def by_flags(make: Callable[[Place], Flags], *, without: str = "") -> Build:
    """A tunnel by flags, in which `make` has broken something."""

    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        with placed(stage) as place:
            flags = place.flags(**make(place))
            flags.pop(without, None)
            yield from_flags(flags, means())

    return build


def by_file(make: Callable[[Place], str]) -> Build:
    """A configuration file that `make` writes."""

    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        with placed(stage) as place:
            path = place.write("mtlskit.toml", make(place))
            yield from_file(path, (), means())

    return build
