"""What to type about the proxy of a file."""

from __future__ import annotations

import shlex

from mtlskit.doctor.case import Case

__all__ = ["reload_command", "restart_commands", "start_command"]


def start_command(case: Case) -> str:
    """Start a proxy with this tunnel."""
    return f"mtlskit proxy{_file(case)}{_only(case)}"


def reload_command(case: Case) -> str:
    """Have the proxies of the file read their identities again, and try their failed tunnels again."""
    return f"mtlskit reload{_file(case)}"


def restart_commands(case: Case, pid: object) -> tuple[str, ...]:
    """Stop this process, which lets its sessions finish, and start another with all of its tunnels."""
    return f"mtlskit stop --pid {shlex.quote(str(pid))}", f"mtlskit proxy{_file(case)}"


def _file(case: Case) -> str:
    return "" if case.config.source is None else f" --config {shlex.quote(str(case.config.source))}"


def _only(case: Case) -> str:
    """One of several tunnels is named; a file's only one need not be."""
    return f" {shlex.quote(case.name)}" if len(case.config.tunnels) > 1 else ""
