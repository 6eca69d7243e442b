"""Identity snapshots: what is wrong with the files is said with the file's name, and two versions never mix."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from mtlskit.config.values import IdentityConfig, Verify, VerifyMode
from mtlskit.errors import Code, IdentityError
from mtlskit.net import identity as identity_module
from mtlskit.net.files import MAX_FILE, read_private
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from mtlskit.net.tls import TlsEngine
from mtlskit.pki.authority import Authority
from mtlskit.pki.certificates import certificates_pem
from mtlskit.pki.keys import KeyType
from tests.services.pki import PASSPHRASE, Pki
from tests.support.x509_builder import make_certificate

CA = Verify(VerifyMode.CA)


@pytest.fixture
def config(pki: Pki) -> IdentityConfig:
    """A good identity."""
    return IdentityConfig("reporting", pki.client.cert, pki.client.key, pki.server_ca)


def _with(config: IdentityConfig, field: str, path: Path) -> IdentityConfig:
    changes: dict[str, Any] = {field: path}
    return replace(config, **changes)


def _load(config: IdentityConfig, verify: Verify = CA) -> IdentitySnapshot:
    return load_snapshot(config, verify=verify)


def _refused(config: IdentityConfig, verify: Verify = CA) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        _load(config, verify)
    assert "\n" not in caught.value.sentence
    assert caught.value.hint
    return caught.value


def test_a_good_identity(config: IdentityConfig, pki: Pki) -> None:
    snapshot = _load(config)
    leaf = x509.load_pem_x509_certificate(pki.client.cert.read_bytes())
    assert snapshot.name == "reporting"
    assert int(snapshot.serial, 16) == leaf.serial_number
    assert snapshot.not_after == leaf.not_valid_after_utc
    assert snapshot.context.verify_mode is ssl.CERT_REQUIRED
    assert snapshot.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert [len(certs) for certs in [snapshot.context.get_ca_certs()]] == [1]


def test_what_a_server_is_compared_with_is_named(config: IdentityConfig, tmp_path: Path) -> None:
    assert _load(replace(config, ca=None), Verify()).trust == "the system's roots, because no ca is set"
    now = datetime.now(UTC)
    roots = [Authority.create(f"root {number}", now=now).cert_pem for number in range(5)]
    (tmp_path / "ca.crt").write_bytes(b"".join(roots[:3]))
    several = replace(config, ca=tmp_path / "ca.crt")
    assert _load(several).trust == f"{tmp_path / 'ca.crt'} (CN=root 0; CN=root 1; CN=root 2)"
    (tmp_path / "ca.crt").write_bytes(b"".join(roots))
    assert _load(several).trust.endswith(" (CN=root 0; CN=root 1; CN=root 2; 2 more)")


@pytest.mark.parametrize(
    ("verify", "checks_name"),
    [(Verify(), True), (Verify(VerifyMode.NAME, "db.example"), True), (CA, False)],
    ids=["full", "name", "ca"],
)
def test_the_modes(config: IdentityConfig, verify: Verify, checks_name: bool) -> None:
    assert _load(config, verify).context.check_hostname is checks_name


def test_full_takes_the_systems_roots_where_no_ca_is_named(config: IdentityConfig) -> None:
    assert _load(replace(config, ca=None), Verify()).context.cert_store_stats()["x509"] != 1


@pytest.mark.parametrize("verify", [CA, Verify(VerifyMode.NAME, "db.example")], ids=str)
def test_the_other_modes_demand_a_ca_of_their_own(config: IdentityConfig, verify: Verify) -> None:
    error = _refused(replace(config, ca=None), verify)
    assert error.code is Code.FILE_MISSING
    assert str(verify) in error.sentence


# Bad input.


@pytest.mark.parametrize("field", ["cert", "key", "ca", "passphrase_file"])
def test_a_file_that_is_not_there(config: IdentityConfig, tmp_path: Path, field: str) -> None:
    error = _refused(_with(config, field, tmp_path / "absent"))
    assert error.code is Code.FILE_MISSING
    assert str(tmp_path / "absent") in error.sentence


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)  # and nobody will ever write to it


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _huge(path: Path) -> None:
    path.write_bytes(b"x" * (MAX_FILE + 1))
    path.chmod(0o600)


@pytest.mark.parametrize("field", ["cert", "key", "ca", "passphrase_file"])
@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_folder, Code.FILE_UNREADABLE),
        (_pipe, Code.FILE_UNREADABLE),
        (_loop, Code.FILE_UNREADABLE),
        (_huge, Code.PEM_TOO_LARGE),
    ],
)
def test_what_is_no_readable_file(
    config: IdentityConfig, tmp_path: Path, field: str, make: Callable[[Path], None], code: Code
) -> None:
    make(path := tmp_path / "thing")
    error = _refused(_with(config, field, path))
    assert error.code is code
    assert str(path) in error.sentence


def test_a_path_that_no_system_takes(config: IdentityConfig) -> None:
    assert _refused(replace(config, key=Path("a\0b"))).code is Code.FILE_UNREADABLE
    assert _refused(replace(config, cert=Path("a\0b/c"))).code is Code.FILE_UNREADABLE


def test_a_folder_that_is_a_loop_of_links(config: IdentityConfig, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("current")
    assert _refused(replace(config, cert=tmp_path / "current" / "cert.pem")).code is Code.FILE_UNREADABLE


@pytest.mark.parametrize("field", ["key", "passphrase_file"])
@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_secret_that_every_user_may_open(config: IdentityConfig, tmp_path: Path, field: str, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_bytes(config.key.read_bytes())
    path.chmod(mode)
    error = _refused(_with(config, field, path))
    assert error.code is Code.KEY_EXPOSED
    assert f"{mode:04o}" in error.sentence
    assert error.hint.startswith(f"chmod 600 {path}")


def test_a_key_for_a_group_is_fine(config: IdentityConfig, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(config.key.read_bytes())
    path.chmod(0o640)
    assert _load(replace(config, key=path)).serial


@pytest.mark.parametrize(
    ("cert", "key", "code"),
    [
        ("client", "certuser", Code.KEY_MISMATCH),
        ("client_expired", "client_expired", Code.CERTIFICATE_EXPIRED),
        ("client_not_yet_valid", "client_not_yet_valid", Code.CERTIFICATE_NOT_YET_VALID),
        ("server", "server", Code.CERTIFICATE_NOT_FOR_CLIENTS),
        ("client_locked", "client_locked", Code.KEY_ENCRYPTED),
    ],
)
def test_a_pair_that_cannot_be_used(config: IdentityConfig, pki: Pki, cert: str, key: str, code: Code) -> None:
    error = _refused(replace(config, cert=getattr(pki, cert).cert, key=getattr(pki, key).key))
    assert error.code is code
    assert str(pki.directory) in error.sentence


def test_certificate_and_key_in_each_others_place(config: IdentityConfig, tmp_path: Path) -> None:
    swapped = tmp_path / "cert-as-key.pem"
    swapped.write_bytes(config.cert.read_bytes())
    swapped.chmod(0o600)
    assert _refused(replace(config, cert=config.key)).code is Code.PEM_WRONG_KIND
    assert _refused(replace(config, key=swapped)).code is Code.PEM_WRONG_KIND


def test_something_else_in_the_place_of_the_ca(config: IdentityConfig, pki: Pki, tmp_path: Path) -> None:
    belongs = "this is the file given as ca (--ca): there belong the certificates of the CAs that the server is checked"
    error = _refused(replace(config, ca=config.key))
    assert (error.code, error.hint.startswith(belongs)) == (Code.PEM_WRONG_KIND, True), error.hint
    assert str(config.key) in error.sentence
    der = tmp_path / "root.der"
    der.write_bytes(ssl.PEM_cert_to_DER_cert(pki.server_ca.read_text()))
    converted = _refused(replace(config, ca=der))
    assert converted.code is Code.PEM_WRONG_KIND
    assert "openssl" in converted.hint
    assert f"; {belongs}" in converted.hint


# The passphrase, the chain, the roots.


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_passphrase_comes_from_its_file(config: IdentityConfig, pki: Pki, tmp_path: Path, ending: str) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes((PASSPHRASE + ending).encode())
    file.chmod(0o600)
    locked = replace(config, cert=pki.client_locked.cert, key=pki.client_locked.key, passphrase_file=file)
    assert _load(locked).serial
    file.write_text("wrong")
    error = _refused(locked)
    assert error.code is Code.KEY_PASSPHRASE_WRONG
    assert "wrong" not in error.sentence.replace("wrong passphrase", "")


def _accepts(snapshot: IdentitySnapshot, server: ssl.SSLContext) -> tuple[bool, int]:
    """Whether the two shake hands, and how many certificates the server got."""
    ours, theirs = TlsEngine(snapshot.context, server_hostname="localhost"), TlsEngine(server, server_side=True)
    done = False
    while not done:
        done = ours.handshake() & theirs.handshake()
        theirs.feed(ours.take())
        ours.feed(theirs.take())
    return True, len(theirs._tls.get_unverified_chain())


@pytest.fixture
def server(pki: Pki) -> ssl.SSLContext:
    """A server that demands a certificate of the clients' CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    context.load_verify_locations(pki.client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("way", ["memory file", "private file"])
