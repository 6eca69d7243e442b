"""Where Heroku's APIs are, and the token for them: from the configuration, the environment, and the CLI's login."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import httpx

from mtlskit.config.values import HerokuConfig
from mtlskit.errors import Code, ConfigError
from mtlskit.heroku.hosts import is_loopback, token_belongs
from mtlskit.heroku.token import VARIABLE, Token, find_token, token_of_environment
from mtlskit.telemetry import Emit, silent

__all__ = ["Settings", "find_data_url", "settings_from"]

DATA_URL = "https://api.data.heroku.com"
PLATFORM_URL = "https://api.heroku.com"

_HINT = "write a host of heroku.com, or a URL such as https://api.heroku.com; http:// only for this machine"


@dataclass(frozen=True)
class Settings:
    """What a client needs. The URLs end without a slash, and lead to hosts that may see the token."""

    platform_url: str
    data_url: str
    token: Token


def settings_from(
    environ: Mapping[str, str],
    config: HerokuConfig,
    *,
    home: Path | None = None,
    platform: str = sys.platform,
    emit: Emit = silent,
) -> Settings:
    """The settings for this user. `home`: None for the user's own.

    Blocks while programs are asked for the token (at most half a minute): call it before trio runs, or in a thread.
    Raises `ConfigError`: API_HOST for a host that must not see a token, API_NO_TOKEN.
    """
    platform_url, data_url = _platform_url(environ, config), find_data_url(environ, config)
    local = [url for url in (platform_url, data_url) if is_loopback(httpx.URL(url))]
    if local:
        token = token_of_environment(environ)
        if token is None:
            raise ConfigError(
                Code.API_NO_TOKEN,
                f"{VARIABLE} is not set, and only its token is sent to {local[0]}: a login belongs to Heroku",
                f"set {VARIABLE}; for the sandbox, load the sandbox.env of its folder: `. DIR/sandbox.env`",
            )
    else:
        token = find_token(environ, home=home or Path.home(), platform=platform, emit=emit)
    return Settings(platform_url, data_url, token)


def _platform_url(environ: Mapping[str, str], config: HerokuConfig) -> str:
    if config.api_host:
        return _url(config.api_host, "api_host")
    host = environ.get("HEROKU_HOST")
    if not host:
        return PLATFORM_URL
    # As the Heroku CLI reads it: a URL, or the domain in which `api` is.
    return _url(host if "://" in host else f"api.{host}", "HEROKU_HOST")


def find_data_url(environ: Mapping[str, str], config: HerokuConfig) -> str:
    """Where the data API is. Raises `ConfigError` (API_HOST)."""
    if config.data_host:
        return _url(config.data_host, "data_host")
    for variable in ("HEROKU_DATA_HOST", "HEROKU_POSTGRESQL_HOST"):
        host = environ.get(variable)
        if host:
            return _url(host, variable)
    return DATA_URL


def _url(text: str, origin: str) -> str:
    """`text`, a host or a URL, as a URL without a path. Raises `ConfigError` (API_HOST)."""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        problem = _problem(parts)
        plain = f"{parts.scheme}://{parts.netloc}".lower()
        if not problem and not token_belongs(httpx.URL(plain)):
            problem = (
                f"{parts.scheme}://{parts.hostname} is no place for the token, which belongs to Heroku, over https"
            )
    except (ValueError, httpx.InvalidURL) as exc:
        raise ConfigError(Code.API_HOST, f"{origin}: not a host or a URL", _HINT) from exc
    if problem:
        raise ConfigError(Code.API_HOST, f"{origin}: {problem}", _HINT)
    return plain


def _problem(parts: SplitResult) -> str:
    """What is wrong with it, or nothing. Never shows a user or a password of the URL. Raises `ValueError`: the port."""
    host, port = parts.hostname or "", parts.port
    if not host or port == 0 or not host.isascii() or not host.isprintable() or " " in host:
        return "not a host or a URL"
    if parts.username is not None or parts.password is not None:
        return "a user or a password has no place in it"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "nothing may follow the host and the port"
    return ""
