"""Kafka tunnels: where their brokers are found, what is checked of them, and what they do not take."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.kafka import HIGHEST_NODE, MOST_BROKERS
from mtlskit.config.loading import parse_config
from mtlskit.config.values import Endpoint, KafkaDoors, TunnelConfig, TunnelKind, Verify, VerifyMode
from mtlskit.errors import Code, ConfigError

SOURCE = Path("/etc/mtlskit/mtlskit.toml")

KAFKA = """\
[tunnel.k]
kind = "kafka"
listen = "127.0.0.1:9092"
upstream = "b1:9096,b2:9096"
cert = "c.pem"
key = "k.pem"
"""
OTHER = KAFKA.replace("tunnel.k", "tunnel.l").replace("127.0.0.1:9092", "127.0.0.1:9192")
POSTGRES = KAFKA.replace('"kafka"', '"postgres"')
TCP = KAFKA.replace('"kafka"', '"tcp"')
ADDON = KAFKA.replace("b1:9096,b2:9096", "heroku:kafka-rigid-4711")
URL = KAFKA.replace("b1:9096,b2:9096", "kafka+ssl://b1:9096,kafka+ssl://b2:9096")
HEROKUS = (
    "[identity.i]\nissuer = 'heroku'\naddon = 'kafka-rigid-4711'\n"
    + KAFKA.replace('cert = "c.pem"\nkey = "k.pem"', 'identity = "i"')
)  # fmt: skip
WITH_CA = 'ca = "root.crt"\n'
NOT_LOOPBACK = KAFKA.replace("127.0.0.1:", "10.0.0.1:") + 'allow_clients = ["10.0.0.0/8"]\n'


def parse(text: str) -> tuple[TunnelConfig, ...]:
    return parse_config(text, source=SOURCE, environ={}, platform="linux").tunnels


def test_the_smallest_kafka_tunnel() -> None:
    (tunnel,) = parse(KAFKA)
    assert tunnel.kind is TunnelKind.KAFKA
    assert tunnel.upstream == (Endpoint("b1", 9096), Endpoint("b2", 9096))
    assert (tunnel.verify, tunnel.kafka) == (Verify(VerifyMode.FULL), KafkaDoors())


@pytest.mark.parametrize(
    ("text", "doors"),
    [
        (KAFKA + 'advertised = "host.docker.internal"', KafkaDoors(advertised="host.docker.internal")),
        (KAFKA + 'advertised = " 2001:DB8::7 "', KafkaDoors(advertised="2001:db8::7")),
        (KAFKA + "first_broker_port = 0", KafkaDoors(first_port=0)),
        (KAFKA + "first_broker_port = 9000\nlast_broker_port = 9000", KafkaDoors(first_port=9000, last_port=9000)),
        (KAFKA + "last_broker_port = 9093", KafkaDoors(last_port=9093)),
        (KAFKA.replace(":9092", ":0") + "first_broker_port = 7000\nlast_broker_port = 7100",
         KafkaDoors(first_port=7000, last_port=7100)),
        (KAFKA.replace(":9092", ":0"), KafkaDoors()),
        (KAFKA + 'first_broker_address = "127.0.1.0"', KafkaDoors(first_address=IPv4Address("127.0.1.0"))),
        (KAFKA.replace("127.0.0.1", "localhost") + 'first_broker_address = "127.0.1.0"\nbrokers = { 5 = 1 }',
         KafkaDoors(first_address=IPv4Address("127.0.1.0"), ports=((5, 1),))),
        (KAFKA.replace(":9092", ":65535") + "brokers = { 1 = 65534 }", KafkaDoors(ports=((1, 65534),))),
        (KAFKA.replace(":9092", ":65535") + "first_broker_port = 9000", KafkaDoors(first_port=9000)),
        (KAFKA.replace(":9092", ":65535") + "first_broker_address = '127.0.1.0'",
         KafkaDoors(first_address=IPv4Address("127.0.1.0"))),
        (KAFKA + "brokers = { 1002 = 9102, 1001 = 9101 }", KafkaDoors(ports=((1002, 9102), (1001, 9101)))),
        (KAFKA + "[tunnel.k.brokers]\n0 = 1\n2147483647 = 65535", KafkaDoors(ports=((0, 1), (2147483647, 65535)))),
        (KAFKA + "brokers.7 = 8", KafkaDoors(ports=((7, 8),))),
        (KAFKA + "brokers = {}", KafkaDoors()),
        (NOT_LOOPBACK + "advertised = '10.0.0.1'", KafkaDoors(advertised="10.0.0.1")),
        (NOT_LOOPBACK.replace("10.0.0.1:", "0.0.0.0:"), KafkaDoors()),
    ],
)  # fmt: skip
def test_doors(text: str, doors: KafkaDoors) -> None:
    assert parse(text)[0].kafka == doors


BAD = [
    # Keys of the wrong kind of tunnel.
    (POSTGRES + "advertised = 'h'", "tunnel.k.advertised: only a kafka tunnel has listeners for brokers"),
    (TCP + "first_broker_port = 9", ":7: tunnel.k.first_broker_port: only a kafka tunnel"),
    (TCP + "last_broker_port = 9", "last_broker_port: only a kafka tunnel"),
    (TCP + "first_broker_address = 'x'", "first_broker_address: only a kafka tunnel"),
    (TCP + "brokers = {}", "brokers: only a kafka tunnel"),
    (KAFKA + "negotiation = 'direct'", ":7: tunnel.k.negotiation: only a postgres tunnel negotiates"),
    (KAFKA + "warm = 1", "warm: 1: only a postgres tunnel connects in advance: Kafka's clients keep their"),
    (TCP.replace(",b2:9096", "") + "warm = 1", "connects in advance: another server may speak first"),
    (KAFKA + "expiring_sessions = 'keep'", "only a postgres tunnel ends its sessions before"),
    (ADDON + WITH_CA + "login = 'heroku'", ":8: tunnel.k.login: only a postgres tunnel logs in"),
    (TCP + "login = 'heroku'", ":7: tunnel.k.login: only a postgres tunnel logs in"),
    # Types.
    (KAFKA + "advertised = 1", "advertised: must be a text in quotes"),
    (KAFKA + "first_broker_port = '1'", "first_broker_port: must be a whole number"),
    (KAFKA + "brokers = [9101]", ":7: tunnel.k.brokers: must be a table of node ids, each with a port"),
    (KAFKA + "brokers = 5", "brokers: must be a table of node ids"),
    # Values.
    (KAFKA.replace("127.0.0.1:9092", "unix:/run/k"), ":3: tunnel.k.listen: Kafka's clients are told a host and a port"),
    (KAFKA + "advertised = 'h:9092'", 'advertised: "h:9092": the port is each listener\'s own'),
    (KAFKA + "advertised = '[::1]'", "the port is each listener's own"),
    (KAFKA + "advertised = ''", 'advertised: "": the host is missing'),
    (KAFKA + "advertised = 'a b'", '"a b": not a host name'),
    (KAFKA + "advertised = '0.0.0.0'", "no client can connect to a wildcard address"),
    (KAFKA + "advertised = '::'", "no client can connect to a wildcard address"),
    (KAFKA + "first_broker_port = 65536", "first_broker_port: 65536: must be from 0 to 65535"),
    (KAFKA + "first_broker_port = -1", "first_broker_port: -1: must be from 0 to 65535"),
    (KAFKA + "last_broker_port = 0", "last_broker_port: 0: must be from 1 to 65535"),
    (KAFKA + "first_broker_port = 9\nlast_broker_port = 8", ":8: tunnel.k.last_broker_port: 8 is below 9, first_br"),
    (KAFKA + "last_broker_port = 9092", "9092 is below 9093, the port after the tunnel's own"),
    (KAFKA + "first_broker_port = 0\nlast_broker_port = 8", "the system chooses the ports of brokers here"),
    (KAFKA.replace(":9092", ":0") + "last_broker_port = 8", "the system chooses the ports of brokers here"),
    (KAFKA.replace(":9092", ":65535"), ":3: tunnel.k.listen: brokers have the ports after the tunnel's own"),
    (KAFKA + "first_broker_address = '10.0.0.0'", '"10.0.0.0": not a loopback address'),
    (KAFKA + "first_broker_address = '::1'", '"::1": not an IPv4 address'),
    (KAFKA + "first_broker_address = '127.1'", '"127.1": not an IPv4 address'),
    (KAFKA + "first_broker_address = '127.0.1.0'\nadvertised = 'h'", ":8: tunnel.k.advertised: first_broker_ad"),
    (KAFKA + "first_broker_address = '127.0.1.0'\nfirst_broker_port = 0", "first_broker_port exclude each other"),
    (KAFKA + "first_broker_address = '127.0.1.0'\nlast_broker_port = 1", "last_broker_port exclude each other"),
    (KAFKA.replace(":9092", ":0") + "first_broker_address = '127.0.1.0'", "port 0 has no number yet"),
    (NOT_LOOPBACK + "first_broker_address = '127.0.1.0'", "10.0.0.1:9092 is open to others"),
    (KAFKA + "brokers = { a = 1 }", ":7: tunnel.k.brokers.a: not a node id: those are numbers from 0 to 2147483647"),
    (KAFKA + "brokers = { -1 = 1 }", "brokers.-1: not a node id"),
    (KAFKA + "brokers = { 01 = 1 }", "brokers.01: not a node id"),
    (KAFKA + "brokers = { 2147483648 = 1 }", "brokers.2147483648: not a node id"),
    (KAFKA + "brokers = { '\u0661' = 1 }", "not a node id"),
    (KAFKA + "brokers = { 1 = 0 }", "brokers.1: 0: must be from 1 to 65535"),
    (KAFKA + "brokers = { 1 = 65536 }", "brokers.1: 65536: must be from 1 to 65535"),
    (KAFKA + "brokers = { 1 = true }", "brokers.1: must be a whole number"),
    (KAFKA + "brokers = { 1 = '9101' }", "brokers.1: must be a whole number"),
    (KAFKA + "brokers.a.b = 9101", "brokers.a: not a node id"),
    (KAFKA + "brokers = { 1 = 9092 }", "brokers.1: 9092 is the tunnel's own port"),
    (KAFKA + "[tunnel.k.brokers]\n1 = 5\n2 = 5", ":9: tunnel.k.brokers.2: broker 1 has port 5 already"),
    (KAFKA + "[tunnel.k.brokers]\n" + "".join(f"{n} = 1\n" for n in range(MOST_BROKERS + 1)), "more than 1024 b"),
    # Upstreams.
    (KAFKA.replace("b1:9096,b2:9096", "127.0.0.1:9092"), "127.0.0.1:9092 is the tunnel's own listener"),
    (KAFKA.replace("b1:9096,b2:9096", "127.0.0.1:7") + "brokers = { 1 = 7 }", "127.0.0.1:7 is the tunnel's own"),
    (ADDON.replace("4711", "4711/analyst"), ":4: tunnel.k.upstream: a Kafka add-on has one certificate for all"),
    (ADDON.replace("4711", "4711/"), "a Kafka add-on has one certificate for all"),
    (ADDON.replace('"kafka"', '"tcp"'), "a tcp tunnel takes no add-on as upstream"),
    (URL.replace('"kafka"', '"postgres"'), ":4: tunnel.k.upstream: a postgres tunnel does not take a Kafka URL"),
    (KAFKA.replace("b1:9096,b2:9096", "postgres://u:p@h"), "a kafka tunnel does not take a Postgres URL"),
    (KAFKA + "verify = 'ca'", 'verify: "ca": this needs a CA file'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "part"), BAD, ids=range(len(BAD)))
def test_bad_input(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert part in caught.value.sentence
    assert caught.value.sentence.startswith(f"{SOURCE}:")
    assert caught.value.code is Code.CONFIG_BAD_VALUE
    assert caught.value.hint
    assert "\n" not in caught.value.sentence + caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (KAFKA + "brokers = 5", "write brokers = { 1001 = 9101 }"),
        (KAFKA + "advertised = 5", 'write advertised = "host.docker.internal"'),
        (KAFKA + "first_broker_address = 5", 'write first_broker_address = "127.0.1.0"'),
        (KAFKA + "last_broker_port = '5'", "write last_broker_port = 9200"),
        (TCP + "brokers = {}", 'leave brokers out, or set the kind to "kafka"'),
        (KAFKA.replace("127.0.0.1:9092", "unix:/run/k"), 'use listen = "127.0.0.1:9092"'),
        (ADDON.replace("4711", "4711/analyst"), 'write "heroku:ADDON"'),
        (ADDON.replace('"kafka"', '"tcp"'), 'set the kind to "postgres" or "kafka"'),
        (ADDON, 'add ca = "root.crt"'),
        ("brokers = {}", "brokers belongs below a line [tunnel.NAME]"),
    ],
)
def test_hints_say_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert hint in caught.value.hint


def test_an_addon_says_where_the_brokers_are() -> None:
    (tunnel,) = parse(ADDON + WITH_CA)
    assert (tunnel.addon, tunnel.upstream, tunnel.credential) == ("kafka-rigid-4711", (), "default")


@pytest.mark.parametrize("text", [ADDON + WITH_CA, URL + WITH_CA, HEROKUS, HEROKUS + WITH_CA])
def test_herokus_brokers_are_checked_by_their_ca(text: str) -> None:
    (tunnel,) = parse(text)
    assert (tunnel.verify, tunnel.verify_by_default) == (Verify(VerifyMode.CA), True)
    assert tunnel.identity.ca is not None
    for written in ("full", "ca", "name:h"):
        chosen = parse(f"{text}verify = '{written}'")[0]
        assert (str(chosen.verify), chosen.verify_by_default) == (written, False)


def test_one_text_of_herokus_is_enough() -> None:
    text = KAFKA.replace('"b1:9096,b2:9096"', '["b0:1", " KAFKA+ssl://b1:9096"]')
    assert parse(text + WITH_CA)[0].verify == Verify(VerifyMode.CA)


@pytest.mark.parametrize("text", [ADDON, URL])
def test_herokus_brokers_need_a_ca_file(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.code is Code.CONFIG_MISSING_KEY
    assert (
        caught.value.sentence == f"{SOURCE}:1: tunnel.k: ca is missing: a Kafka of Heroku's is checked by its CA alone"
    )
    assert parse(f"{text}verify = 'full'")[0].verify == Verify(VerifyMode.FULL)


def test_other_tunnels_with_an_identity_of_herokus_are_checked_in_full() -> None:
    for kind in ("postgres", "tcp"):
        assert parse(HEROKUS.replace('"kafka"', f'"{kind}"'))[0].verify == Verify(VerifyMode.FULL)
    assert parse(KAFKA + WITH_CA)[0].verify == Verify(VerifyMode.FULL)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            KAFKA + "brokers = { 1001 = 9192 }\n" + OTHER,
            ":10: tunnel.l.listen: 127.0.0.1:9192 of tunnel l clashes with 127.0.0.1:9192 of broker 1001 of tunnel k",
        ),
        (
            KAFKA + OTHER + "brokers = { 7 = 9, 1001 = 9092 }",
            ":13: tunnel.l.brokers.1001: 127.0.0.1:9092 of broker 1001 of tunnel l"
            " clashes with 127.0.0.1:9092 of tunnel k",
        ),
        (
            KAFKA + "brokers = { 1 = 7 }\n" + OTHER.replace("127.0.0.1", "localhost") + "[tunnel.l.brokers]\n2 = 7",
            ":15: tunnel.l.brokers.2: localhost:7 of broker 2 of tunnel l"
            " clashes with 127.0.0.1:7 of broker 1 of tunnel k",
        ),
        (
            KAFKA + "brokers = { 1 = 7, 2 = 8 }\n" + OTHER + "brokers = { 1 = 7, 2 = 8 }",
            "127.0.0.1:7 of broker 1 of tunnel l clashes with 127.0.0.1:7 of broker 1 of tunnel k",
        ),
    ],
)
def test_brokers_that_clash_with_other_tunnels(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.sentence.endswith(sentence)
    assert caught.value.code is Code.CONFIG_DUPLICATE_LISTENER


@pytest.mark.parametrize(
    "text",
    [
        KAFKA + "brokers = { 1 = 7 }\n" + OTHER + "brokers = { 1 = 8 }",
        KAFKA + "brokers = { 1 = 7 }\n" + OTHER.replace("127.0.0.1", "[::1]") + "brokers = { 1 = 7 }",
        KAFKA + "brokers = { 1 = 7 }\n" + TCP.replace("tunnel.k", "tunnel.t").replace("127.0.0.1:9092", "unix:/run/t"),
        KAFKA + "first_broker_port = 9192\n" + OTHER,
    ],
)
def test_brokers_that_do_not_clash(text: str) -> None:
    assert len(parse(text)) == 2


NODES = st.dictionaries(st.integers(0, HIGHEST_NODE), st.integers(1, 65535), max_size=12)


@given(NODES)
def test_any_ports_of_nodes_are_kept_or_refused_with_the_node(ports: dict[int, int]) -> None:
    text = KAFKA + "[tunnel.k.brokers]\n" + "".join(f"{node} = {port}\n" for node, port in ports.items())
    if len(set(ports.values()) | {9092}) == len(ports) + 1:
        assert parse(text)[0].kafka.ports == tuple(ports.items())
        return
    with pytest.raises(ConfigError, match=r"mtlskit\.toml:\d+: tunnel\.k\.brokers\.\d+: "):
        parse(text)


def doors_of(text: str) -> KafkaDoors | ConfigError:
    try:
        return parse(text)[0].kafka
    except ConfigError as exc:
        return exc


VALUES = st.sampled_from(
    ["0", "1", "9092", "65535", "65536", "-1", "true", "'h'", "'127.0.1.0'", "'::'", "{ 1 = 7 }", "[1]"]
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["advertised", "first_broker_port", "last_broker_port", "first_broker_address", "brokers", "listen"]
        ),
        VALUES,
    )
)
def test_any_values_parse_or_are_refused_on_one_line(values: dict[str, str]) -> None:
    defaults = dict(line.split(" = ") for line in KAFKA.splitlines()[1:])
    text = "[tunnel.k]\n" + "".join(f"{key} = {value}\n" for key, value in (defaults | values).items())
    outcome = doors_of(text)
    if isinstance(outcome, ConfigError):
        assert "\n" not in outcome.sentence
        assert outcome.hint
    else:
        assert outcome.first_port is None or outcome.first_port <= outcome.last_port
        assert outcome.first_address is None or (outcome.advertised, outcome.first_port) == (None, None)
