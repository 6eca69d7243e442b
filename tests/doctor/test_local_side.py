"""The local side: proxies that say odd things, servers that say worse, and folders that are not ours."""

from __future__ import annotations

import dataclasses
import random
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mtlskit import __version__
from mtlskit.config.values import ListenAddress, TcpAddress, TunnelKind, UnixAddress
from mtlskit.doctor.case import Case, Identified, Means
from mtlskit.doctor.checks.local import look_at_local_side
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import from_file
from mtlskit.doctor.local.knocking import is_http, knock, where
from mtlskit.doctor.local.outdated import about_file, differences
from mtlskit.doctor.local.proxies import Found, Served
from mtlskit.doctor.local.proxy import about_proxy, is_stopped
from mtlskit.errors import Code
from mtlskit.pki.authority import Authority
from mtlskit.pki.certificates import fingerprint_sha256
from mtlskit.pki.identity import CheckedPair
from mtlskit.wire.postgres.messages import authentication_ok, error_response, frame
from tests.support.bad_servers import Behaviour, closes, says, says_nothing, serving
from tests.support.fake_controls import dead_socket, fake_proxy, status_facts, tunnel_facts

FILE = """\
[tunnel.reporting]
kind = "{kind}"
listen = "{listen}"
upstream = "db.example.com:5432"
cert = "client.crt"
key = "client.key"
"""


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """A folder of control sockets."""
    folder = tmp_path / "control"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def open_control(control: Path) -> Path:
    """One that everybody can put sockets in."""
    control.chmod(0o777)
    return control


@pytest.fixture(scope="module")
def pair() -> CheckedPair:
    issued = Authority.create("a CA", now=datetime.now(UTC)).issue_client("app", now=datetime.now(UTC))
    return CheckedPair((issued.certificate,), None)  # type: ignore[arg-type]


def case_of(
    folder: Path,
    *,
    listen: str = "127.0.0.1:0",
    kind: str = "postgres",
    step: float = 5,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> Case:
    path = folder / "mtlskit.toml"
    path.write_text(FILE.format(listen=listen, kind=kind))
    means = Means(environ={"MTLSKIT_CONTROL": str(folder / "control"), **environ}, step=step)
    (case,) = from_file(path, [], means).cases
    return case


async def look(case: Case, identified: Identified | None = None) -> dict[str, Finding]:
    found = await look_at_local_side(case, identified or Identified())
    assert all(each.seen.isprintable() for each in found)
    return {each.check: each for each in found}


def served_at(address: tuple[str, int], **changes: Any) -> dict[str, Any]:
    return tunnel_facts(addresses=[{"host": address[0], "port": address[1]}], **changes)


def loaded(case: Case, fingerprint: str, **more: str) -> dict[str, str]:
    """An identity of the files that the case names."""
    return {"cert": str(case.tunnel.identity.cert), "fingerprint_sha256": fingerprint, **more}


@contextmanager
def a_door(answer: bytes) -> Iterator[tuple[str, int]]:
    """A proxy's Postgres door: it refuses TLS, and then says this to a StartupMessage."""

    def behave(connection: socket.socket) -> None:
        if not connection.recv(8, socket.MSG_WAITALL):
            return  # somebody who looks whether anybody is there
        connection.sendall(b"N")
        assert connection.recv(65536)
        connection.sendall(answer)
        says_nothing(connection)

    with serving(behave) as address:
        yield address


# The proxy that serves it.


async def test_all_is_well(tmp_path: Path, control: Path, pair: CheckedPair) -> None:
    case = case_of(tmp_path)
    with a_door(authentication_ok()) as address:
        tunnel = served_at(address, identity={"fingerprint_sha256": fingerprint_sha256(pair.leaf).hex()})
        status = status_facts(17, tunnel, config=str(case.config.source), version=__version__)
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case, Identified(pair=pair))
    assert {each.verdict for each in found.values()} == {Verdict.PASS}
    assert found["local.client"].seconds is not None


