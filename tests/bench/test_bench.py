"""The bench works: every work load at its smallest, with mtlskit alone. How fast it was is not looked at."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase

import pytest

from tests.bench.book import Book, Figure, percentile
from tests.bench.contenders import MTLSKIT
from tests.bench.helper import Helper
from tests.bench.lab import Lab
from tests.bench.loads import LOADS, connect, echo, first_row, idle
from tests.bench.paced import interact
from tests.bench.report import as_json, figures_text, verdicts_text
from tests.bench.scale import TINY
from tests.bench.targets import targets, verdicts
from tests.bench.wire import HEADER, Door, download, read_exactly, upload

# Of each work load: how many figures.
_FIGURES = {
    "bulk": 8,
    "echo": 3,
    "pgbench": 4,
    "copy": 4,
    "connect": 2,
    "first-row": 6,
    "idle": 4,
    "fairness": 8,
    "handshakes": 4,
    "startup": 2,
}
# What may be nothing at all: an idle proxy has no CPU time, few connections may fit into memory that was there, and
# clients may come before the connections that were to be made in advance.
_MAY_BE_ZERO = frozenset({"CPU ms/s", "RSS KiB each", "PSS KiB each", "% warm"})


@pytest.fixture(scope="module")
def lab(services: None) -> Iterator[Lab]:
    """One for all work loads, since its servers take longer to start than the work."""
    with Lab(TINY, names=frozenset({MTLSKIT}), warm=2) as lab:
        yield lab


@pytest.mark.parametrize("load", LOADS)
def test_every_work_load_gives_its_figures(lab: Lab, load: str) -> None:
    LOADS[load](lab)
    figures = [figure for figure in lab.book.figures if figure.load == load]
    assert len(figures) == _FIGURES[load], lab.book.notes
    for figure in figures:
        ours = [who for who in lab.book.contenders(figure) if who.startswith(MTLSKIT)]
        assert ours, figure
        for who in ours:
            spread = lab.book.spread(figure, who)
            assert spread is not None
            assert spread.least >= 0
            assert spread.least > 0 or figure.unit in _MAY_BE_ZERO, (figure, who)
    assert not [note for note in lab.book.notes if "failed" in note]


def test_a_distance_changes_no_byte(lab: Lab) -> None:
    with (
        Helper("delayer", {"port": lab.origin["plain"], "rtt": 0.002}) as helper,
        Door(helper.said["port"]).connect(None) as sock,
    ):
        upload(sock, 300_000)
        download(sock, 300_000)
        sock.sendall(HEADER.pack(b"E", 26) + ascii_lowercase.encode())
        assert read_exactly(sock, 26) == ascii_lowercase.encode()


class _Halves:
    """A session whose answer comes in two parts, with something unasked for ahead of the first."""

    def __init__(self) -> None:
        self.near, self._far = socket.socketpair()
        self._far.send(b"!")
        self.asked = 0
        self._got = b""

    def fileno(self) -> int:
        return self.near.fileno()

    def ask(self) -> None:
        self.asked += 1
        self._far.send(b"ab")

    def answered(self) -> bool:
        self._got += self.near.recv(1).strip(b"!")
        complete = self._got == b"ab"
        if complete:
            self._got = b""
        return complete

    def close(self) -> None:
        self.near.close()
        self._far.close()


def test_an_answer_counts_once_and_when_all_of_it_is_there() -> None:
    sessions = [_Halves(), _Halves()]
    try:
        taken = interact(sessions, seconds=0.02, think=0.001)
        assert len(taken) == sum(session.asked for session in sessions) > 2
        for session in sessions:
            session.near.setblocking(False)
            with pytest.raises(BlockingIOError):
                session.near.recv(1)
    finally:
        for session in sessions:
            session.close()


def test_sessions_that_came_upon_a_warm_connection_are_counted_from_the_log(tmp_path: Path) -> None:
    events = [{"event": "session_opened", "warm": True}, {"event": "session_closed"}]
    events += [{"event": "session_opened", "warm": False}, {"event": "session_opened"}]
    before = "not JSON\n" + json.dumps(events[0]) + "\n"
    (tmp_path / "log").write_text(before + "".join(json.dumps(event) + "\n" for event in events))
    assert first_row.hits(tmp_path / "log", since=len(before)) == [True, False]


def test_a_contender_that_fails_is_noted_and_the_others_go_on() -> None:
    lab = Lab(TINY, names=frozenset())
    with lab.attempt("echo", "stunnel"):
        raise ConnectionResetError(104, "reset")
    assert lab.book.notes == ["echo: stunnel failed: ConnectionResetError: [Errno 104] reset"]


def _book() -> Book:
    book = Book()
    for turn, (ours, strong, weak) in enumerate([(50.0, 40.0, 80.0), (60.0, 60.0, 90.0), (44.0, 40.0, 70.0)]):
        book.add(echo.P50, MTLSKIT, turn, ours)
        book.add(echo.P50, "haproxy", turn, strong)
        book.add(echo.P50, "stunnel", turn, weak)
        book.add(echo.P50, "direct", turn, 1.0)
    return book


def test_ratios_are_taken_within_each_round() -> None:
    ratio = _book().ratio(echo.P50, MTLSKIT, "haproxy")
    assert ratio is not None
    assert (ratio.least, ratio.median, ratio.most) == (1.0, 1.1, 1.25)


def test_a_round_that_one_of_them_missed_does_not_count() -> None:
    book = _book()
    book.add(echo.P50, MTLSKIT, 7, 1000.0)
    ratio = book.ratio(echo.P50, MTLSKIT, "haproxy")
    assert ratio is not None
    assert len(ratio.values) == 3
    assert book.ratio(echo.P50, MTLSKIT, "nobody") is None


def test_a_target_looks_at_the_strongest_peer_and_never_at_a_limit() -> None:
    [verdict] = verdicts(_book())
    assert (verdict.versus, verdict.floor, verdict.goal) == ("haproxy", True, False)


@pytest.mark.parametrize(("rate", "floor", "goal"), [(100.0, True, True), (60.0, True, False), (40.0, False, False)])
def test_where_more_is_better_the_bound_is_a_lower_one(rate: float, floor: bool, goal: bool) -> None:
    book = Book()
    book.add(connect.RATE, MTLSKIT, 0, rate)
    book.add(connect.RATE, "stunnel", 0, 80.0)
    book.add(connect.RATE, "nginx", 0, 100.0)
    [verdict] = verdicts(book)
    assert (verdict.versus, verdict.floor, verdict.goal) == ("nginx", floor, goal)


def test_without_a_peer_nothing_is_met_and_a_plain_bound_needs_none() -> None:
    book = Book()
    book.add(echo.P50, MTLSKIT, 0, 50.0)
    book.add(idle.CPU, MTLSKIT, 0, 0.2)
    assert [(v.versus, v.floor, v.goal) for v in verdicts(book)] == [("nobody", None, None), ("", True, False)]
    assert "not measured" in verdicts_text(verdicts(book))


def test_every_target_has_a_goal_beyond_its_floor() -> None:
    for target in targets():
        assert target.goal > target.floor if target.figure.more_is_better else target.goal < target.floor, target.work


def test_the_report_tells_medians_spreads_and_ratios() -> None:
    book = _book()
    line = next(line for line in figures_text(book).splitlines() if "haproxy" in line)
    assert line.split() == ["haproxy", "40", "40", "60", "1.10", "1.00", "to", "1.25"]
    told = json.loads(json.dumps(as_json(book, verdicts(book), {"cores": 2})))
    assert told["figures"][0]["contenders"]["haproxy"]["values"] == [40.0, 60.0, 40.0]
    assert told["targets"][0]["floor_met"] is True


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 99) == 3


def test_the_best_depends_on_what_is_better() -> None:
    book = Book()
    for who, value in (("a", 1.0), ("b", 2.0)):
        book.add(Figure("x", "", "µs"), who, 0, value)
        book.add(Figure("x", "", "tps", more_is_better=True), who, 0, value)
    assert [book.best(figure, ("a", "b")) for figure in book.figures] == ["a", "b"]
