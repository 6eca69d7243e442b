"""Connections in advance: upstream connections that have shaken hands and wait for a client."""

from mtlskit.net.warm.demand import Demand
from mtlskit.net.warm.pool import Outage, WarmBudget, WarmCounts, WarmPool

__all__ = ["Demand", "Outage", "WarmBudget", "WarmCounts", "WarmPool"]
