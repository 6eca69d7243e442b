"""The doctor's look inside a Kafka, alone: at brokers that say what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from mtlskit.doctor.case import Identified
from mtlskit.doctor.checks.kafka import look_inside_kafka
from mtlskit.doctor.finding import Finding
from mtlskit.doctor.gather import Gathered
from mtlskit.net.identity import load_snapshot
from tests.doctor.catalogue.kafka import gathered
from tests.services.pki import Pki
from tests.support.kafka_liar import Body, Papers, answers, listener, versions


def look(what: Gathered, prefix: str = "") -> tuple[Finding, ...]:
    """What is found behind the endpoints, all of which take us."""
    [case] = what.cases
    assert case.identity is not None
    snapshot = load_snapshot(case.identity, verify=case.tunnel.verify)
    return trio.run(look_inside_kafka, case, case.tunnel.upstream, Identified(snapshot=snapshot), prefix)


@contextmanager
def broker(pki: Pki, *bodies: Body, own: Callable[[list[int]], Body] | None = None) -> Iterator[int]:
    """One that answers ApiVersions, and else so; `own` is given a list that will hold its port. The port."""
    ports: list[int] = []
    made = (own(ports),) if own else ()
    with listener(answers(*bodies, versions, *made), papers=Papers(pki.server, pki.client_ca)) as port:
        ports.append(port)
        yield port


def looked(
    pki: Pki, *bodies: Body, own: Callable[[list[int]], Body] | None = None, prefix: str = "", **more: Any
) -> tuple[Finding, ...]:
    """What is found at one such broker."""
    with broker(pki, *bodies, own=own) as port:
        return look(gathered(pki, f"127.0.0.1:{port}", **more), prefix)


def named(findings: tuple[Finding, ...], check: str) -> list[Finding]:
    """What a check has found."""
    return [finding for finding in findings if finding.check == check]
