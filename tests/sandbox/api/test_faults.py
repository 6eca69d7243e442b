"""Faults: how they are written, which calls they hit, and what the client meets."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from mtlskit.sandbox.api.faults import FAULTS, Fault, Faults, parse_fault
from tests.support.sandbox_api import RunningApi


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("html", Fault("html")),
        ("html=503", Fault("html", "503")),
        ("429=7,times=3", Fault("429", "7", times=3)),
        ("lose-after,match=/ip-rules,method=post,skip=2,times=1", Fault("lose-after", "", "/ip-rules", "POST", 1, 2)),
        ("echo-disagree=127.0.0.5", Fault("echo-disagree", "127.0.0.5")),
        ("two-factor=123456,match=a=b", Fault("two-factor", "123456", "a=b")),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        *("", "nonsense", "=", "html=abc", "html=99", "html=600", "429=-1", "429=1234567", "500,times=x", "500,x=y"),
        *("500,times", "500,", "slow-rules=1.5", "echo-disagree=nowhere", "two-factor=abc", "500,times=-1"),
    ],
)
def test_what_is_no_fault_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        parse_fault(text)


def test_which_calls_are_hit() -> None:
    faults = Faults()
    faults.add(parse_fault("500,match=/ip-rules,method=POST,skip=1,times=2"))
    faults.add(parse_fault("503,match=/ip-rules"))
    calls = [("GET", "/a"), ("GET", "/ip-rules"), *[("POST", "/x/ip-rules/y")] * 4]
    hits = [hit.name if (hit := faults.of_call(*call)) else None for call in calls]
    assert hits == [None, "503", "503", "500", "500", "503"]
    assert [fault.name for fault in faults.on()] == ["503"]
    faults.clear("503")
    assert faults.of_call("GET", "/ip-rules") is None


async def _switch_on(api: RunningApi, name: str, **details: Any) -> None:
    answer = await api.client.post("/sandbox/faults", json={"name": name, **details})
    assert answer.status_code == 201


async def _try_rule(api: RunningApi) -> httpx.Response:
    return await api.client.post(f"{api.endpoint()}/ip-rules", json={"cidr": "127.0.0.9/32", "description": ""})


def _rules(api: RunningApi) -> int:
    return len(api.state.first.rules)


@pytest.mark.parametrize("name", [name for name in FAULTS if name.isdecimal()])
async def test_a_status_is_answered_and_nothing_is_done(api: RunningApi, name: str) -> None:
    await _switch_on(api, name, times=1)
    answer = await _try_rule(api)
    assert (answer.status_code, answer.json().keys()) == (int(name), {"id", "message"})
    assert answer.headers.get("retry-after") == ("1" if name == "429" else None)
    assert _rules(api) == 1
    assert (await _try_rule(api)).status_code == 201


async def test_html_instead_of_json(api: RunningApi) -> None:
    await _switch_on(api, "html", value=502, match="/ip-rules")
    answer = await _try_rule(api)
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert answer.text.startswith("<!DOCTYPE html>")
    assert _rules(api) == 1


async def test_truncated_json_is_an_answer_of_which_half_is_missing(api: RunningApi) -> None:
    await _switch_on(api, "truncated")
    answer = await _try_rule(api)
    assert answer.status_code == 201
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert _rules(api) == 2


async def test_a_500_that_lies(api: RunningApi) -> None:
    await _switch_on(api, "500-after", match="/ip-rules")
    assert (await _try_rule(api)).status_code == 500
    assert _rules(api) == 2


@pytest.mark.parametrize(("name", "rules"), [("lose-before", 1), ("lose-after", 2), ("cut", 2)])
async def test_a_lost_connection(api: RunningApi, name: str, rules: int) -> None:
    await _switch_on(api, name, times=1, match="/ip-rules")
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await _try_rule(api)
    assert _rules(api) == rules
    assert (await api.client.get("/addons")).status_code == 206


@pytest.mark.parametrize(("name", "rules"), [("hang", 1), ("hang-after", 2)])
async def test_no_answer(api: RunningApi, name: str, rules: int) -> None:
    await _switch_on(api, name, times=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_try_rule, api)
        while not (api.state.faults.acted(name) and _rules(api) == rules):
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert (await api.client.get("/echo/a")).text == "127.0.0.1"
        nursery.cancel_scope.cancel()
    assert _rules(api) == rules


async def test_a_second_factor_is_asked_for(api: RunningApi) -> None:
    await _switch_on(api, "two-factor", value="123456")
    answer = await _try_rule(api)
    assert (answer.status_code, answer.json()["id"]) == (403, "two_factor")
    for code, status in (("654321", 403), ("123456", 206)):
        answer = await api.client.get("/addons", headers={"Heroku-Two-Factor-Code": code})
        assert answer.status_code == status
    assert (await api.client.get("/echo/a")).status_code == 200


async def test_an_expired_token(api: RunningApi) -> None:
    await _switch_on(api, "expired-token")
    assert (await api.client.get("/addons")).json()["id"] == "unauthorized"
    assert (await api.client.delete("/sandbox/faults/expired-token")).json() == []
    assert (await api.client.get("/addons")).status_code == 206


async def test_echo_services_that_disagree(api: RunningApi) -> None:
    await _switch_on(api, "echo-disagree")
    assert (await api.client.get("/echo/a")).text == "127.0.0.1"
    assert (await api.client.get("/echo/b")).json() == {"ip": "127.0.0.99"}


async def test_the_gateway_is_told_to_reset(api: RunningApi) -> None:
    assert not api.state.admits("127.0.0.9").reset
    await _switch_on(api, "reset")
    assert api.state.admits("127.0.0.9").reset
    assert api.state.admits("127.0.0.1").allowed


@pytest.mark.parametrize(
    "body",
    [{}, {"name": "nonsense"}, {"name": None}, {"name": "500", "more": 1}, {"name": "500", "times": "x"}, {"name": []}],
)
async def test_a_fault_that_cannot_be_is_refused(api: RunningApi, body: dict[str, Any]) -> None:
    answer = await api.client.post("/sandbox/faults", json=body)
    assert (answer.status_code, answer.json()["id"]) == (422, "invalid_params")
    assert (await api.client.get("/sandbox/faults")).json() == []


async def test_faults_are_listed_and_switched_off(api: RunningApi) -> None:
    await _switch_on(api, "500", times=1)
    await _switch_on(api, "hang", match="/x")
    listed = (await api.client.get("/sandbox/faults")).json()
    assert [(fault["name"], fault["times"]) for fault in listed] == [("500", 1), ("hang", None)]
    assert (await api.client.delete("/sandbox/faults/nonsense")).status_code == 404
    assert (await api.client.delete("/sandbox/faults")).json() == []


async def test_a_move_through_the_api(api: RunningApi) -> None:
    moved = await api.client.post("/sandbox/move", json={"from": "127.0.0.1", "to": "127.0.0.77"})
    assert moved.json() == {"127.0.0.1": "127.0.0.77"}
    assert (await api.client.get("/echo/c")).text == "127.0.0.77\n"
    assert not api.state.admits("127.0.0.1").allowed
    assert (await api.client.post("/sandbox/move", json={"from": "127.0.0.1"})).status_code == 422
    assert (await api.client.delete("/sandbox/move")).json() == {}
    assert (await api.client.get("/echo/a")).text == "127.0.0.1"
