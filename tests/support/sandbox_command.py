"""A running `mtlskit sandbox` with its API, and commands that talk to it as in a terminal that has loaded its file."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.services.accounts import server_account
from tests.services.places import scratch_folder
from tests.support.command_process import TIMEOUT, CommandProcess, clean_environment
from tests.support.plain_http import NO_CAS

READY = r" the sandbox is ready: "


class Sandbox:
    """What a test knows of a sandbox, and the commands that it types."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "space" / "sandbox.json"
        self.values: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        self.addon: str = self.values["postgres"]["addon"]
        self.kafka: str = self.values["kafka"]["addon"]
        self.environment = clean_environment(
            folder,
            HEROKU_API_KEY=self.values["api_key"],
            HEROKU_HOST=self.values["platform_api"],
            HEROKU_DATA_HOST=self.values["data_api"],
            MTLSKIT_MY_IP=",".join(self.values["my_ip"]),
            MTLSKIT_SANDBOX=str(self.file),
            MTLSKIT_STATE=str(folder / "state"),
            XDG_RUNTIME_DIR=str(folder),
        )

    def run(self, *words: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        """`mtlskit WORDS`, to its end."""
        done = subprocess.run(
            ["mtlskit", *words],
            cwd=cwd or self.folder,
            env=self.environment | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert self.values["api_key"] not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ok(self, *words: str, **more: Any) -> str:
        """What `mtlskit WORDS` prints, which must end with status 0."""
        done = self.run(*words, **more)
        assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`mtlskit WORDS`, running."""
        return subprocess.Popen(
            ["mtlskit", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the API that must succeed."""
        headers = {"Authorization": f"Bearer {self.values['api_key']}", "Range": "id ..; max=1000"}
        with httpx.Client(
            base_url=self.values["data_api"], headers=headers, trust_env=False, timeout=TIMEOUT, verify=NO_CAS
        ) as client:
            answer = client.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def addons(self) -> list[str]:
        """Those that have rules."""
        listed = [str(each["name"]) for each in self.call("GET", "/addons")]
        return [name for name in listed if "common" not in name]

    def fault(self, name: str, **details: Any) -> None:
        """Switch a fault on."""
        self.call("POST", "/sandbox/faults", {"name": name, **details})

    def no_faults(self) -> None:
        """Switch all of them off."""
        self.call("DELETE", "/sandbox/faults")

    def rules(self, addon: str | None = None) -> list[dict[str, Any]]:
        """The rules of an add-on, as the API tells them."""
        name = addon or self.addon
        path = (
            f"/data/kafka/v0/clusters/{name}" if name == self.kafka else f"/postgres/v0/databases/{name}/tls-endpoint"
        )
        found: list[dict[str, Any]] = self.call("GET", f"{path}/ip-rules")
        return found

    def cidrs(self, addon: str | None = None) -> list[str]:
        """Their ranges, in order."""
        return sorted(rule["cidr"] for rule in self.rules(addon))


@contextmanager
def running_sandbox(*flags: str) -> Iterator[Sandbox]:
    """A sandbox in a folder of its own; `flags` are those of `mtlskit sandbox`."""
    with scratch_folder("mtlskit-sandbox-", server_account()) as folder:
        os.chown(folder, os.geteuid(), os.getegid())
        folder.chmod(0o711)
        argv: Sequence[str] = ["mtlskit", "sandbox", "--dir", "space", *flags]
        with CommandProcess(argv, ready=READY, folder=folder, environment=clean_environment(folder)):
            yield Sandbox(folder)
