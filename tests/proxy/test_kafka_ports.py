"""Which address stands for which broker."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from mtlskit.config.values import KafkaDoors, TcpAddress
from mtlskit.errors import Code, ListenError
from mtlskit.proxy.kafka.ports import BrokerPorts

LISTEN = TcpAddress("127.0.0.1", 9092)


def plan(doors: KafkaDoors, listen: TcpAddress = LISTEN, port: int = 9092) -> BrokerPorts:
    return BrokerPorts("orders", doors, listen, port)


@pytest.mark.parametrize(
    ("doors", "node_id", "port", "told"),
    [
        (KafkaDoors(), 0, 9093, "broker N on port 9093 + N"),
        (KafkaDoors(), 1001, 10094, "broker N on port 9093 + N"),
        (KafkaDoors(first_port=20000), 3, 20003, "broker N on port 20000 + N"),
        (KafkaDoors(ports=((1001, 9101),)), 1001, 9101, "broker N on port 9093 + N, 1001 on 9101"),
        (KafkaDoors(ports=((1001, 9101),)), 2, 9095, "broker N on port 9093 + N, 1001 on 9101"),
        (KafkaDoors(first_port=0), 2, 0, "brokers on free ports"),
    ],
)
def test_a_port_follows_from_the_node_id(doors: KafkaDoors, node_id: int, port: int, told: str) -> None:
    assert plan(doors).address_of(node_id) == TcpAddress("127.0.0.1", port)
    assert str(plan(doors)) == told


def test_behind_a_free_port_all_are_free() -> None:
    assert plan(KafkaDoors(), TcpAddress("127.0.0.1", 0), 50123).address_of(5).port == 0


def test_but_not_if_the_first_one_is_named() -> None:
    assert plan(KafkaDoors(first_port=7000), TcpAddress("127.0.0.1", 0), 50123).address_of(5).port == 7005


def test_an_address_follows_from_the_node_id() -> None:
    doors = KafkaDoors(first_address=IPv4Address("127.0.1.0"), ports=())
    assert plan(doors).address_of(1001) == TcpAddress("127.0.4.233", 9092)
    assert str(plan(doors)) == "broker N on 127.0.1.0 + N"


@pytest.mark.parametrize(
    ("doors", "node_id", "words"),
    [
        (KafkaDoors(), 60000, "broker 60000 would be on port 69093, above 65535, the highest port there is"),
        (KafkaDoors(last_port=9100), 8, "broker 8 would be on port 9101, above 9100, last_broker_port"),
        (KafkaDoors(first_port=9000), 92, "broker 92 would be on port 9092, which is the tunnel itself's"),
        (KafkaDoors(ports=((1, 9096),)), 3, "broker 3 would be on port 9096, which is broker 1's"),
        (
            KafkaDoors(first_address=IPv4Address("127.255.255.0")),
            300,
            "broker 300 would be at 128.0.0.44, which is no loopback address",
        ),
    ],
)
def test_a_node_that_has_no_place_is_named(doors: KafkaDoors, node_id: int, words: str) -> None:
    with pytest.raises(ListenError) as caught:
        plan(doors).address_of(node_id)
    assert caught.value.code is Code.KAFKA_NO_LISTENER
    assert words in caught.value.sentence
    assert f"brokers = {{ {node_id} = PORT }}" in caught.value.hint
    assert "[tunnel.orders]" in caught.value.hint


def test_the_highest_node_id_is_no_overflow() -> None:
    with pytest.raises(ListenError):
        plan(KafkaDoors(first_address=IPv4Address("127.255.255.255"))).address_of(2**31 - 1)
