"""Whether the server takes our certificate, which under TLS 1.3 shows only after the handshake."""

from __future__ import annotations

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Identified, Shaken, Taken
from mtlskit.net.names import Address

__all__ = ["present"]


async def present(case: Case, endpoint: Endpoint, address: Address, identified: Identified, shaken: Shaken) -> Taken:
    """Layer CLIENT_CERTIFICATE, within `case.means.step`. `identified.snapshot` is there, `shaken.trusted` true."""
    raise NotImplementedError
