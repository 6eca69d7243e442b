"""Events that say what happened, and the sinks that tell people and machines."""

from mtlskit.telemetry.events import Emit, Event, Level, silent

__all__ = ["Emit", "Event", "Level", "silent"]
