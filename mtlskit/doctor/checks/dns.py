"""The host name: to which addresses it leads, of both families.

An address is odd where no database is expected. Some are hopeless, and the way ends here; with the others it is the
next check that knows, for a name may lead to this host on purpose.
"""

from __future__ import annotations

import shlex
import socket
import sys
from typing import Final

import trio

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Resolved
from mtlskit.doctor.finding import Finding, Layer, failed, passed, warned
from mtlskit.doctor.network.addresses import has_way_out, in_hosts_file, is_address, is_own_name, oddities_of, oddity_of
from mtlskit.errors import Code, UpstreamError, UpstreamUnreachable
from mtlskit.net.connect import reachable_from
from mtlskit.net.faults import dns_fault
from mtlskit.net.names import Address, Names

__all__ = ["no_way_out", "resolve"]

_CHECK: Final = "dns.resolve"

_SLOW: Final = 2.0
"""Seconds. A resolver that has to ask around takes less; what takes longer has waited for a name server in vain, and
asked the next (resolv.conf(5), `timeout`)."""

_SHOWN: Final = 8
"""Addresses in a sentence. `facts` have all."""

_REASONS: Final = ("EAI_NONAME", "EAI_AGAIN", "EAI_FAIL", "EAI_NODATA", "EAI_ADDRFAMILY", "EAI_SYSTEM", "EAI_MEMORY")

_ODD_HINT: Final = (
    "a resolver that lies (a filter, a captive portal), an entry of /etc/hosts, or a name that is not in use yet:"
    " compare with another resolver"
)


async def resolve(case: Case, endpoint: Endpoint) -> Resolved:
    """Layer DNS. Ends within `case.means.step`."""
    host, began = endpoint.host, trio.current_time()
    try:
        addresses = await _look_up(endpoint, case.means.step)
    except OSError as exc:
        return Resolved((_unresolved(endpoint, exc, trio.current_time() - began),))
    seconds = trio.current_time() - began
    if case.tunnel.source is not None:
        try:
            addresses = reachable_from(case.tunnel.source, addresses, endpoint)
        except UpstreamError as exc:
            return Resolved((failed(Layer.DNS, _CHECK, exc, about=str(endpoint), addresses=_texts(addresses)),))
    if is_address(host):
        seen = f"{host} is an address: there is nothing to look up"
        return Resolved((passed(Layer.DNS, _CHECK, seen, about=str(endpoint), addresses=_texts(addresses)),), addresses)
    usable = tuple(address for address in addresses if not _is_hopeless(address))
    if not usable:
        return Resolved((_hopeless(endpoint, addresses),))
    return Resolved((_resolved(endpoint, addresses, seconds), *_remarks(endpoint, addresses, seconds)), usable)


def no_way_out(layer: Layer, check: str, endpoint: Endpoint, said: str) -> Finding:
    """This host has no network. `said` is what the system says of it."""
    return failed(
        layer,
        check,
        UpstreamUnreachable(
            Code.NET_NO_ROUTE_OUT,
            f"this host has no way to the network, so {endpoint.host} cannot be reached: {said}",
            "connect the host first: no route leads out of it, neither for IPv4 nor for IPv6",
        ),
        about=str(endpoint),
        commands=("ip address", "ip route", "cat /etc/resolv.conf"),
    )


async def _look_up(endpoint: Endpoint, step: float) -> tuple[Address, ...]:
    """Raises OSError: what getaddrinfo(3) says, or TimeoutError."""
    try:
        with trio.fail_after(step):
            return await Names().addresses(endpoint.host, endpoint.port)
    except trio.TooSlowError as exc:
        raise TimeoutError(f"the resolver did not answer within {step:.3g} s") from exc
    except UnicodeError as exc:  # of the codec for names that are not ASCII
        raise socket.gaierror(socket.EAI_NONAME, "it is no valid name of a host") from exc


