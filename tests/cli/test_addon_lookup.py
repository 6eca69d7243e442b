"""Who asks Heroku for a proxy's tunnels: nobody where no tunnel names an add-on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mtlskit.cli.addon_lookup import heroku_lookup, lookup_for
from mtlskit.config.values import (
    Endpoint,
    HerokuConfig,
    IdentityConfig,
    ProxyConfig,
    TcpAddress,
    TunnelConfig,
    TunnelKind,
)
from mtlskit.errors import Code, ConfigError
from tests.support.far_heroku import KAFKA, POSTGRES, far_heroku

HERE = Endpoint("db.invalid", 5432)
NOBODY = "https://api.nobody.invalid"


def tunnel(addon: str | None) -> TunnelConfig:
    identity = IdentityConfig("reporting", Path("c.pem"), Path("c.key"))
    upstream = () if addon else (HERE,)
    return TunnelConfig("sales", TunnelKind.POSTGRES, TcpAddress("127.0.0.1", 0), upstream, identity, addon=addon)


def test_nobody_is_asked_without_addons() -> None:
    assert lookup_for(ProxyConfig((tunnel(None),))) is None
    assert lookup_for(ProxyConfig((tunnel(None), tunnel("postgresql-curved-12345")))) is not None


def test_and_the_http_library_is_not_loaded() -> None:
    script = (
        "import sys; import mtlskit.cli.proxy, mtlskit.proxy.run, mtlskit.cli.addon_lookup;"
        " print([name for name in ('httpx', 'mtlskit.heroku.client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_what_is_written_is_not_asked_for() -> None:
    assert await heroku_lookup(HerokuConfig()).endpoints(tunnel(None)) == (HERE,)


async def test_a_host_that_must_not_see_a_token_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEROKU_API_KEY", "token-of-the-test")
    with pytest.raises(ConfigError) as caught:
        await heroku_lookup(HerokuConfig(data_host=NOBODY)).endpoints(tunnel("postgresql-curved-12345"))
    assert caught.value.code is Code.API_HOST


async def test_it_asks_whom_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with far_heroku(tmp_path) as far:
        for name, value in far.environment.items():
            monkeypatch.setenv(name, value)
        lookup = heroku_lookup(HerokuConfig())
        assert await lookup.endpoints(tunnel(POSTGRES)) == (Endpoint("127.0.0.1", 5432),)
        events = replace(tunnel(KAFKA), kind=TunnelKind.KAFKA)
        assert await lookup.endpoints(events) == (await lookup.kafka(KAFKA)).endpoints
