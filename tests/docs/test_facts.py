"""Tables of the documentation that repeat what the code knows keep up with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mtlskit.proxy import answers
from mtlskit.sandbox.api.faults import FAULTS
from tests.support.doc_blocks import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def first_column(text: str) -> list[str]:
    return re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)


def keys_of(values: dict[str, Any], prefix: str = "") -> set[str]:
    """``postgres.url`` and so on."""
    found: set[str] = set()
    for key, value in values.items():
        found |= keys_of(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def test_the_keys_of_sandbox_json_are_all_documented(sandbox: dict[str, Any]) -> None:
    section = page("reference/sandbox.md").partition("## `sandbox.json`")[2].partition("\n## ")[0]
    assert {cell.strip("`") for cell in first_column(section)} - {"Key", "---"} == keys_of(sandbox)


def test_the_variables_of_sandbox_env_are_all_documented(sandbox: dict[str, Any]) -> None:
    section = page("reference/sandbox.md").partition("## `sandbox.env`")[2].partition("\n## ")[0]
    exports = Path(sandbox["pki"]["ca"]).parents[2] / "sandbox.env"
    variables = set(re.findall(r"^export (\w+)=", exports.read_text(encoding="utf-8"), re.MULTILINE))
    assert {cell.strip("`") for cell in first_column(section)} - {"Variable", "---"} == variables


def test_the_files_of_a_sandbox_are_all_documented(sandbox: dict[str, Any]) -> None:
    section = page("reference/sandbox.md").partition("## The folder")[2].partition("\n## ")[0]
    named = {path.rstrip("/") for cell in first_column(section) for path in re.findall(r"`([^`]+)`", cell)}
    space = Path(sandbox["pki"]["ca"]).parents[2]
    found = {str(path.relative_to(space)) for folder in (space, space / "pki") for path in folder.iterdir()}
    found = {re.sub(r"^software-.*", "software-VERSION", name) for name in found} - {"pki"}
    # Copied only where the server's user cannot reach the installed programs.
    assert found | {"software-VERSION"} == named


def test_the_faults_of_the_sandbox_are_all_documented() -> None:
    section = page("reference/sandbox.md").partition("### Faults")[2].partition("\n## ")[0]
    assert [cell.strip("`") for cell in first_column(section)] == ["Fault", *FAULTS]


def test_each_sqlstate_is_documented() -> None:
    text = page("explanation/postgres-through-a-proxy.md")
    documented = set(re.findall(r"^\| (\w{5}) \|", text, re.MULTILINE))
    assert documented == set(answers._BY_CODE.values()) | {state for _, state in answers._BY_CLASS}


def declared() -> dict[str, list[str]]:
    """The packages that pyproject.toml asks for, by heading of the page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups: dict[str, list[Any]] = project["dependency-groups"]
    ours = [item for group in groups.values() for item in group if isinstance(item, str)]
    return {
        "Of the installed program": project["project"]["dependencies"],
        "With `[sandbox]`": project["project"]["optional-dependencies"]["sandbox"],
        "To build, test and check": [*project["build-system"]["requires"], *ours],
    }


@pytest.mark.parametrize("heading", ["Of the installed program", "With `[sandbox]`", "To build, test and check"])
def test_each_dependency_has_its_reason(heading: str) -> None:
    _, _, text = page("explanation/dependencies.md").partition(f"## {heading}\n")
    section = text.partition("\n## ")[0]
    wanted = {re.split("[><=]", package)[0] for package in declared()[heading]}
    missing = {package for package in wanted if not re.search(rf"(?<![\w-]){re.escape(package)}(?![\w-])", section)}
    assert not missing
    rows = {name for cell in first_column(section) for name in cell.split(", ")} - {"Package", "---"}
    assert rows <= wanted, "these are documented and no longer used"


def test_the_options_of_the_tests_exist(request: pytest.FixtureRequest) -> None:
    section = page("explanation/testing.md").partition("## Options")[2].partition("\n## ")[0]
    options = re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)
    assert options
    for option in options:
        request.config.getoption(option)


def test_pages_load_nothing_from_other_hosts() -> None:
    """The theme's settings that keep it so."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "highlightjs: false" in settings
    assert "://" not in settings
