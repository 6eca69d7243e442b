"""The course of an examination: what depends on what, what runs side by side, and when it is over.

Three things begin at once: the identity is read, Heroku is asked, the local side is looked at. The way to each endpoint
is followed as far as it leads: name, TCP, what answers there, TLS, our certificate; a layer that fails ends it, and the
layers behind it are marked as skipped because of it. What this host knows of revocations is looked up then. The look
inside comes after that, when the server has taken us: a server that is known to be revoked is told no password. The
clock is compared in the end, when others have shown theirs.

Each check bounds its own steps (`Means.step`); `Means.deadline` bounds everything, and what has not ended by then is
said to be unfinished. A check that breaks says so and takes no other with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from mtlskit.config.values import Endpoint, TunnelKind
from mtlskit.doctor.case import Case, Identified, Opened, Reached, Resolved, Shaken, Taken
from mtlskit.doctor.checks import (
    clock,
    dns,
    heroku,
    identity,
    kafka,
    local,
    negotiation,
    postgres,
    revocation,
    tcp,
    tls,
)
from mtlskit.doctor.checks.client_certificate import not_given, present
from mtlskit.doctor.checks.heroku import HerokuSide
from mtlskit.doctor.diagnosis import Diagnosis, in_order, settled, spared
from mtlskit.doctor.finding import Finding, Layer, Verdict, skipped, warned
from mtlskit.doctor.heroku.private_way import on_private_way
from mtlskit.doctor.watching import Nobody, Watcher
from mtlskit.errors import Code, DoctorError
from mtlskit.net.names import Address

__all__ = ["examine", "examine_all"]

_T = TypeVar("_T")

_MOST_ADDRESSES = 4
"""Of one name that are followed beyond TCP. Behind more there is a fleet, and its members are alike."""

_AT_ONCE = 16
"""Tunnels that are examined side by side. Each has a dozen connections at a time, and 1,024 descriptors are usual."""

_PATH = (Layer.DNS, Layer.TCP, Layer.NEGOTIATION, Layer.TLS, Layer.CLIENT_CERTIFICATE)


async def examine_all(cases: Sequence[Case], watcher: Watcher | None = None) -> tuple[Diagnosis, ...]:
    """All tunnels side by side, `_AT_ONCE` at most; the diagnoses in the order of the cases."""
    found: dict[int, Diagnosis] = {}
    seats = trio.CapacityLimiter(_AT_ONCE)

    async def one(place: int, case: Case) -> None:
        async with seats:
            found[place] = await examine(case, watcher)

    async with trio.open_nursery() as nursery:
        for place, case in enumerate(cases):
            nursery.start_soon(one, place, case)
    return tuple(found[place] for place in range(len(cases)))


async def examine(case: Case, watcher: Watcher | None = None) -> Diagnosis:
    """Everything about one tunnel, within `case.means.deadline` seconds."""
    began = trio.current_time()
    examination = _Examination(case, watcher or Nobody())
    scope = trio.CancelScope(deadline=began + case.means.deadline)
    try:
        with scope:
            await examination.run()
    except Exception as exc:  # noqa: BLE001 - what breaks in the very moment in which the time is up
        examination.findings.append(_broken(Layer.CONFIGURATION, "", exc))
    if scope.cancelled_caught:
        examination.give_up()
    return Diagnosis(
        name=case.name,
        kind=case.kind.value,
        upstream=examination.upstream,
        findings=in_order(examination.settled()),
        seconds=trio.current_time() - began,
        complete=not scope.cancelled_caught,
    )


class _Examination:
    """Of one tunnel."""

    def __init__(self, case: Case, watcher: Watcher) -> None:
        self._case = case
        self._watcher = watcher
        self._under_way: list[tuple[Layer, str]] = []
        self.findings: list[Finding] = list(case.findings)
        self._identified = Identified()
        self._identity_known = trio.Event()
        self._heroku = HerokuSide()
        self._heroku_known = trio.Event()
        self._endpoints: tuple[Endpoint, ...] = case.tunnel.upstream
        self._dialled: list[str] = []
        self._shaken: dict[str, Shaken] = {}
        self._taken: list[tuple[Endpoint, Taken]] = []

    @property
    def upstream(self) -> str:
        """Where the tunnel leads to, for people."""
        if self._endpoints:
            return ", ".join(str(endpoint) for endpoint in self._endpoints)
        return f"heroku:{self._case.tunnel.addon}"

    def settled(self) -> list[Finding]:
        """All findings, each in the light of the others."""
        taken = [str(endpoint) for endpoint, each in self._taken if each.accepted]
        found = on_private_way(settled(self.findings), self._dialled)
        return spared(found, [str(endpoint) for endpoint in self._endpoints], taken)

    async def run(self) -> None:
        """To the end, or until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._identify)
            nursery.start_soon(self._ask_heroku)
            nursery.start_soon(self._follow_all)
            nursery.start_soon(self._look_around)
        shaken, taken = tuple(self._shaken.values()), tuple(each for _, each in self._taken)
        compare = partial(clock.compare_clocks, self._case, self._identified, shaken, taken)
        await self._check(Layer.CLOCK, "", compare)

    def give_up(self) -> None:
        """The time is up: say of what was under way that it has not ended."""
        for layer, about in self._under_way:
            self.findings.append(skipped(layer, f"{layer}.unfinished", "the time was up", about=about))

    async def _identify(self) -> None:
        work = partial(trio.to_thread.run_sync, identity.identify, self._case, abandon_on_cancel=True)
        self._identified = await self._result(Layer.IDENTITY, "", work, Identified())
        self._identity_known.set()

    async def _ask_heroku(self) -> None:
        await self._identity_known.wait()
        side = await self._result(
            Layer.HEROKU, "", partial(heroku.look_at_heroku, self._case, self._identified), HerokuSide()
        )
        self._heroku = side
        if side.endpoints:
            self._endpoints = side.endpoints
        self._heroku_known.set()

    async def _look_around(self) -> None:
        await self._identity_known.wait()
        if self._case.of_file:
            await self._check(Layer.LOCAL, "", partial(local.look_at_local_side, self._case, self._identified))

    async def _follow_all(self) -> None:
        """The way to each endpoint, what is known of whom we met there, and then the look inside."""
        await self._follow_endpoints()
        await self._identity_known.wait()
        presented = {about: shaken.chain for about, shaken in self._shaken.items()}
        look = partial(revocation.look_for_revocation, self._case, self._identified, presented)
        await self._check(Layer.REVOCATION, "", look)
        if self._endpoints:
            await self._look_inside()

    async def _follow_endpoints(self) -> None:
        if self._case.tunnel.addon is not None and not self._endpoints:
            await self._heroku_known.wait()
            if not self._endpoints:
                self._skip_path(_PATH, "heroku.endpoint", about=f"heroku:{self._case.tunnel.addon}")
                return
        async with trio.open_nursery() as nursery:
            for endpoint in self._endpoints:
                nursery.start_soon(self._follow, endpoint)

    async def _follow(self, endpoint: Endpoint) -> None:
        about = str(endpoint)
        names = await self._result(Layer.DNS, about, partial(dns.resolve, self._case, endpoint), Resolved())
        if not names.addresses:
            self._skip_path(_PATH[1:], "dns.resolve", about=about)
            return
        self._dialled += [str(address[1][0]) for address in names.addresses]
        reached = await self._result(
            Layer.TCP, about, partial(tcp.reach, self._case, endpoint, names.addresses), Reached()
        )
        if not reached.open:
            self._skip_path(_PATH[2:], "tcp.connect", about=about)
            return
        async with trio.open_nursery() as nursery:
            for address in reached.open[:_MOST_ADDRESSES]:
                nursery.start_soon(self._speak, endpoint, address, len(reached.open) > 1)

    async def _speak(self, endpoint: Endpoint, address: Address, several: bool) -> None:
        """At one address, from its first answer to what it makes of our certificate."""
        about = f"{endpoint} ({address[1][0]})" if several else str(endpoint)
        case = self._case
        opened = await self._result(
            Layer.NEGOTIATION, about, partial(negotiation.negotiate, case, endpoint, address), Opened()
        )
        if not opened.ready:
            self._skip_path(_PATH[3:], "negotiation.answer", about=about)
            return
        await self._identity_known.wait()
        identified = self._identified
        shaken = await self._result(
            Layer.TLS, about, partial(tls.shake_hands, case, endpoint, address, identified), Shaken()
        )
        self._shaken[about] = shaken
        if not shaken.trusted:
            self._skip_path(_PATH[4:], Layer.TLS, about=about)
            return
        if identified.snapshot is None:
            if case.identity is None and shaken.asks_for_certificate:
                self.findings.append(not_given(about))
            else:
                self._skip_path(_PATH[4:], "identity", about=about)
            return
        taken = await self._result(
            Layer.CLIENT_CERTIFICATE, about, partial(present, case, endpoint, address, identified, shaken), Taken()
        )
        self._taken.append((endpoint, taken))

    async def _look_inside(self) -> None:
        """Into the service, at the endpoints that have taken us."""
        case, identified = self._case, self._identified
        layer = {TunnelKind.POSTGRES: Layer.POSTGRES, TunnelKind.KAFKA: Layer.KAFKA}.get(case.kind)
        if layer is None:
            return
        accepted = tuple(dict.fromkeys(endpoint for endpoint, taken in self._taken if taken.accepted))
        if not accepted:
            self._skip_path((layer,), "client-certificate.accepted")
            return
        await self._heroku_known.wait()
        if layer is Layer.KAFKA:
            await self._check(
                layer, "", partial(kafka.look_inside_kafka, case, accepted, identified, self._heroku.prefix)
            )
            return
        async with trio.open_nursery() as nursery:
            for endpoint in accepted:
                look = partial(postgres.look_inside_postgres, case, endpoint, identified, self._heroku.credentials)
                nursery.start_soon(self._check, layer, str(endpoint), look)

    async def _check(self, layer: Layer, about: str, work: Callable[[], Awaitable[tuple[Finding, ...]]]) -> None:
        """A check that leaves nothing but findings."""

        async def wrapped() -> Identified:
            return Identified(findings=await work())

        await self._result(layer, about, wrapped, Identified())

    async def _result(self, layer: Layer, about: str, work: Callable[[], Awaitable[_T]], broken: _T) -> _T:
        """The result of a check, whose findings are noted; `broken` where the check itself fails."""
        self._watcher.began(self._case.name, layer, about)
        self._under_way.append((layer, about))
        try:
            result = await work()
            findings: tuple[Finding, ...] = tuple(
                finding for finding in getattr(result, "findings", ()) if not self._told(finding)
            )
        except Exception as exc:  # noqa: BLE001 - one check that breaks must not hide what the others see
            result, findings = broken, (_broken(layer, about, exc),)
        self._under_way.remove((layer, about))
        self.findings += findings
        self._watcher.ended(self._case.name, layer, about, findings)
        return result

    def _told(self, finding: Finding) -> bool:
        """A certificate that is revoked is told of once, by whichever check has met it first."""
        return finding.layer is Layer.REVOCATION and any(
            (each.check, each.code, each.seen) == (finding.check, finding.code, finding.seen)
            for each in self.findings
            if each.code is not None
        )

    def _skip_path(self, layers: Sequence[Layer], because: str, about: str = "") -> None:
        """`because` names a check, or a layer: then the first check that has failed in it."""
        blamed = next(
            (each.check for each in self.findings if each.verdict is Verdict.FAIL and each.layer == because), because
        )
        for layer in layers:
            self.findings.append(skipped(layer, f"{layer}.skipped", blamed, about=about))


def _broken(layer: Layer, about: str, exc: Exception) -> Finding:
    """The kind of error and where it arose; its text might hold what nobody should read."""
    place = exc.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" in {place.tb_frame.f_code.co_name}, line {place.tb_lineno}" if place is not None else ""
    error = DoctorError(
        Code.DOCTOR_CHECK_BROKE,
        f"the check broke off: {type(exc).__name__}{where}",
        "a fault of mtlskit's, not of your set-up: please report it",
    )
    return warned(layer, f"{layer}.broke", error, about=about)
