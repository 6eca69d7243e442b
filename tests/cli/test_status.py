"""`mtlskit status`, `reload` and `stop`: what they say of proxies that answer this or that, and their exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli.main import app
from mtlskit.control import client as client_module
from tests.services.places import scratch_folder
from tests.support.fake_controls import dead_socket, fake_proxy, status_facts, tunnel_facts

Run = Callable[..., Result]

FAILED = {"code": "MTLS-ID-006", "reason": "k.pem: not the key of c.pem", "hint": "name the other key"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder("mtlskit-ctl-", None) as folder:
        yield folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """In an empty folder; `folder` is where the sockets are looked for unless the arguments say otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # where other tests have their proxies they are found, too
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(client_module, "_exists", lambda pid: False)

    def invoke(*arguments: str, control: bool = True, **environment: str) -> Result:
        more = {"MTLSKIT_CONTROL": str(folder)} if control else {}
        return CliRunner().invoke(app, list(arguments), env=more | environment)

    return invoke


# status.


def test_all_is_well(run: Run, folder: Path) -> None:
    dead_socket(folder, 5)
    with fake_proxy(folder, 11, {"status": status_facts(11, tunnel_facts(), config="/etc/mtlskit.toml")}):
        result = run("status")
    assert result.exit_code == 0
    head, columns, row = result.stdout.splitlines()
    assert head == "proxy 11: /etc/mtlskit.toml, version 0.1.0, up 2 h"
    assert columns.split() == ["TUNNEL", "LISTENS", "ON", "STATE", "SESSIONS", "IDENTITY", "SERIAL", "DAYS", "LEFT"]
    assert row.split()[:7] == [
        *("reporting", "127.0.0.1:6432,", "[::1]:6432", "serving", "3", "reporting", "0123456789abcdef…"),
    ]
    assert int(row.split()[-1]) > 1000


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"state": "failed", "addresses": [], "error": FAILED}, "error: k.pem: not the key of c.pem [MTLS-ID-006]"),
        (
            {"error": FAILED | {"at": "2026-01-31T12:00:00+00:00"}},
            "reload failed, the old identity stays in use: k",
        ),
        (
            {"identity": {"due": True, "not_after": "2026-01-31T12:00:00+00:00"}},
            "2026-01-31 12:00 UTC, and is due",
        ),
        ({"state": "failed", "identity": {"serial": None, "not_after": None, "due": None}}, "the tunnel does not run"),
    ],
    ids=["failed", "kept", "due", "broken"],
)
def test_what_needs_attention(run: Run, folder: Path, changes: dict[str, Any], told: str) -> None:
    facts = status_facts(11, tunnel_facts(name="fine"), tunnel_facts(**changes))
    with fake_proxy(folder, 11, {"status": facts}):
        result = run("status")
        as_json = run("status", "--json")
    assert (result.exit_code, as_json.exit_code) == (3, 3)
    assert told in result.stdout
    assert "hint:" in result.stdout
    assert json.loads(as_json.stdout) == {"control": str(folder), "attention": True, "proxies": [facts]}


def test_one_of_several_does_not_answer(run: Run, folder: Path) -> None:
    with fake_proxy(folder, 11, {"status": status_facts(11)}), fake_proxy(folder, 12, {"status": b"hello\n"}):
        result, as_json = run("status"), run("status", "--json")
    assert result.exit_code == 3
    assert "proxy 11: from flags" in result.stdout
    assert "proxy 12:\n    error: what answers on the control socket is not a proxy" in result.stdout
    assert json.loads(as_json.stdout)["proxies"][1]["error"]["code"] == "MTLS-CTL-005"


def test_nobody_runs(run: Run, folder: Path) -> None:
    result = run("status")
    assert (result.exit_code, result.stderr) == (3, "")
    assert result.stdout.startswith(f"no proxy is running: looked in {folder}; start one with `mtlskit proxy`")
    assert json.loads(run("status", "--json").stdout)["proxies"] == []


