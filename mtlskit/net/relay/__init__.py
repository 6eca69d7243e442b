"""Established sessions: two sockets and nothing to decide, moved by one thread."""

from mtlskit.net.relay.pair import Pair
from mtlskit.net.relay.terms import Ending, HandOver, Observer, Outcome, RelayPolicy
from mtlskit.net.relay.thread import Relay

__all__ = ["Ending", "HandOver", "Observer", "Outcome", "Pair", "Relay", "RelayPolicy"]
