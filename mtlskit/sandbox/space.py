"""The local Private Space: a folder, a CA, a PostgreSQL and the gateway before it, started and stopped as one.

What others need to use it stands in `sandbox.json` (for programs) and `sandbox.env` (for a shell). Both appear when
everything is ready, and only then, and are removed when the space stops: whoever finds them finds a space that runs.

What can be wrong with the settings is found before anything is made: the gateway's port is opened first. A client that
comes before the rest is ready waits in the kernel's queue.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import trio

from mtlskit.config.values import TcpAddress
from mtlskit.errors import MtlskitError
from mtlskit.net.listen import Listener, open_listeners
from mtlskit.sandbox.credentials import ClientIdentity, SpacePki
from mtlskit.sandbox.events import (
    CertificateRevoked,
    OtherServerUsed,
    OwnDataLeftAside,
    SandboxReady,
    SandboxStopped,
)
from mtlskit.sandbox.folder import SpaceFolder, open_folder, write_private
from mtlskit.sandbox.gateway import ANY_PORT, Gateway, GatewayConfig
from mtlskit.sandbox.postgres import PostgresAccount, PostgresServer, run_postgres
from mtlskit.sandbox.server_url import ServerUrl, gateway_url, parse_server_url, socket_url
from mtlskit.sandbox.upstream import check_server
from mtlskit.telemetry import Emit, silent

__all__ = ["APP", "Space", "SpaceOptions", "run_space"]

APP: Final = "sandbox"
_USER: Final = "sandbox"
_DATABASE: Final = "sandbox"


@dataclass(frozen=True)
class SpaceOptions:
    """What a space is made of."""

    directory: Path
    postgres_url: str | None = field(default=None, repr=False)
    """A Postgres of the user's own, reached in plain text. None: the sandbox runs one."""
    url_source: str = "--postgres"
    """Where `postgres_url` was written: a flag, or the name of a variable."""
    listen: TcpAddress = ANY_PORT
    keep_data: bool = True
    """False: PostgreSQL's files are removed when the space stops, wherever they are."""


@dataclass(frozen=True)
class Space:
    """A running space. `url` goes through the gateway and needs a client certificate, `direct_url` goes past it."""

    directory: Path
    file: Path
    env_file: Path
    gateway_address: TcpAddress
    addon: str
    api_key: str = field(repr=False)
    url: str = field(repr=False)
    direct_url: str = field(repr=False)
    user: str
    password: str = field(repr=False)
    database: str
    ca: Path
    client: ClientIdentity
    postgres: PostgresServer | None
    _pki: SpacePki = field(repr=False)
    _gateway: Gateway = field(repr=False)

    def new_client_identity(self, common_name: str) -> ClientIdentity:
        """Issues another client certificate. Blocks for milliseconds. Raises ValueError for an impossible name."""
        return self._pki.new_client(common_name, now=datetime.now(UTC))

    def revoke(self, serial: int) -> None:
        """Revokes a client certificate: new connections with it are refused, established ones go on as in PostgreSQL.

        Blocks for milliseconds. It must be called in trio's thread.
        """
        self._pki.revoke(serial, now=datetime.now(UTC))
        self._gateway.replace_tls(self._pki.server_tls())
        self._gateway.emit(CertificateRevoked(serial=f"{serial:x}"))

    def description(self) -> dict[str, Any]:
        """What `sandbox.json` holds. The two APIs are null until they exist."""
        return {
            "data_api": None,
            "platform_api": None,
            "api_key": self.api_key,
            "app": APP,
            "postgres": {"addon": self.addon, "url": self.url, "direct_url": self.direct_url},
            "pki": {
                "ca": str(self.ca),
                "ca_dir": str(self.ca.parent),
                "cert": str(self.client.cert),
                "key": str(self.client.key),
            },
        }

    def environment(self) -> dict[str, str]:
        """What `sandbox.env` exports."""
        return {
            "MTLSKIT_SANDBOX": str(self.file),
            "HEROKU_API_KEY": self.api_key,
            "DATABASE_URL": self.url,
            "PGSSLROOTCERT": str(self.ca),
            "PGSSLCERT": str(self.client.cert),
            "PGSSLKEY": str(self.client.key),
        }


