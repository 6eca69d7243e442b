"""An error about an add-on says who named it: which key of which file, or which flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlskit.cli.heroku_api import named_by
from mtlskit.config.flags import config_from_flags
from mtlskit.config.loading import parse_config
from mtlskit.errors import Code, ConfigError, HerokuError, MtlskitError, RotationError
from mtlskit.heroku.named_by import naming, told_who_named_it

SOURCE = Path("mtlskit.toml")
TEXT = """\
[identity.reporting]
issuer = "heroku"
addon  = "postgresql-acute-12345"
[tunnel.reporting]
kind     = "postgres"
listen   = "127.0.0.1:6432"
upstream = "heroku:postgresql-acute-12345"
identity = "reporting"
[allowlist.office]
addons = ["kafka-rigid-4711"]
my_ip  = true
"""
TUNNELS = "mtlskit.toml:7: tunnel.reporting.upstream"
IDENTITYS = "mtlskit.toml:3: identity.reporting.addon"
LISTS = "mtlskit.toml:10: allowlist.office.addons"


def test_every_key_that_names_an_add_on_is_known_with_its_line() -> None:
    config = parse_config(TEXT, source=SOURCE, environ={}, platform="linux")
    assert config.tunnels[0].addon_named_by == TUNNELS
    assert config.identities[0].issuer.addon_named_by == IDENTITYS
    assert config.allowlists[0].addons_named_by == LISTS
    places = named_by(config)
    assert places["postgresql-acute-12345"] == f"{IDENTITYS} and {TUNNELS}"
    assert places["kafka-rigid-4711"] == LISTS
    # Whoever names one on the command line does not mean the file.
    assert named_by(config, ["pg-1"], ["pg-2"]) == {"pg-1": "an argument", "pg-2": "--addon"}


def test_a_flag_is_named_as_a_flag() -> None:
    config = config_from_flags(
        listen="127.0.0.1:1", upstream=["heroku:pg-1"], cert="c.pem", key="k.pem", base=Path("/etc"), environ={}
    )
    (tunnel,) = config.tunnels
    assert (tunnel.addon, tunnel.addon_named_by) == ("pg-1", "--upstream")


@pytest.mark.parametrize("kind", [ConfigError, RotationError, HerokuError])
def test_the_error_stays_what_it_is(kind: type[MtlskitError]) -> None:
    before = kind(Code.API_NOT_FOUND, "add-on pg-1: not found", "look")
    told = told_who_named_it(before, TUNNELS)
    assert type(told) is kind
    assert (told.code, told.hint) == (before.code, before.hint)
    assert told.sentence == f"add-on pg-1: not found (the add-on is named by {TUNNELS})"


def test_what_heroku_said_of_the_request_is_kept() -> None:
    with pytest.raises(HerokuError, match="named by --addon") as caught, naming("--addon"):
        raise HerokuError(Code.API_FORBIDDEN, "no", "ask", status=403, request_id="7")
    assert (caught.value.status, caught.value.request_id) == (403, "7")


@pytest.mark.parametrize("code", [Code.API_UNREACHABLE, Code.API_NO_TOKEN, Code.API_BUSY])
def test_another_name_would_not_have_helped(code: Code) -> None:
    error = HerokuError(code, "no", "wait")
    assert told_who_named_it(error, TUNNELS) is error
    assert told_who_named_it(HerokuError(Code.API_NOT_FOUND, "no"), "").sentence == "no"
