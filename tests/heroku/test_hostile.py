"""An API, or a folder, that somebody else has filled."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import httpx
import pytest

from mtlskit.config.values import HerokuConfig
from mtlskit.errors import Code, ConfigError, HerokuError
from mtlskit.heroku.cli_login import ProgramFailed, ask_store, run_program
from mtlskit.heroku.netrc_file import netrc_password
from mtlskit.heroku.parsing import parse_time
from mtlskit.heroku.settings import settings_from
from mtlskit.heroku.token import Token
from mtlskit.heroku.token_forms import AuthForm, clean
from mtlskit.telemetry import silent
from tests.support.api_client import TOKEN, assert_tells_no_secret, fake_heroku


async def refusal_of(response: httpx.Response) -> HerokuError:
    async with fake_heroku(lambda request: response) as heroku:
        with pytest.raises(HerokuError) as caught:
            await heroku.data.certificate("pg", "c1")
    assert_tells_no_secret(caught.value)
    assert TOKEN[:12].casefold() not in f"{caught.value.sentence} {caught.value.hint}".casefold()
    return caught.value


@pytest.mark.parametrize("host", ["xn--zzzzz---", "xn--"])
async def test_a_redirect_to_a_host_that_is_none(host: str) -> None:
    error = await refusal_of(httpx.Response(302, headers={"Location": f"https://{host}/"}))
    assert error.code is Code.API_RUBBISH
    assert "it sends us to " in error.sentence


async def test_a_redirect_whose_host_repeats_the_token_in_small_letters() -> None:
    error = await refusal_of(httpx.Response(302, headers={"Location": f"https://{TOKEN}.example.com/"}))
    assert "https://[token].example.com" in error.sentence


async def test_a_packing_that_is_called_like_the_token() -> None:
    stream = httpx.ByteStream(b"packed")
    error = await refusal_of(httpx.Response(200, headers={"Content-Encoding": f"x-{TOKEN}"}, stream=stream))
    assert "packed ('x-[token]')" in error.sentence


async def test_a_config_var_that_is_called_like_the_token() -> None:
    async with fake_heroku({"GET /apps/shop/config-vars": {f"{'X' * 50}{TOKEN}": 5}}) as heroku:
        with pytest.raises(HerokuError, match=r"X\[token\]") as caught:
            await heroku.platform.config_vars("shop")
    assert TOKEN[:5] not in str(caught.value)


@pytest.mark.parametrize("form", AuthForm)
def test_no_form_of_the_token_is_shown_in_any_case(form: AuthForm) -> None:
    token = Token(TOKEN, "x")
    value = form.header(token).partition(" ")[2]
    assert clean(f"a {value.upper()} b {value.lower()}", token) == "a [token] b [token]"


def test_a_long_text_that_is_no_time_takes_none() -> None:
    began = time.process_time()
    assert parse_time("T" * 1_000_000 + " x y") is None
    assert time.process_time() - began < 10  # it took hours


def program(folder: Path, name: str) -> None:
    path = folder / name
    path.write_text("#!/bin/sh\necho planted\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("path", [".", "", f"{os.pathsep}/nowhere", "bin", f"/nowhere{os.pathsep}./bin"])
def test_a_program_of_the_current_folder_is_never_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "bin").mkdir()
    program(tmp_path, "heroku")
    program(tmp_path / "bin", "heroku")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProgramFailed, match=r"^not installed$"):
        run_program(["heroku", "auth:token"], {"PATH": path}, 30)


def test_a_login_that_is_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "login.json")
    environ = {"HEROKU_DATA_DIR": str(tmp_path)}
    found = ask_store(environ, home=tmp_path, platform="linux", run=lambda *_: pytest.fail("asked"))
    assert "names no account" in found.why


def test_a_netrc_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / ".netrc").open("wb") as file:
        file.truncate(1 << 32)
    found = netrc_password(tmp_path, platform="linux", emit=silent)
    assert (found.secret, found.why) == (None, "larger than 1024 KiB")


async def test_ids_from_the_api_stay_one_segment() -> None:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return httpx.Response(202, content=json.dumps({"id": "x", "status": "disabling"}))

    async with fake_heroku(answer) as heroku:
        await heroku.data.delete_certificate("pg", "../ip-rules/7")
        with pytest.raises(HerokuError):
            await heroku.data.delete_certificate("pg", "..")
    assert asked == [b"/postgres/v0/databases/pg/tls-endpoint/certificates/..%2Fip-rules%2F7"]


@pytest.mark.parametrize("host", ["a..heroku.com", ".heroku.com", f"{'a' * 64}.heroku.com", f"{'a.' * 130}heroku.com"])
def test_a_host_that_no_resolver_takes_is_refused_at_once(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from({"HEROKU_API_KEY": TOKEN, "HEROKU_DATA_HOST": host}, HerokuConfig())
    assert caught.value.code is Code.API_HOST
