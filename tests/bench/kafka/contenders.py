"""The two proxies, with their settings and the reasons for them. Whoever knows better ones is asked to change them."""

from __future__ import annotations

import sys

from tests.bench.contenders import MTLSKIT, Contender, Place
from tests.services.kafka_builds import coreutil
from tests.services.places import LOOPBACK_V4

__all__ = ["KafkaProxy", "MtlskitKafka", "all_contenders"]

_BUFFER = "65536"

_CONFIGURATION = """
[tunnel.bench]
kind = "kafka"
listen = "{host}:{port}"
upstream = "{host}:{upstream}"
first_broker_port = 0
cert = "{cert}"
key = "{key}"
ca = "{ca}"
"""


class MtlskitKafka(Contender):
    """`kind = "kafka"`, all else as it comes, but for `--quiet`, and the kernel chooses each broker's port."""

    name = MTLSKIT
    program = sys.executable
    before = frozenset()

    def command(self, place: Place) -> list[str]:
        """With a configuration file, as a user has one."""
        text = _CONFIGURATION.format(
            host=LOOPBACK_V4,
            port=place.port,
            upstream=place.upstream_port,
            cert=place.pki.client.cert,
            key=place.pki.client.key,
            ca=place.pki.server_ca,
        )
        files = ("--config", place.write("mtlskit.toml", text), "--control", str(place.folder / "control"))
        return [coreutil("nice"), sys.executable, "-m", "mtlskit", "proxy", *files, "--quiet"]

    def version(self) -> str:
        """That of the package."""
        from mtlskit import __version__

        return f"mtlskit {__version__}"


class KafkaProxy(Contender):
    """kafka-proxy: goroutines, and TLS of the Go library. Buffers of 64 KiB: with its own of 4 KiB it needs more CPU.

    No log but errors, no HTTP endpoint, and listeners on loopback only.
    """

    name = "kafka-proxy"
    program = "kafka-proxy"
    before = frozenset()

    def command(self, place: Place) -> list[str]:
        """Everything is a flag."""
        mapping = f"{LOOPBACK_V4}:{place.upstream_port},{LOOPBACK_V4}:{place.port}"
        client = ("--tls-client-cert-file", str(place.pki.client.cert), "--tls-client-key-file")
        tls = ("--tls-enable", "--tls-ca-chain-cert-file", str(place.pki.server_ca), *client, str(place.pki.client.key))
        sizes = ("--proxy-request-buffer-size", _BUFFER, "--proxy-response-buffer-size", _BUFFER)
        quiet = ("--default-listener-ip", LOOPBACK_V4, "--http-disable", "--log-level", "error")
        program = self.path() or self.program
        return [coreutil("nice"), program, "server", "--bootstrap-server-mapping", mapping, *tls, *sizes, *quiet]

    def version(self) -> str:
        """What `version` says: `unknown`, where whoever built it gave it no number."""
        return f"kafka-proxy {self.said('version')}"


def all_contenders() -> list[Contender]:
    """Both, installed or not."""
    return [MtlskitKafka(), KafkaProxy()]
