"""stunnel (https://www.stunnel.org): a thread for each connection, OpenSSL."""

from __future__ import annotations

from tests.bench.contenders.base import Contender, Place, Upstream

__all__ = ["Stunnel"]

_CONFIGURATION = """
foreground = yes
pid =
syslog = no
debug = emerg
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[bench]
client = yes
{protocol}
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{upstream}
cert = {cert}
key = {key}
CAfile = {ca}
verifyChain = yes
checkHost = localhost
sni = localhost
sslVersion = TLSv1.3
sessionResume = no
TIMEOUTidle = 43200
"""


class Stunnel(Contender):
    """Its defaults, but for TCP_NODELAY (it sets none by itself), and sessions that are not resumed.

    `protocol = pgsql` sends the SSLRequest. It passes SCRAM-SHA-256-PLUS on, which libpq refuses on a connection that
    it did not encrypt itself: clients log in with trust here.
    """

    name = "stunnel"
    program = "stunnel"
    before = frozenset({Upstream.TLS, Upstream.POSTGRES})

    def command(self, place: Place) -> list[str]:
        """Everything is in the file."""
        text = _CONFIGURATION.format(
            protocol="protocol = pgsql" if place.upstream is Upstream.POSTGRES else "",
            port=place.port,
            upstream=place.upstream_port,
            cert=place.pki.client.cert,
            key=place.pki.client.key,
            ca=place.pki.server_ca,
        )
        return [self.path() or self.program, place.write("stunnel.conf", text)]

    def version(self) -> str:
        """`stunnel 5.x on …`, which is among other things."""
        lines = [line for line in self.said("-version").splitlines() if line.startswith("stunnel ")]
        return lines[0] if lines else "unknown"
