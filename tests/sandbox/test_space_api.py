"""The space obeys its API: what is allowed, revoked or rotated there counts at the gateway, with real connections."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mtlskit.config.values import TcpAddress
from mtlskit.errors import Code, ListenError, SandboxError
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.credentials import ClientIdentity
from mtlskit.sandbox.events import AddressRefused, PasswordChanged
from mtlskit.sandbox.folder import MARKER
from mtlskit.sandbox.space import SpaceOptions, run_space
from tests.support.space import RunningSpace, running_space, until

ELSEWHERE = "127.0.0.7"
FAST = 100_000.0
"""So fast that nothing takes time: what takes time is tested with the API."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """A space with a PostgreSQL of its own: one that may be given another password."""
    options = SpaceOptions(tmp_path_factory.mktemp("own") / "space", api=ApiOptions(speed_up=FAST), keep_data=False)
    with running_space(options) as running:
        yield running


def before(live: RunningSpace, directory: Path, **changes: object) -> SpaceOptions:
    """A space whose gateway stands before the other's PostgreSQL: quicker than another one."""
    return SpaceOptions(directory, live.space.direct_url, api=replace(ApiOptions(speed_up=FAST), **changes))  # type: ignore[arg-type]


def remove(running: RunningSpace, rule: str) -> None:
    running.call("DELETE", running.endpoint(f"/ip-rules/{rule}"), status=202)


def handed_out(running: RunningSpace, folder: Path) -> tuple[str, ClientIdentity]:
    """A certificate that the API makes, once it is ready."""
    made = running.call("POST", running.endpoint("/certificates"), {}, status=201)["id"]
    one = running.endpoint(f"/certificates/{made}")
    until(lambda: bool(running.call("GET", one, status=200)["status"] == "ready"))
    found = running.call("GET", one, status=200)
    identity = ClientIdentity(folder / "their.crt", folder / "their.key", 0)
    identity.cert.write_text(found["certificate_with_chain"])
    identity.key.touch(0o600)
    identity.key.write_text(found["private_key"])
    return made, identity


def test_this_machine_is_let_in_at_once_and_others_once_their_rule_is_authorized(own: RunningSpace) -> None:
    with own.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert own.is_silent_to(ELSEWHERE)
    rule = own.authorize(f"{ELSEWHERE}/32")
    assert own.select_from(ELSEWHERE) == 42
    assert own.is_silent_to("127.0.0.8")
    remove(own, rule)
    assert own.is_silent_to(ELSEWHERE)


def test_the_event_says_who_was_refused_and_why(own: RunningSpace) -> None:
    mark = own.events.mark
    own.is_silent_to("127.0.0.6")
    refused = own.events.wait_for(AddressRefused, since=mark)
    assert "127.0.0.6" in refused.reason
    assert "rule" in refused.reason


def test_a_rule_that_is_still_authorizing_lets_nobody_in(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path, speed_up=0.1)) as running:
        body = {"cidr": f"{ELSEWHERE}/32", "description": "of a test"}
        assert running.call("POST", running.endpoint("/ip-rules"), body, status=201)["status"] == "Authorizing"
        assert running.is_silent_to(ELSEWHERE)


def test_an_established_session_outlives_its_rule(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path)) as running, running.connect() as session:
        [rule] = running.call("GET", running.endpoint("/ip-rules"), status=200)
        remove(running, rule["id"])
        assert running.is_silent_to("127.0.0.1")
        assert session.execute("select 1").fetchone() == (1,)


def test_the_fault_reset_tells_a_stranger_at_once(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path, faults=("reset",))) as running:
        address = ("127.0.0.1", running.space.gateway_address.port)
        with pytest.raises(ConnectionResetError), socket.create_connection(address, 30, (ELSEWHERE, 0)) as client:
            client.recv(1)
        running.call("DELETE", "/sandbox/faults", status=200)
        assert running.is_silent_to(ELSEWHERE)


def test_a_move_changes_who_this_machine_is(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path)) as running:
        running.call("POST", "/sandbox/move", {"from": "127.0.0.1", "to": "127.0.0.77"}, status=200)
        assert running.is_silent_to("127.0.0.1")
        running.authorize("127.0.0.77/32")
        with running.connect() as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def test_a_deleted_certificate_is_refused(own: RunningSpace, tmp_path: Path) -> None:
    made, identity = handed_out(own, tmp_path)
    with own.connect(identity) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    own.call("DELETE", own.endpoint(f"/certificates/{made}"), status=202)
    with pytest.raises(psycopg.OperationalError, match="certificate revoked"):
        own.connect(identity)
    own.connect().close()


def rotate(running: RunningSpace, *, status: int) -> None:
    path = f"/postgres/v0/databases/{running.space.addon}/credentials/default/credentials_rotation"
    running.call("POST", path, status=status)


