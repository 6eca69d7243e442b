"""`mtlskit demo`, the README's first command once it is installed: it shows what it promises and leaves nothing."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from tests.services.accounts import credentials
from tests.services.clients import libpq_program
from tests.support.command_process import TIMEOUT, CommandProcess, clean_environment
from tests.support.families import alive, family_of
from tests.support.runners import Runner

STEPS = [
    ("Start a Private Space", 'upstream = "heroku:postgresql-sandbox-'),
    ("Enable mutual TLS", "Provisioning, then Operational"),
    ("Let this host in", "connection timeout expired added 127.0.0.1/32, and waited until the rule acts"),
    ("Get a client certificate", "tried at the database before it was kept"),
    ("Open the door", "plain Postgres on 127.0.0.1:"),
    ("Run queries", "10,000 rows written with COPY and read back"),
    ("See why it works", "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection"),
    ("Cancel a query", "canceling statement due to user request"),
    ("Replace the certificate", "connections were served, and none failed"),
    ("Open a door to Kafka", "1,000 records sent and read back by a plain client (confluent-kafka)"),
    ("The office gets a new address", "and only then removed 127.0.0.1/32"),
    ("Revoke a certificate", "our client certificate has been revoked [MTLS-TLS-012]"),
]


def environment_of(runner: Runner, folder: Path) -> dict[str, str]:
    """All that the demo writes, it writes below the folder."""
    return clean_environment(folder, TMPDIR=str(folder), COLUMNS="80", **runner.environment)


def assert_tells_all_steps(output: str) -> None:
    parts = re.split(r"^\d+\. ", output, flags=re.MULTILINE)[1:]
    assert len(parts) == len(STEPS)
    for part, (title, fact) in zip(parts, STEPS, strict=True):
        assert part.startswith(title)
        assert fact in " ".join(word for word in part.split() if word != "|"), "quotes are wrapped, too"


def test_the_demo_shows_each_step_and_leaves_nothing(runner: Runner, scratch: Path) -> None:
    done = subprocess.run(
        [*runner.command, "demo"],
        cwd=scratch,
        env=environment_of(runner, scratch),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        **credentials(runner.account),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert_tells_all_steps(done.stdout)
    assert "Nothing is left behind." in done.stdout
    assert {len(text) > 80 for text in done.stdout.splitlines() if " " in text.strip(" |")} == {False}
    [again] = re.findall(r"^   (.* demo) --keep$", done.stdout, re.MULTILINE)
    shown = subprocess.run(
        ["/bin/sh", "-c", f"{again} --help"],
        cwd=scratch,
        env=environment_of(runner, scratch),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
        **credentials(runner.account),
    )
    assert "--keep" in shown.stdout
    assert list(scratch.iterdir()) == []


def test_a_demo_that_stays_up_can_be_tried_and_ends_with_ctrl_c(scratch: Path, services: None) -> None:
    libpq_program("psql")
    environment = clean_environment(scratch, TMPDIR=str(scratch))
    demo = CommandProcess(
        ["mtlskit", "demo", "--keep"], ready="^Ctrl-C ends it", folder=scratch, environment=environment
    )
    with demo:
        assert_tells_all_steps(demo.output)
        plain, direct = re.findall(r"^   (.*psql .*)$", demo.output, re.MULTILINE)
        for command in (plain, direct):
            assert try_it(f"{command} -Atc 'select 6 * 7'", environment, scratch) == "42\n"
        members = family_of(demo.pid)
        assert demo.stop(signal.SIGINT) == 0
    assert demo.output.endswith("Removed everything.\n")
    assert len(members) > 1, "PostgreSQL is a child of the demo"
    assert alive(members) == []
    assert not [member.folder for member in members[1:] if member.folder.exists()]
    assert list(scratch.iterdir()) == []


def try_it(command: str, environment: dict[str, str], folder: Path) -> str:
    """What a printed command prints in another terminal."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
