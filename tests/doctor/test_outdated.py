"""A file that has changed under a running proxy: what differs, what it means, and what is to be typed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mtlskit.config.values import UnixAddress
from mtlskit.doctor.case import Case, Identified, Means
from mtlskit.doctor.checks.local import look_at_local_side
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import from_file
from mtlskit.doctor.local.outdated import differences, has_moved
from mtlskit.doctor.local.proxies import Served
from mtlskit.errors import Code
from mtlskit.pki.authority import Authority
from mtlskit.pki.identity import CheckedPair
from mtlskit.wire.postgres.messages import authentication_ok
from tests.doctor.test_local_side import a_door
from tests.services.places import free_port
from tests.support.fake_controls import fake_proxy, status_facts, tunnel_facts

FILE = """\
[tunnel.reporting]
kind = "postgres"
listen = "{listen}"
upstream = "{upstream}"
cert = "client.crt"
key = "client.key"
"""
BROKEN = '[tunnel.other]\nkind = "postgrs"\n'


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """A folder of control sockets."""
    folder = tmp_path / "control"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="module")
def pair() -> CheckedPair:
    issued = Authority.create("a CA", now=datetime.now(UTC)).issue_client("app", now=datetime.now(UTC))
    return CheckedPair((issued.certificate,), None)  # type: ignore[arg-type]


def case_of(
    folder: Path, listen: str = "127.0.0.1:6432", upstream: str = "db.example.com:5432", more: str = ""
) -> Case:
    path = folder / "mtlskit.toml"
    path.write_text(FILE.format(listen=listen, upstream=upstream) + more)
    means = Means(environ={"MTLSKIT_CONTROL": str(folder / "control")}, step=5)
    (case,) = from_file(path, ["reporting"], means).cases
    return case


def running(folder: Path, *listens: tuple[str, int], **changes: Any) -> dict[str, Any]:
    """A tunnel of a status that is the file's, but for the changes."""
    identity = {"cert": str(folder / "client.crt")} | changes.pop("identity", {})
    addresses = [{"host": host, "port": port} for host, port in listens or (("127.0.0.1", 6432),)]
    return tunnel_facts(**({"addresses": addresses} | changes), identity=identity)


def served(tunnel: dict[str, Any], **more: Any) -> Served:
    return Served(17, Path(), status_facts(17, tunnel, config_changed=True), tunnel, **more)


async def look(case: Case, identified: Identified | None = None) -> dict[str, Finding]:
    return {each.check: each for each in await look_at_local_side(case, identified or Identified())}


ADDON: dict[str, Any] = {"name": "sql-1", "credential": "default", "login": "client"}


@pytest.mark.parametrize(
    ("written", "changes", "told"),
    [
        ({}, {}, ""),
        ({}, {"upstream": ["old.example.com:5432"]}, "leads to old.example.com:5432, the file to db.example.com:5432"),
        ({}, {"upstream": []}, ""),  # not known yet
        ({}, {"kind": "kafka"}, "speaks kafka, the file says postgres"),
        ({}, {"addon": ADDON}, "leads to heroku:sql-1, the file to db.example.com:5432"),
        ({"upstream": "heroku:sql-1"}, {"addon": ADDON, "upstream": ["ec2-1:5432"]}, ""),
        ({"upstream": "heroku:sql-2"}, {"addon": ADDON}, "leads to heroku:sql-1, the file to heroku:sql-2"),
        ({"upstream": "heroku:sql-1"}, {"addon": None}, "leads to db.example.com:5432, the file to heroku:sql-1"),
        ({"upstream": "heroku:sql-1/report"}, {"addon": ADDON}, "has credential default, the file says report"),
        ({}, {"identity": {"cert": "/old/client.crt"}}, "serves the certificate of /old/client.crt, the file names "),
        ({}, {"identity": {"cert": "\0"}}, "serves the certificate of \\x00, the file names "),
    ],
)
def test_what_differs(tmp_path: Path, written: dict[str, str], changes: dict[str, Any], told: str) -> None:
    case = case_of(tmp_path, **written)
    found = ["".join(map(str, differences(case, Identified(), served(running(tmp_path, **changes)))))]
    assert found[0].startswith(told)
    assert bool(found[0]) is bool(told)
    assert not differences(case, Identified(), served(running(tmp_path, **changes), other_file=True))


