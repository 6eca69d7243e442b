"""The commands of the documentation do what the pages say; what is shown and not run is at least well-formed."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group

from mtlskit.cli.main import app
from mtlskit.config.loading import parse_config
from tests.services.clients import libpq_program
from tests.support.doc_blocks import ROOT, RUNNABLE, Block, NotRun, Run, blocks_of, guides, pages, what_is_said
from tests.support.doc_stage import TOML_HEAD, Stage, is_like

PLAYED = [page for page in guides() if any(isinstance(block.how, Run) for block in blocks_of(page))]


def blocks(language: str, *, within: list[str]) -> list[Block]:
    return [block for page in within for block in blocks_of(page) if block.language == language]


@pytest.mark.parametrize("page", PLAYED)
def test_the_commands_of_a_page_do_what_it_says(
    page: str, scratch: Path, sandbox: dict[str, Any], services: None
) -> None:
    libpq_program("psql")  # says what to install where it is missing
    with Stage(scratch, sandbox) as stage:
        for block in blocks_of(page):
            stage.play(block)


@pytest.mark.parametrize("page", guides())
def test_each_command_says_whether_it_is_run(page: str) -> None:
    silent = [str(block) for block in blocks_of(page) if block.language in RUNNABLE and block.how is None]
    assert not silent, "write <!-- run --> or <!-- not run: REASON --> before these"


@pytest.mark.parametrize("page", pages())
def test_each_block_names_its_language(page: str) -> None:
    assert not [str(block) for block in blocks_of(page) if not block.language]


@pytest.mark.parametrize("block", blocks("toml", within=guides()), ids=str)
def test_configuration_files_are_valid(block: Block) -> None:
    assert block.text.startswith(TOML_HEAD), "the first line names the file"
    environ = {
        "DATABASE_URL": "postgres://ann:secret@db.example.com:5432/app",
        "HOME": "/home/ann",
        "MTLSKIT_SANDBOX_ADDON": "postgresql-sandbox-12345",
    }
    found = parse_config(block.text, source=Path("mtlskit.toml"), environ=environ, platform="linux")
    assert found.tunnels or found.allowlists


def assert_is_a_command(words: list[str]) -> None:
    """`mtlskit COMMAND --flag …` as it is typed: the command exists and has these flags."""
    program, *rest = words
    assert Path(program).name == "mtlskit"
    command: Any = get_group(app)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= known


@pytest.mark.parametrize("block", blocks("ini", within=guides()), ids=str)
def test_systemd_units_start_real_commands(block: Block) -> None:
    unit = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[method-assign,assignment] # typeshed: a method; the documented way
    unit.read_string(block.text)
    if "Timer" in unit:
        assert {"Unit", "Timer", "Install"} == set(unit.sections())
        return
    assert {"Unit", "Service", "Install"} == set(unit.sections())
    assert_is_a_command(shlex.split(unit["Service"]["ExecStart"]))
    if unit["Service"]["Type"] != "oneshot":
        assert_starts_again_for_a_while(unit)


def assert_starts_again_for_a_while(unit: configparser.RawConfigParser) -> None:
    """Status 2 is also a port that an older proxy still drains on: longer than that is tried, and not for ever."""
    service = unit["Service"]
    assert service["Restart"] == "on-failure"
    assert "RestartPreventExitStatus" not in service
    trying = int(unit["Unit"]["StartLimitBurst"]) * int(service["RestartSec"])
    assert int(service["TimeoutStopSec"]) < trying < int(unit["Unit"]["StartLimitIntervalSec"])


@pytest.mark.parametrize("block", blocks("dockerfile", within=guides()), ids=str)
def test_container_files_start_real_commands(block: Block) -> None:
    [entry] = re.findall(r"^ENTRYPOINT (\[.*\])$", block.text, re.MULTILINE)
    assert_is_a_command(json.loads(entry))


def test_links_of_the_readme_lead_somewhere() -> None:
    """mkdocs sees to those within docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / path).read_text(encoding="utf-8")
        headings = {slug(title) for title in re.findall(r"^#+ (.*)$", target, re.MULTILINE)}
        assert not anchor or anchor in headings, link
    assert len(links) > 10


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)}
    assert set(pages()) - linked == {"README.md", "docs/index.md"}  # itself, and the first page of the site


def slug(title: str) -> str:
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def test_the_readme_begins_with_the_two_commands() -> None:
    commands = [block.text.strip() for block in blocks_of("README.md") if block.language == "sh"]
    assert commands[0] == "python3 -m venv .venv && .venv/bin/pip install '.[sandbox]' && .venv/bin/mtlskit demo"
    test = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"
    assert test in commands
    assert test in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        ("a\n", "a\n", True),
        ("a\n", "a\nb\n", False),
        ("a … c\n", "a b c\n", True),
        ("a … c\n", "a b\nc\n", False),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n…\nc\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
        ("a\nb\n", "a \nb\n\n", True),
        ("", "", True),
        ("", "a\n", False),
    ],
)
def test_shown_output_is_compared_strictly(shown: str, printed: str, fits: bool) -> None:
    assert is_like(shown, printed) is fits


@pytest.mark.parametrize(
    ("comment", "meaning"),
    [
        ("run", Run()),
        ("run: status 2", Run(status=2)),
        ("run: stays up", Run(stays_up=True)),
        ("not run: needs systemd", NotRun()),
        ("not run", None),
        ("not run: no", None),
        ("run: sometimes", None),
        ("running late", None),
        ("", None),
    ],
)
def test_a_block_is_left_out_for_a_reason_only(comment: str, meaning: Run | NotRun | None) -> None:
    assert what_is_said(comment) == meaning
