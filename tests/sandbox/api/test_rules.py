"""IP rules: what is taken, when it acts, and what the gateway is told."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from mtlskit.heroku.values import MOST_RULES
from tests.support.sandbox_api import ADDON, KAFKA, RunningApi

BASES = [f"/postgres/v0/databases/{ADDON}/tls-endpoint/ip-rules", f"/data/kafka/v0/clusters/{KAFKA}/ip-rules"]


async def _add(api: RunningApi, cidr: object, base: str = BASES[0]) -> tuple[int, dict[str, Any]]:
    answer = await api.client.post(base, json={"cidr": cidr, "description": "a test's"})
    return answer.status_code, answer.json()


@pytest.mark.parametrize("base", BASES)
async def test_a_rule_from_its_making_to_its_end(api: RunningApi, base: str) -> None:
    status, made = await _add(api, "127.0.0.77/32", base)
    assert (status, made["status"], made["description"]) == (201, "Authorizing", "a test's")
    one = f"{base}/{made['id']}"
    assert made.keys() == {"id", "cidr", "description", "status", "created_at", "updated_at"}
    api.clock.forward(599)
    assert (await api.client.get(one)).json()["status"] == "Authorizing"
    api.clock.forward(1)
    assert (await api.client.get(one)).json()["status"] == "Authorized"
    gone = await api.client.delete(one)
    assert (gone.status_code, gone.json()["id"]) == (202, made["id"])
    assert (await api.client.get(one)).status_code == 404
    assert (await api.client.delete(one)).status_code == 404
    assert [rule["cidr"] for rule in (await api.client.get(base)).json()] == ["127.0.0.1/32"]


async def test_the_gateway_is_told_as_the_rule_goes_along(api: RunningApi) -> None:
    assert api.state.admits("127.0.0.1").allowed
    assert "no IP rule" in api.state.admits("127.0.0.77").reason
    _, made = await _add(api, "127.0.0.64/27")
    assert "still Authorizing" in api.state.admits("127.0.0.77").reason
    api.clock.forward(600)
    assert api.state.admits("127.0.0.77").allowed
    assert not api.state.admits("127.0.0.96").allowed
    await api.client.delete(f"{BASES[0]}/{made['id']}")
    assert not api.state.admits("127.0.0.77").allowed


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    ("cidr", "part"),
    [
        ("127.0.0.1", "CIDR notation"),
        ("127.0.0.1/33", "CIDR notation"),
        ("127.0.0.1/", "CIDR notation"),
        ("300.0.0.1/32", "CIDR notation"),
        ("127.0.0.1/24", "bits set"),
        ("2001:db8::/32", "IPv6"),
        ("2001:db8::1/32", "IPv6"),
        ("/", "CIDR notation"),
        (None, "CIDR notation"),
        (7, "CIDR notation"),
        (["127.0.0.1/32"], "CIDR notation"),
    ],
)
async def test_what_is_no_ipv4_network_is_refused(api: RunningApi, base: str, cidr: object, part: str) -> None:
    status, answer = await _add(api, cidr, base)
    assert (status, answer["id"]) == (422, "invalid_params")
    assert part in answer["message"]


async def test_a_description_is_text_or_missing(api: RunningApi) -> None:
    assert (await api.client.post(BASES[0], json={"cidr": "127.0.0.8/32", "description": 7})).status_code == 422
    assert (await api.client.post(BASES[0], json={"cidr": "127.0.0.8/32"})).json()["description"] == ""


async def test_the_61st_rule_is_refused(api: RunningApi) -> None:
    for n in range(1, MOST_RULES):
        assert (await _add(api, f"10.0.{n}.0/24"))[0] == 201
    status, answer = await _add(api, "10.1.0.0/24")
    assert status == 422
    assert "60" in answer["message"]
    assert len((await api.client.get(BASES[0])).json()) == MOST_RULES


async def test_a_cidr_has_one_rule_unless_the_fault_is_on(api: RunningApi) -> None:
    assert (await _add(api, "127.0.0.1/32"))[0] == 422
    await api.client.post("/sandbox/faults", json={"name": "duplicates"})
    assert (await _add(api, "127.0.0.1/32"))[0] == 201


async def test_a_cidr_that_was_just_deleted_cannot_be_made_again_for_a_while(api: RunningApi) -> None:
    rule = (await api.client.get(BASES[0])).json()[0]
    await api.client.delete(f"{BASES[0]}/{rule['id']}")
    assert (await _add(api, rule["cidr"]))[0] == 500
    assert (await api.client.get(BASES[0])).json() == []
    api.clock.forward(119)
    assert (await _add(api, rule["cidr"]))[0] == 500
    api.clock.forward(1)
    assert (await _add(api, rule["cidr"]))[0] == 201


async def test_changes_at_the_same_moment_are_all_kept(api: RunningApi) -> None:
    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(_add, api, f"10.0.{n}.0/24")
            nursery.start_soon(_add, api, f"10.1.{n}.0/24", BASES[1])
    for base in BASES:
        assert len((await api.client.get(base)).json()) == 21


async def test_slow_rules_do_not_come(api: RunningApi) -> None:
    await api.client.post("/sandbox/faults", json={"name": "slow-rules", "value": "5000"})
    _, made = await _add(api, "127.0.0.77/32")
    api.clock.forward(4999)
    assert (await api.client.get(f"{BASES[0]}/{made['id']}")).json()["status"] == "Authorizing"
    api.clock.forward(1)
    assert api.state.admits("127.0.0.77").allowed
