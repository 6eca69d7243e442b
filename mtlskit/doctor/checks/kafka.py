"""Inside a Kafka cluster: its brokers, each by its own address, its topics, and a record there and back."""

from __future__ import annotations

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.finding import Finding

__all__ = ["look_inside_kafka"]


async def look_inside_kafka(
    case: Case, endpoints: tuple[Endpoint, ...], identified: Identified, prefix: str
) -> tuple[Finding, ...]:
    """Layer KAFKA. `endpoints` are those that took our certificate; `prefix` is the add-on's, if it has one."""
    raise NotImplementedError
