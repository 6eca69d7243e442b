"""Files, rights, and what is in them, looked at without a server."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtlskit.doctor.case import Case, Identified, Means
from mtlskit.doctor.checks.identity import identify
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import from_file, from_flags
from mtlskit.errors import Code, IdentityError
from mtlskit.net.identity import resolved
from tests.services.pki import PASSPHRASE, Pki
from tests.support.own_authority import OwnAuthority
from tests.support.x509_builder import DAY, Made, make_certificate


def case_of(flags: Mapping[str, Any], now: datetime | None = None) -> Case:
    means = Means() if now is None else Means(now=lambda: now)
    (case,) = from_flags({"upstream": ["db.example:5432"], **flags}, means).cases
    return case


def look(pki: Pki, now: datetime | None = None, **flags: Any) -> Identified:
    good = {"cert": pki.client.cert, "key": pki.client.key, "ca": pki.server_ca}
    return identify(case_of({**good, **flags}, now))


def troubles(identified: Identified) -> list[tuple[str, Code | None]]:
    return [(each.check, each.code) for each in identified.findings if each.code is not None]


def of(identified: Identified, check: str) -> Finding:
    (finding,) = [each for each in identified.findings if each.check == check]
    return finding


@pytest.fixture
def valid() -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"begins": now - DAY, "ends": now + 200 * DAY}


def put(folder: Path, made: Made, *more: bytes, name: str = "made") -> dict[str, Any]:
    files: dict[str, Any] = {"cert": folder / f"{name}.crt", "key": folder / f"{name}.key"}
    files["cert"].write_bytes(made.cert_pem + b"".join(more))
    files["key"].touch(mode=0o600)
    files["key"].write_bytes(made.key_pem)
    return files


def test_a_healthy_identity(pki: Pki) -> None:
    found = look(pki)
    assert {each.verdict for each in found.findings} == {Verdict.PASS}
    assert found.pair is not None
    assert found.trust is not None
    assert found.snapshot is not None
    assert of(found, "identity.dates").facts["days_left"] == pytest.approx(30, abs=1)
    assert of(found, "files.key").facts["mode"] == "0600"
    assert of(found, "identity.certificate").facts["serial"] == found.pair.serial


def test_no_certificate_and_still_trust_anchors(pki: Pki) -> None:
    found = look(pki, cert=None, key=None)
    assert found.pair is None
    assert found.snapshot is None
    assert found.trust is not None
    assert of(found, "identity.certificate").because == "no certificate given"
    assert of(found, "identity.anchors").verdict is Verdict.PASS
    assert not troubles(found)


def test_several_things_are_wrong_and_all_are_told(pki: Pki, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    shutil.copy(pki.certuser.key, key)
    key.chmod(0o644)
    found = look(pki, cert=pki.client_expired.cert, key=key, ca=tmp_path / "no.crt")
    assert troubles(found) == [
        ("files.key", Code.KEY_EXPOSED),
        ("files.ca", Code.FILE_MISSING),
        ("identity.match", Code.KEY_MISMATCH),
        ("identity.dates", Code.CERTIFICATE_EXPIRED),
    ]
    assert f"chmod 600 {key}" in of(found, "files.key").commands
    assert of(found, "identity.anchors").because == "files.ca"
    assert (found.pair, found.trust, found.snapshot) == (None, None, None)


def test_a_passphrase_never_appears(pki: Pki, tmp_path: Path) -> None:
    phrase = tmp_path / "phrase"
    phrase.touch(mode=0o600)
    phrase.write_text(PASSPHRASE)
    found = look(pki, cert=pki.client_locked.cert, key=pki.client_locked.key, passphrase_file=phrase)
    assert found.snapshot is not None
    assert of(found, "identity.key").facts["encrypted"] is True
    assert PASSPHRASE not in repr(found.findings)
    assert "bytes" not in of(found, "files.passphrase").facts


def test_an_exchanged_pair_is_not_called_exposed(pki: Pki) -> None:
    found = look(pki, cert=pki.client.key, key=pki.client.cert)
    assert {code for _, code in troubles(found)} == {Code.PEM_WRONG_KIND}
    assert all("exchanged" in each.hint for each in found.findings if each.code)


def test_dates_follow_the_clock_that_is_given(pki: Pki) -> None:
    now = datetime.now(UTC)
    assert not troubles(look(pki, now + 15 * DAY))
    soon = look(pki, now + 25 * DAY)
    assert {code for _, code in troubles(soon)} == {Code.CERTIFICATE_ENDS_SOON}
    assert all(each.verdict is not Verdict.FAIL for each in soon.findings)
    assert soon.snapshot is not None
    late = look(pki, now + 40 * DAY)
    assert troubles(late) == [
        ("identity.dates", Code.CERTIFICATE_EXPIRED),
        ("identity.anchors", Code.CERTIFICATE_EXPIRED),
    ]
    assert {"not_before", "not_after"} <= of(late, "identity.anchors").facts.keys()


def test_renew_before_decides_what_soon_is(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "mtlskit.toml"
    path.write_text(
        f'[identity.mine]\ncert = "{pki.client.cert}"\nkey = "{pki.client.key}"\nrenew_before = "80%"\n'
        '[tunnel.one]\nkind = "tcp"\nlisten = "127.0.0.1:6432"\nupstream = "db.example:1"\nidentity = "mine"\n'
        f'ca = "{pki.server_ca}"\n'
    )
    (case,) = from_file(path, (), Means(now=lambda: datetime.now(UTC) + 10 * DAY)).cases
    assert troubles(identify(case)) == [("identity.dates", Code.CERTIFICATE_ENDS_SOON)]


@pytest.mark.parametrize("where", ["beside", "anchors", "identifier"])
def test_an_intermediate_is_missing(pki: Pki, tmp_path: Path, valid: dict[str, Any], where: str) -> None:
    root = make_certificate("the root", ca=True, usages=None, **valid)
    middle = make_certificate("the middle", issuer=root, ca=True, usages=None, **valid)
    above = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(root.certificate.subject)], 7)
    leaf = make_certificate("client", issuer=middle, further=[above] if where == "identifier" else (), **valid)
    flags: dict[str, Any] = put(tmp_path, leaf)
    if where == "beside":
        (tmp_path / "chain.pem").write_bytes(middle.cert_pem)
    if where == "anchors":
        flags["ca"] = tmp_path / "cas" / "all.crt"
        flags["ca"].parent.mkdir()
        flags["ca"].write_bytes(root.cert_pem + middle.cert_pem)
    finding = of(look(pki, **flags), "identity.chain")
    assert (finding.verdict, finding.code) == (Verdict.WARN, Code.CHAIN_INCOMPLETE)
    assert "the intermediate CA CN=the middle is missing" in finding.seen
    assert bool(finding.commands) is (where != "identifier")
    if where == "identifier":
        return
    before = flags["cert"].read_bytes()
    subprocess.run(["sh", "-c", finding.commands[0]], check=True)
    assert flags["cert"].read_bytes() == before
    both = flags["cert"].with_name(f"{flags['cert'].stem}-chain{flags['cert'].suffix}")
    assert f'`cert = "{both}"`' in finding.hint
    assert of(look(pki, **flags | {"cert": both}), "identity.chain").verdict is Verdict.PASS
    # Who looks again before anything points to it is told to do that, and to write no third file.
    again = of(look(pki, **flags), "identity.chain")
    assert f'that file has both: point to it with `cert = "{both}"`' in again.hint
    assert not again.commands
    # What is there and is something else is not written over.
    both.write_text("notes")
    assert f"{both.stem}-2{both.suffix}" in of(look(pki, **flags), "identity.chain").commands[0]


def test_a_file_without_a_last_line_end_or_with_the_key_in_it(pki: Pki, tmp_path: Path, valid: dict[str, Any]) -> None:
    root = make_certificate("the root", ca=True, usages=None, **valid)
    middle = make_certificate("the middle", issuer=root, ca=True, usages=None, **valid)
    leaf = make_certificate("client", issuer=middle, **valid)
    files = put(tmp_path, leaf)
    (tmp_path / "middle.pem").write_bytes(middle.cert_pem)
    together = tmp_path / "my client.crt"
    together.touch(mode=0o600)
    together.write_bytes(files["key"].read_bytes() + leaf.cert_pem.rstrip())
    finding = of(look(pki, cert=together, key=together), "identity.chain")
    subprocess.run(["sh", "-c", finding.commands[0]], check=True)
    both = tmp_path / "my client-chain.crt"
    assert stat.S_IMODE(both.stat().st_mode) == 0o600
    assert of(look(pki, cert=both, key=files["key"]), "identity.chain").verdict is Verdict.PASS


def test_a_chain_that_needs_nothing(pki: Pki, tmp_path: Path, valid: dict[str, Any]) -> None:
    root = make_certificate("the root", ca=True, usages=None, **valid)
    middle = make_certificate("the middle", issuer=root, ca=True, usages=None, **valid)
    leaf = make_certificate("client", issuer=middle, **valid)
    (tmp_path / "root.pem").write_bytes(root.cert_pem)
    finding = of(look(pki, **put(tmp_path, leaf, middle.cert_pem)), "identity.chain")
    assert finding.verdict is Verdict.PASS
    # A root that is cross-signed by another has a form that is no root; servers that know the root miss nothing.
    other = make_certificate("another root", ca=True, usages=None, **valid)
    crossed = make_certificate("the root", issuer=other, key=root.key, ca=True, usages=None, **valid)
    (tmp_path / "crossed.pem").write_bytes(crossed.cert_pem)
    assert of(look(pki, **put(tmp_path, leaf, middle.cert_pem)), "identity.chain").verdict is Verdict.PASS


def test_another_order_is_put_right_and_an_old_issuer_is_told(pki: Pki, tmp_path: Path, valid: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    root = make_certificate("the root", ca=True, usages=None, **valid)
    middle = make_certificate("the middle", issuer=root, ca=True, usages=None, begins=now - 9 * DAY, ends=now - DAY)
    leaf = make_certificate("client", issuer=middle, **valid)
    files = put(tmp_path, leaf)
    files["cert"].write_bytes(middle.cert_pem + leaf.cert_pem)
    finding = of(look(pki, **files), "identity.chain")
    assert (finding.verdict, finding.code) == (Verdict.WARN, Code.CERTIFICATE_EXPIRED)


def test_old_anchors_beside_good_ones_are_no_alarm(pki: Pki, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old = make_certificate("old", ca=True, usages=None, begins=now - 90 * DAY, ends=now - DAY)
    path = tmp_path / "both.crt"
    path.write_bytes(old.cert_pem + pki.server_ca.read_bytes())
    found = look(pki, ca=path)
    assert not troubles(found)
    assert of(found, "identity.anchors").facts["usable"] == 1


def test_the_systems_roots(pki: Pki, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert of(look(pki, ca=None), "identity.anchors").verdict is Verdict.PASS
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    finding = of(look(pki, ca=None), "identity.anchors")
    assert (finding.verdict, finding.code) == (Verdict.FAIL, Code.FILE_MISSING)


def test_a_stored_identity(tmp_path: Path) -> None:
    own = OwnAuthority.make(tmp_path)
    own.issue("reporting")
    own.configure(1)
    (case,) = from_file(own.file, (), Means()).cases
    found = identify(case)
    assert found.snapshot is not None
    assert of(found, "files.store").facts["version"] == 1
    # Rotation needs the version's facts, the proxy does not.
    (own.folder / "identities" / "reporting" / "versions" / "0001" / "version.json").unlink()
    found = identify(case)
    assert troubles(found) == [("files.store", Code.STORE_DAMAGED)]
    assert of(found, "files.store").verdict is Verdict.WARN
    assert found.snapshot is not None
    current = own.folder / "identities" / "reporting" / "current"
    current.unlink()
    current.symlink_to("versions/0009")
    found = identify(case)
    assert of(found, "files.store").verdict is Verdict.FAIL
    assert found.trust is not None
    current.unlink()
    found = identify(case)
    assert troubles(found) == [("files.store", Code.NOTHING_STORED)]
    assert of(found, "files.store").commands == (f"mtlskit certs issue reporting --config {own.file}",)


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_who_may_write_to_the_folder(pki: Pki, tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    for path in (pki.client.cert, pki.client.key):
        shutil.copy2(path, folder)
    folder.chmod(mode)
    found = look(pki, cert=folder / "client.crt", key=folder / "client.key")
    assert troubles(found) == ([("files.folder", Code.KEY_EXPOSED)] if mode == 0o777 else [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_damaged_files_are_findings_and_no_errors(pki: Pki, tmp_path: Path, data: st.DataObject) -> None:
    flags: dict[str, Any] = {}
    for role, path in {"cert": pki.client_chained.cert, "key": pki.client_locked.key, "ca": pki.server_ca}.items():
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(0, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        end = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
        flags[role] = tmp_path / f"damaged-{role}"
        flags[role].touch(mode=0o600)
        flags[role].write_bytes(content[:end])
    found = look(pki, **flags)
    if found.snapshot is None:
        assert any(each.verdict is Verdict.FAIL for each in found.findings)
    assert all(each.hint for each in found.findings if each.verdict is Verdict.FAIL)


def test_a_certificate_for_anything_and_of_a_ca(pki: Pki, tmp_path: Path, valid: dict[str, Any]) -> None:
    made = make_certificate("client", ca=True, digital_signature=False, usages=None, **valid)
    found = look(pki, **put(tmp_path, made))
    assert troubles(found) == [("identity.usage", Code.CERTIFICATE_NOT_FOR_CLIENTS)] * 2
    assert found.snapshot is not None


def test_a_far_end(pki: Pki, tmp_path: Path) -> None:
    begins = datetime.now(UTC) - timedelta(days=1)
    made = make_certificate("client", begins=begins, ends=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert not troubles(look(pki, **put(tmp_path, made)))


def test_the_proxy_says_the_same_of_a_link_into_nowhere(tmp_path: Path) -> None:
    own = OwnAuthority.make(tmp_path)
    own.issue("reporting")
    own.configure(1)
    (case,) = from_file(own.file, (), Means()).cases
    own.lose_version()
    with pytest.raises(IdentityError) as caught:
        resolved(case.tunnel.identity)
    assert caught.value.code is Code.STORE_DAMAGED
    assert "current leads to versions/0001, which is not there" in caught.value.sentence
    (tmp_path / "identities" / "reporting" / "current").unlink()
    with pytest.raises(IdentityError) as caught:
        resolved(case.tunnel.identity)
    assert caught.value.code is Code.NOTHING_STORED
