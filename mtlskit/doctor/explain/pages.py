"""The section that each code has in the reference of errors, which comes with the package."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

from mtlskit.errors import Code

__all__ = ["advice", "place"]

_HERE: Final = Path(__file__).parent
_PLACES: Final = (_HERE / "errors.md", _HERE.parents[2] / "docs" / "reference" / "errors.md")
"""In an installed package; in a checkout."""

_SECTION: Final = re.compile(r"^### (MTLS-[A-Z]+-\d{3}) \w+\n\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[([^\]]+)\]\([^)]+\)")


def advice(code: Code) -> str:
    """What the reference says of a code, as one paragraph for a terminal; empty where the page is not there."""
    return _sections().get(code.value, "")


def place(code: Code) -> str:
    """Where that stands in the documentation."""
    return f"docs/reference/errors.md#{code.value.lower()}-{code.name.lower()}"


@cache
def _sections() -> dict[str, str]:
    page = next((path for path in _PLACES if path.is_file()), None)
    if page is None:
        return {}
    text = page.read_text(encoding="utf-8")
    return {code: " ".join(_LINK.sub(r"\1", body).split()) for code, body in _SECTION.findall(text)}
