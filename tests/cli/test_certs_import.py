"""`mtlskit certs import` and `revoke`: what somebody else has issued comes in, and what must not be used goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli.main import app
from mtlskit.store.identities import Store, StoredIdentity, Version
from tests.support.openssl import openssl

Run = Callable[..., Result]

CONFIG = """\
[identity.reporting]
issuer = "{issuer}"
{more}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in a folder with a CA of our own in `ca/`; its status must be `status`."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, status: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, arguments, input=stdin)
        assert result.exit_code == status, result.output
        return result

    configure("csr")
    invoke("ca", "init", "--dir", "ca", "--subject", "CN=our ca")
    return invoke


def configure(issuer: str, more: str = "") -> None:
    Path("mtlskit.toml").write_text(CONFIG.format(issuer=issuer, more=more))


def stored() -> StoredIdentity:
    return Store(Path("identities")).identity("reporting")


def current() -> Version:
    version = stored().current()
    assert version is not None
    return version


def request() -> str:
    """The request that waits for somebody to sign it."""
    [found] = Path("identities/reporting/pending").glob("*/client.csr")
    return str(found)


def sign(run: Run, csr: str, out: str = "signed.crt") -> str:
    run("ca", "sign", csr, "--dir", "ca", "--profile", "client", "--out", out, "--force")
    return out


def outcome(result: Result) -> dict[str, Any]:
    [found] = json.loads(result.stdout)["identities"]
    return dict(found)


def revoked() -> str:
    """The CA's list as openssl tells it, in lower case."""
    return openssl("crl", "-in", "ca/ca.crl", "-noout", "-text").decode().lower()


def own_pair(run: Run, name: str = "own") -> tuple[str, str]:
    """A certificate and its key, made elsewhere."""
    run("keys", "new", "--out", f"{name}.key")
    run("csr", "new", "--key", f"{name}.key", "--subject", f"CN={name}", "--out", f"{name}.csr")
    return sign(run, f"{name}.csr", f"{name}.crt"), f"{name}.key"


def test_the_answer_to_a_request(run: Run) -> None:
    waiting = outcome(run("certs", "rotate", "reporting", "--json", status=3))
    assert waiting["result"] == "waiting"
    assert request() in waiting["told"]
    done = outcome(run("certs", "import", "reporting", sign(run, request()), "--json"))
    assert (done["result"], done["rotation"]) == ("rotated", waiting["rotation"])
    assert openssl("verify", "-CAfile", "ca/ca.crt", current().cert).endswith(b"OK\n")
    assert not list(Path("identities/reporting").glob("pending/*"))


def test_an_answer_for_another_key_leaves_the_request_waiting(run: Run) -> None:
    run("certs", "rotate", "reporting", status=3)
    theirs, _ = own_pair(run)
    refused = run("certs", "import", "reporting", theirs, status=2)
    assert "MTLS-ID-006" in refused.stderr
    assert stored().current() is None
    run("certs", "import", "reporting", sign(run, request()))
    assert current().number == 1


def test_a_pair_that_was_made_elsewhere(run: Run) -> None:
    cert, key = own_pair(run)
    first = outcome(run("certs", "import", "reporting", cert, "--key", key, "--ca", "ca/ca.crt", "--json"))
    assert first["result"] == "rotated"
    assert current().key.stat().st_mode & 0o777 == 0o600
    assert current().root is not None
    other, other_key = own_pair(run, "other")
    second = outcome(run("certs", "import", "reporting", other, other_key, "--json"))
    assert (second["old_serial"], second["version"]) == (first["serial"], 2)


def test_a_certificate_alone_that_nothing_waits_for(run: Run) -> None:
    for issuer, more, hint in (
        ("csr", "", "mtlskit certs rotate reporting makes a request; or give --key FILE"),
        ("ca", 'ca_dir = "ca"', "give --key FILE as well"),
    ):
        configure(issuer, more)
        refused = run("certs", "import", "reporting", "ca/ca.crt", status=2)
        assert "no request of reporting is waiting for a certificate, and no key came along" in refused.stderr
        assert f"hint:  {hint}\n" in refused.stderr


def test_an_archive(run: Run) -> None:
    cert, key = own_pair(run)
    openssl("pkcs12", "-export", "-in", cert, "-inkey", key, "-out", "own.p12", "-passout", "pass:secret")
    Path("own.p12").chmod(0o600)
    Path("pass").write_text("secret\n")
    Path("pass").chmod(0o600)
    run("certs", "import", "reporting", "own.p12", "--passphrase-file", "pass")
    assert current().facts.subject == "CN=own"


