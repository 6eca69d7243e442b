"""Faults of the local side: real proxies, real PostgreSQL servers, and whatever else may sit at a tunnel's address."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import psycopg

from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_file
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Fault, Stage
from tests.services.clients import conninfo
from tests.services.places import free_port, scratch_folder
from tests.services.postgres import PostgresServer
from tests.services.settings import ServerOptions
from tests.support.bad_servers import says, says_nothing, serving
from tests.support.kafka_tunnel import kafka_toml
from tests.support.proxy_process import ProxyProcess, tunnel_flags, tunnel_toml

PLAIN_HBA: Final = ("local all all trust", "host all all all trust")


class Scene:
    """A file with one tunnel, `reporting`, to the shared server; a proxy for it where a fault starts one."""

    def __init__(self, stage: Stage) -> None:
        self.server: PostgresServer = stage.fixture("postgres")
        self.stage = stage
        self.folder = stage.folder / "proxy"
        self.folder.mkdir()
        self.file = self.folder / "mtlskit.toml"
        self.port = free_port()
        self.running: ProxyProcess | None = None

    @property
    def listen(self) -> str:
        """The tunnel's address, as TOML."""
        return f'"127.0.0.1:{self.port}"'

    def write(self, **keys: str) -> None:
        """The file, with further keys."""
        self.file.write_text(tunnel_toml(self.server, "reporting", **({"listen": self.listen} | keys)))

    def proxy(self) -> ProxyProcess:
        """One that serves the file."""
        return ProxyProcess(["--config", str(self.file)], folder=self.folder)

    def gathered(self, **environ: str) -> Gathered:
        """The doctor's view of the file."""
        return from_file(self.file, ["reporting"], means(environ))


def means(environ: Mapping[str, str]) -> Means:
    """Short steps; the folder of control sockets is the one of these tests."""
    known = {name: os.environ[name] for name in ("XDG_RUNTIME_DIR",) if name in os.environ}
    return Means(environ=known | dict(environ), step=2, deadline=10)


Around = Callable[[Scene], AbstractContextManager[None]]


def _before_nobody(scene: Scene) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def without_proxy(
    stage: Stage, around: Around = _before_nobody, keys: Callable[[Scene], dict[str, str]] = lambda scene: {}
) -> Iterator[Gathered]:
    """No proxy runs; `around` puts something else there."""
    scene = Scene(stage)
    scene.write(**keys(scene))
    with around(scene):
        yield scene.gathered()


@contextmanager
def with_proxy(
    stage: Stage,
    then: Around = _before_nobody,
    *,
    keys: Callable[[Scene], dict[str, str]] = lambda scene: {},
    environ: Mapping[str, str] | None = None,
) -> Iterator[Gathered]:
    """A proxy serves the file; `then` breaks something."""
    scene = Scene(stage)
    scene.write(**keys(scene))
    with scene.proxy() as proxy:
        scene.running = proxy
        with then(scene):
            yield scene.gathered(**(environ or {}))


# Who else may be there.


@contextmanager
def a_web_server(scene: Scene) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", scene.port), BaseHTTPRequestHandler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def a_server_that(behaves: Any, scene: Scene) -> Iterator[None]:
    """Its port is its own choice, so the file follows."""
    with serving(behaves) as (_, port):
        scene.port = port
        scene.write()
        yield


@contextmanager
def another_postgres(scene: Scene) -> Iterator[None]:
    scene.port = scene.stage.fixture("make_postgres")().port
    scene.write()
    yield


@contextmanager
def a_plain_postgres(scene: Scene) -> Iterator[None]:
    """One without TLS: it answers SSLRequest as a proxy does."""
    server = scene.stage.fixture("make_postgres")(ServerOptions(hba=PLAIN_HBA, tls=False))
    scene.port = server.port
    scene.write()
    yield


@contextmanager
def another_proxy(scene: Scene) -> Iterator[None]:
    """From flags, and it leads elsewhere."""
    folder = scene.stage.folder / "other"
    folder.mkdir()
    flags = tunnel_flags(scene.server, listen=f"127.0.0.1:{scene.port}", upstream="localhost:1")
    with ProxyProcess(flags, folder=folder):
        yield


@contextmanager
def short_folder_of(scene: Scene, name: str) -> Iterator[Path]:
    """For a unix socket, whose path ends at 107 bytes; the file names it."""
    with scratch_folder("mtlskit-doctor-", None) as folder:
        path = folder / name
        scene.write(listen=f'"unix:{path}"')
        yield path


@contextmanager
def a_stale_socket(scene: Scene) -> Iterator[None]:
    with short_folder_of(scene, ".s.PGSQL.6432") as path:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(os.fspath(path))
        yield


@contextmanager
def a_file_in_its_place(scene: Scene) -> Iterator[None]:
    with short_folder_of(scene, ".s.PGSQL.6432") as path:
        path.write_text("somebody's notes")
        yield


