"""What may go wrong with one contender or helper, and is told in the notes while the others go on."""

from __future__ import annotations

__all__ = ["BenchError"]


class BenchError(Exception):
    """A contender or a helper did not do its part."""
