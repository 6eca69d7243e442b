"""Tables that fit."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mtlskit.cli.table import GAP, Cell, Column, table

COLUMNS = (Column("NAME", least=4), Column("LEFT"), Column("SERIAL", least=3, missable=1))
ROWS = [[Cell("reporting"), Cell("12 d", "\x1b[32m"), Cell("0123456789abcdef")], [Cell("a"), Cell("-"), Cell("7")]]


def lines(width: int | None) -> list[str]:
    return list(table(COLUMNS, ROWS, width=width))


def test_without_a_terminal_nothing_is_cut() -> None:
    assert lines(None) == [
        "NAME       LEFT  SERIAL",
        "reporting  \x1b[32m12 d\x1b[0m  0123456789abcdef",
        "a          -     7",
    ]


def test_a_narrow_terminal_cuts_the_widest_first() -> None:
    assert lines(25)[1] == "reporti…  \x1b[32m12 d\x1b[0m  01234567…"
    assert lines(19)[1] == "repo…  \x1b[32m12 d\x1b[0m  01234…"


def test_a_narrower_one_loses_what_can_be_missed() -> None:
    assert lines(10) == ["NAME  LEFT", "rep…  \x1b[32m12 d\x1b[0m", "a     -"]
    assert lines(1) == lines(10)


def test_what_is_left_out_gives_its_room_to_the_others() -> None:
    columns = (Column("NAME", least=4), Column("LEFT"), Column("SERIAL", least=12, missable=1))
    assert list(table(columns, ROWS, width=21))[1] == "reporting  \x1b[32m12 d\x1b[0m"


def test_wide_letters_take_two_cells() -> None:
    rows = [[Cell("日本"), Cell("x")], [Cell("e\u0301"), Cell("y")]]
    assert list(table((Column("N"), Column("M")), rows, width=None)) == ["N     M", "日本  x", "e\u0301     y"]
    assert list(table((Column("N", least=1), Column("M")), rows, width=6))[1] == "日…  x"


def test_numbers_stand_at_the_right() -> None:
    assert list(table((Column("N", right=True),), [[Cell("100")], [Cell("7")]], width=None)) == ["  N", "100", "  7"]


@given(st.lists(st.text("abc ", max_size=40), min_size=1, max_size=5), st.integers(11, 100))
def test_no_line_is_wider_than_the_terminal(names: list[str], width: int) -> None:
    rows = [[Cell(name), Cell("1 d", "\x1b[31m"), Cell(name)] for name in names]
    for text in table(COLUMNS, rows, width=width):
        assert len(re.sub(r"\x1b\[[0-9]*m", "", text)) <= width
    assert GAP == 2


def test_what_can_be_missed_most_goes_first() -> None:
    columns = (Column("A", missable=1), Column("B", missable=2), Column("C"))
    row = [[Cell("aaaa"), Cell("bbbb"), Cell("cccc")]]
    assert list(table(columns, row, width=13)) == ["A     C", "aaaa  cccc"]
    assert list(table(columns, row, width=9)) == ["C", "cccc"]
