"""The store: versions that are whole and never change, and a `current` that is one of them at any instant."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlskit.config.values import IdentityConfig, Verify, VerifyMode
from mtlskit.errors import Code, StoreError
from mtlskit.net.identity import load_snapshot
from mtlskit.pki.authority import Authority
from mtlskit.pki.certificates import serial_text
from mtlskit.store.identities import Material, Store, StoredIdentity, Version, VersionFacts, resolve_current

NOW = datetime.now(UTC)
FACTS = VersionFacts(
    issuer="ca",
    serial="1f",
    subject="CN=reporting",
    not_before=NOW.isoformat(),
    not_after=(NOW + timedelta(days=90)).isoformat(),
    spki_sha256="00",
    created_at=NOW.isoformat(),
    remote_id="an id",
    made_here=True,
)
MATERIAL = Material(b"certificate", b"key", b"root")


@pytest.fixture
def stored(tmp_path: Path) -> StoredIdentity:
    return Store(tmp_path / "store").identity("reporting")


@pytest.fixture(params=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A file system with symbolic links, and one without."""
    if request.param == "links":
        return True
    refuse_links(monkeypatch, errno.EPERM)
    return False


def refuse_links(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "symlink", refuse)


def facts(rotation: str = "", **changes: Any) -> VersionFacts:
    return replace(FACTS, rotation=rotation, **changes)


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder with its mode."""
    return {
        str(path.relative_to(folder)): f"{stat.S_IMODE(path.lstat().st_mode):04o}"
        for path in sorted(folder.rglob("*"))
        if not path.is_symlink()
    }


def test_nothing_is_there_and_looking_makes_nothing(stored: StoredIdentity, tmp_path: Path) -> None:
    assert Store(tmp_path / "store").names() == []
    assert stored.current() is None
    assert stored.versions() == ()
    assert stored.version_of("rotation") is None
    stored.sweep()
    stored.discard_pending("rotation")
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_read_as_it_was_staged(stored: StoredIdentity) -> None:
    version = stored.stage(MATERIAL, facts("rotation"))
    assert (version.number, version.folder.name) == (1, "0001")
    assert version.cert.read_bytes() == b"certificate"
    assert version.key.read_bytes() == b"key"
    assert version.root is not None
    assert version.root.read_bytes() == b"root"
    assert stored.versions() == (version,)
    assert stored.current() is None
    assert stored.stage(replace(MATERIAL, root_pem=None), facts()).root is None


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_only_we_can_read_what_is_secret(stored: StoredIdentity, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        stored.switch(stored.stage(MATERIAL, facts()))
        stored.make_pending("rotation")
    finally:
        os.umask(before)
    assert tree(tmp_path) == {
        "store": "0700",
        "store/reporting": "0700",
        "store/reporting/pending": "0700",
        "store/reporting/pending/rotation": "0700",
        "store/reporting/versions": "0700",
        "store/reporting/versions/0001": "0700",
        "store/reporting/versions/0001/client.crt": "0644",
        "store/reporting/versions/0001/client.key": "0600",
        "store/reporting/versions/0001/root.crt": "0644",
        "store/reporting/versions/0001/version.json": "0644",
    }


def test_a_rotation_that_is_repeated_finds_its_version(stored: StoredIdentity) -> None:
    first = stored.stage(MATERIAL, facts("one"))
    assert stored.stage(Material(b"other", b"other"), facts("one")) == first
    assert first.cert.read_bytes() == b"certificate"
    assert stored.stage(MATERIAL, facts("two")).number == 2
    assert stored.version_of("one") == first


def test_numbers_go_on_and_are_ordered_as_numbers(stored: StoredIdentity) -> None:
    stored.prepare()
    stored.stage(MATERIAL, facts())
    (stored.folder / "versions" / "0001").rename(stored.folder / "versions" / "9999")
    assert stored.stage(MATERIAL, facts()).folder.name == "10000"
    assert [version.number for version in stored.versions()] == [9999, 10000]
    stored.switch(stored.versions()[-1])
    current = stored.current()
    assert current is not None
    assert current.number == 10000


def test_current_is_switched_there_and_back(stored: StoredIdentity, links: bool) -> None:
    first, second = (stored.stage(MATERIAL, facts()) for _ in range(2))
    path = stored.folder / "current"
    for version in (first, second, second, first):
        stored.switch(version)
        assert stored.current() == version
        assert path.is_symlink() is links
        assert resolve_current(path) == version.folder.resolve()
        assert sorted(each.name for each in stored.folder.iterdir()) == ["current", "versions"]
        if links:
            assert str(path.readlink()) == f"versions/{version.folder.name}"
            assert (path / "client.key").read_bytes() == b"key"
        else:
            assert path.read_bytes() == b"versions/%s\n" % version.folder.name.encode("ascii")


def test_links_that_cannot_be_made_any_more(stored: StoredIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (stored.stage(MATERIAL, facts()) for _ in range(2))
    stored.switch(first)
    with monkeypatch.context() as patched:
        refuse_links(patched, errno.ENOSYS)
        stored.switch(second)
        assert not (stored.folder / "current").is_symlink()
        assert stored.current() == second
    stored.switch(first)
    assert (stored.folder / "current").is_symlink()
    assert stored.current() == first


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_takes_nothing_is_no_system_without_links(
    stored: StoredIdentity, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first, second = (stored.stage(MATERIAL, facts()) for _ in range(2))
    stored.switch(first)
    refuse_links(monkeypatch, number)
    with pytest.raises(StoreError, match="current: cannot be switched") as caught:
        stored.switch(second)
    assert caught.value.code is Code.STORE_UNUSABLE
    assert stored.current() == first


def test_readers_see_the_one_or_the_other(stored: StoredIdentity, links: bool) -> None:
    """Never nothing, and never a mixture."""
    versions = [stored.stage(Material(b"%d" % number, b"%d" % number), facts()) for number in range(2)]
    stored.switch(versions[0])
    seen: set[bytes] = set()
    faults: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                folder = resolve_current(stored.folder / "current")
                pair = (folder / "client.crt").read_bytes(), (folder / "client.key").read_bytes()
            except OSError as exc:
                faults.append(exc)
                return
            if pair[0] != pair[1]:
                faults.append(pair)
            seen.add(pair[0])

    reader = threading.Thread(target=read)
    reader.start()
    switched = 0
    while len(seen) < 2 or switched < 100:
        stored.switch(versions[switched % 2])
        switched += 1
        assert reader.is_alive() or not faults, faults
    stop.set()
    reader.join()
    assert faults == []


@pytest.mark.parametrize("failing", ["client.key", "client.crt", "root.crt", "version.json", "rename"])
def test_a_version_is_whole_or_not_there(stored: StoredIdentity, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    first = stored.stage(MATERIAL, facts())
    link, rename = os.link, os.rename

    def linked(source: Any, target: Any, **options: Any) -> None:
        if Path(target).name == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        link(source, target, **options)

    def renamed(source: Any, target: Any) -> None:
        if failing == "rename":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", linked)
        patched.setattr(os, "rename", renamed)
        with pytest.raises(StoreError, match=r"No space left|Read-only") as caught:
            stored.stage(MATERIAL, facts("rotation"))
    assert caught.value.code is Code.STORE_UNUSABLE
    assert stored.versions() == (first,)
    assert [path.name for path in (stored.folder / "versions").iterdir()] == ["0001"]
    assert stored.stage(MATERIAL, facts("rotation")).number == 2


def test_what_killed_processes_left_is_swept(stored: StoredIdentity) -> None:
    version = stored.stage(MATERIAL, facts())
    stored.switch(version)
    (stored.folder / "versions" / ".new-00000000").mkdir()
    (stored.folder / "versions" / ".new-00000000" / ".client.key.00000000.tmp").write_bytes(b"key")
    (stored.folder / ".current.00000000").symlink_to("versions/0002")
    (stored.folder / ".journal.jsonl.00000000.tmp").touch()
    (stored.folder / "journal.jsonl").touch()
    for rotation in ("old", "going-on"):
        (stored.make_pending(rotation) / "client.key").touch()
    stored.sweep(rotation="going-on")
    assert sorted(path.name for path in stored.folder.iterdir()) == ["current", "journal.jsonl", "pending", "versions"]
    assert [path.name for path in (stored.folder / "pending").iterdir()] == ["going-on"]
    assert [path.name for path in (stored.folder / "versions").iterdir()] == ["0001"]
    stored.discard_pending("going-on")
    assert not (stored.folder / "pending").exists()


def test_old_versions_are_swept_but_never_the_current_one(stored: StoredIdentity) -> None:
    versions = [stored.stage(MATERIAL, facts()) for _ in range(6)]
    stored.switch(versions[1])
    stored.sweep(keep=2)
    assert [version.number for version in stored.versions()] == [2, 5, 6]
    assert stored.current() == versions[1]


def test_a_link_below_pending_is_removed_and_not_followed(stored: StoredIdentity, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    stored.make_pending("going-on")
    (stored.folder / "pending" / "old").symlink_to(tmp_path / "elsewhere")
    stored.sweep(rotation="going-on")
    assert not (stored.folder / "pending" / "old").is_symlink()
    assert (tmp_path / "elsewhere" / "file").exists()


def test_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "audit.jsonl").touch()
    assert store.names() == ["a", "b"]
    with pytest.raises(StoreError, match=r"audit\.jsonl") as caught:
        Store(tmp_path / "audit.jsonl").names()
    assert caught.value.code is Code.STORE_UNUSABLE


# What others may have done to it.


@pytest.mark.parametrize(
    "pointer",
    ["", "versions", "versions/1", "versions/0001/", "../versions/0001", "/versions/0001", "versions/0001\n\n", "é"],
)
def test_a_current_that_points_elsewhere(stored: StoredIdentity, links: bool, pointer: str) -> None:
    stored.stage(MATERIAL, facts())
    path = stored.folder / "current"
    if links and pointer:
        path.symlink_to(pointer)
    else:
        path.write_text(pointer, encoding="utf-8")
    with pytest.raises(StoreError, match=str(path)) as caught:
        stored.current()
    assert caught.value.code is Code.STORE_DAMAGED


def test_a_current_whose_version_is_gone(stored: StoredIdentity, links: bool) -> None:
    version = stored.stage(MATERIAL, facts())
    stored.switch(version)
    shutil.rmtree(version.folder)
    with pytest.raises(StoreError, match=str(version.folder)) as caught:
        stored.current()
    assert caught.value.code is Code.STORE_DAMAGED
    with pytest.raises(FileNotFoundError):
        resolve_current(stored.folder / "current")
    assert f"{stored.folder / 'current'} if it points there" in caught.value.hint
    (stored.folder / "current").unlink()
    assert stored.current() is None
    stored.switch(stored.stage(MATERIAL, facts()))
    assert stored.current() == stored.versions()[0]


_TYPES = {name: type(value) for name, value in asdict(FACTS).items()}
TYPES = [_TYPES, _TYPES | {"remote_id": type(None)}]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
changed_facts = st.dictionaries(st.sampled_from([*asdict(FACTS), "more"]), json_values).map(
    lambda changes: json.dumps(asdict(FACTS) | changes).encode("utf-8")
)


def current_or_error(stored: StoredIdentity) -> tuple[Version | None, StoreError | None]:
    try:
        return stored.current(), None
    except StoreError as exc:
        return None, exc


@settings(deadline=None)  # the disk takes its time
@given(content=st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()) | changed_facts)
def test_facts_that_were_changed_are_read_or_told(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stored = Store(Path(folder)).identity("reporting")
        version = stored.stage(MATERIAL, facts())
        stored.switch(version)
        (version.folder / "version.json").write_bytes(content)
        found, error = current_or_error(stored)
        if error is not None:
            assert error.code is Code.STORE_DAMAGED
            assert str(version.folder / "version.json") in error.sentence
        else:
            assert found is not None
            written = asdict(FACTS) | json.loads(content)
            assert asdict(found.facts) == {name: written[name] for name in asdict(FACTS)}
            assert {name: type(value) for name, value in asdict(found.facts).items()} in TYPES


# What a proxy makes of it.


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("our ca", now=NOW)


def issued(authority: Authority) -> tuple[Material, str]:
    made = authority.issue_client("reporting", now=NOW)
    return Material(made.cert_pem, made.key_pem, authority.cert_pem), serial_text(made.certificate)


def test_a_snapshot_is_of_the_version_that_current_means(
    stored: StoredIdentity, links: bool, authority: Authority
) -> None:
    current = stored.folder / "current"
    config = IdentityConfig("reporting", current / "client.crt", current / "client.key", ca=current / "root.crt")
    for _ in range(2):
        material, serial = issued(authority)
        stored.switch(stored.stage(material, facts(serial=serial)))
        snapshot = load_snapshot(config, verify=Verify(VerifyMode.CA))
        assert snapshot.serial == serial


# What is not ours.


def test_the_folder_of_another_user_is_left_alone(stored: StoredIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.prepare()
    owner = stored.folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)  # root, most often: its files would be of no use to others
    with pytest.raises(StoreError) as caught:
        stored.prepare()
    assert caught.value.code is Code.STORE_UNUSABLE
    assert f"sudo -u '#{owner}'" in caught.value.hint


def test_a_damaged_version_hides_no_other(stored: StoredIdentity) -> None:
    for rotation in ("first", "second", "third"):
        stored.stage(MATERIAL, facts(rotation))
    (stored.folder / "versions" / "0002" / "version.json").write_text("{")
    found = stored.version_of("first")
    assert found is not None
    assert found.number == 1
    assert stored.version_of("second") is None
    assert stored.stage(MATERIAL, facts("fourth")).number == 4


def test_a_version_that_may_not_be_read_is_told(stored: StoredIdentity) -> None:
    stored.stage(MATERIAL, facts("first"))
    path = stored.folder / "versions" / "0001" / "version.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError) as caught:
        stored.version_of("first")
    assert caught.value.code is Code.STORE_UNUSABLE
