"""Things that listen where proxies would, in threads, and answer with what the test says."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Answers = dict[str, Any]
"""By request: the facts of its answer, or bytes as they are."""


@contextmanager
def fake_proxy(
    folder: Path, pid: int, answers: Answers, told: Callable[[str], None] = lambda do: None
) -> Iterator[None]:
    """A proxy that knows these requests; `told` hears of each."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if not (line := self.rfile.readline()):
                return  # somebody who looks whether we are here
            do = json.loads(line)["do"]
            told(do)
            answer = answers[do]
            self.wfile.write(
                answer if isinstance(answer, bytes) else json.dumps({"ok": True, **answer}).encode() + b"\n"
            )

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = False

    with Server(str(folder / f"{pid}.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            (folder / f"{pid}.sock").unlink()


def dead_socket(folder: Path, pid: int) -> None:
    """What a proxy that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(folder / f"{pid}.sock"))


def tunnel_facts(**changes: Any) -> dict[str, Any]:
    """A tunnel of a status where all is well."""
    identity = {
        "name": "reporting",
        "cert": "/etc/mtlskit/client.crt",
        "serial": "0123456789abcdef0123456789abcdef01234567",
        "not_after": "2040-01-01T00:00:00+00:00",
        "due_at": "2039-12-01T00:00:00+00:00",
        "due": False,
    }
    facts = {
        "name": "reporting",
        "kind": "postgres",
        "state": "serving",
        "addresses": [{"host": "127.0.0.1", "port": 6432}, {"host": "::1", "port": 6432}],
        "upstream": ["db.example.com:5432"],
        "sessions": 3,
        "identity": identity | changes.pop("identity", {}),
    }
    return facts | changes


def status_facts(pid: int, *tunnels: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A status."""
    facts = {"pid": pid, "version": "0.1.0", "config": None, "uptime": 7300.0, "draining": False, "sessions": 3}
    return facts | {"tunnels": list(tunnels)} | changes
