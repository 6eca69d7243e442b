"""How places and values are told in errors."""

from __future__ import annotations

import pytest

from mtlskit.config.origins import look_up, raise_first, shown, spelled_key, spelled_path
from mtlskit.errors import Code, ConfigError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("db:1", '"db:1"'),
        ("${URL}", '"${URL}"'),
        ('say "x"', r'"say \"x\""'),
        ("a\nb\u2028", r'"a\nb\u2028"'),
        ("x" * 65, f'"{"x" * 64}…"'),
        (7, "7"),
        (0.5, "0.5"),
        (10**5000, "a very large number"),
        (True, ""),
        (["a"], ""),
        (None, ""),
        ("postgres://u:p@h", ""),
        ("u:p@h", ""),
        ("host=h PASSWORD=p", ""),
    ],
    ids=range(14),
)
def test_values(value: object, text: str) -> None:
    assert shown(value) == text


def test_paths() -> None:
    assert spelled_path(("tunnel", "a b", "pins", 0)) == 'tunnel."a b".pins[0]'
    assert spelled_key("x" * 100) == f'"{"x" * 64}"'


def test_looking_up() -> None:
    document = {"a": {"b": ["c"]}}
    assert look_up(document, ("a", "b", 0)) == "c"
    assert look_up(document, ("a", "b", 1)) is None
    assert look_up(document, ("a", "x", "y")) is None


def test_the_first_problem_says_how_many_follow() -> None:
    problems = [ConfigError(Code.CONFIG_BAD_VALUE, f"problem {number}", "hint") for number in range(3)]
    raise_first([])
    with pytest.raises(ConfigError, match=r"problem 0 \[") as caught:
        raise_first(problems[:1])
    with pytest.raises(ConfigError, match=r"problem 0 \(and 2 more\)") as caught:
        raise_first(problems)
    assert caught.value.hint == "hint"
