"""Where the token is found, in which order, and what is said where it is not."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mtlskit.errors import Code, ConfigError
from mtlskit.heroku.cli_login import ProgramFailed, data_folder, run_program
from mtlskit.heroku.netrc_file import NetrcExposed
from mtlskit.heroku.token import find_token
from mtlskit.telemetry import Event


class Programs:
    """Programs that print what they are told to, and note how they were called."""

    def __init__(self, **prints: str) -> None:
        self.prints = prints
        self.called: list[list[str]] = []

    def __call__(self, argv: Sequence[str], environ: Mapping[str, str], seconds: float) -> str:
        assert 0 < seconds <= 30
        self.called.append(list(argv))
        printed = self.prints.get(argv[0].replace("-", "_"))
        if printed is None:
            raise ProgramFailed("not installed")
        return printed


def logged_in(home: Path, account: object = "ann@example.com") -> None:
    folder = home / ".local" / "share" / "heroku"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "login.json").write_text(json.dumps({"account": account}))


def netrc_of(home: Path, text: str, *, name: str = ".netrc", mode: int = 0o600) -> Path:
    path = home / name
    path.write_text(text)
    path.chmod(mode)
    return path


ENTRY = "machine api.heroku.com\n  login ann@example.com\n  password from-netrc\n"


def test_the_variable_comes_first(tmp_path: Path) -> None:
    logged_in(tmp_path)
    netrc_of(tmp_path, "rubbish")
    programs = Programs(secret_tool="from-store")
    token = find_token({"HEROKU_API_KEY": "from-env"}, home=tmp_path, platform="linux", run=programs)
    assert (token.value, token.source, programs.called) == ("from-env", "HEROKU_API_KEY", [])
    assert "from-env" not in repr(token)


@pytest.mark.parametrize(
    "value", ["", " ", "secret\n", "\tsecret", "secr et", "secr\x00et", "secr\x7fet", "s\u00e9cret", "secret" * 1000]
)
def test_a_variable_that_cannot_be_a_token(tmp_path: Path, value: str) -> None:
    netrc_of(tmp_path, ENTRY)
    with pytest.raises(ConfigError) as caught:
        find_token({"HEROKU_API_KEY": value}, home=tmp_path, platform="linux", run=Programs())
    error = caught.value
    assert (error.code, error.exit_status) == (Code.API_NO_TOKEN, 2)
    assert error.sentence.startswith("HEROKU_API_KEY: ")
    assert "secr" not in error.sentence + error.hint
    assert "unset" in error.hint


@pytest.mark.parametrize(
    ("platform", "argv"),
    [
        ("linux", ["secret-tool", "lookup", "service", "heroku-cli", "account", "ann@example.com"]),
        ("darwin", ["security", "find-generic-password", "-a", "ann@example.com", "-s", "heroku-cli", "-w"]),
    ],
)
def test_the_store_comes_before_netrc(tmp_path: Path, platform: str, argv: list[str]) -> None:
    logged_in(tmp_path)
    netrc_of(tmp_path, ENTRY)
    programs = Programs(secret_tool="from-store\n", security="from-store\n")
    token = find_token({}, home=tmp_path, platform=platform, run=programs)
    assert (token.value, token.source) == ("from-store", argv[0])
    assert programs.called == [argv]


@pytest.mark.parametrize("account", ["", None, 7, "-w", "a\nb"])
def test_the_store_is_not_asked_for_an_account_that_is_none(tmp_path: Path, account: object) -> None:
    logged_in(tmp_path, account)
    programs = Programs(heroku="from-cli")
    assert find_token({}, home=tmp_path, platform="linux", run=programs).value == "from-cli"
    assert programs.called == [["heroku", "auth:token"]]


def test_a_variable_of_the_cli_leaves_the_store_out(tmp_path: Path) -> None:
    logged_in(tmp_path)
    path = netrc_of(tmp_path, ENTRY)
    programs = Programs(secret_tool="from-store")
    token = find_token({"HEROKU_NETRC_WRITE": "TRUE"}, home=tmp_path, platform="linux", run=programs)
    assert (token.value, token.source, programs.called) == ("from-netrc", str(path), [])


@pytest.mark.parametrize("printed", ["", "  \n", None])
def test_netrc_serves_where_the_store_has_nothing(tmp_path: Path, printed: str | None) -> None:
    logged_in(tmp_path)
    netrc_of(tmp_path, ENTRY)
    programs = Programs() if printed is None else Programs(secret_tool=printed)
    assert find_token({}, home=tmp_path, platform="linux", run=programs).value == "from-netrc"


def test_netrc_has_another_name_on_windows(tmp_path: Path) -> None:
    path = netrc_of(tmp_path, ENTRY, name="_netrc")
    assert find_token({}, home=tmp_path, platform="win32", run=Programs()).source == str(path)


def test_the_default_of_netrc_is_not_for_heroku(tmp_path: Path) -> None:
    netrc_of(tmp_path, "machine git.heroku.com login a password b\ndefault login ann password for-all\n")
    with pytest.raises(ConfigError, match=r"has no password for the machine api\.heroku\.com"):
        find_token({}, home=tmp_path, platform="linux", run=Programs())


def test_a_netrc_that_cannot_be_parsed(tmp_path: Path) -> None:
    path = netrc_of(tmp_path, "machine api.heroku.com login ann password hidden-word\nhidden-word\n")
    with pytest.raises(ConfigError) as caught:
        find_token({}, home=tmp_path, platform="linux", run=Programs())
    assert caught.value.code is Code.API_NO_TOKEN
    assert caught.value.sentence.startswith(f"{path}, near line ")
    assert "hidden-word" not in caught.value.sentence + caught.value.hint
    assert str(path) in caught.value.hint


def test_a_netrc_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / ".netrc"
    path.write_bytes(b"machine \xff\xfe\x00 \x80")
    with pytest.raises(ConfigError) as caught:
        find_token({}, home=tmp_path, platform="linux", run=Programs())
    assert caught.value.sentence.startswith(f"{path}")


def test_a_netrc_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".netrc").mkdir()
    with pytest.raises(ConfigError, match="not a plain file"):
        find_token({}, home=tmp_path, platform="linux", run=Programs())


def test_a_netrc_that_everybody_can_read_is_told(tmp_path: Path) -> None:
    told: list[Event] = []
    for mode, events in ((0o644, 1), (0o640, 0), (0o600, 0)):
        path = netrc_of(tmp_path, ENTRY, mode=mode)
        told.clear()
        assert find_token({}, home=tmp_path, platform="linux", run=Programs(), emit=told.append).value == "from-netrc"
        assert [type(event) for event in told] == [NetrcExposed] * events
        assert all(f"chmod 600 {path}" in event.sentence() for event in told)


def test_without_any_every_place_is_named(tmp_path: Path) -> None:
    (tmp_path / ".netrc.gpg").write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        find_token({}, home=tmp_path, platform="linux", run=Programs())
    error = caught.value
    assert (error.code, error.exit_status) == (Code.API_NO_TOKEN, 2)
    for place in (
        "HEROKU_API_KEY is not set",
        f"secret-tool: not asked, because {tmp_path}/.local/share/heroku/login.json names no account",
        f"{tmp_path}/.netrc: does not exist; {tmp_path}/.netrc.gpg is encrypted",
        "heroku auth:token: not installed",
    ):
        assert place in error.sentence
    assert "heroku login" in error.hint


def test_on_windows_the_cli_is_asked_for_what_its_store_has(tmp_path: Path) -> None:
    token = find_token({}, home=tmp_path, platform="win32", run=Programs(heroku="from-cli\n"))
    assert (token.value, token.source) == ("from-cli", "heroku auth:token")


def test_what_a_place_holds_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_token({}, home=tmp_path, platform="linux", run=Programs(heroku="two words"))
    assert caught.value.sentence.startswith("heroku auth:token: ")
    assert "two words" not in caught.value.sentence


@pytest.mark.parametrize(
    ("environ", "platform", "folder"),
    [
        ({}, "linux", "HOME/.local/share/heroku"),
        ({}, "darwin", "HOME/.local/share/heroku"),
        ({"XDG_DATA_HOME": "/x", "LOCALAPPDATA": "/y"}, "linux", "/x/heroku"),
        ({"LOCALAPPDATA": "/y"}, "linux", "HOME/.local/share/heroku"),
        ({"LOCALAPPDATA": "/y"}, "win32", "/y/heroku"),
        ({"HEROKU_DATA_DIR": "/z", "XDG_DATA_HOME": "/x"}, "linux", "/z"),
    ],
)
def test_the_data_folder_of_the_cli(environ: dict[str, str], platform: str, folder: str) -> None:
    assert data_folder(environ, home=Path("HOME"), platform=platform) == Path(folder)


# Real programs.


def script(folder: Path, name: str, text: str) -> dict[str, str]:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def test_a_program_is_run_and_its_complaints_are_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    environ = script(tmp_path, "heroku", 'echo "$2 $1"; echo "token will expire" >&2')
    assert run_program(["heroku", "auth:token"], environ, 30) == " auth:token\n"
    assert capfd.readouterr() == ("", "")


def test_a_program_that_fails(tmp_path: Path) -> None:
    environ = script(tmp_path, "heroku", "echo half-a-token; exit 3")
    with pytest.raises(ProgramFailed, match=r"^ended with status 3$"):
        run_program(["heroku"], environ, 30)


def test_a_program_that_hangs_ends_with_its_children(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Its child holds the pipe open for as long as it lives, so the end of the pipe is the child's end.
    environ = script(tmp_path, "secret-tool", f"exec 3>{pipe}; sleep 1000 & wait")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(ProgramFailed, match="not done within"):
            run_program(["secret-tool"], environ, 0.5)
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ProgramFailed, match=r"^not installed$"):
        run_program(["heroku"], {"PATH": ""}, 30)


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "heroku"
    path.write_bytes(b"\x7fELF no program")
    path.chmod(0o700)
    with pytest.raises(ProgramFailed, match=r"^cannot be run: "):
        run_program(["heroku"], {"PATH": str(tmp_path)}, 30)
