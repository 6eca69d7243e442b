"""What is examined, of a file and of flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlskit.config.values import IdentityConfig
from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Finding, Layer, Verdict
from mtlskit.doctor.gather import Gathered, from_file, from_flags
from mtlskit.errors import Code, ConfigError

_TUNNEL = """
[tunnel.{name}]
kind = "{kind}"
listen = "127.0.0.1:{port}"
upstream = "{upstream}"
cert = "client.crt"
key = "client.key"
"""


def tunnel(name: str, port: int = 6432, *, kind: str = "postgres", upstream: str = "db.example:5432") -> str:
    return _TUNNEL.format(name=name, kind=kind, port=port, upstream=upstream)


def read(folder: Path, *tables: str, names: tuple[str, ...] = (), **environ: str) -> Gathered:
    path = folder / "mtlskit.toml"
    path.write_text("".join(tables))
    return from_file(path, names, Means(environ=environ))


def failures(gathered: Gathered) -> list[Finding]:
    return [each for broken in gathered.broken for each in broken.findings if each.verdict is Verdict.FAIL]


def test_a_healthy_file_is_described_by_passes_alone(tmp_path: Path) -> None:
    gathered = read(tmp_path, tunnel("one"), tunnel("two", 6433, kind="tcp"))
    assert not gathered.broken
    assert [case.name for case in gathered.cases] == ["one", "two"]
    assert all(case.of_file for case in gathered.cases)
    [finding] = gathered.cases[1].findings
    assert (finding.layer, finding.verdict) == (Layer.CONFIGURATION, Verdict.PASS)
    assert finding.seen.endswith('mtlskit.toml: tcp, 127.0.0.1:6433 → db.example:5432, verify = "full"')
    assert finding.facts["upstream"] == ["db.example:5432"]


def test_one_of_two_is_wrong_and_the_other_is_examined(tmp_path: Path) -> None:
    gathered = read(tmp_path, tunnel("one"), tunnel("two", 6433, kind="postgrs"))
    assert [case.name for case in gathered.cases] == ["one"]
    [diagnosis] = gathered.broken
    assert (diagnosis.name, diagnosis.kind) == ("mtlskit.toml", "configuration")
    assert diagnosis.cause is not None
    assert diagnosis.cause.code is Code.CONFIG_BAD_VALUE
    assert [each.about for each in diagnosis.findings if each.verdict is Verdict.SKIPPED] == ["two"]


def test_every_problem_is_told(tmp_path: Path) -> None:
    gathered = read(tmp_path, tunnel("one", kind="x"), tunnel("two", 6433, upstream="${URL}"), "[hooks]\nfailed = 3")
    assert {each.code for each in failures(gathered)} == {Code.CONFIG_BAD_VALUE, Code.CONFIG_MISSING_VARIABLE}
    assert len(failures(gathered)) == 3
    assert all(each.hint for each in failures(gathered))


def test_hundreds_of_problems_are_counted(tmp_path: Path) -> None:
    gathered = read(tmp_path, *(tunnel(f"t{number}", kind="x") for number in range(60)))
    assert len(failures(gathered)) == 50
    [more] = [each for each in gathered.broken[0].findings if each.check == "configuration.more"]
    assert more.seen == "10 more problems are not shown"


def test_a_missing_variable_is_named_and_the_others_are_not_shown(tmp_path: Path) -> None:
    gathered = read(tmp_path, tunnel("one", upstream="${NOT_SET}"), tunnel("two", 6433, upstream="${URL}"),
                    URL="postgres://ann:a-secret@db.example/app")  # fmt: skip
    [finding] = failures(gathered)
    assert "NOT_SET is not set in this shell" in finding.seen
    assert [case.name for case in gathered.cases] == ["two"]
    assert "a-secret" not in repr([gathered.broken, [case.findings for case in gathered.cases]])


def test_names_choose(tmp_path: Path) -> None:
    tables = (tunnel("one"), tunnel("two", 6433), tunnel("three", 6434, kind="x"))
    assert [case.name for case in read(tmp_path, *tables[:2], names=("two",)).cases] == ["two"]
    gathered = read(tmp_path, *tables, names=("two",))
    assert [case.name for case in gathered.cases] == ["two"]
    assert failures(gathered)  # the proxy refuses the file all the same
    assert not read(tmp_path, *tables, names=("three",)).cases


@pytest.mark.parametrize("tables", [(tunnel("one"),), (tunnel("one"), tunnel("two", kind="x"))])
def test_a_name_that_the_file_does_not_have(tmp_path: Path, tables: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, *tables, names=("onee",))
    assert caught.value.code is Code.CONFIG_UNKNOWN_NAME


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", Code.CONFIG_MISSING_KEY),
        ("kind = ", Code.CONFIG_SYNTAX),
        ("[tunnel]\nkind = 3", Code.CONFIG_BAD_VALUE),
        ("tunnel = []", Code.CONFIG_BAD_VALUE),
        ("a = " + "[" * 5000, Code.CONFIG_SYNTAX),
    ],
)
def test_files_that_hold_no_tunnel(tmp_path: Path, content: str, code: Code) -> None:
    gathered = read(tmp_path, content, names=("one",))
    assert not gathered.cases
    assert [each.code for each in failures(gathered)] == [code]


def test_no_file_and_a_folder_and_a_binary(tmp_path: Path) -> None:
    assert [each.code for each in failures(from_file(tmp_path / "a.toml", (), Means()))] == [Code.CONFIG_NOT_FOUND]
    assert [each.code for each in failures(from_file(tmp_path, (), Means()))] == [Code.CONFIG_UNREADABLE]
    path = tmp_path / "b.toml"
    path.write_bytes(b"\xff\xfe\0")
    assert [each.code for each in failures(from_file(path, (), Means()))] == [Code.CONFIG_SYNTAX]


def test_flags_without_a_certificate(tmp_path: Path) -> None:
    flags = {"upstream": ["db.example:5432"], "ca": tmp_path / "root.crt"}
    [case] = from_flags(flags, Means(), base=tmp_path).cases
    assert case.identity is None
    assert case.tunnel.identity.ca == tmp_path / "root.crt"
    assert not case.of_file
    assert case.findings[0].seen == 'flags: postgres → db.example:5432, verify = "full"'


def test_flags_with_a_listener(tmp_path: Path) -> None:
    flags = {"upstream": ["db.example:5432"], "cert": "a.crt", "key": "a.key", "listen": "127.0.0.1:6432"}
    [case] = from_flags(flags, Means(), base=tmp_path).cases
    assert isinstance(case.identity, IdentityConfig)
    assert "127.0.0.1:6432 →" in case.findings[0].seen


@pytest.mark.parametrize("flags", [{"cert": "a.crt"}, {"key": "a.key"}])
def test_half_a_pair_of_flags_is_refused(tmp_path: Path, flags: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_flags({"upstream": ["db.example:5432"], **flags}, Means(), base=tmp_path)
    assert caught.value.code is Code.CONFIG_MISSING_KEY
