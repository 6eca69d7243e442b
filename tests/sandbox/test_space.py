"""The whole space: its files, its life, and what stands in its way."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
import pytest
import trio

from mtlskit.config.values import TcpAddress
from mtlskit.errors import Code, ConfigError, ListenError, MtlskitError, SandboxError
from mtlskit.net.listen import open_listeners
from mtlskit.net.socktables import listening_program
from mtlskit.pki.keys import generate_key, private_key_pem
from mtlskit.pki.profiles import Profile
from mtlskit.pki.requests import Wishes, make_request, subject_name
from mtlskit.sandbox.credentials import ClientIdentity
from mtlskit.sandbox.events import (
    ChannelBindingVerified,
    ClientRefused,
    OtherServerUsed,
    OwnDataLeftAside,
    SandboxStopped,
)
from mtlskit.sandbox.folder import MARKER
from mtlskit.sandbox.folder import open_folder as open_folder_of_a_space
from mtlskit.sandbox.gateway import ANY_PORT, tcp_address
from mtlskit.sandbox.software import OrdinaryUser, find_software, ordinary_user, place_software
from mtlskit.sandbox.space import Space, SpaceOptions, run_space
from mtlskit.store.authority_folder import AuthorityFolder
from mtlskit.store.files import write_file
from mtlskit.telemetry import Event, Level
from tests.support.doc_blocks import ROOT
from tests.support.space import RunningSpace, running_space, until


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def before(live: RunningSpace, directory: Path) -> SpaceOptions:
    """A space whose gateway stands before the other's PostgreSQL: quicker than another one."""
    return SpaceOptions(directory, postgres_url=live.space.direct_url)


def test_what_sandbox_json_tells(live: RunningSpace) -> None:
    space = live.space
    told = json.loads(space.file.read_text())
    assert set(told) == {"data_api", "platform_api", "api_key", "app", "postgres", "pki", "kafka", "my_ip"}
    assert told["data_api"] == told["platform_api"] == f"http://{space.api_address}"
    assert told["app"] == "sandbox"
    assert told["kafka"]["addon"] == space.kafka_addon
    assert told["kafka"]["addon"].startswith("kafka-sandbox-")
    for service in told["my_ip"]:
        assert "127.0.0.1" in httpx.get(service, trust_env=False).raise_for_status().text
    assert told["api_key"] == space.api_key
    assert told["postgres"]["addon"].startswith("postgresql-sandbox-")
    certificates = {
        "sslmode": "verify-full",
        "sslrootcert": told["pki"]["ca"],
        "sslcert": told["pki"]["cert"],
        "sslkey": told["pki"]["key"],
    }
    with psycopg.connect(told["postgres"]["url"], **certificates) as connection:
        assert connection.execute("select current_database()").fetchone() == ("sandbox",)
    with psycopg.connect(told["postgres"]["direct_url"]) as connection:
        assert connection.execute("select current_database()").fetchone() == ("sandbox",)


def test_sandbox_env_makes_libpq_work_in_a_shell(live: RunningSpace) -> None:
    code = "import os, psycopg; print(psycopg.connect(os.environ['DATABASE_URL']).execute('select 7').fetchone()[0])"
    script = f'. "{live.space.env_file}" && exec "$0" -W ignore -c "$1"'
    command = ["sh", "-c", script, sys.executable, code]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DATABASE_URL"))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


def test_secrets_are_for_the_owner_only(live: RunningSpace) -> None:
    space = live.space
    pki = space.client.cert.parent
    private = [
        space.file,
        space.env_file,
        space.directory / MARKER,
        space.client.key,
        pki / "ca" / "ca.key",
        pki / "server.key",
    ]
    assert {mode(path) for path in private} == {0o600}
    assert mode(pki) == 0o700
    assert mode(space.directory) & 0o067 == 0  # root's lent user may pass through, nothing else
    assert space.password not in repr(space)
    assert space.api_key not in repr(space)


