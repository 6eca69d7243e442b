"""`mtlskit certs export`: which files, with which rights, all of them or none."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli import certs_convert
from mtlskit.cli.identities import read_material
from mtlskit.cli.main import app
from mtlskit.errors import Code, IdentityError
from mtlskit.pki.authority import Authority
from mtlskit.pki.bundles import read_bundle
from mtlskit.pki.export import ExportFormat
from mtlskit.store.files import write_file
from mtlskit.store.several import NewFile, write_together

Run = Callable[..., Result]
NOW = datetime.now(UTC)
CLIENTS = Authority.create("clients", now=NOW)
SERVERS = Authority.create("servers", now=NOW)
MINE = CLIENTS.issue_client("reporting", now=NOW)
FILES = ("--cert", "c.crt", "--key", "c.key", "--ca", "ca.crt")
SECRET = ("--out-passphrase-env", "SECRET")
CONFIG = """
[identity.reporting]
cert = "c.crt"
key = "c.key"
ca = "ca.crt"

[tunnel.one]
kind = "postgres"
listen = "127.0.0.1:6432"
upstream = "db.example.com:5433"
identity = "reporting"
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in a folder with an identity."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "horse")
    for name, data in (
        ("c.crt", MINE.cert_pem),
        ("c.key", MINE.key_pem),
        ("ca.crt", SERVERS.cert_pem),
        ("mtlskit.toml", CONFIG.encode()),
    ):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["certs", "export", *arguments])

    return invoke


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    sentence, hint = result.stderr.splitlines()
    assert sentence.startswith("error: ")
    assert hint.startswith("hint:  ")
    for word in words:
        assert word in result.stderr


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_the_formats_are_those_that_can_be_written() -> None:
    assert list(certs_convert.FORMATS) == [form.value for form in ExportFormat]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("pem", {"client.key": 0o600, "client.crt": 0o644, "root.crt": 0o644}),
        ("psql", {"postgresql.key": 0o600, "postgresql.crt": 0o644, "root.crt": 0o644}),
        ("p12", {"client.p12": 0o600, "root.crt": 0o644}),
        ("jdbc", {"client.p12": 0o600, "root.crt": 0o644}),
        ("der", {"client.pk8": 0o600, "client.der": 0o644, "root.crt": 0o644}),
    ],
)
def test_each_format_from_files_and_by_name(run: Run, tmp_path: Path, form: str, expected: dict[str, int]) -> None:
    old = os.umask(0)
    try:
        said(run("--format", form, "--out", "a/b", *FILES, *SECRET))
        told = json.loads(said(run("reporting", "--format", form, "--out", "named", *SECRET, "--json")))
    finally:
        os.umask(old)
    assert modes(tmp_path / "a" / "b") == modes(tmp_path / "named") == expected
    assert stat.S_IMODE((tmp_path / "named").stat().st_mode) == 0o700
    assert {Path(file["path"]).name: file["secret"] for file in told["files"]} == {
        name: mode == 0o600 for name, mode in expected.items()
    }
    (secret,) = [path for path in (tmp_path / "named").iterdir() if expected[path.name] == 0o600]
    assert read_bundle(secret.read_bytes(), source="f", passphrase=b"horse").key is not None


def test_how_the_files_are_used_is_told(run: Run, tmp_path: Path) -> None:
    used = said(run("reporting", "--format", "psql", "--out", "p")).splitlines()[-1]
    assert used.startswith('use:  psql "host=db.example.com port=5433 ')
    assert f"sslrootcert={tmp_path}/p/root.crt" in used
    used = said(run("reporting", "--format", "jdbc", "--out", "j a", *SECRET)).splitlines()[-1]
    assert used.startswith("use:  jdbc:postgresql://db.example.com:5433/DATABASE?sslmode=verify-full&sslkey=/")
    assert "/j%20a/client.p12&sslpassword=PASSPHRASE&sslrootcert=" in used
    assert "horse" not in used


def configure(first: str, second: str) -> None:
    """Two tunnels, each with these lines of its own, and an identity without CAs."""
    text = CONFIG.replace('ca = "ca.crt"\n', "")
    two = text.partition("[tunnel.one]")[2].replace("6432", "6433")
    Path("mtlskit.toml").write_text(f"{text}{first}\n[tunnel.two]{two}{second}\n", encoding="utf-8")


def test_the_ca_of_the_tunnel_goes_along_where_the_identity_has_none(run: Run, tmp_path: Path) -> None:
    configure('ca = "ca.crt"', 'ca = "ca.crt"')
    for form in ("psql", "jdbc"):
        result = run("reporting", "--format", form, "--out", form, *SECRET)
        assert f"sslrootcert={tmp_path}/{form}/root.crt" in said(result)
        assert result.stderr == ""
        assert (tmp_path / form / "root.crt").read_bytes() == SERVERS.cert_pem


def test_tunnels_that_trust_different_cas_are_told(run: Run, tmp_path: Path) -> None:
    configure('ca = "ca.crt"', 'ca = "c.crt"')
    result = run("reporting", "--format", "psql", "--out", "p")
    assert "use:  psql" in said(result)
    assert "warning: the tunnels trust different CAs: " in result.stderr
    assert "c.crt for two; what is written is for one" in result.stderr
    assert (tmp_path / "p" / "root.crt").read_bytes() == SERVERS.cert_pem
    assert run("reporting", "--format", "psql", "--out", "q", "--ca", "ca.crt").stderr == ""


