"""ghostunnel (https://github.com/ghostunnel/ghostunnel): goroutines, and TLS of the Go library."""

from __future__ import annotations

from tests.bench.contenders.base import Contender, Place, Upstream

__all__ = ["Ghostunnel"]


class Ghostunnel(Contender):
    """Client mode, all else as it comes: Go uses every core, sets TCP_NODELAY and keeps no TLS sessions by default.

    `go install github.com/ghostunnel/ghostunnel@v1.11.1`, with $GOBIN on PATH. Raw TCP only: it neither sends an
    SSLRequest nor offers an ALPN.
    """

    name = "ghostunnel"
    program = "ghostunnel"
    before = frozenset({Upstream.TLS})

    def command(self, place: Place) -> list[str]:
        """Everything is a flag."""
        pki = place.pki
        files = ["--cert", str(pki.client.cert), "--key", str(pki.client.key), "--cacert", str(pki.server_ca)]
        listen, target = f"127.0.0.1:{place.port}", f"localhost:{place.upstream_port}"
        return [self.path() or self.program, "client", "--listen", listen, "--target", target, *files, "--quiet", "all"]

    def version(self) -> str:
        """What `--version` says."""
        return f"ghostunnel {self.said('--version')}"