async def test_what_differs_is_warned_of(tmp_path: Path, control: Path, pair: CheckedPair) -> None:
    case = case_of(tmp_path)
    with a_door(authentication_ok()) as address:
        tunnel = served_at(address, identity=loaded(case, "00" * 32))
        status = status_facts(17, tunnel, config=str(case.config.source), version="0.0.9")
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case, Identified(pair=pair))
    warned = {each.code for each in found.values() if each.verdict is Verdict.WARN}
    assert warned == {Code.LOCAL_OTHER_VERSION, Code.LOCAL_OLD_IDENTITY}
    assert found["local.identity"].commands == (f"mtlskit reload --config {case.config.source}",)


async def test_an_old_identity_that_has_ended_stops_clients(tmp_path: Path, control: Path, pair: CheckedPair) -> None:
    case = case_of(tmp_path)
    ended = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")
    with a_door(authentication_ok()) as address:
        tunnel = served_at(address, identity=loaded(case, "00" * 32, not_after=ended))
        status = status_facts(17, tunnel, config=str(case.config.source), version=__version__)
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case, Identified(pair=pair))
    assert (found["local.identity"].code, found["local.identity"].verdict) == (Code.LOCAL_OLD_IDENTITY, Verdict.FAIL)


async def test_a_failed_tunnel_repeats_its_reason(tmp_path: Path, control: Path) -> None:
    case = case_of(tmp_path)
    error = {"code": "MTLS-ID-001", "reason": "client.crt: there is no such file", "hint": "put it there"}
    status = status_facts(17, tunnel_facts(state="failed", addresses=[], error=error), config=str(case.config.source))
    with fake_proxy(control, 17, {"status": status}):
        found = await look(case)
    failed = found["local.tunnel"]
    assert (failed.code, failed.hint) == (Code.LOCAL_TUNNEL_FAILED, "put it there")
    assert failed.seen.endswith("client.crt: there is no such file")
    assert failed.facts["code_of_tunnel"] == "MTLS-ID-001"
    assert found["local.client"].because == "local.tunnel"


async def test_a_proxy_that_stops(tmp_path: Path, control: Path) -> None:
    case = case_of(tmp_path)
    with a_door(authentication_ok()) as address:
        status = status_facts(17, served_at(address), config=str(case.config.source), draining=True)
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case)
    assert found["local.proxy"].code is Code.CTL_STOPPING


@pytest.mark.parametrize("config", [None, "/elsewhere/other.toml"])
async def test_another_file_that_leads_to_the_same_place_will_do(
    tmp_path: Path, control: Path, config: str | None
) -> None:
    with a_door(authentication_ok()) as address:
        case = case_of(tmp_path, listen=f"127.0.0.1:{address[1]}")
        with fake_proxy(control, 17, {"status": status_facts(17, served_at(address, name="mine"), config=config)}):
            found = await look(case)
    assert config is None or config in found["local.proxy"].seen
    assert found["local.client"].verdict is Verdict.PASS


async def test_history_is_told_and_blamed_for_nothing(tmp_path: Path, control: Path) -> None:
    case = case_of(tmp_path)
    last = {"code": "MTLS-NET-002", "reason": "db.example.com:5432 refused", "hint": "", "at": "2026-01-01T00:00:00"}
    with a_door(authentication_ok()) as address:
        status = status_facts(17, served_at(address, upstream_error=last), config=str(case.config.source))
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case)
    assert found["local.tunnel"].verdict is Verdict.PASS
    assert "db.example.com:5432 refused [MTLS-NET-002]" in found["local.tunnel"].seen


def test_brokers_without_a_listener(tmp_path: Path) -> None:
    case = case_of(tmp_path, kind="kafka")
    refused = {"code": "MTLS-KFK-011", "reason": "port 70000 is none", "hint": "name another first port"}
    gone = {"code": "MTLS-NET-002", "reason": "refused", "hint": "", "at": "2026-01-01T00:00:00"}
    brokers = [
        {"id": 1, "addresses": [{"host": "127.0.0.1", "port": 9093}], "upstream": "b1:9096", "error": gone},
        {"id": 2, "addresses": [], "upstream": None, "error": refused},
    ]
    tunnel = tunnel_facts(kind="kafka", brokers=brokers)
    findings = list(about_proxy(case, Identified(), Served(17, Path(), status_facts(17, tunnel), tunnel), None, ()))
    told = [each for each in findings if each.check == "local.brokers"]
    assert [(each.code, each.verdict) for each in told] == [
        (Code.KAFKA_NO_LISTENER, Verdict.FAIL),
        (None, Verdict.PASS),
    ]
    assert told[0].about == "broker 2"
    assert "127.0.0.1:9093 (last failure at 2026-01-01T00:00:00: refused [MTLS-NET-002])" in told[1].seen


RUBBISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("name", "kind", "state", "addresses", "upstream", "sessions", "identity", "error", "upstream_error", "brokers")


@given(st.dictionaries(st.sampled_from(KEYS), RUBBISH), st.dictionaries(st.text(max_size=8), RUBBISH))
def test_a_status_of_another_version_breaks_nothing(
    tmp_path_factory: pytest.TempPathFactory, pair: CheckedPair, tunnel: dict[str, Any], status: dict[str, Any]
) -> None:
    case = case_of(tmp_path_factory.getbasetemp(), kind="kafka")
    served = Served(17, Path(), status, tunnel_facts() | tunnel)
    assert isinstance(served.addresses, tuple)
    differing = differences(case, Identified(pair=pair), served)
    of_file = about_file(case, Found(Path()), served, differing, ())
    for finding in about_proxy(case, Identified(pair=pair), served, of_file, differing):
        assert finding.seen.isprintable()


@pytest.mark.parametrize("tunnels", [None, "x", 5, [None, [], "x", {"name": []}, {"addresses": 7}]])
async def test_a_status_whose_tunnels_are_none(tmp_path: Path, control: Path, tunnels: object) -> None:
    case = case_of(tmp_path)
    status = status_facts(17, config=str(case.config.source)) | {"tunnels": tunnels}
    with fake_proxy(control, 17, {"status": status}):
        found = await look(case)
    assert found["local.proxy"].code is Code.LOCAL_NOT_RUNNING


@pytest.mark.parametrize("answer", [b"rubbish\n", b"\xff" * 100 + b"\n", b'{"ok": false}\n', b""])
async def test_what_is_no_proxy_is_passed_over(tmp_path: Path, control: Path, answer: bytes) -> None:
    with fake_proxy(control, 17, {"status": answer}):
        found = await look(case_of(tmp_path))
    assert found["local.proxy"].code is Code.LOCAL_NOT_RUNNING


async def test_dead_sockets_are_nobody(tmp_path: Path, control: Path) -> None:
    dead_socket(control, 17)
    found = await look(case_of(tmp_path))
    assert found["local.proxy"].code is Code.LOCAL_NOT_RUNNING
    assert found["local.proxy"].commands == (f"mtlskit proxy --config {tmp_path}/mtlskit.toml",)


async def test_a_folder_that_others_can_write_to_is_not_believed(tmp_path: Path, open_control: Path) -> None:
    found = await look(case_of(tmp_path))
    assert (found["local.control"].code, found["local.control"].verdict) == (Code.CTL_FOLDER, Verdict.WARN)
    assert found["local.proxy"].code is Code.LOCAL_NOT_RUNNING


async def test_a_proxy_of_another_user_is_told_by_what_it_says(tmp_path: Path, control: Path) -> None:
    with a_door(authentication_ok()) as address:
        found = await look(case_of(tmp_path, listen=f"127.0.0.1:{address[1]}"))
    assert found["local.proxy"].verdict is Verdict.SKIPPED
    assert found["local.client"].verdict is Verdict.PASS


async def test_the_door_of_another_users_proxy_is_closed(tmp_path: Path, control: Path) -> None:
    refusal = error_response(sqlstate="28000", message="mtlskit: not you [MTLS-DOOR-002]", hint="add yourself")
    with a_door(refusal) as address:
        found = await look(case_of(tmp_path, listen=f"127.0.0.1:{address[1]}"))
    assert (found["local.client"].code, found["local.client"].hint) == (Code.LOCAL_DOOR_CLOSED, "add yourself")


# How a plain client fares.


