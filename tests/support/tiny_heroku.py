"""As much of Heroku's two APIs as `mtlskit heroku` calls, in a thread: what it answers is written down beforehand."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["TOKEN", "TinyHeroku"]

TOKEN = "tiny-secret-token"


class TinyHeroku:
    """Add-ons by name. `statuses[NAME]` are what each look at the endpoint finds; the last one stays, None is a 404.

    A POST to an endpoint makes it `Provisioning` for one look, then `Operational`; a DELETE likewise takes it down.
    """

    def __init__(self, **statuses: list[str | None]) -> None:
        self.statuses = {name.replace("_", "-"): found for name, found in statuses.items()}
        self.kinds = {name: "heroku-kafka" if "kafka" in name else "heroku-postgresql" for name in self.statuses}
        self.certificates: list[dict[str, Any]] = []
        self.rules: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.never_done = False
        """What is enabled stays `Provisioning`."""
        self.looked = threading.Event()
        """Somebody has looked at an endpoint that is provisioning."""
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def environment(self) -> Mapping[str, str]:
        """What leads a command here."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {"HEROKU_API_KEY": TOKEN, "HEROKU_HOST": url, "HEROKU_DATA_HOST": url}

    def changes(self) -> list[str]:
        """The calls that changed something."""
        return [call for call in self.calls if not call.startswith("GET ")]

    def answer(self, method: str, path: str, token: str | None) -> tuple[int, Any]:
        """Status and body."""
        with self._lock:
            self.calls.append(f"{method} {path}")
            if token != f"Bearer {TOKEN}":
                return 401, {"id": "unauthorized", "message": "Invalid credentials provided."}
            match path.strip("/").split("/"):
                case ["addons"]:
                    return 200, [self._addon(name) for name in self.statuses]
                case ["addons", name] if name in self.statuses:
                    return 200, self._addon(name)
                case ["postgres", "v0", "databases", name, "tls-endpoint", *rest] if name in self.statuses:
                    return self._endpoint(method, name, rest)
                case ["data", "kafka", "v0", "clusters", name] if name in self.statuses:
                    return 200, {"id": "1", "name": name, "state": {"status": "available", "message": "Available"}}
                case ["data", "kafka", "v0", "clusters", name, "ip-rules"] if name in self.statuses:
                    return 200, self.rules
            return 404, {"id": "not_found", "message": "Couldn't find that."}

    def _endpoint(self, method: str, name: str, rest: list[str]) -> tuple[int, Any]:
        coming = self.statuses[name]
        if rest:
            return 200, self.certificates if rest == ["certificates"] else self.rules
        if method == "POST":
            coming[:] = ["Provisioning"] if self.never_done else ["Provisioning", "Provisioning", "Operational"]
        elif method == "DELETE" and coming[0] is not None:
            coming[:] = ["Deprovisioning", "Deprovisioning", None]
        status = coming.pop(0) if len(coming) > 1 else coming[0]
        if status is None:
            return 404, {"id": "not_found", "message": "Couldn't find that TLS endpoint."}
        if status == "Provisioning" and method == "GET":
            self.looked.set()
        body = {"addon": name, "app": "tiny-app", "status": status, "enabled_by": "ann@example.com"}
        return {"GET": 200, "POST": 201, "DELETE": 202}[method], body | {"active_ip_rules": []}

    def _addon(self, name: str) -> dict[str, Any]:
        service = self.kinds[name]
        return {
            "id": f"01234567-89ab-cdef-0123-{abs(hash(name)) % 10**12:012}",
            "name": name,
            "app": {"id": "1", "name": "tiny-app"},
            "addon_service": {"id": "2", "name": service},
            "plan": {"id": "3", "name": f"{service}:private-0"},
            "state": "provisioned",
            "config_vars": [],
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tiny = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def _serve(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body = tiny.answer(self.command, self.path, self.headers.get("Authorization"))
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Request-Id", "tiny-request")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that the base looks for

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
                """Nothing: the test knows."""

        return Handler
