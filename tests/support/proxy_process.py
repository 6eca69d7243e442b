"""`mtlskit proxy` as users run it: a process of its own, its log as events, its ready file, its signals.

The log is read as JSON while it comes (`--log json -v`), so that a test waits for what it expects (`wait_for`) instead
of for some time to pass. Whatever happens to the test, the process is gone when the block ends; and if this process
dies first, a guard ends it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from tests.services.postgres import PostgresServer
from tests.services.processes import Guard
from tests.services.template import DATABASE, PASSWORDS
from tests.support.until import until

# Seconds: safety nets on a busy machine, nothing is measured by them.
START_TIMEOUT = 30
EVENT_TIMEOUT = 30
EXIT_TIMEOUT = 30

_COMMAND = (sys.executable, "-m", "mtlskit", "proxy")


MakeProxy: TypeAlias = "Callable[..., ProxyProcess]"
"""What the fixture `make_proxy` gives; see tests/e2e/conftest.py."""
MakePostgres: TypeAlias = Callable[..., PostgresServer]
"""What the fixture `make_postgres` gives; see tests/conftest.py."""


class NotReadyError(Exception):
    """The proxy ended before it was ready, or never became ready; the message ends with its log."""


def tunnel_flags(upstream: PostgresServer | str, /, **flags: object) -> list[str]:
    """Flags for one tunnel to a server of the tests; `flags` win, a list repeats one, None leaves it out."""
    chosen: dict[str, object] = {"listen": "127.0.0.1:0"}
    if isinstance(upstream, PostgresServer):
        pki = upstream.pki
        chosen |= {"upstream": f"localhost:{upstream.port}", "ca": pki.server_ca}
        chosen |= {"cert": pki.client.cert, "key": pki.client.key}
    else:
        chosen["upstream"] = upstream
    arguments: list[str] = []
    for name, value in (chosen | flags).items():
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            arguments += [f"--{name.replace('_', '-')}", str(one)]
    return arguments


def tunnel_toml(server: PostgresServer, name: str = "default", **settings: str) -> str:
    """A tunnel's table in a configuration file; `settings` are further keys, as TOML values."""
    pki = server.pki
    chosen = {
        "kind": '"postgres"',
        "listen": '"127.0.0.1:0"',
        "upstream": f'"localhost:{server.port}"',
        "cert": f'"{pki.client.cert}"',
        "key": f'"{pki.client.key}"',
        "ca": f'"{pki.server_ca}"',
    }
    return "\n".join([f"[tunnel.{name}]", *(f"{key} = {value}" for key, value in (chosen | settings).items())]) + "\n"


