"""Add-ons, config vars, logins, clusters and the space."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mtlskit.sandbox.api.options import ApiOptions
from tests.support.sandbox_api import ADDON, COMMON, KAFKA, FakeHooks, RunningApi, running_api

DATABASE = f"/postgres/v0/databases/{ADDON}"
CLUSTER = f"/data/kafka/v0/clusters/{KAFKA}"


async def test_addons_come_in_pages(tmp_path: Path) -> None:
    async with running_api(tmp_path, options=ApiOptions(addons=4)) as api:
        found, header, pages = [], "id ..; max=4", 0
        while header:
            answer = await api.client.get("/addons", headers={"Range": header})
            found += [addon["id"] for addon in answer.json()]
            header, pages = answer.headers.get("next-range", ""), pages + 1
            assert answer.status_code == (206 if header else 200)
        assert found == sorted(addon.id for addon in api.state.world.addons)
        assert pages == 2


@pytest.mark.parametrize(
    ("header", "status"), [("", 416), ("name ..", 416), ("id; max=0", 206), ("id; max=9999", 200), ("id zz..", 416)]
)
async def test_a_range(api: RunningApi, header: str, status: int) -> None:
    assert (await api.client.get("/addons", headers={"Range": header})).status_code == status


async def test_an_addon_and_its_attachment(api: RunningApi) -> None:
    found = (await api.client.get(f"/addons/{ADDON}")).json()
    assert found["addon_service"]["name"] == "heroku-postgresql"
    assert found["plan"]["name"] == "heroku-postgresql:private-0"
    assert found["app"]["name"] == "sandbox"
    assert found["config_vars"] == ["DATABASE_URL"]
    attachments = (await api.client.get(f"/addons/{found['id']}/addon-attachments")).json()
    assert [(each["app"]["name"], each["name"]) for each in attachments] == [("sandbox", "DATABASE")]
    assert (await api.client.get(f"/addons/{COMMON}")).json()["plan"]["name"] == "heroku-postgresql:standard-0"
    assert (await api.client.get("/addons/nothing")).status_code == 404


async def test_config_vars_are_those_that_the_addons_name(api: RunningApi) -> None:
    found = (await api.client.get("/apps/sandbox/config-vars")).json()
    named: set[str] = set()
    for name in (ADDON, KAFKA, COMMON):
        named |= set((await api.client.get(f"/addons/{name}")).json()["config_vars"])
    assert found.keys() == named
    url = urlsplit(found["DATABASE_URL"])
    assert (url.scheme, url.username, url.password, url.hostname, url.port) == (
        *("postgres", "ann", "secret", "127.0.0.1"),
        5432,
    )
    assert found["KAFKA_URL"].startswith("kafka+ssl://")
    assert found["KAFKA_TRUSTED_CERT"] == api.hooks.authorities()
    assert (await api.client.get("/apps/another/config-vars")).status_code == 404


async def test_kafka_credentials_change_in_the_config_vars(api: RunningApi) -> None:
    before = (await api.client.get("/apps/sandbox/config-vars")).json()
    old = api.state.addon(KAFKA).kafka_serial
    answer = await api.client.post(f"{CLUSTER}/rotate-credentials")
    assert (answer.status_code, answer.json().keys()) == (200, {"message"})
    after = (await api.client.get("/apps/sandbox/config-vars")).json()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"KAFKA_CLIENT_CERT", "KAFKA_CLIENT_CERT_KEY"}
    assert api.hooks.revoked == [old]


async def test_a_cluster(api: RunningApi) -> None:
    found = (await api.client.get(CLUSTER)).json()
    assert found["name"] == KAFKA
    assert found["state"].keys() == {
        *("message", "status", "healthy?", "waiting?", "degraded_brokers", "degraded_topics")
    }
    by_id = (await api.client.get(f"/data/kafka/v0/clusters/{found['id']}/wait_status")).json()
    assert by_id["waiting?"] is False
    assert (await api.client.get(f"/data/kafka/v0/clusters/{ADDON}")).status_code == 404


async def test_a_login_and_its_rotation(api: RunningApi) -> None:
    one = (await api.client.get(f"{DATABASE}/credentials/default")).json()
    assert one.keys() == {"uuid", "name", "state", "database", "host", "port", "credentials"}
    assert one["credentials"] == [{"user": "ann", "password": "secret", "state": "active"}]
    assert (await api.client.get(f"{DATABASE}/credentials")).json() == [one]
    assert (await api.client.get(f"{DATABASE}/credentials/other")).status_code == 404
    for path in ("credentials/default/credentials_rotation", "credentials_rotation"):
        assert (await api.client.post(f"{DATABASE}/{path}")).json().keys() == {"message"}
    assert (await api.client.get(f"{DATABASE}/credentials/default")).json()["credentials"][0]["password"] == "secretxx"
    assert (await api.client.post(f"{DATABASE}/credentials/other/credentials_rotation")).status_code == 404


async def test_a_password_of_somebody_elses_is_not_changed(tmp_path: Path) -> None:
    async with running_api(tmp_path, hooks=FakeHooks(password=None)) as api:
        answer = await api.client.post(f"{DATABASE}/credentials/default/credentials_rotation")
        assert answer.status_code == 422
        assert "cannot be changed" in answer.json()["message"]


@pytest.mark.parametrize("base", [DATABASE, f"/client/v11/databases/{ADDON}", CLUSTER])
async def test_nobody_waits_for_long(api: RunningApi, base: str) -> None:
    assert (await api.client.get(f"{base}/wait_status")).json()["waiting?"] is False
    assert (await api.client.get(f"{base}x/wait_status")).status_code == 404


async def test_a_database_says_whether_it_has_mtls(api: RunningApi) -> None:
    async def row(name: str) -> list[list[str]]:
        found = (await api.client.get(f"/client/v11/databases/{name}")).json()
        return [each["values"] for each in found["info"] if each["name"] == "Mutual TLS"]

    assert await row(ADDON) == [["Enabled"]]
    assert await row(COMMON) == []
    await api.client.delete(api.endpoint())
    assert await row(ADDON) == [["Deprovisioning"]]
    api.clock.forward(60)
    assert await row(ADDON) == [["Disabled"]]


async def test_the_space(api: RunningApi) -> None:
    assert (await api.client.get("/spaces/sandbox")).json()["state"] == "allocated"
    nat = (await api.client.get("/spaces/sandbox/nat")).json()
    assert nat["state"] == "enabled"
    assert all(source.startswith("127.0.0.") for source in nat["sources"])
    for path in ("", "/nat", "/inbound-ruleset"):
        assert (await api.client.get(f"/spaces/another{path}")).status_code == 404


async def test_trusted_ranges_are_replaced_as_a_whole(api: RunningApi) -> None:
    path = "/spaces/sandbox/inbound-ruleset"
    before = (await api.client.get(path)).json()
    rules = [{"action": "allow", "source": f"10.0.{n}.0/24"} for n in range(20)]
    assert (await api.client.put(path, json={"rules": rules})).json()["rules"] == rules
    after = (await api.client.get(path)).json()
    assert after["rules"] == rules
    assert after["id"] != before["id"]
    wrong: list[object] = [None, {}, [*rules, rules[0]], [{"action": "allow"}], ["10.0.0.0/8"]]
    for bad in [*wrong, [{"action": "x", "source": "y"}]]:
        assert (await api.client.put(path, json={"rules": bad})).status_code == 422
    assert (await api.client.get(path)).json()["rules"] == rules