def test_nobody_forges_lines_or_drives_the_terminal(run: Run, folder: Path) -> None:
    nasty = "a\nproxy 1: fine\x1b[2J"
    facts = status_facts(11, tunnel_facts(name=nasty, error=dict.fromkeys(FAILED, nasty)), config=nasty, version=nasty)
    answer = {"tunnels": [{"name": nasty, "ok": False, "serial": nasty, "not_after": nasty, "error": FAILED}]}
    with fake_proxy(folder, 11, {"status": facts, "reload": answer}):
        for result in (run("status"), run("reload")):
            assert "\x1b" not in result.stdout
            assert "\nproxy 1:" not in result.stdout


# Which proxies.


def write_config(path: Path, control: Path | None, more: str = "") -> None:
    line = "" if control is None else f'control = "{control}"\n'
    path.write_text(f'{line}{more}[tunnel.x]\nlisten = "127.0.0.1:1"\nupstream = "${{NOT_SET_HERE}}"\n')


def test_the_file_says_where_to_look_and_which_proxies_are_meant(run: Run, folder: Path, tmp_path: Path) -> None:
    """Its other keys may need variables that this shell does not have."""
    config = tmp_path / "mtlskit.toml"
    write_config(config, folder)
    (tmp_path / "link.toml").symlink_to(config)
    ours = status_facts(11, config=str(config))
    with fake_proxy(folder, 11, {"status": ours}), fake_proxy(folder, 12, {"status": status_facts(12)}):
        assert [facts["pid"] for facts in listed(run("status", "--json", control=False))] == [11, 12]
        for name in ("mtlskit.toml", "link.toml"):
            assert listed(run("status", "--json", "--config", name, control=False)) == [ours]
        write_config(config, None)
        assert listed(run("status", "--json", MTLSKIT_CONFIG="mtlskit.toml")) == [ours]
        flags = ("--config", "mtlskit.toml", "--control", str(folder))
        assert listed(run("status", "--json", *flags, control=False)) == [ours]
        result = run("reload", "--config", str(tmp_path / "other.toml"))
        assert (result.exit_code, "other.toml: there is no such file" in result.stderr) == (2, True)


def listed(result: Result) -> list[dict[str, Any]]:
    proxies: list[dict[str, Any]] = json.loads(result.stdout)["proxies"]
    return proxies


def test_a_file_that_nobody_has_named_does_not_stand_in_the_way(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mtlskit.toml").write_text("control = [broken")
    result = run("status", control=False)
    assert result.exit_code == 3
    assert "warning: mtlskit.toml:1:" in result.stderr
    assert run("status", "--config", "mtlskit.toml", control=False).exit_code == 2


def test_a_folder_that_others_may_write_to_is_refused(run: Run, folder: Path) -> None:
    folder.chmod(0o777)
    result = run("status")
    assert (result.exit_code, "MTLS-CTL-001" in result.stderr) == (2, True)


# reload.


def reloaded(**changes: Any) -> dict[str, Any]:
    facts = {
        "name": "reporting",
        "ok": True,
        "identity": "reporting",
        "serial": "0a",
        "not_after": "2040-01-01T00:00:00",
    }
    return {"tunnels": [facts | {"error": None} | changes]}


def test_a_reload_says_what_each_tunnel_serves(run: Run, folder: Path) -> None:
    with fake_proxy(folder, 11, {"status": status_facts(11), "reload": reloaded()}):
        result, as_json = run("reload"), run("reload", "--json")
    assert (result.exit_code, as_json.exit_code) == (0, 0)
    assert result.stdout == "proxy 11:\n  reporting: identity reporting, serial 0a, valid until 2040-01-01 00:00 UTC\n"
    assert json.loads(as_json.stdout) == {"proxies": [{"pid": 11, **reloaded()}]}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (reloaded(ok=False, error=FAILED), "reporting: not loaded; it keeps serial 0a, valid until 2040"),
        (reloaded(ok=False, serial=None, error=FAILED), "reporting: not loaded; it does not run"),
        (b'{"ok": false, "error": {"code": "MTLS-CTL-008", "reason": "stopping", "hint": ""}}\n', "error: stopping"),
    ],
    ids=["kept", "not running", "refused"],
)
def test_a_reload_that_failed(run: Run, folder: Path, answer: Any, told: str) -> None:
    with fake_proxy(folder, 11, {"status": status_facts(11), "reload": answer}):
        result = run("reload")
        assert run("reload", "--json").exit_code == 1
    assert (result.exit_code, told in result.stdout) == (1, True)


