"""What is made again, what never is, and how long that goes on. The clock jumps; no test waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
import trio
from trio.testing import MockClock

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.client import Heroku
from mtlskit.heroku.events import HerokuAnswered, HerokuCallDelayed, HerokuCallRepeated
from mtlskit.heroku.values import AddonKind
from mtlskit.telemetry import Event
from tests.support.api_client import CANARY, TOKEN, Answers, assert_tells_no_secret, fake_heroku, patience

PG = "/postgres/v0/databases/postgresql-x"
GOOD = {"id": "c1", "status": "pending"}


class Script:
    """Answers in order, the last one for ever: a response, or an exception to raise. Remembers when it was asked."""

    def __init__(self, *steps: httpx.Response | Exception) -> None:
        self.steps = list(steps)
        self.asked: list[tuple[str, str]] = []
        self.times: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path))
        self.times.append(trio.current_time())
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return httpx.Response(step.status_code, headers=step.headers, content=step.content)


def failure(status: int, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"id": "oops", "message": f"It {CANARY[:6]}ed."}, headers=named)


FINE = httpx.Response(200, json=GOOD)

Ask = Callable[[Heroku], Awaitable[object]]


async def get(heroku: Heroku) -> object:
    return await heroku.data.certificate("postgresql-x", "c1")


async def delete(heroku: Heroku) -> object:
    await heroku.data.delete_certificate("postgresql-x", "c1")
    return None


async def create(heroku: Heroku) -> object:
    return await heroku.data.create_certificate("postgresql-x")


async def rotate(heroku: Heroku) -> object:
    await heroku.data.rotate_credential("postgresql-x")
    return None


async def rotate_kafka(heroku: Heroku) -> object:
    return await heroku.data.rotate_kafka_credentials("kafka-x")


BEFORE_SENDING = [httpx.ConnectError(""), httpx.ConnectTimeout(""), httpx.PoolTimeout(""), httpx.ProxyError("")]
AFTER_SENDING: list[httpx.Response | Exception] = [
    httpx.ReadError(""),
    httpx.ReadTimeout(""),
    httpx.WriteError(""),
    httpx.WriteTimeout(""),
    httpx.RemoteProtocolError(f"illegal status line: {CANARY}"),
    httpx.CloseError(""),
    failure(408),
    failure(500),
    failure(502),
    failure(503, Retry_After="1"),
    failure(504),
]


def name_of(step: object) -> str:
    return str(step.status_code) if isinstance(step, httpx.Response) else type(step).__name__


@pytest.mark.parametrize("ask", [get, delete, create, rotate, rotate_kafka], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("step", [*BEFORE_SENDING, failure(429)], ids=name_of)
async def test_what_was_not_done_is_asked_again(
    ask: Ask, step: httpx.Response | Exception, autojump_clock: MockClock
) -> None:
    script = Script(step, step, FINE)
    async with fake_heroku(script) as heroku:
        await ask(heroku)
    assert len(script.asked) == 3
    assert len(set(script.asked)) == 1


@pytest.mark.parametrize("ask", [get, delete], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("step", AFTER_SENDING, ids=name_of)
async def test_a_call_that_may_be_repeated_is(
    ask: Ask, step: httpx.Response | Exception, autojump_clock: MockClock
) -> None:
    script = Script(step, step, FINE)
    async with fake_heroku(script) as heroku:
        await ask(heroku)
    assert len(script.asked) == 3


@pytest.mark.parametrize("ask", [create, rotate, rotate_kafka], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("step", AFTER_SENDING, ids=name_of)
async def test_a_post_whose_fate_is_unknown_is_never_repeated(ask: Ask, step: httpx.Response | Exception) -> None:
    script = Script(step, FINE)
    async with fake_heroku(script) as heroku:
        with pytest.raises(HerokuError, match="whether it took effect is not known, so it was not repeated") as caught:
            await ask(heroku)
    assert caught.value.code is Code.API_UNCERTAIN
    assert len(script.asked) == 1
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize("ask", [create, rotate, rotate_kafka], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("body", [b"<html>", b'{"id": "c1", "sta', b"[]"])
async def test_a_post_that_says_yes_in_a_way_nobody_can_read_is_uncertain(ask: Ask, body: bytes) -> None:
    script = Script(httpx.Response(201, content=body), FINE)
    async with fake_heroku(script) as heroku:
        with pytest.raises(HerokuError, match="expected") as caught:
            await ask(heroku)
    assert caught.value.code is Code.API_UNCERTAIN
    assert len(script.asked) == 1


async def test_a_deletion_that_a_login_page_answers_is_not_believed() -> None:
    async with fake_heroku(Script(httpx.Response(200, html="<html>Welcome to our network"))) as heroku:
        with pytest.raises(HerokuError) as caught:
            await delete(heroku)
    assert caught.value.code is Code.API_RUBBISH


@pytest.mark.parametrize("status", [404, 410])
async def test_what_is_gone_is_deleted(status: int) -> None:
    async with fake_heroku(Script(failure(status))) as heroku:
        await heroku.data.delete_certificate("postgresql-x", "c1")
        await heroku.data.delete_ip_rule("postgresql-x", AddonKind.POSTGRES, "r1")
        await heroku.data.delete_ip_rule("kafka-x", AddonKind.KAFKA, "r1")


async def test_pauses_grow_up_to_the_longest_and_end_with_the_tries(autojump_clock: MockClock) -> None:
    script = Script(failure(500))
    async with fake_heroku(script, patience=patience(tries=8, total=200.0, most_pause=9.0)) as heroku:
        with pytest.raises(HerokuError, match="given up after 8 tries") as caught:
            await get(heroku)
    pauses = [later - earlier for earlier, later in zip(script.times, script.times[1:], strict=False)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 9.0, 9.0]
    assert (caught.value.code, caught.value.status) == (Code.API_FAILED, 500)


async def test_jitter_takes_a_part_of_the_pause(autojump_clock: MockClock) -> None:
    script = Script(failure(500), failure(500), FINE)
    async with fake_heroku(script, patience=patience(jitter=lambda most: most / 4)) as heroku:
        await get(heroku)
    assert script.times == [0.0, 0.125, 0.375]


async def test_the_total_ends_it_before_the_tries_do(autojump_clock: MockClock) -> None:
    script = Script(failure(500))
    async with fake_heroku(script, patience=patience(tries=100, total=10.0)) as heroku:
        with pytest.raises(HerokuError) as caught:
            await get(heroku)
    assert script.times == [0.0, 0.5, 1.5, 3.5, 7.5]
    assert caught.value.code is Code.API_FAILED


async def test_no_connection_at_all(autojump_clock: MockClock) -> None:
    script = Script(httpx.ConnectError(CANARY))
    async with fake_heroku(script) as heroku:
        with pytest.raises(HerokuError, match=r"https://api\.data\.heroku\.com: no connection") as caught:
            await create(heroku)
    assert caught.value.code is Code.API_UNREACHABLE
    assert len(script.asked) == 5


@pytest.mark.parametrize("value", ["7", " 7 "])
async def test_retry_after_is_obeyed(value: str, autojump_clock: MockClock) -> None:
    script = Script(failure(429, Retry_After=value), FINE)
    async with fake_heroku(script) as heroku:
        await create(heroku)
    assert script.times == [0.0, 7.5]


async def test_retry_after_as_a_date_is_obeyed(autojump_clock: MockClock) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    script = Script(failure(429, Retry_After=moment), FINE)
    async with fake_heroku(script, patience=patience(total=7200.0)) as heroku:
        await create(heroku)
    assert 3000 < script.times[1] <= 3601


@pytest.mark.parametrize("value", ["soon", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "٣"])
async def test_retry_after_that_says_nothing_is_passed_over(value: str, autojump_clock: MockClock) -> None:
    header = httpx.Response(429, json={}, headers=[(b"Retry-After", value.encode("utf-8"))])
    script = Script(header, FINE)
    async with fake_heroku(script) as heroku:
        await create(heroku)
    assert script.times == [0.0, 0.5]


async def test_retry_after_beyond_our_time_ends_it_at_once(autojump_clock: MockClock) -> None:
    script = Script(failure(429, Retry_After="3600", Request_Id="req-5"))
    async with fake_heroku(script) as heroku:
        with pytest.raises(HerokuError, match="it asks for a pause of 3600 s") as caught:
            await get(heroku)
    assert (caught.value.code, caught.value.status, caught.value.request_id) == (Code.API_BUSY, 429, "req-5")
    assert len(script.asked) == 1


async def test_too_many_requests_go_on_until_the_total(autojump_clock: MockClock) -> None:
    script = Script(failure(429))
    async with fake_heroku(script) as heroku:
        with pytest.raises(HerokuError) as caught:
            await create(heroku)
    assert caught.value.code is Code.API_BUSY
    assert len(script.asked) > 5
    assert script.times[-1] <= 90.0


async def test_what_is_repeated_is_told(autojump_clock: MockClock) -> None:
    told: list[Event] = []
    script = Script(failure(503, Request_Id="r"), failure(429, Retry_After="30"), httpx.ConnectError(""), FINE)
    async with fake_heroku(script, emit=told.append) as heroku:
        await get(heroku)
    kinds = [type(event) for event in told]
    assert kinds == [
        HerokuAnswered,
        HerokuCallRepeated,
        HerokuAnswered,
        HerokuCallDelayed,
        HerokuCallRepeated,
        HerokuAnswered,
    ]
    assert told[1].sentence().endswith('"It canaryed" (503 oops, request r); again in 0.5 s (try 2)')
    assert not [event for event in told if TOKEN in repr(event)]


async def test_only_so_many_requests_are_under_way_at_once() -> None:
    under_way = 0
    most = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.testing.wait_all_tasks_blocked()
        under_way -= 1
        return httpx.Response(200, json=GOOD)

    slow: Answers = answer  # type: ignore[assignment]  # MockTransport awaits what a handler returns
    async with fake_heroku(slow, limit=3) as heroku, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(get, heroku)
    assert most == 3


async def test_a_pause_does_not_hold_a_place(autojump_clock: MockClock) -> None:
    script = Script(failure(429, Retry_After="60"), FINE)
    done: list[float] = []
    async with fake_heroku(script, limit=1) as heroku, trio.open_nursery() as nursery:

        async def one() -> None:
            await get(heroku)
            done.append(trio.current_time())

        nursery.start_soon(one)
        nursery.start_soon(one)
    assert done == [0.0, 60.5]


REFUSALS = [
    (401, "unauthorized", Code.API_TOKEN_REFUSED, "the token from HEROKU_API_KEY is refused"),
    (403, "forbidden", Code.API_FORBIDDEN, "the token from HEROKU_API_KEY may not do this"),
    (403, "two_factor", Code.API_TWO_FACTOR, "a second factor is asked for"),
    (400, "bad_request", Code.API_REFUSED, "Heroku says no"),
    (409, "conflict", Code.API_REFUSED, "Heroku says no"),
    (422, "invalid_params", Code.API_REFUSED, "Heroku says no"),
    (418, "teapot", Code.API_REFUSED, "Heroku says no"),
]


@pytest.mark.parametrize(("status", "id", "code", "words"), REFUSALS)
async def test_a_refusal_says_what_the_api_said(status: int, id: str, code: Code, words: str) -> None:  # noqa: A002
    body = {"id": id, "message": f"First line\nsecond \x1b[31mred {TOKEN}. " + "x" * 1000}
    response = httpx.Response(status, json=body, headers={"Request-Id": f"req-{TOKEN}"})
    async with fake_heroku(Script(response)) as heroku:
        with pytest.raises(HerokuError) as caught:
            await heroku.platform.attachments("postgresql-x")
    error = caught.value
    assert (error.code, error.status) == (code, status)
    assert error.sentence.startswith(f'attachments of postgresql-x: {words}: "First line second \\x1b[31mred [token]')
    assert error.sentence.endswith(f"({status} {id}, request req-[token])")
    assert error.sentence.isprintable()
    assert len(error.sentence) < 500
    assert error.hint
    assert_tells_no_secret(error)


async def test_a_refusal_without_json_says_what_came() -> None:
    async with fake_heroku(Script(httpx.Response(403, html=f"<html>{CANARY}"))) as heroku:
        with pytest.raises(HerokuError, match=r"no message, \d+ bytes of text/html") as caught:
            await create(heroku)
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "place"),
    [
        (f"https://evil.example/?t={CANARY}", "https://evil.example"),
        (f"/login/{CANARY}", "another path"),
        (f"https://evil.example:{CANARY}/", "somewhere else"),
        ("", "another path"),
    ],
)
async def test_a_redirect_is_told_and_not_followed(status: int, location: str, place: str) -> None:
    script = Script(httpx.Response(status, headers={"Location": location}))
    async with fake_heroku(script) as heroku:
        with pytest.raises(HerokuError, match=f"it sends us to {place}, and a token is not taken along") as caught:
            await create(heroku)
    assert caught.value.code is Code.API_RUBBISH
    assert len(script.asked) == 1
    assert_tells_no_secret(caught.value)
