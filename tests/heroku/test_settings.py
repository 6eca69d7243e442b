"""Where the APIs are, and whose token they are sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlskit.config.values import HerokuConfig
from mtlskit.errors import Code, ConfigError
from mtlskit.heroku.settings import settings_from

KEY = {"HEROKU_API_KEY": "a-token"}


@pytest.mark.parametrize(
    ("variables", "config", "platform_url", "data_url"),
    [
        ({}, HerokuConfig(), "https://api.heroku.com", "https://api.data.heroku.com"),
        ({"HEROKU_HOST": "herokudev.com"}, HerokuConfig(), "https://api.herokudev.com", "https://api.data.heroku.com"),
        (
            {"HEROKU_HOST": "http://127.0.0.1:5001", "HEROKU_DATA_HOST": "http://127.0.0.1:5001/"},
            HerokuConfig(),
            "http://127.0.0.1:5001",
            "http://127.0.0.1:5001",
        ),
        (
            {"HEROKU_POSTGRESQL_HOST": "postgres-api.heroku.com"},
            HerokuConfig(),
            "https://api.heroku.com",
            "https://postgres-api.heroku.com",
        ),
        (
            {"HEROKU_DATA_HOST": "a.heroku.com", "HEROKU_POSTGRESQL_HOST": "b.heroku.com"},
            HerokuConfig(),
            "https://api.heroku.com",
            "https://a.heroku.com",
        ),
        (
            {"HEROKU_HOST": "x.herokai.com", "HEROKU_DATA_HOST": "y.herokai.com"},
            HerokuConfig("https://API.heroku.com", "http://[::1]:80"),
            "https://api.heroku.com",
            "http://[::1]:80",
        ),
        (
            {"HEROKU_HOST": "", "HEROKU_DATA_HOST": ""},
            HerokuConfig("", ""),
            "https://api.heroku.com",
            "https://api.data.heroku.com",
        ),
    ],
)
def test_the_hosts(variables: dict[str, str], config: HerokuConfig, platform_url: str, data_url: str) -> None:
    settings = settings_from(KEY | variables, config)
    assert (settings.platform_url, settings.data_url) == (platform_url, data_url)
    assert settings.token.value == "a-token"
    assert "a-token" not in repr(settings)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "https://heroku.com.example.com",
        "https://evilheroku.com",
        "http://api.heroku.com",
        "ftp://api.heroku.com",
        "http://127.0.0.1.example.com",
        "https://ann:secret-word@api.heroku.com",
        "https://api.heroku.com@example.com",
        "https://api.heroku.com/v1",
        "https://api.heroku.com?x=1",
        "https://api.heroku.com:99999",
        "https://api.heroku.com:0",
        "https://[::1",
        "https://",
        "api heroku.com",
        "https://ex\u0061mple\u3002heroku.com",
    ],
)
def test_a_host_that_must_not_see_the_token(host: str) -> None:
    for environ, config, origin in (
        ({"HEROKU_DATA_HOST": host}, HerokuConfig(), "HEROKU_DATA_HOST"),
        ({}, HerokuConfig(api_host=host), "api_host"),
    ):
        with pytest.raises(ConfigError) as caught:
            settings_from(KEY | environ, config)
        assert caught.value.code is Code.API_HOST
        assert caught.value.sentence.startswith(f"{origin}: ")
        assert "secret-word" not in caught.value.sentence


def test_a_login_is_not_sent_to_this_machine(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine api.heroku.com login ann password from-netrc\n")
    (tmp_path / ".netrc").chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        settings_from({"HEROKU_DATA_HOST": "http://localhost:1"}, HerokuConfig(), home=tmp_path, platform="linux")
    assert caught.value.code is Code.API_NO_TOKEN
    assert "sandbox.env" in caught.value.hint


def test_a_login_is_found_for_heroku(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine api.heroku.com login ann password from-netrc\n")
    (tmp_path / ".netrc").chmod(0o600)
    token = settings_from({"PATH": ""}, HerokuConfig(), home=tmp_path, platform="linux").token
    assert (token.value, token.source) == ("from-netrc", str(tmp_path / ".netrc"))
