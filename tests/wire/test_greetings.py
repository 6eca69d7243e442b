"""Strangers are known by their first bytes, and nothing that they say acts on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.wire.greetings import is_tls, recognised, shown


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", "an SSH server (SSH-2.0-OpenSSH_9.2p1)"),
        (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n", "an HTTP server (HTTP/1.1 400)"),
        (b"<!DOCTYPE HTML PUBLIC", "an HTTP server"),
        (b"220 mail.example ESMTP Postfix\r\n", "a mail server (SMTP)"),
        (b"220 (vsFTPd 3.0.3)\r\n", "an FTP server"),
        (b"+OK POP3 ready\r\n", "a mail server (POP3)"),
        (b"* OK [CAPABILITY IMAP4rev1] ready\r\n", "a mail server (IMAP)"),
        (b"-ERR unknown command\r\n", "a Redis server"),
        (b"-NOAUTH Authentication required.\r\n", "a Redis server"),
        (b"\x4a\0\0\0\x0a8.0.36\0\x0b\0\0\0", "a MySQL or MariaDB server (8.0.36)"),
        (b"\x45\0\0\0\xff\x6a\x04Host '10.0.0.1' is not allowed", "a MySQL or MariaDB server"),
        (b"\x45\0\0\0\xff\x15\x04#28000Access denied", None),  # no error that MySQL greets with
        (b"\x15\x03\x01\0\x02\x02\x46", "a server that speaks TLS from the first byte on"),
        (b"\x16", "a server that speaks TLS from the first byte on"),
        (b"S", None),
        (b"N", None),
        (b"", None),
        (b"hello", None),
        (b"SSH", None),
    ],
)
def test_known_and_unknown(answer: bytes, told: str | None) -> None:
    assert recognised(answer) == told


def test_tls_has_a_major_version_of_3() -> None:
    assert is_tls(b"\x16\x03\x03")
    assert not is_tls(b"\x16\x02\x00")
    assert not is_tls(b"S")
    assert not is_tls(b"")


@given(st.binary(max_size=300))
def test_rubbish_is_never_trusted(answer: bytes) -> None:
    for text in (recognised(answer) or "", shown(answer)):
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 100
