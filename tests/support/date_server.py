"""A web server that answers every HEAD with its Date, and nothing more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["date_server"]


class _Handler(BaseHTTPRequestHandler):
    date: str | None = None
    """What stands in the header; None: the time; empty: no such header."""

    def do_HEAD(self) -> None:
        self.send_response_only(404)
        if self.date is None:
            self.send_header("Date", self.date_time_string())
        elif self.date:
            self.send_header("Date", self.date)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing."""


@contextmanager
def date_server(date: str | None = None) -> Iterator[str]:
    """Its URL. `date` stands in the header as it is."""
    handler = type("Handler", (_Handler,), {"date": date})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