def _unresolved(endpoint: Endpoint, exc: OSError, seconds: float) -> Finding:
    if _says_nothing_of_the_name(exc) and not has_way_out():
        return no_way_out(Layer.DNS, _CHECK, endpoint, exc.strerror or str(exc))
    return failed(
        Layer.DNS,
        _CHECK,
        dns_fault(endpoint.host, exc),
        about=str(endpoint),
        commands=(f"getent ahosts {shlex.quote(endpoint.host)}", "cat /etc/resolv.conf"),
        seconds=seconds,
        reason=_reason(exc),
    )


def _reason(exc: OSError) -> str:
    """For scripts: the constant of getaddrinfo(3), "timeout", or "system"."""
    if isinstance(exc, TimeoutError):
        return "timeout"
    numbers = {getattr(socket, name, None): name for name in _REASONS}
    return numbers.get(exc.errno, "system") if isinstance(exc, socket.gaierror) else "system"


def _says_nothing_of_the_name(exc: OSError) -> bool:
    """No server was asked, as far as one can see. macOS without a network says that the name does not exist."""
    numbers = {socket.EAI_AGAIN, socket.EAI_FAIL, *([socket.EAI_NONAME] if sys.platform == "darwin" else [])}
    return isinstance(exc, TimeoutError) or (isinstance(exc, socket.gaierror) and exc.errno in numbers)


def _resolved(endpoint: Endpoint, addresses: tuple[Address, ...], seconds: float) -> Finding:
    texts = _texts(addresses)
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return passed(
        Layer.DNS,
        _CHECK,
        f"{endpoint.host} leads to {', '.join(texts[:_SHOWN])}{more}",
        about=str(endpoint),
        seconds=seconds,
        addresses=texts,
    )


def _remarks(endpoint: Endpoint, addresses: tuple[Address, ...], seconds: float) -> list[Finding]:
    """What stops nobody yet."""
    host, about, remarks = endpoint.host, str(endpoint), []
    if seconds > _SLOW:
        slow = UpstreamUnreachable(
            Code.NET_SLOW,
            f"the look-up of {host} took {seconds:.1f} s",
            "a name server of /etc/resolv.conf does not answer, and the next is asked only after a while: take it out",
        )
        remarks.append(warned(Layer.DNS, "dns.time", slow, about=about, commands=("cat /etc/resolv.conf",)))
    lost = [
        text for text in _texts(addresses) if (found := oddity_of(text)) and (found.hopeless or _leads_home(host, text))
    ]
    if lost:
        error = UpstreamUnreachable(Code.DNS_ODD_ADDRESS, f"{host} leads to {oddities_of(lost)}", _ODD_HINT)
        remarks.append(warned(Layer.DNS, "dns.addresses", error, about=about, commands=_compare(host)))
    return remarks


def _leads_home(host: str, address: str) -> bool:
    """A name that a server of the DNS leads to this host, and that nobody here has so arranged."""
    odd = oddity_of(address)
    at_home = odd is not None and odd == oddity_of("127.0.0.1")
    return at_home and not is_own_name(host) and not in_hosts_file(host)


def _hopeless(endpoint: Endpoint, addresses: tuple[Address, ...]) -> Finding:
    texts = _texts(addresses)
    error = UpstreamUnreachable(Code.DNS_ODD_ADDRESS, f"{endpoint.host} leads to {oddities_of(texts)}", _ODD_HINT)
    about, commands = str(endpoint), _compare(endpoint.host)
    return failed(Layer.DNS, _CHECK, error, about=about, commands=commands, addresses=texts)


def _compare(host: str) -> tuple[str, ...]:
    return (f"getent ahosts {shlex.quote(host)}", f"grep -n {shlex.quote(host)} /etc/hosts", "cat /etc/resolv.conf")


def _is_hopeless(address: Address) -> bool:
    odd = oddity_of(address[1][0])
    return odd is not None and odd.hopeless


def _texts(addresses: tuple[Address, ...]) -> list[str]:
    return [str(sockaddr[0]) for _, sockaddr in addresses]