def test_the_key_and_the_whole_chain_reach_openssl(
    config: IdentityConfig, pki: Pki, server: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, way: str, tmp_path: Path
) -> None:
    if way == "private file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    chained = replace(config, cert=pki.client_chained.cert, key=pki.client_chained.key)
    assert _accepts(_load(chained), server) == (True, 2)
    assert list(tmp_path.iterdir()) == [], "the key lies about"


def test_the_private_file_holds_no_plain_key(config: IdentityConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with identity_module._key_material(_load(config).pair) as (path, password):
        assert b"ENCRYPTED PRIVATE KEY" in Path(path).read_bytes()
        assert password
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    assert not Path(path).parent.exists()


@pytest.mark.parametrize("step", ["memfd_create", "mkdtemp"])
def test_no_room_for_the_key_is_an_identity_error(
    config: IdentityConfig, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*arguments: object, **options: object) -> int:
        raise OSError(24, "Too many open files")

    if step == "memfd_create":
        monkeypatch.setattr(os, "memfd_create", fail, raising=False)
    else:
        monkeypatch.delattr(os, "memfd_create", raising=False)
        monkeypatch.setattr("tempfile.mkdtemp", fail)
    error = _refused(config)
    assert error.code is Code.OPENSSL_REFUSED
    assert "Too many open files" in error.sentence


def test_a_key_that_openssl_finds_too_small(
    config: IdentityConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    issued = Authority.create("weak", now=now).issue_client("client", now=now, kind=KeyType.RSA_2048)
    (cert := tmp_path / "c.pem").write_bytes(issued.cert_pem)
    (key := tmp_path / "k.pem").write_bytes(issued.key_pem)
    key.chmod(0o600)

    real = ssl.SSLContext.load_cert_chain

    def strict(context: ssl.SSLContext, path: str, password: bytes | None) -> None:
        """As on a system whose security level is 3: RSA of 3072 bits and more."""
        context.set_ciphers("DEFAULT:@SECLEVEL=3")
        real(context, path, password=password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", strict)
    error = _refused(replace(config, cert=cert, key=key))
    assert error.code is Code.OPENSSL_REFUSED
    assert "KEY_TOO_SMALL" in error.sentence


def test_leaves_with_a_common_name_only_and_roots_without_key_usage_are_taken(
    config: IdentityConfig, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    span = {"begins": now - timedelta(days=1), "ends": now + timedelta(days=9)}
    root = make_certificate("old root", ca=True, digital_signature=None, usages=None, **span)  # type: ignore[arg-type]
    leaf = make_certificate("localhost", issuer=root, ca=None, digital_signature=None, usages=None, **span)  # type: ignore[arg-type]
    (ca := tmp_path / "ca.pem").write_bytes(certificates_pem([root.certificate]))
    (both := tmp_path / "server.pem").write_bytes(leaf.cert_pem + leaf.key_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(both)
    server.load_verify_locations(ca)
    server.verify_mode = ssl.CERT_REQUIRED
    (key := tmp_path / "key.pem").write_bytes(leaf.key_pem)
    key.chmod(0o600)
    assert _accepts(_load(replace(config, cert=both, key=key, ca=ca)), server)[0]


# Files that change while they are read.


def _write_version(folder: Path, now: datetime) -> None:
    folder.mkdir()
    authority = Authority.create(folder.name, now=now)
    issued = authority.issue_client(folder.name, now=now)
    (folder / "cert.pem").write_bytes(issued.cert_pem)
    (folder / "ca.pem").write_bytes(authority.cert_pem)
    (folder / "key.pem").write_bytes(issued.key_pem)
    (folder / "key.pem").chmod(0o600)


def _flip(link: Path) -> None:
    new = link.with_name("new")
    new.symlink_to("v1" if link.readlink().name == "v0" else "v0")
    new.replace(link)


@pytest.fixture
def current(tmp_path: Path) -> Path:
    """A store with two versions of an identity, and a link to the one that counts."""
    for name in ("v0", "v1"):
        _write_version(tmp_path / name, datetime.now(UTC))
    (link := tmp_path / "current").symlink_to("v0")
    return link


def _in(config: IdentityConfig, folder: Path) -> IdentityConfig:
    return replace(config, cert=folder / "cert.pem", key=folder / "key.pem", ca=folder / "ca.pem")


def test_thousands_of_readings_beside_a_thread_that_switches_the_link(config: IdentityConfig, current: Path) -> None:
    flipping = _in(config, current)
    versions = {
        name: tuple((current.with_name(name) / file).read_bytes() for file in ("cert.pem", "key.pem", "ca.pem"))
        for name in ("v0", "v1")
    }
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            _flip(current)

    flipper = threading.Thread(target=flip)
    flipper.start()
    seen = set()
    try:
        for _ in range(3000):
            files = identity_module.resolved(flipping)
            assert files.ca is not None
            seen.add((*identity_module._read_pair(files.cert, files.key), files.ca.read_bytes()))
    finally:
        stop.set()
        flipper.join()
    assert seen == set(versions.values())


@pytest.mark.parametrize("when", range(4))
def test_a_link_that_is_switched_at_any_moment_of_a_load(
    config: IdentityConfig, current: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    moments = iter(range(10))

    def switching(real: Callable[[Path, str], bytes]) -> Callable[[Path, str], bytes]:
        def read(path: Path, what: str) -> bytes:
            if next(moments) == when:
                _flip(current)
            return real(path, what)

        return read

    for name in ("read_public", "read_private"):
        monkeypatch.setattr(identity_module, name, switching(getattr(identity_module, name)))
    snapshot = _load(_in(config, current))
    (anchor,) = snapshot.context.get_ca_certs(binary_form=True)
    assert x509.load_der_x509_certificate(anchor).subject == snapshot.pair.leaf.issuer
    assert "v0" in snapshot.pair.leaf.subject.rfc4514_string()


def test_one_switch_between_two_readings_is_waited_out(
    config: IdentityConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    for number in range(2):
        _write_version(tmp_path / f"v{number}", now)
    (folder := tmp_path / "mounted").mkdir()
    for name in ("cert.pem", "key.pem"):
        (folder / name).symlink_to(tmp_path / "v0" / name)
    real = read_private

    def switch_then_read(path: Path, what: str) -> bytes:
        for name in ("cert.pem", "key.pem"):
            (folder / name).unlink()
            (folder / name).symlink_to(tmp_path / "v1" / name)
        return real(path, what)

    monkeypatch.setattr(identity_module, "read_private", switch_then_read)
    snapshot = _load(replace(config, cert=folder / "cert.pem", key=folder / "key.pem"))
    assert "v1" in snapshot.pair.leaf.subject.rfc4514_string()
