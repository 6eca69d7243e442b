"""The client and the sandbox's API, over real sockets: every call, and every fault that the sandbox has for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.client import Heroku, Settings, TwoFactor, open_heroku
from mtlskit.heroku.token import Token
from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.faults import parse_fault
from tests.support.api_client import assert_tells_no_secret, patience
from tests.support.sandbox_api import ADDON, COMMON, KAFKA, TOKEN, RunningApi, running_api


@dataclass(frozen=True)
class Both:
    """A client, and the API that it asks."""

    heroku: Heroku
    api: RunningApi


@asynccontextmanager
async def both(folder: Path, *, two_factor: TwoFactor | None = None, attempt: float = 30.0) -> AsyncIterator[Both]:
    async with running_api(folder) as api:
        settings = Settings(api.url, api.url, Token(TOKEN, "HEROKU_API_KEY"))
        quick = patience(base=0.0, settle=0.0, attempt=attempt)
        async with open_heroku(settings, patience=quick, environ={}, two_factor=two_factor) as heroku:
            yield Both(heroku, api)


async def test_the_calls_of_a_database(tmp_path: Path) -> None:
    async with both(tmp_path) as pair:
        data = pair.heroku.data
        endpoint = await data.tls_endpoint(ADDON)
        assert endpoint is not None
        assert endpoint.operational
        assert endpoint.addon == ADDON
        made = await data.create_certificate(ADDON)
        assert not made.ready
        pair.api.clock.forward(3600)
        ready = await data.certificate(ADDON, made.id)
        assert ready is not None
        assert ready.private_key is not None
        assert ready.certificate_with_chain is not None
        await data.delete_certificate(ADDON, made.id)
        await data.delete_certificate(ADDON, made.id)
        pair.api.clock.forward(3600)
        assert await data.certificate(ADDON, made.id) is None
        assert made.id in {each.id for each in await data.certificates(ADDON)}
        before = await data.credential(ADDON)
        await data.rotate_credential(ADDON)
        after = await data.credential(ADDON)
        assert (before.user, before.password != after.password) == (after.user, True)
        assert "default" in {each.name for each in await data.credentials(ADDON)}
        assert not (await data.wait_status(ADDON, AddonKind.POSTGRES)).waiting


async def test_the_endpoint_goes_and_comes(tmp_path: Path) -> None:
    async with both(tmp_path) as pair:
        data = pair.heroku.data
        await data.disable_tls(ADDON)
        pair.api.clock.forward(3600)
        assert await data.tls_endpoint(ADDON) is None
        assert await data.disable_tls(ADDON) is None
        with pytest.raises(HerokuError) as caught:
            await data.certificates(ADDON)
        assert caught.value.code is Code.API_NOT_ENABLED
        made = await data.enable_tls(ADDON)
        assert not made.operational
        for _ in range(6):  # some of the GETs are answered 500 while it is provisioning
            assert await data.tls_endpoint(ADDON) is not None
        again = await data.enable_tls(ADDON)
        assert again.status == made.status


@pytest.mark.parametrize(("addon", "kind"), [(ADDON, AddonKind.POSTGRES), (KAFKA, AddonKind.KAFKA)])
async def test_the_calls_of_rules(addon: str, kind: AddonKind, tmp_path: Path) -> None:
    async with both(tmp_path) as pair:
        data = pair.heroku.data
        rule = await data.add_ip_rule(addon, kind, "203.0.113.7/32", "office")
        assert (rule.cidr, rule.description, rule.authorized) == ("203.0.113.7/32", "office", False)
        assert rule.created_at == rule.updated_at == pair.api.clock.now
        pair.api.clock.forward(3600)
        found = await data.ip_rule(addon, kind, rule.id)
        assert found is not None
        assert found.authorized
        assert (await data.add_ip_rule(addon, kind, "203.0.113.7/32", "office")).id == rule.id
        await data.delete_ip_rule(addon, kind, rule.id)
        await data.delete_ip_rule(addon, kind, rule.id)
        pair.api.clock.forward(3600)
        assert rule.id not in {each.id for each in await data.ip_rules(addon, kind)}
        assert (await data.add_ip_rule(addon, kind, "203.0.113.7/32", "office")).id != rule.id


async def test_the_calls_of_a_cluster_and_of_the_platform(tmp_path: Path) -> None:
    async with both(tmp_path) as pair:
        data, platform = pair.heroku.data, pair.heroku.platform
        assert (await data.kafka_cluster(KAFKA)).status
        assert await data.rotate_kafka_credentials(KAFKA)
        addons = {addon.name: addon for addon in await platform.addons()}
        assert {ADDON, KAFKA, COMMON} <= addons.keys()
        assert addons[KAFKA].kind is AddonKind.KAFKA
        assert await platform.addon(ADDON) == addons[ADDON]
        assert (await platform.attachments(ADDON))[0].app == addons[ADDON].app
        assert await platform.config_vars(addons[ADDON].app)


async def test_a_common_plan_and_a_wrong_name(tmp_path: Path) -> None:
    async with both(tmp_path) as pair:
        for ask in (pair.heroku.data.enable_tls, pair.heroku.data.tls_endpoint):
            with pytest.raises(HerokuError, match="only Private and Shield plans") as caught:
                await ask(COMMON)
            assert caught.value.code is Code.API_NO_MTLS
        with pytest.raises(HerokuError) as missing:
            await pair.heroku.data.tls_endpoint(ADDON.replace("sandbox", "sandbx"))
        assert missing.value.code is Code.API_NOT_FOUND
        assert ADDON in missing.value.hint


ONCE = [
    "html",
    "truncated",
    "cut",
    "hang",
    "hang-after",
    "lose-before",
    "lose-after",
    "429=0",
    "500",
    "502",
    "500-after",
]


@pytest.mark.parametrize("fault", ONCE)
async def test_a_rule_is_made_once_whatever_happens(fault: str, tmp_path: Path) -> None:
    async with both(tmp_path, attempt=2.0) as pair:
        pair.api.state.faults.add(parse_fault(f"{fault},times=1,method=POST"))
        pair.api.state.faults.add(parse_fault("duplicates"))
        await pair.heroku.data.add_ip_rule(ADDON, AddonKind.POSTGRES, "203.0.113.7/32", "office")
        rules = await pair.heroku.data.ip_rules(ADDON, AddonKind.POSTGRES)
    assert [rule.description for rule in rules if rule.cidr == "203.0.113.7/32"] == ["office"]


@pytest.mark.parametrize("fault", ["html=500", "truncated", "cut", "hang-after", "lose-before", "lose-after", "503"])
async def test_a_certificate_is_never_asked_for_twice(fault: str, tmp_path: Path) -> None:
    async with both(tmp_path, attempt=2.0) as pair:
        before = await pair.heroku.data.certificates(ADDON)
        pair.api.state.faults.add(parse_fault(f"{fault},times=1,method=POST"))
        with pytest.raises(HerokuError) as caught:
            await pair.heroku.data.create_certificate(ADDON)
        assert caught.value.code is Code.API_UNCERTAIN
        after = await pair.heroku.data.certificates(ADDON)
    assert len(after) - len(before) == (0 if fault in ("html=500", "lose-before", "503") else 1)
    assert_tells_no_secret(caught.value, TOKEN)


async def test_an_expired_token(tmp_path: Path) -> None:
    async with both(tmp_path) as pair:
        pair.api.state.faults.add(parse_fault("expired-token"))
        with pytest.raises(HerokuError, match="the token from HEROKU_API_KEY is refused") as caught:
            await pair.heroku.data.certificates(ADDON)
    assert caught.value.code is Code.API_TOKEN_REFUSED
    assert caught.value.request_id
    assert_tells_no_secret(caught.value, TOKEN)


async def test_a_second_factor(tmp_path: Path) -> None:
    async def person() -> str:
        return "123456"

    async with both(tmp_path, two_factor=person) as pair:
        pair.api.state.faults.add(parse_fault("two-factor"))
        assert await pair.heroku.data.certificates(ADDON)
