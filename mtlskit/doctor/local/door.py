"""The tunnel's address: a proxy of ours is behind it, or somebody else, or nobody; and how a plain client fares."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from mtlskit.config.values import ListenAddress, UnixAddress
from mtlskit.control.client import Running, status_of
from mtlskit.doctor.case import Case
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.local.commands import doctor_command_as, mended_first, restart_commands, start_commands
from mtlskit.doctor.local.knocking import Outcome, is_http, knock, reachable, where
from mtlskit.doctor.local.proxies import Found, Served, tunnels_of
from mtlskit.doctor.local.proxy import is_stopped
from mtlskit.errors import Code, ControlError, DoctorError
from mtlskit.net.socktables import listening_program
from mtlskit.pki.certificates import bounded_text
from mtlskit.telemetry.logs import printable

__all__ = ["at_the_door", "unusable_folder", "who_is_there", "without_proxy"]

_UCRED: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_BANNERS: Final = {
    b"HTTP/": "a web server",
    b"SSH-": "an SSH server",  # RFC 4253, 4.2
    b"220": "a mail or FTP server",  # RFC 5321, 4.2; RFC 959, 5.4
}
"""How those begin who speak first, or to anybody."""
_DOOR: Final = "MTLS-DOOR-"
_MOST_USERS: Final = 3
"""That one sentence names."""
_LONGEST: Final = 600
"""Characters of a stranger's words. The longest sentence of ours, with its hint, has some 400."""


@dataclass(frozen=True)
class _Holder:
    """Who has the address. `program` is for people, and empty where the kernel does not say."""

    program: str = ""
    pid: int | None = None


async def at_the_door(case: Case, served: Served) -> Finding:
    """A plain client at the door of a proxy that is known to serve the tunnel."""
    if not served.addresses:
        return skipped(Layer.LOCAL, "local.client", "the proxy does not say where it listens")
    address = where(served.addresses[0])
    began = trio.current_time()
    outcome = await knock(case.kind, address, _user(case), case.means.step)
    seconds = trio.current_time() - began
    if outcome.ended:
        outcome = await _explained(case, served, outcome)
    if outcome.passed:
        seen = f"a plain client gets through at {address}: {_said(outcome.seen)}"
        return passed(Layer.LOCAL, "local.client", seen, about=str(address), seconds=seconds, **_mode(address))
    return _turned_away(case, served, address, outcome, seconds=seconds)


def _turned_away(
    case: Case, served: Served, address: ListenAddress, outcome: Outcome, *, seconds: float | None = None
) -> Finding:
    """A client of this user does not get through. That others may use the tunnel, and this user not, is as it should
    be."""
    if outcome.code is Code.DOOR_USER and _is_for_others(case):
        return _not_for_us(case, address)
    commands = restart_commands(case, served.pid) if served.pid and not outcome.connected else ()
    error = _failure(case, served, address, outcome)
    facts: dict[str, Any] = {}
    if outcome.code is not None and outcome.code.startswith(_DOOR):
        facts["code_of_door"] = outcome.code.value
    return failed(Layer.LOCAL, "local.client", error, about=str(address), commands=commands, seconds=seconds, **facts)


def _is_for_others(case: Case) -> bool:
    """By `allow_users`, which has names and numbers."""
    return bool(case.tunnel.allow_users) and not {_me(), str(getattr(os, "getuid", int)())} & set(
        case.tunnel.allow_users
    )


def _not_for_us(case: Case, address: ListenAddress) -> Finding:
    users = case.tunnel.allow_users
    more = f" and {len(users) - _MOST_USERS} more" if len(users) > _MOST_USERS else ""
    error = DoctorError(
        Code.LOCAL_DOOR_CLOSED,
        f"this tunnel admits {', '.join(users[:_MOST_USERS])}{more} only, and this is user {_me()}: whether they get"
        " through was not tried",
        "look again as one of them",
    )
    commands = (doctor_command_as(case, users[0]),)
    return warned(Layer.LOCAL, "local.client", error, about=str(address), commands=commands)


