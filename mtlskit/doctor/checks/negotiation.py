"""What answers there: a Postgres that takes an SSLRequest, a TLS server, or something else altogether."""

from __future__ import annotations

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Opened
from mtlskit.net.names import Address

__all__ = ["negotiate"]


async def negotiate(case: Case, endpoint: Endpoint, address: Address) -> Opened:
    """Layer NEGOTIATION. Ends within `case.means.step`."""
    raise NotImplementedError
