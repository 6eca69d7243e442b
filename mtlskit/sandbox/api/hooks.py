"""What the API needs of the space that it belongs to."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SpaceHooks"]


class SpaceHooks(Protocol):
    """The space's CA and database. Each may raise `MtlskitError`, which the caller of the API gets as a 500."""

    def issue(self, common_name: str) -> tuple[str, str, str]:
        """A new client certificate: its serial (hexadecimal), its key and its chain, both PEM."""

    def revoke(self, serial: str) -> None:
        """The gateway refuses this certificate from now on. One that is revoked already is no error."""

    def authorities(self) -> str:
        """The CAs, PEM, that the gateway's own certificate leads to."""

    async def rotate_password(self, user: str) -> str | None:
        """Give `user` a new password, and return it. None: that cannot be done, as with a Postgres of the user's."""

    def credential(self) -> tuple[str, int, str, str, str]:
        """How to log in: host, port, database, user and password."""