def _failure(case: Case, served: Served, address: ListenAddress, outcome: Outcome) -> DoctorError:
    """What a client that does not get through means, where the proxy is known."""
    seen, hint = _said(outcome.seen), "" if outcome.refusal is None else _said(outcome.refusal.hint)
    if outcome.code is not None and outcome.code.startswith(_DOOR):
        return DoctorError(Code.LOCAL_DOOR_CLOSED, f"the proxy turns a client of user {_me()} away: {seen}", hint)
    if outcome.refusal is not None or outcome.code is not None:
        told = f"the proxy tells a plain client at {address}: {seen}"
        return DoctorError(outcome.code or Code.LOCAL_SILENT, told, hint)
    if not outcome.connected:
        return DoctorError(
            Code.LOCAL_NOT_RUNNING,
            f"process {served.pid} says that it listens there, and {seen}",
            mended_first(case, "restart the proxy: something has removed its socket or holds it up"),
        )
    return DoctorError(
        Code.LOCAL_SILENT,
        f"process {served.pid} takes the connection, and {seen}",
        "its log says what it waits for; the findings about the upstream may say it, too",
    )


async def _explained(case: Case, served: Served, outcome: Outcome) -> Outcome:
    """Kafka and tcp have no words for a refusal: who may use the door, or the proxy's last failure, says why."""
    if _is_for_others(case) and not served.status.get("config_changed"):  # the door comes before the upstream
        return Outcome("it is not in allow_users", code=Code.DOOR_USER)
    proxy = Running(served.pid, served.socket)
    try:
        status: dict[str, Any] = await status_of(proxy, deadline=case.means.step)
    except ControlError:
        status = {}
    tunnel = next((each for each in tunnels_of(status) if each.get("name") == served.tunnel.get("name")), {})
    last = tunnel.get("upstream_error")
    if isinstance(last, Mapping) and last.get("code") in list(Code) and _recent(last.get("at"), case.means.step):
        return Outcome(str(last.get("reason")), code=Code(last["code"]))
    if _is_for_others(case):
        return Outcome("it is not in allow_users", code=Code.DOOR_USER)
    return outcome


def _said(text: str) -> str:
    """What a server or a proxy has said, on one line and no longer than people read."""
    return printable(text[:_LONGEST])


def _recent(text: object, step: float) -> bool:
    try:
        return datetime.now(UTC) - datetime.fromisoformat(str(text)) <= timedelta(seconds=step + 2)
    except (ValueError, TypeError):
        return False


def _mode(address: ListenAddress) -> dict[str, Any]:
    """Who may use a unix socket: a proxy makes it 0600, and only its owner changes that."""
    if not isinstance(address, UnixAddress):
        return {}
    try:
        return {"mode": f"{stat.S_IMODE(address.path.lstat().st_mode):04o}"}
    except OSError:
        return {}


def _user(case: Case) -> str:
    name = case.means.environ.get("PGUSER", "")
    return name if name and "\0" not in name else "mtlskit"


def _me() -> str:
    """This user, by name where there is one."""
    try:
        import pwd  # Unix only

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return str(getattr(os, "getuid", int)())


# No proxy of the folder serves it.


async def without_proxy(case: Case, found: Found) -> tuple[Finding, ...]:
    """Who is there instead."""
    address = where(case.tunnel.listen)
    if getattr(address, "port", None) == 0:  # nobody could know where to knock
        return (_not_running(case, found, "it has no port of its own"),)
    problem = await reachable(address, case.means.step)
    if problem is not None:
        return (_nobody(case, found, address, problem),)
    holder = await trio.to_thread.run_sync(partial(_holder, address), abandon_on_cancel=True)
    if found.stranger is not None:
        return (_other_proxy(address, found.stranger),)
    for each in found.silent:
        if holder.pid in (None, each.proxy.pid):
            return (_mute(address, each.proxy.pid, case.means.step),)
    return await _stranger(case, found, address, holder)


