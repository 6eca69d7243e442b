"""The token goes to the hosts that it belongs to, in the form that they take, with a second factor where they ask."""

from __future__ import annotations

import base64
import logging

import httpx
import pytest
import trio

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.client import Settings, open_heroku
from mtlskit.heroku.hosts import token_belongs
from mtlskit.heroku.proxies import proxy_for
from mtlskit.heroku.token import Token
from mtlskit.heroku.token_forms import AuthForm
from mtlskit.heroku.transport import TokenGate, Transport
from tests.support.api_client import DATA, PLATFORM, TOKEN, addon_json, assert_tells_no_secret, fake_heroku

BEARER = f"Bearer {TOKEN}"
BASIC = "Basic " + base64.b64encode(f":{TOKEN}".encode()).decode()


@pytest.mark.parametrize(
    ("url", "belongs"),
    [
        ("https://heroku.com", True),
        ("https://api.data.heroku.com/x", True),
        ("https://API.HEROKU.COM:8443", True),
        ("https://api.herokai.com", True),
        ("https://a.b.herokuspace.com", True),
        ("https://x.herokudev.com", True),
        ("http://localhost:8080", True),
        ("http://127.0.0.1:8080", True),
        ("http://127.9.9.9", True),
        ("https://[::1]:8080", True),
        ("http://[::ffff:127.0.0.1]:8080", True),
        ("http://[::ffff:192.0.2.1]", False),
        ("http://api.heroku.com", False),
        ("https://api.heroku.com.", False),
        ("https://notheroku.com", False),
        ("https://heroku.com.evil.example", False),
        ("https://evil.example/api.heroku.com", False),
        ("https://evil.example#.heroku.com", False),
        ("https://evil.example\\.heroku.com", False),
        ("https://user@api.heroku.com", False),
        ("https://api.heroku.com@evil.example", False),
        ("ftp://localhost", False),
        ("http://192.0.2.1", False),
        ("http://localhost.evil.example", False),
        ("http://2130706433", False),
        ("https://heroku。com.evil.example", False),
        ("", False),
    ],
)
def test_the_hosts_of_the_token(url: str, belongs: bool) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        assert not belongs
        return
    assert token_belongs(parsed) is belongs


async def test_the_gate_stands_in_front_of_every_request() -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={})

    token = Token(TOKEN, "HEROKU_API_KEY")
    transport = Transport(httpx.MockTransport(answer), token, limit=1, attempt=5.0)
    with pytest.raises(HerokuError, match=r"https://evil\.example: the token belongs to Heroku only") as caught:
        await transport.send("GET", "https://evil.example/a", form=AuthForm.BEARER, headers={}, content=None)
    assert caught.value.code is Code.API_HOST
    assert sent == []
    assert_tells_no_secret(caught.value)


async def test_the_callers_request_never_has_the_token() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200)

    gate = TokenGate(httpx.MockTransport(answer), Token(TOKEN, "x"))
    request = httpx.Request("GET", DATA, extensions={"mtlskit.auth": AuthForm.BASIC})
    await gate.handle_async_request(request)
    assert seen == [BASIC]
    assert "Authorization" not in request.headers
    assert TOKEN not in repr(request)


@pytest.mark.parametrize("url", ["https://evil.example", "http://api.heroku.com", f"https://u:{TOKEN}@heroku.com", "x"])
async def test_a_client_for_another_host_does_not_open(url: str) -> None:
    for platform, data in ((url, DATA), (PLATFORM, url)):
        with pytest.raises(HerokuError) as caught:
            async with open_heroku(Settings(platform, data, Token(TOKEN, "x"))):
                pass
        assert caught.value.code is Code.API_HOST
        assert_tells_no_secret(caught.value)


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", "é" + TOKEN, TOKEN + "\x00", "x" * 5000])
async def test_a_token_that_fits_no_header_is_not_quoted(value: str) -> None:
    with pytest.raises(HerokuError, match=r"the token from ~/\.netrc is empty, or holds blanks") as caught:
        async with open_heroku(Settings(PLATFORM, DATA, Token(value, "~/.netrc"))):
            pass
    assert caught.value.code is Code.API_TOKEN_REFUSED
    assert_tells_no_secret(caught.value, "two words")


async def test_the_form_that_works_is_found_and_remembered_for_its_host() -> None:
    forms: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        form = request.headers["Authorization"]
        forms.append((request.url.host, form))
        wanted = BEARER if request.url.host == "api.heroku.com" else BASIC
        return httpx.Response(200, json=[]) if form == wanted else httpx.Response(401, json={"id": "unauthorized"})

    async with fake_heroku(answer) as heroku:
        await heroku.data.certificates("a")
        await heroku.data.certificates("a")
        await heroku.platform.addons()
    data, platform = "api.data.heroku.com", "api.heroku.com"
    assert forms == [(data, BEARER), (data, BASIC), (data, BASIC), (platform, BEARER)]


async def test_a_token_that_is_refused_in_both_forms() -> None:
    forms: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        forms.append(request.headers["Authorization"])
        return httpx.Response(
            401, json={"id": "unauthorized", "message": f"Invalid {request.headers['Authorization']}"}
        )

    async with fake_heroku(answer) as heroku:
        with pytest.raises(HerokuError, match="the token from HEROKU_API_KEY is refused") as caught:
            await heroku.data.create_certificate("a")
    assert forms == [BEARER, BASIC]
    assert caught.value.code is Code.API_TOKEN_REFUSED
    assert_tells_no_secret(caught.value)


