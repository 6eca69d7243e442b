"""mtlskit itself, as a user starts it, from the Python that runs the bench."""

from __future__ import annotations

import sys

from tests.bench.contenders.base import MOST_CONNECTIONS, Contender, Place, Poll, Upstream

__all__ = ["Mtlskit"]

_CONTROL = "control"
_KINDS = {Upstream.TLS: "tcp", Upstream.POSTGRES: "postgres"}

_CONFIGURATION = """
[tunnel.bench]
kind = "{kind}"
listen = "127.0.0.1:{port}"
upstream = "localhost:{upstream}"
cert = "{cert}"
key = "{key}"
ca = "{ca}"
max_connections = {most}
"""


class Mtlskit(Contender):
    """`kind = "tcp"` or `"postgres"`; all else as it comes, but for room for the connections and `--quiet`.

    Its upstream is given by name, as users do, and it asks for the address again after each second; the peers are given
    an address, since those that are given a name ask once, when they start.

    The only one before which a PostgreSQL may ask for SCRAM, and the only one that speaks SSLRequest both ways.
    """

    name = "mtlskit"
    program = sys.executable
    before = frozenset(_KINDS)
    users = ("trust", "scram")

    def command(self, place: Place) -> list[str]:
        """A configuration file, because not every key has a flag."""
        text = _CONFIGURATION.format(
            kind=_KINDS[place.upstream],
            port=place.port,
            upstream=place.upstream_port,
            cert=place.pki.client.cert,
            key=place.pki.client.key,
            ca=place.pki.server_ca,
            most=MOST_CONNECTIONS,
        )
        if place.warm:
            text += f"warm = {place.warm}\n"
        log = ("--verbose", "--log", "json") if place.log else ("--quiet",)
        files = ("--config", place.write("mtlskit.toml", text), "--control", str(place.folder / _CONTROL))
        return [sys.executable, "-m", "mtlskit", "proxy", *files, *log]

    def poll(self, place: Place, pid: int) -> Poll:
        """What `mtlskit status` asks, on the control socket."""
        from mtlskit.control.places import Place as ControlPlace
        from mtlskit.control.protocol import Request, encode_request

        path = ControlPlace(place.folder / _CONTROL).socket_of(pid)
        return Poll(str(path), encode_request(Request("status")).decode(), '{"ok": true')

    def version(self) -> str:
        """That of the package."""
        from mtlskit import __version__

        return f"mtlskit {__version__}"
