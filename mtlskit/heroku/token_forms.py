"""The token as it is sent, and as it is kept out of everything that is shown."""

from __future__ import annotations

import base64
import re
from enum import Enum
from typing import Final

from mtlskit.heroku.token import Token
from mtlskit.telemetry.logs import printable

__all__ = ["AuthForm", "clean"]

_MOST: Final = 300
"""Characters: a sentence of the API, not a page."""


class AuthForm(Enum):
    """How the token is put. Both are in use at Heroku's APIs."""

    BEARER = "Bearer"
    BASIC = "Basic"

    def header(self, token: Token) -> str:
        """The value of `Authorization`."""
        if self is AuthForm.BEARER:
            return f"Bearer {token.value}"
        return "Basic " + base64.b64encode(f":{token.value}".encode("ascii")).decode("ascii")

    @property
    def other(self) -> AuthForm:
        """The one that is left to try."""
        return AuthForm.BASIC if self is AuthForm.BEARER else AuthForm.BEARER


def clean(text: str, token: Token, *, most: int = _MOST) -> str:
    """`text` from outside for people: one line, no token, not long, no full stop."""
    for form in AuthForm:
        # In any case of letters: a host name that repeats it comes in small ones.
        text = re.sub(re.escape(form.header(token).partition(" ")[2]), "[token]", text, flags=re.IGNORECASE)
    line = printable(" ".join(text.split())).removesuffix(".")
    return line if len(line) <= most else f"{line[:most]}…"
