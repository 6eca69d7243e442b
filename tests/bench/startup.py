"""How long a person waits for the command: the whole process, from its start to its end or to its listener."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from mtlskit.pki.authority import Authority
from tests.bench.measure import Series

__all__ = ["measure_startup"]

_MTLSKIT = str(Path(sys.executable).parent / "mtlskit")


def measure_startup(runs: int) -> list[Series]:
    """`mtlskit --help` to its end, `mtlskit proxy` to its ready file, and an empty Python beside them, in turn."""
    empty, text, ready = [], [], []
    with TemporaryDirectory(prefix="mtlskit-bench-") as folder:
        proxy = _proxy_command(Path(folder))
        for _ in range(runs + 1):
            empty.append(_to_the_end([sys.executable, "-c", "pass"]))
            text.append(_to_the_end([_MTLSKIT, "--help"]))
            ready.append(_to_ready(proxy, Path(folder) / "ready.json"))
    # The first round fills the caches of the disk and of compiled modules.
    return [
        Series("python -c pass", "ms", tuple(empty[1:])),
        Series("mtlskit --help", "ms", tuple(text[1:])),
        Series("mtlskit proxy, until every listener accepts", "ms", tuple(ready[1:])),
    ]


def _to_the_end(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def _to_ready(command: list[str], ready: Path) -> float:
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--ready-file", str(ready)], stderr=subprocess.DEVNULL)
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise RuntimeError("the proxy did not start")
            time.sleep(0.001)
        elapsed = (time.perf_counter() - began) * 1000
        json.loads(ready.read_text())
    finally:
        process.terminate()
        process.wait(timeout=10)
    return elapsed


def _proxy_command(folder: Path) -> list[str]:
    now = datetime.now(UTC)
    authority = Authority.create("bench", now=now)
    client = authority.issue_client("bench", now=now)
    files = {"ca.crt": authority.cert_pem, "client.crt": client.cert_pem, "client.key": client.key_pem}
    for name, content in files.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)
    options = {"--listen": "127.0.0.1:0", "--upstream": "127.0.0.1:9"}
    paths = {"--ca": "ca.crt", "--cert": "client.crt", "--key": "client.key"}
    flags = [word for option, value in options.items() for word in (option, value)]
    flags += [word for option, name in paths.items() for word in (option, str(folder / name))]
    return [_MTLSKIT, "proxy", *flags]
