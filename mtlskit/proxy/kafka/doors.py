"""Opening the listener of one broker, and who has its port where that is one of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from mtlskit.config.values import ListenAddress, TcpAddress
from mtlskit.errors import Code, ListenError
from mtlskit.net.listen import Listener, open_listeners

__all__ = ["HolderOf", "collides", "nobody", "open_door"]

HolderOf: TypeAlias = Callable[[TcpAddress], str]
"""Who of this process listens at an address, for a sentence; empty: nobody. Any thread calls it, and it must not wait
for a lock: its caller holds the one of a tunnel's brokers."""

_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})
_LOCALHOST: Final = frozenset({"127.0.0.1", "::1"})


def nobody(_address: TcpAddress) -> str:
    """For a tunnel that knows of no other."""
    return ""


def open_door(tunnel: str, node_id: int, address: TcpAddress, holder_of: HolderOf) -> Listener:
    """Raises ListenError. Where another program has the port it is not looked for: that takes a tenth of a second, and
    the relay's thread is the one that calls."""
    try:
        return open_listeners(address, name_holder=False)
    except ListenError as exc:
        if exc.code is not Code.LISTEN_PORT_IN_USE:
            raise
        other = (
            f"give the broker another port: brokers = {{ {node_id} = PORT }} in [tunnel.{tunnel}], or another"
            " first_broker_port; it is tried again"
        )
        if holder := holder_of(address):
            raise ListenError(exc.code, f"{exc.sentence} by {holder} of this very proxy", other) from exc
        find = f"see who has it with `ss -ltnp 'sport = :{address.port}'`, and end that or {other}"
        raise ListenError(exc.code, exc.sentence, find) from exc


def collides(address: TcpAddress, open_ones: Iterable[ListenAddress]) -> bool:
    """Whether one of them, which are listened on, keeps others from `address`."""
    hosts = _LOCALHOST if address.host == "localhost" else {address.host}
    return any(
        isinstance(own, TcpAddress)
        and own.port == address.port
        and (own.host in hosts or own.host in _EVERYWHERE or not hosts.isdisjoint(_EVERYWHERE))
        for own in open_ones
    )
