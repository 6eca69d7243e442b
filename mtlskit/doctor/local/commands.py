"""What to type about the proxy of a file."""

from __future__ import annotations

import shlex

from mtlskit.doctor.case import Case

__all__ = ["doctor_command_as", "mended_first", "reload_command", "restart_commands", "start_commands"]


def start_commands(case: Case) -> tuple[str, ...]:
    """Start a proxy with this tunnel. None where the file is broken: it would end at once."""
    return () if case.file_is_broken else (f"mtlskit proxy{_file(case)}{_only(case)}",)


def reload_command(case: Case) -> str:
    """Have the proxies of the file read their identities again, and try their failed tunnels again."""
    return f"mtlskit reload{_file(case)}"


def restart_commands(case: Case, pid: object) -> tuple[str, ...]:
    """Stop this process, which lets its sessions finish, and start another with all of its tunnels. None where the file
    is broken: the first would work, and the second would not."""
    if case.file_is_broken:
        return ()
    return f"mtlskit stop --pid {shlex.quote(str(pid))}", f"mtlskit proxy{_file(case)}"


def mended_first(case: Case, hint: str) -> str:
    """What to do with a proxy that has to read the file for it."""
    return f"mend the file first, then {hint}" if case.file_is_broken else hint


def doctor_command_as(case: Case, user: str) -> str:
    """Look again as another user, by name or number (sudo(8))."""
    as_user = f"#{user}" if user.isdecimal() else user
    name = f"-- {shlex.quote(case.name)}" if case.name == "explain" else shlex.quote(case.name)
    return f"sudo -u {shlex.quote(as_user)} mtlskit doctor{_file(case)} {name}"


def _file(case: Case) -> str:
    return "" if case.config.source is None else f" --config {shlex.quote(str(case.config.source))}"


def _only(case: Case) -> str:
    """One of several tunnels is named; a file's only one need not be."""
    return f" {shlex.quote(case.name)}" if len(case.config.tunnels) > 1 else ""
