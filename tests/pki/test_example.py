"""`certs-example/`: still valid, still what its script makes, and good for what its README says."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mtlskit.pki.authority import Authority
from mtlskit.pki.certificates import is_issued_by, load_certificates, subject_text
from mtlskit.pki.identity import check_anchors, check_pair
from mtlskit.pki.keys import load_private_key
from tests.support.command_process import clean_environment
from tests.support.openssl import openssl

EXAMPLE = Path(__file__).resolve().parents[2] / "certs-example"
NAMES = ("ca", "server", "client")
KEPT_FRESH = timedelta(days=60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script makes today."""
    shell = shutil.which("sh")
    assert shell, "certs-example/make.sh needs a POSIX shell"
    folder = tmp_path_factory.mktemp("certs")
    command: list[str | Path] = [shell, EXAMPLE / "make.sh", folder]
    done = subprocess.run(command, env=clean_environment(folder), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return folder


def certificate(folder: Path, name: str) -> x509.Certificate:
    (found,) = load_certificates((folder / f"{name}.crt").read_bytes(), source=f"{name}.crt")
    return found


def shape(folder: Path, name: str) -> dict[str, object]:
    """All of a certificate that does not change from one making to the next."""
    found = certificate(folder, name)
    described: dict[str, object] = {
        "subject": subject_text(found),
        "issuer": found.issuer.rfc4514_string(),
        "days": (found.not_valid_after_utc - found.not_valid_before_utc).days,
        "signature": found.signature_algorithm_oid,
        "key": len(found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
    }
    for extension in found.extensions:
        # Key identifiers are hashes of keys, so only that they are there can be compared.
        varies = isinstance(extension.value, x509.SubjectKeyIdentifier | x509.AuthorityKeyIdentifier)
        described[extension.oid.dotted_string] = (extension.critical, None if varies else extension.value)
    return described


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_kept_fresh(name: str) -> None:
    ends = certificate(EXAMPLE, name).not_valid_after_utc
    assert datetime.now(UTC) < ends - KEPT_FRESH, (
        f"certs-example/{name}.crt ends on {ends:%Y-%m-%d}: run `sh certs-example/make.sh` and commit what it made"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_script_makes_what_is_committed(name: str, made: Path) -> None:
    assert shape(made, name) == shape(EXAMPLE, name)
    assert certificate(made, name) != certificate(EXAMPLE, name)


def test_the_script_makes_these_files_and_keeps_keys_private(made: Path) -> None:
    expected = sorted(f"{name}.{end}" for name in NAMES for end in ("crt", "key"))
    assert sorted(path.name for path in made.iterdir()) == expected
    assert sorted(path.name for path in EXAMPLE.iterdir()) == sorted([*expected, "README.md", "make.sh"])
    for name in NAMES:
        assert stat.S_IMODE((made / f"{name}.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("program", ["openssl", "mtlskit"])
def test_the_script_changes_nothing_when_a_program_fails(program: str, tmp_path: Path) -> None:
    (tmp_path / program).write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / program).chmod(0o755)
    (tmp_path / "out").mkdir()
    environment = clean_environment(tmp_path)
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    command: list[str | Path] = ["sh", EXAMPLE / "make.sh", tmp_path / "out"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode != 0
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("committed", [True, False])
def test_the_example_is_good_for_what_it_says(committed: bool, made: Path) -> None:
    folder = EXAMPLE if committed else made
    now = datetime.now(UTC)
    for name, purpose in (("server", "sslserver"), ("client", "sslclient")):
        openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", folder / "ca.crt", folder / f"{name}.crt")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    checked = check_pair(files["client.crt"], files["client.key"], now=now, cert_source="crt", key_source="key")
    assert checked.warnings == ()
    (root,) = check_anchors(files["ca.crt"], now=now, source="ca.crt")
    assert is_issued_by(checked.leaf, root)
    assert Authority.load(files["ca.crt"], files["ca.key"]).certificate == root
    server = certificate(folder, "server")
    assert load_private_key(files["server.key"], source="key").public_key() == server.public_key()
    san = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in san.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_everything_in_the_example_says_that_it_is_not_for_production() -> None:
    for name in NAMES:
        assert "not for production" in subject_text(certificate(EXAMPLE, name))
    assert "not for production" in (EXAMPLE / "README.md").read_text(encoding="utf-8")
