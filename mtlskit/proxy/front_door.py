"""The front door: who may use a tunnel. One predicate decides, and what is not clearly allowed is refused.

The client certificate of a tunnel is the key to a database, and a local port is open to everybody on the host. So
two questions are asked of each client, and both must be answered with yes:

* its **address** is in `allow_clients`; without that setting it is a loopback address. A client on a unix socket has
  no address: the file's mode has let it in.
* its **user** is in `allow_users`; without that setting any will do. A user whom the kernel does not name is refused.

Names and networks are turned into numbers once, when the door is made. Deciding is pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import ModuleType

from mtlskit.config.values import FROM_FLAGS, Network
from mtlskit.errors import ClientNotAllowed, Code, ConfigError
from mtlskit.net.peer import Peer, users_can_be_known

__all__ = ["FrontDoor"]

_LAST_UID = 0xFFFF_FFFE  # (uid_t) -1 means "nobody at all" to the kernel


class FrontDoor:
    """Decides about clients of one tunnel. `tunnel` is its name in the configuration, for hints.

    Raises ConfigError for a user that this host does not know, and where the platform cannot tell users apart.
    """

    def __init__(
        self, allow_clients: Iterable[Network] = (), allow_users: Iterable[str] = (), *, tunnel: str = ""
    ) -> None:
        self._networks = tuple(_plain_network(network) for network in allow_clients)
        users = tuple(allow_users)
        self._spelling = _Spelling(tunnel)
        self._uids = frozenset(_uids(users, self._spelling.users)) if users else None

    @property
    def loopback_only(self) -> bool:
        """Whether clients from other hosts are refused, whatever else they are."""
        return not self._networks or all(network.is_loopback for network in self._networks)

    @property
    def needs_user(self) -> bool:
        """Whether the decision depends on the local user; the kernel need not be asked otherwise."""
        return self._uids is not None

    def decide(self, peer: Peer) -> None:
        """Return if `peer` may come in. Raises ClientNotAllowed if not."""
        self._decide_address(peer)
        self._decide_user(peer)

    def _decide_address(self, peer: Peer) -> None:
        if peer.address is None:
            return
        address = _plain_address(peer.address)
        if not self._networks:
            if address.is_loopback:
                return
            raise ClientNotAllowed(
                Code.DOOR_ADDRESS,
                f"{address} may not use this tunnel: only clients on its own host may",
                f"to admit other hosts, {self._spelling.set_clients(f'{address}/{address.max_prefixlen}')}",
            )
        if not any(address in network for network in self._networks):
            raise ClientNotAllowed(
                Code.DOOR_ADDRESS,
                f"{address} may not use this tunnel: it is not in allow_clients",
                f"to admit it, {self._spelling.add_client(f'{address}/{address.max_prefixlen}')}",
            )

    def _decide_user(self, peer: Peer) -> None:
        if self._uids is None:
            return
        if peer.user is None:
            raise ClientNotAllowed(
                Code.DOOR_USER_UNKNOWN,
                f"the local user behind {peer} cannot be found out, and this tunnel admits certain users only",
                "connect to 127.0.0.1, ::1 or a unix socket on the tunnel's own host, and wait for the answer; or "
                f"remove {self._spelling.users}{self._spelling.where}",
            )
        if peer.user.uid not in self._uids:
            raise ClientNotAllowed(
                Code.DOOR_USER,
                f"{peer.user} may not use this tunnel: it is not in allow_users",
                f"to admit it, {self._spelling.add_user(peer.user.uid)}",
            )


class _Spelling:
    """How the operator of a tunnel writes its settings: in a file, or as flags."""

    def __init__(self, tunnel: str) -> None:
        self._flags = tunnel == FROM_FLAGS
        self.where = f" of [tunnel.{tunnel}]" if tunnel and not self._flags else ""
        self.users = "--allow-user (allow_users in a file)" if self._flags else "allow_users"

    def set_clients(self, network: str) -> str:
        written = f'allow_clients = ["{network}"]'
        return f"say --allow-client {network} ({written} in a file)" if self._flags else f"set {written}{self.where}"

    def add_client(self, network: str) -> str:
        if self._flags:
            return f'add --allow-client {network} ("{network}" to allow_clients in a file)'
        return f'add "{network}" to allow_clients{self.where}'

    def add_user(self, uid: int) -> str:
        if self._flags:
            return f'add --allow-user {uid} ("{uid}" to allow_users in a file), or its name (`id -un {uid}`)'
        return f'add "{uid}" or its name (`id -un {uid}`) to allow_users{self.where}'


def _plain_address(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4-mapped IPv6 address as the IPv4 address that it is: a dual-stack socket must not open a second way in."""
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))  # without a scope (%eth0), which no network has


def _plain_network(network: Network) -> Network:
    """The same for a network that lies within ::ffff:0:0/96."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


def _uids(users: Iterable[str], setting: str) -> Iterable[int]:
    if not users_can_be_known():
        raise ConfigError(
            Code.CONFIG_NOT_SUPPORTED,
            f"{setting}: this platform does not tell which local user a client is",
            f"remove {setting}, or listen on a unix socket, which its owner alone can use",
        )
    import pwd  # Unix only, as is whoever has got here

    return [_uid(name, pwd, setting) for name in users]


def _uid(name: str, pwd: ModuleType, setting: str) -> int:
    """A user's number: by name first, as chown does, then as a number."""
    try:
        return int(pwd.getpwnam(name).pw_uid)
    except (KeyError, ValueError) as exc:  # ValueError: a zero byte
        if name.isascii() and name.isdecimal() and len(name) <= 10 and int(name) <= _LAST_UID:
            return int(name)
        close = difflib.get_close_matches(name, [entry.pw_name for entry in pwd.getpwall()], n=3)
        raise ConfigError(
            Code.CONFIG_BAD_VALUE,
            f"{setting}: this host has no user {name!r}" + (f", but {_either(close)}" if close else ""),
            "see the names with `getent passwd`, or write the number (`id -u NAME`)",
        ) from exc


def _either(names: list[str]) -> str:
    return " or ".join(repr(name) for name in names)