async def who_is_there(case: Case, found: Found, served: Served) -> tuple[Finding, ...]:
    """At the address of a tunnel that has moved: none where nothing listens, or but another tunnel of the same proxy.

    Whoever has it stands in the way of a restart, which comes later than his end.
    """
    if found.stranger is not None and found.stranger.pid == served.pid:
        return ()
    findings = await without_proxy(case, replace(found, served=None, of_file=None))
    return tuple(
        replace(each, commands=tuple(command for command in each.commands if command not in start_commands(case)))
        for each in findings
        if each.code is not Code.LOCAL_NOT_RUNNING
    )


def _holder(address: ListenAddress) -> _Holder:
    """By the kernel: the peer of a unix socket is whoever called listen(2) (unix(7)); of TCP, its tables."""
    if isinstance(address, UnixAddress):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1)
                probe.connect(os.fspath(address.path))
                pid = int(_UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0])
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except (OSError, AttributeError):
            return _Holder()
        return _Holder(f"{name} (pid {pid})", pid)
    program = listening_program(address.port)
    pid_text = program.rpartition("(pid ")[2].rstrip(")")
    return _Holder(program, int(pid_text) if pid_text.isdigit() else None)


def _not_running(case: Case, found: Found, why: str) -> Finding:
    pid = None if found.of_file is None else bounded_text(str(found.of_file.get("pid")))
    if pid is not None:
        about = f"process {pid} runs with {case.config.source}, and does not have"
        sentence, shared = f"{about} tunnel {case.name}", f"{about} these tunnels"
        hint = mended_first(case, "restart it: the tunnel was added after the start, or left out")
        commands = restart_commands(case, pid)
    else:
        sentence, shared = f"no proxy runs with tunnel {case.name}: {why}", "no proxy runs with these tunnels"
        hint, commands = mended_first(case, "start it, and wait until it says `ready`"), start_commands(case)
    error = DoctorError(Code.LOCAL_NOT_RUNNING, sentence, hint)
    finding = failed(Layer.LOCAL, "local.proxy", error, about=str(case.tunnel.listen), commands=commands)
    return replace(finding, shared=shared)


def _nobody(case: Case, found: Found, address: ListenAddress, problem: Outcome) -> Finding:
    """Nothing takes connections."""
    if isinstance(address, UnixAddress):
        if problem.errno in (errno.EPERM, errno.EACCES):
            error = DoctorError(
                Code.LOCAL_DOOR_CLOSED,
                f"{address} is not open to user {_me()}",
                "ask as the user who runs the proxy; the socket's mode and folder say who may use it",
            )
            return failed(
                Layer.LOCAL,
                "local.client",
                error,
                about=str(address),
                commands=(f"ls -l {shlex.quote(str(address.path))}",),
            )
        try:
            mode = address.path.lstat().st_mode
        except OSError:
            return _not_running(case, found, f"there is no socket {address.path}")
        if not stat.S_ISSOCK(mode):
            return _in_the_way(address)
        return _not_running(case, found, f"the socket {address.path} was left behind by a process that has ended")
    return _not_running(case, found, f"nothing listens on {address}")


def _in_the_way(address: UnixAddress) -> Finding:
    error = DoctorError(
        Code.LOCAL_PORT_TAKEN,
        f"{address.path} is no socket, and as long as it is there no proxy can listen there",
        "move it away, or give the tunnel another `listen`",
    )
    commands = (f"ls -l {shlex.quote(str(address.path))}",)
    return failed(Layer.LOCAL, "local.proxy", error, about=str(address), commands=commands)


def _taken(case: Case, address: ListenAddress, seen: str, pid: int | None) -> Finding:
    error = DoctorError(
        Code.LOCAL_PORT_TAKEN,
        f"{seen}: clients of tunnel {case.name} reach that and not the proxy",
        "stop it and start the proxy, or give the tunnel another `listen`; this shows what it is",
    )
    commands: tuple[str, ...]
    if pid is not None:
        commands = (f"ps -fp {pid}", *start_commands(case))
    else:
        commands = ("ss -lxp",) if isinstance(address, UnixAddress) else (f"ss -ltnp 'sport = :{address.port}'",)
    return failed(Layer.LOCAL, "local.proxy", error, about=str(address), commands=commands)


