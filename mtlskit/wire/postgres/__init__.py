"""The Postgres protocol, version 3, as far as a proxy must understand it: up to the first ReadyForQuery.

`messages` holds constants, builders and parsers; `startup` reads what a client says first; `login` follows what the
server answers. Nothing here does I/O or reads the clock.
"""