async def test_what_the_proxy_says_of_its_upstream_keeps_its_code(tmp_path: Path, control: Path) -> None:
    case = case_of(tmp_path)
    told = error_response(sqlstate="08001", message="mtlskit: db:5432 refused [MTLS-NET-002]", hint="see that it runs")
    with a_door(told) as address:
        status = status_facts(17, served_at(address), config=str(case.config.source))
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case)
    client = found["local.client"]
    assert (client.code, client.hint) == (Code.TCP_REFUSED, "see that it runs")
    assert client.seen.endswith("db:5432 refused")


@pytest.mark.parametrize(
    "answer",
    [
        error_response(sqlstate="28P01", message="password authentication failed"),
        error_response(sqlstate="3D000", message="database does not exist"),
        frame(b"N", b"SNOTICE\0\0") * 3 + authentication_ok(),
        frame(b"v", struct.pack("!II", 0, 0)) + frame(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0"),
    ],
)
async def test_words_of_the_server_itself_prove_the_whole_way(answer: bytes) -> None:
    with a_door(answer) as (host, port):
        assert (await knock(TunnelKind.POSTGRES, TcpAddress(host, port), "ann", 30)).passed


def _random_bytes(connection: socket.socket) -> None:
    connection.sendall(random.Random(7).randbytes(100_000))  # noqa: S311 - rubbish, and the same each time
    says_nothing(connection)


def _notices_for_ever(connection: socket.socket) -> None:
    connection.sendall(b"N" + frame(b"N", b"\0") * 1000)
    says_nothing(connection)


def _leaves(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


HOSTILE: list[Behaviour] = [
    closes,
    _random_bytes,
    _notices_for_ever,
    says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    says(b"SSH-2.0-OpenSSH_9.6\r\n"),
    says(b"220 mail.example.com ESMTP\r\n"),
    says(b"S"),
    says(b"N" + b"E\x7f\xff\xff\xff"),
    says(b"E\0\0\0\x01"),
    says(b"N" + frame(b"Z", b"I")),
    says(b"\x15\x03\x01\x00\x02\x02\x46"),
]


@pytest.mark.parametrize("kind", [TunnelKind.POSTGRES, TunnelKind.KAFKA])
@pytest.mark.parametrize("behave", HOSTILE)
async def test_hostile_servers_are_not_let_through(kind: TunnelKind, behave: Behaviour) -> None:
    with serving(behave) as (host, port):
        outcome = await knock(kind, TcpAddress(host, port), "ann", 30 if kind is TunnelKind.POSTGRES else 0.5)
    assert not outcome.passed
    assert outcome.seen


async def test_silence_ends(autojump_clock: trio.testing.MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = TcpAddress(*server.getsockname())
        began = trio.current_time()
        assert "does not answer within 5 s" in (await knock(TunnelKind.POSTGRES, address, "ann", 5)).seen
        assert not await is_http(address, 5)
        assert trio.current_time() - began == 10


@pytest.mark.parametrize("code", ["MTLS-XYZ-999", "MTLS-DOOR-002"])
async def test_a_code_of_another_version_is_no_code(code: str) -> None:
    with a_door(error_response(sqlstate="28000", message=f"mtlskit: no [{code}]")) as (host, port):
        outcome = await knock(TunnelKind.POSTGRES, TcpAddress(host, port), "ann", 30)
    assert outcome.seen == "no"
    assert outcome.code == (code if code == "MTLS-DOOR-002" else None)


@pytest.mark.parametrize(
    ("kind", "behave", "code"), [("kafka", closes, Code.LOCAL_SILENT), ("kafka", says_nothing, Code.LOCAL_SILENT)]
)
async def test_a_kafka_door_that_closes_without_a_word(
    tmp_path: Path, control: Path, kind: str, behave: Behaviour, code: Code
) -> None:
    case = case_of(tmp_path, kind=kind, step=0.5)
    with serving(behave) as address:
        status = status_facts(17, served_at(address, kind=kind), config=str(case.config.source))
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case)
    assert found["local.client"].code is code


async def test_a_kafka_door_that_closes_because_of_the_upstream(tmp_path: Path, control: Path) -> None:
    case = case_of(tmp_path, kind="kafka")
    last = {"code": "MTLS-TLS-008", "reason": "refused", "hint": "", "at": datetime.now(UTC).isoformat()}
    with serving(closes) as address:
        tunnel = served_at(address, kind="kafka", upstream_error=last)
        with fake_proxy(control, 17, {"status": status_facts(17, tunnel, config=str(case.config.source))}):
            found = await look(case)
    assert found["local.client"].code is Code.TLS_CLIENT_CERTIFICATE_REFUSED


async def test_a_kafka_door_for_other_users(tmp_path: Path, control: Path) -> None:
    case = case_of(tmp_path, kind="kafka")
    case = dataclasses.replace(case, tunnel=dataclasses.replace(case.tunnel, allow_users=("54321",)))
    with serving(closes) as address:
        status = status_facts(17, served_at(address, kind="kafka"), config=str(case.config.source))
        with fake_proxy(control, 17, {"status": status}):
            found = await look(case)
    assert (found["local.client"].code, found["local.client"].verdict) == (Code.LOCAL_DOOR_CLOSED, Verdict.WARN)
    assert "admits 54321 only" in found["local.client"].seen
    command = f"sudo -u '#54321' mtlskit doctor --config {case.config.source} reporting"
    assert found["local.client"].commands == (command,)


@pytest.mark.parametrize(("behave", "stays"), [(says_nothing, True), (says(b"220 hello"), True), (_leaves, False)])
async def test_a_tcp_door_must_stay_open(behave: Behaviour, stays: bool) -> None:
    with serving(behave) as (host, port):
        outcome = await knock(TunnelKind.TCP, TcpAddress(host, port), "", 30)
    assert (outcome.passed, outcome.ended) == (stays, not stays)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (TcpAddress("0.0.0.0", 5), TcpAddress("127.0.0.1", 5)),
        (TcpAddress("::", 5), TcpAddress("::1", 5)),
        (TcpAddress("192.0.2.1", 5), TcpAddress("192.0.2.1", 5)),
        (UnixAddress(Path("/run/x")), UnixAddress(Path("/run/x"))),
    ],
)
def test_where_a_client_of_this_host_knocks(address: ListenAddress, expected: ListenAddress) -> None:
    assert where(address) == expected


