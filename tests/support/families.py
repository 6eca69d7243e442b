"""A process with all that came of it, noted while it lives, so that a test can see that nothing is left afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Member:
    """A process: its id, when it began (ids are used again), and the folder it works in."""

    pid: int
    began: str
    folder: Path


def family_of(pid: int) -> list[Member]:
    """The process and its descendants now; without those that end while they are looked at."""
    try:
        member = Member(pid, _began(pid), Path(f"/proc/{pid}/cwd").readlink())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [member, *(relative for child in children for relative in family_of(int(child)))]


def alive(members: list[Member]) -> list[Member]:
    """Those that are still there."""
    return [member for member in members if _began(member.pid) == member.began]


def _began(pid: int) -> str:
    """Field 22 of proc_pid_stat(5); empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
