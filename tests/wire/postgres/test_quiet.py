"""The quiet points of a session: where they are and where they are not, for every way to cut up what is read."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.wire.postgres.messages import authentication_ok, error_response, frame
from mtlskit.wire.postgres.quiet import QuietWatcher


def ready(status: bytes = b"I") -> bytes:
    return frame(b"Z", status)


# What a server says.
LOGIN = authentication_ok() + frame(b"S", b"server_version\x0018.0\0") + frame(b"K", bytes(8)) + ready()
ROWS = frame(b"T", b"columns") + frame(b"D", b"a row") + frame(b"D", b"Z\0\0\0\5I") + frame(b"C", b"SELECT 2\0")
DONE = frame(b"C", b"BEGIN\0")
ERROR = error_response(severity="ERROR", sqlstate="22012", message="division by zero")
NOTICE = frame(b"N", b"SNOTICE\0\0")
NOTIFICATION = frame(b"A", bytes(4) + b"channel\0\0")
STATUS = frame(b"S", b"TimeZone\0UTC\0")
COPY_IN = frame(b"G", bytes(3))
COPY_OUT = frame(b"H", bytes(3)) + frame(b"d", b"line") + frame(b"c", b"") + frame(b"C", b"COPY 1\0")
COPY_BOTH = frame(b"W", bytes(3))
PARSED = frame(b"1", b"") + frame(b"2", b"")

# What a client says.
PASSWORD = frame(b"p", b"a password\0")
QUERY = frame(b"Q", b"select 1\0")
CALL = frame(b"F", bytes(12))
PARSE = frame(b"P", b"\0select 1\0\0\0")
BIND = frame(b"B", bytes(8))
EXECUTE = frame(b"E", bytes(5))
SYNC = frame(b"S", b"")
FLUSH = frame(b"H", b"")
TERMINATE = frame(b"X", b"")
COPY_DATA = frame(b"d", b"one line\n")
COPY_DONE = frame(b"c", b"")
COPY_FAIL = frame(b"f", b"why\0")

Turn = tuple[str, bytes]
"""Who speaks (`c` or `s`), and what."""


def fed(*turns: Turn, size: int = 1 << 20) -> QuietWatcher:
    """A watcher that has seen these turns, cut into pieces of this size."""
    watcher = QuietWatcher()
    for piece in pieces(turns, size):
        feed(watcher, piece)
    return watcher


def feed(watcher: QuietWatcher, turn: Turn) -> None:
    who, data = turn
    (watcher.from_client if who == "c" else watcher.from_upstream)(data)


def pieces(turns: Sequence[Turn], size: int) -> Iterator[Turn]:
    return ((who, data[at : at + size]) for who, data in turns for at in range(0, len(data), size))


QUIET: dict[str, list[Turn]] = {
    "a login without a password": [("s", LOGIN)],
    "a login with one": [("c", PASSWORD), ("s", LOGIN)],
    "a query": [("s", LOGIN), ("c", QUERY), ("s", ROWS + ready())],
    "a query sent with the start-up packet": [("c", QUERY), ("s", LOGIN + ROWS + ready())],
    "a function call": [("s", LOGIN), ("c", CALL), ("s", frame(b"V", bytes(4)) + ready())],
    "a query that failed": [("s", LOGIN), ("c", QUERY), ("s", ERROR + ready())],
    "a transaction and its end": [
        ("s", LOGIN), ("c", QUERY), ("s", DONE + ready(b"T")), ("c", QUERY), ("s", DONE + ready())
    ],
    "a failed transaction and its end": [
        ("s", LOGIN), ("c", QUERY), ("s", DONE + ready(b"E")), ("c", QUERY), ("s", DONE + ready())
    ],
    "an extended query": [("s", LOGIN), ("c", PARSE + BIND + EXECUTE + SYNC), ("s", PARSED + ROWS + ready())],
    "an extended query with a flush": [
        ("s", LOGIN), ("c", PARSE + FLUSH), ("s", PARSED), ("c", BIND + EXECUTE + SYNC), ("s", ROWS + ready())
    ],
    "a flush too many": [("s", LOGIN), ("c", PARSE + BIND + EXECUTE + SYNC + FLUSH), ("s", PARSED + ROWS + ready())],
    "a pipeline": [
        ("s", LOGIN), ("c", (PARSE + BIND + EXECUTE + SYNC) * 3), ("s", (PARSED + ROWS + ready()) * 3)
    ],
    "a parse that a query ends": [("s", LOGIN), ("c", PARSE + QUERY), ("s", PARSED + ROWS + ready())],
    "what comes by itself": [("s", LOGIN + NOTICE), ("s", NOTIFICATION), ("s", STATUS)],
    "a copy in": [("s", LOGIN), ("c", QUERY), ("s", COPY_IN), ("c", COPY_DATA * 2 + COPY_DONE), ("s", DONE + ready())],
    "a copy in that the client ends": [
        ("s", LOGIN), ("c", QUERY), ("s", COPY_IN), ("c", COPY_DATA + COPY_FAIL), ("s", ERROR + ready())
    ],
    "a copy in that the server ends": [
        ("s", LOGIN), ("c", QUERY), ("s", COPY_IN), ("c", COPY_DATA), ("s", ERROR + ready())
    ],
    "and whose client goes on to the end of it": [
        ("s", LOGIN),
        ("c", QUERY),
        ("s", COPY_IN),
        ("c", COPY_DATA),
        ("s", ERROR + ready()),
        ("c", COPY_DATA + COPY_DONE),
    ],
    "a copy in by the extended protocol": [
        ("s", LOGIN),
        ("c", PARSE + BIND + EXECUTE + SYNC),
        ("s", PARSED + COPY_IN),
        ("c", COPY_DATA + COPY_DONE + SYNC),
        ("s", DONE + ready()),
    ],
    "and one more after it": [
        ("s", LOGIN),
        ("c", PARSE + BIND + EXECUTE + SYNC),
        ("s", PARSED + COPY_IN),
        ("c", COPY_DATA + COPY_DONE + SYNC),
        ("s", DONE + ready()),
        ("c", BIND + EXECUTE + SYNC),
        ("s", COPY_IN),
        ("c", COPY_FAIL + SYNC),
        ("s", ERROR + ready()),
    ],
    "a copy in by the extended protocol that the server ends": [
        ("s", LOGIN),
        ("c", EXECUTE),
        ("s", COPY_IN),
        ("c", COPY_DATA),
        ("s", ERROR),
        ("c", COPY_DONE + SYNC),
        ("s", ready()),
    ],
    "a copy out": [("s", LOGIN), ("c", QUERY), ("s", COPY_OUT + ready())],
    "a walsender that has streamed": [
        ("s", LOGIN),
        ("c", QUERY),
        ("s", COPY_BOTH),
        ("c", COPY_DATA + COPY_DONE),
        ("s", frame(b"c", b"") + DONE + ready()),
    ],
}  # fmt: skip

BUSY: dict[str, list[Turn]] = {
    "nothing said yet": [],
    "a login that was refused": [("c", PASSWORD), ("s", ERROR)],
    "a query without an answer": [("s", LOGIN), ("c", QUERY)],
    "an answer that has not ended": [("s", LOGIN), ("c", QUERY), ("s", ROWS)],
    "an error, and not yet ready": [("s", LOGIN), ("c", QUERY), ("s", ERROR)],
    "a transaction": [("s", LOGIN), ("c", QUERY), ("s", DONE + ready(b"T"))],
    "a failed transaction": [("s", LOGIN), ("c", QUERY), ("s", ERROR + ready(b"E"))],
    "a notice in a transaction": [("s", LOGIN), ("c", QUERY), ("s", DONE + ready(b"T") + NOTICE)],
    "a parse without a sync": [("s", LOGIN), ("c", PARSE)],
    "a parse that was flushed": [("s", LOGIN), ("c", PARSE + FLUSH), ("s", PARSED)],
    "a parse after a sync that was answered": [("s", LOGIN), ("c", SYNC + PARSE), ("s", ready())],
    "a pipeline of which some is answered": [("s", LOGIN), ("c", (EXECUTE + SYNC) * 3), ("s", (ROWS + ready()) * 2)],
    "queries sent before the answer": [("s", LOGIN), ("c", QUERY * 2), ("s", ROWS + ready())],
    "the head of a message": [("s", LOGIN), ("c", b"Q")],
    "a message that is not whole": [("s", LOGIN), ("c", QUERY[:-1])],
    "half a notice": [("s", LOGIN + NOTICE[:-1])],
    "half the head of a notice": [("s", LOGIN + NOTICE[:3])],
    "a copy in": [("s", LOGIN), ("c", QUERY), ("s", COPY_IN), ("c", COPY_DATA)],
    "a copy in that has ended and is not answered": [("s", LOGIN), ("c", QUERY), ("s", COPY_IN), ("c", COPY_DONE)],
    "a copy in by the extended protocol": [
        ("s", LOGIN), ("c", EXECUTE + SYNC), ("s", COPY_IN), ("c", COPY_DATA + COPY_DONE)
    ],
    "and its sync": [("s", LOGIN), ("c", EXECUTE + SYNC), ("s", COPY_IN), ("c", COPY_DATA + COPY_DONE + SYNC)],
    "a client that goes on after the server has ended its copy": [
        ("s", LOGIN), ("c", QUERY), ("s", COPY_IN), ("c", COPY_DATA), ("s", ERROR + ready()), ("c", COPY_DATA)
    ],
    "a copy out": [("s", LOGIN), ("c", QUERY), ("s", frame(b"H", bytes(3)) + frame(b"d", b"line"))],
    "a walsender": [("s", LOGIN), ("c", QUERY), ("s", COPY_BOTH + frame(b"d", b"wal")), ("c", COPY_DATA)],
    "a client that leaves": [("s", LOGIN), ("c", TERMINATE)],
    "a server that ends the session": [("s", LOGIN + ERROR)],
    "a message that nobody knows": [("s", LOGIN), ("c", frame(b"~", b""))],
    # Frames that lie: the watcher has lost the thread, for good.
    "a length of nothing": [("s", LOGIN), ("c", b"S\0\0\0\0" + SYNC), ("s", ready())],
    "a length below itself": [("s", LOGIN), ("c", QUERY), ("s", b"C\0\0\0\3" + DONE + ready())],
    "a length that no session will see the end of": [("s", LOGIN), ("c", b"d\xff\xff\xff\xff"), ("c", COPY_DONE)],
    "a ready that nobody has asked for": [("s", LOGIN + ready()), ("c", QUERY), ("s", ready())],
    "many of them": [("s", LOGIN + ready() * 3), ("c", QUERY * 3), ("s", ready())],
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 17, 1000])
@pytest.mark.parametrize("turns", QUIET.values(), ids=QUIET.keys())
def test_quiet(turns: list[Turn], size: int) -> None:
    assert fed(*turns, size=size).quiet


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 17, 1000])
@pytest.mark.parametrize("turns", BUSY.values(), ids=BUSY.keys())
def test_not_quiet(turns: list[Turn], size: int) -> None:
    assert not fed(*turns, size=size).quiet


@pytest.mark.parametrize("turns", QUIET.values(), ids=QUIET.keys())
def test_each_byte_of_a_next_message_ends_the_quiet_until_it_is_answered(turns: list[Turn]) -> None:
    watcher = fed(*turns)
    for byte in QUERY:
        watcher.from_client(bytes([byte]))
        assert not watcher.quiet
    answer = ROWS + ready()
    for byte in answer[:-1]:
        watcher.from_upstream(bytes([byte]))
        assert not watcher.quiet
    watcher.from_upstream(answer[-1:])
    assert watcher.quiet


def test_what_comes_by_itself_is_not_quiet_in_its_midst() -> None:
    watcher = fed(("s", LOGIN))
    for byte in NOTICE[:-1]:
        watcher.from_upstream(bytes([byte]))
        assert not watcher.quiet
    watcher.from_upstream(NOTICE[-1:])
    assert watcher.quiet


def test_nothing_read_changes_nothing() -> None:
    watcher = fed(("s", LOGIN), ("c", b""), ("s", b""))
    assert watcher.quiet


def test_a_copy_done_outside_of_a_copy_takes_back_no_sync() -> None:
    watcher = fed(("s", LOGIN), ("c", EXECUTE + SYNC + COPY_DONE + SYNC), ("s", ROWS + ready()))
    assert not watcher.quiet
    watcher.from_upstream(ready())
    assert watcher.quiet


# A conversation cut up at random: at the end of each turn it is as quiet as when each turn is read at once.

CONVERSATION: list[Turn] = [
    ("c", PASSWORD),
    ("s", LOGIN),
    ("c", QUERY),
    ("s", ROWS + NOTICE + ready()),
    ("s", NOTIFICATION),
    ("c", QUERY),
    ("s", DONE + ready(b"T")),
    ("c", PARSE + BIND + EXECUTE + SYNC + QUERY),
    ("s", PARSED + ROWS + ready(b"T")),
    ("s", DONE + ready()),
    ("c", EXECUTE + SYNC),
    ("s", COPY_IN),
    ("c", COPY_DATA * 3 + COPY_DONE + SYNC),
    ("s", DONE + ready()),
    ("c", QUERY),
    ("s", COPY_OUT + ready()),
]
AT_THE_END_OF_EACH = "-+-++---- +---+-+".replace(" ", "")


def test_the_conversation_is_quiet_where_it_should_be() -> None:
    watcher = QuietWatcher()
    seen = ""
    for turn in CONVERSATION:
        feed(watcher, turn)
        seen += "+" if watcher.quiet else "-"
    assert seen == AT_THE_END_OF_EACH


@given(st.data())
def test_however_it_is_cut_up_the_quiet_points_are_the_same(data: st.DataObject) -> None:
    watcher = QuietWatcher()
    seen = ""
    for who, said in CONVERSATION:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(said) - 1), max_size=8)))
        for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True):
            feed(watcher, (who, memoryview(said)[start:end].tobytes()))
        seen += "+" if watcher.quiet else "-"
    assert seen == AT_THE_END_OF_EACH


@given(st.lists(st.tuples(st.sampled_from("cs"), st.binary(max_size=40)), max_size=20))
def test_whatever_it_is_fed_it_never_raises_and_keeps_next_to_nothing(turns: list[Turn]) -> None:
    watcher = fed(*turns)
    assert watcher.quiet in (True, False)
    assert len(watcher._client._head) < 5
    assert len(watcher._server._head) < 5


@given(st.lists(st.tuples(st.sampled_from(b"QSFPBEHdcfpX"), st.integers(0, 9)), max_size=30))
def test_a_client_alone_never_makes_a_session_quiet(messages: list[tuple[int, int]]) -> None:
    watcher = fed(("s", LOGIN), ("c", QUERY))
    for kind, size in messages:
        watcher.from_client(struct.pack("!BI", kind, size + 4) + bytes(size))
        assert not watcher.quiet
