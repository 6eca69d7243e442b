"""Files and rights, and what is in them: key, certificate, chain, dates, usages, strength."""

from __future__ import annotations

from mtlskit.doctor.case import Case, Identified

__all__ = ["identify"]


def identify(case: Case) -> Identified:
    """Layers FILES and IDENTITY. Blocks on the disk; run in a thread."""
    raise NotImplementedError
