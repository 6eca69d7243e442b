"""Texts of clients that a proxy on this host has something to do with: they insist on what its door does not have."""

from __future__ import annotations

from typing import Final

from mtlskit.doctor.explain.known import Known, known
from mtlskit.errors import Code

__all__ = ["AT_THE_DOOR"]

_HERE: Final = r"(?:127\.0\.0\.\d+|localhost|\[?::1\]?)"
_PLAIN: Final = (
    "towards mtlskit use sslmode=disable, or prefer: TLS begins behind it; straight to the server, check the port"
    " and that ssl = on there"
)
_PLAIN_COMMANDS: Final = ("mtlskit status", "env | grep '^PG'")

AT_THE_DOOR: Final[tuple[Known, ...]] = (
    known(
        r"server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection",
        Code.LOCAL_CLIENT_INSISTS,
        "libpq: SCRAM-SHA-256-PLUS was offered on a plain connection",
        "something forwards a plain client into TLS and passes the server's offer on as it is (stunnel and the like"
        " do); mtlskit takes the offer out, so the client is not connected to it",
        "let the client connect to the address of the tunnel, which `mtlskit status` shows",
        "mtlskit status",
    ),
    known(
        r"channel binding (?:is )?required,? but",
        Code.LOCAL_CLIENT_INSISTS,
        "libpq: channel binding is required",
        "the client wants its login bound to a TLS connection of its own, and has none: towards mtlskit it is plain",
        "set channel_binding=prefer (PGCHANNELBINDING) for the tunnel's address",
        *_PLAIN_COMMANDS,
    ),
    known(
        r"server does not support SSL,? but SSL was required|The server does not support SSL(?: connections)?"
        r"|SSL is not enabled on the server|server does not support TLS|Server doesn't support SSL"
        r"|SSL connection requested\. No SSL enabled connection from this host is configured on the server",
        Code.LOCAL_CLIENT_INSISTS,
        "the client insists on TLS, and was told that there is none",
        "this is what mtlskit's door says to clients with sslmode=require or stricter; a server without TLS says it"
        " too",
        _PLAIN,
        *_PLAIN_COMMANDS,
    ),
    known(
        rf"(?:server at \"{_HERE}\"|{_HERE}|ipv[46]#{_HERE})[^.]{{0,80}}?(?:Connection refused|ECONNREFUSED)"
        rf"|ECONNREFUSED {_HERE}|Connection to {_HERE}:\d+ refused|dial tcp {_HERE}:\d+: connect: connection refused"
        rf"|Connection to node -?\d+ \([^()]{{0,300}}?{_HERE}:\d+\) could not be established",
        Code.LOCAL_NOT_RUNNING,
        "nothing listens at that address of this host",
        "if it is a tunnel's address, no proxy is running with it",
        "see which tunnels run, and start the one that is missing; in a container, localhost is the container itself",
        "mtlskit status",
        "mtlskit proxy",
    ),
    known(
        r"connection to server on socket \"(?P<path>[^\"]+)\" failed: (?:No such file or directory|Connection refused)",
        Code.LOCAL_NOT_RUNNING,
        "libpq: nobody listens on the socket {path}",
        "no PostgreSQL and no tunnel of mtlskit's listens on that unix socket; libpq takes a socket where no host is"
        " given",
        "give the client a host (PGHOST=127.0.0.1), or start the tunnel that listens there",
        "mtlskit status",
    ),
)
"""First of all tables: their words would mean something else without a proxy."""
