"""Whether the terminal that the proxy was started from has been closed.

Closing a terminal and asking for a reload arrive as one signal, SIGHUP. What tells them apart is the terminal: the
kernel hangs it up before it sends the signal, and a descriptor of it is no terminal from then on (isatty(3) fails with
EIO). So the standard streams that are terminals are noted at the start, and looked at again when the signal comes.

One case cannot be told: where a shell let go of a job (`disown`) and the terminal has been closed since, the SIGHUP
that was meant as a reload is taken for the hang-up. Under `nohup`, which makes the signal ignored before we start, no
terminal counts, and each SIGHUP is a reload.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

__all__ = ["Terminals"]

_STANDARD_STREAMS = (0, 1, 2)


@dataclass(frozen=True)
class Terminals:
    """The standard streams that were terminals when this was made; none where a hang-up does not concern us."""

    descriptors: tuple[int, ...]

    @classmethod
    def at_start(cls) -> Terminals:
        """Look at the streams. To be called before SIGHUP gets a handler: whoever started us may have it ignored."""
        number = getattr(signal, "SIGHUP", None)
        if number is None or signal.getsignal(number) is signal.SIG_IGN:
            return cls(())
        return cls(tuple(descriptor for descriptor in _STANDARD_STREAMS if os.isatty(descriptor)))

    @property
    def closed(self) -> bool:
        """Whether one of them is a terminal no longer."""
        return not all(os.isatty(descriptor) for descriptor in self.descriptors)
