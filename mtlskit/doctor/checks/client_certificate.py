"""Whether the server takes our certificate, which under TLS 1.3 shows only after the handshake."""

from __future__ import annotations

from typing import Final

from mtlskit.config.values import Endpoint, TunnelKind
from mtlskit.doctor.case import Case, Identified, Shaken, Taken
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.errors import Code, DoctorError, UpstreamError, UpstreamRefusedUs
from mtlskit.net.dial import Dialler, Route
from mtlskit.net.first_answer import first_answer, user_of
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.names import Address
from mtlskit.pki.certificates import bounded_text

__all__ = ["not_given", "present"]

_ABOUT_US: Final = frozenset(
    {
        Code.TLS_CLIENT_CA_UNKNOWN,
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        Code.TLS_CLIENT_CERTIFICATE_REQUIRED,
        Code.TLS_HANDSHAKE_FAILED,
        Code.UPSTREAM_CLOSED,
        Code.TCP_RESET,
    }
)
"""Ways in which a server refuses a certificate of a CA that it does not know."""

_NAMES_TOLD: Final = 3


async def present(case: Case, endpoint: Endpoint, address: Address, identified: Identified, shaken: Shaken) -> Taken:
    """Layer CLIENT_CERTIFICATE, within `case.means.step`. `identified.snapshot` is there, `shaken.trusted` true."""
    snapshot = identified.snapshot
    if snapshot is None:
        return Taken((skipped(Layer.CLIENT_CERTIFICATE, "client-certificate.accepted", "identity"),))
    route = Route(endpoint, address[1][0], endpoint.port)
    try:
        said = await _said(case, route, snapshot)
    except UpstreamError as exc:
        error = _refusal(exc, str(route), snapshot, shaken)
        return Taken((failed(Layer.CLIENT_CERTIFICATE, "client-certificate.accepted", error, about=str(route)),))
    if shaken.asks_for_certificate is False:
        return Taken((_not_asked(case, route),), accepted=True)
    finding = passed(
        Layer.CLIENT_CERTIFICATE,
        "client-certificate.accepted",
        f"{route} {said}",
        about=str(route),
        subject=_subject(snapshot),
        ca_names=list(shaken.ca_names),
    )
    return Taken((finding,), accepted=True)


def not_given(where: str) -> Finding:
    """Nobody has named a certificate, and this server asks for one."""
    error = UpstreamRefusedUs(
        Code.TLS_CLIENT_CERTIFICATE_REQUIRED,
        f"{where} asks for a client certificate, and none was given",
        "give the files of the identity: --cert FILE and --key FILE",
    )
    return failed(Layer.CLIENT_CERTIFICATE, "client-certificate.given", error, about=where)


async def _said(case: Case, route: Route, snapshot: IdentitySnapshot) -> str:
    """Connect as a session would, and hear the server's first message. Raises UpstreamError."""
    tunnel, step = case.tunnel, case.means.step
    dialler = Dialler(tunnel.kind, (route.endpoint,), tunnel.negotiation, tunnel.pins, step, source=tunnel.source)
    upstream = await dialler.dial_route(route, snapshot)
    try:
        user = user_of(snapshot)
        heard = await first_answer(tunnel.kind, upstream, user, verify=tunnel.verify, patience=step)
    finally:
        upstream.tls.close()
    return bounded_text(heard.text)


def _refusal(error: UpstreamError, where: str, snapshot: IdentitySnapshot, shaken: Shaken) -> UpstreamError:
    """With the CAs that the server names, where ours is none of them."""
    if error.code not in _ABOUT_US or not shaken.ca_names or _leads_to_one(snapshot, shaken.ca_names):
        return error
    named = "; ".join(shaken.ca_names[:_NAMES_TOLD])
    more = len(shaken.ca_names) - _NAMES_TOLD
    issuer = bounded_text(snapshot.pair.chain[-1].issuer.rfc4514_string())
    return UpstreamRefusedUs(
        Code.TLS_OTHER_CA_ASKED,
        f"{where} refuses our client certificate: it takes those of {named}"
        + (f" and {more} more" if more > 0 else "")
        + f", and ours ({_subject(snapshot)}) leads to {issuer}",
        "use the identity that belongs to this server; or append the intermediate certificate that leads to a CA that"
        " it names to the certificate file",
    )


def _leads_to_one(snapshot: IdentitySnapshot, ca_names: tuple[str, ...]) -> bool:
    chain = snapshot.pair.chain
    ours = {bounded_text(each.issuer.rfc4514_string()) for each in chain}
    ours |= {bounded_text(each.subject.rfc4514_string()) for each in chain[1:]}
    return not ours.isdisjoint(ca_names)


def _not_asked(case: Case, route: Route) -> Finding:
    """A service that is to know us by our certificate and does not look at it. Other servers may ask later."""
    if case.kind is TunnelKind.TCP:
        return passed(
            Layer.CLIENT_CERTIFICATE,
            "client-certificate.accepted",
            "the server asks for no client certificate in the handshake, and takes us without one",
            about=str(route),
        )
    error = DoctorError(
        Code.TLS_NO_CERTIFICATE_ASKED,
        f"{route} asks for no client certificate: it would take anybody as far as this",
        "check that this is the right host and port, and that the server asks for certificates (PostgreSQL:"
        " ssl_ca_file; Kafka: ssl.client.auth)",
    )
    return warned(Layer.CLIENT_CERTIFICATE, "client-certificate.asked", error, about=str(route))


def _subject(snapshot: IdentitySnapshot) -> str:
    return bounded_text(snapshot.pair.leaf.subject.rfc4514_string()) or f"serial {snapshot.serial}"
