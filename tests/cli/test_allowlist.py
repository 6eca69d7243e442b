"""`mtlskit allowlist` and `mtlskit my-ip` as they are typed, against a running sandbox."""

from __future__ import annotations

import json
import os
import pty
import signal
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from mtlskit.allowlist.applied import AddonApplied, Applied
from mtlskit.allowlist.gather import Found
from mtlskit.allowlist.owner import NOBODY
from mtlskit.allowlist.plan import AddonPlan, Plan
from mtlskit.cli.allowlist_change import _question
from mtlskit.cli.allowlist_view import show_applied, show_found, show_plan
from mtlskit.heroku.values import AddonKind, IpRule
from tests.support.sandbox_command import Sandbox, running_sandbox

HERE = "127.0.0.1/32"


@pytest.fixture(scope="module")
def space() -> Iterator[Sandbox]:
    """Rules act some hundredths of a second after they were made."""
    with running_sandbox("--speed-up", "30000", "--addons", "3") as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _as_it_was(space: Sandbox) -> Iterator[None]:
    yield
    space.no_faults()
    for name in space.addons():
        for rule in space.rules(name):
            if rule["cidr"] != HERE:
                path = "data/kafka/v0/clusters" if name == space.kafka else "postgres/v0/databases"
                endpoint = "" if name == space.kafka else "/tls-endpoint"
                space.call("DELETE", f"/{path}/{name}{endpoint}/ip-rules/{rule['id']}")


def parsed(text: str) -> Any:
    return json.loads(text)


def write(space: Sandbox, text: str) -> None:
    (space.folder / "mtlskit.toml").write_text(
        text.replace("ADDON", space.addon).replace("KAFKA", space.kafka), encoding="utf-8"
    )


def test_the_lines_that_scripts_rely_on(space: Sandbox) -> None:
    name = space.addon
    added = parsed(
        space.ok(
            *("allowlist", "add", "203.0.113.7/32", "--addon", name, "--description", "office", "--wait", "--json")
        )
    )
    assert added["done"]
    assert [rule["cidr"] for rule in added["addons"][0]["added"]] == ["203.0.113.7/32"]
    [listed] = parsed(space.ok("allowlist", "list", "--addon", name, "--json"))["addons"]
    [rule] = [rule for rule in listed["rules"] if rule["cidr"] == "203.0.113.7/32"]
    assert (listed["addon"], listed["kind"], listed["limit"]) == (name, "postgres", 60)
    assert (rule["description"], rule["owner"], rule["status"], rule["authorized"]) == (
        "office",
        None,
        "Authorized",
        True,
    )
    space.ok("allowlist", "remove", "203.0.113.7/32", "--addon", name, "--yes")
    assert space.cidrs() == [HERE]


def test_many_ranges_at_many_addons_are_one_command(space: Sandbox) -> None:
    names = space.addons()
    ranges = [f"203.0.113.{number}/32" for number in range(6)]
    flags = [word for name in names for word in ("--addon", name)]
    space.ok("allowlist", "add", *ranges, *flags, "--description", "vendor", "--wait")
    assert len(names) == 4
    assert all(space.cidrs(name) == sorted([HERE, *ranges]) for name in names)
    again = parsed(space.ok("allowlist", "add", *ranges, *flags, "--json"))
    assert [each["added"] for each in again["addons"]] == [[]] * 4
    space.ok("allowlist", "remove", *ranges, *flags, "--yes")
    assert all(space.cidrs(name) == [HERE] for name in names)


def test_a_removal_that_was_done_in_part_goes_on(space: Sandbox) -> None:
    flags = ["--addon", space.addon, "--addon", space.kafka]
    space.ok("allowlist", "add", "203.0.113.7", "--addon", space.kafka)
    space.ok("allowlist", "remove", "203.0.113.7", *flags, "--yes")
    assert space.cidrs(space.kafka) == [HERE]
    nowhere = space.run("allowlist", "remove", "203.0.113.7", *flags, "--yes")
    assert nowhere.returncode == 1
    assert "MTLS-ALW-011" in nowhere.stderr


