"""Faults inside Postgres: who may log in, whether there is room, whether it is the right server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import trio

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_flags
from mtlskit.errors import Code
from mtlskit.wire.postgres.messages import authentication_ok, authentication_sasl, error_response
from mtlskit.wire.postgres.scram import SCRAM_PLUS
from tests.doctor.catalogue.base import Fault, Stage
from tests.services.builds import MAJORS, postgres_build
from tests.services.pki import Pki
from tests.services.postgres import PostgresServer, Shutdown
from tests.services.settings import ServerOptions
from tests.services.template import DATABASE, PASSWORDS
from tests.support.fake_upstream import PARAMETER, READY, Script, ServerSide, make_papers
from tests.support.posed_postgres import posed_postgres
from tests.support.scram_server import Scram, message
from tests.support.until import until

LOCAL = "local all all trust"
SCRAM_FOR_ALL = (LOCAL, "hostssl all all all scram-sha-256 clientcert=verify-ca")


def means(environ: Mapping[str, str]) -> Means:
    return Means(environ=dict(environ), step=3, deadline=15)


def login(user: str = "scram", password: str | None = None, database: str = DATABASE) -> dict[str, str]:
    """The variables of a user of the tests' servers."""
    found = {"PGUSER": user, "PGDATABASE": database}
    secret = PASSWORDS.get(user, "") if password is None else password
    return found | ({"PGPASSWORD": secret} if secret else {})


def gathered(
    port: int, pki: Pki, environ: Mapping[str, str], *, verify: str = "full", negotiation: str = "sslrequest"
) -> Gathered:
    """A server of the tests, by flags."""
    flags = {
        "kind": "postgres",
        "upstream": [f"localhost:{port}"],
        "cert": pki.client.cert,
        "key": pki.client.key,
        "ca": pki.server_ca,
        "verify": verify,
        "negotiation": negotiation,
    }
    return from_flags(flags, means(environ))


@contextmanager
def _shared(environ: Mapping[str, str], stage: Stage) -> Iterator[Gathered]:
    """The server that all tests share, as it is."""
    server: PostgresServer = stage.fixture("postgres")
    yield gathered(server.port, server.pki, environ)


@contextmanager
def _own(
    environ: Mapping[str, str],
    stage: Stage,
    *,
    options: ServerOptions | None = None,
    statements: tuple[str, ...] = (),
    sessions: int = 0,
    who: str = "trustuser",
) -> Iterator[Gathered]:
    """A server of one's own, with statements run in it, and with sessions of `who` in it."""
    server: PostgresServer = stage.fixture("make_postgres")(options)
    for statement in statements:
        server.execute(statement)
    with ExitStack() as stack:
        for _ in range(sessions):
            if session := until(partial(_room, server, who), "room for a session"):
                stack.enter_context(session)
        yield gathered(server.port, server.pki, environ)


def _room(server: PostgresServer, user: str) -> psycopg.Connection[tuple[object, ...]] | None:
    """A session, or None: those that ran the statements end by themselves, and count until they have."""
    try:
        return _session(server, user)
    except psycopg.OperationalError as exc:
        if "too many connections" not in str(exc):
            raise
        return None


