"""The local Private Space: a folder, a CA, a PostgreSQL and the gateway before it, started and stopped as one.

What others need to use it stands in `sandbox.json` (for programs) and `sandbox.env` (for a shell). Both appear when
everything is ready, and only then, and are removed when the space stops: whoever finds them finds a space that runs.

What can be wrong with the settings is found before anything is made: the gateway's port is opened first. A client that
comes before the rest is ready waits in the kernel's queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import trio

from mtlskit.config.values import TcpAddress
from mtlskit.errors import MtlskitError, SandboxError
from mtlskit.net.listen import Listener, open_listeners
from mtlskit.sandbox.account import Account, OwnAccount
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.credentials import SpacePki
from mtlskit.sandbox.description import APP, Space
from mtlskit.sandbox.events import (
    ApiReady,
    KafkaAbsent,
    OtherServerUsed,
    OwnDataLeftAside,
    SandboxReady,
    SandboxStopped,
)
from mtlskit.sandbox.folder import SpaceFolder, open_folder
from mtlskit.sandbox.gateway import ANY_PORT, Gateway, GatewayConfig, tcp_address
from mtlskit.sandbox.hooks import Hooks
from mtlskit.sandbox.kafka import SpaceKafka, open_doors
from mtlskit.sandbox.kafka_cluster import Cluster, run_cluster
from mtlskit.sandbox.kafka_gateway import KafkaGateway
from mtlskit.sandbox.kafka_options import NO_KAFKA, NOT_INSTALLED, KafkaOptions, library_for
from mtlskit.sandbox.postgres import PostgresAccount, PostgresServer, run_postgres
from mtlskit.sandbox.server_url import ServerUrl, parse_server_url
from mtlskit.sandbox.stand_in import StandIn, load_stand_in
from mtlskit.sandbox.upstream import check_server
from mtlskit.telemetry import Emit, silent

__all__ = ["APP", "Space", "SpaceOptions", "run_space"]

_USER: Final = "sandbox"
_ENABLE: Final = 'mtlskit heroku enable "$MTLSKIT_SANDBOX_ADDON" --wait'
_DATABASE: Final = "sandbox"


@dataclass(frozen=True)
class SpaceOptions:
    """What a space is made of."""

    directory: Path
    postgres_url: str | None = field(default=None, repr=False)
    """A Postgres of the user's own, reached in plain text. None: the sandbox runs one."""
    url_source: str = "--postgres"
    """Where `postgres_url` was written: a flag, or the name of a variable."""
    listen: TcpAddress = ANY_PORT
    api: ApiOptions = field(default_factory=ApiOptions)
    """Of the stand-in for Heroku's APIs. Its Postgres add-ons share one database, and the gateway obeys the first."""
    kafka: KafkaOptions = field(default_factory=KafkaOptions)
    keep_data: bool = True
    """False: PostgreSQL's files are removed when the space stops, wherever they are."""


