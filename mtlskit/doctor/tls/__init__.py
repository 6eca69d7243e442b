"""TLS probes: handshakes that record what the server says, and what to make of its chain."""