@pytest.mark.parametrize("path", ["/nonexistent/.s.PGSQL.1", f"/tmp/{'x' * 200}"])  # noqa: S108 - not made
async def test_a_socket_that_cannot_be(path: str) -> None:
    outcome = await knock(TunnelKind.POSTGRES, UnixAddress(Path(path)), "ann", 30)
    assert not outcome.connected


# Clients that insist.


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"PGSSLMODE": "prefer", "PGCHANNELBINDING": "prefer"}, None),
        ({"PGSSLMODE": "disable"}, None),
        ({"PGSSLMODE": "verify-ca"}, "PGSSLMODE"),
        ({"PGSSLROOTCERT": "system"}, "PGSSLROOTCERT"),
        ({"PGSSLROOTCERT": "/etc/ca.crt"}, None),
        ({"PGGSSENCMODE": "require"}, "PGGSSENCMODE"),
        ({"PGREQUIRESSL": "1"}, "PGREQUIRESSL"),
        ({"PGREQUIRESSL": "1", "PGSSLMODE": "prefer"}, None),
    ],
)
async def test_variables_that_make_clients_insist(
    tmp_path: Path, control: Path, environ: dict[str, str], named: str | None
) -> None:
    found = (await look(case_of(tmp_path, environ=environ)))["local.environment"]
    assert found.code is (None if named is None else Code.LOCAL_CLIENT_INSISTS)
    assert found.commands == (() if named is None else (f"unset {named}",))


async def test_kafka_clients_read_no_variables_of_libpq(tmp_path: Path, control: Path) -> None:
    assert "local.environment" not in await look(case_of(tmp_path, kind="kafka", environ={"PGSSLMODE": "require"}))


@pytest.mark.parametrize(
    ("stat", "stopped"),
    [("17 (a) b) T 1", True), ("17 (x) S 1", False), ("17 (x) t 1", True), ("", False), ("17 (x)", False)],
)
def test_who_is_stopped(tmp_path: Path, stat: str, stopped: bool) -> None:
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "stat").write_text(stat)
    assert is_stopped(17, tmp_path) is stopped
    assert not is_stopped(18, tmp_path)