def test_a_space_leaves_its_files_only_while_it_runs(live: RunningSpace, tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    with running_space(before(live, tmp_path / "sandbox")) as running:
        files = running.space.file, running.space.env_file
        assert all(path.exists() for path in files)
    assert not any(path.exists() for path in files)


def test_a_folder_is_taken_up_again(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path)) as running:
        first = running.space
        kept = {path: path.read_bytes() for path in (first.ca, first.client.cert, first.client.key)}
        revoked = first.new_client_identity("gone")
        running.revoke(revoked.serial)
    with running_space(before(live, tmp_path)) as running:
        again = running.space
        assert {path: path.read_bytes() for path in kept} == kept
        assert (again.addon, again.api_key) == (first.addon, first.api_key)
        with pytest.raises(psycopg.OperationalError, match="certificate revoked"):
            running.connect(revoked)
        with running.connect(channel_binding="require") as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def test_a_server_of_the_users_own(live: RunningSpace, tmp_path: Path) -> None:
    options = replace(before(live, tmp_path), url_source="MTLSKIT_SANDBOX_POSTGRES")
    with running_space(options) as running:
        with running.connect(channel_binding="require") as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        running.events.wait_for(ChannelBindingVerified)
        [used] = running.events.of(OtherServerUsed)
        assert live.space.postgres is not None
        assert f"unix:{live.space.postgres.socket_path}, named by MTLSKIT_SANDBOX_POSTGRES," in used.sentence()
        assert live.space.password not in used.sentence()
        assert not running.events.of(OwnDataLeftAside)
        assert running.space.postgres is None
        assert running.space.direct_url == live.space.direct_url
    assert not (tmp_path / "postgres").exists()


@pytest.mark.parametrize(("source", "undo"), [("--postgres", "leave --postgres out"), ("VARIABLE", "unset VARIABLE")])
def test_own_data_that_are_not_served_are_warned_of(live: RunningSpace, tmp_path: Path, source: str, undo: str) -> None:
    with open_folder_of_a_space(tmp_path) as folder:
        data = folder.postgres_home() / "data"
        data.mkdir()
    try:
        with running_space(replace(before(live, tmp_path), url_source=source)) as running:
            [warned] = running.events.of(OwnDataLeftAside)
            assert warned.level is Level.WARNING
            assert str(data) in warned.sentence()
            assert warned.sentence().endswith(undo)
    finally:
        with open_folder_of_a_space(tmp_path) as folder:
            folder.forget_home()  # it may lie elsewhere


def test_a_space_with_its_own_server_speaks_of_no_other(live: RunningSpace) -> None:
    assert not live.events.of(OtherServerUsed)


def test_the_last_word_of_a_space(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path)) as running:
        assert not running.events.of(SandboxStopped)
    assert running.events.of(Event)[-1] == SandboxStopped(directory=str(tmp_path))


def test_a_url_without_a_password(live: RunningSpace, tmp_path: Path) -> None:
    """Then channel binding cannot be offered, and everything else works."""
    url = live.space.direct_url.replace(f":{live.space.password}@", "@")
    with running_space(SpaceOptions(tmp_path, postgres_url=url)) as running:
        with running.connect(password=live.space.password) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="channel binding"):
            running.connect(password=live.space.password, channel_binding="require")


def test_identities_with_odd_names(live: RunningSpace) -> None:
    identity = live.space.new_client_identity("../ä b")
    assert identity.cert.parent == live.space.client.cert.parent
    assert mode(identity.key) == 0o600
    with live.connect(identity) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    for name in ("", "x" * 65):
        with pytest.raises(ValueError, match="1 to 64"):
            live.space.new_client_identity(name)


async def failure(options: SpaceOptions) -> MtlskitError:
    """What a space that cannot start raises: one error, not a group."""
    with pytest.raises(MtlskitError) as caught:
        await run_space(options)
    return caught.value


async def test_a_second_space_in_the_folder_of_a_running_one(live: RunningSpace) -> None:
    error = await failure(SpaceOptions(live.space.directory))
    assert isinstance(error, SandboxError)
    assert "another sandbox is running" in error.sentence
    assert live.space.file.exists()


