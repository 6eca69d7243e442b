"""nginx (https://nginx.org) with its stream module: an event loop in each of several processes, OpenSSL."""

from __future__ import annotations

import re
from pathlib import Path

from tests.bench.contenders.base import CORES, MOST_CONNECTIONS, Contender, Place, Upstream

__all__ = ["Nginx"]

_MODULE = "ngx_stream_module.so"

_CONFIGURATION = """
{load_module}
daemon off;
pid {folder}/nginx.pid;
error_log /dev/null crit;
worker_processes {cores};
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
stream {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_pass 127.0.0.1:{upstream};
        proxy_timeout 1h;
        proxy_half_close on;
        proxy_ssl on;
        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_certificate {cert};
        proxy_ssl_certificate_key {key};
        proxy_ssl_trusted_certificate {ca};
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        proxy_ssl_server_name on;
        proxy_ssl_session_reuse off;
    }}
}}
"""


class Nginx(Contender):
    """One worker for each core. It sets TCP_NODELAY by itself; its buffers of 16 KiB hold one TLS record.

    Raw TCP only: it neither sends an SSLRequest nor, in the versions of today's distributions, an ALPN upstream.
    """

    name = "nginx"
    program = "nginx"
    before = frozenset({Upstream.TLS})

    def path(self) -> str | None:
        """The program, where the stream module is in it or beside it."""
        found = super().path()
        if found is None:
            return None
        built = self.said("-V")
        return found if self._module(built) or re.search(r"--with-stream(\s|$)", built) else None

    def command(self, place: Place) -> list[str]:
        """A master and its workers; the prefix keeps it from the system's own folders."""
        module = self._module(self.said("-V"))
        text = _CONFIGURATION.format(
            load_module=f"load_module {module};" if module else "",
            folder=place.folder,
            cores=CORES,
            files=2 * MOST_CONNECTIONS + 100,
            port=place.port,
            upstream=place.upstream_port,
            cert=place.pki.client.cert,
            key=place.pki.client.key,
            ca=place.pki.server_ca,
        )
        configuration = place.write("nginx.conf", text)
        return [self.path() or self.program, "-p", str(place.folder), "-e", "/dev/null", "-c", configuration]

    def version(self) -> str:
        """The first line of `-v`."""
        return self.said("-v").partition("\n")[0].removeprefix("nginx version: ").replace("/", " ")

    @staticmethod
    def _module(built: str) -> Path | None:
        folder = re.search(r"--modules-path=(\S+)", built)
        module = Path(folder[1], _MODULE) if folder else None
        return module if module is not None and module.exists() else None
