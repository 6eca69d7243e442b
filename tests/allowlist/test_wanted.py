"""What a file wants let in: its rules, my address, spaces, and lists from files and URLs."""

from __future__ import annotations

import ssl
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import trio
import trustme

from mtlskit.allowlist.events import ListRead
from mtlskit.allowlist.sources import MOST_BYTES, read_source
from mtlskit.allowlist.wanted import wanted_of
from mtlskit.config.values import AllowlistConfig, AllowRule
from mtlskit.errors import AllowlistError, Code, ConfigError, HerokuError
from mtlskit.heroku.values import SpaceNat
from mtlskit.telemetry import Event
from tests.support.echo_servers import answering, http

ME = frozenset({IPv4Address("203.0.113.7"), IPv4Address("203.0.113.8")})


class Spaces:
    """Implements `SpaceApi`."""

    def __init__(self, **spaces: SpaceNat) -> None:
        self._spaces = spaces
        self.asked: list[str] = []

    async def space_nat(self, name: str, /) -> SpaceNat:
        await trio.sleep(1)
        self.asked.append(name)
        if name not in self._spaces:
            raise HerokuError(Code.API_NOT_FOUND, f"there is no space {name}")
        return self._spaces[name]


def config(**values: object) -> AllowlistConfig:
    return AllowlistConfig("office", ("db",), **values)  # type: ignore[arg-type] # as the tests give them


RULES = (AllowRule(IPv4Network("198.51.100.0/25"), "office"), AllowRule(IPv4Network("198.51.100.128/25"), "annex"))


async def test_everything_is_wanted_and_says_where_from(autojump_clock: trio.testing.MockClock) -> None:
    spaces = Spaces(one=SpaceNat("enabled", ("192.0.2.1", "192.0.2.2")), two=SpaceNat("Enabled", ("192.0.2.3/32",)))
    events: list[Event] = []

    async def read(source: str) -> bytes:
        await trio.sleep(1)
        return b"192.0.2.64/26\n2001:db8::/32\n"

    began = trio.current_time()
    wanted = await wanted_of(
        config(rules=RULES, my_ip=True, spaces=("one", "two", "one"), rules_from=("https://x.example.com/list",)),
        spaces,
        me=ME,
        read=read,
        emit=events.append,
    )
    assert trio.current_time() - began == 1  # all at once
    assert spaces.asked.count("one") == 1
    told = [(str(each.cidr), each.description, each.origin) for each in wanted]
    assert sorted(told) == sorted(
        [
            ("198.51.100.0/25", "office", "file"),
            ("198.51.100.128/25", "annex", "file"),
            ("203.0.113.7/32", "my address", "my-ip"),
            ("203.0.113.8/32", "my address", "my-ip"),
            ("192.0.2.1/32", "space one", "space:one"),
            ("192.0.2.2/32", "space one", "space:one"),
            ("192.0.2.3/32", "space two", "space:two"),
            ("192.0.2.64/26", wanted[-3].description, "list:https://x.example.com/list"),
        ]
    )
    (event,) = events
    assert isinstance(event, ListRead)
    assert event.sentence() == ("https://x.example.com/list: 1 ranges; 1 of IPv6 left out, which IP rules do not take")


async def test_joined_ranges_leave_my_address_its_own_rule() -> None:
    wanted = await wanted_of(
        config(
            rules=(*RULES, AllowRule(IPv4Network("203.0.113.8"), "home"), AllowRule(IPv4Network("203.0.113.9"), "b")),
            my_ip=True,
            collapse=True,
        ),
        Spaces(),
        me=ME,
    )
    assert [(str(each.cidr), each.description) for each in wanted] == [
        ("198.51.100.0/24", "office + annex"),
        ("203.0.113.8/31", "home + b"),
        ("203.0.113.7/32", "my address"),  # 203.0.113.8 is within
    ]


async def test_my_address_must_be_known() -> None:
    for me in (None, frozenset[IPv4Address]()):
        with pytest.raises(AllowlistError) as caught:
            await wanted_of(config(my_ip=True), Spaces(), me=me)
        assert caught.value.code is Code.ALLOW_MY_IP_UNKNOWN
    assert await wanted_of(config(), Spaces(), me=ME) == ()


@pytest.mark.parametrize(
    "nat", [SpaceNat("disabled"), SpaceNat("updating", ("192.0.2.1",)), SpaceNat("enabled"), SpaceNat("")]
)
async def test_addresses_of_a_space_that_are_not_stable_are_refused(
    autojump_clock: trio.testing.MockClock, nat: SpaceNat
) -> None:
    with pytest.raises(AllowlistError, match="space one: its stable outbound addresses") as caught:
        await wanted_of(config(spaces=("one",)), Spaces(one=nat))
    assert caught.value.code is Code.ALLOW_SOURCE


async def test_what_a_space_tells_is_checked(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(HerokuError) as caught:
        await wanted_of(config(spaces=("one",)), Spaces(one=SpaceNat("enabled", ("0.0.0.0/0",))))
    assert caught.value.code is Code.API_RUBBISH


async def test_the_first_error_is_raised(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    with pytest.raises(HerokuError, match="there is no space lost"):
        await wanted_of(config(spaces=("lost",), rules_from=(str(tmp_path / "none"),)), Spaces())
    (tmp_path / "list").write_text("192.0.2.1\nnonsense\n")
    with pytest.raises(ConfigError, match="list:2"):
        await wanted_of(config(rules_from=(str(tmp_path / "list"),)), Spaces())


async def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"192.0.2.1\n")
    assert await read_source(str(tmp_path / "list")) == b"192.0.2.1\n"


async def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b" " * (MOST_BYTES + 1))
    for name, why in (("none", "No such file"), ("", "Is a directory"), ("large", "larger than 1024 KiB")):
        with pytest.raises(AllowlistError, match=why) as caught:
            await read_source(str(tmp_path / name))
        assert caught.value.code is Code.ALLOW_SOURCE
        assert str(tmp_path) in caught.value.sentence


async def test_a_url_is_read_over_https_and_redirects_are_followed_there_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with answering(http(b"192.0.2.1\n"), tls=tls) as target:
        async with answering(http(b"", "301 Moved", f"Location: {target.url}list"), tls=tls) as first:
            assert await read_source(first.url) == b"192.0.2.1\n"
            assert target.requests[0].startswith(b"GET /list ")
        to_plain = http(b"", "302 Found", "Location: http://lists.example.com/")
        async with answering(to_plain, tls=tls) as first:
            with pytest.raises(AllowlistError, match="redirects to what is plain http"):
                await read_source(first.url)
        async with answering(http(b"", "302 Found", "Location: /again"), tls=tls) as circle:
            with pytest.raises(AllowlistError, match="redirects again and again"):
                await read_source(circle.url)
            assert len(circle.requests) == 4
    async with answering(http(b" " * (MOST_BYTES + 1)), tls=tls) as large:
        with pytest.raises(AllowlistError, match="larger than 1048576 bytes"):
            await read_source(large.url)
    async with answering(http(b"", "404 Not Found"), tls=tls) as none:
        with pytest.raises(AllowlistError, match="status 404") as caught:
            await read_source(f"{none.url}list?key=secret")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://lists.example.com/", "ftp://lists.example.com/", "https://u:secret@lists.example.com/", "https://"]
)
async def test_what_anybody_could_change_is_not_fetched(url: str) -> None:
    with pytest.raises(AllowlistError) as caught:
        await read_source(url)
    assert caught.value.code is Code.ALLOW_SOURCE
    assert "secret" not in str(caught.value)
