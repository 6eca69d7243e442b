"""This host's clock: measured, guessed, or not to be known."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.config.values import Endpoint, HerokuConfig
from mtlskit.doctor.case import Case, Identified, Means, Shaken, Taken
from mtlskit.doctor.checks.clock import compare_clocks
from mtlskit.doctor.checks.identity import identify
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import from_flags, heroku_door
from mtlskit.doctor.network.http_date import ServerDate, ask_date
from mtlskit.errors import Code
from tests.services.pki import Pki
from tests.support.date_server import date_server
from tests.support.tls_servers import closed_port, full_backlog, listening, waiting
from tests.support.x509_builder import DAY, make_certificate

_HOUR = timedelta(hours=1)


def case_of(pki: Pki, ahead: timedelta = timedelta(), *, url: str = "", **flags: Any) -> Case:
    """Whose clock is ahead by so much; `url` is Heroku's API."""
    environ = {"HEROKU_DATA_HOST": url}
    means = Means(
        now=lambda: datetime.now(UTC) + ahead,
        step=0.5,
        environ=environ,
        heroku=heroku_door(HerokuConfig(), environ) if url else None,
    )
    good = {"upstream": ["db:5432"], "cert": pki.client.cert, "key": pki.client.key, "ca": pki.server_ca}
    (case,) = from_flags({**good, **flags}, means).cases
    return case


async def one(case: Case, *, shaken: tuple[Shaken, ...] = (), taken: tuple[Taken, ...] = ()) -> Finding:
    (finding,) = await compare_clocks(case, identify(case), shaken, taken)
    return finding


def servers(begins: timedelta, ends: timedelta = 90 * DAY) -> tuple[Shaken, ...]:
    """What was shaken with a server whose certificate begins and ends so long from now."""
    now = datetime.now(UTC)
    return (Shaken(chain=(make_certificate("db", begins=now + begins, ends=now + ends).certificate,)),)


async def test_nobody_has_shown_a_clock(pki: Pki) -> None:
    finding = await one(case_of(pki), shaken=servers(-DAY))
    assert (finding.verdict, finding.because) == (Verdict.SKIPPED, "no other clock was seen")


async def test_the_api_agrees(pki: Pki) -> None:
    with date_server() as url:
        finding = await one(case_of(pki, url=url))
    assert finding.verdict is Verdict.PASS
    assert abs(finding.facts["seconds_ahead"]) < 60
    assert "agrees with that of Heroku's data API (127.0.0.1)" in finding.seen


@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(minutes=-2), timedelta(days=5)])
async def test_a_difference_for_which_nothing_fails_is_a_warning(pki: Pki, ahead: timedelta) -> None:
    with date_server() as url:
        finding = await one(case_of(pki, ahead, url=url), shaken=servers(-90 * DAY))
    assert (finding.verdict, finding.code) == (Verdict.WARN, Code.CLOCK_DRIFTS)
    assert ("ahead of" if ahead > timedelta() else "behind") in finding.seen
    assert "timedatectl status" in finding.commands


async def test_our_certificate_fails_for_the_clock(pki: Pki) -> None:
    with date_server() as url:
        behind = await one(case_of(pki, -5 * DAY, url=url))
        ahead = await one(case_of(pki, 60 * DAY, url=url))
    for finding in (behind, ahead):
        assert (finding.verdict, finding.code) == (Verdict.FAIL, Code.CLOCK_WRONG)
        assert "client.crt" in finding.seen
        assert "server-ca.crt" in finding.seen


async def test_the_server_s_certificate_fails_for_the_clock(pki: Pki) -> None:
    with date_server() as url:
        finding = await one(case_of(pki, 4 * DAY, url=url), shaken=servers(-DAY, 2 * DAY))
    assert finding.code is Code.CLOCK_WRONG
    assert "CN=db of the server is outside its dates" in finding.seen


async def test_with_a_right_clock_a_certificate_of_tomorrow_is_the_server_s_fault(pki: Pki) -> None:
    with date_server() as url:
        finding = await one(case_of(pki, url=url), shaken=servers(DAY))
    assert finding.verdict is Verdict.PASS


async def test_an_expired_certificate_is_not_the_clock_s_fault(pki: Pki) -> None:
    with date_server() as url:
        files = {"cert": pki.client_expired.cert, "key": pki.client_expired.key}
        finding = await one(case_of(pki, timedelta(minutes=10), url=url, **files))
    assert finding.code is Code.CLOCK_DRIFTS


async def test_the_server_s_certificate_has_not_begun(pki: Pki) -> None:
    finding = await one(case_of(pki), shaken=servers(2 * _HOUR))
    assert finding.verdict is Verdict.SKIPPED
    assert "CN=db of the server begins at" in finding.seen


async def test_neither_ours_nor_the_server_s_has_begun(pki: Pki) -> None:
    finding = await one(case_of(pki, -4 * DAY), shaken=servers(2 * _HOUR))
    assert (finding.verdict, finding.code) == (Verdict.FAIL, Code.CLOCK_WRONG)
    assert "seems to be behind, by 4 days at least" in finding.seen


