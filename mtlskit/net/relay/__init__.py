"""Established sessions: two sockets and nothing to decide, moved by one thread."""

from mtlskit.net.relay.pair import Pair
from mtlskit.net.relay.terms import Codec, Ending, HandOver, Moved, Observer, Outcome, RelayPolicy
from mtlskit.net.relay.thread import Relay

__all__ = ["Codec", "Ending", "HandOver", "Moved", "Observer", "Outcome", "Pair", "Relay", "RelayPolicy"]
