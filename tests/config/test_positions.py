"""The lines of keys in a TOML text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.positions import find_entry, index_lines, line_of

TEXT = """\
# a comment with key = 1
title = "x"

[ tunnel . "two words" ]  # comment
listen = "a"
timeouts = { startup = "1s", dial = "2s" }
pins = [
  "sha256/AAAA=",
]
sub.dotted."k\\u00e9y" = 1
  indented = 2

[tunnel.b]
listen = "b"
[tunnel.b.timeouts]
dial = "3s"
[[array]]
x = 1
[implicit.inner]
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("tunnel", "two words"), 4),
        (("tunnel", "two words", "listen"), 5),
        (("tunnel", "two words", "timeouts", "dial"), 6),
        (("tunnel", "two words", "pins"), 7),
        (("tunnel", "two words", "sub", "dotted", "kéy"), 10),
        (("tunnel", "two words", "indented"), 11),
        (("tunnel", "b"), 13),
        (("tunnel", "b", "listen"), 14),
        (("tunnel", "b", "timeouts", "dial"), 16),
        (("tunnel", "b", "missing"), 13),
        (("array", "x"), 18),
        (("implicit",), 19),
        (("nowhere",), None),
        ((), None),
    ],
)
def test_lines(path: tuple[str, ...], line: int | None) -> None:
    assert line_of(index_lines(TEXT), path) == line


def test_carriage_returns_do_not_shift_lines() -> None:
    assert line_of(index_lines(TEXT.replace("\n", "\r\n")), ("tunnel", "b", "listen")) == 14


def test_a_line_of_a_text_that_looks_like_a_key_does_no_harm() -> None:
    index = index_lines('a = """\n"\\q" = 1\n[x]\n"""\nb = 2\n')
    assert line_of(index, ("a",)) == 1


def test_the_depth_is_bounded() -> None:
    assert len(index_lines(".".join("a" * 50_000) + " = 1")) == 8


@given(st.text("ab.=[]\"'# \n\\", max_size=60))
def test_any_text_has_an_index(text: str) -> None:
    lines = text.count("\n") + 1
    assert all(1 <= number <= lines for number in index_lines(text).values())


LISTS = """\
a = [1, [2, 3], {x = 4, y = [5]}, "6, [", '7 ]', # 8, 9
  # ten
  1979-05-27 07:32:00,
]
b = []
c = "no list"
[[t.d]]
x = 1
[[u.d]]
[[ t . "d" ]]
"""


@pytest.mark.parametrize(
    ("line", "number", "entry"),
    [
        (1, 0, "1, "),
        (1, 1, "[2, 3]"),
        (1, 2, "{x"),
        (1, 3, '"6, ["'),
        (1, 4, "'7 ]'"),
        (1, 5, "1979"),
        (1, 6, None),
        (5, 0, None),
        (6, 0, None),
        (7, 0, "[[t.d]]"),
        (7, 1, '[[ t . "d" ]]'),
        (7, 2, None),
        (8, 1, None),
    ],
)
def test_entries_of_lists(line: int, number: int, entry: str | None) -> None:
    start = sum(len(text) for text in LISTS.splitlines(keepends=True)[: line - 1])
    found = find_entry(LISTS, start, number)
    assert found is None if entry is None else found is not None and LISTS.startswith(entry, found)


@given(st.text("a='\"[]{},#\\\n ", max_size=40), st.integers(0, 3))
def test_any_text_is_searched_through(text: str, number: int) -> None:
    found = find_entry(f"k = {text}", 0, number)
    assert found is None or 4 <= found < len(text) + 4
