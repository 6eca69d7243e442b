"""A CA on disk: what is handed out is in the ledger, whatever fails, whoever else is at work."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from mtlskit.errors import Code, IdentityError, MtlskitError, StoreError
from mtlskit.pki.certificates import load_certificates, serial_text
from mtlskit.pki.keys import KeyType, generate_key
from mtlskit.pki.profiles import Profile
from mtlskit.pki.requests import Usage, Wishes, make_request, subject_name
from mtlskit.pki.revocation import Reason
from mtlskit.store import authority_folder, ledger
from mtlskit.store.authority_folder import AuthorityFolder
from mtlskit.store.files import write_file
from mtlskit.store.ledger import State
from mtlskit.store.lines import append_line
from tests.support.openssl import openssl, run_openssl
from tests.support.x509_builder import DAY, NOW

NAME = subject_name("CN=our ca")


def request(common_name: str = "reporting") -> bytes:
    return make_request(generate_key(), Wishes(subject_name(f"CN={common_name}")))


@pytest.fixture
def ca(tmp_path: Path) -> AuthorityFolder:
    return AuthorityFolder.init(tmp_path / "ca", NAME, now=NOW)


def issued(authority: AuthorityFolder, common_name: str = "reporting", **options: Any) -> str:
    return authority.sign(request(common_name), Profile.CLIENT, now=NOW, **options).serial


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def revoked_serials(authority: AuthorityFolder) -> set[str]:
    crl = x509.load_pem_x509_crl((authority.folder / "ca.crl").read_bytes())
    assert crl.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type] # of our own kinds
    return {f"{each.serial_number:x}" for each in crl}


def test_the_folder_and_its_modes(ca: AuthorityFolder) -> None:
    serial = issued(ca)
    assert names(ca.folder) == ["ca.crl", "ca.crt", "ca.key", "issued", "ledger.jsonl", "lock"]
    assert {name: mode(ca.folder / name) for name in names(ca.folder)} == {
        "ca.crl": 0o644,
        "ca.crt": 0o644,
        "ca.key": 0o600,
        "issued": 0o700,
        "ledger.jsonl": 0o600,
        "lock": 0o600,
    }
    assert mode(ca.folder) == 0o700
    assert names(ca.folder / "issued") == [f"{serial}.crt"]


def test_what_is_issued_is_written_down(ca: AuthorityFolder) -> None:
    signed = ca.sign(request(), Profile.CLIENT, now=NOW, lifetime=90 * DAY, request_id="r1")
    (entry,) = AuthorityFolder.open(ca.folder).entries()
    (leaf,) = load_certificates(signed.cert_pem, source="leaf")
    assert entry == signed.entry
    assert entry.serial == signed.serial == serial_text(leaf)
    assert (entry.subject, entry.profile, entry.request_id) == ("CN=reporting", Profile.CLIENT, "r1")
    assert (entry.not_before, entry.not_after) == (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    assert (entry.issued_at, entry.revoked_at, entry.reason) == (NOW, None, None)
    assert (ca.folder / "issued" / f"{signed.serial}.crt").read_bytes() == signed.cert_pem
    assert [entry.state(NOW + days * DAY) for days in (0, 89, 90)] == [State.VALID, State.VALID, State.EXPIRED]
    assert "PRIVATE" not in (ca.folder / "ledger.jsonl").read_text()


def test_the_same_request_gives_the_same_certificate(ca: AuthorityFolder) -> None:
    ask, other = request(), request()
    first = ca.sign(ask, Profile.CLIENT, now=NOW, request_id="r1")
    again = ca.sign(ask, Profile.CLIENT, now=NOW + DAY, request_id="r1")
    assert again.repeated
    assert not first.repeated
    assert (again.cert_pem, again.serial, again.notes) == (first.cert_pem, first.serial, first.notes)
    assert len(ca.entries()) == 1
    different = [
        ca.sign(ask, Profile.CLIENT, now=NOW),
        ca.sign(ask, Profile.CLIENT, now=NOW, request_id="r2"),
        ca.sign(other, Profile.CLIENT, now=NOW, request_id="r1"),
        ca.sign(ask, Profile.CLIENT, now=NOW + 365 * DAY, request_id="r1"),
    ]
    assert len({first.serial, *(each.serial for each in different)}) == 5
    with pytest.raises(ValueError, match="short"):
        ca.sign(ask, Profile.CLIENT, now=NOW, request_id="r" * 257)


def test_a_revoked_certificate_is_not_given_again(ca: AuthorityFolder) -> None:
    ask = request()
    first = ca.sign(ask, Profile.CLIENT, now=NOW, request_id="r1")
    ca.revoke(first.serial, now=NOW)
    assert ca.sign(ask, Profile.CLIENT, now=NOW, request_id="r1").serial != first.serial


@pytest.mark.parametrize("kind", list(KeyType))
def test_openssl_refuses_what_was_revoked(kind: KeyType, tmp_path: Path) -> None:
    authority = AuthorityFolder.init(tmp_path / "ca", NAME, now=NOW, kind=kind)
    key = generate_key(kind)
    for profile, purpose in ((Profile.CLIENT, "sslclient"), (Profile.SERVER, "sslserver")):
        wishes = Wishes(subject_name("CN=db.example.com"), usages=(Usage(profile.value),))
        good, bad = (authority.sign(make_request(key, wishes), profile, now=NOW) for _ in range(2))
        authority.revoke(bad.serial, now=NOW, reason=Reason.KEY_COMPROMISE)
        for signed, verdict in ((good, 0), (bad, 2)):
            done = run_openssl(
                *("verify", "-x509_strict", "-attime", str(int(NOW.timestamp())), "-purpose", purpose, "-crl_check"),
                *("-CRLfile", authority.folder / "ca.crl", "-CAfile", authority.folder / "ca.crt"),
                authority.folder / "issued" / f"{signed.serial}.crt",
            )
            assert done.returncode == verdict, done.stderr
            assert (b"certificate revoked" in done.stderr) is (verdict == 2)


def test_revoking(ca: AuthorityFolder) -> None:
    one, two = issued(ca, "one"), issued(ca, "two")
    entry = ca.revoke(one, now=NOW + DAY, reason=Reason.SUPERSEDED)
    assert (entry.state(NOW), entry.revoked_at, entry.reason) == (State.REVOKED, NOW + DAY, Reason.SUPERSEDED)
    assert ca.revoke(one, now=NOW + 2 * DAY, reason=Reason.KEY_COMPROMISE) == entry
    assert revoked_serials(ca) == {one}
    text = openssl("crl", "-in", ca.folder / "ca.crl", "-noout", "-text").decode()
    assert "Superseded" in text
    assert "Revocation Date: Jun  2 12:00:00 2026 GMT" in text
    assert [each.revoked_at is None for each in ca.entries()] == [False, True]
    with pytest.raises(IdentityError) as caught:
        ca.revoke("abc", now=NOW)
    assert caught.value.code is Code.CA_UNKNOWN_SERIAL
    assert revoked_serials(ca) == {one}
    assert two not in revoked_serials(ca)


def test_the_list_forgets_what_has_expired_for_a_week(ca: AuthorityFolder) -> None:
    short, long = issued(ca, lifetime=10 * DAY), issued(ca, lifetime=100 * DAY)
    for serial in (short, long):
        ca.revoke(serial, now=NOW)
    assert {entry.serial for entry in ca.write_list(NOW + 16 * DAY, 30 * DAY).entries} == {short, long}
    written = ca.write_list(NOW + 17 * DAY, 30 * DAY)
    assert ([entry.serial for entry in written.entries], revoked_serials(ca)) == ([long], {long})
    assert written.next_update == ca.list_lasts_until() == NOW + 47 * DAY
    assert (ca.folder / "ca.crl").read_bytes() == written.pem


def test_a_list_that_was_lost_is_noticed_and_made_again(ca: AuthorityFolder) -> None:
    old = (ca.folder / "ca.crl").read_bytes()
    serial = issued(ca)
    ca.revoke(serial, now=NOW)
    assert ca.unlisted(ca.entries(), NOW) == ()
    for content in (None, b"rubbish", old):
        (ca.folder / "ca.crl").unlink()
        if content is not None:
            (ca.folder / "ca.crl").write_bytes(content)
        assert (ca.list_lasts_until() is None) is (content is not old)
        assert [entry.serial for entry in ca.unlisted(ca.entries(), NOW)] == [serial]
        ca.revoke(serial, now=NOW)
        assert revoked_serials(ca) == {serial}


def test_the_number_of_a_list_grows_when_the_clock_goes_back(ca: AuthorityFolder) -> None:
    def number(pem: bytes) -> int:
        return x509.load_pem_x509_crl(pem).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    numbers = [number(ca.write_list(NOW - days * DAY).pem) for days in range(3)]
    assert numbers == sorted(set(numbers))


def test_a_passphrase(tmp_path: Path) -> None:
    made = AuthorityFolder.init(tmp_path / "ca", NAME, now=NOW, passphrase=b"secret")
    assert b"ENCRYPTED" in (made.folder / "ca.key").read_bytes()
    assert "secret" not in repr(made)
    serial = issued(made)
    plain = AuthorityFolder.open(made.folder)
    assert [entry.serial for entry in plain.entries()] == [serial]
    for authority, code in (
        (plain, Code.KEY_ENCRYPTED),
        (AuthorityFolder.open(made.folder, b"wrong"), Code.KEY_PASSPHRASE_WRONG),
    ):
        steps: list[Callable[[], object]] = [
            lambda ca=authority: issued(ca),  # type: ignore[misc] # mypy does not infer defaults of lambdas
            lambda ca=authority: ca.revoke(serial, now=NOW),  # type: ignore[misc]
            lambda ca=authority: ca.write_list(NOW),  # type: ignore[misc]
        ]
        for step in steps:
            with pytest.raises(IdentityError) as caught:
                step()
            assert caught.value.code is code
            assert str(made.folder / "ca.key") in caught.value.sentence
    assert [entry.revoked_at for entry in plain.entries()] == [None]
    assert issued(AuthorityFolder.open(made.folder, b"secret"))


# Folders that are none, or somebody else's.


@pytest.mark.parametrize("there", ["file", ".hidden", "ca.key", "folder/"])
def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "ca"
    folder.mkdir(mode=0o755)
    if there.endswith("/"):
        (folder / there).mkdir()
    else:
        (folder / there).write_bytes(b"mine")
    before = names(folder)
    with pytest.raises(IdentityError) as caught:
        AuthorityFolder.init(folder, NAME, now=NOW)
    assert caught.value.code is Code.CA_FOLDER_TAKEN
    assert (names(folder), mode(folder)) == (before, 0o755)


def test_a_ca_is_never_replaced(ca: AuthorityFolder) -> None:
    key = (ca.folder / "ca.key").read_bytes()
    with pytest.raises(IdentityError) as caught:
        AuthorityFolder.init(ca.folder, NAME, now=NOW)
    assert "holds a CA already" in caught.value.sentence
    assert (ca.folder / "ca.key").read_bytes() == key


def test_an_empty_folder_is_taken_and_closed(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir(mode=0o755)
    assert mode(AuthorityFolder.init(tmp_path / "ca", NAME, now=NOW).folder) == 0o700


def test_folders_that_hold_no_ca(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, code in (
        ("missing", Code.CA_FOLDER_MISSING),
        ("empty", Code.CA_FOLDER_MISSING),
        ("file", Code.FILE_UNREADABLE),
    ):
        with pytest.raises(IdentityError) as caught:
            AuthorityFolder.open(tmp_path / name)
        assert caught.value.code is code
    for name in ("file", "file/ca", "nul\0"):
        with pytest.raises(IdentityError) as caught:
            AuthorityFolder.init(tmp_path / name, NAME, now=NOW)
        assert caught.value.code is Code.FILE_UNWRITABLE


def test_files_of_the_ca_that_are_wrong(ca: AuthorityFolder, tmp_path: Path) -> None:
    other = AuthorityFolder.init(tmp_path / "other", NAME, now=NOW)
    key = ca.folder / "ca.key"
    good = key.read_bytes()
    key.write_bytes((other.folder / "ca.key").read_bytes())
    with pytest.raises(IdentityError) as caught:
        issued(ca)
    assert caught.value.code is Code.KEY_MISMATCH
    key.write_bytes(good)
    key.chmod(0o644)
    with pytest.raises(IdentityError) as caught:
        issued(ca)
    assert caught.value.code is Code.KEY_EXPOSED
    key.unlink()
    with pytest.raises(IdentityError) as caught:
        issued(ca)
    assert caught.value.code is Code.CA_FOLDER_MISSING
    assert ca.entries() == ()


# The ledger.


def test_half_a_line_is_passed_over_and_cut_off(ca: AuthorityFolder) -> None:
    path = ca.folder / "ledger.jsonl"
    first = issued(ca)
    whole = path.read_bytes()
    for half in (whole[:1], whole[: len(whole) // 2], whole[:-1], b"\0" * 100):
        path.write_bytes(whole + half)
        assert [entry.serial for entry in ca.entries()] == [first]
    second = issued(ca)
    assert [entry.serial for entry in ca.entries()] == [first, second]
    assert path.read_bytes().startswith(whole + b'{"event"')


def _changed(line: bytes, **changes: Any) -> bytes:
    record = json.loads(line) | changes
    kept = {name: value for name, value in record.items() if value is not ...}
    return json.dumps(kept).encode() + b"\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: b"rubbish\n",
        lambda line: b"[]\n",
        lambda line: _changed(line, event="renewed"),
        lambda line: _changed(line, serial=...),
        lambda line: _changed(line, serial="xyz"),
        lambda line: _changed(line, serial=7),
        lambda line: _changed(line, serial="../../etc/passwd"),
        lambda line: _changed(line, profile="ca"),
        lambda line: _changed(line, not_after="tomorrow"),
        lambda line: _changed(line, not_after="2027-01-01T00:00:00"),
        lambda line: _changed(line, not_after=7),
        lambda line: _changed(line, certificate="%%%"),
        lambda line: _changed(line, notes=7),
        lambda line: (
            line + b'{"event":"revoked","serial":"77","revoked_at":"2026-06-01T12:00:00Z","reason":"superseded"}\n'
        ),
        lambda line: (
            line + b'{"event":"revoked","serial":[],"revoked_at":"2026-06-01T12:00:00Z","reason":"superseded"}\n'
        ),
    ],
)
def test_a_damaged_ledger_stops_the_ca(ca: AuthorityFolder, damage: Callable[[bytes], bytes]) -> None:
    serial = issued(ca)
    path = ca.folder / "ledger.jsonl"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    for step in (ca.entries, lambda: issued(ca), lambda: ca.revoke(serial, now=NOW), lambda: ca.write_list(NOW)):
        with pytest.raises(StoreError) as caught:
            step()
        assert caught.value.code is Code.STORE_DAMAGED
        assert str(path) in caught.value.sentence
    assert path.read_bytes() == damaged


def test_a_ledger_that_is_missing_is_not_begun_anew(ca: AuthorityFolder) -> None:
    (ca.folder / "ledger.jsonl").unlink()
    with pytest.raises(StoreError) as caught:
        issued(ca)
    assert caught.value.code is Code.STORE_DAMAGED
    assert not (ca.folder / "ledger.jsonl").exists()


def test_copies_that_were_lost_are_made_again(ca: AuthorityFolder) -> None:
    signed = ca.sign(request(), Profile.CLIENT, now=NOW)
    shutil.rmtree(ca.folder / "issued")
    (ca.folder / ".ca.crl.0123abcd.tmp").write_bytes(b"left by a kill")
    issued(ca)
    assert (ca.folder / "issued" / f"{signed.serial}.crt").read_bytes() == signed.cert_pem
    assert mode(ca.folder / "issued") == 0o700
    assert not [name for name in names(ca.folder) if name.endswith(".tmp")]


# Failures at every step.


class Broken(Exception):
    """Whatever ends a process between two steps."""


def writers(monkeypatch: pytest.MonkeyPatch, failing: int, error: Exception, *, after: bool) -> None:
    """The n-th thing that is written fails: before it is written, or right after it."""
    written = iter(range(100))

    def failing_at(real: Callable[..., None]) -> Callable[..., None]:
        def write(*arguments: Any, **options: Any) -> None:
            fails = next(written) == failing
            if after or not fails:
                real(*arguments, **options)
            if fails:
                raise error

        return write

    monkeypatch.setattr(authority_folder, "write_file", failing_at(write_file))
    monkeypatch.setattr(ledger, "append_line", failing_at(append_line))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("failing", range(5))
def test_a_ca_that_was_half_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, after: bool
) -> None:
    with monkeypatch.context() as patch:
        writers(patch, failing, Broken(), after=after)
        with pytest.raises(Broken):
            AuthorityFolder.init(tmp_path / "ca", NAME, now=NOW)
    with pytest.raises(IdentityError) as caught:
        AuthorityFolder.open(tmp_path / "ca")
    assert caught.value.code is Code.CA_FOLDER_MISSING
    assert issued(AuthorityFolder.init(tmp_path / "ca", NAME, now=NOW))
    assert issued(AuthorityFolder.open(tmp_path / "ca"))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("failing", range(2))
def test_signing_again_after_a_kill_gives_one_certificate(
    ca: AuthorityFolder, monkeypatch: pytest.MonkeyPatch, failing: int, after: bool
) -> None:
    ask = request()
    with monkeypatch.context() as patch:
        writers(patch, failing, Broken(), after=after)
        with pytest.raises(Broken):
            ca.sign(ask, Profile.CLIENT, now=NOW, request_id="r1")
    signed = ca.sign(ask, Profile.CLIENT, now=NOW, request_id="r1")
    assert [entry.serial for entry in ca.entries()] == [signed.serial]
    assert (ca.folder / "issued" / f"{signed.serial}.crt").read_bytes() == signed.cert_pem


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("failing", range(2))
def test_revoking_again_after_a_kill_completes_it(
    ca: AuthorityFolder, monkeypatch: pytest.MonkeyPatch, failing: int, after: bool
) -> None:
    serial = issued(ca)
    with monkeypatch.context() as patch:
        writers(patch, failing, Broken(), after=after)
        with pytest.raises(Broken):
            ca.revoke(serial, now=NOW)
    ca.revoke(serial, now=NOW)
    assert revoked_serials(ca) == {serial}
    assert [entry.state(NOW) for entry in ca.entries()] == [State.REVOKED]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["write", "open", "fsync", "replace"])
def test_a_full_disk_or_a_folder_that_cannot_be_written(
    ca: AuthorityFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    serial, ask = issued(ca), request()
    real_open = os.open

    def refuse(*arguments: Any, **options: Any) -> Any:
        if call == "open" and arguments[1] & (os.O_WRONLY | os.O_RDWR) == 0:
            return real_open(*arguments, **options)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if call == "write":
            patch.setattr(os, "fdopen", refuse)
        patch.setattr(Path if call == "replace" else os, call, refuse)
        for step in (
            lambda: AuthorityFolder.init(tmp_path / "new", NAME, now=NOW),
            lambda: ca.sign(ask, Profile.CLIENT, now=NOW, request_id="r1"),
            lambda: ca.revoke(serial, now=NOW),
            lambda: ca.write_list(NOW),
        ):
            with pytest.raises(MtlskitError) as caught:
                step()
            assert caught.value.code in (Code.FILE_UNWRITABLE, Code.STORE_UNUSABLE)
            assert os.strerror(code) in caught.value.sentence
    signed = ca.sign(ask, Profile.CLIENT, now=NOW, request_id="r1")
    assert [entry.serial for entry in ca.entries()] == [serial, signed.serial]
    ca.revoke(serial, now=NOW)
    assert revoked_serials(ca) == {serial}
    assert AuthorityFolder.init(tmp_path / "new", NAME, now=NOW)


# Several processes.


def _sign_some(folder: Path, start: Any, number: int) -> list[str]:
    start.wait(60)
    authority = AuthorityFolder.open(folder)
    return [authority.sign(request(f"p{number}"), Profile.CLIENT, now=datetime.now(UTC)).serial for _ in range(10)]


def _worker(folder: Path, start: Any, number: int, results: Any) -> None:
    results.put(_sign_some(folder, start, number))


def test_processes_that_sign_at_the_same_time(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = AuthorityFolder.init(tmp_path / "ca", NAME, now=now - timedelta(hours=1))
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_worker, args=(authority.folder, start, n, results)) for n in range(2)]
    for worker in workers:
        worker.start()
    handed_out = [serial for _ in workers for serial in results.get(timeout=60)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
        worker.close()
    results.close()
    results.join_thread()
    assert len(set(handed_out)) == 20
    assert {entry.serial for entry in authority.entries()} == set(handed_out)
    assert set(names(authority.folder / "issued")) == {f"{serial}.crt" for serial in handed_out}


def test_whoever_comes_second_is_told_who_is_at_work(ca: AuthorityFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority_folder, "PATIENCE", 0.0)
    with ca._held():
        for step in (lambda: issued(ca), lambda: ca.write_list(NOW)):
            with pytest.raises(StoreError) as caught:
                step()
            assert caught.value.code is Code.STORE_BUSY
            assert f"process {os.getpid()}" in caught.value.sentence
    assert issued(ca)


def test_two_that_make_one_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has looked into the empty folder already when the first takes the lock."""
    real = authority_folder._refuse_taken

    def looks_then_loses(folder: Path) -> None:
        real(folder)
        monkeypatch.setattr(authority_folder, "_refuse_taken", real)
        AuthorityFolder.init(folder, subject_name("CN=the first"), now=NOW)

    monkeypatch.setattr(authority_folder, "_refuse_taken", looks_then_loses)
    with pytest.raises(IdentityError) as caught:
        AuthorityFolder.init(tmp_path / "ca", subject_name("CN=the second"), now=NOW)
    assert caught.value.code is Code.CA_FOLDER_TAKEN
    assert AuthorityFolder.open(tmp_path / "ca").certificate.subject == subject_name("CN=the first")


def test_a_thousand_certificates_are_listed(ca: AuthorityFolder) -> None:
    issued(ca)
    line = (ca.folder / "ledger.jsonl").read_bytes()
    lines = b"".join(_changed(line, serial=f"{number:x}") for number in range(1, 1001))
    (ca.folder / "ledger.jsonl").write_bytes(lines)
    assert len(ca.entries()) == 1000


def test_what_says_that_it_is_unfinished_does_not_come_back_in_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[Path, bool]] = []

    def flush(folder: Path) -> None:
        flushed.append((folder, (tmp_path / "ca" / "unfinished-ca").exists()))

    monkeypatch.setattr("mtlskit.store.authority_folder.flush_folder", flush)
    AuthorityFolder.init(tmp_path / "ca", NAME, now=NOW)
    assert (tmp_path / "ca", False) in flushed
