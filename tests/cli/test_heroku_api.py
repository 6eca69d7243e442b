"""The composition of the commands that talk to Heroku."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio

from mtlskit.cli.heroku_api import _ask_for_code, addons_of, each_addon, run_with_heroku, second_factor, unwrapped
from mtlskit.config.values import AllowlistConfig, IdentityConfig, IssuerConfig, IssuerKind, ProxyConfig
from mtlskit.errors import Code, ConfigError, HerokuError
from mtlskit.heroku.client import Heroku
from mtlskit.heroku.settings import Settings
from mtlskit.heroku.token import Token

SETTINGS = Settings("http://127.0.0.1:9", "http://127.0.0.1:9", Token("x", "a test"))
REFUSED = HerokuError(Code.API_REFUSED, "no")


def identity(name: str, kind: IssuerKind, addon: str | None) -> IdentityConfig:
    return IdentityConfig(name, Path("c"), Path("k"), issuer=IssuerConfig(kind, addon=addon))


CONFIG = ProxyConfig(
    (),
    Path("mtlskit.toml"),
    identities=(
        identity("a", IssuerKind.HEROKU, "pg-1"),
        identity("b", IssuerKind.FILES, None),
        identity("c", IssuerKind.HEROKU, "pg-2"),
    ),
    allowlists=(AllowlistConfig("office", ("pg-2", "kafka-1")),),
)


def test_names_on_the_command_line_come_before_the_file() -> None:
    assert addons_of(CONFIG, ["x", "y"], ["x", "z"]) == ("x", "y", "z")
    assert addons_of(CONFIG) == ("pg-1", "pg-2", "kafka-1")


@pytest.mark.parametrize("config", [None, ProxyConfig((), Path("mtlskit.toml"))])
def test_no_add_on_at_all(config: ProxyConfig | None) -> None:
    with pytest.raises(ConfigError, match="no add-on is named") as caught:
        addons_of(config, [], None)
    assert caught.value.code is Code.USAGE


def test_the_result_of_the_work() -> None:
    async def work(heroku: Heroku) -> str:
        return type(heroku).__name__

    assert run_with_heroku(None, work, settings=SETTINGS) == "Heroku"


def test_an_error_that_is_alone_is_raised_alone() -> None:
    async def work(heroku: Heroku) -> None:
        async with trio.open_nursery() as outer, trio.open_nursery():
            outer.start_soon(trio.sleep_forever)
            raise REFUSED

    with pytest.raises(HerokuError) as caught:
        run_with_heroku(None, work, settings=SETTINGS)
    assert caught.value is REFUSED


def test_several_errors_stay_together() -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def work(heroku: Heroku) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, REFUSED)
            nursery.start_soon(fail, HerokuError(Code.API_BUSY, "later"))

    with pytest.RaisesGroup(HerokuError, HerokuError):
        run_with_heroku(None, work, settings=SETTINGS)


def test_the_first_error_of_ours() -> None:
    assert unwrapped(ExceptionGroup("", [ValueError(), ExceptionGroup("", [REFUSED])])) is REFUSED
    assert unwrapped(ValueError()) is None


async def test_one_add_on_does_not_stop_the_others() -> None:
    there = trio.Event()

    async def work(addon: str) -> str:
        if addon == "a":
            await there.wait()
        elif addon == "b":
            there.set()
            raise ExceptionGroup("", [REFUSED])
        return addon.upper()

    assert await each_addon(["a", "b", "c"], work) == ({"a": "A", "c": "C"}, {"b": REFUSED})


async def test_a_fault_of_ours_is_not_swallowed() -> None:
    async def work(addon: str) -> str:
        raise ValueError(addon)

    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        await each_addon(["a"], work)


async def test_the_second_factor_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.write(writer, b" 123456 \n")
    os.close(writer)
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert second_factor() is None  # no terminal
        assert await _ask_for_code() == "123456"
        assert await _ask_for_code() is None
    assert capsys.readouterr().err == "Two-factor code: Two-factor code: "