def _session(server: PostgresServer, user: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(host=str(server.sockets), port=server.port, user=user, dbname=DATABASE)


@contextmanager
def _stopping(stage: Stage) -> Iterator[Gathered]:
    """A smart shutdown waits for the last client, and takes no new one."""
    server: PostgresServer = stage.fixture("make_postgres")()
    with _session(server, "trustuser"):
        os.kill(server.pid, Shutdown.SMART.value)
        with suppress(psycopg.OperationalError):  # it has heard the signal when it takes nobody any more
            while True:
                _session(server, "trustuser").close()
        yield gathered(server.port, server.pki, login())
        server.stop(Shutdown.IMMEDIATE)


@contextmanager
def _standby(stage: Stage) -> Iterator[Gathered]:
    """A server that recovers for ever: nobody has told it where its primary is."""
    server: PostgresServer = stage.fixture("make_postgres")()
    _make_standby(server)
    yield gathered(server.port, server.pki, login())


class _Recovering(PostgresServer):
    """Says of itself that it is a standby, and no more, as it takes nobody."""

    def _pid_file(self, line: int) -> str:
        return super()._pid_file(line).replace("standby", "ready")


@contextmanager
def _recovering(stage: Stage) -> Iterator[Gathered]:
    stage.fixture("services")
    options = ServerOptions(settings={"hot_standby": "off"})
    with _Recovering(postgres_build(max(MAJORS)), stage.fixture("pki"), options) as server:
        _make_standby(server)
        yield gathered(server.port, server.pki, login())


def _make_standby(server: PostgresServer) -> None:
    server.stop()
    signal_file = server.folder / "data" / "standby.signal"
    signal_file.touch()
    owner = (server.folder / "data" / "PG_VERSION").stat()
    os.chown(signal_file, owner.st_uid, owner.st_gid)
    server.start()


@contextmanager
def _open_passfile(stage: Stage) -> Iterator[Gathered]:
    server: PostgresServer = stage.fixture("postgres")
    path = stage.folder / ".pgpass"
    path.write_text(f"*:*:*:md5user:{PASSWORDS['md5user']}\n")
    path.chmod(0o644)
    environ = {"PGUSER": "scram", "PGDATABASE": DATABASE, "HOME": str(stage.folder)}
    yield gathered(server.port, server.pki, environ)


@contextmanager
def _posed(script: Script, stage: Stage) -> Iterator[Gathered]:
    """What no real server does on demand."""
    folder = stage.folder / "papers"
    folder.mkdir()
    papers = make_papers(folder)
    with posed_postgres(papers, script) as endpoint:
        yield posed(endpoint, folder)


def posed(endpoint: Endpoint, folder: Path) -> Gathered:
    """The papers of `make_papers`, by flags."""
    flags = {
        "kind": "postgres",
        "upstream": [str(endpoint)],
        "cert": folder / "client.pem",
        "key": folder / "client.key",
        "ca": folder / "ca.pem",
        "verify": "name:localhost",
    }
    return from_flags(flags, means({"PGUSER": "ann", "PGDATABASE": "sales", "PGPASSWORD": "right"}))


async def _knows_nothing(server: ServerSide) -> None:
    """A server that has another password, and lets everybody in."""
    await server.open()
    scram = Scram(server, "another")
    await scram.challenge()
    await server.read_exactly(1)
    await server.read_packet()
    await server.send(authentication_ok() + PARAMETER + READY)
    await server.until_closed()


async def _leaves(server: ServerSide) -> None:
    await server.open()
    scram = Scram(server, "right")
    await scram.challenge()
    await message(server)  # the proof: closing with something unread would be a reset


async def _falls_silent(server: ServerSide) -> None:
    await server.open()
    scram = Scram(server, "right")
    await scram.challenge()
    await trio.sleep_forever()


async def _plus_alone(server: ServerSide) -> None:
    await server.open()
    await server.send(authentication_sasl([SCRAM_PLUS]))
    await server.until_closed()


async def _answers_nothing(server: ServerSide) -> None:
    """Lets everybody in, and fails at every query."""
    await server.open()
    await server.send(authentication_ok() + PARAMETER + READY)
    refusal = error_response(severity="ERROR", sqlstate="XX001", message="could not read block 0")
    while await server.read_exactly(1) == b"Q":
        await server.read_packet()
        await server.send(refusal + READY)


_LOGIN_TRIGGER = (
    "CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql AS"
    " $$ BEGIN IF session_user <> 'postgres' THEN RAISE EXCEPTION 'come back on Monday'; END IF; END $$",
    "CREATE EVENT TRIGGER closed ON login EXECUTE FUNCTION public.no()",
)

FAULTS: tuple[Fault, ...] = (
    Fault(
        "postgres-wrong-password",
        "the password is wrong",
        Code.PG_LOGIN_REFUSED,
        partial(_shared, login(password="wrong")),
        seen="scram",
    ),
    Fault(
        "postgres-unknown-user",
        "the server has no such user",
        Code.PG_LOGIN_REFUSED,
        partial(_shared, login("nobody", "any")),
        seen="nobody",
    ),
    Fault(
        "postgres-unknown-user-trusted",
        "the server asks for no password and has no such user",
        Code.PG_LOGIN_REFUSED,
        partial(_own, login("nobody"), options=ServerOptions(hba=(LOCAL, "hostssl all all all trust"))),
        seen="knows no user nobody",
    ),
    Fault(
        "postgres-no-database",
        "the server has no database of this name",
        Code.PG_NO_DATABASE,
        partial(_shared, login(database="nowhere")),
        seen="nowhere",
    ),
    Fault(
        "postgres-no-hba-line",
        "no line of pg_hba.conf speaks of this user",
        Code.PG_NOT_LET_IN,
        partial(_own, login(), options=ServerOptions(hba=(LOCAL, "hostssl all certuser all cert map=certificates"))),
        seen="no pg_hba.conf entry",
    ),
    Fault(
        "postgres-hba-reject",
        "a line of pg_hba.conf rejects this user",
        Code.PG_NOT_LET_IN,
        partial(_own, login(), options=ServerOptions(hba=(LOCAL, "hostssl all scram all reject", *SCRAM_FOR_ALL[1:]))),
        seen="rejects",
    ),
    Fault(
        "postgres-certificate-names-another",
        "clientcert=verify-full, and the certificate names another user",
        Code.PG_NOT_LET_IN,
        partial(
            _own,
            login(),
            options=ServerOptions(hba=(LOCAL, "hostssl all all all scram-sha-256 clientcert=verify-full")),
        ),
        seen="its common name is client",
    ),
    Fault(
        "postgres-cert-method-names-another",
        "the method cert, and the certificate names another user",
        Code.PG_NOT_LET_IN,
        partial(_own, login("certuser"), options=ServerOptions(hba=(LOCAL, "hostssl all all all cert"))),
        seen="certuser",
    ),
    Fault(
        "postgres-role-may-not-log-in",
        "the role may not log in",
        Code.PG_NOT_LET_IN,
        partial(_own, login(), statements=("ALTER ROLE scram NOLOGIN",)),
        seen="not permitted to log in",
    ),
    Fault(
        "postgres-login-trigger",
        "a login trigger of the database says no",
        Code.PG_NOT_LET_IN,
        partial(_own, login(), statements=_LOGIN_TRIGGER),
        seen="come back on Monday",
    ),
    Fault(
        "postgres-no-connect-privilege",
        "the user may not connect to the database",
        Code.PG_NO_DATABASE,
        partial(_own, login("certuser"), statements=(f"REVOKE CONNECT ON DATABASE {DATABASE} FROM PUBLIC",)),
        seen=DATABASE,
    ),
    Fault(
        "postgres-database-closed",
        "the database takes no connections",
        Code.PG_NO_DATABASE,
        partial(
            _own,
            login(database="shut"),
            statements=("CREATE DATABASE shut", "ALTER DATABASE shut ALLOW_CONNECTIONS false"),
        ),
        seen="shut",
    ),
    Fault(
        "postgres-full",
        "all connections of the server are taken",
        Code.PG_FULL,
        partial(
            _own,
            login(),
            options=ServerOptions(max_connections=5, settings={"superuser_reserved_connections": "0"}),
            sessions=5,
        ),
        seen="of the server",
    ),
    Fault(
        "postgres-role-full",
        "all connections of the user are taken",
        Code.PG_FULL,
        partial(_own, login(), statements=("ALTER ROLE scram CONNECTION LIMIT 1",), sessions=1, who="scram"),
        seen="the role scram",
    ),
    Fault(
        "postgres-database-full",
        "all connections of the database are taken",
        Code.PG_FULL,
        partial(_own, login(), statements=(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT 1",), sessions=1),
        seen=f"the database {DATABASE}",
    ),
    Fault(
        "postgres-recovering",
        "the server is a standby that takes no queries",
        Code.PG_NOT_READY,
        _recovering,
        seen="not accepting connections",
    ),
    Fault("postgres-stopping", "the server is stopping", Code.PG_NOT_READY, _stopping, seen="shutting down"),
    Fault(
        "postgres-md5",
        "the server asks for an MD5 hash of the password",
        Code.PG_WEAK_LOGIN,
        partial(_shared, login("md5user")),
        verdict=Verdict.WARN,
        seen="MD5",
    ),
    Fault(
        "postgres-clear-text",
        "the server asks for the password in clear text",
        Code.PG_WEAK_LOGIN,
        partial(_shared, login("plain")),
        verdict=Verdict.WARN,
        seen="clear text",
    ),
    Fault(
        "postgres-certificate-unused",
        "the server asks for no client certificate",
        Code.PG_CERTIFICATE_UNUSED,
        partial(
            _own,
            login(),
            options=ServerOptions(
                hba=(LOCAL, "hostssl all all all scram-sha-256"), settings={"ssl_ca_file": "", "ssl_crl_file": ""}
            ),
        ),
        verdict=Verdict.WARN,
        warnings=frozenset({Code.TLS_NO_CERTIFICATE_ASKED}),
        seen="no client certificate",
    ),
    Fault(
        "postgres-standby",
        "the server is a standby, where nobody has said so",
        Code.PG_STANDBY,
        _standby,
        verdict=Verdict.WARN,
        seen="is a standby",
    ),
    Fault(
        "postgres-read-only",
        "the server takes no writes",
        Code.PG_STANDBY,
        partial(_own, login(), options=ServerOptions(settings={"default_transaction_read_only": "on"})),
        verdict=Verdict.WARN,
        seen="default_transaction_read_only",
    ),
    Fault(
        "postgres-nearly-full",
        "hardly a connection of the server is free",
        Code.PG_NEARLY_FULL,
        partial(
            _own,
            login(),
            options=ServerOptions(max_connections=40, settings={"superuser_reserved_connections": "0"}),
            sessions=37,
        ),
        verdict=Verdict.WARN,
        seen="37 of the server's 40",
    ),
    Fault(
        "postgres-role-nearly-full",
        "hardly a connection of the user is free",
        Code.PG_NEARLY_FULL,
        partial(_own, login(), statements=("ALTER ROLE scram CONNECTION LIMIT 20",), sessions=19, who="scram"),
        verdict=Verdict.WARN,
        seen="19 of the 20 that the role scram",
    ),
    Fault(
        "postgres-passfile-open",
        "others may read the password file, so libpq does not use it",
        Code.KEY_EXPOSED,
        _open_passfile,
        verdict=Verdict.WARN,
        seen=".pgpass",
    ),
    Fault(
        "postgres-server-unproven",
        "the server does not know the password, and lets us in",
        Code.PG_SERVER_UNPROVEN,
        partial(_posed, _knows_nothing),
    ),
    Fault(
        "postgres-closes-at-login",
        "the server closes the connection in the middle of the login",
        Code.UPSTREAM_CLOSED,
        partial(_posed, _leaves),
    ),
    Fault(
        "postgres-silent-at-login",
        "the server says nothing more in the middle of the login",
        Code.PG_LOGIN_TIMEOUT,
        partial(_posed, _falls_silent),
    ),
    Fault(
        "postgres-only-channel-binding",
        "the server offers nothing but SCRAM-SHA-256-PLUS",
        Code.PG_ONLY_CHANNEL_BINDING,
        partial(_posed, _plus_alone),
        also=frozenset({Code.UPSTREAM_CLOSED, Code.PG_LOGIN_TIMEOUT}),
    ),
    Fault(
        "postgres-queries-fail",
        "the server lets us in and fails at every query",
        Code.PG_QUERY_FAILED,
        partial(_posed, _answers_nothing),
        seen="could not read block 0",
    ),
)
