"""How much of everything: the full size to quote, a quick one to look, a tiny one for the test of the bench."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "TINY", "Scale"]

_MIB = 1 << 20


@dataclass(frozen=True)
class Scale:
    """Sizes in bytes, times in seconds."""

    rounds: int = 5
    bulk_bytes: int = 1024 * _MIB
    """For each direction; several streams share it."""
    bulk_streams: tuple[int, ...] = (1, 8)
    echo_trips: int = 10_000
    pgbench_seconds: int = 4
    pgbench_clients: tuple[int, ...] = (1, 8, 32)
    copy_bytes: int = 256 * _MIB
    connect_seconds: float = 3.0
    connect_clients: int = 8
    delays: tuple[float, ...] = (0.0, 0.010, 0.050)
    """Added round-trip times."""
    bursts: tuple[int, ...] = (1, 10)
    burst_repeats: int = 3
    idle_connections: int = 5000
    idle_seconds: float = 5.0
    idle_rounds: int = 3
    """Each takes fresh processes and thousands of connections: fewer rounds than the rest."""
    paced_seconds: float = 3.0
    sessions: int = 30
    handshakes_a_second: int = 200
    startup_rounds: int = 15


FULL = Scale()
QUICK = Scale(
    rounds=3,
    bulk_bytes=256 * _MIB,
    echo_trips=3000,
    pgbench_seconds=2,
    copy_bytes=64 * _MIB,
    connect_seconds=1.5,
    burst_repeats=2,
    idle_connections=500,
    idle_seconds=2.0,
    idle_rounds=1,
    paced_seconds=1.5,
    startup_rounds=5,
)
TINY = Scale(
    rounds=1,
    bulk_bytes=4 * _MIB,
    bulk_streams=(1, 2),
    echo_trips=100,
    pgbench_seconds=1,
    pgbench_clients=(1,),
    copy_bytes=1 * _MIB,
    connect_seconds=0.2,
    connect_clients=2,
    delays=(0.010,),
    bursts=(1, 2),
    burst_repeats=1,
    idle_connections=20,
    idle_seconds=0.2,
    idle_rounds=1,
    paced_seconds=0.3,
    sessions=3,
    handshakes_a_second=50,
    startup_rounds=1,
)
