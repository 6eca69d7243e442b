"""What the space does when its API is called: it issues, revokes, and gives its database another password."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from mtlskit.config.values import TcpAddress
from mtlskit.sandbox.account import Account, OwnAccount
from mtlskit.sandbox.credentials import SpacePki
from mtlskit.sandbox.events import CertificateRevoked, PasswordChanged
from mtlskit.telemetry import Emit

__all__ = ["Hooks"]


class Hooks:
    """The `SpaceHooks` of a space. `changed` is called when what the space tells of itself is another."""

    def __init__(
        self, pki: SpacePki, account: Account, gateway: TcpAddress, *, changed: Callable[[], None], emit: Emit
    ) -> None:
        self._pki = pki
        self._account = account
        self._gateway = gateway
        self._changed = changed
        self._emit = emit

    def issue(self, common_name: str) -> tuple[str, str, str]:
        """A client certificate that the gateway takes: serial, key and chain."""
        return self._pki.new_pair(common_name, now=datetime.now(UTC))

    def revoke(self, serial: str) -> None:
        """The gateway looks at the revocation list before each connection."""
        self._pki.revoke(serial, now=datetime.now(UTC))
        self._emit(CertificateRevoked(serial=serial))

    def authorities(self) -> str:
        """The space's CA: the gateway's certificate is its own, too."""
        return self._pki.ca.read_text("ascii")

    async def rotate_password(self, user: str) -> str | None:
        """Only the space's own server can be told another password, and only for the user that the space made."""
        if not isinstance(self._account, OwnAccount) or user != self._account.user:
            return None
        password = await self._account.change_password()
        self._changed()
        self._emit(PasswordChanged(user=user))
        return password

    def credential(self) -> tuple[str, int, str, str, str]:
        """Through the gateway, as everybody comes."""
        account = self._account
        return self._gateway.host, self._gateway.port, account.database, account.user, account.password