async def test_ours_was_issued_just_now(pki: Pki) -> None:
    finding = await one(case_of(pki, -1.1 * DAY), shaken=servers(-90 * DAY))
    assert (finding.verdict, finding.code) == (Verdict.WARN, Code.CLOCK_WRONG)
    later = await one(case_of(pki, -4 * DAY), shaken=servers(-90 * DAY))
    assert later.verdict is Verdict.SKIPPED


async def test_a_server_that_tells_the_time(pki: Pki) -> None:
    endpoint = Endpoint("db", 5432)
    told = (Taken(accepted=True, server_time=datetime.now(UTC), endpoint=endpoint),)
    assert (await one(case_of(pki), taken=told)).verdict is Verdict.PASS
    finding = await one(case_of(pki, timedelta(minutes=3)), taken=told)
    assert (finding.verdict, finding.code, finding.about) == (Verdict.WARN, Code.CLOCK_DRIFTS, "db:5432")


async def test_an_api_that_does_not_answer(pki: Pki) -> None:
    with closed_port() as port, full_backlog() as silent, listening(waiting) as mute:
        for place in (port, silent, mute):
            found = await compare_clocks(case_of(pki, url=f"http://127.0.0.1:{place}"), Identified(), (), ())
            assert [each.check for each in found] == ["clock.api", "clock.difference"]
            assert {each.verdict for each in found} == {Verdict.SKIPPED}


async def test_a_tunnel_that_has_nothing_to_do_with_heroku_does_not_ask_it(pki: Pki) -> None:
    environ = {"HTTPS_PROXY": "http://127.0.0.1:1"}
    case = case_of(pki)
    means = replace(case.means, environ=environ, heroku=heroku_door(HerokuConfig(), environ))
    found = await compare_clocks(replace(case, means=means), Identified(), (), ())
    assert [each.check for each in found] == ["clock.difference"]


async def test_an_api_at_a_host_that_is_none(pki: Pki) -> None:
    found = await compare_clocks(case_of(pki, url="https://ann:a-secret@example.com"), Identified(), (), ())
    assert [each.verdict for each in found] == [Verdict.SKIPPED] * 2
    assert "a-secret" not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "Mon, 99 Foo 2026 99:99:99 GMT",
        "x" * 5000,
        "Thu, 01 Jan 99999 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
    ],
)
async def test_a_date_that_is_none(text: str) -> None:
    with date_server(text) as url:
        assert await ask_date(url, {}, patience=3) == "its answer has no Date"


async def test_no_date_at_all() -> None:
    with date_server("") as url:
        assert await ask_date(url, {}, patience=3) == "its answer has no Date"


async def test_a_date_without_a_zone() -> None:
    with date_server("Mon, 23 Nov 2026 10:11:12 -0000") as url:
        found = await ask_date(url, {}, patience=3)
    assert isinstance(found, ServerDate)
    assert found.at == datetime(2026, 11, 23, 10, 11, 12, 500_000, tzinfo=UTC)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"\0" * 5000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000])
async def test_servers_that_are_none(answer: bytes) -> None:
    def rubbish(client: socket.socket) -> None:
        client.sendall(answer)
        waiting(client)

    with listening(rubbish) as port:
        found = await ask_date(f"http://127.0.0.1:{port}/", {}, patience=1)
    assert isinstance(found, str)


def environ_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "root.crt"))
    return {}


@pytest.mark.parametrize(
    ("begins", "name", "good"),
    [(-DAY, "localhost", True), (DAY, "localhost", True), (-DAY, "elsewhere.example", False)],
)
async def test_dates_of_its_certificate_do_not_count_and_its_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: timedelta, name: str, good: bool
) -> None:
    now = datetime.now(UTC)
    root = make_certificate("root", ca=True, usages=None, digital_signature=False, begins=now - DAY, ends=now + 9 * DAY)
    (tmp_path / "root.crt").write_bytes(root.cert_pem)
    made = make_certificate(
        "api",
        issuer=root,
        begins=now + begins,
        ends=now + 5 * DAY,
        usages=(ExtendedKeyUsageOID.SERVER_AUTH,),
        further=(x509.SubjectAlternativeName([x509.DNSName(name)]),),
    )
    (tmp_path / "api.pem").write_bytes(made.cert_pem + made.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "api.pem")

    def answer(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            tls.recv(4096)
            tls.sendall(b"HTTP/1.1 404 No\r\nDate: Mon, 23 Nov 2026 10:11:12 GMT\r\nContent-Length: 0\r\n\r\n")
            while tls.recv(4096):
                pass

    with listening(answer) as port:
        found = await ask_date(f"https://localhost:{port}/", environ_of(tmp_path, monkeypatch), patience=3)
    assert isinstance(found, ServerDate) is good
