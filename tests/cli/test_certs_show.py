"""`mtlskit certs show`: what it prints, in which zone, with which status, and what it refuses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli import certs_words
from mtlskit.cli.main import app
from mtlskit.pki.authority import Authority, Issued
from mtlskit.pki.export import ExportFormat, export
from mtlskit.pki.facts import CertificateFacts
from mtlskit.pki.keys import load_private_key, private_key_pem
from mtlskit.pki.material import gather
from tests.support.openssl import openssl
from tests.support.x509_builder import make_certificate

Run = Callable[..., Result]
NOW = datetime.now(UTC)
ROOT = Authority.create("our root", now=NOW)
CLIENT = ROOT.issue_client("reporting", now=NOW, dns_names=["bi.example.com"])
OTHER = ROOT.issue_client("other", now=NOW)
CONFIG = """
[identity.reporting]
cert = "r.crt"
key = "r.key"
passphrase_file = "secret"

[tunnel.one]
kind = "postgres"
listen = "127.0.0.1:6432"
upstream = "db.example.com:5432"
identity = "reporting"
ca = "root.crt"
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in a folder with some files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTLSKIT_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    files = {"c.crt": CLIENT.cert_pem, "c.key": CLIENT.key_pem, "other.key": OTHER.key_pem, "root.crt": ROOT.cert_pem}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)

    def invoke(*arguments: str, stdin: bytes | None = None, **environment: str) -> Result:
        return CliRunner().invoke(app, ["certs", "show", *arguments], input=stdin, env=environment)

    return invoke


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set the zone of this process."""

    def use(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield use
    monkeypatch.undo()
    time.tzset()


def said(result: Result, status: int = 0) -> str:
    assert result.exit_code == status, result.output
    return result.stdout


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    sentence, hint = result.stderr.splitlines()
    assert sentence.startswith("error: ")
    assert hint.startswith("hint:  ")
    for word in words:
        assert word in result.stderr


def rows(text: str) -> dict[str, str]:
    """The rows of a single certificate by their names."""
    return {line[2:16].strip(): line[16:] for line in text.splitlines() if line.startswith("  ") and line[2] != " "}


def archive(issued: Issued, passphrase: bytes) -> bytes:
    material = gather([("c", issued.cert_pem), ("k", issued.key_pem)], now=NOW)
    return export(material, ExportFormat.P12, passphrase=passphrase).files[0].data


def test_the_rows_are_what_openssl_says(run: Run, tmp_path: Path, zone: Callable[[str], None]) -> None:
    zone("UTC")
    shown = rows(said(run("c.crt", "--key", "c.key")))
    asked = ("-subject", "-issuer", "-serial", "-fingerprint", "-sha256", "-dates", "-nameopt", "RFC2253")
    theirs = openssl("x509", "-in", tmp_path / "c.crt", "-noout", *asked).decode()
    assert f"subject={shown['Subject']}\n" in theirs
    assert f"issuer={shown['Issuer']}\n" in theirs
    assert f"Fingerprint={shown['SHA-256']}\n" in theirs
    ends = CLIENT.certificate.not_valid_after_utc
    assert f"notAfter={ends:%b %e %H:%M:%S %Y} GMT" in theirs
    assert shown["Not after"] == f"{ends:%Y-%m-%d %H:%M:%S} UTC, 364 days left"
    assert (shown["Names"], shown["For"], shown["CA"]) == ("DNS:bi.example.com", "clientAuth", "no")
    assert shown["Private key"] == "c.key, EC secp256r1, belongs to CN=reporting"


def test_dates_in_the_users_zone_and_in_utc(run: Run, zone: Callable[[str], None]) -> None:
    zone("Asia/Tokyo")
    ends = CLIENT.certificate.not_valid_after_utc
    there = ends + timedelta(hours=9)
    assert f"{there:%Y-%m-%d %H:%M:%S} JST ({ends:%Y-%m-%d %H:%M:%S} UTC)" in said(run("c.crt"))
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert certs_words.moment_text(last) == "9999-12-31 23:59:59 UTC"


def test_a_key_that_does_not_fit_ends_with_3(run: Run) -> None:
    assert "belongs to none of these certificates" in said(run("c.crt", "--key", "other.key"), 3)
    told = json.loads(said(run("c.crt", "--key", "other.key", "--json"), 3))
    assert (told["good"], told["files"][0]["key"]["fits"]) == (False, None)


def test_an_expired_certificate_ends_with_3(run: Run, tmp_path: Path) -> None:
    old = make_certificate("old", begins=NOW - timedelta(days=20), ends=NOW - timedelta(days=3, hours=1))
    (tmp_path / "old.crt").write_bytes(old.cert_pem)
    assert "expired 3 days ago" in said(run("old.crt"), 3)
    assert json.loads(said(run("c.crt", "old.crt", "--json"), 3))["files"][0]["good"] is True


def test_a_heap_is_put_in_order_with_notes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "heap").write_bytes(ROOT.cert_pem + CLIENT.cert_pem + ROOT.cert_pem)
    shown = said(run("heap"))
    assert "heap: PEM, 2 certificates" in shown
    assert shown.index("Subject       CN=reporting") < shown.index("Subject       CN=our root")
    assert "issued by CN=our root" in shown
    assert "put in order" in shown
    assert "more than once" in shown
    told = json.loads(said(run("heap", "--json")))["files"][0]
    assert told["chain"] == ["CN=reporting", "CN=our root"]
    assert told["root_included"]


def test_the_json_is_complete(run: Run) -> None:
    told = json.loads(said(run("c.crt", "--json")))
    (file,) = told["files"]
    (facts,) = file["certificates"]
    assert set(facts) == {field.name for field in fields(CertificateFacts)}
    assert facts["not_after"] == f"{CLIENT.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert file["open_end"] == "CN=our root"
    assert file["key"] is None


def test_standard_input_and_other_forms(run: Run, tmp_path: Path) -> None:
    der = openssl("x509", "-in", tmp_path / "c.crt", "-outform", "DER")
    assert "standard input: DER, 1 certificate" in said(run("-", stdin=der))
    (tmp_path / "c.p12").write_bytes(archive(CLIENT, b"horse"))
    shown = said(run("c.p12", "--passphrase-env", "SECRET", SECRET="horse"))
    assert "c.p12: PKCS #12, 1 certificate and a private key" in shown
    assert rows(shown)["Private key"] == "EC secp256r1, belongs to CN=reporting"
    refused(run("c.p12"), "MTLS-ID-010", "--passphrase-prompt")
    refused(run("c.p12", "--passphrase-env", "SECRET", SECRET="mule"), "MTLS-ID-011")
    refused(run("-", stdin=b""), "standard input is empty")


def test_an_encrypted_key_beside_certificates_is_left_closed(run: Run, tmp_path: Path) -> None:
    key = load_private_key(CLIENT.key_pem, source="k")
    (tmp_path / "both").write_bytes(CLIENT.cert_pem + private_key_pem(key, b"horse"))
    assert "give its passphrase to see whether it fits" in said(run("both"))
    assert "belongs to CN=reporting" in said(run("both", "--passphrase-env", "SECRET", SECRET="horse"))


def test_an_identity_by_its_name(run: Run, tmp_path: Path) -> None:
    key = load_private_key(CLIENT.key_pem, source="k")
    for name, data in (
        ("mtlskit.toml", CONFIG.encode()),
        ("r.crt", CLIENT.cert_pem),
        ("r.key", private_key_pem(key, b"horse")),
        ("secret", b"horse\n"),
    ):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    shown = said(run("reporting"))
    assert "r.key, EC secp256r1, belongs to CN=reporting" in shown
    assert said(run("reporting", "--config", "mtlskit.toml")) == shown
    refused(run("reportign"), "reportign", "did you mean reporting?")
    # A file goes before.
    (tmp_path / "reporting").write_bytes(OTHER.cert_pem)
    assert rows(said(run("reporting")))["Subject"] == "CN=other"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.crt",), ("MTLS-ID-001", "missing.crt")),
        (("missing",), ("MTLS-ID-001", "no such file", "--config")),
        (("missing", "--config", "none.toml"), ("MTLS-CFG-001",)),
        (("c.crt", "root.crt", "--key", "c.key"), ("--key belongs to one file",)),
        (("c.crt", "--key", "missing.key"), ("MTLS-ID-001", "private key")),
        (("folder",), ("MTLS-ID-002", "a folder")),
        ((), ("FILE is missing", "hint:  add FILE, or ")),
    ],
)
def test_slips_are_told_in_one_line(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (tmp_path / "folder").mkdir()
    refused(run(*arguments), *words)


def test_what_is_wrong_is_red_on_a_terminal(run: Run) -> None:
    command = [sys.executable, "-m", "mtlskit", "certs", "show", "c.crt", "--key", "other.key"]
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # EIO: the last who had the terminal has closed it
            while True:
                seen += os.read(ours, 4096)
        os.close(ours)
        assert process.wait(60) == 3
    assert b"\x1b[31mother.key, EC secp256r1, belongs to none of these certificates\x1b[0m" in seen
    plain = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert b"\x1b" not in plain.stdout


def test_names_cannot_write_to_the_terminal(run: Run, tmp_path: Path) -> None:
    made = make_certificate("a\x1b[2Jb\nc", begins=NOW - timedelta(days=1), ends=NOW + timedelta(days=1))
    (tmp_path / "x").write_bytes(made.cert_pem)
    shown = said(run("x"))
    assert "\x1b" not in shown
    assert "b\nc" not in shown
