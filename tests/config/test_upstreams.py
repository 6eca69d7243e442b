"""Upstreams and connection URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.upstreams import MOST_UPSTREAMS, join_upstreams, parse_upstream
from mtlskit.config.values import Endpoint, TunnelKind
from mtlskit.errors import ConfigError

SECRET = "s3cret-Pa55"


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("db", [("db", 5432)]),
        ("h1:1,h2:2", [("h1", 1), ("h2", 2)]),
        ("h1:1, [::1]", [("h1", 1), ("::1", 5432)]),
        ("heroku:5432", [("heroku", 5432)]),
        ("postgres://db", [("db", 5432)]),
        ("postgresql://db:5433/app", [("db", 5433)]),
        ("POSTGRES://db/", [("db", 5432)]),
        (f"postgres://ann:{SECRET}@db.example.com:5433/app?sslmode=require", [("db.example.com", 5433)]),
        (f"postgres://ann:{SECRET}%40%2F@db/app", [("db", 5432)]),
        (f"postgres://ann:{SECRET}@more@db/app", [("db", 5432)]),
        (f"postgres://ann:{SECRET}#?@db:1/app", [("db", 1)]),
        (f"postgres://ann:{SECRET}@h1:1,[2001:db8::7]:2,h3/app", [("h1", 1), ("2001:db8::7", 2), ("h3", 5432)]),
        ("postgres://db?application_name=x", [("db", 5432)]),
        ("postgres://ann@db/a@b", [("db", 5432)]),
        ("postgres://db%2eexample%2ecom:5433", [("db.example.com", 5433)]),
        (" postgres://[::1]:5433 ", [("::1", 5433)]),
    ],
)
def test_postgres_upstreams(text: str, endpoints: list[tuple[str, int]]) -> None:
    assert parse_upstream(text, TunnelKind.POSTGRES) == tuple(Endpoint(*pair) for pair in endpoints)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "host is missing"),
        ("postgres://", "host is missing"),
        ("postgres:///app", "host is missing"),
        ("h1:1,", "host is missing"),
        ("postgres://db:0", "from 1 to 65535"),
        ("postgres://2001:db8::7/app", "must stand in brackets"),
        ("postgres://%2Fvar%2Frun/app", "unix socket"),
        ("postgres://%ff/app", "not ASCII"),
        ("postgres:///app?host=db", "as parameters of a URL"),
        ("postgres://db?port=1", "as parameters of a URL"),
        (f"mysql://ann:{SECRET}@db", "only postgres:// and postgresql://"),
        (f"kafka+ssl://ann:{SECRET}@db", "only postgres:// and postgresql://"),
        (f"host=db password={SECRET}", "connection string"),
        (f"postgres://ann:5432/{SECRET}@db", "a slash stands before the '@'"),
        (f"postgres://ann:{SECRET}/x@db", "a slash stands before the '@'"),
        (f"postgres://{SECRET}:{SECRET}", "from 1 to 65535"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_upstream(text, TunnelKind.POSTGRES)
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.hint}"


def test_tcp_takes_addresses_with_ports_only() -> None:
    assert parse_upstream("a:1,b:2", TunnelKind.TCP) == (Endpoint("a", 1), Endpoint("b", 2))
    with pytest.raises(ConfigError, match="port is missing"):
        parse_upstream("a", TunnelKind.TCP)
    with pytest.raises(ConfigError, match="does not take a Postgres URL"):
        parse_upstream("postgres://a:1", TunnelKind.TCP)


def test_joining_keeps_the_order_and_drops_repetitions() -> None:
    a, b = Endpoint("a", 1), Endpoint("b", 2)
    assert join_upstreams([(b, a), (a,), (b,)]) == (b, a)


def test_joining_refuses_none_and_too_many() -> None:
    with pytest.raises(ConfigError, match="is empty"):
        join_upstreams([])
    assert len(join_upstreams([[Endpoint("a", port + 1) for port in range(MOST_UPSTREAMS)]])) == MOST_UPSTREAMS
    with pytest.raises(ConfigError, match="at most 64"):
        join_upstreams([[Endpoint("a", port + 1) for port in range(MOST_UPSTREAMS + 1)]])


def _outcome(text: str, kind: TunnelKind) -> tuple[Endpoint, ...] | ConfigError:
    try:
        return parse_upstream(text, kind)
    except ConfigError as exc:
        return exc


@given(before=st.text(max_size=8), after=st.text(max_size=8), tail=st.text("@:/?#,[]%&=adb1", max_size=12))
def test_a_password_is_in_no_value_and_no_error(before: str, after: str, tail: str) -> None:
    outcome = _outcome(f"postgres://ann:{before}{SECRET}{after}@db{tail}", TunnelKind.POSTGRES)
    assert SECRET not in f"{outcome!r} {outcome} {getattr(outcome, 'hint', '')}"


@given(st.text(max_size=40), st.sampled_from(TunnelKind))
def test_any_text_parses_or_is_refused(text: str, kind: TunnelKind) -> None:
    outcome = _outcome(text, kind)
    if isinstance(outcome, ConfigError):
        assert outcome.hint
    else:
        assert all(endpoint.host and 0 < endpoint.port < 65_536 for endpoint in outcome)
