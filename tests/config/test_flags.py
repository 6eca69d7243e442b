"""One tunnel from flags."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from mtlskit.config.flags import FLAGS, config_from_flags
from mtlskit.config.loading import parse_config
from mtlskit.config.schema import TunnelTable
from mtlskit.config.values import Endpoint, KafkaDoors, ProxyConfig, TcpAddress, TunnelKind, Verify, VerifyMode
from mtlskit.errors import Code, ConfigError

BASE = Path("/work")


KAFKA: dict[str, Any] = {"kind": "kafka", "upstream": ["kafka+ssl://h:1"], "ca": "ca.pem"}


def from_flags(**given: Any) -> ProxyConfig:
    smallest: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "upstream": ["db"],
        "cert": "c.pem",
        "key": Path("k.pem"),
        "base": BASE,
        "environ": {"HOME": "/home/ann"},
        "platform": "linux",
    }
    return config_from_flags(**(smallest | given))


def test_the_smallest_command_line() -> None:
    config = from_flags()
    (tunnel,) = config.tunnels
    assert config.source is None
    assert (tunnel.name, tunnel.kind, tunnel.listen) == ("default", TunnelKind.POSTGRES, TcpAddress("127.0.0.1", 0))
    assert (tunnel.identity.cert, tunnel.identity.key) == (BASE.absolute() / "c.pem", BASE.absolute() / "k.pem")


def test_flags_and_file_mean_the_same() -> None:
    flags = from_flags(
        listen="10.0.0.1:1",
        upstream=["postgres://u:p@h1", "h2:2"],
        ca="~/ca.pem",
        passphrase_file="p",
        verify="name:db",
        negotiation="direct",
        pins=["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
        allow_clients=["10.0.0.0/8"],
        max_connections=7,
        name="a",
    )
    file = parse_config(
        """\
        [tunnel.a]
        kind = "postgres"
        listen = "10.0.0.1:1"
        upstream = ["postgres://u:p@h1", "h2:2"]
        cert = "c.pem"
        key = "k.pem"
        ca = "~/ca.pem"
        passphrase_file = "p"
        verify = "name:db"
        negotiation = "direct"
        pins = ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
        allow_clients = ["10.0.0.0/8"]
        max_connections = 7
        """,
        source=BASE / "mtlskit.toml",
        environ={"HOME": "/home/ann"},
        platform="linux",
    )
    assert flags.tunnels == file.tunnels


def test_a_kafka_tunnel_from_flags() -> None:
    (tunnel,) = from_flags(**KAFKA, advertised="host.docker.internal", first_broker_port=9000).tunnels
    assert (tunnel.kind, tunnel.upstream) == (TunnelKind.KAFKA, (Endpoint("h", 1),))
    assert tunnel.verify == Verify(VerifyMode.CA)
    assert tunnel.kafka == KafkaDoors(advertised="host.docker.internal", first_port=9000)


def test_every_key_of_a_tunnel_has_a_flag_or_needs_a_file() -> None:
    assert set(FLAGS) == set(TunnelTable.model_fields) - {
        "identity", "timeouts", "expiring_sessions", "login", "source",
        "last_broker_port", "first_broker_address", "brokers",
    }  # fmt: skip
    assert set(FLAGS) <= set(inspect.signature(config_from_flags).parameters)


@pytest.mark.parametrize(
    ("given", "code", "sentence", "hint"),
    [
        ({"listen": None}, Code.CONFIG_MISSING_KEY, "--listen is missing", "add --listen 127.0.0.1:6432"),
        ({"upstream": []}, Code.CONFIG_MISSING_KEY, "--upstream is", "add --upstream HOST:5432, or set MTLSKIT"),
        ({"cert": None}, Code.CONFIG_MISSING_KEY, "--cert is missing", "--cert"),
        ({"cert": None, "key": None}, Code.CONFIG_MISSING_KEY, "a client certificate and its key are missing", "--key"),
        ({"listen": "1"}, Code.CONFIG_BAD_VALUE, '--listen: "1": a port alone is not enough', "127.0.0.1:6432"),
        ({"listen": ":1"}, Code.CONFIG_BAD_VALUE, "the address to listen on is not written", "--allow-client CIDR"),
        ({"upstream": ["a", "b:x"]}, Code.CONFIG_BAD_VALUE, '--upstream: "b:x": the port must be', "HOST:PORT"),
        ({"upstream": ["postgres://u:s3cret/x@h"]}, Code.CONFIG_BAD_VALUE, "--upstream: a slash stands before", "%2F"),
        ({"listen": "[::]:1"}, Code.CONFIG_OPEN_DOOR, "--allow-client does not say", "add --allow-client fd00::/8 "),
        ({"verify": "ca"}, Code.CONFIG_BAD_VALUE, '--verify: "ca": this needs a CA file', "add --ca root.crt,"),
        ({"pins": ["x"]}, Code.CONFIG_BAD_VALUE, '--pin: "x": a pin begins', "openssl"),
        ({"max_connections": 0}, Code.CONFIG_BAD_VALUE, "--max-connections: 0: must be from 1", "1000"),
        ({"kind": "kafka"}, Code.CONFIG_BAD_VALUE, '--upstream: "db": the port is missing', "HOST:PORT"),
        ({"advertised": "x"}, Code.CONFIG_BAD_VALUE, "--advertised: only a kafka tunnel", "leave --advertised out"),
        ({"first_broker_port": 0}, Code.CONFIG_BAD_VALUE, "--first-broker-port: only a kafka", "--first-broker-port"),
        (KAFKA | {"first_broker_port": -1}, Code.CONFIG_BAD_VALUE, "--first-broker-port: -1: must be from 0", "port"),
        (KAFKA | {"advertised": "h:1"}, Code.CONFIG_BAD_VALUE, '--advertised: "h:1": the port is each', "host name"),
        (KAFKA | {"listen": "unix:x"}, Code.CONFIG_BAD_VALUE, "--listen: Kafka's clients", "--listen 127.0.0.1:9092"),
        (
            KAFKA | {"listen": "127.0.0.1:65535"},
            Code.CONFIG_BAD_VALUE,
            "--listen: brokers have the ports after the tunnel's own",
            "add --first-broker-port 9093",
        ),
        (KAFKA | {"ca": None}, Code.CONFIG_MISSING_KEY, "--ca is missing: a Kafka of Heroku's", "add --ca root.crt"),
        ({"kind": "x"}, Code.CONFIG_BAD_VALUE, '--kind: "x": not a kind of tunnel', "postgres"),
        ({"cert": ""}, Code.CONFIG_BAD_VALUE, '--cert: "": the path is empty', "name a file"),
        ({"allow_users": ["ann"], "platform": "win32"}, Code.CONFIG_NOT_SUPPORTED, "--allow-user: on", "--allow-user"),
        ({"name": "a b"}, Code.CONFIG_BAD_VALUE, '"a b" is not a usable name', "letters"),
    ],
)  # fmt: skip
def test_bad_flags(given: dict[str, Any], code: Code, sentence: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_flags(**given)
    assert sentence in caught.value.sentence
    assert "s3cret" not in caught.value.sentence
    assert caught.value.code is code
    assert hint in caught.value.hint


def test_variables_are_the_shells_business() -> None:
    assert from_flags(cert="${X}").tunnels[0].identity.cert.name == "${X}"
