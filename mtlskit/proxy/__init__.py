"""Tunnels: who may come in, how a session is set up, and how it all starts and stops."""
