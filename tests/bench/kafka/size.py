"""How much of everything: what is quoted, a quick look, and what the test of the bench takes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "MIB", "QUICK", "TINY", "Size", "named"]

MIB = 1 << 20


@dataclass(frozen=True)
class Size:
    """Sizes in bytes, times in seconds."""

    rounds: int = 5
    records: tuple[int, ...] = (100, 10_240, MIB)
    """Of each record's value."""
    clients: tuple[int, ...] = (1, 4)
    small_bytes: int = 32_000_000
    """Moved at a time as records of less than 1 KB, for which clients and broker work hard; all clients share it."""
    large_bytes: int = 192_000_000
    """The same as larger records."""
    paced_seconds: float = 2.0
    small_rate: float = 250.0
    """Records a second, of all clients together."""
    large_rate: float = 40.0
    """The same of records from 1 MB on."""
    fetch_bytes: int = 800 * MIB
    fetch_rounds: int = 3
    """Each takes fresh processes."""
    brokers: int = 100
    partitions: int = 2000
    rewrites: int = 50
    """Of a Metadata response, in each round."""

    def amount(self, record: int) -> int:
        """How many records of this size are moved at a time."""
        total = self.small_bytes if record < 1000 else self.large_bytes
        return max(4, total // record)

    def rate(self, record: int) -> float:
        """Records of this size a second where they are paced."""
        return self.large_rate if record >= 1_000_000 else self.small_rate


FULL = Size()
QUICK = Size(
    rounds=3,
    small_bytes=8_000_000,
    large_bytes=48_000_000,
    paced_seconds=1.0,
    fetch_bytes=200 * MIB,
    fetch_rounds=1,
    rewrites=20,
)
TINY = Size(
    rounds=1,
    records=(100,),
    clients=(1,),
    small_bytes=20_000,
    large_bytes=4 * MIB,
    paced_seconds=0.2,
    fetch_bytes=4 * MIB,
    fetch_rounds=1,
    brokers=3,
    partitions=10,
    rewrites=2,
)


def named(record: int) -> str:
    """The size of a record, for people."""
    if record % MIB == 0:
        return f"{record // MIB} MiB"
    return f"{record // 1024} KiB" if record % 1024 == 0 else f"{record} B"
