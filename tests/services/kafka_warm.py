"""What makes a start of Kafka quick, made once for each build: a formatted folder's content and an archive of classes.

``StorageTool format`` takes a second and always writes the same but for the ids, which are ours to choose. More than
half of a broker's start is Java loading 8,000 classes out of jars; an archive of them (class-data sharing, JEP 350),
dumped when a broker of one ends, halves it. Where Java cannot use the archive it starts without.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from tests.services import cache
from tests.services.errors import ServerError
from tests.services.kafka_broker import JVM, KafkaBroker, PortTakenError
from tests.services.kafka_builds import KafkaBuild, java, java_version
from tests.services.kafka_settings import KafkaOptions, Stores, free_ports, properties
from tests.services.pki import Pair, Pki, make_pki
from tests.services.places import scratch_folder

_FORMATTED = "formatted"
_IDS = "meta.properties"
_ARCHIVE = "classes.jsa"
_ATTEMPTS = 10


@dataclass(frozen=True)
class Warm:
    """A data folder with the first metadata of a cluster (its feature levels) and no ids, and Java's archive."""

    formatted: Path
    archive: Path

    @property
    def jvm(self) -> tuple[str, ...]:
        """The options of Java that use the archive, and are silent where it cannot."""
        return (f"-XX:SharedArchiveFile={self.archive}", "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")


def warm(build: KafkaBuild) -> Warm:
    """Both, made on first use. Raises `ServerError` with what Kafka said where it cannot be."""
    recipe = "\n".join([build.class_path, java_version(), *JVM, _FORMATTED])
    name = f"{build.key}-warm-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    folder = cache.entry(name, lambda work: _fill(build, work))
    return Warm(folder / _FORMATTED, folder / _ARCHIVE)


def new_cluster_id() -> str:
    """Another for each cluster: brokers and clients (KIP-1242) refuse to take one for the other."""
    return urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")


def format_data(data: Path, formatted: Path, cluster_id: str, node_id: int) -> None:
    """Make a broker's data folder as ``StorageTool format`` does."""
    shutil.copytree(formatted, data)
    (data / _IDS).write_text(f"version=1\ncluster.id={cluster_id}\nnode.id={node_id}\n")


def write_stores(folder: Path, pki: Pki, certificate: Pair | None = None, client_ca: Path | None = None) -> Stores:
    """Write the brokers' PEM stores into the folder."""
    pair = certificate or pki.server
    stores = Stores(folder / "broker.pem", folder / "clients.pem")
    stores.key.touch(mode=0o600)  # before the key is in it
    stores.key.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    shutil.copyfile(client_ca or pki.client_ca, stores.trust)
    return stores


def _fill(build: KafkaBuild, work: Path) -> None:
    for _ in range(_ATTEMPTS):
        with scratch_folder("mtlskit-kafka-warm-", None) as scratch:
            try:
                return _train(build, work, scratch)
            except PortTakenError:
                continue
    raise ServerError(f"{_ATTEMPTS} free ports were taken before Kafka had them")


def _train(build: KafkaBuild, work: Path, scratch: Path) -> None:
    options = KafkaOptions(node_ids=(1,))
    (scratch / "pki").mkdir()
    stores = write_stores(scratch, make_pki(scratch / "pki"))
    configuration = scratch / "server.properties"
    configuration.write_text(properties(options, 1, free_ports(options.node_ids), stores, scratch / "data"))
    _run_format(build, configuration)
    shutil.copytree(scratch / "data", work / _FORMATTED, ignore=shutil.ignore_patterns(_IDS))
    dump = (f"-XX:ArchiveClassesAtExit={work / _ARCHIVE}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")
    broker = KafkaBroker(build, scratch, scratch, dump)
    try:
        broker.launch()
        broker.wait_started()
        broker.stop()
    finally:
        broker.kill()
    if not (work / _ARCHIVE).exists():
        raise ServerError(f"Java dumped no archive of classes; it said\n{broker.log()[-2000:]}")


def _run_format(build: KafkaBuild, configuration: Path) -> None:
    done = subprocess.run(
        [
            *(java(), *JVM, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", build.class_path),
            *("kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", str(configuration)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise ServerError(f"StorageTool failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
