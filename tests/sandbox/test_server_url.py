"""URLs of servers behind the gateway."""

from __future__ import annotations

from pathlib import Path

import psycopg.conninfo
import pytest

from mtlskit.config.values import Endpoint, TcpAddress, UnixAddress
from mtlskit.errors import Code, ConfigError
from mtlskit.sandbox.server_url import ServerUrl, gateway_url, parse_server_url, socket_url

SOCKET = UnixAddress(Path("/Run/pg/.s.PGSQL.5432"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@h:1234/d", ServerUrl(Endpoint("h", 1234), "u", "p", "d")),
        ("postgresql://u@h", ServerUrl(Endpoint("h", 5432), "u", "", "u")),
        ("postgres://u%40x:p%2F%3A@[::1]:7/d%20e?sslmode=disable", ServerUrl(Endpoint("::1", 7), "u@x", "p/:", "d e")),
        ("postgres://u:p@/d?host=/Run/pg", ServerUrl(SOCKET, "u", "p", "d")),
        (
            "postgres://u:p@/d?host=%2FR&port=6",
            ServerUrl(UnixAddress(Path("/R/.s.PGSQL.6")), "u", "p", "d"),
        ),
        ("postgres://u:p@%2FRun%2Fpg/d", ServerUrl(SOCKET, "u", "p", "d")),
    ],
)
def test_forms_that_are_read(url: str, expected: ServerUrl) -> None:
    assert parse_server_url(url) == expected


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mysql://u:sesame@h/d", Code.CONFIG_BAD_VALUE),
        ("h:5432", Code.CONFIG_BAD_VALUE),
        ("postgres://:sesame@h/d", Code.CONFIG_BAD_VALUE),
        ("postgres://u:sesame@/d", Code.CONFIG_BAD_VALUE),
        ("postgres://u:sesame@h:99999/d", Code.CONFIG_BAD_VALUE),
        ("postgres://u:sesame@h:x/d", Code.CONFIG_BAD_VALUE),
        ("postgres://u:sesame@[h/d", Code.CONFIG_BAD_VALUE),
        ("postgres://u:sesame@h/d?sslmode=require", Code.CONFIG_NOT_SUPPORTED),
    ],
)
def test_forms_that_are_refused_without_telling_the_password(url: str, code: Code) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_server_url(url, source="MY_VARIABLE")
    assert caught.value.code is code
    assert caught.value.sentence.startswith("MY_VARIABLE: ")
    assert "sesame" not in str(caught.value) + caught.value.hint


def test_libpq_reads_what_we_write() -> None:
    url = socket_url(Path("/Run/a b/pg"), user="u@x", password="p/:?", database="d e")
    expected = {"host": "/Run/a b/pg", "user": "u@x", "password": "p/:?", "dbname": "d e"}
    assert psycopg.conninfo.conninfo_to_dict(url) == expected
    assert parse_server_url(url).upstream == UnixAddress(Path("/Run/a b/pg/.s.PGSQL.5432"))
    url = gateway_url(TcpAddress("::1", 6000), user="u@x", password="", database="d")
    assert psycopg.conninfo.conninfo_to_dict(url) == {"host": "::1", "port": "6000", "user": "u@x", "dbname": "d"}


def test_the_password_stays_out_of_the_repr() -> None:
    assert "sesame" not in repr(parse_server_url("postgres://u:sesame@h/d"))
