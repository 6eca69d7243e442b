"""Which figures are drawn (`tests.bench.plot`)."""

from __future__ import annotations

from tests.bench.book import Figure
from tests.bench.kafka import fetches, latency, throughput
from tests.bench.kafka.size import MIB

__all__ = ["PANELS"]

_MIDDLE = 10_240

PANELS: tuple[tuple[str, Figure], ...] = (
    ("produce 100 B, 4 clients", throughput.speed("produce", 100, 4)),
    ("produce 10 KiB, 4 clients", throughput.speed("produce", _MIDDLE, 4)),
    ("produce 10 KiB, proxy's CPU", throughput.cpu("produce", _MIDDLE, 4)),
    ("consume 100 B, 4 clients", throughput.speed("consume", 100, 4)),
    ("consume 10 KiB, 4 clients", throughput.speed("consume", _MIDDLE, 4)),
    ("consume 10 KiB, proxy's CPU", throughput.cpu("consume", _MIDDLE, 4)),
    ("100 B acknowledged, p99", latency.acknowledged(100, 1, 99)),
    ("1 MiB arrived, p99", latency.arrived(MIB, 1, 99)),
    ("50 MiB fetches, peak memory", fetches.PEAK),
)
"""Titles and figures."""
