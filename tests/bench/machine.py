"""Where and when the figures were taken, and with which versions: figures without these say nothing."""

from __future__ import annotations

import hashlib
import os
import platform
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import mtlskit
from tests.bench.contenders import Contender

__all__ = ["about", "sources"]


def about(contenders: Iterable[Contender]) -> dict[str, object]:
    """Plain values. No host name: it is nobody's business."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "load_before": round(os.getloadavg()[0], 2),
        "sources": sources(),
        "versions": {each.name: each.version() for each in contenders if not each.limit},
    }


def sources() -> str:
    """A digest of mtlskit's own files: figures of different code must not be compared as if they were of one."""
    digest = hashlib.sha256()
    for path in sorted(Path(mtlskit.__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