async def test_a_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    assert (await failure(SpaceOptions(tmp_path))).code is Code.SANDBOX_DIR


@pytest.mark.parametrize("theirs", [True, False], ids=["a server of the user's own", "its own"])
async def test_a_port_in_use_is_told_before_anything_is_made(live: RunningSpace, tmp_path: Path, theirs: bool) -> None:
    url = live.space.direct_url if theirs else None
    error = await failure(SpaceOptions(tmp_path / "space", url, listen=live.space.gateway_address))
    assert isinstance(error, ListenError)
    assert (error.code, error.exit_status) == (Code.LISTEN_PORT_IN_USE, 2)
    address, program = live.space.gateway_address, listening_program(live.space.gateway_address.port)
    assert error.sentence == f"{address} is already in use" + (f" by {program}" if program else "")
    assert bool(program) is (sys.platform == "linux")
    assert not (tmp_path / "space").exists()


async def test_a_failed_start_gives_the_port_back(live: RunningSpace, tmp_path: Path) -> None:
    with open_listeners(ANY_PORT) as listener:
        address = tcp_address(listener)
    (tmp_path / "thesis.txt").touch()
    assert (await failure(SpaceOptions(tmp_path, listen=address))).code is Code.SANDBOX_DIR
    with open_listeners(address):
        pass


async def test_a_bad_url_is_told_before_anything_is_made(tmp_path: Path) -> None:
    error = await failure(SpaceOptions(tmp_path / "space", postgres_url="mysql://u:p@h/d"))
    assert isinstance(error, ConfigError)
    assert not (tmp_path / "space").exists()


async def test_a_server_that_is_not_there_is_told_before_anything_is_made(tmp_path: Path) -> None:
    url = f"postgres://u:sesame@/d?host={tmp_path}"
    error = await failure(SpaceOptions(tmp_path / "space", postgres_url=url, url_source="MY_VARIABLE"))
    assert error.code is Code.SANDBOX_GATEWAY
    assert error.sentence.startswith(f"MY_VARIABLE: the server behind the gateway, unix:{tmp_path}")
    assert "sesame" not in error.sentence + error.hint
    assert not (tmp_path / "space").exists()


def test_the_user_may_make_the_users_and_databases_of_the_documentation(live: RunningSpace) -> None:
    page = (ROOT / "docs" / "how-to" / "try-it-in-the-sandbox.md").read_text(encoding="utf-8")
    role, database = re.findall(r"""-c "(create role [^"]*)" -c '(create database [^']*)'""", page)[0]
    with live.connect() as connection:
        connection.execute(role)
        connection.execute(database)
        with live.connect(user="ann", password="secret", dbname="app") as of_ann:
            of_ann.execute("create table mine (n int)")
        connection.execute("drop database app with (force)")
        connection.execute("drop role ann")


