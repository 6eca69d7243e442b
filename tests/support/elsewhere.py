"""What is examined elsewhere than here: on a host of its own, or with names of its own.

`OtherHost` has the network, the resolver and the hosts file that a test wants. Linux namespaces: `unshare` makes them,
and they are gone with the process. Run as a program, this module is what goes on in there: it answers for the DNS if it
is told what, examines what comes on its standard input, and writes the report.
"""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from mtlskit.doctor.diagnosis import Report
from mtlskit.doctor.gather import Gathered, diagnose

_TIMEOUT = 120  # seconds; a safety net, nothing is measured by it
_ROOT = Path(__file__).parents[2]

NAME_SERVER = "127.0.0.53"
SILENT = "10.9.0.0/16"
"""Addresses that a host made with `SILENCE` sends packets to, and never hears of again."""

LOOPBACK = ("ip link set lo up",)
SILENCE: tuple[str, ...] = (
    *LOOPBACK,
    "ip address add 10.9.8.1/32 dev lo",
    f"ip route add {SILENT} dev lo src 10.9.8.1",
)

EVERYWHERE = (*SILENCE, "ip route add default dev lo src 10.9.8.1")
"""A way out, on which everything is lost."""

_SCRIPT = """
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
"""


class Elsewhere(Gathered):
    """What there is to examine, and not just like that."""

    def examine(self) -> Report:
        """The doctor's report from there."""
        raise NotImplementedError


@dataclass(frozen=True)
class OtherNames(Elsewhere):
    """In this process, where each name leads to other addresses than the resolver says."""

    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def examine(self) -> Report:
        """The doctor's report, with these names."""

        async def examined() -> Report:
            trio.socket.set_custom_hostname_resolver(_Resolver(self.addresses))
            return await diagnose(Gathered(self.cases, self.broken, self.source))

        return trio.run(examined)


class _Resolver(trio.abc.HostnameResolver):
    def __init__(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        self._addresses = addresses

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        name = host.decode("ascii") if isinstance(host, bytes) else host
        return [
            entry
            for address in self._addresses[name]
            for entry in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class OtherHost(Elsewhere):
    """On a host of its own."""

    network: tuple[str, ...] = ()
    """Commands that set its network up. None: there is none."""
    name_server: str = NAME_SERVER
    records: Mapping[str, str] = field(default_factory=dict)
    """What the name server at `NAME_SERVER` answers: an IPv4 address, or empty for a name that has none. All other
    names do not exist. No name server where there are no records."""
    hosts: str = "127.0.0.1 localhost\n::1 localhost\n"

    def examine(self) -> Report:
        """The doctor's report from there."""
        program = shutil.which("unshare")
        assert program, "the program unshare is not on PATH: install util-linux"
        user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        records = [f"{name}={address}" for name, address in self.records.items()]
        doctor = [sys.executable, "-m", __name__, *records]
        inside = "\n".join(["set -e", _SCRIPT, *self.network, 'shift; exec "$@"'])
        with tempfile.TemporaryDirectory(prefix="mtlskit-elsewhere-") as folder:
            Path(folder, "resolv.conf").write_text(f"nameserver {self.name_server}\n", encoding="ascii")
            Path(folder, "hosts").write_text(self.hosts, encoding="ascii")
            Path(folder, "nsswitch.conf").write_text("hosts: files dns\n", encoding="ascii")
            done = subprocess.run(
                [program, *user, "--net", "--mount", "--", "sh", "-c", inside, "sh", folder, *doctor],
                input=pickle.dumps(Gathered(self.cases, self.broken, self.source)),
                capture_output=True,
                cwd=_ROOT,
                timeout=_TIMEOUT,
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        report = pickle.loads(done.stdout)  # noqa: S301 - of our own process
        assert isinstance(report, Report)
        return report


def on_other_host(
    gathered: Gathered,
    *network: str,
    name_server: str = NAME_SERVER,
    records: Mapping[str, str] | None = None,
    hosts: str = "",
) -> OtherHost:
    """The same to be examined there. `hosts` are more lines of its hosts file."""
    return OtherHost(
        gathered.cases,
        gathered.broken,
        gathered.source,
        network=network,
        name_server=name_server,
        records=records or {},
        hosts=OtherHost.hosts + hosts,
    )


def answer_for(query: bytes, records: Mapping[str, str]) -> bytes:
    """The answer to a query of the DNS for an address (RFC 1035 section 4)."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii"))
        at += 1 + query[at]
    kind = int.from_bytes(query[at + 1 : at + 3])
    question = query[12 : at + 5]
    address = records.get(".".join(labels).lower())
    found = b""
    if address and kind == 1:  # A; the name is a pointer to the question's
        found = struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(address)
    status = 3 if address is None else 0  # NXDOMAIN
    return query[:2] + struct.pack("!HHHHH", 0x8180 | status, 1, bool(found), 0, 0) + question + found


def _serve_names(records: Mapping[str, str]) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((NAME_SERVER, 53))

    def serve() -> None:
        while True:
            query, client = server.recvfrom(4096)
            server.sendto(answer_for(query, records), client)

    threading.Thread(target=serve, daemon=True).start()


def _main() -> None:
    records = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if records:
        _serve_names(records)
    gathered = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the test that started us
    sys.stdout.buffer.write(pickle.dumps(trio.run(diagnose, gathered)))


if __name__ == "__main__":
    _main()
