"""The proxy as a whole: many tunnels, one relay, and the signals that steer them.

SIGTERM and SIGINT close the doors and let the sessions finish; a second one ends them. SIGHUP loads every identity
again, asks Heroku again where add-ons are, and retries the tunnels that could not start; when it tells that the
terminal was closed, it drains as well. Where a platform lacks a signal, it is not listened for. The same can be had
over the control socket, and an identity whose files have been replaced is loaded without being told.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import trio

from mtlskit.config.values import MOST_WARM, ProxyConfig, TcpAddress
from mtlskit.control.places import Place
from mtlskit.control.server import ControlServer, opened_control
from mtlskit.errors import Code, ConfigError, MtlskitError
from mtlskit.heroku.passing import may_pass
from mtlskit.net.relay import Relay
from mtlskit.net.warm import WarmBudget
from mtlskit.proxy.addon import AddonLookup
from mtlskit.proxy.control import handlers
from mtlskit.proxy.established import Established
from mtlskit.proxy.events import DrainFinished, DrainStarted, ReadyFileKept, TunnelFailed, described
from mtlskit.proxy.hangup import Terminals
from mtlskit.proxy.limits import raise_descriptor_limit
from mtlskit.proxy.ready import prepare_ready_file, ready_file
from mtlskit.proxy.reloading import Reloaded, Reloads
from mtlskit.proxy.starting import StartRetries, start_order
from mtlskit.proxy.status import Started
from mtlskit.proxy.tunnel import Tunnel, TunnelState
from mtlskit.proxy.watch_files import LOOK_EVERY, FileWatch
from mtlskit.telemetry import Emit, silent

__all__ = ["Proxy", "run_proxy"]

_STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name))
_RELOAD_SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name))


class Proxy:
    """The running tunnels. `stop` drains; calling it again ends what is left."""

    def __init__(self, tunnels: list[Tunnel], nursery: trio.Nursery, emit: Emit) -> None:
        self.tunnels = tunnels
        self.stopping = False
        self.cut = 0
        """How many sessions were open when the end came."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after a reload, when tunnels may have changed. May raise ConfigError."""
        self._nursery = nursery
        self._emit = emit
        self._changing = trio.Lock()
        self._reloads = Reloads(nursery, self._changing, self._read_again)
        self._ended = False

    async def start(self) -> None:
        """Start every tunnel. Those that cannot are told, and the others run.

        When none could, nothing is running: raises the only tunnel's own error, or, after every one has been told, a
        ConfigError. But where Heroku could not be asked, it will be tried again, and that is reason enough to stay.
        """
        async with self._changing:
            failures = await start_order(self.tunnels, self._try)
        hopeless = len(failures) == len(self.tunnels) and not any(may_pass(error) for _, error in failures)
        if hopeless and len(failures) == 1:
            raise failures[0][1]
        for name, error in failures:
            self._emit(TunnelFailed(tunnel=name, **described(error)))
        if failures and hopeless:
            raise ConfigError(
                Code.NO_TUNNEL_STARTED,
                f"none of the {len(failures)} tunnels could start",
                "the lines above say why, tunnel by tunnel; `mtlskit proxy NAME` starts one of them alone",
            )

    def request_reload(self) -> None:
        """Reload in a task of its own, so that a disk that does not answer keeps nobody from stopping us.

        Requests do not pile up: one that waits will read what is on the disk then.
        """
        if not self.stopping:
            self._reloads.request(self.tunnels)

    async def reload(self, tunnels: Iterable[Tunnel] | None = None) -> tuple[Reloaded, ...]:
        """Load the identities of these tunnels (all) again, and start what could not start before.

        Returns when a read that began after this call is done, and tells how it went; it may tell of other tunnels as
        well. Does nothing once we are stopping.
        """
        if self.stopping:
            return ()
        begun = self._reloads.request(self.tunnels if tunnels is None else tunnels)
        await begun.done.wait()
        return begun.results

    async def _read_again(self, tunnels: Iterable[Tunnel]) -> tuple[Reloaded, ...]:
        results = await start_order(list(tunnels), self._read_one_again)
        try:
            self.on_change()
        except ConfigError as exc:
            self._emit(ReadyFileKept(**described(exc)))
        return tuple(results)

    async def _read_one_again(self, tunnel: Tunnel) -> Reloaded | None:
        """None: not read, as we are stopping."""
        if self.stopping:
            return None
        if tunnel.state is not TunnelState.FAILED:
            kept = None if await tunnel.reload() else tunnel.failure
            return Reloaded(tunnel, kept)
        failure = await self._try(tunnel)
        if failure is not None:
            self._emit(TunnelFailed(tunnel=failure[0], **described(failure[1])))
        return Reloaded(tunnel, None if failure is None else failure[1])

    async def _try(self, tunnel: Tunnel) -> tuple[str, MtlskitError] | None:
        try:
            await tunnel.start(self._nursery)
        except MtlskitError as exc:
            return tunnel.config.name, exc
        return None

    def stop(self) -> None:
        """Close the doors and let the sessions finish; a second call ends them at once."""
        if self.stopping:
            self._end()
            return
        self.stopping = True
        for tunnel in self.tunnels:
            tunnel.close_door()
        self._nursery.start_soon(self._drain)

    @property
    def serving(self) -> list[Tunnel]:
        """The tunnels that accept clients."""
        return [tunnel for tunnel in self.tunnels if tunnel.state is TunnelState.SERVING]

    @property
    def sessions(self) -> int:
        """How many clients are connected, over all tunnels."""
        return sum(tunnel.sessions for tunnel in self.tunnels)

    @property
    def drain_seconds(self) -> float:
        """How long the sessions may go on after a stop."""
        return max((tunnel.config.timeouts.drain for tunnel in self.tunnels), default=0.0)

    async def _drain(self) -> None:
        seconds = self.drain_seconds
        self._emit(DrainStarted(sessions=self.sessions, seconds=seconds))
        with trio.move_on_after(seconds):
            for tunnel in self.tunnels:
                await tunnel.drained()
        self._end()

    def _end(self) -> None:
        # Counted before the cancellation, in the wake of which they leave in any order.
        if not self._ended:
            self._ended = True
            self.cut = self.sessions
        self._nursery.cancel_scope.cancel()


