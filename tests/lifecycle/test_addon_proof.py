"""The proof where Heroku tells the upstream: it is asked first, and who cannot be asked proves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mtlskit.config.values import Endpoint, IdentityConfig, TcpAddress, TunnelConfig, TunnelKind
from mtlskit.errors import Code, HerokuError
from mtlskit.lifecycle.rotate import rotate
from mtlskit.lifecycle.target import Outcome, Result, Wanted
from tests.services.pki import Pki
from tests.services.settings import ServerOptions
from tests.support.proxy_process import MakePostgres
from tests.support.rotating import World
from tests.support.tls_servers import closed_port

ADDON = "postgresql-curved-12345"


@pytest.fixture
def world(pki: Pki, tmp_path: Path) -> World:
    world = World.make(tmp_path)
    identity = IdentityConfig("reporting", pki.client.cert, pki.client.key, pki.server_ca)
    listen = TcpAddress("127.0.0.1", 0)
    world.tunnels = (TunnelConfig("sales", TunnelKind.POSTGRES, listen, (), identity, addon=ADDON),)
    return world


async def rotated(world: World, answer: Endpoint | HerokuError | None) -> Outcome:
    async def endpoints(tunnel: TunnelConfig) -> tuple[Endpoint, ...]:
        assert tunnel.addon == ADDON
        if isinstance(answer, HerokuError):
            raise answer
        assert answer is not None
        return (answer,)

    tools = world.tools() if answer is None else replace(world.tools(), endpoints=endpoints)
    return await rotate(world.target, tools, Wanted("asked for"))


async def test_it_is_proved_where_heroku_says(make_postgres: MakePostgres, world: World) -> None:
    (world.folder / "our-ca.crt").write_bytes(world.authority.cert_pem)
    friend = make_postgres(ServerOptions(client_ca=world.folder / "our-ca.crt"))
    with closed_port() as nobody:
        outcome = await rotated(world, Endpoint("localhost", nobody))
    assert (outcome.result, "refused the connection" in outcome.told) == (Result.FAILED, True)
    assert (await rotated(world, Endpoint("localhost", friend.port))).result is Result.ROTATED


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (HerokuError(Code.API_UNREACHABLE, "api.data.heroku.com cannot be reached"), Code.API_UNREACHABLE),
        (None, Code.PROOF_FAILED),
    ],
)
async def test_who_cannot_be_asked_proves_nothing(world: World, answer: HerokuError | None, code: Code) -> None:
    outcome = await rotated(world, answer)
    assert (outcome.result, outcome.step) == (Result.FAILED, "prove")
    assert outcome.error is not None
    assert outcome.error.code is code
    assert (await rotated(world, answer)).result is Result.FAILED  # and it is taken up there, not begun anew
