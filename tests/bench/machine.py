"""Where and when the figures were taken, and with which versions: figures without these say nothing."""

from __future__ import annotations

import os
import platform
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.contenders import Contender

__all__ = ["about"]


def about(contenders: Iterable[Contender]) -> dict[str, object]:
    """Plain values. No host name: it is nobody's business."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "load_before": os.getloadavg()[0],
        "versions": {each.name: each.version() for each in contenders if not each.limit},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