@pytest.mark.parametrize("command", ["reload", "stop"])
def test_nobody_to_ask(run: Run, command: str) -> None:
    result = run(command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no proxy is running")
    assert json.loads(run(command, "--json").stderr)["code"] == "MTLS-CTL-006"


# stop.


def test_a_stop_is_told_and_waited_for(run: Run, folder: Path) -> None:
    answers = {"status": status_facts(11), "stop": {"sessions": 2, "seconds": 30.0}}
    with fake_proxy(folder, 11, answers):
        assert run("stop").stdout.splitlines() == [
            "proxy 11 (from flags): stopping, 2 sessions may finish within 30 s",
            "proxy 11: stopped",
        ]
        assert run("stop", "--no-wait").stdout.splitlines() == [
            "proxy 11 (from flags): stopping, 2 sessions may finish within 30 s"
        ]
        [facts] = listed(run("stop", "--json"))
        assert facts == {"pid": 11, "sessions": 2, "seconds": 30.0, "ended": True}


def test_of_several_it_is_said_which_to_stop(run: Run, folder: Path, tmp_path: Path) -> None:
    stopped: list[tuple[int, str]] = []

    def note(pid: int) -> Callable[[str], None]:
        return lambda do: stopped.append((pid, do)) if do == "stop" else None

    def answers(pid: int) -> dict[str, Any]:
        return {"status": status_facts(pid), "stop": {"sessions": 0, "seconds": 0}}

    with fake_proxy(folder, 11, answers(11), note(11)), fake_proxy(folder, 12, answers(12), note(12)):
        refused = run("stop")
        assert (refused.exit_code, stopped) == (2, [])
        assert "2 proxies are running (11, 12)" in refused.stderr
        assert run("stop", "--pid", "12").exit_code == 0
        assert stopped == [(12, "stop")]
        absent = run("stop", "--pid", "13")
        assert absent.exit_code == 1
        assert "no proxy is process 13; running: proxy 11 (from flags), proxy 12 (from flags)" in absent.stderr
        assert run("stop", "--pid", "twelve").exit_code == 2
        assert run("stop", "--all").exit_code == 0
        assert sorted(stopped) == [(11, "stop"), (12, "stop"), (12, "stop")]


def test_the_only_proxy_is_not_stopped_where_another_file_lies_here(run: Run, folder: Path, tmp_path: Path) -> None:
    write_config(tmp_path / "mtlskit.toml", None)
    stopped: list[str] = []
    answers = {"status": status_facts(11, config="/etc/x.toml"), "stop": {"sessions": 0, "seconds": 0}}
    with fake_proxy(folder, 11, answers, lambda do: stopped.append(do) if do == "stop" else None):
        refused = run("stop")
        assert (refused.exit_code, stopped) == (2, [])
        assert "proxy 11 (/etc/x.toml) runs, and not mtlskit.toml of this folder" in refused.stderr
        assert all(option in refused.stderr for option in ("--pid 11", "--config", "--all"))
        for arguments in (("--pid", "11"), ("--all",)):
            assert run("stop", *arguments).stdout.startswith("proxy 11 (/etc/x.toml): stopping")
        answers["status"] = status_facts(11, config=str(tmp_path / "mtlskit.toml"))
        assert run("stop").exit_code == 0


def test_a_stop_that_fails(run: Run, folder: Path) -> None:
    refusal = b'{"ok": false, "error": {"code": "MTLS-CTL-007", "reason": "busy", "hint": "again"}}\n'
    with fake_proxy(folder, 11, {"status": status_facts(11), "stop": refusal}):
        result = run("stop")
    assert (result.exit_code, result.stderr) == (1, "error: busy [MTLS-CTL-007]\nhint:  again\n")


def test_an_addon_that_cannot_be_looked_up(run: Run, folder: Path) -> None:
    addon = {"name": "postgresql-curved-12345", "error": FAILED}
    with fake_proxy(folder, 11, {"status": status_facts(11, tunnel_facts() | {"addon": addon})}):
        result = run("status")
    assert result.exit_code == 3
    assert (
        "error: postgresql-curved-12345 cannot be looked up, what is known of it stays in use: k.pem" in result.stdout
    )
    assert "hint:  name the other key" in result.stdout


def test_what_names_on_a_shared_kafka_begin_with(run: Run, folder: Path) -> None:
    for prefix, told in (("bern-4711.", True), ("", False), (None, False)):
        addon = {"name": "kafka-rigid-4711", "prefix": prefix, "error": None}
        with fake_proxy(folder, 11, {"status": status_facts(11, tunnel_facts() | {"addon": addon})}):
            result = run("status")
        assert result.exit_code == 0
        assert ("    names of topics and groups on kafka-rigid-4711 begin with bern-4711." in result.stdout) is told


@pytest.mark.parametrize(("named", "marked"), [(True, False), (False, True), (None, False)])
def test_a_broker_that_the_cluster_names_no_more(run: Run, folder: Path, named: bool | None, marked: bool) -> None:
    """`None`: a proxy of an older version, which does not say. It is marked, and nothing to attend to by itself."""
    broker: dict[str, Any] = {
        "id": 1001,
        "addresses": [{"host": "127.0.0.1", "port": 9096}],
        "upstream": "b-1.example:9096",
        "error": None,
    }
    if named is not None:
        broker["named"] = named
    for error, status in ((None, 0), (FAILED, 3)):
        facts = tunnel_facts() | {"brokers": [broker | {"error": error}]}
        with fake_proxy(folder, 11, {"status": status_facts(11, facts)}):
            result = run("status")
        assert result.exit_code == status
        told = "    broker 1001 on 127.0.0.1:9096 to b-1.example:9096"
        assert told + (" (no longer named by the cluster)" if marked else "") in result.stdout.splitlines()
        which = "broker 1001, no longer named by the cluster," if marked else "broker 1001"
        assert (f"error: {which} cannot be reached: k.pem" in result.stdout) is (error is not None)


def test_the_help_names_whatever_gives_status_3(run: Run, folder: Path) -> None:
    """What `_trouble` of the view finds, one by one, and what is wrong with a proxy as a whole."""
    told = " ".join(run("status", "--help").stdout.split())
    found: dict[str, dict[str, Any]] = {
        "a tunnel has failed": {"state": "failed"},
        "got no connection to the upstream": {"upstream_error": FAILED},
        "or to a broker of a Kafka": {"brokers": [{"id": 1, "addresses": [{"host": "h", "port": 1}], "error": FAILED}]},
        "a broker can have no listener": {"brokers": [{"id": 1, "addresses": [], "error": FAILED}]},
        "because a reload failed": {"error": FAILED},
        "its identity is due for renewal": {"identity": {"due": True, "not_after": "2026-01-31T12:00:00+00:00"}},
        "Heroku cannot tell where its add-on is": {"addon": {"name": "a", "error": FAILED}},
    }
    for words, facts in found.items():
        with fake_proxy(folder, 11, {"status": status_facts(11, tunnel_facts() | facts)}):
            assert run("status").exit_code == 3, words
        assert words in told
    assert "a proxy does not answer; or no proxy is running" in told