@contextmanager
def a_socket_that_was_removed(stage: Stage) -> Iterator[Gathered]:
    scene = Scene(stage)
    with short_folder_of(scene, ".s.PGSQL.6432") as path, scene.proxy():
        path.unlink()
        yield scene.gathered()


# What becomes of a proxy that runs.


@contextmanager
def stopped(scene: Scene) -> Iterator[None]:
    proxy = scene.running
    assert proxy is not None
    proxy.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        proxy.signal(signal.SIGCONT)


@contextmanager
def file_changed(scene: Scene) -> Iterator[None]:
    with scene.file.open("a") as file:
        file.write("# the night shift was here\n")
    yield


@contextmanager
def listen_changed(scene: Scene) -> Iterator[None]:
    scene.port = free_port()
    scene.write()
    yield


@contextmanager
def upstream_changed(scene: Scene) -> Iterator[None]:
    scene.server = scene.stage.fixture("make_postgres")()
    scene.write()
    yield


@contextmanager
def cert_changed(scene: Scene) -> Iterator[None]:
    other = scene.server.pki.certuser
    scene.write(cert=f'"{other.cert}"', key=f'"{other.key}"')
    yield


@contextmanager
def one_client_inside(scene: Scene) -> Iterator[None]:
    """It holds the only seat."""
    proxy = scene.running
    assert proxy is not None
    with psycopg.connect(conninfo(proxy.parameters("trustuser"))):
        yield


@contextmanager
def tunnel_that_came_later(stage: Stage) -> Iterator[Gathered]:
    """The proxy was started before the tunnel was written down."""
    scene = Scene(stage)
    scene.file.write_text(tunnel_toml(scene.server, "earlier"))
    with scene.proxy():
        with scene.file.open("a") as file:
            file.write(tunnel_toml(scene.server, "reporting", listen=scene.listen))
        yield scene.gathered()


@contextmanager
def identity_changed(stage: Stage) -> Iterator[Gathered]:
    """The files hold another pair since: the proxy looks at them every five seconds, and the doctor comes before."""
    scene = Scene(stage)
    pki = scene.server.pki
    cert, key = scene.folder / "client.crt", scene.folder / "client.key"
    _copy(pki.client.cert, cert)
    _copy(pki.client.key, key)
    scene.write(cert=f'"{cert}"', key=f'"{key}"')
    with scene.proxy():
        _copy(pki.certuser.key, key)
        _copy(pki.certuser.cert, cert)
        yield scene.gathered()


def _copy(source: Path, target: Path) -> None:
    """The whole file at once, with its mode."""
    beside = target.with_suffix(".new")
    shutil.copy2(source, beside)
    beside.replace(target)


@contextmanager
def tunnel_failed(stage: Stage) -> Iterator[Gathered]:
    """Its port was another's when the proxy started, and is free again."""
    scene = Scene(stage)
    first = tunnel_toml(scene.server, "earlier")
    scene.file.write_text(first + tunnel_toml(scene.server, "reporting", listen=scene.listen))
    with socket.create_server(("127.0.0.1", scene.port)):
        proxy = scene.proxy()
        proxy.start()
    try:
        yield scene.gathered()
    finally:
        proxy.close()


@contextmanager
def kafka_door(stage: Stage, **keys: str) -> Iterator[Gathered]:
    """A proxy before a Kafka cluster; keys as TOML values."""
    file = stage.folder / "mtlskit.toml"
    file.write_text(kafka_toml(stage.fixture("kafka"), **keys))
    with ProxyProcess(["--config", str(file)], folder=stage.folder):
        yield from_file(file, [], means({}))


def _fault(
    id: str,  # noqa: A002 - its name
    title: str,
    code: Code,
    build: Callable[[Stage], AbstractContextManager[Gathered]],
    **more: Any,
) -> Fault:
    return Fault(id, title, code, build, **more)


