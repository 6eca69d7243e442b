"""VPC peering and PrivateLink: what the IP rules say does not matter on a way to a private address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
import trio

from mtlskit.allowlist.my_ip import Answer, MyAddresses
from mtlskit.doctor.case import Case
from mtlskit.doctor.checks import clock, dns, tcp
from mtlskit.doctor.diagnosis import Diagnosis
from mtlskit.doctor.examine import examine
from mtlskit.doctor.finding import Finding, Layer, Verdict, failed, passed, skipped, warned
from mtlskit.doctor.heroku.private_way import on_private_way
from mtlskit.doctor.network.addresses import is_private
from mtlskit.errors import AllowlistError, Code
from mtlskit.heroku.values import IpRule
from mtlskit.net.names import Address
from tests.doctor.test_heroku_side import NAME, FakeApi, case_of

ELSEWHERE = (IpRule("1", "198.51.100.0/24", "", "Authorized"),)


def rules(code: Code = Code.ALLOW_NOT_LET_IN) -> Finding:
    error = AllowlistError(code, f"no rule of {NAME} lets 203.0.113.7 in", "let it in")
    return failed(Layer.ALLOWLIST, "allowlist.rules", error, about=NAME, commands=("mtlskit …",), rules=1)


def my_ip() -> Finding:
    error = AllowlistError(Code.ALLOW_MY_IP_DISAGREE, "services disagree", "each needs a rule")
    return warned(Layer.ALLOWLIST, "allowlist.my-ip", error)


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "fd12::1",
        "::ffff:10.0.0.1",
        "fd00::1%1",
    ],
)
def test_private_addresses(address: str) -> None:
    assert is_private(address)


@pytest.mark.parametrize("address", ["54.1.2.3", "172.32.0.1", "100.128.0.1", "127.0.0.1", "::1", "2a01::1", "fe80::1"])
def test_others(address: str) -> None:
    assert not is_private(address)


@pytest.mark.parametrize("code", [Code.ALLOW_NOT_LET_IN, Code.ALLOW_PENDING])
def test_the_rules_are_not_asked_there(code: Code) -> None:
    told, mine = on_private_way([rules(code), my_ip()], ["10.1.2.3"])
    assert (told.verdict, told.code, told.commands) == (Verdict.PASS, None, ())
    assert told.seen == f"the way leads to a private address (10.1.2.3): the IP rules of {NAME} are not asked there"
    assert told.facts == {"rules": 1, "private": ["10.1.2.3"]}
    assert mine.verdict is Verdict.SKIPPED


def test_rules_that_could_not_be_looked_at_are_no_loss() -> None:
    (told,) = on_private_way([skipped(Layer.ALLOWLIST, "allowlist.rules", "allowlist.my-ip")], ["10.1.2.3"])
    assert "private address" in told.because


@pytest.mark.parametrize("dialled", [[], ["54.1.2.3"], ["10.1.2.3", "54.1.2.3"], ["127.0.0.1"]])
def test_elsewhere_they_are(dialled: list[str]) -> None:
    findings = [rules(), my_ip(), passed(Layer.TCP, "tcp.connect", "it answers")]
    assert on_private_way(findings, dialled) == findings


async def _examined(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> Diagnosis:
    """A tunnel to an add-on without a rule for this host, whose name leads there and to silence."""

    async def seen_as(services: Iterable[str], **_more: Any) -> MyAddresses:
        me = IPv4Address("203.0.113.7")
        return MyAddresses(frozenset([me]), tuple(Answer(each, me) for each in services))

    async def look_up(*_arguments: Any) -> tuple[Address, ...]:
        return tuple((trio.socket.AF_INET, (each, 5432)) for each in addresses)

    async def silent(*_arguments: Any) -> None:
        await trio.sleep_forever()

    async def no_clock(_case: Case) -> str:
        return "not asked in this test"

    monkeypatch.setattr("mtlskit.doctor.heroku.asking.my_addresses", seen_as)
    monkeypatch.setattr(clock, "_ask_heroku", no_clock)
    monkeypatch.setattr(dns, "_look_up", look_up)
    monkeypatch.setattr(tcp, "open_socket", silent)
    case = case_of(FakeApi(ip_rules=ELSEWHERE))
    # In real time: files are read in threads, and a clock that jumps does not wait for those.
    return await examine(replace(case, means=replace(case.means, step=1.0)))


def _codes(diagnosis: Diagnosis, layer: Layer) -> set[Code | None]:
    return {each.code for each in diagnosis.findings if each.layer is layer and each.verdict is Verdict.FAIL}


async def test_a_peered_addon_is_not_blamed_on_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await _examined(monkeypatch, "10.1.2.3")
    assert (_codes(found, Layer.ALLOWLIST), _codes(found, Layer.TCP)) == (set(), {Code.TCP_TIMEOUT})
    (told,) = [each for each in found.findings if each.check == "allowlist.rules"]
    assert "are not asked there" in told.seen


async def test_a_public_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await _examined(monkeypatch, "54.1.2.3")
    assert _codes(found, Layer.ALLOWLIST) == {Code.ALLOW_NOT_LET_IN}
    assert _codes(found, Layer.TCP) == {Code.TCP_TIMEOUT}
