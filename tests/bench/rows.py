"""COPY: rows out of PostgreSQL and into it. The server makes rows and reads them, and keeps none."""

from __future__ import annotations

import psycopg

__all__ = ["MOVES", "begin", "copy_in", "copy_out"]

# Bytes of a row, its newline included. Wide, so that the server and the client, for whom each row is work, matter less.
_ROW = 8000
_BLOCK = (b"x" * (_ROW - 1) + b"\n") * 16


def begin(connection: psycopg.Connection) -> None:
    """What the rows in need: once for each connection."""
    connection.execute("CREATE TEMP TABLE rows_in (line text)")


def copy_out(connection: psycopg.Connection, size: int) -> int:
    """One COPY of about `size` bytes out of the server, every row read. The bytes that came."""
    statement = b"COPY (SELECT repeat('x', %d) FROM generate_series(1, %d)) TO STDOUT" % (_ROW - 1, size // _ROW)
    with connection.cursor().copy(statement) as copy:
        return sum(len(block) for block in copy)


def copy_in(connection: psycopg.Connection, size: int) -> int:
    """One COPY of at least `size` bytes into the server, which reads every row. The bytes that went."""
    moved = 0
    with connection.cursor().copy("COPY rows_in FROM STDIN WHERE false") as copy:
        while moved < size:
            copy.write(_BLOCK)
            moved += len(_BLOCK)
    return moved


MOVES = {"out": copy_out, "in": copy_in}
"""By direction, as the server sees it."""
