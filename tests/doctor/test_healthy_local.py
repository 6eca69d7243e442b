"""Nothing is wrong, and the doctor says so: a proxy that runs, an add-on that is well, a door that is open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mtlskit.config.values import HerokuConfig
from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Layer, Verdict
from mtlskit.doctor.gather import Gathered, diagnose, from_file, heroku_door
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.space import SpaceOptions
from tests.doctor.catalogue.base import told_of
from tests.doctor.catalogue.heroku import FAST, handed_out
from tests.services.places import scratch_folder
from tests.services.postgres import PostgresServer
from tests.support.proxy_process import ProxyProcess, tunnel_toml
from tests.support.space import RunningSpace, running_space


@pytest.fixture(scope="module")
def own_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """A space with everything, in a hurry."""
    options = SpaceOptions(tmp_path_factory.mktemp("space") / "space", api=ApiOptions(speed_up=FAST), keep_data=False)
    with running_space(options) as running:
        yield running


def environment(live: RunningSpace) -> dict[str, str]:
    """What leads to the space's APIs, and to the control sockets of these tests."""
    wanted = {name: value for name, value in live.space.environment().items() if name.startswith(("HEROKU", "MTLSKIT"))}
    return wanted | {"XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}


def toml_of(live: RunningSpace, *, kind: str, addon: str, login: str, cert: Path, key: Path, verify: str) -> str:
    return (
        f'[tunnel.app]\nkind = "{kind}"\nlisten = "127.0.0.1:0"\nupstream = "heroku:{addon}"\n'
        f'cert = "{cert}"\nkey = "{key}"\nca = "{live.space.ca}"\nverify = "{verify}"\n{login}'
    )


def examined(gathered: Gathered, *layers: Layer) -> None:
    """Neither a failure nor a warning; and in these layers something was looked at."""
    report = trio.run(diagnose, gathered)
    (diagnosis,) = report.diagnoses
    told = told_of(diagnosis)
    troubled = [each for each in diagnosis.findings if each.verdict in (Verdict.FAIL, Verdict.WARN)]
    assert not troubled, told
    assert report.healthy, told
    passed = {each.layer for each in diagnosis.findings if each.verdict is Verdict.PASS}
    assert set(layers) <= passed, told
    for each in diagnosis.findings:
        assert each.layer not in layers or each.verdict is Verdict.PASS, told


@pytest.mark.parametrize(
    "login", ["", f'login = "heroku"\nallow_users = ["{os.getuid()}"]\n'], ids=["client", "heroku"]
)
def test_a_database_of_an_addon(own_space: RunningSpace, tmp_path: Path, login: str) -> None:
    environ, space, client = environment(own_space), own_space.space, handed_out(own_space, tmp_path)
    file = tmp_path / "mtlskit.toml"
    file.write_text(
        toml_of(
            own_space, kind="postgres", addon=space.addon, login=login, cert=client.cert, key=client.key, verify="full"
        )
    )
    means = Means(environ=environ, heroku=heroku_door(HerokuConfig(), environ))
    with ProxyProcess(["--config", str(file)], folder=tmp_path, environment=environ):
        examined(from_file(file, [], means), Layer.HEROKU, Layer.ALLOWLIST, Layer.LOCAL)


def test_a_proxy_with_a_unix_socket_and_no_addon(postgres: PostgresServer, tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
    with scratch_folder("mtlskit-doctor-", None) as folder:
        file = tmp_path / "mtlskit.toml"
        file.write_text(tunnel_toml(postgres, listen=f'"unix:{folder}/.s.PGSQL.6432"'))
        with ProxyProcess(["--config", str(file)], folder=tmp_path, environment=environ):
            examined(from_file(file, [], Means(environ=environ)), Layer.LOCAL)


def test_a_kafka_of_an_addon(own_space: RunningSpace, tmp_path: Path) -> None:
    environ, space = environment(own_space), own_space.space
    file = tmp_path / "mtlskit.toml"
    cert, key = space.kafka_pair
    addon = space.kafka_addon
    file.write_text(toml_of(own_space, kind="kafka", addon=addon, login="", cert=cert, key=key, verify="ca"))
    means = Means(environ=environ, heroku=heroku_door(HerokuConfig(), environ))
    with ProxyProcess(["--config", str(file)], folder=tmp_path, environment=environ):
        examined(from_file(file, [], means), Layer.HEROKU, Layer.ALLOWLIST, Layer.LOCAL)


def test_a_password_that_was_rotated_at_heroku(own_space: RunningSpace, tmp_path: Path) -> None:
    """The proxy logs in with what Heroku says by now, and so does the doctor."""
    environ, space, client = environment(own_space), own_space.space, handed_out(own_space, tmp_path)
    file = tmp_path / "mtlskit.toml"
    login = f'login = "heroku"\nallow_users = ["{os.getuid()}"]\n'
    file.write_text(
        toml_of(
            own_space, kind="postgres", addon=space.addon, login=login, cert=client.cert, key=client.key, verify="full"
        )
    )
    means = Means(environ=environ, heroku=heroku_door(HerokuConfig(), environ))
    with ProxyProcess(["--config", str(file)], folder=tmp_path, environment=environ):
        own_space.call(
            "POST", f"/postgres/v0/databases/{space.addon}/credentials/default/credentials_rotation", status=200
        )
        examined(from_file(file, [], means), Layer.HEROKU, Layer.ALLOWLIST, Layer.LOCAL)
