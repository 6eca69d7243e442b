"""Events that say what happened, and the sinks that tell people and machines."""

from mtlskit.telemetry.events import Emit, Event, Level, silent
from mtlskit.telemetry.logs import json_log, people_log

__all__ = ["Emit", "Event", "Level", "json_log", "people_log", "silent"]