@pytest.mark.parametrize(
    ("file", "there", "differs", "moved"),
    [
        ("127.0.0.1:6432", "127.0.0.1", False, False),
        ("localhost:6432", "::1", False, False),
        ("127.0.0.1:0", "127.0.0.1", False, False),
        ("[0:0:0:0:0:0:0:1]:6432", "::1", False, False),
        ("127.0.0.1:6433", "127.0.0.1", True, True),
        ("127.0.0.2:6432", "127.0.0.1", True, True),
        ("127.0.0.1:6432", "0.0.0.0", True, False),  # open to more hosts than the file says
    ],
)
def test_where_it_listens(tmp_path: Path, file: str, there: str, differs: bool, moved: bool) -> None:
    case, proxy = case_of(tmp_path, file), served(running(tmp_path, (there, 6432)))
    assert [each.key for each in differences(case, Identified(), proxy)] == ["listen"] * differs
    assert has_moved(case, proxy) is moved


def test_a_unix_socket_that_has_moved(tmp_path: Path) -> None:
    case = case_of(tmp_path, f"unix:{tmp_path}/s.1")
    assert isinstance(case.tunnel.listen, UnixAddress)
    assert has_moved(case, served(running(tmp_path, addresses=[{"path": f"{tmp_path}/s.2"}])))
    assert not has_moved(case, served(running(tmp_path, addresses=[{"path": f"{tmp_path}/./s.1"}])))


async def test_the_address_of_the_file_is_another_tunnels_of_the_same_proxy(tmp_path: Path, control: Path) -> None:
    case = case_of(tmp_path)
    mine, other = running(tmp_path, ("127.0.0.1", 1)), running(tmp_path, name="other", upstream=["x:1"])
    status = status_facts(17, mine, other, config=str(case.config.source), config_changed=True)
    with fake_proxy(control, 17, {"status": status}):
        found = await look(case)
    assert found["local.config"].seen == (
        "the file says 127.0.0.1:6432, where its tunnel other listens; process 17 still serves reporting on 127.0.0.1:1"
    )
    assert found["local.client"].because == "local.config"


async def test_of_two_proxies_of_the_file_the_one_that_is_as_it_says(tmp_path: Path, control: Path) -> None:
    with a_door(authentication_ok()) as address:
        case = case_of(tmp_path, f"127.0.0.1:{address[1]}")
        config = str(case.config.source)
        old = status_facts(17, running(tmp_path), config=config, config_changed=True)
        new = status_facts(18, running(tmp_path, address), config=config)
        with fake_proxy(control, 17, {"status": old}), fake_proxy(control, 18, {"status": new}):
            found = await look(case)
    assert found["local.proxy"].about == "process 18"
    assert "local.config" not in found
    assert found["local.client"].verdict is Verdict.PASS


async def test_somebody_else_serves_the_new_address(tmp_path: Path, control: Path) -> None:
    """A proxy of another user: clients get through."""
    with a_door(authentication_ok()) as address:
        case = case_of(tmp_path, f"127.0.0.1:{address[1]}")
        status = status_facts(17, running(tmp_path), config=str(case.config.source), config_changed=True)
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case)
    assert found["local.config"].verdict is Verdict.WARN
    assert found["local.client"].verdict is Verdict.PASS


