"""The server behind the raw work loads: TLS 1.3 with client certificates on one port, plain TCP on another.

It must not be what is measured. One process for each core is forked, and each connection has a thread with a blocking
socket: reading and writing release the GIL, a TLS record is 16 KiB whatever the language, so what Python adds is a
microsecond for each. No session tickets: every connection pays its full handshake.

Run as a helper (`tests.bench.helper`); it says `{"tls": PORT, "plain": PORT}`. The protocol is that of `wire`.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import ssl
import struct
import sys
import threading
from contextlib import suppress

from tests.bench.wire import HEADER, read_exactly

_CHUNK = 1 << 20
_ZEROS = memoryview(bytes(_CHUNK))
_BACKLOG = 4096
# Thousands of connections idle at once: a thread needs little stack here.
_STACK = 256 * 1024


def main() -> None:
    """Listen, fork, serve until the standard input ends."""
    job = json.loads(sys.argv[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.load_verify_locations(job["client_ca"])
    context.load_cert_chain(job["cert"], job["key"])
    tls, plain = (socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) for _ in range(2))
    children = [child for _ in range(os.cpu_count() or 1) if (child := _fork_worker(tls, plain, context))]
    print(json.dumps({"tls": tls.getsockname()[1], "plain": plain.getsockname()[1]}), flush=True)
    tls.close()
    plain.close()
    sys.stdin.buffer.read()
    for child in children:
        os.waitpid(child, 0)


def _fork_worker(tls: socket.socket, plain: socket.socket, context: ssl.SSLContext) -> int:
    """Fork before any thread is there. The child serves until the standard input, which all share, ends."""
    child = os.fork()
    if child == 0:
        gc.disable()  # nothing here makes cycles, and looking for them would show
        threading.stack_size(_STACK)
        threading.Thread(target=_accept, args=(tls, context), daemon=True).start()
        threading.Thread(target=_accept, args=(plain, None), daemon=True).start()
        os.read(0, 1)
        os._exit(0)
    return child


def _accept(listening: socket.socket, context: ssl.SSLContext | None) -> None:
    while True:
        sock, _ = listening.accept()
        threading.Thread(target=_serve, args=(sock, context), daemon=True).start()


def _serve(sock: socket.socket, context: ssl.SSLContext | None) -> None:
    with sock, suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            _talk(sock)
        else:
            with context.wrap_socket(sock, server_side=True) as secured:
                _talk(secured)


def _talk(sock: socket.socket) -> None:
    while True:
        what, count = HEADER.unpack(read_exactly(sock, HEADER.size))
        if what == b"U":
            _swallow(sock, count)
            sock.sendall(struct.pack("!Q", count))
        elif what == b"D":
            _pour(sock, count)
        elif what == b"E":
            while True:
                sock.sendall(read_exactly(sock, count))
        else:
            return


def _swallow(sock: socket.socket, count: int) -> None:
    buffer = memoryview(bytearray(_CHUNK))
    while count:
        got = sock.recv_into(buffer[: min(count, _CHUNK)])
        if not got:
            raise ConnectionError
        count -= got


def _pour(sock: socket.socket, count: int) -> None:
    while count:
        chunk = _ZEROS[:count]
        sock.sendall(chunk)
        count -= len(chunk)


if __name__ == "__main__":
    main()