def test_a_rotated_password_stops_working_and_the_new_one_works(own: RunningSpace) -> None:
    old, mark = own.space.password, own.events.mark
    with own.connect() as session:
        rotate(own, status=200)
        assert session.execute("select 1").fetchone() == (1,)
    assert own.space.password != old
    for binding in ("disable", "require"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            own.connect(password=old, channel_binding=binding)
        own.connect(channel_binding=binding).close()
    with psycopg.connect(own.space.direct_url) as direct:
        assert direct.execute("select current_user").fetchone() == (own.space.user,)
    told = json.loads(own.space.file.read_text())["postgres"]
    assert (told["url"], told["direct_url"]) == (own.space.url, own.space.direct_url)
    assert own.space.url in own.space.env_file.read_text()
    assert old not in own.space.env_file.read_text() + own.space.file.read_text()
    changed = own.events.wait_for(PasswordChanged, since=mark)
    assert own.space.password not in changed.sentence()


def test_passwords_that_are_rotated_at_once(own: RunningSpace) -> None:
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(rotate, own, status=200) for _ in range(4)]:
            done.result()
    own.connect().close()
    assert own.space.url in own.space.env_file.read_text()


def test_the_api_tells_the_login_as_it_is(own: RunningSpace) -> None:
    rotate(own, status=200)
    told = own.call("GET", f"/postgres/v0/databases/{own.space.addon}/credentials/default", status=200)
    [login] = told["credentials"]
    with own.connect(
        user=login["user"], password=login["password"], host=told["host"], port=told["port"]
    ) as connection:
        assert connection.execute("select current_database()").fetchone() == (told["database"],)


async def test_a_stand_in_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mtlskit.sandbox.api.server", None)
    with pytest.raises(SandboxError) as caught:
        await run_space(SpaceOptions(tmp_path, keep_data=False))
    assert caught.value.code is Code.SANDBOX_EXTRA_MISSING
    assert "pip install" in caught.value.hint


def test_a_password_of_a_server_that_is_not_ours_stays(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path)) as running:
        rotate(running, status=422)
        running.connect().close()


def test_rules_and_certificates_outlive_the_space(live: RunningSpace, tmp_path: Path) -> None:
    directory = tmp_path / "space"
    with running_space(before(live, directory)) as running:
        running.authorize(f"{ELSEWHERE}/32")
        kept = handed_out(running, tmp_path)
        ended = running.call("POST", running.endpoint("/certificates"), {}, status=201)["id"]
        running.call("DELETE", running.endpoint(f"/certificates/{ended}"), status=202)
        rules = running.call("GET", running.endpoint("/ip-rules"), status=200)
    with running_space(before(live, directory)) as running:
        again = running.call("GET", running.endpoint("/ip-rules"), status=200)
        assert [rule["id"] for rule in again] == [rule["id"] for rule in rules]
        assert running.select_from(ELSEWHERE) == 42
        running.connect(kept[1]).close()
        listed = running.call("GET", running.endpoint("/certificates"), status=200)
        states = {each["id"]: each["status"] for each in listed}
        assert (states[kept[0]], states[ended]) == ("ready", "disabled")


def test_a_changed_password_outlives_the_space(tmp_path: Path) -> None:
    with running_space(SpaceOptions(tmp_path)) as running:
        rotate(running, status=200)
        password = running.space.password
    with running_space(SpaceOptions(tmp_path)) as running:
        assert running.space.password == password
        running.connect().close()
    # And one that the server had not been told when the sandbox was killed: it is told at the next start.
    marker = tmp_path / MARKER
    state = json.loads(marker.read_text())
    assert (state["password"], state["next_password"]) == (password, None)
    marker.write_text(json.dumps(state | {"next_password": "0123456789abcdef"}))
    with running_space(SpaceOptions(tmp_path, keep_data=False)) as running:
        assert running.space.password == "0123456789abcdef"
        running.connect().close()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            running.connect(password=password)
    state = json.loads(marker.read_text())
    assert (state["password"], state["next_password"]) == ("0123456789abcdef", None)


def test_two_spaces_do_not_know_of_each_other(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path / "a")) as one, running_space(before(live, tmp_path / "b")) as other:
        one.authorize(f"{ELSEWHERE}/32")
        assert one.select_from(ELSEWHERE) == 42
        assert other.is_silent_to(ELSEWHERE)
        assert one.space.api_url != other.space.api_url
        stranger = replace(one, space=replace(one.space, api_key=other.space.api_key))
        stranger.call("GET", one.endpoint(), status=401)


def test_more_add_ons_share_the_database(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path, addons=3)) as running:
        first = running.space.addon
        for name in (first, f"{first}-2", f"{first}-3"):
            told = running.call("GET", f"/postgres/v0/databases/{name}/credentials/default", status=200)
            assert told["credentials"][0]["password"] == running.space.password
        assert running.call("GET", f"/addons/{running.space.kafka_addon}", status=200)


async def test_a_taken_port_of_the_api_is_told_before_anything_is_made(live: RunningSpace, tmp_path: Path) -> None:
    with pytest.raises(ListenError) as caught:
        await run_space(SpaceOptions(tmp_path / "space", api=ApiOptions(listen=live.space.api_address)))
    assert caught.value.code is Code.LISTEN_PORT_IN_USE
    assert not (tmp_path / "space").exists()


def test_the_api_has_the_port_that_it_was_given(live: RunningSpace, tmp_path: Path) -> None:
    with running_space(before(live, tmp_path, listen=TcpAddress("127.0.0.5", 0))) as running:
        assert running.space.api_address.host == "127.0.0.5"
        running.call("GET", f"/addons/{running.space.addon}", status=200)
