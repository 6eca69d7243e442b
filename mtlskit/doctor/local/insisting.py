"""Settings of the environment with which libpq's clients would not take the tunnel's plain door.

The door answers SSLRequest and GSSENCRequest with N. libpq then gives up where it was told to insist (PostgreSQL docs,
"Environment Variables" and "SSL Support"): psql, psycopg and whatever else links it read these variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mtlskit.config.values import TunnelKind
from mtlskit.doctor.case import Case
from mtlskit.doctor.finding import Finding, Layer, passed, warned
from mtlskit.errors import Code, DoctorError

__all__ = ["insists"]

_INSISTING: Final[Mapping[str, Callable[[str], bool]]] = {
    "PGSSLMODE": lambda value: value in ("require", "verify-ca", "verify-full"),
    "PGREQUIRESSL": lambda value: value == "1",
    "PGSSLNEGOTIATION": lambda value: value == "direct",
    "PGSSLROOTCERT": lambda value: value == "system",  # which makes sslmode verify-full
    "PGCHANNELBINDING": lambda value: value == "require",
    "PGGSSENCMODE": lambda value: value == "require",
}


def insists(case: Case) -> Finding | None:
    """None for tunnels that libpq does not use."""
    if case.kind is not TunnelKind.POSTGRES:
        return None
    environ = case.means.environ
    found = [name for name, does in _INSISTING.items() if does(environ.get(name, ""))]
    if environ.get("PGSSLMODE") and "PGREQUIRESSL" in found:
        found.remove("PGREQUIRESSL")  # it has no say then
    if not found:
        return passed(Layer.LOCAL, "local.environment", "no variable makes clients insist on TLS of their own")
    told = ", ".join(f"{name}={environ[name]}" for name in found)
    error = DoctorError(
        Code.LOCAL_CLIENT_INSISTS,
        f"the environment has {told}: clients that libpq serves insist on TLS, and the tunnel's door is plain",
        "unset it for clients of the tunnel, or say sslmode=prefer (channel_binding=prefer) in their connection"
        " strings: from the tunnel on everything is encrypted",
    )
    return warned(Layer.LOCAL, "local.environment", error, commands=(f"unset {' '.join(found)}",), variables=found)