def _other_proxy(address: ListenAddress, other: Served) -> Finding:
    of = bounded_text(str(other.status.get("config") or "flags"))
    error = DoctorError(
        Code.LOCAL_PORT_TAKEN,
        f"another proxy (process {other.pid}, from {of}) has {address}, for its tunnel"
        f" {bounded_text(str(other.tunnel.get('name')))}, which leads elsewhere",
        "stop it, or give one of the tunnels another `listen`",
    )
    return failed(Layer.LOCAL, "local.proxy", error, about=str(address), commands=("mtlskit status",))


def _mute(address: ListenAddress, pid: int, step: float) -> Finding:
    stopped = is_stopped(pid)
    what = "was stopped (SIGSTOP)" if stopped else f"has not answered on its control socket within {step:g} s"
    error = DoctorError(
        Code.LOCAL_SILENT,
        f"the proxy at {address} (process {pid}) {what}",
        "let it go on" if stopped else "its log says what it waits for; a disk that does not answer, for example",
    )
    commands = (f"kill -CONT {pid}",) if stopped else (f"ps -o pid,stat,wchan,args -p {pid}",)
    return failed(Layer.LOCAL, "local.proxy", error, about=str(address), commands=commands, pid=pid)


async def _stranger(case: Case, found: Found, address: ListenAddress, holder: _Holder) -> tuple[Finding, ...]:
    """Something listens, and it has no control socket here: a proxy of another user, or another program."""
    outcome = await knock(case.kind, address, _user(case), case.means.step)
    who = f"{bounded_text(holder.program)} " if holder.program else "something "
    if outcome.tls:
        return (_taken(case, address, f"{who}listens on {address}, a Postgres that offers TLS itself", holder.pid),)
    if outcome.passed and holder.program.startswith("postgres "):
        return (_taken(case, address, f"{who}listens on {address}", holder.pid),)
    if outcome.passed or outcome.code is not None:
        return _of_another_user(case, found, address, outcome, holder)
    kind = next((words for begin, words in _BANNERS.items() if outcome.odd.startswith(begin)), "")
    if not kind and not outcome.odd and await is_http(address, case.means.step / 2):
        kind = "a web server"
    if kind or outcome.odd:
        return (
            _taken(case, address, f"{who}listens on {address}, {kind or f'and {_said(outcome.seen)}'}", holder.pid),
        )
    error = DoctorError(
        Code.LOCAL_SILENT,
        f"{who}listens on {address}, and {_said(outcome.seen)}",
        "see what it is; if it is no proxy of yours, stop it, or give the tunnel another `listen`",
    )
    return (failed(Layer.LOCAL, "local.proxy", error, about=str(address), commands=("mtlskit status",)),)


def _of_another_user(
    case: Case, found: Found, address: ListenAddress, outcome: Outcome, holder: _Holder
) -> tuple[Finding, ...]:
    """It behaves as a proxy does. What it serves cannot be asked."""
    proxy = skipped(
        Layer.LOCAL,
        "local.proxy",
        "no control socket of its",
        about=str(address),
        seen=f"{bounded_text(holder.program) or 'something'} listens on {address} as a proxy does, with no control"
        f" socket in {found.folder}: ask as the user who runs it, or name its folder with MTLSKIT_CONTROL",
    )
    if outcome.passed:
        seen = f"a plain client gets through at {address}: {_said(outcome.seen)}"
        return proxy, passed(Layer.LOCAL, "local.client", seen, about=str(address))
    nobody = Served(holder.pid or 0, Path(), {}, {})
    return proxy, _turned_away(case, nobody, address, outcome)


def unusable_folder(found: Found) -> Finding | None:
    """The control sockets cannot be looked at."""
    if found.problem is None:
        return None
    return warned(Layer.LOCAL, "local.control", found.problem, about=str(found.folder))