def test_my_own_rule_stays_unless_told(space: Sandbox) -> None:
    refused = space.run("allowlist", "remove", HERE, "--addon", space.kafka, "--yes")
    assert refused.returncode == 1
    assert "would lock out 127.0.0.1" in refused.stderr
    assert "--lock-me-out" in refused.stderr
    unknown = space.run(
        "allowlist", "remove", HERE, "--addon", space.kafka, "--yes", MTLSKIT_MY_IP="http://127.0.0.1:9"
    )
    assert unknown.returncode == 1
    assert "address is not known" in unknown.stderr
    space.ok("allowlist", "remove", HERE, "--addon", space.kafka, "--yes", "--lock-me-out")
    assert space.cidrs(space.kafka) == []
    space.ok("allowlist", "add", "--my-ip", "--addon", space.kafka, "--description", "this machine")
    assert space.cidrs(space.kafka) == [HERE]


def test_nothing_is_removed_where_nobody_can_be_asked(space: Sandbox) -> None:
    space.ok("allowlist", "add", "203.0.113.7", "--addon", space.addon)
    done = space.run("allowlist", "remove", "203.0.113.7", "--addon", space.addon)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "203.0.113.7/32" in space.cidrs()


def test_a_person_is_asked_and_shown_what_goes(space: Sandbox) -> None:
    space.ok("allowlist", "add", "203.0.113.7", "--addon", space.addon, "--description", "the old office")
    answers = [
        on_a_terminal(space, ["allowlist", "remove", "203.0.113.7", "--addon", space.addon], answer)
        for answer in ("n", "y")
    ]
    assert all("the old office" in shown for shown in answers)
    assert "nothing was removed" in answers[0]
    assert space.cidrs() == [HERE]


def on_a_terminal(space: Sandbox, words: list[str], answer: str) -> str:
    """What `mtlskit WORDS` shows to a person who types `answer`."""
    pid, terminal = pty.fork()
    if pid == 0:  # the child: nothing but exec
        os.chdir(space.folder)
        os.execvpe("mtlskit", ["mtlskit", *words], space.environment)  # noqa: S606 - that is the point
    os.write(terminal, f"{answer}\n".encode())
    shown = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # how Linux tells the end of a terminal
            break
        if not data:
            break
        shown += data
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown.decode()


def test_a_file_becomes_the_rules_and_stays_so(space: Sandbox) -> None:
    write(
        space,
        """
[allowlist.offices]
addons = ["ADDON", "KAFKA"]
my_ip  = true
rules  = [{ cidr = "203.0.113.0/28", description = "Berlin" }, { cidr = "198.51.100.16/28", description = "Lisbon" }]
""",
    )
    planned = space.run("allowlist", "plan", "--json")
    assert planned.returncode == 3
    plan = parsed(planned.stdout)
    assert [each["addon"] for each in plan["addons"]] == [space.addon, space.kafka]
    assert [want["cidr"] for want in plan["addons"][0]["add"]] == ["198.51.100.16/28", "203.0.113.0/28"]
    assert plan["addons"][0]["relied"], "the sandbox's own rule lets this host in"
    space.ok("allowlist", "apply")
    assert space.cidrs() == space.cidrs(space.kafka) == [HERE, "198.51.100.16/28", "203.0.113.0/28"]
    assert parsed(space.ok("allowlist", "plan", "--json"))["changes"] is False

    write(space, '[allowlist.offices]\naddons = ["ADDON", "KAFKA"]\nrules = ["203.0.113.0/28", "198.51.100.32/28"]')
    space.ok("allowlist", "add", "192.0.2.1", "--addon", space.addon, "--description", "somebody else's")
    unanswered = space.run("allowlist", "apply")
    assert unanswered.returncode == 2
    assert "- 198.51.100.16/28" in unanswered.stdout
    space.ok("allowlist", "apply", "--yes")
    assert space.cidrs() == [HERE, "192.0.2.1/32", "198.51.100.32/28", "203.0.113.0/28"]
    space.ok("allowlist", "apply", "--yes", "--prune", "--lock-me-out")
    assert space.cidrs() == ["198.51.100.32/28", "203.0.113.0/28"]
    space.ok("allowlist", "add", "127.0.0.1", "--addon", space.addon, "--addon", space.kafka)


