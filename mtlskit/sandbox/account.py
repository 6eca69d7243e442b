"""The login that a space hands out: as whom its clients reach the database, and how that password is changed.

A change has three steps, and may be cut off between any two of them: it is noted what the server is going to be told,
the server is told, and it is noted that it knows. What the first step leaves is finished at the next start.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Final

import trio

from mtlskit.config.values import TcpAddress
from mtlskit.errors import Code, SandboxError
from mtlskit.sandbox.folder import SpaceFolder
from mtlskit.sandbox.server_url import ServerUrl, gateway_url, parse_server_url, socket_url
from mtlskit.wire.postgres.scram import ScramKeys

__all__ = ["Account", "OwnAccount"]

_PATIENCE: Final = 10
"""Seconds for a connection to our own server."""


class Account:
    """An account on a server of the user's own. Its password is not ours to change."""

    def __init__(self, server: ServerUrl, direct_url: str) -> None:
        self.upstream = server.upstream
        self.user = server.user
        self.database = server.database
        self.password = server.password
        self.direct_url = direct_url
        self.passwords = {server.user: server.password} if server.password else {}
        """By user, as the gateway looks them up: it follows a change."""

    def url(self, gateway: TcpAddress) -> str:
        """The database through the gateway."""
        return gateway_url(gateway, user=self.user, password=self.password, database=self.database)


class OwnAccount(Account):
    """The account on the space's own server, whose socket is in `socket_folder`."""

    def __init__(self, folder: SpaceFolder, socket_folder: Path, user: str, database: str) -> None:
        self._folder = folder
        self._socket_folder = socket_folder
        self._turn = trio.Lock()
        url = socket_url(socket_folder, user=user, password=folder.password, database=database)
        super().__init__(parse_server_url(url), url)

    async def change_password(self) -> str:
        """Gives the user another password, which counts for every later login. Returns it. Raises SandboxError."""
        async with self._turn:
            password = secrets.token_hex(16)
            await trio.to_thread.run_sync(self._change, password)
            self.password = self.passwords[self.user] = password
            self.direct_url = socket_url(self._socket_folder, user=self.user, password=password, database=self.database)
            return password

    def _change(self, password: str) -> None:
        import psycopg

        self._folder.announce_password(password)
        # The verifier, so that no log and no list of running statements ever shows the password.
        verifier = ScramKeys.derive(password).verifier()
        try:
            # What a shell's PGCHANNELBINDING may demand cannot be had on a unix socket.
            options: dict[str, Any] = {"connect_timeout": _PATIENCE, "channel_binding": "disable"}
            with psycopg.connect(self.direct_url, autocommit=True, **options) as connection:
                connection.execute(f"ALTER ROLE CURRENT_USER PASSWORD '{verifier}'".encode())
        except psycopg.Error as exc:
            raise SandboxError(
                Code.SANDBOX_POSTGRES,
                f"the password of {self.user} could not be changed: {str(exc).strip()}",
                "look at postgres.log in the sandbox's folder",
            ) from exc
        self._folder.settle_password()
