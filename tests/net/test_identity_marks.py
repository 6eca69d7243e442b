"""The marks of an identity's files change with the files, and with nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mtlskit.config.values import IdentityConfig
from mtlskit.net.identity_marks import marks_of


@pytest.fixture
def config(tmp_path: Path) -> IdentityConfig:
    for version in ("0001", "0002"):
        (tmp_path / "versions" / version).mkdir(parents=True)
        for name in ("client.crt", "client.key"):
            (tmp_path / "versions" / version / name).write_text(version)
    current = tmp_path / "current"
    current.symlink_to("versions/0001")
    (tmp_path / "ca.crt").write_text("ca")
    return IdentityConfig("it", current / "client.crt", current / "client.key", ca=tmp_path / "ca.crt")


def test_what_stays_has_the_same_marks(config: IdentityConfig) -> None:
    before = marks_of(config)
    config.cert.read_bytes()
    os.utime(config.cert, ns=(1, config.cert.stat().st_mtime_ns))  # a back-up program
    assert marks_of(config) == before
    assert before.changed(before) == ()


def test_a_switched_link_changes_all_that_lie_behind_it(config: IdentityConfig) -> None:
    before = marks_of(config)
    new = config.cert.parent.with_name("new")
    new.symlink_to("versions/0002")
    new.replace(config.cert.parent)
    assert marks_of(config).changed(before) == ("cert", "key")


def test_each_file_counts(config: IdentityConfig) -> None:
    before = marks_of(config)
    config.key.chmod(0o640)
    assert marks_of(config).changed(before) == ("key",)
    before = marks_of(config)
    assert config.ca is not None
    config.ca.write_text("another")
    assert marks_of(config).changed(before) == ("ca",)
    before = marks_of(config)
    config.ca.unlink()
    assert marks_of(config).changed(before) == ("ca",)
    assert marks_of(config) == marks_of(config)


def test_where_links_cannot_be_had_a_file_says_which_version_is_current(config: IdentityConfig) -> None:
    current = config.cert.parent
    current.unlink()
    current.write_text("versions/0001\n")
    before = marks_of(config)
    assert all(isinstance(mark, tuple) for _, mark in before.files)
    current.write_text("versions/0002\n")
    assert marks_of(config).changed(before) == ("cert", "key")


@pytest.mark.parametrize("name", ["absent/client.crt", "ca.crt/client.crt", "with\0nul"])
def test_what_cannot_be_looked_at_has_a_mark_too(config: IdentityConfig, tmp_path: Path, name: str) -> None:
    broken = IdentityConfig("it", tmp_path / name, config.key, passphrase_file=tmp_path / "absent")
    assert marks_of(broken) == marks_of(broken)
    assert len(marks_of(broken).files) == 3
