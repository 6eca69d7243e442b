"""The values of `mtlskit sandbox`'s flags. What is wrong with one is told in our words, with the flag's name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mtlskit.cli.usage import harmless, whole_number
from mtlskit.config.addresses import parse_listen
from mtlskit.config.durations import parse_duration
from mtlskit.config.reach import is_this_machine_only
from mtlskit.config.values import TcpAddress
from mtlskit.errors import Code, ConfigError
from mtlskit.sandbox.kafka_options import KafkaOptions, Topic

__all__ = ["kafka_options", "loopback_address", "number", "seconds", "tcp_address"]


def tcp_address(flag: str, text: str) -> TcpAddress:
    """Where to listen. Raises `ConfigError`."""
    address = parse_listen(text, base=Path.cwd(), environ=os.environ)
    if not isinstance(address, TcpAddress):
        raise ConfigError(Code.USAGE, f"{flag} {text}: the sandbox listens on TCP only", "name HOST:PORT")
    return address


def loopback_address(flag: str, text: str) -> TcpAddress:
    """Where this machine alone can come: the API hands out private keys in plain HTTP. Raises `ConfigError`."""
    address = tcp_address(flag, text)
    if not is_this_machine_only(address):
        raise ConfigError(
            Code.USAGE,
            f"{flag} {text}: the API hands out keys in plain HTTP, so it listens on this machine only",
            f"name a loopback address: {flag} 127.0.0.1:{address.port}",
        )
    return address


def number(flag: str, text: str) -> float:
    """A number. Raises `ConfigError`."""
    try:
        return float(text)
    except ValueError as exc:
        raise ConfigError(Code.USAGE, f"{flag} {harmless(text)}: must be a number", f"such as {flag} 1") from exc


def seconds(flag: str, text: str) -> float:
    """A duration, or none. Raises `ConfigError`."""
    if text.strip() == "0":
        return 0.0
    try:
        return parse_duration(text)
    except ConfigError as exc:
        raise ConfigError(exc.code, f"{flag}: {exc.sentence}", exc.hint) from exc


def kafka_options(brokers: str | None, topics: Sequence[str], prefix: str, listen: str | None) -> KafkaOptions:
    """What is asked of Kafka. Brokers count as asked for as soon as any flag is about them. Raises `ConfigError`."""
    options = KafkaOptions(
        topics=tuple(map(_topic, topics)),
        prefix=prefix,
        asked=brokers is not None or bool(topics) or bool(prefix) or listen is not None,
    )
    if listen is not None:
        options = replace(options, listen=tcp_address("--kafka-listen", listen))
    return options if brokers is None else replace(options, brokers=whole_number("--kafka-brokers", brokers))


def _topic(text: str) -> Topic:
    name, colon, partitions = text.partition(":")
    return Topic(name, whole_number(f"--kafka-topic {harmless(name)}:", partitions)) if colon else Topic(name)