async def test_a_file_that_reads_differently_here(tmp_path: Path, control: Path) -> None:
    """It has not changed, so a restart from here is no remedy."""
    with a_door(authentication_ok()) as address:
        case = case_of(tmp_path, f"127.0.0.1:{address[1]}")
        tunnel = running(tmp_path, address, upstream=["other.example.com:5432"])
        with fake_proxy(control, 17, {"status": status_facts(17, tunnel, config=str(case.config.source))}):
            found = await look(case)
    told = found["local.config"]
    assert (told.verdict, told.code, told.commands) == (Verdict.WARN, Code.LOCAL_OLD_CONFIG, ())
    assert "a variable" in told.hint


@pytest.mark.parametrize("over", [False, True])
async def test_one_piece_of_advice(tmp_path: Path, control: Path, pair: CheckedPair, over: bool) -> None:
    ends = "2020-01-01T00:00:00+00:00" if over else "2040-01-01T00:00:00+00:00"
    with a_door(authentication_ok()) as address:
        case = case_of(tmp_path, f"127.0.0.1:{address[1]}")
        tunnel = running(tmp_path, address, identity={"fingerprint_sha256": "00" * 32, "not_after": ends})
        status = status_facts(17, tunnel, config=str(case.config.source), config_changed=True)
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case, Identified(pair=pair))
    restart = ("mtlskit stop --pid 17", f"mtlskit proxy --config {case.config.source}")
    assert found["local.config"].commands == restart
    assert found["local.identity"].code is Code.LOCAL_OLD_IDENTITY
    assert found["local.identity"].commands == (restart if over else ())
    assert not any("reload" in command for each in found.values() for command in each.commands)


async def test_other_files_are_loaded_by_a_restart_only(tmp_path: Path, control: Path, pair: CheckedPair) -> None:
    with a_door(authentication_ok()) as address:
        case = case_of(tmp_path, f"127.0.0.1:{address[1]}")
        tunnel = running(tmp_path, address, identity={"cert": "/old.crt", "fingerprint_sha256": "00" * 32})
        status = status_facts(17, tunnel, config=str(case.config.source), config_changed=True)
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case, Identified(pair=pair))
    assert (found["local.config"].verdict, found["local.config"].code) == (Verdict.FAIL, Code.LOCAL_OLD_CONFIG)
    assert found["local.config"].facts["differs"] == {
        "cert": {"running": "/old.crt", "file": str(tmp_path / "client.crt")}
    }
    assert found["local.identity"].because == "local.config"


async def test_a_tunnel_that_failed_and_a_file_that_was_mended(tmp_path: Path, control: Path) -> None:
    case = case_of(tmp_path)
    error = {"code": "MTLS-ID-001", "reason": "gone", "hint": "put it there"}
    tunnel = running(tmp_path, state="failed", addresses=[], error=error)
    status = status_facts(17, tunnel, config=str(case.config.source), config_changed=True)
    with fake_proxy(control, 17, {"status": status}):
        found = await look(case)
    assert found["local.tunnel"].hint.startswith("put it there; then restart the proxy")
    assert found["local.tunnel"].commands[0] == "mtlskit stop --pid 17"


# A file with a table that is wrong: no proxy starts with it.


async def test_nothing_is_started_with_a_broken_file(tmp_path: Path, control: Path) -> None:
    case = case_of(tmp_path, f"127.0.0.1:{free_port()}", more=BROKEN)
    assert case.file_is_broken
    found = (await look(case))["local.proxy"]
    assert (found.code, found.commands) == (Code.LOCAL_NOT_RUNNING, ())
    assert found.hint == "mend the file first, then start it, and wait until it says `ready`"


async def test_nothing_is_stopped_with_a_broken_file(tmp_path: Path, control: Path) -> None:
    with a_door(authentication_ok()) as address:
        case = case_of(tmp_path, f"127.0.0.1:{address[1]}", more=BROKEN)
        status = status_facts(17, running(tmp_path, address), config=str(case.config.source), config_changed=True)
        with fake_proxy(control, 17, {"status": status}):
            found = (await look(case))["local.config"]
    assert (found.verdict, found.commands) == (Verdict.WARN, ())
    assert found.hint.startswith("mend the file first, then restart")