async def run_space(
    options: SpaceOptions,
    *,
    emit: Emit = silent,
    task_status: trio.TaskStatus[Space] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs a space until cancelled. Call it from the thread that runs trio, through `nursery.start`.

    Raises SandboxError (of a server at `postgres_url` that does not answer, too), IdentityError, ConfigError (of
    `postgres_url`) or ListenError, never in a group.
    """
    theirs = None
    if options.postgres_url is not None:
        theirs = parse_server_url(options.postgres_url, source=options.url_source)
        await check_server(theirs.upstream, user=theirs.user, database=theirs.database, source=options.url_source)
    with open_listeners(options.listen) as listener, open_folder(options.directory) as folder, _single_error():
        files = folder.path / "sandbox.json", folder.path / "sandbox.env"
        _remove(*files)  # of a space that was killed
        ready = False
        try:
            async with trio.open_nursery() as nursery:
                space = await _start(nursery, options, theirs, folder, listener, emit)
                write_private(space.env_file, _shell(space.environment()))
                write_private(space.file, json.dumps(space.description(), indent=2) + "\n")
                emit(SandboxReady(file=str(space.file)))
                ready = True
                task_status.started(space)
        finally:
            _remove(*files)
            if ready:
                emit(SandboxStopped(directory=str(folder.path)))
            if not options.keep_data:
                folder.forget_home()


async def _start(
    nursery: trio.Nursery,
    options: SpaceOptions,
    theirs: ServerUrl | None,
    folder: SpaceFolder,
    listener: Listener,
    emit: Emit,
) -> Space:
    open_pki = partial(SpacePki.open, server_names=_server_names(options.listen), now=datetime.now(UTC))
    pki = await trio.to_thread.run_sync(open_pki, folder.path / "pki")
    postgres = None
    if theirs is None:
        account = PostgresAccount(_USER, folder.state.password, _DATABASE)
        log = folder.path / "postgres.log"
        postgres = await nursery.start(partial(run_postgres, folder.postgres_home(), account, log=log, emit=emit))
        direct_url = socket_url(
            postgres.socket_folder, user=account.user, password=account.password, database=account.database
        )
        server = parse_server_url(direct_url)
    else:
        server, direct_url = theirs, options.postgres_url or ""
        _tell_of_other_server(theirs, options.url_source, folder, emit)
    passwords = {server.user: server.password} if server.password else {}
    gateway = Gateway(GatewayConfig(server.upstream, passwords), pki.server_tls(), newer=pki.newer_tls, emit=emit)
    address = _reachable_address(await nursery.start(gateway.run, listener))
    return Space(
        directory=folder.path,
        file=folder.path / "sandbox.json",
        env_file=folder.path / "sandbox.env",
        gateway_address=address,
        addon=folder.state.addon,
        api_key=folder.state.api_key,
        url=gateway_url(address, user=server.user, password=server.password, database=server.database),
        direct_url=direct_url,
        user=server.user,
        password=server.password,
        database=server.database,
        ca=pki.ca,
        client=pki.client,
        postgres=postgres,
        _pki=pki,
        _gateway=gateway,
    )


def _tell_of_other_server(theirs: ServerUrl, source: str, folder: SpaceFolder, emit: Emit) -> None:
    """A variable that was set long ago must not put another server behind the gateway without a word."""
    emit(OtherServerUsed(server=str(theirs.upstream), source=source))
    data = folder.own_data()
    if data is not None:
        emit(OwnDataLeftAside(data=str(data), source=source))


def _server_names(listen: TcpAddress) -> list[str]:
    return list(dict.fromkeys(["localhost", "127.0.0.1", "::1", _reachable_address(listen).host]))


def _reachable_address(listening: TcpAddress) -> TcpAddress:
    """Where clients of this host connect to: "all addresses" is no address to connect to."""
    try:
        address = ip_address(listening.host)
    except ValueError:
        return listening
    if not address.is_unspecified:
        return listening
    return TcpAddress("127.0.0.1" if address.version == 4 else "::1", listening.port)


_ENV_HEAD: Final = """\
# A local Private Space of mtlskit, while it runs. Load it into a shell:  . sandbox.env
#
# MTLSKIT_SANDBOX  the same and more, as JSON
# HEROKU_API_KEY   the sandbox's token; it is worth nothing anywhere else
# DATABASE_URL     the database, behind mutual TLS: no client gets in without a certificate
# PGSSL…           a client identity for libpq (psql, psycopg …), so that  psql "$DATABASE_URL"  works directly.
#                  Through a tunnel they are not used: there the tunnel shows the certificate.
"""


def _shell(variables: dict[str, str]) -> str:
    exports = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return _ENV_HEAD + "".join(exports)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def _single_error() -> Iterator[None]:
    """A nursery wraps what went wrong into a group; callers want the one error that a person can read."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours, others = group.split(MtlskitError)
        if ours is None or others is not None:
            raise
        error: BaseException = ours
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__
