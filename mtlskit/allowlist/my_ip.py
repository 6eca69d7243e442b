"""Which address others see this host with: several services are asked at once, over https, and believed alike.

No majority decides. A host behind a pool of addresses (carrier-grade NAT, two lines) is seen with several, and each of
them has to be let in; so different answers are all told, and the caller decides what that means. One service that is
broken or lies should not lead to a rule for somebody else's address: where `trusted_only` is demanded, at least two
must have answered, unless only one is configured.

The services are asked over IPv4, because IP rules know nothing else, and past any HTTP proxy: the database is not
reached through one. Plain http is believed from this machine alone (the sandbox), and only such a service may answer
with an address that the Internet does not route.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import urlsplit

import trio

from mtlskit.allowlist.fetching import FetchFailed, checked_url, fetch
from mtlskit.config.values import MyIpConfig
from mtlskit.errors import AllowlistError, Code, ConfigError

__all__ = ["DEFAULT_SERVICES", "VARIABLE", "Answer", "MyAddresses", "my_addresses", "services_of"]

VARIABLE: Final = "MTLSKIT_MY_IP"

DEFAULT_SERVICES: Final = (
    "https://checkip.amazonaws.com/",
    "https://ipv4.icanhazip.com/",
    "https://api.ipify.org/?format=json",
    "https://ifconfig.me/ip",
)
"""Of four operators: Amazon, Cloudflare, ipify, ifconfig.me. ipify answers with JSON, the others with plain text."""

_DEADLINE: Final = 10.0  # seconds, for all of them together
_MOST_ANSWER: Final = 1024  # bytes; an address has at most 15, and {"ip": …} some more
_MOST_SERVICES: Final = 16
_ANY_IPV4: Final = "0.0.0.0"  # also makes the kernel choose the address; what matters is the family
_LONGEST_SHOWN: Final = 40


@dataclass(frozen=True)
class Answer:
    """What one service said: an address, or why it is of no use."""

    service: str
    address: IPv4Address | None
    error: str = ""


@dataclass(frozen=True)
class MyAddresses:
    """The addresses that this host is seen with. More than one: a pool, or a service that is wrong."""

    addresses: frozenset[IPv4Address]
    answers: tuple[Answer, ...]

    @property
    def agreed(self) -> IPv4Address | None:
        """The address, where every answer names the same one."""
        return next(iter(self.addresses)) if len(self.addresses) == 1 else None


def services_of(environ: Mapping[str, str], config: MyIpConfig = MyIpConfig()) -> tuple[str, ...]:  # noqa: B008 - frozen
    """Who to ask: `$MTLSKIT_MY_IP` (comma-separated), else the file, else the built-in ones.

    Raises `ConfigError` (CONFIG_BAD_VALUE) for what could not be believed.
    """
    named = tuple(filter(None, (part.strip() for part in environ.get(VARIABLE, "").split(","))))
    where = VARIABLE if named else "my_ip.services"
    services = tuple(dict.fromkeys(named or config.services or DEFAULT_SERVICES))
    if len(services) > _MOST_SERVICES:
        raise ConfigError(Code.CONFIG_BAD_VALUE, f"{where}: names more than {_MOST_SERVICES} services", "name fewer")
    for service in services:
        try:
            checked_url(service)
        except ValueError as exc:
            raise ConfigError(
                Code.CONFIG_BAD_VALUE,
                f"{where}: one of the services {exc}",
                f'name URLs that answer with the caller\'s address, such as "{DEFAULT_SERVICES[0]}"',
            ) from exc
    return services


async def my_addresses(
    services: Sequence[str] = DEFAULT_SERVICES,
    *,
    source: str | None = None,
    trusted_only: bool = False,
    deadline: float = _DEADLINE,
) -> MyAddresses:
    """Ask every service at once, for `deadline` seconds at most; `source` is the local address to ask from.

    `trusted_only`: at least two services (of different hosts) must have answered, where more than one was asked.
    Raises `AllowlistError` (ALLOW_MY_IP_UNKNOWN) with what each said.
    """
    answers: dict[str, Answer] = {}

    async def ask(service: str) -> None:
        answers[service] = await _ask(service, source, deadline)

    async with trio.open_nursery() as nursery:
        for service in dict.fromkeys(services):
            nursery.start_soon(ask, service)
    told = tuple(answers[service] for service in dict.fromkeys(services))
    good = [answer for answer in told if answer.address is not None]
    needed = min(2, len({_host(service) for service in services})) if trusted_only else 1
    if len({_host(answer.service) for answer in good}) < max(needed, 1):
        raise _unknown(told, needed, source)
    return MyAddresses(frozenset(answer.address for answer in good if answer.address is not None), told)


async def _ask(service: str, source: str | None, deadline: float) -> Answer:
    try:
        checked_url(service)
    except ValueError as exc:
        return Answer(service, None, str(exc))
    try:
        body = await fetch(service, most=_MOST_ANSWER, deadline=deadline, source=source or _ANY_IPV4, direct=True)
        return Answer(service, parse_answer(body, local=urlsplit(service).scheme == "http"))
    except (FetchFailed, ValueError) as exc:
        return Answer(service, None, str(exc))


def parse_answer(body: bytes, *, local: bool = False) -> IPv4Address:
    """The address in an answer: plain text, or `{"ip": …}`. `local`: from this machine, so any address of a host.

    Raises `ValueError` with the reason, in words that quote no more than an address.
    """
    text = body.decode("ascii", "replace").strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)["ip"]
        except (ValueError, KeyError, RecursionError) as exc:
            raise ValueError('it answers with JSON that has no "ip"') from exc
        text = found if isinstance(found, str) else ""
    try:
        address = IPv4Address(text)
    except AddressValueError as exc:
        raise ValueError(_no_address(text)) from exc
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        raise ValueError(f"it answers with {address}, which is no host's address")
    if not local and not address.is_global:
        raise ValueError(f"it answers with {address}, which the Internet does not route: something is in between")
    return address


def _no_address(text: str) -> str:
    try:
        return f"it answers with the IPv6 address {IPv6Address(text[:_LONGEST_SHOWN])}, and IP rules take IPv4 only"
    except AddressValueError:
        return "it answers with something else than an address"


def _unknown(answers: Sequence[Answer], needed: int, source: str | None) -> AllowlistError:
    good = [answer for answer in answers if answer.address is not None]
    told = "; ".join(f"{_host(each.service)}: {each.error or each.address}" for each in answers)
    if good:
        what = f"only {len(good)} of {len(answers)} services told my address, and it takes {needed} to believe it"
    else:
        what = "no service told my address"
    from_there = f"is {source} an address of this host, with a way out? " if source else ""
    return AllowlistError(
        Code.ALLOW_MY_IP_UNKNOWN,
        f"{what} ({told})" if told else what,
        f"{from_there}name services that can be reached from here: {VARIABLE}=https://…,https://…, or `services` in "
        "[my_ip]; or give the address itself",
    )


def _host(service: str) -> str:
    return urlsplit(service).hostname or service