def run_proxy(arguments: Sequence[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a proxy that ends by itself: wrong usage, wrong configuration. Its whole output comes as text."""
    return subprocess.run(
        [*_COMMAND, *arguments],
        cwd=cwd,
        env=_environment({}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT,
        check=False,
    )


class ProxyProcess:
    """One proxy. A context manager: ready on entry, gone on exit. `folder` is its working folder, and its own."""

    def __init__(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None, log: str = "json"
    ) -> None:
        """Nothing happens before `start`."""
        self.folder = folder
        self.ready_file = folder / "ready.json"
        self.arguments = [*arguments, "--ready-file", str(self.ready_file), "--verbose", "--log", log]
        self._environment = _environment(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self._guard: Guard | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ready: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<mtlskit proxy {' '.join(self.arguments)}, {'running' if self.running else 'ended'}>"

    # Its life.

    def start(self) -> None:
        """Start and wait until every listener accepts. Raises `NotReadyError`."""
        self._process = subprocess.Popen(
            [*_COMMAND, *self.arguments],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; we stop it
        )
        self._guard = Guard(self._process.pid, self.folder)
        self._reader = threading.Thread(target=self._read_log, name="proxy-log")
        self._reader.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not self.ready_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise NotReadyError(f"the proxy is not ready\n--- its log\n{self.log()}")
            time.sleep(0.01)
        self._ready = json.loads(self.ready_file.read_text())
        # What it has said about its start is not to be taken for something that comes later.
        with self._changed:
            assert self._changed.wait_for(lambda: any("ready: " in line for line in self._lines), EVENT_TIMEOUT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, and return at once."""
        self._running().send_signal(number)

    def reload(self) -> dict[str, Any]:
        """SIGHUP; returns the event that tells how it went for the first tunnel that is told of."""
        mark = self.mark
        self.signal(signal.SIGHUP)
        return self.wait_for("identity_loaded", "identity_kept", "tunnel_failed", since=mark)

    def wait(self) -> int:
        """Wait for its end, and for the end of its log. Returns the exit status."""
        process = self._running()
        status = process.wait(EXIT_TIMEOUT)
        if self._reader is not None:
            self._reader.join(EXIT_TIMEOUT)
        return status

    def stop(self) -> int:
        """SIGTERM, and wait for the end. Returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """End it, whatever state it is in."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        self.wait()
        if self._guard is not None:
            self._guard.dismiss()
        if process.stdout is not None:
            process.stdout.close()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Where it is.

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    @property
    def ready(self) -> dict[str, Any]:
        """What the ready file said."""
        return self._ready

    def wait_for_ready_file(self, name: str, state: str) -> None:
        """Wait until the ready file, written anew after a reload, tells of this tunnel that it is in this state."""

        def told() -> bool:
            self._ready = json.loads(self.ready_file.read_text())
            return bool(self.tunnel(name)["state"] == state)

        until(told, f"{name} is {state}")

    def tunnel(self, name: str = "default") -> dict[str, Any]:
        """A tunnel's entry in the ready file. The only one, whatever its name, if there is but one."""
        tunnels: list[dict[str, Any]] = self._ready["tunnels"]
        if len(tunnels) == 1:
            return tunnels[0]
        return next(tunnel for tunnel in tunnels if tunnel["name"] == name)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the only tunnel's first listener."""
        return self.address_of("default")

    def address_of(self, name: str) -> tuple[str, int]:
        """Host and port of a tunnel's first listener."""
        [first, *_] = self.tunnel(name)["addresses"]
        return first["host"], first["port"]

    def parameters(self, user: str = "scram", *, tunnel: str = "default", **changes: str) -> dict[str, str]:
        """libpq's parameters for a client of a tunnel: what `tests.services.clients` and `conninfo` take."""
        [address, *_] = self.tunnel(tunnel)["addresses"]
        if "path" in address:
            path = Path(address["path"])
            where = {"host": str(path.parent), "port": path.name.rpartition(".")[2]}
        else:
            where = {"host": address["host"], "port": str(address["port"])}
        return {
            **where,
            "dbname": DATABASE,
            "user": user,
            "password": PASSWORDS.get(user, ""),
            "sslmode": "prefer",
            # Where a client has a key of its own in its home, it must not matter.
            "sslcert": "/nonexistent",
            "sslkey": "/nonexistent",
        } | changes

    def descriptors(self) -> list[str]:
        """What each of its open files is: the targets of ``/proc/PID/fd``."""
        found = []
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found.append(str(link.readlink()))
            except FileNotFoundError:
                continue  # closed since it was listed
        return sorted(found)

    def memory(self) -> int:
        """Its resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # What it says.

    def log(self) -> str:
        """All that it has written to its standard output and error."""
        with self._changed:
            return "".join(self._lines)

    @property
    def mark(self) -> int:
        """A position in the log: `wait_for(…, since=mark)` looks at what comes later."""
        with self._changed:
            return len(self._lines)

    def events(self, *names: str, since: int = 0) -> list[dict[str, Any]]:
        """The events of these names (none: all) so far."""
        with self._changed:
            return list(self._events(names, since))

    def wait_for(self, *names: str, since: int = 0, **fields: object) -> dict[str, Any]:
        """The first event of one of these names, with these fields, waiting for it if need be."""

        def found() -> dict[str, Any] | None:
            matching = (event for event in self._events(names, since) if fields.items() <= event.items())
            return next(matching, None)

        with self._changed:
            event = self._changed.wait_for(found, EVENT_TIMEOUT)
            assert event is not None, f"no {' or '.join(names)} {fields} in the log:\n{''.join(self._lines[since:])}"
            return event

    def _events(self, names: tuple[str, ...], since: int) -> Iterator[dict[str, Any]]:
        for line in self._lines[since:]:
            if line.startswith("{"):
                event: dict[str, Any] = json.loads(line)
                if not names or event["event"] in names:
                    yield event

    def _read_log(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the proxy was not started"
        return self._process


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without what would steer a proxy or a client."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "MTLSKIT_"))}
    return {**kept, **more}
