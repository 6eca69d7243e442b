"""TCP to each address: refused, filtered, reset, and how long it takes.

A finding for the endpoint: clients are content with one address that takes them. The ones that do not are a warning,
unless it costs nobody anything: a family that this host has no route for is passed over at once, and so is
`localhost` in the family that a server does not listen on.
"""

from __future__ import annotations

import errno
import shlex
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import trio

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Reached
from mtlskit.doctor.checks.dns import no_way_out
from mtlskit.doctor.finding import Finding, Layer, failed, passed, warned
from mtlskit.doctor.network.addresses import (
    has_way_out,
    is_address,
    is_own_name,
    is_private,
    oddities_of,
    oddity_of,
)
from mtlskit.errors import Code, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from mtlskit.net.connect import SourceRefusedError, open_socket
from mtlskit.net.dial import Route
from mtlskit.net.faults import source_fault, tcp_fault, tcp_silence
from mtlskit.net.names import Address

__all__ = ["allowlist_commands", "reach"]

_CHECK: Final = "tcp.connect"

_MOST: Final = 16
"""Addresses that are tried. Each takes a descriptor and a packet; the rest of a fleet is like its beginning."""

_SLOW: Final = 0.3
"""Seconds of a round trip: by cable the far side of the earth is nearer."""

_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What a host says at once that has no way out in this family of addresses."""

_HEROKU: Final = (".amazonaws.com", ".herokuapp.com", ".heroku.com", ".herokai.com")

_PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")

_TCP_INFO: Final = struct.Struct("@68xI")
"""tcpi_rtt of Linux's struct tcp_info, in microseconds: as the kernel measured it, however busy we are."""


@dataclass(frozen=True)
class _Attempt:
    """At one address. `error` is None where it takes connections."""

    address: Address
    seconds: float | None = None
    error: UpstreamError | None = None
    number: int | None = None
    """The errno that came."""

    @property
    def text(self) -> str:
        return str(self.address[1][0])

    @property
    def facts(self) -> dict[str, Any]:
        if self.error is None:
            return {"address": self.text, "open": True, "seconds": self.seconds}
        return {"address": self.text, "open": False, "code": str(self.error.code)}


_PRIVATE_HINT: Final = (
    "the address is private, so no allowlist of external addresses is asked on the way there: look at what leads there"
    " (VPC peering, PrivateLink, a VPN), at its routes, security groups and firewalls"
)


async def reach(case: Case, endpoint: Endpoint, addresses: tuple[Address, ...]) -> Reached:
    """Layer TCP. All addresses side by side, within `case.means.step`."""
    attempts: dict[int, _Attempt] = {}

    async def one(place: int, address: Address) -> None:
        attempts[place] = await _attempt(endpoint, address, case.tunnel.source, case.means.step)

    async with trio.open_nursery() as nursery:
        for place, address in enumerate(addresses[:_MOST]):
            nursery.start_soon(one, place, address)
    tried = [attempts[place] for place in sorted(attempts)]
    took = [attempt for attempt in tried if attempt.error is None]
    facts = {"addresses": [attempt.facts for attempt in tried], "proxy_variables": _proxies(case)}
    if not took:
        return Reached((_failure(case, endpoint, tried, facts),))
    fastest = min(attempt.seconds or 0.0 for attempt in took)
    findings = [_success(endpoint, took, fastest, facts), *_partly(endpoint, tried, took), *_slow(endpoint, fastest)]
    return Reached(tuple(findings), tuple(attempt.address for attempt in took), fastest)


async def _attempt(endpoint: Endpoint, address: Address, source: str | None, step: float) -> _Attempt:
    where = str(Route(endpoint, *address[1][:2]))
    began = trio.current_time()
    try:
        with trio.move_on_after(step):
            with await open_socket(*address, source) as sock:
                return _Attempt(address, _round_trip(sock) or trio.current_time() - began)
    except SourceRefusedError as exc:
        return _Attempt(address, error=source_fault(str(endpoint), source or "", exc), number=None)
    except OSError as exc:
        return _Attempt(address, error=tcp_fault(where, exc), number=exc.errno)
    return _Attempt(address, error=tcp_silence(where, step))


