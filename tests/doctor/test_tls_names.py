"""For which names a certificate stands: OpenSSL has the last word, and ours must be the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlskit.doctor.tls.names import server_names
from tests.doctor.catalogue.tls_papers import server, written
from tests.support.openssl import openssl


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (("db.example.com",), "db.example.com"),
        (("db.example.com",), "DB.Example.COM"),
        (("db.example.com",), "example.com"),
        (("*.example.com",), "db.example.com"),
        (("*.example.com",), "a.db.example.com"),
        (("*.example.com",), "example.com"),
        (("127.0.0.1",), "127.0.0.1"),
        (("127.0.0.1",), "127.0.0.2"),
        (("::1",), "0:0:0:0:0:0:0:1"),
        (("db.example.com",), "localhost"),
        ((), "localhost"),
        ((), "other"),
    ],
)
def test_as_openssl_says(names: tuple[str, ...], asked: str, tmp_path: Path) -> None:
    made = server(None, names=names)
    pair = written(tmp_path, "server", made)
    check = "-checkip" if asked[0].isdigit() else "-checkhost"
    said = openssl("x509", "-in", pair.cert, "-noout", check, asked)
    assert server_names(made.certificate).stand_for(asked) is (b"does match" in said)


def test_only_a_common_name() -> None:
    assert server_names(server(None, names=()).certificate).only_common
    assert not server_names(server(None).certificate).only_common
