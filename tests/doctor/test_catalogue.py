"""The catalogue as a whole: large enough, named apart, and shown in the documentation as it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.doctor.catalogue.everything import PARTS, table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"
BEGIN, END = "<!-- catalogue -->\n", "<!-- /catalogue -->"

FAULTS = [fault for faults in PARTS.values() for fault in faults]


def test_there_are_faults_of_every_kind() -> None:
    assert len(FAULTS) >= 60
    assert all(PARTS.values())


def test_each_fault_has_a_name_and_a_title_of_its_own() -> None:
    for names in ([fault.id for fault in FAULTS], [fault.title for fault in FAULTS]):
        assert [name for name, count in Counter(names).items() if count > 1] == []


def test_titles_are_sentences_without_an_end() -> None:
    assert [fault.title for fault in FAULTS if fault.title.endswith(".") or "\n" in fault.title] == []


def test_the_page_shows_the_catalogue() -> None:
    """Made anew by ``python -m tests.doctor.catalogue.everything``."""
    text = PAGE.read_text(encoding="utf-8")
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert shown.strip() == table().strip()
