"""`mtlskit ca`: the lines that scripts rely on, what people read, and what is refused."""

from __future__ import annotations

import json
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli import ca as ca_command
from mtlskit.cli import ca_words
from mtlskit.cli.main import app
from mtlskit.pki.keys import KeyType, generate_key
from mtlskit.pki.profiles import Profile
from mtlskit.pki.requests import Wishes, alternative_name, make_request, subject_name
from mtlskit.pki.revocation import Reason
from mtlskit.store.authority_folder import AuthorityFolder
from tests.support.openssl import openssl, run_openssl

Run = Callable[..., Result]
INIT = ("ca", "init", "--dir", "ca", "--subject", "CN=our ca")
SIGN = ("ca", "sign", "client.csr", "--dir", "ca", "--profile", "client", "--out", "client.crt")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in a folder that holds a request."""
    monkeypatch.chdir(tmp_path)
    wishes = Wishes(subject_name("CN=reporting"), (alternative_name("DNS:bi.example.com"),))
    (tmp_path / "client.csr").write_bytes(make_request(generate_key(), wishes))

    def invoke(*arguments: str, stdin: bytes | None = None, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, input=stdin, env=environment)

    return invoke


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, *words: str, status: int = 2) -> None:
    """One line of what is wrong and one of what to do."""
    assert result.exit_code == status, result.output
    sentence, hint = result.stderr.splitlines()
    assert sentence.startswith("error: ")
    assert hint.startswith("hint:  ")
    for word in words:
        assert word in result.stderr


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_lines_that_scripts_rely_on(run: Run, tmp_path: Path) -> None:
    told = said(run(*INIT)).splitlines()
    digest = openssl("x509", "-in", tmp_path / "ca" / "ca.crt", "-noout", "-fingerprint", "-sha256").decode()
    assert told[0].startswith("ca: a new CA, CN=our ca, good until 20")
    assert told[1] == f"fingerprint (SHA-256): {digest.strip().partition('=')[2]}"
    assert told[-1] == f"next: mtlskit {' '.join(SIGN)}"
    assert mode(tmp_path / "ca") == 0o700
    told = said(run(*SIGN)).splitlines()
    assert told[2] == "names: DNS:bi.example.com"
    serial = openssl("x509", "-in", tmp_path / "client.crt", "-noout", "-serial").decode()
    assert told[0].startswith("client.crt: CN=reporting, for clients, good until 20")
    assert told[1] == f"serial: {int(serial.partition('=')[2], 16):x}"
    assert mode(tmp_path / "client.crt") == 0o644
    openssl(
        "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", tmp_path / "ca/ca.crt", tmp_path / "client.crt"
    )


def test_a_request_from_standard_input_and_notes(run: Run, tmp_path: Path) -> None:
    said(run(*INIT))
    sign = ("ca", "sign", "-", "--dir", "ca", "--profile", "server", "--lifetime", "90d")
    request = (tmp_path / "client.csr").read_bytes()
    told = said(run(*sign, "--out", "a.crt", stdin=request))
    note = "left out: extended key usage clientAuth; servers get serverAuth"
    assert f"\nnote: {note}\n" in told
    facts = json.loads(said(run(*sign, "--out", "b.crt", "--json", stdin=request)))
    assert (facts["path"], facts["profile"], facts["state"], facts["notes"]) == ("b.crt", "server", "valid", [note])
    assert facts["names"] == ["DNS:bi.example.com"]
    ends = datetime.fromisoformat(facts["not_after"])
    assert abs(ends - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=5)
    refused(run(*sign, "--out", "c.crt", stdin=b"rubbish"), "standard input", "MTLS-ID-003")


def test_revoking_by_file_and_by_serial(run: Run, tmp_path: Path) -> None:
    said(run(*INIT))
    said(run(*SIGN))
    other = json.loads(said(run(*SIGN[:-1], "other.crt", "--json")))["serial"]
    told = said(run("ca", "revoke", "client.crt", "--dir", "ca", "--reason", "keyCompromise", "--yes"))
    assert "revoked (key-compromise)\n" in told
    spelled = ":".join(f"{int(other, 16):040X}"[i : i + 2] for i in range(0, 40, 2))
    facts = json.loads(said(run("ca", "revoke", spelled, "--dir", "ca", "--yes", "--json")))
    assert (facts["serial"], facts["state"], facts["reason"], facts["already"]) == (
        other,
        "revoked",
        "unspecified",
        False,
    )
    again = json.loads(
        said(run("ca", "revoke", f"0x{other}", "--dir", "ca", "--yes", "--json", "--reason", "superseded"))
    )
    assert again == facts | {"already": True}
    assert "revoked since 20" in said(run("ca", "revoke", other, "--dir", "ca", "--yes"))
    for leaf in ("client.crt", "other.crt"):
        done = run_openssl(
            *("verify", "-crl_check", "-CRLfile", tmp_path / "ca/ca.crl", "-CAfile", tmp_path / "ca/ca.crt", leaf)
        )
        assert b"certificate revoked" in done.stderr


def test_the_list_for_people(run: Run, tmp_path: Path) -> None:
    said(run(*INIT))
    heading, crl = said(run("ca", "list", "--dir", "ca")).splitlines()
    assert heading.startswith("CN=our ca, good until 20")
    assert heading.endswith(": 0 issued")
    assert crl.startswith("ca/ca.crl is good until 20")
    said(run(*SIGN))
    said(run(*SIGN[:-1], "b.crt", "--lifetime", "36h"))
    said(run("ca", "revoke", "client.crt", "--dir", "ca", "--yes"))
    lines = said(run("ca", "list", "--dir", "ca")).splitlines()
    assert lines[1].split() == ["SERIAL", "PROFILE", "ENDS", "STATE", "SUBJECT"]
    assert "  revoked 20" in lines[2]
    assert re.search(r" \d\d:\d\d UTC  valid, 35 h left +CN=reporting$", lines[3])
    assert all(line.index("CN=reporting") == lines[1].index("SUBJECT") for line in lines[2:4])
    (tmp_path / "ca" / "ca.crl").unlink()
    assert "warning: ca/ca.crl is missing" in run("ca", "list", "--dir", "ca").stderr


def test_the_list_for_scripts(run: Run) -> None:
    made = json.loads(said(run(*INIT, "--json")))
    assert (made["dir"], made["subject"], made["type"], made["encrypted"]) == ("ca", "CN=our ca", "ec-p256", False)
    signed = json.loads(said(run(*SIGN, "--json")))
    told = json.loads(said(run("ca", "list", "--dir", "ca", "--json")))
    assert told["certificates"] == [{name: value for name, value in signed.items() if name not in ("path", "notes")}]
    assert told["crl"]["missing"] == []
    assert {name: told[name] for name in ("subject", "cert", "not_after", "fingerprint_sha256")} == {
        name: made[name] for name in ("subject", "cert", "not_after", "fingerprint_sha256")
    }
    assert datetime.fromisoformat(told["crl"]["next_update"]) > datetime.now(UTC)


def test_a_revocation_list_elsewhere(run: Run, tmp_path: Path) -> None:
    said(run(*INIT))
    said(run(*SIGN))
    said(run("ca", "revoke", "client.crt", "--dir", "ca", "--yes"))
    assert said(run("ca", "crl", "--dir", "ca")).startswith("ca/ca.crl: 1 revoked certificate, good until 20")
    crl = ("ca", "crl", "--dir", "ca", "--lifetime", "30d", "--out", "root.crl")
    facts = json.loads(said(run(*crl, "--json")))
    assert (facts["path"], len(facts["revoked"])) == ("root.crl", 1)
    assert (tmp_path / "root.crl").read_bytes() == (tmp_path / "ca/ca.crl").read_bytes()
    assert mode(tmp_path / "root.crl") == 0o644
    refused(run(*crl), "root.crl", "MTLS-ID-016")
    said(run(*crl, "--force"))
    openssl("crl", "-in", tmp_path / "root.crl", "-noout", "-CAfile", tmp_path / "ca/ca.crt")


def test_warnings_of_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    ca_words.tell_of_list(tmp_path, now + timedelta(days=1), 2, now)
    ca_words.tell_of_list(tmp_path, now, 0, now)
    lacks, old = capsys.readouterr().err.splitlines()
    assert "lacks 2 revoked certificates" in lacks
    assert "was good until 2026-06-01 00:00 UTC, and servers refuse every client now" in old
    assert f"mtlskit ca crl --dir {tmp_path}" in lacks


def test_a_row_for_each_state_coloured_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    authority = AuthorityFolder.init(tmp_path / "ca", subject_name("CN=ca"), now=now)
    for days in (1, 10, 100, 200):
        request = make_request(generate_key(), Wishes(subject_name(f"CN=d{days}")))
        last = authority.sign(request, Profile.CLIENT, now=now, lifetime=timedelta(days=days))
    authority.revoke(last.serial, now=now)
    entries, later = authority.entries(), now + timedelta(days=2)
    assert "\x1b" not in "".join(ca_words.table(entries, later))
    monkeypatch.setattr(ca_words, "colourful", lambda stream: True)
    rows = list(ca_words.table(entries, later))
    assert [row[:5] for row in rows[1:]] == ["\x1b[2m" + rows[1][4], "\x1b[33m", "\x1b[32m", "\x1b[31m"]
    assert ["expired" in row for row in rows[1:]] == [True, False, False, False]


def test_a_ca_with_a_passphrase(run: Run, tmp_path: Path) -> None:
    secret = {"CA_PASSPHRASE": "correct horse"}
    option = ("--passphrase-env", "CA_PASSPHRASE")
    assert json.loads(said(run(*INIT, *option, "--json", **secret)))["encrypted"]
    refused(run(*SIGN), "MTLS-ID-010", "ca/ca.key")
    refused(run(*SIGN, *option, CA_PASSPHRASE="wrong"), "MTLS-ID-011")
    assert not (tmp_path / "client.crt").exists()
    said(run(*SIGN, *option, **secret))
    said(run("ca", "list", "--dir", "ca"))
    said(run("ca", "revoke", "client.crt", "--dir", "ca", "--yes", *option, **secret))
    said(run("ca", "crl", "--dir", "ca", *option, **secret))


def test_what_is_written_down_twice_is_the_same() -> None:
    assert list(ca_command._KINDS) == [kind.value for kind in KeyType]
    assert list(ca_command._PROFILES) == [profile.value for profile in Profile]
    assert list(ca_command._REASONS) == [reason.value for reason in Reason]


def test_a_certificate_that_finds_no_place_is_not_issued(run: Run, tmp_path: Path) -> None:
    said(run(*INIT))
    (tmp_path / "client.crt").write_bytes(b"precious")
    refused(run(*SIGN), "client.crt exists already, and nothing was issued")
    assert not list((tmp_path / "ca" / "issued").iterdir())
    said(run(*SIGN, "--force"))
    for place, why in (("missing/c.crt", "missing does not exist"), ("client.csr/c.crt", "client.csr is no folder")):
        refused(run(*SIGN[:-1], place), "cannot be written, and nothing was issued", why)
    assert len(list((tmp_path / "ca" / "issued").iterdir())) == 1


def test_a_folder_that_is_somebody_elses_is_seen_before_signing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    said(run(*INIT))
    monkeypatch.setattr(os, "access", lambda path, how: how != os.W_OK)
    refused(run(*SIGN), "client.crt: cannot be written, and nothing was issued: . is not yours to write to")
    assert not list(Path("ca/issued").iterdir())


def test_a_failure_that_comes_after_signing_says_where_the_certificate_is(run: Run, tmp_path: Path) -> None:
    said(run(*INIT))
    (tmp_path / "taken").mkdir()
    refused(run(*SIGN[:-1], "taken", "--force"), "taken", "the certificate was issued: cp ca/issued/")
    assert len(list((tmp_path / "ca" / "issued").iterdir())) == 1


def test_the_time_is_told_of_short_lives(run: Run) -> None:
    short = ("--lifetime", "5m")
    end = r"good until \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.search(end, said(run(*INIT, *short)))
    assert re.search(end, said(run(*SIGN, *short)))
    assert len(re.findall(end, said(run("ca", "crl", "--dir", "ca", *short)))) == 1
    listed = said(run("ca", "list", "--dir", "ca"))
    assert len(re.findall(end, listed)) == 2
    assert "valid, 4 min left" in listed


def test_the_certificate_is_not_the_folder(run: Run) -> None:
    said(run(*INIT))
    refused(
        run("ca", "list", "--dir", "ca/ca.crt"), "--dir ca/ca.crt: a file, and no folder", "name the folder: --dir ca"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (INIT, ("MTLS-CA-002", "holds a CA already")),
        (("ca", "init", "--dir", "x", "--subject", "/CN=a"), ("--subject /CN=a", "OpenSSL's old way")),
        (("ca", "init", "--dir", "x", "--subject", "bad"), ("such as CN=reporting,O=Example [MTLS-CFG-012]",)),
        (("ca", "init", "--dir", "x", "--subject", "CN=a", "--type", "dsa"), ("--type dsa",)),
        (("ca", "init", "--dir", "x", "--subject", "CN=a", "--lifetime", "11y"), ("--lifetime 11y: not a duration",)),
        (("ca", "init", "--dir", ".", "--subject", "CN=a"), ("MTLS-CA-002", "is not empty")),
        ((*SIGN[:-1], "x", "--profile", "both"), ("is given more than once",)),
        (("ca", "sign", "client.csr", "--dir", "ca", "--profile", "both", "--out", "x"), ("--profile both",)),
        (("ca", "sign", "client.csr", "--dir", "x", "--out", "x"), ("MTLS-CA-001", "ca init --dir x")),
        (("ca", "sign", "missing", "--dir", "ca", "--out", "x"), ("MTLS-ID-001",)),
        (("ca", "sign", "ca/ca.crt", "--dir", "ca", "--out", "x"), ("MTLS-ID-003",)),
        (("ca", "sign", "client.csr", "--dir", "ca", "--out", "x", "--lifetime", "1ms"), ("less than a second",)),
        (("ca", "revoke", "77", "--dir", "ca", "--yes"), ("MTLS-CA-004", "mtlskit ca list --dir ca")),
        (("ca", "revoke", "nothing", "--dir", "ca", "--yes"), ("neither a file nor a serial",)),
        (("ca", "revoke", "x" * 5000, "--dir", "ca", "--yes"), ("neither a file nor a serial",)),
        (("ca", "revoke", "stranger.crt", "--dir", "ca", "--yes"), ("MTLS-CA-004", "was issued by CN=stranger")),
        (("ca", "revoke", "client.csr", "--dir", "ca", "--yes"), ("MTLS-ID-003",)),
        (("ca", "revoke", "77", "--dir", "ca", "--reason", "because"), ("--reason because: not a reason",)),
        (("ca", "list", "--dir", "x"), ("MTLS-CA-001",)),
        (("ca", "crl", "--dir", "ca", "--lifetime", "0"), ("--lifetime 0",)),
    ],
)
def test_slips_are_told_in_one_line(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    said(run(*INIT))
    said(run("ca", "init", "--dir", "other", "--subject", "CN=stranger"))
    (tmp_path / "stranger.crt").write_bytes((tmp_path / "other/ca.crt").read_bytes())
    refused(run(*arguments), *words)
    assert not (tmp_path / "x").exists()


def test_a_damaged_ledger_is_a_failure_and_errors_may_be_json(run: Run, tmp_path: Path) -> None:
    said(run(*INIT))
    (tmp_path / "ca" / "ledger.jsonl").write_text("rubbish\n")
    refused(run("ca", "list", "--dir", "ca"), "MTLS-ROT-003", "ledger.jsonl", status=1)
    result = run(*SIGN, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["code"] == "MTLS-ROT-003"


@pytest.mark.parametrize(
    ("answer", "status", "words"), [(b"y\n", 0, b"revoked (unspecified)"), (b"n\n", 1, b"nothing")]
)
def test_a_person_is_asked(run: Run, tmp_path: Path, answer: bytes, status: int, words: bytes) -> None:
    said(run(*INIT))
    said(run(*SIGN))
    refused(run("ca", "revoke", "client.crt", "--dir", "ca"), "no terminal", "say --yes")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mtlskit", "ca", "revoke", "client.crt", "--dir", "ca"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path) as child:
        os.close(theirs)
        told = b""
        while b"[y/N]" not in told:
            told += os.read(ours, 1000)
        os.write(ours, answer)
        with suppress(OSError):  # a terminal whose last user has gone
            while more := os.read(ours, 1000):
                told += more
    os.close(ours)
    assert b"Revoke CN=reporting (serial " in told
    assert words in told
    assert child.returncode == status
    assert [entry.revoked_at is None for entry in AuthorityFolder.open(tmp_path / "ca").entries()] == [status == 1]
