"""My address: several services, none of them believed blindly."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trustme

from mtlskit.allowlist.my_ip import DEFAULT_SERVICES, VARIABLE, my_addresses, parse_answer, services_of
from mtlskit.config.values import MyIpConfig
from mtlskit.errors import AllowlistError, Code, ConfigError
from tests.support.echo_servers import answering, http

HOUR = 3600.0  # seconds; a deadline that is not what is tried out
SOON = 0.3


@pytest.mark.parametrize(
    ("body", "address"),
    [
        (b"8.8.8.8", "8.8.8.8"),
        (b"8.8.8.8\n", "8.8.8.8"),
        (b'{"ip":"8.8.8.8"}', "8.8.8.8"),
        (b' {"ip": "8.8.8.8", "country": "CH"}\r\n', "8.8.8.8"),
    ],
)
def test_an_answer_is_plain_text_or_json(body: bytes, address: str) -> None:
    assert parse_answer(body) == IPv4Address(address)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "something else than an address"),
        (b"<html>8.8.8.8</html>", "something else than an address"),
        (b"8.8.8.8 9.9.9.9", "something else than an address"),
        (b"8.8.8.8/32", "something else than an address"),
        (b"08.8.8.8", "something else than an address"),
        (b"134744072", "something else than an address"),
        (b"\xff\xfe8\x00", "something else than an address"),
        (b'"8.8.8.8"', "something else than an address"),
        (b'{"ip": 134744072}', "something else than an address"),
        (b'{"address": "8.8.8.8"}', 'no "ip"'),
        (b'{"ip":"8.8.8.8"', 'no "ip"'),
        (b"{" + b'"a":[' * 5000, 'no "ip"'),
        (b"2001:db8::1", "IPv6 address 2001:db8::1, and IP rules take IPv4 only"),
        (b'{"ip":"2001:db8::1"}', "IPv6 address"),
        (b"10.1.2.3", "does not route"),
        (b"100.64.0.1", "does not route"),
        (b"127.0.0.1", "does not route"),
        (b"0.0.0.0", "no host's address"),
        (b"224.0.0.1", "no host's address"),
        (b"255.255.255.255", "no host's address"),
    ],
)
def test_what_is_no_address_of_the_internet_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_answer(body)


def test_a_service_on_this_machine_may_name_addresses_that_stand_in() -> None:
    for text in ("127.0.0.9", "203.0.113.7", "10.0.0.1"):
        assert str(parse_answer(text.encode(), local=True)) == text
    with pytest.raises(ValueError, match="no host's address"):
        parse_answer(b"0.0.0.0", local=True)


def test_who_is_asked() -> None:
    assert services_of({}) == DEFAULT_SERVICES
    assert services_of({VARIABLE: " "}) == DEFAULT_SERVICES
    config = MyIpConfig(services=("https://ip.example.com/", "https://ip.example.com/"))
    assert services_of({}, config) == ("https://ip.example.com/",)
    environ = {VARIABLE: "https://a.example.com/ip, http://127.0.0.1:8080/ip,"}
    assert services_of(environ, config) == ("https://a.example.com/ip", "http://127.0.0.1:8080/ip")


@pytest.mark.parametrize(
    "service",
    [
        "http://ip.example.com/",
        "http://localhost.example.com/",
        "ftp://ip.example.com/",
        "ip.example.com",
        "https://",
        "https://[::1",
        "https://user:secret@ip.example.com/",
    ],
)
def test_what_could_not_be_believed_is_refused_at_once(service: str) -> None:
    with pytest.raises(ConfigError) as caught:
        services_of({VARIABLE: f"https://a.example.com/,{service}"})
    assert caught.value.code is Code.CONFIG_BAD_VALUE
    assert VARIABLE in caught.value.sentence
    assert "secret" not in str(caught.value)


def test_not_any_number_of_services() -> None:
    with pytest.raises(ConfigError, match="more than 16"):
        services_of({}, MyIpConfig(services=tuple(f"https://{number}.example.com/" for number in range(17))))


async def test_different_answers_are_all_told_and_failures_are_not_fatal() -> None:
    answers = {
        "plain": http(b"203.0.113.7\n"),
        "json": http(b'{"ip":"203.0.113.8"}', "200 OK", "Content-Type: application/json"),
        "same": http(b"203.0.113.7"),
        "html": http(b"<!doctype html>"),
        "redirect": http(b"", "302 Found", "Location: https://ip.example.com/"),
        "broken": http(b"203.0.113.9", "503 Service Unavailable"),
        "large": http(b" " * 5000),
        "packed": http(b"203.0.113.9", "200 OK", "Content-Encoding: gzip"),
        "rubbish": b"SSH-2.0-OpenSSH_9.6\r\n",
    }
    async with AsyncExitStack() as stack:
        echoes = {name: await stack.enter_async_context(answering(answer)) for name, answer in answers.items()}
        found = await my_addresses([echo.url for echo in echoes.values()], deadline=HOUR)
    assert found.addresses == {IPv4Address("203.0.113.7"), IPv4Address("203.0.113.8")}
    assert found.agreed is None
    errors = dict(zip(answers, (answer.error for answer in found.answers), strict=True))
    assert errors == {
        "plain": "",
        "json": "",
        "same": "",
        "html": "it answers with something else than an address",
        "redirect": "it redirects, which is not followed here",
        "broken": "it answers with the status 503",
        "large": "the answer is larger than 1024 bytes",
        "packed": "the answer is packed, which was not asked for",
        "rubbish": "TCP or TLS failed, or the answer is no HTTP",
    }


async def test_a_service_that_says_nothing_holds_nobody_up() -> None:
    async with answering(None) as silent, answering(http(b"203.0.113.7")[:-2]) as halting:
        with pytest.raises(AllowlistError, match=r"no whole answer within 0.3 s; .*: TCP or TLS failed"):
            await my_addresses([silent.url, halting.url], deadline=SOON)


async def test_it_is_asked_from_the_source_address_and_nothing_is_given_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # would fail
    async with answering(http(b"127.0.0.9")) as echo:
        found = await my_addresses([echo.url], source="127.0.0.9", trusted_only=True, deadline=HOUR)
        assert found.agreed == IPv4Address("127.0.0.9")
        assert echo.callers == ["127.0.0.9"]
        assert b"authorization" not in echo.requests[0].lower()


async def test_a_source_that_is_not_ours_is_told() -> None:
    async with answering(http(b"127.0.0.1")) as echo:
        with pytest.raises(AllowlistError, match="assign requested address") as caught:
            await my_addresses([echo.url], source="192.0.2.1", deadline=HOUR)
    assert caught.value.code is Code.ALLOW_MY_IP_UNKNOWN
    assert "is 192.0.2.1 an address of this host" in caught.value.hint


async def test_one_answer_of_several_is_not_trusted() -> None:
    async with answering(http(b"203.0.113.7")) as good, answering(http(b"no")) as bad:
        both = [good.url, bad.url.replace("127.0.0.1", "localhost")]
        assert (await my_addresses(both, deadline=HOUR)).agreed == IPv4Address("203.0.113.7")
        with pytest.raises(AllowlistError, match=r"only 1 of 2 services .* it takes 2") as caught:
            await my_addresses(both, trusted_only=True, deadline=HOUR)
        assert caught.value.code is Code.ALLOW_MY_IP_UNKNOWN
        # Two addresses of one service are one opinion; and where one service is all there is, it is trusted.
        alone = await my_addresses([good.url, f"{good.url}again"], trusted_only=True, deadline=HOUR)
        assert alone.agreed == IPv4Address("203.0.113.7")


async def test_nobody_answers() -> None:
    with pytest.raises(AllowlistError) as caught:
        await my_addresses(["http://127.0.0.1:1/", "http://ip.example.com/"], deadline=HOUR)
    assert "no service told my address (127.0.0.1: " in caught.value.sentence
    assert "Connection refused" in caught.value.sentence
    assert "ip.example.com: is plain http" in caught.value.sentence
    assert VARIABLE in caught.value.hint


async def test_https_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with answering(http(b"8.8.8.8"), tls=context) as echo:
        with pytest.raises(AllowlistError, match="its certificate is not trusted"):
            await my_addresses([echo.url], deadline=HOUR)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert (await my_addresses([echo.url], deadline=HOUR)).agreed == IPv4Address("8.8.8.8")
