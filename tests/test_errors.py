"""The error root, and that docs/reference/errors.md has a section for each code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtlskit.errors import Code, ConfigError, MtlskitError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "errors.md").read_text()
SECTION = re.compile(r"^### (MTLS-[A-Z]+-\d{3}) ([A-Z0-9_]+)\n\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def test_every_code_has_its_section_in_the_order_of_the_enum() -> None:
    assert [(code, name) for code, name, _ in SECTION.findall(PAGE)] == [(code.value, code.name) for code in Code]


def test_every_heading_of_a_code_is_followed_by_advice() -> None:
    assert PAGE.count("\n### ") == len(Code)
    assert all(len(text.split()) >= 5 for _, _, text in SECTION.findall(PAGE))


def test_codes_are_numbered_without_gaps_in_their_family() -> None:
    families: dict[str, list[int]] = {}
    for code in Code:
        _, family, number = code.value.split("-")
        families.setdefault(family, []).append(int(number))
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in families.values())


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.SANDBOX_GATEWAY])
def test_every_code_is_raised_somewhere(code: Code) -> None:
    """SANDBOX_GATEWAY keeps the place of a part that is still being built."""
    sources = (path.read_text() for path in (ROOT / "mtlskit").rglob("*.py") if path.name != "errors.py")
    assert any(re.search(rf"\bCode\.{code.name}\b", source) for source in sources)


def test_an_error_says_its_sentence_and_code() -> None:
    error = ConfigError(Code.USAGE, "that does not go together", "leave one out")
    assert str(error) == "that does not go together [MTLS-CFG-012]"
    assert (error.hint, error.exit_status, MtlskitError.exit_status) == ("leave one out", 2, 1)