FAULTS: tuple[Fault, ...] = (
    _fault("local-not-running", "No proxy was started", Code.LOCAL_NOT_RUNNING, without_proxy),
    _fault(
        "local-tunnel-added-later",
        "The tunnel was added to the file after the proxy was started",
        Code.LOCAL_NOT_RUNNING,
        tunnel_that_came_later,
        seen="does not have tunnel reporting",
    ),
    _fault(
        "local-stale-socket",
        "The tunnel's unix socket was left behind by a proxy that was killed",
        Code.LOCAL_NOT_RUNNING,
        partial(without_proxy, around=a_stale_socket),
        seen="left behind",
    ),
    _fault(
        "local-socket-removed",
        "The proxy runs, and something has removed its unix socket",
        Code.LOCAL_NOT_RUNNING,
        a_socket_that_was_removed,
        seen="No such file",
    ),
    _fault(
        "local-path-taken",
        "A file stands where the tunnel's unix socket should be",
        Code.LOCAL_PORT_TAKEN,
        partial(without_proxy, around=a_file_in_its_place),
        seen="is no socket",
    ),
    _fault(
        "local-port-of-web-server",
        "A web server has the tunnel's port",
        Code.LOCAL_PORT_TAKEN,
        partial(without_proxy, around=a_web_server),
        seen="a web server",
    ),
    _fault(
        "local-port-of-postgres",
        "A Postgres of this host has the tunnel's port",
        Code.LOCAL_PORT_TAKEN,
        partial(without_proxy, around=another_postgres),
        seen="offers TLS itself",
    ),
    _fault(
        "local-port-of-plain-postgres",
        "A Postgres without TLS has the tunnel's port",
        Code.LOCAL_PORT_TAKEN,
        partial(without_proxy, around=a_plain_postgres),
        seen="postgres (pid",
    ),
    _fault(
        "local-port-of-other-proxy",
        "Another proxy has the tunnel's port, and leads elsewhere",
        Code.LOCAL_PORT_TAKEN,
        partial(without_proxy, around=another_proxy),
        seen="another proxy",
    ),
    _fault(
        "local-port-of-ssh",
        "An SSH server has the tunnel's port",
        Code.LOCAL_PORT_TAKEN,
        partial(without_proxy, around=partial(a_server_that, says(b"SSH-2.0-OpenSSH_9.6\r\n"))),
        seen="an SSH server",
    ),
    _fault(
        "local-port-silent",
        "Something takes connections at the tunnel's port and says nothing",
        Code.LOCAL_SILENT,
        partial(without_proxy, around=partial(a_server_that, says_nothing)),
    ),
    _fault(
        "local-proxy-stopped",
        "The proxy was stopped (SIGSTOP)",
        Code.LOCAL_SILENT,
        partial(with_proxy, then=stopped),
        seen="SIGSTOP",
    ),
    _fault(
        "local-tunnel-failed",
        "The proxy runs, and this tunnel of it could not start",
        Code.LOCAL_TUNNEL_FAILED,
        tunnel_failed,
        seen="already in use",
    ),
    _fault(
        "local-door-user",
        "The tunnel is for other users of this host, and the doctor runs as none of them",
        Code.LOCAL_DOOR_CLOSED,
        partial(with_proxy, keys=lambda scene: {"allow_users": '["nobody"]'}),
        verdict=Verdict.WARN,
        seen="admits nobody only",
    ),
    _fault(
        "local-door-address",
        "The tunnel is for other hosts",
        Code.LOCAL_DOOR_CLOSED,
        partial(with_proxy, keys=lambda scene: {"allow_clients": '["192.0.2.0/24"]'}),
        seen="allow_clients",
    ),
    _fault(
        "local-door-full",
        "The tunnel has no seat left",
        Code.LOCAL_DOOR_CLOSED,
        partial(with_proxy, then=one_client_inside, keys=lambda scene: {"max_connections": "1"}),
        seen="already carries its 1 connections",
    ),
    _fault(
        "local-kafka-door-user",
        "The Kafka tunnel is for other users of this host, and Kafka has no words for that",
        Code.LOCAL_DOOR_CLOSED,
        partial(kafka_door, allow_users='["54321"]'),
        verdict=Verdict.WARN,
        seen="admits 54321 only",
    ),
    _fault(
        "local-old-identity",
        "The proxy serves another certificate than the files hold now",
        Code.LOCAL_OLD_IDENTITY,
        identity_changed,
        verdict=Verdict.WARN,
    ),
    _fault(
        "local-old-config",
        "The file has changed since the proxy was started, and nothing that its status tells of the tunnel",
        Code.LOCAL_OLD_CONFIG,
        partial(with_proxy, then=file_changed),
        verdict=Verdict.WARN,
    ),
    _fault(
        "local-listen-changed",
        "The tunnel's `listen` was changed in the file, and the proxy not restarted",
        Code.LOCAL_OLD_CONFIG,
        partial(with_proxy, then=listen_changed),
        seen="where nothing listens; process",
    ),
    _fault(
        "local-upstream-changed",
        "The tunnel's `upstream` was changed in the file, and the proxy not restarted",
        Code.LOCAL_OLD_CONFIG,
        partial(with_proxy, then=upstream_changed),
        seen="leads to localhost:",
    ),
    _fault(
        "local-cert-changed",
        "The tunnel's `cert` and `key` were changed in the file, and the proxy not restarted",
        Code.LOCAL_OLD_CONFIG,
        partial(with_proxy, then=cert_changed),
        seen="serves the certificate of",
    ),
    *(
        _fault(
            f"local-client-insists-{name.lower()}-{value}",
            f"{name}={value} makes clients insist on TLS of their own",
            Code.LOCAL_CLIENT_INSISTS,
            partial(with_proxy, environ={name: value}),
            verdict=Verdict.WARN,
            seen=f"{name}={value}",
        )
        for name, value in (
            ("PGSSLMODE", "require"),
            ("PGSSLMODE", "verify-full"),
            ("PGCHANNELBINDING", "require"),
            ("PGSSLNEGOTIATION", "direct"),
        )
    ),
)