async def test_a_damaged_revocation_list(live: RunningSpace, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        await start(nursery, before(live, tmp_path))
        nursery.cancel_scope.cancel()
    (tmp_path / "pki" / "ca" / "ca.crl").write_text("nothing")
    assert "revocation list" in (await failure(before(live, tmp_path))).sentence


async def start(nursery: trio.Nursery, options: SpaceOptions) -> Space:
    async def run(task_status: trio.TaskStatus[Space]) -> None:
        await run_space(options, task_status=task_status)

    space: Space = await nursery.start(run)
    return space


async def test_listening_everywhere_is_told_as_a_loopback_address(live: RunningSpace, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        options = SpaceOptions(tmp_path, live.space.direct_url, listen=TcpAddress("0.0.0.0", 0))
        space = await start(nursery, options)
        assert space.gateway_address.host == "127.0.0.1"
        nursery.cancel_scope.cancel()


def test_a_client_that_is_refused_leaves_the_space_running(live: RunningSpace) -> None:
    mark = live.events.mark
    with pytest.raises(psycopg.OperationalError):
        live.connect(sslmode="disable")
    live.events.wait_for(ClientRefused, since=mark)
    with live.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)


NOBODY_HERE = OrdinaryUser("nobody here", 54_321, 54_321)
AS_SOMEBODY = """
import contextlib, encodings.idna, importlib, os, pkgutil, signal, sys
from functools import partial
from pathlib import Path
import anyio, cryptography.hazmat, h11, hypercorn, psycopg, psycopg_binary, starlette, trio
import mtlskit.sandbox.api.server
from mtlskit.sandbox import postgres, software, space

# A root that runs the tests becomes somebody else only now: the modules may lie where that user cannot read, so those
# that would be imported when they are first needed are imported before.
for package in (anyio, cryptography.hazmat, h11, hypercorn, psycopg, psycopg_binary, starlette):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        with contextlib.suppress(ImportError):  # of what an optional package would bring
            importlib.import_module(module.name)
directory, root, version, uid, gid = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:])
postgres.find_software = lambda: software.Software(root, version)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)

async def main():
    async with trio.open_nursery() as nursery:
        running = await nursery.start(partial(start, space.SpaceOptions(directory)))
        parameters = {"sslmode": "verify-full", "channel_binding": "require", "sslrootcert": str(running.ca)}
        parameters |= {"sslcert": str(running.client.cert), "sslkey": str(running.client.key)}

        def ask():
            with psycopg.connect(running.url, **parameters) as connection:
                return connection.execute("select 6 * 7").fetchone()[0]

        answer = await trio.to_thread.run_sync(ask)
        print(os.getuid(), answer, running.postgres.process_id, flush=True)
        nursery.cancel_scope.cancel()

async def start(options, *, task_status):
    await space.run_space(options, task_status=task_status)

trio.run(main)
"""


def test_an_ordinary_user_runs_it_too(open_folder: Path) -> None:
    """Under root: in a process that becomes one. Else: as whoever we are."""
    found, user = find_software(), ordinary_user()
    directory, site = open_folder / "space", open_folder / "site-packages"
    directory.mkdir()
    site.mkdir()
    placed, uid, gid = found, os.getuid(), os.getgid()
    if user is not None:
        placed, uid, gid = place_software(found, NOBODY_HERE, site), user.uid, user.gid
        os.chown(directory, uid, gid)
    command = [sys.executable, "-c", AS_SOMEBODY, str(directory), str(placed.root), found.version, str(uid), str(gid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    who, answer, server = done.stdout.split()
    assert (int(who), answer) == (uid, "42")
    with pytest.raises(ProcessLookupError):
        os.kill(int(server), 0)
    assert (directory / MARKER).stat().st_uid == uid
    assert (mode(directory), mode(directory / "postgres")) == (0o700, 0o700)


def test_a_killed_space_is_taken_up_again(tmp_path: Path) -> None:
    code = (
        "import sys, trio, functools; from pathlib import Path; from mtlskit.sandbox.space import *\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        start = functools.partial(run_space, SpaceOptions(Path(sys.argv[1])))\n"
        "        space = await nursery.start(start)\n"
        "        print(space.postgres.process_id, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "sandbox.json").exists()
    options = SpaceOptions(tmp_path, keep_data=False)
    with running_space(options) as running, running.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    until(lambda: not Path(f"/proc/{server}").exists())
    assert not (tmp_path / "sandbox.json").exists()


def test_the_spaces_own_ca_signs_and_revokes_for_anybody(live: RunningSpace, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = AuthorityFolder.open(live.space.ca.parent)
    key = generate_key()
    signed = authority.sign(make_request(key, Wishes(subject_name("CN=theirs"))), Profile.CLIENT, now=now)
    identity = ClientIdentity(tmp_path / "theirs.crt", tmp_path / "theirs.key", int(signed.serial, 16))
    write_file(identity.cert, signed.cert_pem)
    write_file(identity.key, private_key_pem(key))
    with live.connect(identity) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    authority.revoke(signed.serial, now=now)
    with pytest.raises(psycopg.OperationalError, match="certificate revoked"):
        live.connect(identity)