def test_a_published_list_is_applied_only_after_it_was_seen(space: Sandbox) -> None:
    write(space, '[allowlist.vendor]\naddons = ["ADDON"]\nrules_from = "vendor.txt"')
    (space.folder / "vendor.txt").write_text("192.0.2.0/28 # eu\n", encoding="utf-8")
    unseen = space.run("allowlist", "apply", "--yes")
    assert unseen.returncode == 1
    assert "MTLS-ALW-007" in unseen.stderr
    seen = parsed(space.run("allowlist", "plan", "--json").stdout)["hash"]
    (space.folder / "vendor.txt").write_text("192.0.2.0/28\n198.51.100.0/24 # slipped in\n", encoding="utf-8")
    changed = space.run("allowlist", "apply", "--yes", "--plan", seen)
    assert changed.returncode == 1
    assert "not " + seen in changed.stderr
    pruned = space.run("allowlist", "apply", "--yes", "--plan", seen, "--prune")
    assert pruned.returncode == 2
    assert space.cidrs() == [HERE]
    (space.folder / "vendor.txt").write_text("192.0.2.0/28\n", encoding="utf-8")
    again = parsed(space.run("allowlist", "plan", "--json").stdout)["hash"]
    space.ok("allowlist", "apply", "--yes", "--plan", again)
    assert space.cidrs() == [HERE, "192.0.2.0/28"]
    space.ok("allowlist", "apply", "--yes", "--plan", again)  # nothing is left to do, which nobody has to see
    (space.folder / "vendor.txt").write_text("192.0.2.0/28\nnonsense\n", encoding="utf-8")
    bad = space.run("allowlist", "plan")
    assert bad.returncode in (1, 2)
    assert "vendor.txt:2" in bad.stderr


def test_two_applies_at_one_moment_lose_no_rule(space: Sandbox) -> None:
    """Two files, two names, the same add-ons; and the same file twice."""
    wanted: dict[str, list[str]] = {}
    for name in ("berlin", "lisbon"):
        number = len(wanted)
        ranges = [f"203.0.113.{10 * number + each}/32" for each in range(8)]
        wanted[name] = ranges
        (space.folder / f"{name}.toml").write_text(
            f'[allowlist.{name}]\naddons = ["{space.addon}", "{space.kafka}"]\nrules = {json.dumps(ranges)}\n',
            encoding="utf-8",
        )
    started = [
        space.start("allowlist", "apply", "--config", f"{name}.toml", "--yes")
        for name in ("berlin", "lisbon", "berlin", "lisbon")
    ]
    ended = [(each.communicate(timeout=60)[0], each.returncode) for each in started]
    # The later of two that want the same finds its plan carried out, or half of it, and does what is left.
    assert [status for _, status in ended] == [0] * 4, ended
    everything = sorted([HERE, *wanted["berlin"], *wanted["lisbon"]])
    assert space.cidrs() == space.cidrs(space.kafka) == everything


