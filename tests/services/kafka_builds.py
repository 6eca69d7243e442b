"""Apache Kafka as Maven gives it: the jars of the broker, of its tools and of a logger, each checked against its pin.

``java/kafka-X.Y/pom.xml`` says what is wanted and ``jars.sha256`` beside it what must come (``sha256sum *.jar`` of a
folder that ``mvn dependency:copy-dependencies -DincludeScope=runtime`` has filled): every jar, and no other.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.services import cache as store
from tests.services import fetch
from tests.services.errors import IntegrityError, UnavailableError

# The last release that old clients know everything of, and the newest whose tools are in the repository too.
VERSIONS: dict[str, str] = {"3.9": "3.9.2", "4.3": "4.3.1"}
NEWEST = "4.3"

_POMS = Path(__file__).parent / "java"


@dataclass(frozen=True)
class KafkaBuild:
    """The jars of one Kafka. `key` names these very files: what was made with them is kept under it."""

    version: str
    jars: Path
    key: str

    @property
    def at_least_4(self) -> bool:
        """Whether this is a Kafka without ZooKeeper, with today's names of tools and options."""
        return int(self.version.partition(".")[0]) >= 4

    @property
    def class_path(self) -> str:
        """Every jar by name: an archive of classes is used only under the class path that it was made under."""
        return ":".join(str(jar) for jar in sorted(self.jars.glob("*.jar")))


@cache
def kafka_build(line: str) -> KafkaBuild:
    """The build of a release line (a key of `VERSIONS`), fetched if need be.

    Raises `UnavailableError` where it cannot be had, and `IntegrityError` where other jars came than the pinned ones.
    """
    if line not in VERSIONS:
        raise UnavailableError(f"no Kafka {line} is pinned", "choose one of " + ", ".join(VERSIONS))
    java()  # before anything is fetched in vain
    version, folder = VERSIONS[line], _POMS / f"kafka-{line}"
    pinned = (folder / "jars.sha256").read_bytes()
    key = f"kafka-{version}-{hashlib.sha256(pinned).hexdigest()[:16]}"

    def fill(work: Path) -> None:
        fetch.maven_copy_dependencies(folder / "pom.xml", work)
        check_jars(work, pinned.decode())

    return KafkaBuild(version, store.entry(key, fill), key)


def check_jars(folder: Path, pinned: str) -> None:
    """Raise `IntegrityError` unless the folder holds exactly these jars (lines of ``sha256sum``)."""
    wanted = {name: digest for digest, name in (line.split() for line in pinned.splitlines())}
    came = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.iterdir()}
    wrong = sorted(name for name in wanted.keys() | came.keys() if wanted.get(name) != came.get(name))
    if wrong:
        told = [f"{name}: expected {wanted.get(name, 'none')}, came as {came.get(name, 'none')}" for name in wrong]
        raise IntegrityError("\n".join(told))


@cache
def java() -> str:
    """The program. Kafka 4 wants Java 17."""
    return _program("java", "default-jdk-headless")


@cache
def coreutil(name: str) -> str:
    """A small program that starts another: nice, timeout."""
    return _program(name, "coreutils")


@cache
def java_version() -> str:
    """What ``java -version`` says, which is different for every build of Java."""
    return subprocess.run([java(), "-version"], capture_output=True, text=True, check=True).stderr


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UnavailableError(f"{name} is not installed", f"apt-get install {package}")
    return found
