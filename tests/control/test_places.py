"""Which folder, and whether it may be used."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from mtlskit.control import places
from mtlskit.control.places import Place, check_folder, control_place, pid_of, prepare_folder, supported
from mtlskit.errors import Code, ConfigError


def test_the_folder_that_is_named_counts_most(tmp_path: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": "/run/x", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert control_place(Path("here"), environ) == Place(Path("here").absolute(), explicit=True)


def test_a_service_uses_the_first_folder_that_systemd_gave_it(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "mtlskit").symlink_to("private")  # DynamicUser=
    environ = {"RUNTIME_DIRECTORY": f"{tmp_path}/mtlskit:{tmp_path}/second", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert control_place(None, environ) == Place(tmp_path / "private")


def test_a_user_has_a_folder_in_the_runtime_folder_if_that_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert control_place(None, environ) == Place(tmp_path / "mtlskit")
    fallback = Place(Path(tempfile.gettempdir()) / f"mtlskit-{os.getuid()}")
    for useless in ("", "relative", str(tmp_path / "absent"), "with\0nul"):
        assert control_place(None, {"XDG_RUNTIME_DIR": useless}) == fallback
    assert control_place(None, {}) == fallback
    monkeypatch.setattr(places, "_uid", lambda: 4711)  # after `su`, it is still the other user's
    assert control_place(None, environ).folder.name == "mtlskit-4711"


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    place = Place(tmp_path / "new")
    check_folder(place)  # nobody's yet
    prepare_folder(place)
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    prepare_folder(place)
    assert place.socket_of(12) == tmp_path / "new" / "12.sock"


@pytest.mark.parametrize(
    ("mode", "explicit", "complaint"),
    [
        (0o755, False, ""),
        (0o770, False, "written to by others"),
        (0o707, False, "written to by others"),
        (0o770, True, ""),
        (0o777, True, "written to by others"),
    ],
)
def test_who_else_may_write_to_the_folder(tmp_path: Path, mode: int, explicit: bool, complaint: str) -> None:
    place = Place(tmp_path / "folder", explicit)
    place.folder.mkdir()
    place.folder.chmod(mode)
    if not complaint:
        prepare_folder(place)
        return
    with pytest.raises(ConfigError, match=complaint) as caught:
        prepare_folder(place)
    assert caught.value.code is Code.CTL_FOLDER
    assert "ls -ld" in caught.value.hint


def test_somebody_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an attacker has made in /tmp before us."""
    (tmp_path / "folder").mkdir(0o700)
    owner = (tmp_path / "folder").stat().st_uid
    monkeypatch.setattr(places, "_uid", lambda: owner + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        prepare_folder(Place(tmp_path / "folder"))
    if owner == 0:
        prepare_folder(Place(tmp_path / "folder", explicit=True))  # an operator's, of root
    monkeypatch.setattr(places, "_uid", lambda: 0)
    check_folder(Place(tmp_path / "folder", explicit=True))  # root looks at somebody's proxies


def test_a_link_is_followed_only_where_the_operator_names_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to("real")
    prepare_folder(Place(tmp_path / "link", explicit=True))
    with pytest.raises(ConfigError, match="is not a folder"):
        prepare_folder(Place(tmp_path / "link"))


def test_what_is_no_folder_and_what_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        prepare_folder(Place(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot be made: No such file"):
        prepare_folder(Place(tmp_path / "absent" / "folder", explicit=True))
    with pytest.raises(ConfigError, match="cannot be looked at"):
        check_folder(Place(tmp_path / "file" / "folder"))


def test_the_name_of_a_socket_is_a_process_id() -> None:
    names = ["12.sock", "0.sock", "-1.sock", "x.sock", "12.sock.tmp", "12", "99999999999.sock"]
    assert [pid_of(Path(name)) for name in names] == [12, None, None, None, None, None, None]


def test_a_platform_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert supported()
    monkeypatch.delattr(socket, "AF_UNIX")
    assert not supported()
