"""A file of which some tables are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlskit.config.parts import Parts, load_parts
from mtlskit.errors import Code, ConfigError

_PAIR = 'cert = "client.crt"\nkey = "client.key"'


def tunnel(
    name: str, port: int, rest: str = _PAIR, *, kind: str = "postgres", upstream: str = "db.example:5432"
) -> str:
    return f'[tunnel.{name}]\nkind = "{kind}"\nlisten = "127.0.0.1:{port}"\nupstream = "{upstream}"\n{rest}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mtlskit.toml"


def parts_of(file: Path, *tables: str) -> Parts:
    file.write_text("\n".join(tables))
    return load_parts(file, environ={})


def test_a_tunnel_that_is_right_survives_the_others(file: Path) -> None:
    parts = parts_of(
        file,
        tunnel("good", 6432),
        tunnel("kind", 6433, kind="postgrs"),
        tunnel("variable", 6434, upstream="${DATABASE_URL}"),
        tunnel("unknown", 6435, 'identity = "nobody"'),
    )
    assert tuple(parts.tunnels) == ("good",)
    assert parts.broken == ("kind", "variable", "unknown")
    assert [problem.code for problem in parts.problems] == [
        Code.CONFIG_BAD_VALUE,
        Code.CONFIG_MISSING_VARIABLE,
        Code.CONFIG_UNKNOWN_NAME,
    ]
    assert f"{file}:9: tunnel.kind.kind" in parts.problems[0].sentence


def test_a_broken_identity_is_told_once_and_takes_its_tunnels_along(file: Path) -> None:
    parts = parts_of(
        file, '[identity.half]\ncert = "a.crt"\n', tunnel("one", 6432, 'identity = "half"'), tunnel("two", 6433)
    )
    assert tuple(parts.tunnels) == ("two",)
    assert parts.broken == ("one",)
    [problem] = parts.problems
    assert "identity.half: key is missing" in problem.sentence


def test_two_tunnels_that_clash_are_both_usable(file: Path) -> None:
    parts = parts_of(file, tunnel("one", 6432), tunnel("two", 6432))
    assert tuple(parts.tunnels) == ("one", "two")
    [problem] = parts.problems
    assert problem.code is Code.CONFIG_DUPLICATE_LISTENER


def test_what_is_common_is_told_once(file: Path) -> None:
    parts = parts_of(file, "hooks = 3\nstroe = 1", tunnel("one", 6432), tunnel("two", 6433))
    assert tuple(parts.tunnels) == ("one", "two")
    assert {problem.code for problem in parts.problems} == {Code.CONFIG_BAD_VALUE, Code.CONFIG_UNKNOWN_KEY}
    assert len(parts.problems) == 2


def test_an_allowlist_that_is_wrong_is_told(file: Path) -> None:
    parts = parts_of(file, tunnel("one", 6432), "[allowlist.office]\naddons = 3")
    assert tuple(parts.tunnels) == ("one",)
    assert ["allowlist.office" in problem.sentence for problem in parts.problems] == [True]


@pytest.mark.parametrize(
    "text", ["tunnel = 3", '[tunnel]\nkind = "postgres"', "tunnel.a = 3", "identity = []", "tunnel.a.identity = [1]"]
)
def test_sections_that_are_none(file: Path, text: str) -> None:
    parts = parts_of(file, text)
    assert not parts.tunnels
    assert parts.problems


def test_a_file_without_problems(file: Path) -> None:
    parts = parts_of(file, '[identity.mine]\ncert = "a.crt"\nkey = "a.key"', tunnel("one", 6432, 'identity = "mine"'))
    assert not parts.problems
    assert not parts.broken
    assert parts.tunnels["one"].tunnels[0].identity.name == "mine"


def test_what_cannot_be_read_at_all(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_parts(file, environ={})
    assert caught.value.code is Code.CONFIG_NOT_FOUND
    with pytest.raises(ConfigError) as caught:
        parts_of(file, "kind = ")
    assert caught.value.code is Code.CONFIG_SYNTAX
