"""The bench of the commands that talk to Heroku works, at its smallest. How long anything took is not looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.book import Book, Figure
from tests.bench.contenders import MTLSKIT
from tests.bench.errors import BenchError
from tests.bench.heroku import applying, planning, starting
from tests.bench.heroku.__main__ import LOADS, main, table
from tests.bench.heroku.size import TINY
from tests.bench.heroku.space import typed
from tests.support.command_process import clean_environment

_FIGURES = {
    "plan": [planning.SAME, planning.CPU, planning.CHANGES],
    "apply": [
        applying.ADDING,
        *(figure for case in (applying.ALIKE, applying.SLOWER) for figure in vars(case).values()),
    ],
    "startup": [*starting.HELP.values(), starting.FIRST, starting.LATER, starting.LIST],
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.usefixtures("services")
def test_every_figure_is_measured_printed_and_written(
    load: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--only", load, "--rounds", "1", "--json", str(tmp_path / "figures.json")], size=TINY)
    written = json.loads((tmp_path / "figures.json").read_text())
    found = [(each["load"], each["case"], each["unit"]) for each in written["figures"]]
    assert found == [(each.load, each.case, each.unit) for each in _FIGURES[load]]
    for each in written["figures"]:
        [value] = each["contenders"][MTLSKIT]["values"]
        # What slow rules still need is known to some tenths of a second only: a difference to it may be anything.
        assert value > 0 or each["case"].endswith("more than the slowest rule"), each
    assert written["about"]["sources"]
    printed = capsys.readouterr().out
    assert all(f"{load}: {each.case}  " in printed for each in _FIGURES[load])


def test_a_command_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="mtlskit allowlist plan ended with 2, not 0"):
        typed(("allowlist", "plan"), tmp_path, clean_environment(tmp_path))


def test_the_table_has_the_median_and_both_ends() -> None:
    book = Book()
    for turn, value in enumerate((1.25, 1234.0, 2.0)):
        book.add(Figure("plan", "something", "s"), MTLSKIT, turn, value)
    assert table(book).splitlines()[1].split() == ["plan:", "something", "2", "1.25", "1,234", "s"]


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--rounds", "0"], ["--rounds", "-1"]])
def test_what_cannot_be_measured_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert "error: argument" in capsys.readouterr().err