async def run_proxy(
    config: ProxyConfig,
    *,
    emit: Emit = silent,
    ready_path: Path | None = None,
    control: Place | None = None,
    lookup: AddonLookup | None = None,
    look_every: float = LOOK_EVERY,
    handle_signals: bool = False,
    on_ready: Callable[[Proxy], None] = lambda proxy: None,
    task_status: trio.TaskStatus[Proxy] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the tunnels until they are stopped. Ready (`task_status`, `on_ready`, the file) when every listener accepts.

    `control` is where the control socket goes (None: there is none). `lookup` asks Heroku for the upstream of tunnels
    that name an add-on. Files of identities are looked at every `look_every` seconds.

    A tunnel that cannot start is told through `emit`, and the others run. When none could, raises the only tunnel's own
    error (ConfigError, IdentityError, ListenError), or ConfigError (NO_TUNNEL_STARTED) for several. Raises ConfigError
    if the ready file cannot be written, or the control socket not be opened in a folder that was named for it.
    """
    raise_descriptor_limit()
    started = Started(config.source)
    failure: MtlskitError | None = None
    with opened_control(control, emit=emit) as listener:
        async with Relay() as relay, trio.open_nursery() as nursery:
            established = Established(relay, emit)
            nursery.start_soon(established.run)
            budget = WarmBudget(MOST_WARM)
            tunnels: list[Tunnel] = []

            def holder_of(address: TcpAddress) -> str:
                return next(filter(None, (tunnel.listens_at(address) for tunnel in tunnels)), "")

            tunnels += [Tunnel(tunnel, established, emit, budget, lookup, holder_of) for tunnel in config.tunnels]
            proxy = Proxy(tunnels, nursery, emit)
            try:
                if handle_signals:
                    await nursery.start(_steer, proxy)
                prepare_ready_file(ready_path)
                if listener is not None:
                    nursery.start_soon(ControlServer(listener, handlers(proxy, started, emit), emit).run)
                await proxy.start()
                if proxy.stopping:
                    await trio.sleep_forever()  # told to stop before it was ready: the drain ends it
                nursery.start_soon(FileWatch(proxy.tunnels, proxy.reload, emit).run, look_every)
                nursery.start_soon(StartRetries(proxy.tunnels, proxy.reload).run)
                with ready_file(ready_path, proxy.tunnels) as write_again:
                    proxy.on_change = write_again
                    on_ready(proxy)
                    task_status.started(proxy)
                    await trio.sleep_forever()
            except MtlskitError as exc:
                failure = exc
                nursery.cancel_scope.cancel()
    if failure is not None:
        # Out here, because a nursery would wrap it in an exception group.
        raise failure
    emit(DrainFinished(cut=proxy.cut))


async def _steer(proxy: Proxy, *, task_status: trio.TaskStatus[None]) -> None:
    terminals = Terminals.at_start()
    with trio.open_signal_receiver(*_STOP_SIGNALS, *_RELOAD_SIGNALS) as signals:
        task_status.started()
        await _obey(proxy, signals, terminals)


async def _obey(proxy: Proxy, signals: AsyncIterator[int], terminals: Terminals) -> None:
    async for number in signals:
        if number not in _RELOAD_SIGNALS:
            proxy.stop()
        elif not terminals.closed:
            proxy.request_reload()
        elif not proxy.stopping:
            # Once: the kernel and the shell may each tell of the same hang-up, and a second stop cuts the sessions.
            proxy.stop()