async def run_space(
    options: SpaceOptions,
    *,
    emit: Emit = silent,
    task_status: trio.TaskStatus[Space] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs a space until cancelled. Call it from the thread that runs trio, through `nursery.start`.

    Raises SandboxError (of a server at `postgres_url` that does not answer, too), IdentityError, ConfigError (of
    `postgres_url`) or ListenError, never in a group.
    """
    theirs = None
    if options.postgres_url is not None:
        theirs = parse_server_url(options.postgres_url, source=options.url_source)
        await check_server(theirs.upstream, user=theirs.user, database=theirs.database, source=options.url_source)
    library = library_for(options.kafka)
    with (
        open_listeners(options.listen) as listener,
        open_listeners(options.api.listen) as api_listener,
        open_doors(options.kafka if library is not None else NO_KAFKA) as brokers,
        open_folder(options.directory) as folder,
        _single_error(),
    ):
        files = folder.path / "sandbox.json", folder.path / "sandbox.env"
        _remove(*files)  # of a space that was killed
        ready = False
        try:
            async with trio.open_nursery() as nursery:
                start = _Start(nursery, options, theirs, folder, library, emit)
                space = await start.run(listener, api_listener, brokers)
                space.tell()
                ready_now = SandboxReady(file=str(space.file))
                # In a bare one nobody gets in yet.
                emit(replace(ready_now, then=_ENABLE) if options.api.bare else ready_now)
                ready = True
                task_status.started(space)
        finally:
            _remove(*files)
            if ready:
                emit(SandboxStopped(directory=str(folder.path)))
            if not options.keep_data:
                folder.forget_home()


@dataclass(frozen=True)
class _Start:
    """The start of one space. What is to stay runs in `nursery`."""

    nursery: trio.Nursery
    options: SpaceOptions
    theirs: ServerUrl | None
    folder: SpaceFolder
    library: Path | None
    emit: Emit

    async def run(self, listener: Listener, api_listener: Listener, brokers: Sequence[Listener]) -> Space:
        """Starts everything, in an order in which each part finds what it needs."""
        folder, options = self.folder, self.options
        open_pki = partial(SpacePki.open, server_names=_server_names(options.listen), now=datetime.now(UTC))
        clusters: list[Cluster] = []
        async with trio.open_nursery() as loading:
            # Its modules take as long to load as PostgreSQL takes to start: so both at once, and Kafka too.
            loading.start_soon(trio.to_thread.run_sync, load_stand_in)
            loading.start_soon(self._start_cluster, clusters)
            pki = await trio.to_thread.run_sync(open_pki, folder.path / "pki")
            account, postgres = await self._database()
        stand_in = StandIn.open(folder.path / "api.json", options.api, addon=folder.state.addon)
        config = GatewayConfig(account.upstream, account.passwords)
        gateway = Gateway(config, pki.server_tls(), admit=stand_in.admit, newer=pki.newer_tls, emit=self.emit)
        address = _reachable_address(await self.nursery.start(gateway.run, listener))
        kafka = await self._kafka(clusters, pki, stand_in, brokers)
        space = Space(
            directory=folder.path,
            file=folder.path / "sandbox.json",
            env_file=folder.path / "sandbox.env",
            gateway_address=address,
            api_address=tcp_address(api_listener),
            addon=folder.state.addon,
            kafka_addon=stand_in.kafka_addon,
            api_key=folder.state.api_key,
            user=account.user,
            database=account.database,
            ca=pki.ca,
            client=pki.client,
            postgres=postgres,
            kafka=kafka,
            kafka_pair=stand_in.kafka_pair,
            _account=account,
            _pki=pki,
            _gateway=gateway,
            _stand_in=stand_in,
        )
        hooks = Hooks(pki, account, address, changed=space.tell, emit=self.emit)
        token = folder.state.api_key
        await stand_in.start(self.nursery, api_listener, hooks, options.api, token=token, emit=self.emit)
        self.emit(ApiReady(url=space.api_url))
        return space

    async def _start_cluster(self, started: list[Cluster]) -> None:
        if self.library is not None:
            log = self.folder.path / "kafka.log"
            run = partial(run_cluster, self.library, self.options.kafka.brokers, log, emit=self.emit)
            try:
                started.append(await self.nursery.start(run))
            except SandboxError as exc:
                if self.options.kafka.asked:
                    raise
                self.emit(KafkaAbsent(reason=exc.sentence))
        elif self.options.kafka.brokers:
            self.emit(KafkaAbsent(reason=NOT_INSTALLED))

    async def _kafka(
        self, clusters: Sequence[Cluster], pki: SpacePki, stand_in: StandIn, listeners: Sequence[Listener]
    ) -> SpaceKafka | None:
        for cluster in clusters:
            pki.issue_broker(now=datetime.now(UTC))
            gateway = KafkaGateway(
                pki.broker_tls(),
                is_current=stand_in.is_of_kafka,
                admit=stand_in.admit_to_kafka,
                newer=pki.newer_broker_tls,
                emit=self.emit,
            )
            addresses = [_reachable_address(tcp_address(each)) for each in listeners]
            kafka = SpaceKafka(self.options.kafka, cluster, gateway, addresses, emit=self.emit)
            await kafka.open(self.nursery, listeners)
            stand_in.has_brokers(kafka)
            return kafka
        return None

    async def _database(self) -> tuple[Account, PostgresServer | None]:
        folder = self.folder
        if self.theirs is not None:
            self._tell_of_other_server(self.theirs)
            return Account(self.theirs, self.options.postgres_url or ""), None
        changed = folder.state.next_password is not None
        account = PostgresAccount(_USER, folder.password, _DATABASE, anew=changed)
        log = folder.path / "postgres.log"
        run = partial(run_postgres, folder.postgres_home(), account, log=log, emit=self.emit)
        postgres: PostgresServer = await self.nursery.start(run)
        folder.settle_password()
        return OwnAccount(folder, postgres.socket_folder, _USER, _DATABASE), postgres

    def _tell_of_other_server(self, theirs: ServerUrl) -> None:
        """A variable that was set long ago must not put another server behind the gateway without a word."""
        source = self.options.url_source
        self.emit(OtherServerUsed(server=str(theirs.upstream), source=source))
        data = self.folder.own_data()
        if data is not None:
            self.emit(OwnDataLeftAside(data=str(data), source=source))


def _server_names(listen: TcpAddress) -> list[str]:
    return list(dict.fromkeys(["localhost", "127.0.0.1", "::1", _reachable_address(listen).host]))


def _reachable_address(listening: TcpAddress) -> TcpAddress:
    """Where clients of this host connect to: "all addresses" is no address to connect to."""
    try:
        address = ip_address(listening.host)
    except ValueError:
        return listening
    if not address.is_unspecified:
        return listening
    return TcpAddress("127.0.0.1" if address.version == 4 else "::1", listening.port)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def _single_error() -> Iterator[None]:
    """A nursery wraps what went wrong into a group; callers want the one error that a person can read."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours, others = group.split(MtlskitError)
        if ours is None or others is not None:
            raise
        error: BaseException = ours
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__
