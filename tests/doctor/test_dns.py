"""The look-up of a name: what it leads to, and why it leads nowhere."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from mtlskit.doctor.checks import dns
from mtlskit.doctor.checks.dns import resolve
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.network import addresses
from mtlskit.errors import Code
from tests.doctor.network_cases import Resolver, case_for


@pytest.fixture(autouse=True)
def _a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host has one, whatever this host has."""
    monkeypatch.setattr(dns, "has_way_out", lambda: True)


async def findings_of(
    upstream: str, resolver: Resolver | None = None, source: str | None = None
) -> tuple[Finding, ...]:
    trio.socket.set_custom_hostname_resolver(resolver)
    case, endpoint = case_for(upstream, source=source)
    resolved = await resolve(case, endpoint)
    failures = [finding for finding in resolved.findings if finding.verdict is Verdict.FAIL]
    assert bool(failures) != bool(resolved.addresses)
    return resolved.findings


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "192.0.2.1", "[::1]", "0.0.0.0"])
async def test_an_address_needs_no_resolver(host: str) -> None:
    (finding,) = await findings_of(f"{host}:5432")
    assert finding.verdict is Verdict.PASS
    assert finding.facts["addresses"] == [host.strip("[]")]
    assert finding.seconds is None


async def test_localhost_is_no_oddity() -> None:
    (finding,) = await findings_of("localhost:5432")
    assert finding.verdict is Verdict.PASS
    assert "127.0.0.1" in finding.facts["addresses"]


async def test_all_addresses_of_both_families() -> None:
    (finding,) = await findings_of("db.example:5432", Resolver("10.0.0.1", "fd00::1"))
    assert finding.seen == "db.example leads to 10.0.0.1, fd00::1"
    assert finding.facts["addresses"] == ["10.0.0.1", "fd00::1"]
    assert finding.seconds is not None


async def test_many_addresses_do_not_make_a_long_sentence() -> None:
    (finding,) = await findings_of("db.example:5432", Resolver(*(f"10.0.0.{last}" for last in range(1, 101))))
    assert finding.seen.endswith("10.0.0.8 and 92 more")
    assert len(finding.facts["addresses"]) == 100


@pytest.mark.parametrize(
    ("number", "reason", "told"),
    [
        (socket.EAI_NONAME, "EAI_NONAME", "cannot be resolved: it went wrong"),
        (socket.EAI_AGAIN, "EAI_AGAIN", "no resolver gives an answer (it went wrong)"),
        (socket.EAI_FAIL, "EAI_FAIL", "no resolver gives an answer (it went wrong)"),
        (socket.EAI_MEMORY, "EAI_MEMORY", "cannot be resolved: it went wrong"),
    ],
)
async def test_failures_are_told_apart(number: int, reason: str, told: str) -> None:
    (finding,) = await findings_of("db.example:5432", Resolver(failure=socket.gaierror(number, "it went wrong")))
    assert finding.code is Code.DNS_FAILED
    assert told in finding.seen
    assert finding.facts["reason"] == reason
    assert "getent ahosts db.example" in finding.commands


async def test_no_descriptor_is_left() -> None:
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    (finding,) = await findings_of("db.example:5432", Resolver(failure=error))
    assert "this process has no file descriptor left" in finding.seen
    assert finding.facts["reason"] == "system"


async def test_a_name_that_no_codec_takes() -> None:
    (finding,) = await findings_of("db.example:5432", Resolver(failure=UnicodeError("label too long")))
    assert finding.seen == "db.example cannot be resolved: it is no valid name of a host"


async def test_silence_ends(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.autojump_threshold = 0
    (finding,) = await findings_of("db.example:5432", Resolver())
    assert finding.seen == "db.example cannot be resolved: the resolver did not answer within 5 s"
    assert finding.facts["reason"] == "timeout"
    assert "/etc/resolv.conf" in finding.hint


async def test_a_slow_resolver_is_a_warning(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.autojump_threshold = 0
    first, second = await findings_of("db.example:5432", Resolver("10.0.0.1", delay=3))
    assert first.verdict is Verdict.PASS
    assert (second.verdict, second.code) == (Verdict.WARN, Code.NET_SLOW)
    assert second.seen == "the look-up of db.example took 3.0 s"


@pytest.mark.parametrize(
    "failure",
    [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), None],
    ids=["error", "silence"],
)
async def test_without_a_network_the_name_is_not_blamed(
    failure: Exception | None, monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    monkeypatch.setattr(dns, "has_way_out", lambda: False)
    (finding,) = await findings_of("db.example:5432", Resolver(failure=failure))
    assert finding.code is Code.NET_NO_ROUTE_OUT


async def test_a_name_that_does_not_exist_needs_no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "has_way_out", lambda: False)
    monkeypatch.setattr("sys.platform", "linux")
    failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    (finding,) = await findings_of("db.example:5432", Resolver(failure=failure))
    assert finding.code is Code.DNS_FAILED


async def test_hopeless_addresses_end_the_way() -> None:
    (finding,) = await findings_of("db.example:5432", Resolver("0.0.0.0", "::"))
    assert finding.code is Code.DNS_ODD_ADDRESS
    assert finding.seen == "db.example leads to 0.0.0.0 and ::, which is the address of no host"


async def test_one_hopeless_address_among_others_is_left_out() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver("0.0.0.0", "10.0.0.1"))
    resolved = await resolve(*case_for("db.example:5432"))
    assert [sockaddr[0] for _, sockaddr in resolved.addresses] == ["10.0.0.1"]
    assert [finding.code for finding in resolved.findings] == [None, Code.DNS_ODD_ADDRESS]


async def test_a_name_that_leads_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    monkeypatch.setattr(addresses, "HOSTS", hosts)
    assert [each.code for each in await findings_of("db.example:5432", Resolver("127.0.0.1"))] == [
        None,
        Code.DNS_ODD_ADDRESS,
    ]
    hosts.write_text("127.0.0.1 db.example\n")  # somebody has wanted it so
    assert [each.code for each in await findings_of("db.example:5432", Resolver("127.0.0.1"))] == [None]


@pytest.mark.parametrize("address", ["192.0.2.1", "169.254.1.1"])
async def test_odd_addresses_are_tried_before_they_are_blamed(address: str) -> None:
    (finding,) = await findings_of("db.example:5432", Resolver(address))
    assert finding.verdict is Verdict.PASS


async def test_a_source_chooses_the_family() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver("10.0.0.1", "fd00::1"))
    resolved = await resolve(*case_for("db.example:5432", source="fd00::2"))
    assert [sockaddr[0] for _, sockaddr in resolved.addresses] == ["fd00::1"]


async def test_a_source_that_fits_no_address() -> None:
    (finding,) = await findings_of("db.example:5432", Resolver("10.0.0.1"), source="fd00::2")
    assert finding.code is Code.TCP_UNREACHABLE
    assert finding.seen == "db.example:5432 has no IPv6 address, and connections to it start from fd00::2"
