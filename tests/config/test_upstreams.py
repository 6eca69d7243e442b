"""Upstreams and connection URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.upstreams import MOST_UPSTREAMS, holds_password, is_kafka_url, join_upstreams, parse_upstream
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
        (f"kafka+ssl://ann:{SECRET}@db", "a postgres tunnel does not take a Kafka URL"),
        ("kafka://db", "a postgres tunnel does not take a Kafka URL"),
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


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("b1:9096", [("b1", 9096)]),
        ("b1:1, [::1]:2,10.0.0.1:3", [("b1", 1), ("::1", 2), ("10.0.0.1", 3)]),
        ("kafka+ssl://b1:1,kafka+ssl://b2:2", [("b1", 1), ("b2", 2)]),
        ("kafka+ssl://b1:1,b2:2,kafka+ssl://b3:3", [("b1", 1), ("b2", 2), ("b3", 3)]),
        ("b1:1,kafka+ssl://b2:2", [("b1", 1), ("b2", 2)]),
        (" KAFKA+SSL://b1:1/ , kafka+ssl://[2001:db8::7]:2 ", [("b1", 1), ("2001:db8::7", 2)]),
        ("heroku:9096", [("heroku", 9096)]),
    ],
)
def test_kafka_upstreams(text: str, endpoints: list[tuple[str, int]]) -> None:
    assert parse_upstream(text, TunnelKind.KAFKA) == tuple(Endpoint(*pair) for pair in endpoints)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "host is missing"),
        ("b1", "port is missing"),
        ("kafka+ssl://b1", "port is missing"),
        ("kafka+ssl://b1:1,", "host is missing"),
        ("kafka+ssl://b1:1,b2", "port is missing"),
        ("kafka+ssl://", "host is missing"),
        ("kafka+ssl://b1:0", "from 1 to 65535"),
        ("kafka+ssl://2001:db8::7:1", "must stand in brackets"),
        ("kafka+ssl://b1:1/topic", "no path and no parameters"),
        ("kafka+ssl://b1:1?x", "no path and no parameters"),
        ("kafka+ssl://b1:1#x", "no path and no parameters"),
        ("kafka+ssl://b1:1?acks=all", "a setting of a Kafka client, or like parameters"),
        ("bootstrap.servers=b1:1", "a setting of a Kafka client"),
        ("kafka://b1:1", "only kafka"),
        ("ssl://b1:1", "only kafka"),
        ("SASL_SSL://b1:1", "only kafka"),
        ("https://b1:1", "only kafka"),
        ("kafka+ssl://b1:1,kafka://b2:2", "only kafka"),
        ("postgres://b1:1", "a kafka tunnel does not take a Postgres URL"),
        (f"postgres://ann:{SECRET}@b1:1/app?x=y", "a kafka tunnel does not take a Postgres URL"),
        (f"kafka+ssl://ann:{SECRET}@b1:1", "no user and no password"),
        (f"kafka+ssl://ann:12,{SECRET}@b1:1", "no user and no password"),
        (f"kafka+ssl://{SECRET}:{SECRET}", "from 1 to 65535"),
        (f"b1:1,ann:{SECRET}@b2:2", "no user and no password"),
    ],
)
def test_refused_for_kafka(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_upstream(text, TunnelKind.KAFKA)
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.hint}"


def test_a_wrong_kind_of_url_is_refused_by_name_with_what_to_write() -> None:
    with pytest.raises(ConfigError, match="a tcp tunnel does not take a Kafka URL") as caught:
        parse_upstream("kafka+ssl://b1:1", TunnelKind.TCP)
    assert caught.value.hint == 'write HOST:PORT, or set the kind to "kafka"'
    with pytest.raises(ConfigError) as caught:
        parse_upstream("ssl://b1:1", TunnelKind.KAFKA)
    assert "kafka+ssl://HOST:PORT,kafka+ssl://HOST:PORT" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("kafka+ssl://b1:1,kafka+ssl://b2:2", False),
        (f"kafka+ssl://ann:{SECRET}@b1:1", True),
        (f"kafka+ssl://b1:1,kafka+ssl://ann:{SECRET}@b2:2", True),
    ],
)
def test_passwords_in_kafka_urls_are_noticed(text: str, holds: bool) -> None:
    assert holds_password(text) is holds


@given(
    st.lists(
        st.tuples(st.booleans(), st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9}){0,2}", fullmatch=True), st.integers(1, 9999)),
        min_size=1, max_size=9,
    )
)  # fmt: skip
def test_any_list_of_brokers_is_read(brokers: list[tuple[bool, str, int]]) -> None:
    text = ",".join(f"{'kafka+ssl://' if scheme else ''}{host}:{port}" for scheme, host, port in brokers)
    assert parse_upstream(text, TunnelKind.KAFKA) == tuple(Endpoint(host, port) for _, host, port in brokers)
    assert is_kafka_url(text) is brokers[0][0]


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
    for scheme, kind in (("postgres", TunnelKind.POSTGRES), ("kafka+ssl", TunnelKind.KAFKA)):
        outcome = _outcome(f"{scheme}://ann:{before}{SECRET}{after}@db{tail}", kind)
        assert SECRET not in f"{outcome!r} {outcome} {getattr(outcome, 'hint', '')}"


@given(st.text(max_size=40), st.sampled_from(TunnelKind))
def test_any_text_parses_or_is_refused(text: str, kind: TunnelKind) -> None:
    outcome = _outcome(text, kind)
    if isinstance(outcome, ConfigError):
        assert outcome.hint
    else:
        assert all(endpoint.host and 0 < endpoint.port < 65_536 for endpoint in outcome)
