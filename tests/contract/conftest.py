"""Whom the contract tests ask: the sandbox's API, and with ``--live`` Heroku itself.

Heroku is asked about the add-on that `MTLSKIT_TEST_LIVE_ADDON` names, with the token in `MTLSKIT_TEST_LIVE_TOKEN`, and
about the Kafka add-on in `MTLSKIT_TEST_LIVE_KAFKA` if that is set. A test that takes `expendable` changes what nobody
would want changed (it takes the endpoint down), so it asks the sandbox only.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
import trio

from mtlskit.sandbox.api.options import ApiOptions
from tests.contract.remote import Remote
from tests.support.plain_http import NO_CAS
from tests.support.sandbox_api import ADDON, KAFKA, TOKEN, running_api

_TARGETS = ("remote", "cluster", "expendable")
_PAUSE = 20.0
"""Seconds between two looks at Heroku."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Without ``--live`` there is no live case."""
    live = metafunc.config.getoption("--live")
    for name in _TARGETS:
        if name in metafunc.fixturenames:
            wanted = live and (name == "remote" or (name == "cluster" and "MTLSKIT_TEST_LIVE_KAFKA" in os.environ))
            metafunc.parametrize(name, ["sandbox", *(["live"] if wanted else [])], indirect=True)


@pytest.fixture
async def remote(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Remote]:
    """Either of them."""
    async with AsyncExitStack() as stack:
        yield await _remote(request.param, stack, tmp_path_factory)


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Remote]:
    """One that has a Kafka add-on."""
    async with AsyncExitStack() as stack:
        yield await _remote(request.param, stack, tmp_path_factory)


@pytest.fixture
async def expendable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Remote]:
    """The sandbox."""
    async with AsyncExitStack() as stack:
        yield await _remote(request.param, stack, tmp_path_factory)


async def _remote(target: str, stack: AsyncExitStack, folders: pytest.TempPathFactory) -> Remote:
    if target == "live":
        return await _live(stack)
    api = await stack.enter_async_context(running_api(folders.mktemp("api"), options=ApiOptions(speed_up=1)))

    async def pass_time() -> None:
        api.clock.forward(_PAUSE)

    bare = await stack.enter_async_context(httpx.AsyncClient(base_url=api.url, trust_env=False, verify=NO_CAS))
    return Remote(api.client, api.client, bare, TOKEN, ADDON, KAFKA, "sandbox", pass_time)


async def _live(stack: AsyncExitStack) -> Remote:
    missing = [name for name in ("MTLSKIT_TEST_LIVE_ADDON", "MTLSKIT_TEST_LIVE_TOKEN") if not os.environ.get(name)]
    if missing:
        raise pytest.UsageError(f"--live needs {' and '.join(missing)}: see docs/explanation/testing.md")
    token, addon = os.environ["MTLSKIT_TEST_LIVE_TOKEN"], os.environ["MTLSKIT_TEST_LIVE_ADDON"]
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.heroku+json; version=3"}

    async def client(url: str, headers: dict[str, str]) -> httpx.AsyncClient:
        return await stack.enter_async_context(
            httpx.AsyncClient(base_url=url, headers=headers, timeout=60, follow_redirects=False)
        )

    data = os.environ.get("MTLSKIT_TEST_LIVE_DATA", "https://api.data.heroku.com")
    platform = await client(os.environ.get("MTLSKIT_TEST_LIVE_PLATFORM", "https://api.heroku.com"), headers)
    answer = await platform.get(f"/addons/{addon}")
    answer.raise_for_status()

    async def pass_time() -> None:
        await trio.sleep(_PAUSE)

    return Remote(
        await client(data, headers),
        platform,
        await client(data, {"Accept": headers["Accept"]}),
        token,
        addon,
        os.environ.get("MTLSKIT_TEST_LIVE_KAFKA", ""),
        answer.json()["app"]["name"],
        pass_time,
    )
