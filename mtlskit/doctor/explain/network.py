"""What systems and languages say of the network. The vaguest texts of all, so they come last."""

from __future__ import annotations

from typing import Final

from mtlskit.doctor.explain.known import Known, known
from mtlskit.errors import Code

__all__ = ["NETWORK"]

_DOCTOR: Final = "mtlskit doctor"
_SILENCE: Final = ("mtlskit my-ip", "mtlskit allowlist list", _DOCTOR)

NETWORK: Final[tuple[Known, ...]] = (
    known(
        r"could not translate host name \"(?P<host>[^\"]*)\"|Name or service not known|nodename nor servname"
        r"|UnknownHostException|no such host|ENOTFOUND|EAI_AGAIN|Temporary failure in name resolution"
        r"|getaddrinfo failed|\[Errno -[235]\]|No such host is known",
        Code.DNS_FAILED,
        "the name of the server does not resolve",
        "it is misspelt, or this host's resolver does not know it (a private zone, a VPN that is down)",
        "ask the resolver",
        "getent hosts HOST",
        _DOCTOR,
    ),
    known(
        r"timeout expired|timed out(?! waiting for a node)"
        r"|Connect timed out|SocketTimeoutException|ETIMEDOUT|i/o timeout|Errno 110\b"
        r"|did not properly respond after a period of time",
        Code.TCP_TIMEOUT,
        "nobody answers",
        "silence is what a firewall and Heroku's IP rules do: most often this host's external address is not on the"
        " allowlist, or has changed",
        "compare this host's address with the rules",
        *_SILENCE,
    ),
    known(
        r"Connection refused|ECONNREFUSED|actively refused|Errno (?:111|61)\b|ConnectException",
        Code.TCP_REFUSED,
        "the host answers, and nothing listens at that port",
        "the port is wrong, or the service is down",
        "check host and port",
        _DOCTOR,
    ),
    known(
        r"No route to host|Network is unreachable|EHOSTUNREACH|ENETUNREACH|Errno (?:113|101|65|51)\b",
        Code.TCP_UNREACHABLE,
        "there is no way to the server",
        "this host has no route there, or a firewall says so",
        "check the route, the VPN and the firewall",
        "ip route get ADDRESS",
        _DOCTOR,
    ),
    known(
        r"Connection reset|ECONNRESET|forcibly closed|Broken pipe|EPIPE|Errno (?:104|54|32)\b",
        Code.TCP_RESET,
        "the connection was cut",
        "a firewall or an IP rule that resets, a server that was restarted, or one that refuses a client certificate"
        " without a word",
        "see how far a connection gets",
        *_SILENCE,
    ),
    known(
        r"server closed the connection unexpectedly|EOF detected|unexpected eof|SSLEOFError|EOF occurred in violation"
        r"|connection (?:has been )?closed unexpectedly|Connection terminated unexpectedly|An I/O error occurred"
        r"|socket hang up|connection closed by peer|unexpected EOF|Remote host terminated the handshake"
        r"|Connection closed by remote host",
        Code.UPSTREAM_CLOSED,
        "the other side hung up without saying why",
        "a server may do so when it refuses the client certificate or this host's address; a port that speaks"
        " something else does so too",
        "see how far a connection gets, and read the server's log",
        _DOCTOR,
    ),
    known(
        r"The connection attempt failed",
        Code.TCP_UNREACHABLE,
        "JDBC: no connection came about",
        "the driver says so of a name that does not resolve, of silence, of a missing route and, under TLS 1.3, of a"
        " refused client certificate alike; the reason"
        " stands in the line that begins with `Caused by`",
        "look at the cause, or see how far a connection gets",
        *_SILENCE,
    ),
)