def test_the_key_is_kept_under_the_configured_passphrase(run: Run) -> None:
    Path("pass").write_text("correct horse\n")
    Path("pass").chmod(0o600)
    configure("csr", 'passphrase_file = "pass"')
    run("certs", "rotate", "reporting", status=3)
    run("certs", "import", "reporting", sign(run, request()))
    assert b"ENCRYPTED" in current().key.read_bytes()
    cert, key = own_pair(run)
    run("certs", "import", "reporting", cert, "--key", key)
    assert b"ENCRYPTED" in current().key.read_bytes()
    assert "fine" in run("certs", "check").stdout


def test_files_of_somebody_else_are_not_taken_in(run: Run) -> None:
    cert, key = own_pair(run)
    configure("files", f'cert = "{cert}"\nkey = "{key}"')
    refused = run("certs", "import", "reporting", cert, "--key", key, status=2)
    assert "leaves its certificates to somebody else" in refused.stderr


@pytest.mark.parametrize("content", ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_rubbish_changes_nothing(run: Run, content: str) -> None:
    _, key = own_pair(run)
    Path("bad.crt").write_text(content)
    refused = run("certs", "import", "reporting", "bad.crt", "--key", key, status=2)
    assert "bad.crt" in refused.stderr
    assert stored().current() is None


class TestRevoke:
    @pytest.fixture
    def serials(self, run: Run) -> tuple[str, str]:
        """Of the replaced certificate, and of the current one."""
        configure("ca", 'ca_dir = "ca"')
        run("certs", "issue", "reporting")
        done = outcome(run("certs", "rotate", "reporting", "--json"))
        return done["old_serial"], done["serial"]

    def test_an_old_one(self, run: Run, serials: tuple[str, str]) -> None:
        old, _ = serials
        told = json.loads(run("certs", "revoke", "reporting", "--serial", old.upper(), "--yes", "--json").stdout)
        assert told["serial"] == old
        assert old in revoked()
        assert old in Path("identities/audit.jsonl").read_text().splitlines()[-1]

    def test_the_current_one_only_when_it_is_meant(self, run: Run, serials: tuple[str, str]) -> None:
        _, now = serials
        assert "is in use" in run("certs", "revoke", "reporting", "--serial", now, "--yes", status=1).stderr
        run("certs", "revoke", "reporting", "--serial", now, "--in-use", "--yes")
        assert now in revoked()

    def test_nobody_is_asked_without_a_terminal(self, run: Run, serials: tuple[str, str]) -> None:
        old, _ = serials
        assert "--yes" in run("certs", "revoke", "reporting", "--serial", old, status=2, stdin="y\n").stderr
        assert old not in revoked()

    @pytest.mark.parametrize(("serial", "status"), [("abc123", 1), ("xyz", 2), ("", 2), ("f" * 41, 2)])
    def test_a_serial_that_is_none_of_ours(self, run: Run, serials: tuple[str, str], serial: str, status: int) -> None:
        assert run("certs", "revoke", "reporting", "--serial", serial, "--yes", status=status).stderr.count("\n") == 2

    def test_what_a_person_has_signed_a_person_has_to_revoke(self, run: Run) -> None:
        run("certs", "rotate", "reporting", status=3)
        run("certs", "import", "reporting", sign(run, request()))
        serial = current().facts.serial
        refused = run("certs", "revoke", "reporting", "--serial", serial, "--in-use", "--yes", status=1)
        assert "ask whoever runs the CA" in refused.stderr


def test_herokus_bundle_is_brought_by_hand_for_now(run: Run) -> None:
    cert, key = own_pair(run)
    configure("heroku", 'addon = "postgresql-curved-12345"')
    done = outcome(run("certs", "import", "reporting", cert, "--key", key, "--ca", "ca/ca.crt", "--json"))
    assert done["result"] == "rotated"
    assert current().root is not None


def test_a_pair_of_its_own_does_not_take_the_place_of_a_request_by_mistake(run: Run) -> None:
    run("certs", "rotate", "reporting", status=3)
    waiting = request()
    cert, key = own_pair(run)
    refused = run("certs", "import", "reporting", cert, "--key", key, status=2)
    assert "a request is waiting" in refused.stderr
    assert request() == waiting
    run("certs", "import", "reporting", sign(run, waiting), "--ca", "ca/ca.crt")
    assert current().root is not None
    run("certs", "rotate", "reporting", status=3)
    run("certs", "import", "reporting", cert, "--key", key, "--fresh")
    assert current().facts.subject == "CN=own"


def test_the_certificate_in_use_brought_again_is_not_revoked(run: Run) -> None:
    configure("ca", 'ca_dir = "ca"\nrevoke_old = true')
    run("certs", "issue", "reporting")
    now = current()
    done = outcome(run("certs", "import", "reporting", str(now.cert), "--key", str(now.key), "--json"))
    assert done["old_serial"] == done["serial"] == now.facts.serial
    assert now.facts.serial not in revoked()
    refused = run("certs", "revoke", "reporting", "--serial", now.facts.serial, "--yes", status=1)
    assert "in use" in refused.stderr
