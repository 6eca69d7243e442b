"""The older ways to answer for a password (PostgreSQL docs, protocol flow, "Start-up").

The proxy never uses them for itself: it passes on what clients answer. The doctor does as a client would.
"""

from __future__ import annotations

import hashlib

from mtlskit.wire.postgres.messages import frame

__all__ = ["clear_text_answer", "md5_answer"]


def clear_text_answer(password: str) -> bytes:
    """The PasswordMessage for AuthenticationCleartextPassword. Raises ValueError for a NUL."""
    return _password_message(password.encode("utf-8", "surrogateescape"))


def md5_answer(user: str, password: str, salt: bytes) -> bytes:
    """The PasswordMessage for AuthenticationMD5Password: md5(md5(password + user) + salt), in hexadecimal."""
    stored = _md5(password.encode("utf-8", "surrogateescape") + user.encode("utf-8", "surrogateescape"))
    return _password_message(b"md5" + _md5(stored + salt))


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode("ascii")


def _password_message(text: bytes) -> bytes:
    if b"\0" in text:
        raise ValueError("a password cannot hold a NUL")
    return frame(b"p", text + b"\0")
