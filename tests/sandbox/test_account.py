"""The account of a space: what is left when a change of its password goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtlskit.config.values import TcpAddress
from mtlskit.errors import Code, SandboxError
from mtlskit.sandbox.account import Account, OwnAccount
from mtlskit.sandbox.folder import MARKER, open_folder
from mtlskit.sandbox.server_url import parse_server_url


async def test_a_server_that_cannot_be_told(tmp_path: Path) -> None:
    """The next start finishes what was begun; until then the old password is handed out."""
    with open_folder(tmp_path / "space") as folder:
        account = OwnAccount(folder, tmp_path, "ann", "db")
        old = account.password
        with pytest.raises(SandboxError) as caught:
            await account.change_password()
        assert caught.value.code is Code.SANDBOX_POSTGRES
        assert (account.password, account.passwords) == (old, {"ann": old})
        announced = folder.state.next_password
        assert announced not in (None, old)
        for secret in (old, str(announced)):
            assert secret not in f"{caught.value.sentence} {caught.value.hint} {folder.state!r}"
    with open_folder(tmp_path / "space") as folder:
        assert folder.password == announced
        folder.settle_password()
        assert (folder.state.password, folder.state.next_password) == (announced, None)
        assert json.loads((folder.path / MARKER).read_text())["password"] == announced


def test_a_server_of_the_users_own_without_a_password() -> None:
    url = "postgres://ann@127.0.0.1:5432/db"
    account = Account(parse_server_url(url), url)
    assert account.passwords == {}
    assert account.url(TcpAddress("127.0.0.1", 1)) == "postgres://ann@127.0.0.1:1/db"
