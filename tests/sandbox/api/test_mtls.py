"""The endpoint and the certificates, from one due time to the next."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from mtlskit.pki.keys import load_private_key
from tests.support.sandbox_api import ADDON, COMMON, KAFKA, FakeHooks, RunningApi, running_api


async def _status(api: RunningApi) -> int | str:
    answer = await api.client.get(api.endpoint())
    found: str = answer.json().get("status", "")
    return found if answer.status_code == 200 else answer.status_code


async def test_an_endpoint_goes_and_comes_in_its_time(api: RunningApi) -> None:
    assert await _status(api) == "Operational"
    gone = await api.client.delete(api.endpoint())
    assert (gone.status_code, gone.json()["status"]) == (202, "Deprovisioning")
    api.clock.forward(59)
    assert await _status(api) == "Deprovisioning"
    assert (await api.client.post(api.endpoint())).status_code == 409
    api.clock.forward(1)
    assert await _status(api) == 404
    assert (await api.client.get(f"{api.endpoint()}/certificates")).status_code == 404
    assert (await api.client.delete(api.endpoint())).status_code == 404

    made = await api.client.post(api.endpoint())
    assert (made.status_code, made.json()["status"]) == (201, "Provisioning")
    assert made.json().keys() >= {"app", "addon", "status", "enabled_by", "active_ip_rules"}
    assert [await _status(api) for _ in range(6)] == ["Provisioning", "Provisioning", 500] * 2
    api.clock.forward(300)
    assert [await _status(api) for _ in range(4)] == ["Operational"] * 4
    assert (await api.client.post(api.endpoint())).status_code == 409


async def test_an_endpoint_that_is_gone_before_the_answer_is_made_has_a_status_all_the_same(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A space that is sped up much revokes for longer than it takes the endpoint to go."""
    monkeypatch.setattr(api.hooks, "revoke", lambda serial: api.clock.forward(61))
    gone = await api.client.delete(api.endpoint())
    assert (gone.status_code, gone.json()["status"]) == (202, "Deprovisioning")
    assert await _status(api) == 404


async def test_taking_the_endpoint_down_ends_its_certificates_and_forgets_its_rules(api: RunningApi) -> None:
    before = (await api.client.get(f"{api.endpoint()}/certificates")).json()
    await api.client.delete(api.endpoint())
    await api.client.delete(api.endpoint())
    assert api.hooks.revoked == [api.hooks.issued[0]]
    api.clock.forward(60)
    await api.client.post(api.endpoint())
    after = (await api.client.get(f"{api.endpoint()}/certificates")).json()
    assert [(each["id"] == before[0]["id"], each["status"]) for each in after] == [
        (True, "disabled"),
        (False, "pending"),
    ]
    assert (await api.client.get(f"{api.endpoint()}/ip-rules")).json() == []


@pytest.mark.parametrize("what", ["certificates", "ip-rules"])
async def test_nothing_is_made_before_the_endpoint_is_operational(api: RunningApi, what: str) -> None:
    await api.client.delete(api.endpoint())
    api.clock.forward(60)
    await api.client.post(api.endpoint())
    answer = await api.client.post(f"{api.endpoint()}/{what}", json={"cidr": "127.0.0.2/32", "description": ""})
    assert answer.status_code == 422
    assert "Provisioning" in answer.json()["message"]


async def test_a_certificate_from_its_making_to_its_end(api: RunningApi) -> None:
    base = f"{api.endpoint()}/certificates"
    made = await api.client.post(base, json={})
    id = made.json()["id"]  # noqa: A001 - the API's word
    assert (made.status_code, made.json()["status"], made.json()["private_key"]) == (201, "pending", None)
    api.clock.forward(119)
    assert (await api.client.get(f"{base}/{id}")).json()["certificate_with_chain"] is None
    api.clock.forward(1)
    ready = (await api.client.get(f"{base}/{id}")).json()
    assert ready["status"] == "ready"
    key = load_private_key(ready["private_key"].encode(), source="the answer")
    leaf = x509.load_pem_x509_certificates(ready["certificate_with_chain"].encode())[0]
    assert leaf.public_key() == key.public_key()
    assert f"{leaf.serial_number:x}" == api.hooks.issued[-1]

    ended = await api.client.delete(f"{base}/{id}")
    assert (ended.status_code, ended.json()["status"]) == (202, "disabling")
    assert api.hooks.revoked == [api.hooks.issued[-1]]
    assert (await api.client.delete(f"{base}/{id}")).status_code == 202
    assert len(api.hooks.revoked) == 1
    assert (await api.client.get(f"{base}/{id}")).json()["private_key"] is None
    api.clock.forward(60)
    assert (await api.client.get(f"{base}/{id}")).status_code == 404
    assert (await api.client.delete(f"{base}/{id}")).status_code == 404
    listed = (await api.client.get(base)).json()
    assert [each["status"] for each in listed] == ["ready", "disabled"]
    assert all(each.keys() == {"id", "name", "created_at", "updated_at", "expires_at", "status"} for each in listed)


def _files(folder: Path) -> tuple[dict[str, set[int]], str]:
    """The modes of all files by suffix, and the state's text."""
    modes: dict[str, set[int]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            modes.setdefault(path.suffix, set()).add(stat.S_IMODE(path.stat().st_mode))
    return modes, (folder / "api.json").read_text()


async def test_keys_are_for_their_owner_and_not_in_the_state(api: RunningApi, tmp_path: Path) -> None:
    await api.client.post(f"{api.endpoint()}/certificates")
    modes, state = _files(tmp_path)
    assert modes == {".json": {0o600}, ".key": {0o600}, ".crt": {0o600}}
    assert "PRIVATE KEY" not in state


async def test_every_second_answer_has_the_other_form_of_times(api: RunningApi) -> None:
    found = [(await api.client.get(f"{api.endpoint()}/ip-rules")).json()[0]["created_at"] for _ in range(4)]
    assert found == ["2026-03-01T12:00:00Z", "2026-03-01 12:00:00 +0000"] * 2


async def test_a_plan_without_mtls_says_so(api: RunningApi) -> None:
    assert (await api.client.get(api.endpoint(COMMON))).status_code == 404
    for path in ("", "/certificates", "/ip-rules"):
        answer = await api.client.post(f"{api.endpoint(COMMON)}{path}", json={"cidr": "127.0.0.1/32"})
        assert answer.status_code == 422
        assert "Private and Shield plans only" in answer.json()["message"]


async def test_an_addon_has_an_id_too_and_kafka_has_no_endpoint(api: RunningApi) -> None:
    assert (await api.client.get(api.endpoint(api.state.first.id))).json()["addon"] == ADDON
    for name in ("nothing", KAFKA):
        answer = await api.client.get(api.endpoint(name))
        assert (answer.status_code, answer.json()["id"]) == (404, "not_found")


async def test_a_second_start_makes_no_second_certificate(tmp_path: Path) -> None:
    hooks = FakeHooks()
    async with running_api(tmp_path, hooks=hooks) as api:
        before = (await api.client.get(f"{api.endpoint()}/certificates")).json()
    issued = list(hooks.issued)
    async with running_api(tmp_path, hooks=hooks) as api:
        await api.client.get("/addons")
        assert [each["id"] for each in (await api.client.get(f"{api.endpoint()}/certificates")).json()] == [
            each["id"] for each in before
        ]
    assert hooks.issued == issued
