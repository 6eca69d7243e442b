"""HAProxy (https://www.haproxy.org) in TCP mode: an event loop in each of several threads, OpenSSL."""

from __future__ import annotations

from tests.bench.contenders.base import CORES, MOST_CONNECTIONS, Contender, Place, Poll, Upstream

__all__ = ["Haproxy", "PlainRelay"]

_STATS = "stats.sock"

_CONFIGURATION = """
global
    maxconn {most}
    nbthread {cores}
    stats socket {stats} mode 600
defaults
    mode tcp
    maxconn {most}
    timeout connect 15s
    timeout client 1h
    timeout server 1h
{more}
listen bench
    bind 127.0.0.1:{port}
    server upstream 127.0.0.1:{upstream} {tls}
"""


class Haproxy(Contender):
    """One thread for each core; no log is configured; it sets TCP_NODELAY by itself; `no-ssl-reuse`: full handshakes.

    It does not know SSLRequest. Before a PostgreSQL 17 or later it starts TLS at once with `alpn postgresql`; as with
    stunnel, clients log in with trust. Its buffers are the default ones (16 KiB, a TLS record).
    """

    name = "haproxy"
    program = "haproxy"
    before = frozenset({Upstream.TLS, Upstream.POSTGRES})

    def command(self, place: Place) -> list[str]:
        """`-db`: in the foreground, as one process."""
        text = _CONFIGURATION.format(
            most=MOST_CONNECTIONS,
            cores=CORES,
            stats=place.folder / _STATS,
            port=place.port,
            upstream=place.upstream_port,
            more=self.more(),
            tls=self.tls(place),
        )
        return [self.path() or self.program, "-db", "-f", place.write("haproxy.cfg", text)]

    def poll(self, place: Place, pid: int) -> Poll:
        """`show info`, the shortest of its reports."""
        return Poll(str(place.folder / _STATS), "show info\n", "Name: HAProxy")

    def more(self) -> str:
        """Further default settings."""
        return ""

    def tls(self, place: Place) -> str:
        """The TLS part of the server's line."""
        words = ["ssl", "verify required", f"ca-file {place.pki.server_ca}", f"crt {place.combined_key()}"]
        words += ["sni str(localhost)", "verifyhost localhost", "ssl-min-ver TLSv1.3", "no-ssl-reuse"]
        if place.upstream is Upstream.POSTGRES:
            words.append("alpn postgresql")
        return " ".join(words)

    def version(self) -> str:
        """The first line of `-v`."""
        return self.said("-v").partition("\n")[0]


class PlainRelay(Haproxy):
    """The same without TLS, from kernel buffer to kernel buffer (`splice-auto`): what a relay costs without crypto."""

    name = "plain relay"
    before = frozenset({Upstream.PLAIN})
    limit = True

    def more(self) -> str:
        """Data need not be copied where nobody looks at it."""
        return "    option splice-auto"

    def tls(self, place: Place) -> str:
        """None."""
        return ""
