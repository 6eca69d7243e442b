"""Which configuration file is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlskit.config.locate import default_user_folder, locate_config
from mtlskit.errors import Code, ConfigError


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "cwd").mkdir()
    return tmp_path / "cwd"


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


def test_the_named_file_comes_first_even_if_it_is_missing(cwd: Path, user_folder: Path) -> None:
    (cwd / "mtlskit.toml").touch()
    environ = {"MTLSKIT_CONFIG": "variable.toml"}
    assert locate_config(Path("x.toml"), cwd=cwd, environ=environ, user_folder=user_folder) == cwd / "x.toml"
    assert locate_config(None, cwd=cwd, environ=environ, user_folder=user_folder) == cwd / "variable.toml"


def test_a_named_file_may_be_in_the_home_folder(cwd: Path) -> None:
    assert locate_config(Path("~/x.toml"), cwd=cwd, environ={"HOME": "/home/ann"}) == Path("/home/ann/x.toml")


def test_the_current_folder_comes_before_the_users(cwd: Path, user_folder: Path) -> None:
    (user_folder / "mtlskit.toml").touch()
    assert locate_config(None, cwd=cwd, environ={}, user_folder=user_folder) == user_folder / "mtlskit.toml"
    (cwd / "mtlskit.toml").touch()
    assert locate_config(None, cwd=cwd, environ={}, user_folder=user_folder) == cwd / "mtlskit.toml"


def test_not_found_names_all_places_and_the_way_without_a_file(cwd: Path, user_folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        locate_config(None, cwd=cwd, environ={"MTLSKIT_CONFIG": ""}, user_folder=user_folder)
    assert caught.value.code is Code.CONFIG_NOT_FOUND
    assert str(cwd / "mtlskit.toml") in caught.value.sentence
    assert str(user_folder / "mtlskit.toml") in caught.value.sentence
    assert "mtlskit proxy --listen 127.0.0.1:6432 --upstream" in caught.value.hint


def test_the_platform_decides_on_the_users_folder(cwd: Path) -> None:
    assert default_user_folder().name == "mtlskit"
    with pytest.raises(ConfigError) as caught:
        # The folder of whoever runs the tests may hold a file; a name of our own makes the outcome certain.
        locate_config(None, cwd=cwd, environ={}, user_folder=default_user_folder() / "no-such-folder")
    assert str(default_user_folder()) in caught.value.sentence
