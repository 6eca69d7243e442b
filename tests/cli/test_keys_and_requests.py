"""`mtlskit keys` and `mtlskit csr`: what they write, what they print, and what they refuse."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli import keys as keys_command
from mtlskit.cli import passphrase
from mtlskit.cli.main import app
from mtlskit.errors import IdentityError
from mtlskit.pki.keys import KeyType, load_private_key
from tests.support.openssl import openssl

Run = Callable[..., Result]
SECRET = "correct horse"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, stdin: bytes | None = None, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, input=stdin, env=environment)

    return invoke


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, *words: str) -> None:
    """Status 2, one line of what is wrong and one of what to do."""
    assert result.exit_code == 2, result.output
    sentence, hint = result.stderr.splitlines()
    assert sentence.startswith("error: ")
    assert hint.startswith("hint:  ")
    for word in words:
        assert word in result.stderr


def test_the_lines_that_scripts_rely_on(run: Run, tmp_path: Path) -> None:
    said(run("keys", "new", "--out", "client.key"))
    said(
        run(
            *("csr", "new", "--key", "client.key", "--subject", "CN=reporting"),
            *("--san", "DNS:bi.example.com", "--out", "client.csr"),
        )
    )
    key, request = tmp_path / "client.key", tmp_path / "client.csr"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(request.stat().st_mode) == 0o644
    ours = openssl("pkey", "-in", key, "-pubout")
    assert openssl("req", "-in", request, "-noout", "-pubkey", "-verify") == ours
    shown = said(run("csr", "show", "client.csr"))
    for row in ("Subject     CN=reporting", "Names       DNS:bi.example.com", "Asks for    clientAuth"):
        assert row in shown.splitlines()


def test_the_types_are_those_that_can_be_made(run: Run, tmp_path: Path) -> None:
    assert list(keys_command._KINDS) == [kind.value for kind in KeyType]
    for kind in ("ec-p384", "ed25519", "rsa-2048"):
        told = json.loads(said(run("keys", "new", "--out", f"{kind}.key", "--type", kind, "--json")))
        assert (told["type"], told["path"], told["encrypted"]) == (kind, f"{kind}.key", False)
        request = json.loads(
            said(run("csr", "new", "--key", f"{kind}.key", "--subject", "CN=a", "--out", f"{kind}.csr", "--json"))
        )
        assert request["spki_sha256"] == told["spki_sha256"]
        assert {**request, "path": None} == {
            **json.loads(said(run("csr", "show", f"{kind}.csr", "--json"))),
            "path": None,
        }
    refused(run("keys", "new", "--out", "x", "--type", "dsa"), "--type dsa", "ec-p256")


def test_a_request_from_standard_input(run: Run, tmp_path: Path) -> None:
    said(run("keys", "new", "--out", "k"))
    said(run("csr", "new", "--key", "k", "--subject", "CN=piped", "--for", "both", "--out", "r"))
    shown = json.loads(said(run("csr", "show", "-", "--json", stdin=(tmp_path / "r").read_bytes())))
    assert (shown["subject"], shown["usages"], shown["names"]) == ("CN=piped", ["clientAuth", "serverAuth"], [])
    refused(run("csr", "show", "-", stdin=b""), "standard input")


def test_nothing_is_overwritten_unasked(run: Run, tmp_path: Path) -> None:
    said(run("keys", "new", "--out", "k"))
    before = (tmp_path / "k").read_bytes()
    refused(run("keys", "new", "--out", "k"), "MTLS-ID-016", "--force")
    assert (tmp_path / "k").read_bytes() == before
    said(run("keys", "new", "--out", "k", "--force"))
    assert (tmp_path / "k").read_bytes() != before
    said(run("csr", "new", "--key", "k", "--subject", "CN=a", "--out", "r"))
    refused(run("csr", "new", "--key", "k", "--subject", "CN=b", "--out", "r"), "MTLS-ID-016")
    # A slip of the hand must not cost the key.
    refused(run("csr", "new", "--key", "k", "--subject", "CN=b", "--out", "k"), "MTLS-ID-016")


# Passphrases.


@pytest.mark.parametrize("source", ["file", "env", "command"])
def test_a_passphrase_from_each_source(run: Run, tmp_path: Path, source: str) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\nsecond line\n")
    (tmp_path / "secret").chmod(0o600)
    flags = {
        "file": ("--passphrase-file", "secret"),
        "env": ("--passphrase-env", "OUR_SECRET"),
        "command": ("--passphrase-command", f"cat '{tmp_path / 'secret'}'"),
    }[source]
    environment = {"OUR_SECRET": SECRET} if source == "env" else {}
    told = said(run("keys", "new", "--out", "k", *flags, **environment))
    assert "encrypted" in told
    assert SECRET not in told
    pem = (tmp_path / "k").read_bytes()
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    load_private_key(pem, source="k", passphrase=SECRET.encode())
    openssl("pkey", "-in", tmp_path / "k", "-passin", f"pass:{SECRET}", "-noout")
    said(run("csr", "new", "--key", "k", "--subject", "CN=a", "--out", "r", *flags, **environment))
    refused(run("csr", "new", "--key", "k", "--subject", "CN=a", "--out", "r2"), "MTLS-ID-010")


def test_a_passphrase_that_is_asked_for(tmp_path: Path) -> None:
    """At a real terminal: twice for a new key, and never shown."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mtlskit", "keys", "new", "--out", "k", "--passphrase-prompt"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        seen = b""
        for question in (b"Passphrase: ", b"Repeat for confirmation: "):
            while not seen.endswith(question):
                seen += os.read(ours, 1024)
            os.write(ours, SECRET.encode() + b"\n")
        with suppress(OSError):  # EIO: the last who had the terminal has closed it
            while True:
                seen += os.read(ours, 1024)
        os.close(ours)
        assert process.wait(60) == 0, seen
    assert SECRET.encode() not in seen
    load_private_key((tmp_path / "k").read_bytes(), source="k", passphrase=SECRET.encode())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--passphrase-env", "UNSET_HERE"), ("UNSET_HERE is not set",)),
        (("--passphrase-env", "EMPTY"), ("EMPTY is empty",)),
        (("--passphrase-command", "no-such-program-here"), ("no-such-program-here", "cannot be run")),
        (("--passphrase-command", "false"), ("false", "status 1")),
        (("--passphrase-command", "true"), ("is empty",)),
        (("--passphrase-command", "yes"), ("yes", "prints more than 65536 bytes")),
        (("--passphrase-command", "cat /dev/zero"), ("prints more than 65536 bytes",)),
        (("--passphrase-command", "'"), ("a quote is not closed",)),
        (("--passphrase-command", ""), ("is empty",)),
        (("--passphrase-prompt",), ("no terminal",)),
        (("--passphrase-prompt", "--passphrase-env", "HOME"), ("exclude each other",)),
        (("--passphrase-file", "open"), ("MTLS-ID-013",)),
        (("--passphrase-file", "missing"), ("MTLS-ID-001",)),
        (("--passphrase-file", "empty"), ("is empty",)),
    ],
)
def test_a_passphrase_that_cannot_be_had(
    run: Run, tmp_path: Path, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    for name, text, mode in (("open", SECRET, 0o644), ("empty", "\n", 0o600)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    refused(run("keys", "new", "--out", "k", *flags, EMPTY=""), *words)
    assert not (tmp_path / "k").exists()


# Slips.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("keys", "mew"), ("mew", "did you mean new?", "mtlskit keys --help")),
        (("keys", "new"), ("--out is missing",)),
        (("csr", "new", "--key", "k", "--subject", "/CN=a", "--out", "r"), ("CN=reporting,O=Example",)),
        (("csr", "new", "--key", "k", "--subject", "CN=a", "--san", "a.example", "--out", "r"), ("DNS:NAME",)),
        (("csr", "new", "--key", "k", "--subject", "CN=a", "--for", "mail", "--out", "r"), ("client, server, both",)),
        (("csr", "new", "--key", "missing", "--subject", "CN=a", "--out", "r"), ("MTLS-ID-001",)),
        (("csr", "show", "missing"), ("MTLS-ID-001", "certificate request")),
        (("keys", "new", "--out", "missing/k"), ("MTLS-ID-017", "No such file or directory")),
    ],
)
def test_slips_are_told_in_one_line(run: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    said(run("keys", "new", "--out", "k"))
    refused(run(*arguments), *words)


def test_errors_as_json(run: Run) -> None:
    for arguments in (("csr", "show", "missing", "--json"), ("csr", "show", "--json", "--nonsense")):
        result = run(*arguments)
        assert result.exit_code == IdentityError.exit_status == 2
        assert set(json.loads(result.stderr)) >= {"code", "reason", "hint"}


def test_help_of_a_group_names_its_commands() -> None:
    done = subprocess.run([sys.executable, "-m", "mtlskit", "csr"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "new" in done.stderr
    assert "show" in done.stderr


def test_a_command_that_never_ends_is_ended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "_PATIENCE", 0.05)
    result = run("keys", "new", "--out", "client.key", "--passphrase-command", "sleep 600")
    refused(result, "sleep", "no passphrase within 0.05 s")
