"""Files in, files out: what other programs read of an identity, and what is refused before it is taken in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.authority import Authority
from mtlskit.pki.bundles import read_bundle
from mtlskit.pki.certificates import is_issued_by
from mtlskit.pki.export import NEEDS_PASSPHRASE, Exported, ExportFormat, export
from mtlskit.pki.identity import check_pair
from mtlskit.pki.keys import KeyType, generate_key, private_key_pem
from mtlskit.pki.material import CheckedMaterial, gather, read_roots
from mtlskit.pki.requests import Wishes, make_request, subject_name
from tests.support.openssl import openssl
from tests.support.x509_builder import DAY, NOW, Made, make_certificate

ROOT = make_certificate("root", ca=True, usages=None, digital_signature=False)
MIDDLE = make_certificate("middle", issuer=ROOT, ca=True, usages=None, digital_signature=False)
SERVERS = Authority.create("servers", now=NOW)
PASSPHRASE = b"correct horse"
KINDS = [KeyType.EC_P256, KeyType.ED25519, KeyType.RSA_2048]


def material(kind: KeyType = KeyType.EC_P256) -> CheckedMaterial:
    leaf = make_certificate("me, myself", issuer=MIDDLE, key=generate_key(kind))
    return gather(
        [("c", leaf.cert_pem + MIDDLE.cert_pem), ("k", leaf.key_pem)], now=NOW, roots=("ca", SERVERS.cert_pem)
    )


MINE = material()


def names(exported: Exported) -> dict[str, bytes]:
    return {file.name: file.data for file in exported.files}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("pem", ["client.key", "client.crt", "root.crt"]),
        ("psql", ["postgresql.key", "postgresql.crt", "root.crt"]),
        ("p12", ["client.p12", "root.crt"]),
        ("jdbc", ["client.p12", "root.crt"]),
        ("der", ["client.pk8", "client.der", "root.crt"]),
    ],
)
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_the_files_of_each_format(form: str, expected: list[str], passphrase: bytes | None) -> None:
    wanted = ExportFormat(form)
    if passphrase is None and wanted in NEEDS_PASSPHRASE:
        with pytest.raises(ValueError, match="passphrase"):
            export(MINE, wanted)
        return
    exported = export(MINE, wanted, passphrase=passphrase)
    assert [file.name for file in exported.files] == expected
    assert [file.secret for file in exported.files] == [True] + [False] * (len(expected) - 1)
    assert names(exported)["root.crt"] == SERVERS.cert_pem
    secret = exported.files[0]
    assert b"PRIVATE" not in repr(exported).encode()
    back = read_bundle(secret.data, source=secret.name, passphrase=passphrase)
    assert back.key is not None
    assert back.encrypted is (passphrase is not None)
    with pytest.raises(ValueError, match="passphrase"):
        export(MINE, wanted, passphrase=b"")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", list(ExportFormat))
def test_each_format_comes_back_as_the_same_identity(form: ExportFormat, kind: KeyType) -> None:
    mine = material(kind)
    exported = export(mine, form, passphrase=PASSPHRASE)
    sources = [(file.name, file.data) for file in exported.files if file.name != "root.crt"]
    back = gather(sources, now=NOW, passphrase=PASSPHRASE)
    assert back.key_pem == mine.key_pem
    kept = 1 if form is ExportFormat.DER else 2
    assert back.pair.chain == mine.pair.chain[:kept]
    assert back.pair.warnings == ()


def test_der_says_what_it_leaves_out() -> None:
    (note,) = export(MINE, ExportFormat.DER).notes
    assert "CN=middle" in note
    assert export(MINE, ExportFormat.PEM).notes == ()


def test_without_the_servers_ca_there_is_no_root() -> None:
    bare = CheckedMaterial(MINE.pair)
    assert [file.name for file in export(bare, ExportFormat.PSQL).files] == ["postgresql.key", "postgresql.crt"]
    (note,) = export(bare, ExportFormat.JDBC, passphrase=PASSPHRASE).notes
    assert "--ca" in note


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [ExportFormat.P12, ExportFormat.JDBC])
def test_openssl_reads_the_archive(form: ExportFormat, kind: KeyType, tmp_path: Path) -> None:
    """With its default provider alone: nothing in it is of the legacy kind."""
    mine = material(kind)
    path = tmp_path / "client.p12"
    path.write_bytes(names(export(mine, form, passphrase=PASSPHRASE))["client.p12"])
    done = subprocess.run(
        ["openssl", "pkcs12", "-in", path, "-info", "-nodes", "-passin", f"pass:{PASSPHRASE.decode()}"],
        capture_output=True,
        check=True,
    )
    assert done.stderr.count(b"PBES2, PBKDF2, AES-256-CBC, Iteration 50000, PRF hmacWithSHA256") == 2
    assert b"MAC: sha256" in done.stderr
    back = check_pair(done.stdout, done.stdout, now=NOW, cert_source="c", key_source="k")
    assert back.chain == mine.pair.chain
    assert back.key_pem == mine.key_pem


@pytest.mark.parametrize(("form", "alias"), [(ExportFormat.P12, "cn=me\\, myself"), (ExportFormat.JDBC, "user")])
def test_java_reads_the_archive(form: ExportFormat, alias: str, tmp_path: Path, services: None) -> None:
    keytool = shutil.which("keytool")
    assert keytool, "keytool is not installed: apt-get install default-jdk-headless"
    (tmp_path / "client.p12").write_bytes(names(export(MINE, form, passphrase=PASSPHRASE))["client.p12"])
    command = [keytool, "-list", "-v", "-keystore", "client.p12", "-storepass:env", "STORE"]
    environment = {**os.environ, "STORE": PASSPHRASE.decode(), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
    assert f"Alias name: {alias}\n" in done.stdout
    assert "Entry type: PrivateKeyEntry" in done.stdout
    assert "Certificate chain length: 2" in done.stdout
    assert done.stdout.index("Owner: ") < done.stdout.index("Owner: CN=middle")


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_openssl_reads_the_der_files(passphrase: bytes | None, tmp_path: Path) -> None:
    for name, data in names(export(MINE, ExportFormat.DER, passphrase=passphrase)).items():
        (tmp_path / name).write_bytes(data)
    secret = ["-passin", f"pass:{PASSPHRASE.decode()}"] if passphrase else []
    public = openssl("pkey", "-inform", "DER", "-in", tmp_path / "client.pk8", *secret, "-pubout")
    assert openssl("x509", "-inform", "DER", "-in", tmp_path / "client.der", "-noout", "-pubkey") == public


# What is taken in.


def refused(*made: bytes, strict: bool = True) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        gather([(f"file {n}", data) for n, data in enumerate(made)], now=NOW, strict=strict)
    assert caught.value.hint
    return caught.value


LEAF = make_certificate("leaf", issuer=MIDDLE)


def test_any_combination_of_files_is_an_identity() -> None:
    archive = names(export(MINE, ExportFormat.P12, passphrase=PASSPHRASE))["client.p12"]
    for sources in (
        [archive],
        [LEAF.key_pem, MIDDLE.cert_pem, LEAF.cert_pem],
        [ROOT.cert_pem, MIDDLE.cert_pem + LEAF.cert_pem, LEAF.key_pem],
        [LEAF.cert_pem + LEAF.key_pem],
    ):
        found = gather([("f", data) for data in sources], now=NOW, passphrase=PASSPHRASE)
        assert found.cert_pem.startswith(b"-----BEGIN CERTIFICATE-----")
        assert found.key_pem in (LEAF.key_pem, MINE.key_pem)
        assert found.root_pem is None


def test_of_several_keys_the_fitting_one_is_taken() -> None:
    stranger = make_certificate()
    found = gather([("a", stranger.key_pem), ("b", LEAF.key_pem), ("c", LEAF.cert_pem)], now=NOW)
    assert found.key_pem == LEAF.key_pem


def test_what_is_missing_is_said() -> None:
    assert "there is no private key" in refused(LEAF.cert_pem).sentence
    assert "without a certificate" in refused(LEAF.key_pem).sentence
    error = refused(LEAF.cert_pem, make_certificate().key_pem)
    assert error.code is Code.KEY_MISMATCH
    assert "file 0" in error.sentence
    assert "file 1" in error.sentence


def test_a_gap_is_a_warning() -> None:
    found = gather([("c", LEAF.cert_pem + ROOT.cert_pem), ("k", LEAF.key_pem)], now=NOW)
    assert "c: the issuer CN=middle of CN=leaf is not in the file" in found.notes


def with_sha1(name: str, folder: Path, *, issuer: Made | None = None, ca: bool = False) -> Made:
    """A certificate that is signed with SHA-1: openssl still makes them, cryptography does not."""
    key = generate_key(KeyType.RSA_2048)
    files = {"k": private_key_pem(key), "r": make_request(key, Wishes(subject_name(f"CN={name}"))), "ext": b""}
    signer: list[str | Path] = ["-signkey", folder / "k"]
    if ca:
        files["ext"] = b"basicConstraints=critical,CA:TRUE\n"
    if issuer is not None:
        files |= {"ic": issuer.cert_pem, "ik": issuer.key_pem}
        signer = ["-CA", folder / "ic", "-CAkey", folder / "ik", "-set_serial", "7"]
    for file, data in files.items():
        (folder / file).write_bytes(data)
    pem = openssl(*("x509", "-req", "-sha1", "-days", "9", "-in", folder / "r", "-extfile", folder / "ext"), *signer)
    return Made(x509.load_pem_x509_certificate(pem), key)


def test_a_signature_with_sha1_is_refused_when_it_is_taken_in_and_a_warning_later(tmp_path: Path) -> None:
    made = with_sha1("old", tmp_path)
    now = made.certificate.not_valid_before_utc
    with pytest.raises(IdentityError) as caught:
        gather([("c", made.cert_pem), ("k", made.key_pem)], now=now)
    assert caught.value.code is Code.SIGNATURE_WEAK
    assert caught.value.sentence == "c: CN=old is signed with SHA-1, which can be forged"
    assert is_issued_by(made.certificate, made.certificate)
    assert not is_issued_by(made.certificate, make_certificate("old", key=generate_key(KeyType.RSA_2048)).certificate)
    assert not is_issued_by(made.certificate, make_certificate("old").certificate)
    warnings = check_pair(made.cert_pem, made.key_pem, now=now, cert_source="c", key_source="k").warnings
    assert "c: CN=old is signed with SHA-1; servers may refuse it" in warnings


def test_an_issuer_that_is_signed_with_sha1_is_refused_unless_it_is_a_root(tmp_path: Path) -> None:
    root = with_sha1("root", tmp_path, ca=True)
    now = root.certificate.not_valid_before_utc + DAY
    begins, ends = now - DAY, now + 90 * DAY
    under_root = make_certificate("leaf", issuer=root, begins=begins, ends=ends)
    gather([("c", under_root.cert_pem + root.cert_pem), ("k", under_root.key_pem)], now=now)
    middle = with_sha1("middle", tmp_path, issuer=make_certificate("top", ca=True, begins=begins, ends=ends), ca=True)
    leaf = make_certificate("leaf", issuer=middle, begins=begins, ends=ends)
    with pytest.raises(IdentityError) as caught:
        gather([("c", leaf.cert_pem + middle.cert_pem), ("k", leaf.key_pem)], now=now)
    assert caught.value.sentence.startswith("c: CN=middle is signed with SHA-1")


def test_a_ca_where_a_leaf_belongs() -> None:
    error = refused(ROOT.cert_pem, ROOT.key_pem)
    assert error.code is Code.CERTIFICATE_NOT_FOR_CLIENTS
    assert "CN=root is a CA certificate, and stands where a client's belongs" in error.sentence
    mismatch = refused(ROOT.cert_pem + MIDDLE.cert_pem, LEAF.key_pem)
    assert mismatch.code is Code.KEY_MISMATCH
    assert "a CA's certificate only" in mismatch.hint
    warned = gather([("c", ROOT.cert_pem), ("k", ROOT.key_pem)], now=NOW, strict=False)
    assert any("is a CA certificate" in note for note in warned.notes)


def test_roots_in_each_form() -> None:
    der = openssl("x509", "-outform", "DER", stdin=SERVERS.cert_pem)
    assert read_roots(("f", der)) == read_roots(("f", SERVERS.cert_pem)) == (SERVERS.certificate,)
    for wrong in (LEAF.cert_pem, LEAF.key_pem):
        with pytest.raises(IdentityError) as caught:
            read_roots(("f", wrong))
        assert caught.value.code is Code.PEM_WRONG_KIND
        assert "holds no CA certificate" in caught.value.sentence
