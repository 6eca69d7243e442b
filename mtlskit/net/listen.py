"""Our own doors: TCP and unix listeners that are opened once, and an accept loop that outlives what befalls it.

Theory of operation.

* **Opening** is synchronous and all or nothing: when `open_listeners` returns, the kernel takes connections on every
  address, and the real ports are known. `localhost` is two sockets, 127.0.0.1 and ::1, on one port: a client may try
  either, and whatever else sat behind the same port of the other family would see its password.
* **Accepting** must not end while the process lives. Running out of file descriptors or memory passes: the loop says
  so once and tries again; the clients wait in the kernel's queue. A client that gave up while it waited is nobody's
  error. Only a listening socket that no longer is one ends the loop.
* **Closing** refuses new clients at once, because the listening socket is gone, and leaves the accepted ones alone.
  It takes the file of a unix socket along.

A handler owns the socket it is given and closes it; it runs in a nursery of the caller's, so that accepting can end
while sessions go on.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import ClassVar, Final, Self, TypeAlias

import trio

from mtlskit.config.values import ListenAddress, TcpAddress, UnixAddress
from mtlskit.errors import Code, ListenError
from mtlskit.net.sockets import tune
from mtlskit.net.socktables import listening_program
from mtlskit.net.unix_file import SocketFile, bind_unix
from mtlskit.telemetry import Emit, Event, Level, silent

__all__ = ["AcceptFailed", "Handler", "Listener", "open_listeners"]

Handler: TypeAlias = Callable[[trio.socket.SocketType], Awaitable[None]]

BACKLOG: Final = 1024
"""Clients that may wait for us to accept. A pool that starts 200 connections at once must not see a refusal; the
kernel lowers it to its own limit (net.core.somaxconn)."""

RETRY_AFTER: Final = 0.1
"""Seconds between attempts while the process is out of descriptors: soon enough for people, rare enough not to spin."""

PORT_ATTEMPTS: Final = 20
"""How often to look for a port that is free in both families. One attempt nearly always does."""

# accept(2): the end of one client before it was accepted. Linux reports any network error that waits on the new socket.
_ONE_CLIENT: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EPROTO", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ENOPROTOOPT", "EOPNOTSUPP", "ENONET"),
    )
    if hasattr(errno, name)  # ENONET is Linux only
)

# The socket does not listen (any more). Trying again cannot help.
_BROKEN: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})

# This host does not have the address family, or not this loopback address.
_NO_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


@dataclass(frozen=True, kw_only=True)
class AcceptFailed(Event):
    """A client could not be accepted. Emitted once, until a client has been accepted again."""

    level: ClassVar[Level] = Level.WARNING

    address: str
    reason: str

    def sentence(self) -> str:
        return f"{self.address} cannot accept clients for now: {self.reason}; they wait, and it is tried again"


def open_listeners(address: ListenAddress, *, name_holder: bool = True) -> Listener:
    """Open what `address` names. From here on clients can connect; `Listener.serve` accepts them.

    `name_holder`: where the port is in use, look who has it, which takes a tenth of a second on a busy host.
    Raises ListenError: the port or path is in use, is not ours, needs privileges, and so on.
    """
    if isinstance(address, UnixAddress):
        sock, file = bind_unix(address, BACKLOG)
        return Listener([(sock, address)], file)
    if address.host != "localhost" and not _is_ip(address.host):
        raise ListenError(
            Code.LISTEN_NOT_OUR_ADDRESS,
            f"{address} is neither an IP address nor localhost",
            "names are not looked up for listening: write the address, such as 127.0.0.1",
        )
    try:
        sockets = _open_localhost(address.port) if address.host == "localhost" else [_open_tcp(address)]
    except OSError as exc:
        raise _explained(address, exc, name_holder) from exc
    return Listener([(sock, _tcp_address(sock)) for sock in sockets])


class Listener:
    """One or more listening sockets that stand for one configured address. Close it, or use it with `with`."""

    def __init__(self, sockets: Iterable[tuple[socket.socket, ListenAddress]], file: SocketFile | None = None) -> None:
        self._sockets = tuple(sockets)
        self._file = file
        self._accepting = False
        self._closed = False

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """The real addresses: port 0 has become the port that the kernel chose."""
        return tuple(address for _, address in self._sockets)

    async def serve(
        self,
        handler: Handler,
        *,
        nursery: trio.Nursery,
        emit: Emit = silent,
        task_status: trio.TaskStatus[tuple[ListenAddress, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept clients until `close` is called, and start `handler(socket)` in `nursery` for each of them.

        The handler owns the socket and must deal with its own errors: one that escapes cancels `nursery`, as in any
        nursery. Closes the listener on the way out, cancelled or not: clients are refused, not left in a queue that
        nobody serves. Raises ListenError if a listening socket breaks.
        """
        self._accepting = True
        broken: ListenError | None = None
        try:
            async with trio.open_nursery() as loops:
                for sock, address in self._sockets:
                    loops.start_soon(self._accept_loop, sock, address, handler, nursery, emit)
                task_status.started(self.addresses)
        except* ListenError as group:
            broken = next(exc for exc in group.exceptions if isinstance(exc, ListenError))
        finally:
            self.close()
        if broken is not None:
            raise broken

    def close(self) -> None:
        """Stop accepting: new clients are refused from now on, accepted ones are not touched. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._file is not None:
            # Before the socket is closed: until then its inode cannot be given to another file.
            self._file.remove()
        for sock, _ in self._sockets:
            if self._accepting:
                trio.lowlevel.notify_closing(sock)  # wakes the loop, which else would wait on a recycled descriptor
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def _accept_loop(
        self, sock: socket.socket, address: ListenAddress, handler: Handler, nursery: trio.Nursery, emit: Emit
    ) -> None:
        if self._closed:
            return  # before this task has run for the first time: a signal came right after the start
        listening = trio.socket.from_stdlib_socket(sock)
        failing = False
        while not self._closed:
            try:
                client, _ = await listening.accept()
            except trio.ClosedResourceError:
                return  # closed while waiting
            except OSError as exc:
                if self._closed:
                    return
                if exc.errno in _BROKEN:
                    raise ListenError(Code.LISTEN_FAILED, f"{address} no longer listens: {_reason(exc)}") from exc
                if exc.errno in _ONE_CLIENT:
                    continue  # the failed accept was a checkpoint: other tasks get their turn
                # EMFILE, ENFILE, ENOBUFS, ENOMEM: the host is short of something, and it passes. So may what is not
                # known here, and a pause keeps it from spinning.
                if not failing:
                    emit(AcceptFailed(address=str(address), reason=_reason(exc)))
                failing = True
                await trio.sleep(RETRY_AFTER)
            else:
                failing = False
                tune(client)
                _start(nursery, handler, client)


def _start(nursery: trio.Nursery, handler: Handler, client: trio.socket.SocketType) -> None:
    try:
        nursery.start_soon(handler, client)
    except RuntimeError:  # the nursery has been left: nobody else would close the socket
        client.close()
        raise


def _open_localhost(port: int) -> list[socket.socket]:
    """127.0.0.1 and ::1 on the same port, or one of them on a host that has but one family. Raises OSError."""
    for _ in range(PORT_ATTEMPTS - 1 if port == 0 else 0):
        try:
            return _open_families(port)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            # The kernel chose a port for IPv4 that somebody holds in IPv6: let it choose another.
    return _open_families(port)


def _open_families(port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: list[OSError] = []
    try:
        for host in ("127.0.0.1", "::1"):
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_open_tcp(TcpAddress(host, chosen)))
            except OSError as exc:
                if exc.errno not in _NO_FAMILY:
                    raise
                missing.append(exc)
        if not sockets:
            raise missing[0]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _open_tcp(address: TcpAddress) -> socket.socket:
    """One listening socket. Raises OSError."""
    # AI_NUMERICHOST: no name is ever looked up, and "fe80::1%eth0" keeps its scope.
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # Without it a restart fails for as long as old connections are in TIME_WAIT.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            # On Windows SO_REUSEADDR would let another program take over our port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        if family == socket.AF_INET6:
            # "::" leaves IPv4 alone: it does not clash with "0.0.0.0", nor admit what the allowlist calls IPv4.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _tcp_address(sock: socket.socket) -> TcpAddress:
    host, port = sock.getsockname()[:2]
    return TcpAddress(host, port)


def _reason(exc: OSError) -> str:
    return exc.strerror or str(exc)


def _explained(address: TcpAddress, exc: OSError, name_holder: bool) -> ListenError:
    """The error for people, by errno."""
    number = exc.errno
    if number == errno.EADDRINUSE:
        holder = listening_program(address.port) if name_holder else None
        return ListenError(
            Code.LISTEN_PORT_IN_USE,
            f"{address} is already in use" + (f" by {holder}" if holder else ""),
            f"see who listens with `ss -ltnp 'sport = :{address.port}'`, or choose another port (0: any free one)",
        )
    if isinstance(exc, socket.gaierror) or number in _NO_FAMILY:
        return ListenError(
            Code.LISTEN_NOT_OUR_ADDRESS,
            f"{address} is not an address of this host",
            "list this host's addresses with `ip -brief address`; 127.0.0.1 serves clients on this host",
        )
    if number in (errno.EACCES, errno.EPERM):
        low = 0 < address.port < 1024
        return ListenError(
            Code.LISTEN_DENIED,
            f"{address} may not be opened by this user: {_reason(exc)}",
            "choose a port of 1024 or more, or give the service CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=)"
            if low
            else "a security policy of this host (SELinux, seccomp) or an excluded port range forbids it",
        )
    return ListenError(Code.LISTEN_FAILED, f"{address} cannot be opened: {_reason(exc)}")


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
