"""Room for many connections: each session needs two file descriptors."""

from __future__ import annotations

from contextlib import suppress

__all__ = ["raise_descriptor_limit"]


def raise_descriptor_limit() -> None:
    """Raise this process's soft limit of open files to its hard limit, where the platform has one.

    Soft limits are low (1,024 is usual) for programs that use select(); the relay uses epoll or kqueue.
    """
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS names a hard limit that it then refuses.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
