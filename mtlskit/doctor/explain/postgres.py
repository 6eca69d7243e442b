"""What a PostgreSQL server says, in whatever client it shows: libpq, JDBC, Go, Node, .NET all repeat it."""

from __future__ import annotations

from typing import Final

from mtlskit.doctor.explain.known import Known, known
from mtlskit.errors import Code

__all__ = ["POSTGRES"]

_DOCTOR: Final = "mtlskit doctor"

POSTGRES: Final[tuple[Known, ...]] = (
    known(
        r"password authentication failed for user \"(?P<user>[^\"]*)\"",
        Code.PG_LOGIN_REFUSED,
        "PostgreSQL: the password of {user} is wrong",
        "everything up to the login works: network, TLS and client certificate; the password does not fit, or there"
        " is no such user",
        "look the credential up again (it may have been rotated): heroku pg:credentials:url",
        "heroku pg:credentials:url --app APP",
    ),
    known(
        r"no pg_hba\.conf entry for (?:replication connection from )?host \"?(?P<host>[^\",]*)\"?,? user"
        r" \"?(?P<user>[^\",]*)\"?[^.]{0,120}?(?P<how>no encryption|SSL off)",
        Code.PG_NOT_LET_IN,
        "PostgreSQL: no line of pg_hba.conf lets {user} in without TLS",
        "the connection reached the server in plain text, so it did not come through a tunnel: mtlskit always uses TLS",
        "let the client connect to the tunnel's address, or to the server with sslmode=verify-full and the certificate",
        "mtlskit status",
    ),
    known(
        r"no pg_hba\.conf entry for (?:replication connection from )?host \"?(?P<host>[^\",]*)\"?,? user"
        r" \"?(?P<user>[^\",]*)\"?",
        Code.PG_NOT_LET_IN,
        "PostgreSQL: no line of pg_hba.conf lets {user} in from {host}",
        "TLS and the client certificate are in order; the server's access list has no line for this user, database"
        " and address",
        "ask whoever runs the server for a line (hostssl DATABASE USER ADDRESS scram-sha-256 clientcert=verify-ca)",
        _DOCTOR,
    ),
    known(
        r"pg_hba\.conf rejects connection",
        Code.PG_NOT_LET_IN,
        "PostgreSQL: a line of pg_hba.conf rejects the connection",
        "the server's access list has a line that refuses this user, database and address by intent",
        "ask whoever runs the server; the first line that fits counts",
        _DOCTOR,
    ),
    known(
        r"connection requires a valid client certificate",
        Code.TLS_CLIENT_CERTIFICATE_REQUIRED,
        "PostgreSQL: a client certificate is required",
        "TLS stands, and the client has shown no certificate: it was not configured, or the client could not read it",
        "connect through the tunnel; straight, set sslcert and sslkey: `mtlskit certs export` writes files for psql,"
        " JDBC and others",
        "mtlskit status",
        "mtlskit certs export --help",
    ),
    known(
        r"certificate authentication failed for user \"(?P<user>[^\"]*)\""
        r"|provided user name \((?P<u2>[^)]*)\) and authenticated user name \([^)]*\) do not match",
        Code.PG_NOT_LET_IN,
        "PostgreSQL: the certificate is not that of the user",
        "the server compares the user with the common name of the certificate (cert, or clientcert=verify-full), and"
        " they differ",
        "log in as the user in the certificate's CN, or have the certificate issued for the user",
        "mtlskit certs show NAME",
    ),
    known(
        r"database \"(?P<database>[^\"]*)\" does not exist",
        Code.PG_NO_DATABASE,
        "PostgreSQL: there is no database {database}",
        "everything up to the login works; libpq takes the user's name for the database where none is given",
        "name the database (PGDATABASE, or the path of the URL)",
    ),
    known(
        r"permission denied for database \"?(?P<database>[^\"\s]*)",
        Code.PG_NO_DATABASE,
        "PostgreSQL: this user may not connect to {database}",
        "the login works; the user lacks the privilege CONNECT",
        "GRANT CONNECT ON DATABASE … TO …, as the owner",
    ),
    known(
        r"sorry, too many clients already|remaining connection slots are reserved"
        r"|too many connections for (?:role|database) |FATAL: too many connections",
        Code.PG_FULL,
        "PostgreSQL: all connections are taken",
        "the server, the database or the role has reached its limit",
        "close sessions that are not needed; `warm` connections of a tunnel count as well",
        "mtlskit status",
    ),
    known(
        r"the database system is (?P<what>starting up|shutting down|in recovery mode|not yet accepting connections)",
        Code.PG_NOT_READY,
        "PostgreSQL: the server is {what}",
        "it is there, and takes nobody at the moment",
        "try again in a minute; `mtlskit doctor --watch` tells when it is back",
        "mtlskit doctor --watch",
    ),
    known(
        r"terminating connection due to (?:administrator command|unexpected postmaster exit)",
        Code.PG_NOT_READY,
        "PostgreSQL: the server has ended the session",
        "it was stopped or restarted, or somebody ended this session (pg_terminate_backend); Heroku does so for"
        " maintenance",
        "connect again",
        "mtlskit doctor --watch",
    ),
    known(
        r"unsupported frontend protocol (?P<version>\d+\.\d+)|invalid length of startup packet",
        Code.PG_CLIENT_VERSION,
        "PostgreSQL: the first packet is not understood",
        "what has connected speaks something else: TLS without an SSLRequest (direct TLS towards a server before"
        " 17), Kafka, HTTP, or a load balancer that looks whether the port is open",
        'for direct TLS: negotiation = "sslrequest"; else look what connects there',
        _DOCTOR,
    ),
    known(
        r"direct SSL connection request without ALPN|SSL connection with direct SSL was established without ALPN"
        r"|direct SSL connection was established without ALPN",
        Code.TLS_ALPN,
        "PostgreSQL: direct TLS without ALPN",
        "direct TLS wants the name `postgresql` agreed on in the handshake (ALPN), and one side did not say it",
        'direct TLS needs PostgreSQL 17 on both sides: negotiation = "sslrequest" (sslnegotiation=postgres) always'
        " works",
    ),
    known(
        r"received invalid response to SSL negotiation: (?P<byte>\S+)"
        r"|expected authentication request from server,? but received (?P<other>\S+)"
        r"|Protocol error\. Session setup failed|unexpected (?:message|response) .{0,40}SSL negotiation",
        Code.TLS_UNKNOWN_ANSWER,
        "the client: what answers is no PostgreSQL",
        "something else listens there: a web server answers with H, a Kafka or an SSH server in its own way",
        "check the host and the port",
        _DOCTOR,
    ),
    known(
        r"no password supplied|but the password is an empty string|no password was provided"
        r"|No password has been provided but the backend requires one"
        r"|SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string",
        Code.PG_LOGIN_REFUSED,
        "the client: the server asks for a password, and it has none",
        "network, TLS and certificate work: the certificate opens the door, and a password is still wanted",
        'set PGPASSWORD or a line in ~/.pgpass; a tunnel with login = "heroku" logs in by itself',
    ),
    known(
        r"authentication method (?:\S+ )?(?:not supported|unsupported)|authentication type \d+ is not supported"
        r"|The authentication type (?P<kind>\d+) is not supported|unsupported SASL|none of the server's SASL",
        Code.PG_LOGIN_METHOD,
        "the client: it does not know the way of logging in that the server wants",
        "most often an old driver (before 2018) and a server that wants SCRAM-SHA-256",
        "update the driver: libpq 10, JDBC 42.2.0, psycopg 2.8 and later know SCRAM",
    ),
)
