"""The look inside Postgres, at servers that answer oddly, badly or not at all."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from mtlskit.config.values import Endpoint, Login
from mtlskit.doctor.case import Case, Credentials, Identified, Means
from mtlskit.doctor.checks.postgres import look_inside_postgres
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import from_flags
from mtlskit.doctor.postgres import inside
from mtlskit.errors import Code
from mtlskit.net.identity import load_snapshot
from mtlskit.wire.postgres.messages import (
    authentication_ok,
    authentication_sasl,
    authentication_sasl_final,
    error_response,
    frame,
)
from tests.doctor.catalogue.postgres import gathered, login
from tests.services.postgres import PostgresServer
from tests.support.fake_upstream import (
    PARAMETER,
    READY,
    Papers,
    Script,
    ServerSide,
    fake_upstream,
    make_papers,
    nobody_listens,
)
from tests.support.scram_server import Scram
from tests.support.until import until

SECRET = "a secret p@ssword"
WHO = {"PGUSER": "ann", "PGDATABASE": "sales", "PGPASSWORD": SECRET}
LET_IN = authentication_ok() + PARAMETER + READY
THE_TIME = b"the time at which it is asked for"


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return make_papers(tmp_path)


def _row(*values: str | None) -> bytes:
    parts = [struct.pack("!i", -1) if each is None else struct.pack("!i", len(each)) + each.encode() for each in values]
    return frame(b"D", struct.pack("!H", len(values)) + b"".join(parts)) + READY


def answering(answers: Mapping[str, bytes]) -> Script:
    """Lets everybody in, and answers a query by the first of these parts that it holds."""

    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(LET_IN)
        while await server.read_exactly(1) == b"Q":
            asked = (await server.read_packet())[4:].decode()
            answer = next(answer for part, answer in answers.items() if part in asked)
            await server.send(_row(str(datetime.now(UTC).timestamp())) if answer is THE_TIME else answer)

    return script


WELL = {
    "SELECT 1": _row("1"),
    "pg_stat_ssl": _row("t", "TLSv1.3", "AES", "/CN=x", None, "/CN=y"),
    "max_connections": _row("100", "3", None, "off"),
    "pg_stat_activity": _row("10", "1", "2", "-1", "-1", "ann", "sales"),
    "pg_is_in_recovery": _row("f", "off", "default"),
    "clock_timestamp": THE_TIME,
    "system_user": _row(None),
}


def saying(*messages: bytes) -> Script:
    """Says this after the StartupMessage, whatever it hears."""

    async def script(server: ServerSide) -> None:
        await server.open()
        for message in messages:
            await server.send(message)
        await server.until_closed()

    return script


def _case(endpoint: Endpoint, papers: Papers, environ: Mapping[str, str] = WHO, *, step: float = 5.0) -> Case:
    flags = {
        "upstream": [str(endpoint)],
        "cert": papers.folder / "client.pem",
        "key": papers.folder / "client.key",
        "ca": papers.folder / "ca.pem",
        "verify": "name:localhost",
    }
    return from_flags(flags, Means(environ=environ, step=step)).cases[0]


async def _look(case: Case, credentials: Credentials | None = None) -> dict[str, Finding]:
    (endpoint,) = case.tunnel.upstream
    assert case.identity is not None
    snapshot = load_snapshot(case.identity, verify=case.tunnel.verify)
    findings = await look_inside_postgres(case, endpoint, Identified(snapshot=snapshot), credentials)
    for finding in findings:
        assert SECRET not in repr(finding)
        assert finding.seen.isprintable()
        assert len(finding.seen) < 1000
    found = {finding.check: finding for finding in findings}
    assert len(found) == len(findings)
    return found


async def _at(
    script: Script, papers: Papers, environ: Mapping[str, str] = WHO, *, step: float = 5.0
) -> Mapping[str, Finding]:
    async with fake_upstream(papers, _forgiving(script)) as upstream:
        found = await _look(_case(upstream.endpoint, papers, environ, step=step))
        await upstream.all_closed()
    return found


def _forgiving(script: Callable[[ServerSide], Awaitable[None]]) -> Script:
    """A client may leave in the middle."""

    async def forgiving(server: ServerSide) -> None:
        try:
            await script(server)
        except AssertionError:
            raise
        except OSError:
            pass

    return forgiving


async def test_all_is_well(papers: Papers) -> None:
    found = await _at(answering(WELL), papers)
    assert {finding.verdict for finding in found.values()} == {Verdict.PASS}
    assert found["postgres.headroom"].facts["limits"] == [{"of": "server", "limit": 97, "used": 10}]
    assert found["postgres.login"].seen == "ann is let into sales by no password"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (frame(b"R", b""), Code.PG_SERVER_RUBBISH),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Code.PG_SERVER_RUBBISH),
        (b"\0" * 100, Code.PG_SERVER_RUBBISH),
        (frame(b"N", b"x" * 1000) * 1000, Code.PG_SERVER_RUBBISH),
        (READY, Code.PG_SERVER_UNPROVEN),
        (frame(b"R", struct.pack("!I", 11) + b"r=x"), Code.PG_SERVER_RUBBISH),
        (authentication_sasl(["SCRAM-SHA-256"]) + authentication_ok(), Code.PG_SERVER_UNPROVEN),
        (authentication_sasl(["SCRAM-SHA-256"]) * 2, Code.PG_LOGIN_METHOD),
        (authentication_sasl(["SCRAM-SHA-256"]) + frame(b"R", struct.pack("!I", 3)), Code.PG_LOGIN_METHOD),
        (authentication_sasl(["SCRAM-SHA-256"]) + authentication_sasl_final(b"v=x"), Code.PG_SERVER_RUBBISH),
    ],
)
async def test_a_server_that_breaks_the_protocol(papers: Papers, said: bytes, code: Code) -> None:
    found = await _at(saying(said), papers)
    assert found["postgres.login"].code is code
    assert found["postgres.inside"].because == "postgres.login"


async def test_a_server_that_is_not_sure_of_itself(papers: Papers) -> None:
    async def wrong_signature(server: ServerSide) -> None:
        await server.open()
        scram = Scram(server, SECRET)
        await scram.challenge()
        await server.read_exactly(1)
        await server.read_packet()
        await server.send(authentication_sasl_final(b"v=" + b"A" * 43 + b"=") + LET_IN)
        await server.until_closed()

    found = await _at(wrong_signature, papers)
    assert found["postgres.login"].code is Code.PG_SERVER_UNPROVEN


@pytest.mark.parametrize(
    "asked",
    [frame(b"R", struct.pack("!I", 7)), frame(b"R", struct.pack("!I", 9)), authentication_sasl(["OAUTHBEARER"])],
)
async def test_a_login_that_is_not_ours(papers: Papers, asked: bytes) -> None:
    found = await _at(saying(asked), papers)
    assert found["postgres.methods"].verdict is Verdict.PASS
    assert found["postgres.login"].verdict is Verdict.SKIPPED


@pytest.mark.parametrize("code", [3, 5])
async def test_where_the_proxy_logs_in_no_older_password_is_sent(papers: Papers, code: int) -> None:
    heard = bytearray()

    async def listening(server: ServerSide) -> None:
        await server.open()
        await server.send(frame(b"R", struct.pack("!I", code) + b"salt"[: 4 * (code == 5)]))
        heard.extend(await server.until_closed())

    async with fake_upstream(papers, listening) as upstream:
        case = _case(upstream.endpoint, papers, {})
        case = replace(case, tunnel=replace(case.tunnel, login=Login.HEROKU, addon="db-1"))
        found = await _look(case, Credentials("ann", "sales", SECRET, "the add-on"))
        await upstream.all_closed()
    assert found["postgres.login"].code is Code.PG_LOGIN_METHOD
    assert "rotate" in found["postgres.login"].commands[0]
    assert heard == frame(b"X", b"")


async def test_without_a_user_nothing_said_of_the_made_up_one_is_a_failure(papers: Papers) -> None:
    refusal = error_response(sqlstate="28000", message='no pg_hba.conf entry for "client"')
    found = await _at(saying(refusal), papers, {})
    assert found["postgres.login"].verdict is Verdict.SKIPPED
    assert found["postgres.login"].because == "no user: set PGUSER and PGPASSWORD"
    found = await _at(saying(authentication_sasl(["SCRAM-SHA-256"])), papers, {})
    assert "made up" in found["postgres.methods"].seen
    assert found["postgres.login"].verdict is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("state", "code"), [("53300", Code.PG_FULL), ("57P03", Code.PG_NOT_READY), ("08P01", Code.PG_NOT_LET_IN)]
)
async def test_what_meets_everybody_is_a_failure_without_a_user_too(papers: Papers, state: str, code: Code) -> None:
    found = await _at(saying(error_response(sqlstate=state, message="no")), papers, {})
    assert found["postgres.login"].code is code


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("28P01", Code.PG_LOGIN_REFUSED),
        ("28000", Code.PG_NOT_LET_IN),
        ("3D000", Code.PG_NO_DATABASE),
        ("42501", Code.PG_NO_DATABASE),
        ("53100", Code.PG_NOT_READY),
        ("57P01", Code.PG_NOT_READY),
        ("XX000", Code.PG_NOT_READY),
        ("08P01", Code.PG_NOT_LET_IN),
        ("", Code.PG_NOT_LET_IN),
    ],
)
async def test_refusals_in_any_language(papers: Papers, state: str, code: Code) -> None:
    found = await _at(saying(error_response(sqlstate=state, message="\x1b[31mnein\r\n" * 100)), papers)
    assert found["postgres.login"].code is code
    assert found["postgres.login"].hint


async def test_a_server_that_says_nothing_in_time(papers: Papers) -> None:
    found = await _at(saying(authentication_ok()), papers, step=0.5)
    assert found["postgres.login"].code is Code.PG_LOGIN_TIMEOUT
    found = await _at(saying(LET_IN), papers, step=0.5)
    assert found["postgres.session"].code is Code.PG_QUERY_FAILED


async def test_a_server_that_ends_the_session(papers: Papers) -> None:
    goodbye = error_response(sqlstate="57P01", message="terminating connection")
    found = await _at(answering(WELL | {"max_connections": goodbye + READY}), papers)
    assert found["postgres.session"].code is Code.PG_QUERY_FAILED
    assert "terminating" in found["postgres.session"].seen
    assert found["postgres.certificate"].verdict is Verdict.PASS


@pytest.mark.parametrize("rubbish", [frame(b"D", b"\0\5"), frame(b"G", b""), b"\xff" * 50])
async def test_a_server_that_answers_with_rubbish(papers: Papers, rubbish: bytes) -> None:
    found = await _at(answering(WELL | {"pg_stat_activity": rubbish}), papers)
    assert found["postgres.session"].code is Code.PG_SERVER_RUBBISH


async def test_what_a_pooler_does_not_tell_is_not_held_against_it(papers: Papers) -> None:
    no = error_response(severity="ERROR", sqlstate="42601", message="unsupported") + READY
    found = await _at(answering({"SELECT 1": WELL["SELECT 1"], "": no}), papers)
    told = {check: finding.verdict for check, finding in found.items()}
    assert set(told.values()) == {Verdict.PASS, Verdict.SKIPPED}
    assert told["postgres.certificate"] is told["postgres.clock"] is Verdict.SKIPPED
    assert told["postgres.round-trip"] is Verdict.PASS


@pytest.mark.parametrize(
    "odd",
    [
        {"clock_timestamp": _row("NaN")},
        {"clock_timestamp": _row("1e400")},
        {"clock_timestamp": _row(None)},
        {"clock_timestamp": READY},
        {"max_connections": _row("many", "x", "", None)},
        {"pg_stat_activity": _row("9" * 60, "", "-", None, None, None, None)},
        {"pg_stat_ssl": _row("t", None, None, None, "-1", None)},
        {"pg_stat_ssl": _row("t", None, None, "/CN=\x1b", "zz", None)},
        {"pg_is_in_recovery": _row(None, None, None)},
    ],
)
async def test_odd_values_break_nothing(papers: Papers, odd: dict[str, bytes]) -> None:
    found = await _at(answering(WELL | odd), papers)
    assert "postgres.round-trip" in found


@pytest.mark.parametrize(
    "seen", [_row("f", None, None, None, None, None), _row("t", "TLSv1.3", "AES", None, None, None)]
)
async def test_a_gateway_that_has_looked_at_the_certificate(papers: Papers, seen: bytes) -> None:
    """It demands one, so it is no fault that the server behind it has not seen ours."""
    found = await _at(answering(WELL | {"pg_stat_ssl": seen}), papers)
    assert found["postgres.certificate"].verdict is Verdict.PASS
    assert "insists on a client certificate" in found["postgres.certificate"].seen


async def test_another_certificate_than_ours(papers: Papers) -> None:
    row = _row("t", "TLSv1.3", "AES", "/CN=gateway", "12345", "/CN=y")
    found = await _at(answering(WELL | {"pg_stat_ssl": row}), papers)
    assert "another certificate than ours" in found["postgres.certificate"].seen


@pytest.mark.parametrize(
    ("environ", "name", "verdict"),
    [
        ({}, "orders", Verdict.WARN),
        ({"PGTARGETSESSIONATTRS": "read-write"}, "orders", Verdict.WARN),
        ({"PGTARGETSESSIONATTRS": "prefer-standby"}, "orders", Verdict.PASS),
        ({}, "orders-follower", Verdict.PASS),
        ({}, "orders_ro", Verdict.PASS),
    ],
)
async def test_a_standby_may_be_meant(papers: Papers, environ: dict[str, str], name: str, verdict: Verdict) -> None:
    answers = WELL | {"pg_is_in_recovery": _row("t", "off", "default")}
    async with fake_upstream(papers, answering(answers)) as upstream:
        case = replace(_case(upstream.endpoint, papers, WHO | environ), name=name)
        found = await _look(case)
        await upstream.all_closed()
    assert found["postgres.standby"].verdict is verdict


@pytest.mark.parametrize(
    ("source", "verdict"), [("user", Verdict.PASS), ("database", Verdict.WARN), ("configuration file", Verdict.WARN)]
)
async def test_a_user_who_only_reads(papers: Papers, source: str, verdict: Verdict) -> None:
    found = await _at(answering(WELL | {"pg_is_in_recovery": _row("f", "on", source)}), papers)
    assert found["postgres.standby"].verdict is verdict


async def test_the_clocks_are_compared(postgres: PostgresServer) -> None:
    case = gathered(postgres.port, postgres.pki, login()).cases[0]
    ahead = replace(case.means, now=lambda: datetime.now(UTC) + timedelta(minutes=5))
    found = await _look(replace(case, means=ahead))
    clock = found["postgres.clock"]
    assert clock.code is Code.CLOCK_DRIFTS
    assert "300 s ahead" in clock.seen
    found = await _look(case)
    assert found["postgres.clock"].verdict is Verdict.PASS


async def test_the_session_says_who_it_is_and_leaves_nothing_behind(postgres: PostgresServer) -> None:
    before = postgres.log()
    await _look(gathered(postgres.port, postgres.pki, login()).cases[0])
    until(lambda: "disconnection" in postgres.log()[len(before) :], "the end of the session")
    said = postgres.log()[len(before) :]
    assert "application_name=mtlskit-doctor" in said
    assert "unexpected EOF" not in said


@pytest.mark.parametrize("name", ["PGUSER", "PGDATABASE", "PGPASSWORD"])
@pytest.mark.parametrize("odd", ["a\0b", "a\udcffb"])
async def test_what_cannot_be_said_to_a_server(papers: Papers, name: str, odd: str) -> None:
    async def by_password(server: ServerSide) -> None:
        await server.open()
        await Scram(server, "another").whole()

    found = await _at(by_password, papers, WHO | {name: odd})
    assert found["postgres.login"].code is Code.PG_LOGIN_REFUSED


async def test_a_server_that_has_gone_since(papers: Papers) -> None:
    async with nobody_listens() as endpoint:
        found = await _look(_case(endpoint, papers))
    assert found["postgres.connect"].code is Code.TCP_REFUSED


async def test_without_an_identity_there_is_nothing_to_try(papers: Papers) -> None:
    case = _case(Endpoint("localhost", 1), papers)
    (finding,) = await look_inside_postgres(case, Endpoint("localhost", 1), Identified(), None)
    assert finding.verdict is Verdict.SKIPPED


async def test_a_server_that_dies_in_the_middle_of_a_query(papers: Papers) -> None:
    async def dying(server: ServerSide) -> None:
        await server.open()
        await server.send(LET_IN)
        await server.read_exactly(1)
        await server.read_packet()
        await server.send(frame(b"S", b"a\0b\0") + error_response(sqlstate="57P02", message="a crash"))

    found = await _at(dying, papers)
    assert found["postgres.session"].code is Code.PG_QUERY_FAILED
    assert "a crash" in found["postgres.session"].seen


async def test_a_server_that_leaves_in_the_middle_of_a_session(papers: Papers) -> None:
    async def leaving(server: ServerSide) -> None:
        await server.open()
        await server.send(LET_IN)
        await server.read_exactly(1)

    found = await _at(leaving, papers)
    assert found["postgres.session"].code in (Code.UPSTREAM_CLOSED, Code.TCP_RESET)


async def test_it_may_be_interrupted_and_leaves_nothing_open(papers: Papers) -> None:
    arrived = trio.Event()

    async def silent(server: ServerSide) -> None:
        await server.open()
        await server.send(LET_IN)
        arrived.set()
        await server.until_closed()

    async with fake_upstream(papers, _forgiving(silent)) as upstream, trio.open_nursery() as nursery:
        nursery.start_soon(_look, _case(upstream.endpoint, papers))
        await arrived.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await upstream.all_closed()


@pytest.mark.parametrize("refusing_strangers", [True, False])
async def test_a_server_that_never_asks_for_a_certificate(papers: Papers, refusing_strangers: bool) -> None:
    """It may still tell strangers something else, when they say who they are; only then is all well."""
    seen = _row("t", "TLSv1.3", "AES", None, None, None)
    well = answering(WELL | {"pg_stat_ssl": seen})
    visits = 0

    async def script(server: ServerSide) -> None:
        nonlocal visits
        visits += 1
        if visits > 1 and refusing_strangers:
            await server.open()
            return
        await well(server)

    context = papers.server_context()
    context.verify_mode = ssl.CERT_NONE
    async with fake_upstream(papers, _forgiving(script), context=context) as upstream:
        found = await _look(_case(upstream.endpoint, papers))
        await upstream.all_closed()
    certificate = found["postgres.certificate"]
    assert certificate.code is (None if refusing_strangers else Code.PG_CERTIFICATE_UNUSED)


async def test_the_time_for_questions_is_bounded(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "_SHARE", 0)
    found = await _at(answering(WELL), papers)
    assert found["postgres.login"].verdict is Verdict.PASS
    assert found["postgres.unfinished"].verdict is Verdict.SKIPPED


@pytest.mark.parametrize(("environ", "verdict"), [({}, Verdict.WARN), ({"PGHOST": "127.0.0.1"}, Verdict.FAIL)])
async def test_pguser_may_be_for_another_tunnel(papers: Papers, environ: dict[str, str], verdict: Verdict) -> None:
    refusal = error_response(sqlstate="28P01", message="no")
    async with fake_upstream(papers, _forgiving(saying(refusal))) as upstream:
        case = _case(upstream.endpoint, papers, WHO | environ | {"PGPORT": str(upstream.endpoint.port)})
        config = replace(case.config, tunnels=case.config.tunnels * 2)
        found = await _look(replace(case, config=config))
        await upstream.all_closed()
    assert found["postgres.login"].verdict is verdict
