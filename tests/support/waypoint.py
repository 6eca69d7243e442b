"""A place on the way to a server: it counts and keeps what passes, and closes its door while its connections live on.

With it a test sees what no log tells: how many connections were made to which address, and the very bytes on them.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_TIMEOUT = 30  # seconds; a safety net, nothing is measured by it
_KEPT = 1 << 20
"""Bytes kept of each connection's client side: the tests look at their beginnings."""


@dataclass
class Passage:
    """One connection that came by, and the first MiB of what its client sent."""

    sent: bytearray = field(default_factory=bytearray)
    sockets: list[socket.socket] = field(default_factory=list)


class Waypoint:
    """Forwards TCP connections from an address of its own to another. A context manager."""

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._target = target
        self._where = (host, port)
        self._listening: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._copiers: list[threading.Thread] = []
        self.passages: list[Passage] = []

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._where

    def __str__(self) -> str:
        host, port = self._where
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def open(self) -> None:
        """Open the door, on the same port as before."""
        family = socket.AF_INET6 if ":" in self._where[0] else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(self._where)
        listening.listen(128)
        self._where = listening.getsockname()[:2]
        self._listening = listening
        self._acceptor = threading.Thread(target=self._accept, args=(listening,), name="waypoint")
        self._acceptor.start()

    def shut(self) -> None:
        """Refuse new connections; those that are there go on."""
        if self._listening is None or self._acceptor is None:
            return
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread, which closes it
        self._acceptor.join(_TIMEOUT)
        self._listening = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shut()
        for passage in self.passages:
            for sock in passage.sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._copiers:
            thread.join(_TIMEOUT)
        for passage in self.passages:
            for sock in passage.sockets:
                sock.close()

    def _accept(self, listening: socket.socket) -> None:
        with listening:
            while True:
                try:
                    near, _ = listening.accept()
                except OSError:
                    return
                passage = Passage(sockets=[near])
                self.passages.append(passage)
                try:
                    far = socket.create_connection(self._target, _TIMEOUT)
                except OSError:
                    near.close()
                    continue
                near.settimeout(None)
                far.settimeout(None)
                passage.sockets.append(far)
                for way in ((near, far, passage.sent), (far, near, None)):
                    copier = threading.Thread(target=self._copy, args=way, name="waypoint")
                    self._copiers.append(copier)
                    copier.start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, keep: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if keep is not None and len(keep) < _KEPT:
                    keep += data
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