def _round_trip(sock: trio.socket.SocketType) -> float | None:
    """Seconds; None where the system does not tell, or has measured nothing: its first packet was lost."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, struct.error):
        microseconds: int = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))[0]
        return microseconds / 1e6 or None
    return None


def _success(endpoint: Endpoint, took: list[_Attempt], fastest: float, facts: dict[str, Any]) -> Finding:
    at = f" at {took[0].text}" if took[0].text != endpoint.host else ""
    if len(took) > 1:
        at = f" at {len(took)} addresses"
    seen = f"{endpoint} takes connections{at} ({_milliseconds(fastest)})"
    return passed(Layer.TCP, _CHECK, seen, about=str(endpoint), seconds=fastest, **facts)


def _partly(endpoint: Endpoint, tried: list[_Attempt], took: list[_Attempt]) -> list[Finding]:
    families = {attempt.address[0] for attempt in took}
    at_home = is_own_name(endpoint.host)
    missed: list[str] = []
    for attempt in tried:
        if attempt.error is None or (attempt.number in _NO_ROUTE and attempt.address[0] not in families):
            continue
        if at_home and attempt.error.code is Code.TCP_REFUSED:
            continue
        missed.append(attempt.error.sentence)
    if not missed:
        return []
    error = UpstreamUnreachable(
        Code.TCP_PARTLY,
        f"{endpoint} takes connections at {', '.join(attempt.text for attempt in took)}, but " + "; ".join(missed),
        "clients lose time there, or fail where they try one address only: mend these, or take them out of DNS",
    )
    return [warned(Layer.TCP, "tcp.addresses", error, about=str(endpoint))]


def _slow(endpoint: Endpoint, fastest: float) -> list[Finding]:
    if fastest <= _SLOW:
        return []
    error = UpstreamTimeout(
        Code.NET_SLOW,
        f"a round trip to {endpoint} takes {_milliseconds(fastest)}",
        "a new connection takes five or more of them before its first row: keep connections, or make them in advance"
        " (`warm`), or move nearer",
    )
    return [warned(Layer.TCP, "tcp.time", error, about=str(endpoint), seconds=fastest, round_trip=fastest)]


def _failure(case: Case, endpoint: Endpoint, tried: list[_Attempt], facts: dict[str, Any]) -> Finding:
    if all(attempt.number in _NO_ROUTE for attempt in tried) and not has_way_out():
        return no_way_out(Layer.TCP, _CHECK, endpoint, "Network is unreachable")
    worst = min(tried, key=_rank)
    assert worst.error is not None  # noqa: S101 - none of them is open
    code, sentence, hint = worst.error.code, worst.error.sentence, worst.error.hint
    commands = _commands(case, endpoint, code)
    if code is Code.TCP_TIMEOUT and all(is_private(attempt.text) for attempt in tried):
        hint, commands = _PRIVATE_HINT, (f"ip route get {worst.text}",)
    others = [other.error.sentence for other in tried if other.error is not None and other.error.sentence != sentence]
    if others:
        sentence += f" (also tried: {'; '.join(others)})"
    sentence, odd = _with_oddity(endpoint, tried, sentence)
    if odd and not is_address(endpoint.host):
        code = Code.DNS_ODD_ADDRESS
        hint = f"check where the name should lead to (another resolver, /etc/hosts); else: {hint}"
        commands = _commands(case, endpoint, code)
    if facts["proxy_variables"]:
        hint += f"; {' and '.join(facts['proxy_variables'])} is set here, and no database is reached through it"
    error = type(worst.error)(code, sentence, hint)
    return failed(Layer.TCP, _CHECK, error, about=str(endpoint), commands=commands, **facts)


def _rank(attempt: _Attempt) -> int:
    """Who answered tells more than silence, and silence more than our own host's refusal to try."""
    code = attempt.error.code if attempt.error is not None else None
    if code in (Code.TCP_REFUSED, Code.TCP_RESET):
        return 0
    return 1 if code is Code.TCP_TIMEOUT else 2


def _with_oddity(endpoint: Endpoint, tried: list[_Attempt], sentence: str) -> tuple[str, bool]:
    """The sentence, and whether every address is one where no database is expected."""
    odd = {attempt.text: found for attempt in tried if (found := oddity_of(attempt.text)) is not None}
    at_home = is_own_name(endpoint.host) or endpoint.host.startswith("127.") or endpoint.host == "::1"
    if len(odd) < len({attempt.text for attempt in tried}) or at_home:
        return sentence, False
    if is_address(endpoint.host):
        return f"{sentence}; {', '.join(f'{text} is {odd[text].words}' for text in odd)}", True
    return f"{endpoint.host} leads to {oddities_of(list(odd))}: {sentence}", True


def _commands(case: Case, endpoint: Endpoint, code: Code) -> tuple[str, ...]:
    if code is Code.DNS_ODD_ADDRESS:
        return (f"getent ahosts {shlex.quote(endpoint.host)}", f"grep -n {shlex.quote(endpoint.host)} /etc/hosts")
    if code is Code.TCP_UNREACHABLE:
        return ("ip address", "ip route")
    if code in (Code.TCP_TIMEOUT, Code.TCP_RESET):
        return allowlist_commands(case, endpoint)
    return ()


def allowlist_commands(case: Case, endpoint: Endpoint) -> tuple[str, ...]:
    """Where a firewall or an allowlist is to be suspected: our address, and for Heroku's the rules."""
    if case.tunnel.addon is not None:
        return ("mtlskit my-ip", f"mtlskit allowlist list --addon {shlex.quote(case.tunnel.addon)}")
    if endpoint.host.rstrip(".").endswith(_HEROKU):
        return ("mtlskit my-ip", "mtlskit allowlist list")
    return ("mtlskit my-ip",)


def _proxies(case: Case) -> list[str]:
    """Names alone: the values may hold a password."""
    environ = case.means.environ
    return [name for name in _PROXIES if environ.get(name) or environ.get(name.lower())]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"
