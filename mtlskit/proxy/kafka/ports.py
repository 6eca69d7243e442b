"""Which address of ours stands for which broker: a function of the node id, so that it is the same after a restart.

Clients write addresses into their configuration, firewalls into their rules, and aiokafka never asks the bootstrap
address again, so a broker that changed its port at every restart would be lost to them.
"""

from __future__ import annotations

from mtlskit.config.values import KafkaDoors, TcpAddress
from mtlskit.errors import Code, ListenError

__all__ = ["HIGHEST_PORT", "BrokerPorts"]

HIGHEST_PORT = 65535


class BrokerPorts:
    """The plan of one tunnel. `listen` is as configured, `port` what the tunnel's own listener has got."""

    def __init__(self, tunnel: str, doors: KafkaDoors, listen: TcpAddress, port: int) -> None:
        self._tunnel = tunnel
        self._doors = doors
        self._host = listen.host
        self._own = port
        self._named = dict(doors.ports)
        self._taken = {port: "the tunnel itself"} | {taken: f"broker {node}" for node, taken in doors.ports}
        first = doors.first_port
        if first is None:
            first = port + 1 if listen.port else 0
        self._first = first

    def __str__(self) -> str:
        """For the log: where brokers are found."""
        doors = self._doors
        if doors.first_address is not None:
            plan = f"broker N on {doors.first_address} + N"
        elif self._first:
            plan = f"broker N on port {self._first} + N"
        else:
            plan = "brokers on free ports"
        named = ", ".join(f"{node} on {port}" for node, port in doors.ports)
        return f"{plan}, {named}" if named else plan

    def address_of(self, node_id: int) -> TcpAddress:
        """Where to listen for a node; port 0 where the kernel is to choose. Raises ListenError (KAFKA_NO_LISTENER)."""
        named = self._named.get(node_id)
        if named is not None:
            return TcpAddress(self._host, named)
        doors = self._doors
        if doors.first_address is not None:
            address = doors.first_address + node_id
            if not address.is_loopback:
                raise self._none(
                    node_id, f"would be at {address}, which is no loopback address", "first_broker_address"
                )
            return TcpAddress(str(address), self._own)
        if not self._first:
            return TcpAddress(self._host, 0)
        port = self._first + node_id
        last = min(doors.last_port, HIGHEST_PORT)
        if port > last:
            what = "last_broker_port" if doors.last_port < HIGHEST_PORT else "the highest port there is"
            raise self._none(node_id, f"would be on port {port}, above {last}, {what}", "first_broker_port")
        if port in self._taken:
            raise self._none(node_id, f"would be on port {port}, which is {self._taken[port]}'s", "first_broker_port")
        return TcpAddress(self._host, port)

    def _none(self, node_id: int, why: str, key: str) -> ListenError:
        return ListenError(
            Code.KAFKA_NO_LISTENER,
            f"the listener of broker {node_id} {why}",
            f"name a port for it, brokers = {{ {node_id} = PORT }}, or change {key} of [tunnel.{self._tunnel}]",
        )