async def test_nothing_of_it_reaches_pythons_own_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with fake_heroku({"GET /addons": [addon_json("a")]}) as heroku:
        await heroku.platform.addons()
    assert TOKEN not in caplog.text


class Factor:
    """A person with a second factor, and an API that asks for it."""

    def __init__(self, code: str | None) -> None:
        self.code = code
        self.good = "123456"
        self.asked = 0
        self.codes: list[str | None] = []

    async def __call__(self) -> str | None:
        self.asked += 1
        await trio.testing.wait_all_tasks_blocked()
        return self.code

    def answer(self, request: httpx.Request) -> httpx.Response:
        code = request.headers.get("Heroku-Two-Factor-Code")
        self.codes.append(code)
        if code == self.good:
            return httpx.Response(200, json={"id": "c1", "status": "pending"})
        return httpx.Response(403, json={"id": "two_factor", "message": "Two factor code required."})


async def test_a_second_factor_is_asked_for_once() -> None:
    person = Factor(" 123456\n")
    async with fake_heroku(person.answer, two_factor=person) as heroku:
        await heroku.data.create_certificate("a")
    assert (person.asked, person.codes) == (1, [None, "123456"])


async def test_requests_under_way_together_share_one_question() -> None:
    person = Factor("123456")
    async with fake_heroku(person.answer, two_factor=person) as heroku, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(heroku.data.certificate, "a", "c1")
    assert (person.asked, person.codes) == (1, [None] * 5 + ["123456"] * 5)


async def test_the_next_request_tries_the_code_that_was_taken() -> None:
    person = Factor("123456")
    async with fake_heroku(person.answer, two_factor=person) as heroku:
        for _ in range(3):
            await heroku.data.certificate("a", "c1")
    assert (person.asked, person.codes) == (1, [None, "123456"] * 3)


async def test_a_code_that_is_not_taken_any_more_is_asked_for_anew() -> None:
    person = Factor("123456")
    async with fake_heroku(person.answer, two_factor=person) as heroku:
        await heroku.data.certificate("a", "c1")
        person.good = person.code = "654321"
        await heroku.data.certificate("a", "c1")
        await heroku.data.certificate("a", "c1")
    assert (person.asked, person.codes) == (2, [None, "123456", None, "123456", "654321", None, "654321"])


async def test_a_wrong_code_is_not_tried_again() -> None:
    person = Factor("999999")
    async with fake_heroku(person.answer, two_factor=person) as heroku:
        with pytest.raises(HerokuError):
            await heroku.data.certificate("a", "c1")
        person.code = "123456"
        await heroku.data.certificate("a", "c1")
    assert (person.asked, person.codes) == (2, [None, "999999", None, "123456"])


@pytest.mark.parametrize("code", [None, "", "  ", "12\n34", "é", "999999"])
async def test_without_the_right_code_it_is_refused(code: str | None) -> None:
    person = Factor(code)
    async with fake_heroku(person.answer, two_factor=person) as heroku:
        with pytest.raises(HerokuError, match='a second factor is asked for: "Two factor code required"') as caught:
            await heroku.data.create_certificate("a")
    assert caught.value.code is Code.API_TWO_FACTOR
    assert person.asked == 1


async def test_with_nobody_to_ask_it_is_refused() -> None:
    person = Factor(None)
    async with fake_heroku(person.answer) as heroku:
        with pytest.raises(HerokuError) as caught:
            await heroku.data.create_certificate("a")
    assert caught.value.code is Code.API_TWO_FACTOR
    assert person.codes == [None]


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        (DATA, {}, None),
        (DATA, {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        (DATA, {"https_proxy": "p:1", "HTTPS_PROXY": "http://q:1"}, "http://p:1"),
        (DATA, {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        (DATA, {"HTTP_PROXY": "http://p:1"}, None),
        (DATA, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x, .heroku.com"}, None),
        (DATA, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        (DATA, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "oku.com,,"}, "http://p:1"),
        ("http://127.0.0.1:8080", {"HTTPS_PROXY": "http://p:1", "ALL_PROXY": "http://p:1"}, None),
        ("https://localhost:8080", {"HTTPS_PROXY": "http://p:1"}, None),
    ],
)
def test_a_proxy_is_for_https_beyond_this_machine(url: str, environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_for(httpx.URL(url), environ) == proxy


@pytest.mark.parametrize("proxy", [f"gopher://u:{TOKEN}@p:1", f"http://u:{TOKEN}@p:bad"])
async def test_a_proxy_that_cannot_be_used_is_not_quoted(proxy: str) -> None:
    with pytest.raises(HerokuError, match="HTTPS_PROXY does not name a proxy that can be used") as caught:
        async with open_heroku(Settings(PLATFORM, DATA, Token(TOKEN, "x")), environ={"HTTPS_PROXY": proxy}):
            pass
    assert caught.value.code is Code.API_HOST
    assert_tells_no_secret(caught.value)
