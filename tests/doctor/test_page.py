"""The page for a ticket: one file, nothing from elsewhere, no secret, and no stranger's markup."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mtlskit.doctor.report.page import page
from mtlskit.doctor.report.page_file import check_place, write_page
from mtlskit.doctor.report.redaction import pasted, redacted, redacted_value
from mtlskit.errors import Code, DoctorError
from tests.support.reports import PEM, PLANTED, diagnosis, healthy, hostile, refused, report, tcp

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Which elements and attributes a page has, and whether each is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    read = Reader(page(report(healthy(), refused(), hostile())))
    assert not {"script", "link", "img", "iframe", "object", "form", "base", "svg", "a"} & set(read.elements)
    assert not [name for name in read.attributes if name.startswith("on") or name in ("style", "src", "href")]
    assert "<script>alert(1)</script>" in "".join(read.text)


def test_the_policy_allows_the_one_style_sheet() -> None:
    text = page(report(healthy()))
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in text
    assert "url(" not in style
    assert "@import" not in style


def test_no_secret_is_on_the_page_and_what_is_needed_is() -> None:
    text = page(report(refused(), hostile()))
    assert not [secret for secret in PLANTED if secret in text]
    for needed in (
        "203.0.113.9:5432 refuses the connection",
        "MTLS-NET-002",
        "getent ahosts db.example.com",
        "CN=repo",
    ):
        assert needed in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_the_cause_comes_first_and_what_is_well_is_closed() -> None:
    text = page(report(refused()))
    assert text.index('class="cause"') < text.index("<details")
    assert re.findall(r'<details class="(\w+)" open>', text) == ["warn", "fail"]
    assert "1 warning" in text
    assert "Nothing is wrong." in page(report(healthy()))
    assert "it ended before everything" in page(report(diagnosis("a", tcp(), complete=False)))


def test_the_home_folder_is_not_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/etc/mtlskit"))
    assert "<dd>~/mtlskit.toml</dd>" in page(report(healthy()))
    monkeypatch.setattr(Path, "home", lambda: Path("/etc/mtl"))
    assert "<dd>/etc/mtlskit/mtlskit.toml</dd>" in page(report(healthy()))
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert "<dd>/etc/mtlskit/mtlskit.toml</dd>" in page(report(healthy()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (PEM, "[redacted]"),
        (PEM[:40], "[redacted]"),
        (f"a {PEM} b", "a [redacted] b"),
        ("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----"),
        ("postgres://ann:p@ss@db:5432/x", "postgres://[redacted]@db:5432/x"),
        ("https://db.example.com/ of ann@example.com", "https://db.example.com/ of ann@example.com"),
        ("host=db password=geheim user=ann", "host=db password=[redacted] user=ann"),
        ("PGPASSWORD='two words' psql", "PGPASSWORD=[redacted] psql"),
        ('"api_key": "abc"', '"api_key": [redacted]'),
        ("password: geheim", "password: [redacted]"),
        ("{user: ann, password: geheim}", "{user: ann, password: [redacted]}"),
        ("no password: set PGUSER and PGPASSWORD", "no password: set PGUSER and PGPASSWORD"),
        ("postgres://ann:two words@db:5432/x", "postgres://[redacted]@db:5432/x"),
        ("postgres://ann:pa'ss@db:5432/x", "postgres://[redacted]@db:5432/x"),
        ("kafka+ssl://b1:9096, mail ann@example.com", "kafka+ssl://b1:9096, mail ann@example.com"),
        ('password="a\\"b secret"', "password=[redacted]"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [redacted]"),
        ("HRKU-1234_abc.", "[redacted]."),
        ("no token: run heroku login", "no token: run heroku login"),
        ("password authentication failed", "password authentication failed"),
        ('passphrase_file = "/etc/pass"', 'passphrase_file = "/etc/pass"'),
    ],
)
def test_what_is_taken_out(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_a_text_without_end_is_cut() -> None:
    assert len(redacted("://" * 100_000)) < 10_000


def test_a_page_is_for_its_owner_and_replaces_the_last_one(tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    place.write_text("old")
    place.chmod(0o644)
    check_place(place)
    write_page(place, report(healthy()))
    assert place.read_text(encoding="utf-8") == page(report(healthy()))
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("name", ["", "missing/report.html", "link.html", "report\0.html", "file/report.html"])
def test_where_a_page_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "link.html").symlink_to("/dev/stdout")
    (tmp_path / "file").touch()
    with pytest.raises(DoctorError) as caught:
        check_place(tmp_path / name)
    assert caught.value.code is Code.DOCTOR_UNWRITABLE
    assert caught.value.hint


def test_a_place_that_goes_away_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(DoctorError) as caught:
        write_page(tmp_path / "gone" / "report.html", report())
    assert caught.value.code is Code.DOCTOR_UNWRITABLE


def test_a_command_that_holds_what_may_not_be_shown_is_left_out() -> None:
    """Cut out, the secret might take a quote with it, and what was one word would be a command."""
    host = "a;token=';touch${IFS}here;#.example.com"
    line = shlex.join(["mtlskit", "certs", "show", "--connect", f"{host}:9092"])
    assert pasted([line, "mtlskit my-ip", "echo \x1b[2J"]) == ("mtlskit my-ip",)


def test_a_fact_by_the_name_of_a_secret_is_not_told() -> None:
    facts = {"password": "geheim", "api_key": ["a"], "token": None, "tokens": 3}
    assert redacted_value(facts) == {"password": "[redacted]", "api_key": "[redacted]", "token": None, "tokens": 3}
