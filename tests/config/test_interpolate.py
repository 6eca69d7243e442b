"""Variables in the texts of a configuration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.interpolate import interpolate_text
from mtlskit.errors import Code, ConfigError

ENVIRON = {"A": "one", "B_2": "two", "EMPTY": "", "REFERENCE": "${A}", "DOLLAR": "$"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", ""),
        ("${A}", "one"),
        ("x${A}y${B_2}z", "xoneytwoz"),
        ("${REFERENCE}", "${A}"),
        ("${DOLLAR}{A}", "${A}"),
        ("$A $ $$ 5$", "$A $ $$ 5$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("{A}", "{A}"),
    ],
)
def test_texts(text: str, result: str) -> None:
    assert interpolate_text(text, ENVIRON) == result


@pytest.mark.parametrize("text", ["${}", "${A", "${A-default}", "${2}", "${ A }", "${A${B_2}}", "x${"])
def test_not_a_reference(text: str) -> None:
    with pytest.raises(ConfigError, match="name of a variable") as caught:
        interpolate_text(text, ENVIRON)
    assert caught.value.code is Code.CONFIG_BAD_VALUE


@pytest.mark.parametrize(("name", "state"), [("MISSING", "is not set"), ("EMPTY", "is empty")])
def test_missing(name: str, state: str) -> None:
    with pytest.raises(ConfigError, match=f"variable {name} {state}") as caught:
        interpolate_text(f"a${{{name}}}", ENVIRON)
    assert caught.value.code is Code.CONFIG_MISSING_VARIABLE
    assert f"export {name}=" in caught.value.hint


@given(st.text(st.characters(exclude_characters="$")), st.text(min_size=1))
def test_what_a_variable_holds_is_taken_as_it_is(around: str, value: str) -> None:
    assert interpolate_text(f"{around}${{V}}{around}", {"V": value}) == around + value + around
