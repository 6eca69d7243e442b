"""Where the tunnel of a file has its listeners for the brokers of the cluster, and which broker can have none."""

from __future__ import annotations

from typing import Final

from mtlskit.config.reach import broker_listeners
from mtlskit.config.values import TcpAddress
from mtlskit.doctor.case import Case
from mtlskit.doctor.finding import Finding, Layer, failed, passed
from mtlskit.doctor.kafka.members import MOST_VISITED, address_of
from mtlskit.errors import Code, ListenError
from mtlskit.proxy.kafka.loops import OurListeners
from mtlskit.proxy.kafka.ports import BrokerPorts
from mtlskit.wire.kafka.cluster import Cluster, Member

__all__ = ["plan_listeners"]

_CHECK: Final = "kafka.listener"
_SHOWN: Final = 8


def plan_listeners(case: Case, cluster: Cluster) -> list[Finding]:
    """One finding for each broker that can have no listener, or one for all of them. None without a file."""
    listen = case.tunnel.listen
    if not case.of_file or not isinstance(listen, TcpAddress) or not cluster.members:
        return []
    ports = BrokerPorts(case.name, case.tunnel.kafka, listen, listen.port)
    ours = OurListeners(_our_listeners(case))
    failures: list[Finding] = []
    planned: dict[int, TcpAddress] = {}
    for member in sorted(cluster.members, key=lambda member: member.node_id)[:MOST_VISITED]:
        try:
            planned[member.node_id] = ports.address_of(member.node_id)
            _check_way(case, member, ours)
        except ListenError as exc:
            failures.append(failed(Layer.KAFKA, _CHECK, exc, about=f"broker {member.node_id}", broker=member.node_id))
    if failures:
        return failures
    told = [f"{node} on {_told(address)}" for node, address in planned.items()]
    rest = f", and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return [
        passed(
            Layer.KAFKA,
            _CHECK,
            f"each broker has a listener in the tunnel: {', '.join(told[:_SHOWN])}{rest}",
            listeners={str(node): str(address) for node, address in planned.items()},
        )
    ]


def _check_way(case: Case, member: Member, ours: OurListeners) -> None:
    """Raises ListenError for a broker that is said to be at a listener of this file: its tunnel would meet itself."""
    endpoint = address_of(member)
    if endpoint is not None and ours.reached_by(endpoint):
        raise ListenError(
            Code.KAFKA_NO_LISTENER,
            f"the cluster says that broker {member.node_id} is at {endpoint}, which is a listener of this file's own",
            "have the broker advertise (advertised.listeners) the address at which this host reaches it, or let the"
            f" tunnel listen on other ports: listen and first_broker_port of [tunnel.{case.name}]",
        )


def _our_listeners(case: Case) -> list[TcpAddress]:
    found = [tunnel.listen for tunnel in case.config.tunnels if isinstance(tunnel.listen, TcpAddress)]
    found += [address for tunnel in case.config.tunnels for _, address in broker_listeners(tunnel)]
    return found


def _told(address: TcpAddress) -> str:
    return str(address) if address.port else f"{address.host}, a free port"
