"""The stage on which a page of the documentation is played: an empty folder, a sandbox's values, and a shell.

The pages use names that stand for the reader's own. Here they become those of a sandbox (`replacements`); the table is
explained in docs/explanation/testing.md. Each block is a shell of its own, as if typed into another terminal.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.services.places import free_port
from tests.support.command_process import TIMEOUT, CommandProcess, clean_environment
from tests.support.doc_blocks import Block, Run

READY = r" ready: \d+ tunnel| the sandbox is ready: "
TOML_HEAD = "# mtlskit.toml\n"
_COMMAND = re.compile(r"^mtlskit (\w+)", re.MULTILINE)


def replacements(sandbox: Mapping[str, Any]) -> dict[str, str]:
    """What the names on the pages are here. `sandbox`: the values of its sandbox.json."""
    postgres = sandbox["postgres"]
    url = urlsplit(postgres["url"])
    gateway = f"{url.hostname}:{url.port}"
    first, second = _two_ports()
    brokers = [broker["address"] for broker in sandbox["kafka"]["brokers"]]
    return {
        "postgres://ann:secret@127.0.0.1:5432/app": postgres["direct_url"],
        "db.example.com:5432": gateway,
        "db2.example.com:5432": gateway,
        "postgresql-curved-12345": postgres["addon"],
        "6432": str(first),
        "6433": str(second),
        "kafka-rigid-4711": sandbox["kafka"]["addon"],
        "b1.example.com:9096": brokers[0],
        "b2.example.com:9096": brokers[1],
        "9092": str(_port_before_free_ones(len(brokers) + 1)),
        "ann": url.username or "",
        "secret": url.password or "",
        "app": url.path.removeprefix("/"),
    }


def postgres_addon(sandbox: Mapping[str, Any]) -> str:
    """The name of the database that the pages call postgresql-curved-12345."""
    return str(sandbox["postgres"]["addon"])


def heroku_of(sandbox: Mapping[str, Any]) -> dict[str, str]:
    """What a reader has who is logged in at Heroku: here that is the sandbox."""
    return {
        "HEROKU_API_KEY": sandbox["api_key"],
        "HEROKU_HOST": sandbox["platform_api"],
        "HEROKU_DATA_HOST": sandbox["data_api"],
        "MTLSKIT_MY_IP": ",".join(sandbox["my_ip"]),
    }


def _port_before_free_ones(count: int) -> int:
    """A free port with so many free ones behind it: a Kafka tunnel's, whose brokers follow."""
    while True:
        first = free_port()
        with suppress(OSError, OverflowError):
            for port in range(first, first + count + 1):
                socket.create_server(("127.0.0.1", port)).close()
            return first


def _two_ports() -> tuple[int, int]:
    first = free_port()
    while (second := free_port()) == first:
        pass
    return first, second


class Stage:
    """Plays the blocks of one page. A context manager: what stays up is gone on exit, after ending with status 0."""

    def __init__(self, folder: Path, sandbox: Mapping[str, Any]) -> None:
        self._folder = folder
        self._names = replacements(sandbox)
        alternatives = "|".join(sorted(map(re.escape, self._names), key=len, reverse=True))
        self._name = re.compile(rf"(?<!\w){'(?:' + alternatives + ')'}(?!\w)")
        # A runtime folder of its own: `mtlskit status` of one page must not see the proxies of other tests.
        more = {
            "PGPASSWORD": self._names["secret"],
            "XDG_RUNTIME_DIR": str(folder),
            "MTLSKIT_STATE": str(folder / "state"),
            "MTLSKIT_SANDBOX_ADDON": postgres_addon(sandbox),
            **heroku_of(sandbox),
        }
        self._environment = clean_environment(folder, **more)
        self._up: dict[str, CommandProcess] = {}
        self._stack = ExitStack()
        for name, key in (("client.crt", "cert"), ("client.key", "key"), ("root.crt", "ca")):
            shutil.copy(sandbox["pki"][key], folder / name)
        (folder / "kafka").mkdir()
        for name, key in (("client.crt", "cert"), ("client.key", "key"), ("root.crt", "ca")):
            shutil.copy(sandbox["kafka"][key], folder / "kafka" / name)
        (folder / "ca").symlink_to(sandbox["pki"]["ca_dir"])  # the CA that the database trusts

    def here(self, text: str) -> str:
        """The text of a page with the names of this stage."""
        return self._name.sub(lambda found: self._names[found[0]], text)

    def play(self, block: Block) -> None:
        """Do what the block says. Fails with the block's place where it does not go as the page says."""
        if block.language == "toml" and block.text.startswith(TOML_HEAD):
            (self._folder / "mtlskit.toml").write_text(self.here(block.text), encoding="utf-8")
        elif isinstance(block.how, Run):
            if block.how.stays_up:
                self._raise_up(block)
            else:
                self._run(block, block.how.status)

    def _raise_up(self, block: Block) -> None:
        [command] = _COMMAND.findall(block.text)
        if command in self._up:
            self._stop(command)
        # `exec`: the signal that stops it must reach mtlskit itself.
        script = _COMMAND.sub(r"exec mtlskit \1", self.here(block.text))
        process = CommandProcess(
            ["/bin/sh", "-eu", "-c", script], ready=READY, folder=self._folder, environment=self._environment
        )
        self._up[command] = self._stack.enter_context(process)

    def _stop(self, command: str) -> None:
        process = self._up.pop(command)
        assert process.stop() == 0, process.output

    def _run(self, block: Block, status: int) -> None:
        commands, expected = _script(block)
        argv = [sys.executable, "-c"] if block.language == "python" else ["/bin/sh", "-eu", "-c"]
        done = subprocess.run(
            [*argv, self.here(commands)],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == status, f"{block} ended with {done.returncode}, not {status}:\n{done.stdout}"
        if expected is not None:
            wanted = self.here(expected)
            assert is_like(wanted, done.stdout), f"{block} printed:\n{done.stdout}\nnot:\n{wanted}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                for command in reversed(list(self._up)):
                    self._stop(command)


def _script(block: Block) -> tuple[str, str | None]:
    """The commands of a block, and the output that a `console` block shows."""
    if block.language != "console":
        return block.text, None
    commands: list[str] = []
    output: list[str] = []
    for line in block.text.splitlines(keepends=True):
        (commands if line.startswith("$ ") else output).append(line.removeprefix("$ "))
    return "".join(commands), "".join(output)


def is_like(shown: str, printed: str) -> bool:
    """Whether output is what a page shows: ``…`` stands for anything in its line, or for any lines where it is alone.

    Spaces at the ends of lines and blank lines at the end do not count: they cannot be seen on a page.
    """
    lines = [
        r"(?:.*\n)*" if line.strip() == "…" else ".*".join(map(re.escape, line.rstrip().split("…"))) + r"\n"
        for line in shown.rstrip().splitlines()
    ]
    visible = [line.rstrip() + "\n" for line in printed.rstrip().splitlines()]
    return re.fullmatch("".join(lines), "".join(visible)) is not None


def read_sandbox(folder: Path) -> dict[str, Any]:
    """The values of a running sandbox."""
    found: dict[str, Any] = json.loads((folder / "sandbox.json").read_text(encoding="utf-8"))
    return found
