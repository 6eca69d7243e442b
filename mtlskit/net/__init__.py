"""Sockets: listeners, dialling, TLS, identity snapshots and the relay."""
