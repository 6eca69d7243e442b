"""Folders that PostgreSQL's user can reach too, and one sandbox for all pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.services.accounts import give, server_account
from tests.services.places import scratch_folder
from tests.support.command_process import CommandProcess, clean_environment
from tests.support.doc_stage import READY, read_sandbox
from tests.support.runners import Runner, runners


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder with a short path, ours, that others may pass through: root's PostgreSQL runs as another user."""
    with scratch_folder("mtlskit-docs-", server_account()) as folder:
        os.chown(folder, os.geteuid(), os.getegid())
        folder.chmod(0o711)
        yield folder


@pytest.fixture
def scratch() -> Iterator[Path]:
    """An empty folder; see `reachable_folder`."""
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(params=runners(), ids=lambda runner: runner.name)
def runner(request: pytest.FixtureRequest, scratch: Path) -> Runner:
    """Each user that can run mtlskit here in turn; `scratch` is that user's."""
    found: Runner = request.param
    give(scratch, found.account)
    return found


@pytest.fixture(scope="session")
def sandbox() -> Iterator[dict[str, Any]]:
    """A running `mtlskit sandbox`: the values of its sandbox.json."""
    with reachable_folder() as folder:
        argv = ["mtlskit", "sandbox", "--dir", "space"]
        with CommandProcess(argv, ready=READY, folder=folder, environment=clean_environment(folder)):
            yield read_sandbox(folder / "space")
