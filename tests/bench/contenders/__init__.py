"""Those who are compared: mtlskit and its peers, one module each, with their settings and the reasons for them.

For all: TLS 1.3 with the same P-256 client certificate, the chain and the name of the server checked, full handshakes
(no session is resumed), TCP_NODELAY both ways, no log, room for thousands of connections, no idle timeout that a run
could meet. Those that answer about their state on a unix socket (mtlskit, HAProxy) have one; stunnel and nginx's stream
module do not. Whoever knows better settings for a peer is asked to change them here.
"""

from __future__ import annotations

from tests.bench.contenders.base import Contender, Place, Poll, Upstream
from tests.bench.contenders.ghostunnel import Ghostunnel
from tests.bench.contenders.haproxy import Haproxy, PlainRelay
from tests.bench.contenders.mtlskit import Mtlskit
from tests.bench.contenders.nginx import Nginx
from tests.bench.contenders.stunnel import Stunnel

__all__ = ["DIRECT", "MTLSKIT", "PEERS", "Contender", "Place", "Poll", "Upstream", "all_contenders"]

DIRECT = "direct"
"""The limit without a contender: the client does TLS itself."""
MTLSKIT = Mtlskit.name
PEERS = (Stunnel.name, Haproxy.name, Ghostunnel.name, Nginx.name)


def all_contenders() -> list[Contender]:
    """Every contender that is known, installed or not."""
    return [Mtlskit(), Stunnel(), Haproxy(), Ghostunnel(), Nginx(), PlainRelay()]
