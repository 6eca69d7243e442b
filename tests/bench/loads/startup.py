"""How long a person waits for the command: the whole process, from its start to its end or to its listener."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.book import Figure
from tests.bench.contenders import MTLSKIT, Contender, Place, Upstream
from tests.bench.lab import Lab
from tests.bench.route import running
from tests.services.places import free_port

__all__ = ["HELP", "READY", "measure"]

HELP = Figure("startup", "--help, to its end", "ms")
READY = Figure("startup", "until it accepts", "ms")
_PYTHON = "python -c pass"


def measure(lab: Lab) -> None:
    """`mtlskit --help` beside an empty Python, and every contender until its door is open, in turn."""
    commands = {
        _PYTHON: [sys.executable, "-c", "pass"],
        MTLSKIT: [str(Path(sys.executable).parent / MTLSKIT), "--help"],
    }
    chosen = [each for each in lab.contenders if Upstream.TLS in each.before]
    port = lab.origin["tls"]
    for turn in range(-1, lab.scale.startup_rounds):  # the first fills caches, of the disk and of compiled modules
        for name, command in commands.items():
            taken = _to_the_end(command)
            if turn >= 0:
                lab.book.add(HELP, name, turn, taken * 1000)
        for contender in chosen:
            with lab.attempt("startup", contender.name):
                taken = _to_ready(lab, contender, port)
                if turn >= 0:
                    lab.book.add(READY, contender.name, turn, taken * 1000)


def _to_the_end(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "100"})
    return time.perf_counter() - began


def _to_ready(lab: Lab, contender: Contender, port: int) -> float:
    place = Place(lab.new_folder(), free_port(), Upstream.TLS, port, lab.pki)
    began = time.perf_counter()
    with running(contender, place):
        return time.perf_counter() - began
