"""Two that apply at the same moment: from two hosts, which cannot take turns, and from two processes, which do."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import trio

from mtlskit.allowlist.apply import apply
from mtlskit.allowlist.events import TurnAwaited
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Plan, Wanted, plan_addon
from mtlskit.allowlist.state import prepare_state
from mtlskit.allowlist.turns import lock_path, turn
from mtlskit.errors import Code, StoreError
from mtlskit.heroku.values import AddonKind
from mtlskit.store.lock import FileLock
from mtlskit.telemetry import Event
from tests.support.fake_rules import FakeRules, shuffled

OWNER = Owner("office", "0123abcd")
ROOT = Path(__file__).parents[2]


def wanted(*cidrs: str) -> list[Wanted]:
    return [Wanted(IPv4Network(cidr), "office") for cidr in cidrs]


def planned(api: FakeRules, rules: list[Wanted], owner: Owner = OWNER) -> Plan:
    one = plan_addon("db", AddonKind.POSTGRES, rules, api.at("db"), owner=owner, me=None, lock_me_out=True)
    return Plan((one,))


def staged(seed: int, *, duplicates: bool) -> FakeRules:
    api = FakeRules(takes=lambda cidr: 40.0, latency=shuffled(seed), duplicates=duplicates)
    api.put("db", "203.0.113.0/32", OWNER.tagged("office"))
    api.put("db", "198.51.100.1/32", OWNER.tagged("old"))
    api.put("db", "192.0.2.9/32", "somebody's")
    return api


async def both(api: FakeRules, one: list[Wanted], two: list[Wanted], owner_two: Owner = OWNER) -> list[Wanted]:
    """Two hosts that look, plan and apply, each at its own pace. What the one that ended last had wanted."""
    ended: list[list[Wanted]] = []

    async def host(rules: list[Wanted], owner: Owner) -> None:
        await api.ip_rules("db", AddonKind.POSTGRES)
        assert (await apply(api, planned(api, rules, owner), wait=600)).done
        ended.append(rules)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host, one, OWNER)
        nursery.start_soon(host, two, owner_two)
    assert len(ended) == 2
    return ended[-1]


@pytest.mark.parametrize("duplicates", [True, False])
@pytest.mark.parametrize("seed", range(60))
async def test_two_hosts_with_one_owner_and_one_file_lose_no_rule_and_leave_no_duplicate(
    autojump_clock: trio.testing.MockClock, seed: int, duplicates: bool
) -> None:
    api = staged(seed, duplicates=duplicates)
    rules = wanted("203.0.113.0", "203.0.113.1", "203.0.113.2")
    seen: list[set[str]] = []
    api.on_change = lambda state: seen.append({rule.cidr for rule in state.at("db") if rule.authorized})
    await both(api, rules, rules)
    assert api.cidrs("db") == ["192.0.2.9/32", "203.0.113.0/32", "203.0.113.1/32", "203.0.113.2/32"]
    assert all("203.0.113.0/32" in each for each in seen)  # what stays was never gone


@pytest.mark.parametrize("seed", range(40))
async def test_two_hosts_with_two_owners_lose_no_rule(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    api = staged(seed, duplicates=True)
    one, two = wanted("203.0.113.0", "203.0.113.1"), wanted("203.0.113.1", "203.0.113.2")
    await both(api, one, two, Owner("office", "ffff0000"))
    assert {"203.0.113.0/32", "203.0.113.1/32", "203.0.113.2/32"} <= set(api.cidrs("db"))


@pytest.mark.parametrize("seed", range(40))
async def test_two_hosts_with_one_owner_and_different_files_end_with_what_one_of_them_wants(
    autojump_clock: trio.testing.MockClock, seed: int
) -> None:
    """That is a mistake of theirs. It must end, and the one that looks last must not claim what is not so."""
    api = staged(seed, duplicates=True)
    one, two = wanted("203.0.113.0", "203.0.113.1"), wanted("203.0.113.0", "203.0.113.2")
    last = await both(api, one, two)
    assert {"192.0.2.9/32", *(str(rule.cidr) for rule in last)} <= set(api.cidrs("db"))


async def test_two_in_one_process_take_turns(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    api = staged(1, duplicates=False)
    rules = wanted("203.0.113.0", "203.0.113.1")
    inside: list[str] = []
    events: list[Event] = []

    async def run(name: str) -> None:
        async with turn(tmp_path, OWNER, wait=600, emit=events.append):
            inside.append(f"{name} in")
            assert (await apply(api, planned(api, rules), wait=600)).done
            inside.append(f"{name} out")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "a")
        nursery.start_soon(run, "b")
    first, second = inside[0][0], inside[2][0]
    assert inside == [f"{first} in", f"{first} out", f"{second} in", f"{second} out"]
    assert api.verbs().count("add") == 1
    (event,) = events
    assert isinstance(event, TurnAwaited)
    assert OWNER.tag in event.sentence()


async def test_a_turn_that_is_not_had_in_time_is_an_error(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    prepare_state(tmp_path)
    lock = FileLock(lock_path(tmp_path, OWNER))
    assert lock.acquire()
    try:
        with pytest.raises(StoreError) as caught:
            async with turn(tmp_path, OWNER, wait=5):
                raise AssertionError("two had it")
        assert caught.value.code is Code.STORE_BUSY
        async with turn(tmp_path, Owner("other", OWNER.id), wait=0):
            pass  # another owner's rules are no business of ours
    finally:
        lock.release()


def test_two_processes_take_turns_and_lose_no_rule(tmp_path: Path) -> None:
    """Both are given the same file of rules and want a range of their own beside a common one."""
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps([{"id": "r0", "cidr": "192.0.2.9/32", "description": "somebody's"}]))
    commands = [
        [sys.executable, "-m", "tests.support.apply_process", str(rules), str(tmp_path / "state")] for _ in range(2)
    ]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for command in commands]
    told = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    there = sorted((rule["cidr"], rule["description"]) for rule in json.loads(rules.read_text()))
    assert there == [
        ("192.0.2.9/32", "somebody's"),
        *(((f"203.0.113.{number}/32"), OWNER.tagged("office")) for number in range(5)),
    ]
    # Without turns, both would have added all five.
    assert sorted(told) == ["added 0\n", "added 5\n"]