@pytest.mark.parametrize("form", ["psql", "jdbc"])
def test_a_client_that_needs_a_ca_and_gets_none_is_warned_of(run: Run, tmp_path: Path, form: str) -> None:
    configure("", "")
    result = run("reporting", "--format", form, "--out", "o", *SECRET)
    assert "sslrootcert=FILE" in said(result)
    assert result.stderr == "warning: the server's CA is not among the files: name it with --ca\n"
    assert not (tmp_path / "o" / "root.crt").exists()


def test_another_ca_than_the_identitys_may_be_given(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.crt").write_bytes(CLIENTS.cert_pem)
    said(run("reporting", "--format", "pem", "--out", "o", "--ca", "other.crt"))
    assert (tmp_path / "o" / "root.crt").read_bytes() == CLIENTS.cert_pem


def test_what_is_left_out_is_a_warning(run: Run, tmp_path: Path) -> None:
    (tmp_path / "heap").write_bytes(SERVERS.cert_pem + MINE.cert_pem)
    result = run("--format", "pem", "--out", "o", "--cert", "heap", "--key", "c.key")
    assert "client.crt: public" in said(result)
    assert "left out: CN=servers" in result.stderr
    assert (tmp_path / "o" / "client.crt").read_bytes() == MINE.cert_pem


def test_an_archive_may_be_named_itself(run: Run, tmp_path: Path) -> None:
    said(run("--format", "p12", "--out", "me.pfx", *FILES, *SECRET))
    assert not (tmp_path / "root.crt").exists()
    said(run("--format", "pem", "--out", "back", "--cert", "me.pfx", "--passphrase-env", "SECRET"))
    assert (tmp_path / "back" / "client.key").read_bytes() == MINE.key_pem
    assert (tmp_path / "back" / "client.crt").read_bytes() == MINE.cert_pem


def test_nothing_is_overwritten_unasked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for taken in ("postgresql.crt", "postgresql.key", "root.crt"):
        (tmp_path / "out" / taken).write_bytes(b"mine")
        refused(run("--format", "psql", "--out", "out", *FILES), "MTLS-ID-016", taken, "--force")
        assert modes(tmp_path / "out").keys() == {taken}
        (tmp_path / "out" / taken).unlink()
    (tmp_path / "out" / "root.crt").symlink_to("nowhere")
    refused(run("--format", "psql", "--out", "out", *FILES), "MTLS-ID-016", "root.crt")
    said(run("--format", "psql", "--out", "out", *FILES, "--force"))
    assert not (tmp_path / "out" / "root.crt").is_symlink()


def test_what_was_written_is_undone_when_a_later_file_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").write_bytes(b"old")
    files = [
        NewFile(tmp_path / "z", b"public"),
        NewFile(tmp_path / "a", b"secret", secret=True),
        NewFile(tmp_path / "b", b"another", secret=True),
    ]
    written: list[str] = []

    def failing(path: Path, data: bytes, *, mode: int, replace: bool) -> None:
        written.append(path.name)
        if path.name == "z":
            raise IdentityError(Code.FILE_UNWRITABLE, "the disk is full", "make room")
        write_file(path, data, mode=mode, replace=replace)

    monkeypatch.setattr("mtlskit.store.several.write_file", failing)
    with pytest.raises(IdentityError, match="full"):
        write_together(files, replace=True)
    assert written[:3] == ["a", "b", "z"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b": b"old"}


def test_a_folder_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    refused(run("--format", "pem", "--out", "file/x", *FILES), "MTLS-ID-017", "file/x")
    refused(run("--format", "pem", "--out", "file", *FILES), "MTLS-ID-017")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "jks", "--out", "o", *FILES), ("--format jks", "pem, p12, psql, jdbc, der")),
        (("--format", "p12", "--out", "o", *FILES), ("needs a passphrase", "--out-passphrase-file")),
        (("--format", "jdbc", "--out", "o", *FILES), ("needs a passphrase",)),
        (("--format", "pem", "--out", "o"), ("nothing to export",)),
        (("reporting", "--format", "pem", "--out", "o", *FILES), ("exclude each other",)),
        (("--format", "pem", "--out", "o.pem", *FILES), ("several files", "name a folder")),
        (("nobody", "--format", "pem", "--out", "o"), ("nobody", "reporting")),
        (("--format", "pem", "--out", "o", "--cert", "c.crt"), ("there is no private key", "--key FILE")),
        (("--format", "pem", "--out", "o", "--cert", "missing", "--key", "c.key"), ("MTLS-ID-001",)),
        (("--format", "pem", "--out", "o", *FILES, "--ca", "x"), ("--ca is given more than once",)),
        (("--format", "pem", "--out", "o", *FILES[:4], "--ca", "c.crt"), ("holds no CA certificate",)),
        (("--format", "pem", "--out", "o", *FILES, "--out-passphrase-env", "UNSET"), ("UNSET is not set",)),
        (("--format", "pem", "--out", "o", *FILES, "--out-passphrase-prompt"), ("--out-passphrase-prompt", "terminal")),
    ],
)
def test_slips_write_nothing(run: Run, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(run(*arguments), *words)
    assert not (tmp_path / "o").exists()


def test_a_key_that_others_can_read_is_not_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "both").write_bytes(MINE.cert_pem + MINE.key_pem)
    (tmp_path / "both").chmod(0o644)
    refused(run("--format", "pem", "--out", "o", "--cert", "both"), "MTLS-ID-013", "chmod 600")
    with pytest.raises(IdentityError) as caught:
        read_material([tmp_path / "both"])
    assert caught.value.code is Code.KEY_EXPOSED
    (tmp_path / "both").chmod(0o600)
    assert read_material([tmp_path / "both"], ca=tmp_path / "ca.crt").root_pem == SERVERS.cert_pem