@pytest.mark.parametrize("words", [["add", "203.0.113.7", "--wait", "--addon"], ["apply", "--yes"]])
def test_ctrl_c_while_it_waits_says_how_it_goes_on(space: Sandbox, words: list[str]) -> None:
    write(space, '[allowlist.offices]\naddons = ["ADDON"]\nrules = ["203.0.113.7"]')
    space.fault("slow-rules")
    with space.start("allowlist", *words, *([space.addon] if words[-1] == "--addon" else [])) as waiting:
        assert waiting.stdout is not None
        assert any("authorizing" in line for line in waiting.stdout), "it has not begun to wait"
        waiting.send_signal(signal.SIGINT)
        told = waiting.stdout.read()
    assert waiting.returncode == 130
    assert "interrupted; what was changed stays, and the same command goes on with the rest" in told
    assert "203.0.113.7/32" in space.cidrs()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"name": "html"}, "MTLS-API-011"),
        ({"name": "truncated"}, "MTLS-API-011"),
        ({"name": "expired-token"}, "MTLS-API-002"),
        ({"name": "403"}, "MTLS-API-003"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_what_the_api_does_wrong_is_said(space: Sandbox, fault: dict[str, Any], told: str) -> None:
    space.fault(**fault)
    done = space.run("allowlist", "list", "--addon", space.addon)
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stdout == ""
    space.no_faults()
    space.ok("allowlist", "list", "--addon", space.addon)


def test_a_lost_answer_is_looked_up_and_not_repeated(space: Sandbox) -> None:
    space.fault("lose-after", method="POST", match="/ip-rules", times=1)
    space.ok("allowlist", "add", "203.0.113.7", "--addon", space.addon, "--wait")
    assert space.cidrs() == [HERE, "203.0.113.7/32"]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["add", "--addon", "ADDON"], 2, "no range is named"),
        (["add", "203.0.113.7/24", "--addon", "ADDON"], 2, "MTLS-ALW-001"),
        (["add", "0.0.0.0/0", "--addon", "ADDON"], 2, "--i-mean-it"),
        (["add", "2001:db8::/32", "--addon", "ADDON"], 2, "MTLS-ALW-003"),
        (["add", "10.1.2.3", "--addon", "ADDON"], 2, "MTLS-ALW-004"),
        (["add", "203.0.113.7", "--addon", "ADDON", "--description", "\n"], 2, "--description"),
        (["add", "203.0.113.7", "--addon", "ADDON", "--description", "x [mtlskit:a/b]"], 2, "tag of an owner"),
        (["add", "203.0.113.7", "--addon", "ADDON", "--wait", "--timeout", "soon"], 2, "--timeout"),
        (["list"], 2, "no add-on is named"),
        (["list", "--addon", "../apps"], 2, "not the name of an add-on"),
        (["list", "--addon", "postgresql-sandbx"], 1, "did you mean"),
        (["plan"], 2, "MTLS-CFG-001"),
        (["watch", "--interval", "never"], 2, "--interval"),
    ],
)
def test_bad_input_has_its_answer(space: Sandbox, tmp_path: Path, words: list[str], status: int, told: str) -> None:
    done = space.run("allowlist", *(space.addon if word == "ADDON" else word for word in words), cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert told in done.stderr
    assert space.cidrs() == [HERE]


def test_errors_are_json_for_scripts(space: Sandbox, tmp_path: Path) -> None:
    done = space.run("allowlist", "list", "--json", "--addon", "postgresql-nowhere", cwd=tmp_path)
    told = parsed(done.stderr)
    assert (done.returncode, told["code"]) == (1, "MTLS-API-005")


def test_a_token_is_needed_and_never_shown(space: Sandbox, tmp_path: Path) -> None:
    none = space.run("allowlist", "list", "--addon", space.addon, cwd=tmp_path, HEROKU_API_KEY="")
    assert none.returncode == 2
    wrong = space.run("allowlist", "list", "--addon", space.addon, cwd=tmp_path, HEROKU_API_KEY="secret-of-mine")
    assert wrong.returncode == 1
    assert "MTLS-API-002" in wrong.stderr
    assert "secret-of-mine" not in wrong.stderr + wrong.stdout
    elsewhere = space.run(
        "allowlist", "list", "--addon", space.addon, cwd=tmp_path, HEROKU_DATA_HOST="https://heroku.com.example.com"
    )
    assert elsewhere.returncode == 2
    assert "MTLS-API-013" in elsewhere.stderr


def test_my_address_and_who_says_so(space: Sandbox, tmp_path: Path) -> None:
    assert space.ok("my-ip", cwd=tmp_path) == "127.0.0.1\n"
    assert space.ok("allowlist", "my-ip", "--source", "127.0.0.7", cwd=tmp_path) == "127.0.0.7\n"
    space.fault("echo-disagree")
    done = space.run("my-ip", "--json", cwd=tmp_path)
    found = parsed(done.stdout)
    assert done.returncode == 3
    assert (found["agreed"], found["addresses"]) == (None, ["127.0.0.1", "127.0.0.99"])
    refused = space.run("allowlist", "add", "--my-ip", "--addon", space.addon, cwd=tmp_path)
    assert refused.returncode == 1
    assert "MTLS-ALW-010" in refused.stderr


def test_a_space_is_let_in_by_its_stable_addresses(space: Sandbox, tmp_path: Path) -> None:
    space.ok("allowlist", "add", "--from-space", "sandbox", "--addon", space.addon, "--description", "the space")
    assert space.cidrs() == [HERE, *(f"127.0.0.{number}/32" for number in range(10, 14))]
    nowhere = space.run("allowlist", "add", "--from-space", "sandbx", "--addon", space.addon, cwd=tmp_path)
    assert nowhere.returncode == 1
    assert "did you mean sandbox" in nowhere.stderr


def test_ranges_side_by_side_are_joined_when_asked(space: Sandbox) -> None:
    write(space, '[allowlist.halves]\naddons = ["ADDON"]\nrules = ["203.0.113.0/25", "203.0.113.128/25"]')
    space.ok("allowlist", "apply", "--collapse", "--no-wait")
    assert space.cidrs() == [HERE, "203.0.113.0/24"]


def test_a_range_that_moves_between_two_lists_is_never_without_a_rule(space: Sandbox) -> None:
    both = '[allowlist.{}]\naddons = ["ADDON"]\nrules = {}\n'
    write(space, both.format("first", '["203.0.113.0/28"]') + both.format("second", '["198.51.100.0/28"]'))
    space.ok("allowlist", "apply")
    before = {rule["cidr"]: rule["id"] for rule in space.rules()}
    for names in ((), ("second",), ("first",)):
        write(
            space,
            both.format("first", '["198.51.100.0/28", "192.0.2.0/28"]') + both.format("second", '["203.0.113.0/28"]'),
        )
        space.ok("allowlist", "apply", *names, "--yes")
        kept = {rule["cidr"]: rule["id"] for rule in space.rules()}
        assert before.items() <= kept.items()
        assert set(kept) == {HERE, "203.0.113.0/28", "198.51.100.0/28", "192.0.2.0/28"}
    pruned = space.run("allowlist", "plan", "first", "--prune", "--lock-me-out", "--json")
    assert [rule["cidr"] for rule in parsed(pruned.stdout)["addons"][0]["remove"]] == [HERE]


def test_what_names_an_addon_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name, rule = "pg\x1b[2J\r", IpRule("1", "\x1b[31m", "\x07[mtlskit:a/b]", "\x9b0m")
    show_found([Found(name, AddonKind.POSTGRES, (rule,))])
    show_plan(Plan((AddonPlan(name, AddonKind.POSTGRES, NOBODY, unreadable=(rule,), remove=(rule,)),)))
    show_applied(Applied((AddonApplied(name, AddonKind.POSTGRES, 1, added=(rule,), waiting=(rule,)),), 0.0, False))
    question = _question(
        [Found(name, AddonKind.POSTGRES, (IpRule("1", "192.0.2.1", "\x1b]0;x\x07", ""),))], [IPv4Network("192.0.2.1")]
    )
    shown = capsys.readouterr().out + question
    assert "pg\\x1b[2J\\r" in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_a_reader_that_has_gone_keeps_nothing_from_being_done(space: Sandbox) -> None:
    write(space, '[allowlist.piped]\naddons = ["ADDON"]\nrules = ["203.0.113.77"]')
    running = space.start("allowlist", "apply", "--yes")
    assert running.stdout is not None
    running.stdout.close()
    assert running.wait(60) == 0
    assert "203.0.113.77/32" in space.cidrs()
