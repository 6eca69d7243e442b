"""The values of the sandbox's flags."""

from __future__ import annotations

import pytest

from mtlskit.cli.sandbox_values import loopback_address
from mtlskit.errors import Code, ConfigError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_the_api_listens_on_this_machine(host: str) -> None:
    assert str(loopback_address("--api-listen", f"{host}:8080")) == f"{host}:8080"


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "[::ffff:127.0.0.1]"])
def test_the_api_listens_nowhere_else(host: str) -> None:
    with pytest.raises(ConfigError, match="listens on this machine only") as caught:
        loopback_address("--api-listen", f"{host}:8080")
    assert caught.value.code is Code.USAGE
    assert "--api-listen 127.0.0.1:8080" in caught.value.hint
