"""What the API needs of the space that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

__all__ = ["Brokers", "SpaceHooks"]


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


class Brokers(Protocol):
    """The space's Kafka. Each call raises SandboxError for what cannot be done."""

    @property
    def url(self) -> str:
        """The value of KAFKA_URL."""

    @property
    def prefix(self) -> str:
        """The value of KAFKA_PREFIX; empty: there is none."""

    @property
    def topics(self) -> Mapping[str, int]:
        """The topics that were made by name, with their numbers of partitions."""

    def brokers(self) -> Mapping[int, tuple[str, bool]]:
        """The address of each broker, and whether it is up, by node id."""

    async def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic."""

    async def set_leader(self, topic: str, partition: int, broker: int) -> None:
        """Give a partition another leader."""

    async def set_up(self, broker: int, up: bool) -> None:
        """Stop a broker, or start it again."""

    async def push_errors(self, api_key: int, errors: Sequence[int]) -> None:
        """Have the next requests of a kind fail with these errors."""
