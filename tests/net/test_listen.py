"""Our own doors, opened for real; shortages of the host are made up."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from mtlskit.config.values import ListenAddress, TcpAddress, UnixAddress
from mtlskit.errors import Code, ListenError
from mtlskit.net import listen, unix_file
from mtlskit.net.listen import RETRY_AFTER, AcceptFailed, Handler, Listener, open_listeners
from mtlskit.net.sockets import tune
from mtlskit.telemetry import Event
from tests.support.local_users import available_uids, finish, running_as


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = _has_ipv6()


def tcp(listener: Listener) -> list[TcpAddress]:
    return [address for address in listener.addresses if isinstance(address, TcpAddress)]


def refused(address: ListenAddress) -> ListenError:
    with pytest.raises(ListenError) as caught:
        open_listeners(address)
    assert "\n" not in caught.value.sentence
    return caught.value


async def connect(address: ListenAddress) -> trio.socket.SocketType:
    if isinstance(address, TcpAddress):
        sock = trio.socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
        where: object = (address.host, address.port)
    else:
        sock = trio.socket.socket(socket.AF_UNIX)
        where = str(address.path)
    try:
        await sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


async def echo(sock: trio.socket.SocketType) -> None:
    with sock:
        while data := await sock.recv(1000):
            await sock.send(data)


# --- opening TCP ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", *(["::1", "::"] if IPV6 else [])])
def test_the_real_port_is_known_after_opening(host: str) -> None:
    with open_listeners(TcpAddress(host, 0)) as listener:
        (address,) = tcp(listener)
        assert address.host == host
        assert address.port != 0


def test_localhost_is_every_family_on_one_port() -> None:
    with open_listeners(TcpAddress("localhost", 0)) as listener:
        addresses = tcp(listener)
    assert [address.host for address in addresses] == (["127.0.0.1", "::1"] if IPV6 else ["127.0.0.1"])
    assert len({address.port for address in addresses}) == 1


@contextmanager
def opening(monkeypatch: pytest.MonkeyPatch, answers: Callable[[TcpAddress], int]) -> Iterator[list[socket.socket]]:
    """Let `answers` decide how each single open ends: with an errno, or 0 for a socket. Yields the sockets opened."""
    opened: list[socket.socket] = []

    def fake(address: TcpAddress) -> socket.socket:
        if number := answers(address):
            raise OSError(number, os.strerror(number))
        opened.append(socket.create_server(("127.0.0.1", 0)))
        return opened[-1]

    monkeypatch.setattr(listen, "_open_tcp", fake)
    yield opened
    for sock in opened:
        assert sock.fileno() == -1  # nothing is left open


@pytest.mark.parametrize("absent", ["::1", "127.0.0.1"])
@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_localhost_does_with_one_family(absent: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        opening(monkeypatch, lambda address: number if address.host == absent else 0),
        open_listeners(TcpAddress("localhost", 0)) as listener,
    ):
        assert len(listener.addresses) == 1


def test_localhost_on_a_host_without_loopback_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with opening(monkeypatch, lambda _: errno.EADDRNOTAVAIL):
        assert refused(TcpAddress("localhost", 0)).code is Code.LISTEN_NOT_OUR_ADDRESS


def test_localhost_looks_for_a_port_that_is_free_in_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([errno.EADDRINUSE, errno.EADDRINUSE, 0])
    with (
        opening(monkeypatch, lambda address: next(taken) if address.host == "::1" else 0) as opened,
        open_listeners(TcpAddress("localhost", 0)) as listener,
    ):
        assert len(listener.addresses) == 2
        assert len(opened) == 4


@pytest.mark.parametrize("port", [0, 6432])
def test_localhost_gives_up_when_the_other_family_is_taken(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with opening(monkeypatch, lambda address: errno.EADDRINUSE if address.host == "::1" else 0):
        assert refused(TcpAddress("localhost", port)).code is Code.LISTEN_PORT_IN_USE


def test_both_wildcards_share_a_port() -> None:
    with open_listeners(TcpAddress("0.0.0.0", 0)) as four:
        port = tcp(four)[0].port
        with open_listeners(TcpAddress("::" if IPV6 else "127.0.0.1", port if IPV6 else 0)) as six:
            assert six.addresses


def test_a_port_in_use_names_its_holder_and_says_how_to_look() -> None:
    with open_listeners(TcpAddress("127.0.0.1", 0)) as listener:
        error = refused(listener.addresses[0])
    assert error.code is Code.LISTEN_PORT_IN_USE
    assert f"(pid {os.getpid()})" in error.sentence
    assert "ss -ltnp 'sport = :" in error.hint


def test_a_foreign_address_is_refused() -> None:
    assert refused(TcpAddress("192.0.2.1", 0)).code is Code.LISTEN_NOT_OUR_ADDRESS


@pytest.mark.parametrize("host", ["db.example.com", "", "127.1", "a\0b", "x..y"])
def test_a_name_is_not_looked_up(host: str) -> None:
    assert refused(TcpAddress(host, 0)).code is Code.LISTEN_NOT_OUR_ADDRESS


def test_an_unknown_scope_is_refused() -> None:
    assert refused(TcpAddress("fe80::1%no-such-interface", 0)).code is Code.LISTEN_NOT_OUR_ADDRESS


@pytest.mark.parametrize(
    ("number", "port", "code", "hint"),
    [
        (errno.EACCES, 432, Code.LISTEN_DENIED, "CAP_NET_BIND_SERVICE"),
        (errno.EPERM, 6432, Code.LISTEN_DENIED, "policy"),
        (errno.EMFILE, 6432, Code.LISTEN_FAILED, ""),
    ],
)
def test_other_reasons_have_their_codes(
    number: int, port: int, code: Code, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opening(monkeypatch, lambda _: number):
        error = refused(TcpAddress("127.0.0.1", port))
    assert error.code is code
    assert os.strerror(number) in error.sentence
    assert hint in error.hint


def test_on_windows_nobody_may_take_over_our_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_DONTROUTE, raising=False)  # another that can be read
    with listen._open_tcp(TcpAddress("127.0.0.1", 0)) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE) == 1


# --- opening unix sockets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_unix_socket_is_0600_before_it_listens(umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".s.PGSQL.6432"
    modes: list[int] = []
    real = unix_file._listen

    def look_first(sock: socket.socket, where: Path, backlog: int) -> unix_file.SocketFile:
        modes.append(stat.S_IMODE(where.lstat().st_mode) & 0o177)
        return real(sock, where, backlog)

    monkeypatch.setattr(unix_file, "_listen", look_first)
    before = os.umask(umask)
    try:
        with open_listeners(UnixAddress(path)) as listener:
            assert listener.addresses == (UnixAddress(path),)
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert modes == [0]  # nobody else's bit was set at any time
    assert not path.exists()


def test_where_a_socket_has_no_mode_the_file_is_changed_before_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, mode: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fchmod", refuse)
    with open_listeners(UnixAddress(tmp_path / "s")):
        assert stat.S_IMODE((tmp_path / "s").lstat().st_mode) == 0o600


def test_a_failure_after_bind_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(Path, "chmod", refuse)
    assert refused(UnixAddress(tmp_path / "s")).code is Code.LISTEN_FAILED
    assert list(tmp_path.iterdir()) == []


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    with open_listeners(UnixAddress(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("full", [False, True])
def test_a_live_socket_is_in_use(full: bool, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as waiting:
        live.bind(str(path))
        live.listen(0)
        if full:
            waiting.connect(str(path))
        error = refused(UnixAddress(path))
        assert error.code is Code.LISTEN_PORT_IN_USE
        assert path.is_socket()


def test_a_datagram_socket_is_in_use(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        assert refused(UnixAddress(tmp_path / "log")).code is Code.LISTEN_PORT_IN_USE


@pytest.mark.parametrize("what", ["file", "folder", "link to a dead socket"])
def test_what_is_not_a_socket_is_never_touched(what: str, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    if what == "file":
        path.write_text("data")
    elif what == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "dead"))
        path.symlink_to(tmp_path / "dead")
    before = path.lstat()
    assert refused(UnixAddress(path)).code is Code.LISTEN_UNIX_PATH
    assert path.lstat() == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    error = refused(UnixAddress(tmp_path / "none" / "s"))
    assert error.code is Code.LISTEN_UNIX_PATH
    assert f"mkdir -p -m 700 {tmp_path / 'none'}" in error.hint


def test_a_path_may_be_as_long_as_the_kernel_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # relative, so that the length does not depend on where the tests run
    with open_listeners(UnixAddress(Path("x" * unix_file.MAX_PATH))):
        pass
    error = refused(UnixAddress(Path("x" * (unix_file.MAX_PATH + 1))))
    assert error.code is Code.LISTEN_UNIX_PATH
    assert str(unix_file.MAX_PATH) in error.sentence


def test_a_zero_byte_in_a_path_is_refused() -> None:
    """On Linux a name that begins with one has no file, hence no mode: anybody could connect."""
    assert refused(UnixAddress(Path("\0abstract"))).code is Code.LISTEN_UNIX_PATH


def test_the_kernels_refusals_have_their_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {
        errno.EACCES: Code.LISTEN_DENIED,
        errno.EADDRINUSE: Code.LISTEN_PORT_IN_USE,
        errno.ENOTDIR: Code.LISTEN_UNIX_PATH,
        errno.ENOSPC: Code.LISTEN_FAILED,
    }
    for number, code in numbers.items():

        def refuse(address: UnixAddress, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(unix_file, "_clear_the_way", refuse)
        assert refused(UnixAddress(tmp_path / "s")).code is code


def test_a_platform_without_unix_sockets_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    assert refused(UnixAddress(Path("s"))).code is Code.CONFIG_NOT_SUPPORTED


def test_a_folder_that_somebody_keeps_locked_does_not_stop_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(unix_file, "LOCK_PAUSE", 0)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with open_listeners(UnixAddress(tmp_path / "s")):
            assert (tmp_path / "s").is_socket()
    finally:
        os.close(handle)


@pytest.mark.parametrize("call", ["open", "flock"])
def test_a_folder_that_cannot_be_locked_does_not_stop_us(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(*_: object) -> int:
        raise OSError(errno.EACCES if call == "open" else errno.ENOLCK, "no")

    monkeypatch.setattr(os if call == "open" else fcntl, call, refuse)
    with open_listeners(UnixAddress(tmp_path / "s")):
        assert (tmp_path / "s").is_socket()


def test_a_socket_that_may_not_be_asked_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe(socket.socket):
        def connect(self, where: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with socket.socket(socket.AF_UNIX) as others:
        others.bind(str(tmp_path / "s"))
    monkeypatch.setattr(socket, "socket", Probe)
    error = refused(UnixAddress(tmp_path / "s"))
    assert error.code is Code.LISTEN_DENIED
    assert "ls -ld" in error.hint
    assert (tmp_path / "s").is_socket()


def test_closing_leaves_a_file_that_is_no_longer_ours(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = open_listeners(UnixAddress(path))
    path.unlink()
    with open_listeners(UnixAddress(path)):
        listener.close()
        assert path.is_socket()
    assert not path.exists()


@pytest.mark.parametrize("uid", available_uids())
def test_only_the_owner_and_root_may_connect(uid: int, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    script = "socket.socket(socket.AF_UNIX).connect('s')"
    with open_listeners(UnixAddress(folder / "s")), running_as(uid, script, cwd=folder) as child:
        assert (finish(child) == 0) is (uid == os.getuid())


# --- accepting -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["127.0.0.1", "localhost", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> ListenAddress:
    return UnixAddress(tmp_path / "s") if request.param == "unix" else TcpAddress(request.param, 0)


async def test_clients_are_served_at_every_address_until_close(address: ListenAddress) -> None:
    async with trio.open_nursery() as sessions:
        listener = open_listeners(address)
        async with trio.open_nursery() as nursery:
            real = await nursery.start(partial(listener.serve, echo, nursery=sessions))
            assert real == listener.addresses
            clients = [await connect(each) for each in real]
            for client in clients:
                await client.send(b"ping")
                assert await client.recv(10) == b"ping"
            listener.close()
            listener.close()
        # serve has returned, new clients are refused, old ones go on.
        for each in real:
            with pytest.raises(OSError, match=r"refused|No such file"):
                await connect(each)
        for client in clients:
            await client.send(b"still here")
            assert await client.recv(10) == b"still here"
            client.close()


async def test_cancelling_serve_closes_the_listener(address: ListenAddress) -> None:
    listener = open_listeners(address)
    async with trio.open_nursery() as nursery:
        (real, *_) = await nursery.start(partial(listener.serve, echo, nursery=nursery))
        nursery.cancel_scope.cancel()
    with pytest.raises(OSError, match=r"refused|No such file"):
        await connect(real)


async def test_a_client_that_waited_before_serve_is_served() -> None:
    with open_listeners(TcpAddress("127.0.0.1", 0)) as listener:
        client = await connect(listener.addresses[0])
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(listener.serve, echo, nursery=nursery))
            with client:
                await client.send(b"x")
                assert await client.recv(1) == b"x"
            listener.close()


async def test_accepted_tcp_sockets_do_not_delay_and_are_kept_alive() -> None:
    options: list[int] = []

    async def look(sock: trio.socket.SocketType) -> None:
        with sock:
            options.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            options.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            if hasattr(socket, "TCP_KEEPIDLE"):
                options.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))

    listener = open_listeners(TcpAddress("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(listener.serve, look, nursery=nursery))
        with await connect(listener.addresses[0]) as client:
            assert await client.recv(1) == b""
        listener.close()
    assert options == [1, 1, 60]


class ShortSocket:
    """A listening socket whose accept fails with these errnos, in this order; 0 and the end of the list work."""

    def __init__(self, real: trio.socket.SocketType, numbers: list[int]) -> None:
        self.real = real
        self.numbers = numbers

    async def accept(self) -> tuple[trio.socket.SocketType, object]:
        number = self.numbers.pop(0) if self.numbers else 0
        if number:
            await trio.lowlevel.checkpoint()
            raise OSError(number, os.strerror(number))
        return await self.real.accept()


def shortages(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    real = trio.socket.from_stdlib_socket
    monkeypatch.setattr(trio.socket, "from_stdlib_socket", lambda sock: ShortSocket(real(sock), list(numbers)))


async def serve_one(events: list[Event], handler: Handler = echo) -> None:
    """Serve one client through to the end."""
    listener = open_listeners(TcpAddress("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(listener.serve, handler, nursery=nursery, emit=events.append))
        with await connect(listener.addresses[0]) as client:
            await client.send(b"x")
            assert await client.recv(1) == b"x"
        listener.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM])
async def test_a_shortage_is_said_once_and_outlived(
    number: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    shortages(monkeypatch, number, number, number)
    events: list[Event] = []
    start = trio.current_time()
    await serve_one(events)
    assert trio.current_time() == pytest.approx(start + 3 * RETRY_AFTER)  # the mock clock: it waited, and did not spin
    (event,) = events
    assert isinstance(event, AcceptFailed)
    assert os.strerror(number) in event.sentence()


async def test_each_episode_is_said(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    shortages(monkeypatch, errno.EMFILE, errno.EMFILE, 0, errno.EMFILE, errno.EMFILE, 0)
    events: list[Event] = []
    listener = open_listeners(TcpAddress("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(listener.serve, echo, nursery=nursery, emit=events.append))
        for _ in range(2):
            with await connect(listener.addresses[0]) as client:
                await client.send(b"x")
                assert await client.recv(1) == b"x"
        listener.close()
    assert [type(event) for event in events] == [AcceptFailed, AcceptFailed]


async def test_a_client_that_gave_up_is_nobodys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shortages(monkeypatch, errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN)
    events: list[Event] = []
    await serve_one(events)
    assert events == []


async def test_a_socket_that_no_longer_listens_ends_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    shortages(monkeypatch, errno.EINVAL)
    listener = open_listeners(TcpAddress("localhost", 0))
    async with trio.open_nursery() as sessions:
        with pytest.raises(ListenError) as caught:
            await listener.serve(echo, nursery=sessions)
    assert caught.value.code is Code.LISTEN_FAILED
    with pytest.raises(ConnectionRefusedError):
        await connect(listener.addresses[0])


async def test_closing_during_a_shortage_ends_serve(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    shortages(monkeypatch, *[errno.EMFILE] * 1000)
    listener = open_listeners(TcpAddress("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:

        def close_at_the_first(event: Event) -> None:
            listener.close()

        await nursery.start(partial(listener.serve, echo, nursery=nursery, emit=close_at_the_first))


async def test_an_accept_that_finds_its_socket_closed_ends_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = open_listeners(TcpAddress("127.0.0.1", 0))

    async def accept() -> None:
        listener.close()
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(trio.socket, "from_stdlib_socket", lambda sock: SimpleNamespace(accept=accept))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(listener.serve, echo, nursery=nursery))


async def test_a_client_that_is_gone_before_it_is_prepared_is_the_handlers_affair() -> None:
    with trio.socket.socket() as client:
        client.close()
        tune(client)  # every option is refused now


async def test_descriptors_really_run_out() -> None:
    """Not made up: every descriptor of this process is taken, and given back when the loop has said so."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    events: list[Event] = []
    short = trio.Event()

    def note(event: Event) -> None:
        events.append(event)
        short.set()

    listener = open_listeners(TcpAddress("127.0.0.1", 0))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(listener.serve, echo, nursery=nursery, emit=note))
            await trio.testing.wait_all_tasks_blocked()
            client = trio.socket.socket()
            (where,) = tcp(listener)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
            with suppress(OSError):
                while True:
                    held.append(os.dup(0))
            await client.connect((where.host, where.port))
            await short.wait()
            while held:
                os.close(held.pop())
            with client:
                await client.send(b"x")
                assert await client.recv(1) == b"x"
            listener.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in held:
            os.close(handle)
    assert len(events) == 1


async def test_a_client_for_a_nursery_that_is_gone_is_closed() -> None:
    async with trio.open_nursery() as gone:
        pass
    listener = open_listeners(TcpAddress("127.0.0.1", 0))
    with await connect(listener.addresses[0]) as client:
        with pytest.RaisesGroup(RuntimeError):
            await listener.serve(echo, nursery=gone)
        assert await client.recv(1) == b""
