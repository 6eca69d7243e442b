"""The local side of a tunnel: the proxy that should run, its door, and a plain client that knocks."""
