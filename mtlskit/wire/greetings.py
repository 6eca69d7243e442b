"""Who is it that answered, if it is not who we came for? Services are known by the first bytes that they send.

A wrong port is a common mistake, and an answer shown as bytes helps nobody. What cannot be named is shown as
Python writes bytes all the same: nothing in it can act on a terminal.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LONGEST_GREETING", "TLS_ALERT", "TLS_HANDSHAKE", "is_tls", "recognised", "shown"]

LONGEST_GREETING: Final = 256
"""Bytes that are looked at: an SSH identification has at most 255 (RFC 4253 section 4.2), the others less."""

TLS_ALERT: Final = 0x15
TLS_HANDSHAKE: Final = 0x16
"""The content types of the records that can come first (RFC 8446 section 5.1)."""

_SHOWN: Final = 20
"""Bytes shown of an answer that has no name: enough to know it again, too few to tell a story with."""

_SSH = re.compile(rb"SSH-[0-9.]+-[\x21-\x7e]{0,60}")
_HTTP = re.compile(rb"HTTP/[0-9.]+ [0-9]{3}")
_REDIS = re.compile(rb"-(ERR|NOAUTH|DENIED|WRONGPASS)\b|\+PONG\b")
_FTP = re.compile(rb"220[ -][^\r\n]*FTP", re.IGNORECASE)
_SMTP = re.compile(rb"(220|421|554)[ -]")
_POP3 = re.compile(rb"\+OK ")
_IMAP = re.compile(rb"\* (OK|PREAUTH|BYE) ")
_HTML = re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE)
_MYSQL_VERSION = re.compile(rb"[\x21-\x7e]{1,60}\0")


def recognised(answer: bytes) -> str | None:
    """What the answer's sender is, to follow "it is", such as "an SSH server (SSH-2.0-OpenSSH_9.2)"; None: unknown."""
    if found := _SSH.match(answer):
        return f"an SSH server ({found[0].decode('ascii')})"
    if found := _HTTP.match(answer):
        return f"an HTTP server ({found[0].decode('ascii')})"
    if mysql := _mysql(answer):
        return mysql
    if is_tls(answer):
        return "a server that speaks TLS from the first byte on"
    for pattern, name in (
        (_FTP, "an FTP server"),
        (_SMTP, "a mail server (SMTP)"),
        (_POP3, "a mail server (POP3)"),
        (_IMAP, "a mail server (IMAP)"),
        (_REDIS, "a Redis server"),
        (_HTML, "an HTTP server"),
    ):
        if pattern.match(answer):
            return name
    return None


def is_tls(answer: bytes) -> bool:
    """A TLS record of a handshake or an alert; of SSL 3.0 to TLS 1.3, which all have major version 3. One byte will
    do: it may be all that has come yet."""
    return answer[:1] in (b"\x15", b"\x16") and answer[1:2] in (b"", b"\x03")


def shown(answer: bytes) -> str:
    """The beginning of it, as Python writes bytes, without the b."""
    return repr(answer[:_SHOWN])[1:]


def _mysql(answer: bytes) -> str | None:
    """Three bytes of length, a sequence number of 0, and the protocol's version, 10, with the server's (MySQL,
    Protocol::HandshakeV10); or 0xff and an error, where a host may not connect at all (ERR_Packet)."""
    if len(answer) < 6 or answer[3] != 0 or answer[2] != 0:
        return None
    if answer[4] == 10 and (version := _MYSQL_VERSION.match(answer, 5)):
        return f"a MySQL or MariaDB server ({version[0][:-1].decode('ascii')})"
    if answer[4] == 0xFF and answer[5:7] in (b"\x6a\x04", b"\x69\x04", b"\x10\x04"):  # 1130, 1129, 1040
        return "a MySQL or MariaDB server"
    return None
