"""Who asks: the form that the token is put in, and the second factor.

Heroku's tools use two forms of the same token, and which host takes which is not written down. So Bearer is tried
first; at a 401 the other, once; and the one that worked is remembered for the host. A code of the second factor that
was taken is tried again where the next one is asked for, and the person is asked only where it is not taken any more:
one command makes many requests. A 401 or 403 means that nothing was done, so any request may be made again after it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import trio

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.refusals import said_by
from mtlskit.heroku.token import Token
from mtlskit.heroku.token_forms import AuthForm
from mtlskit.heroku.transport import Answer, Transport

__all__ = ["Signer", "TwoFactor", "check_token"]

TwoFactor: TypeAlias = Callable[[], Awaitable[str | None]]
"""Asks a person for the code of their second factor. None: nobody is there to ask."""


def check_token(token: Token) -> None:
    """Raises `HerokuError` (API_TOKEN_REFUSED) for what could not be a header; the libraries' errors would quote it."""
    if not _fits_a_header(token.value):
        raise HerokuError(
            Code.API_TOKEN_REFUSED,
            f"the token from {token.source} is empty, or holds blanks or characters that no token has",
            "set it anew, as heroku auth:token prints it",
        )


def _fits_a_header(text: str) -> bool:
    return 0 < len(text) <= 4096 and text.isascii() and text.isprintable() and " " not in text


class Signer:
    """Sends requests of one API with the token's right form, and with a second factor where that is asked for."""

    def __init__(self, transport: Transport, token: Token, two_factor: TwoFactor | None) -> None:
        self._transport = transport
        self._form = AuthForm.BEARER
        self._token = token
        self._two_factor = two_factor
        self._asking = trio.Lock()
        self._asked_at = -1.0
        self._code: str | None = None

    async def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        """One request, answered. Raises as `Transport.send`; an answer of 401 or 403 is final."""
        began = trio.current_time()
        answer = await self._in_either_form(method, url, headers, content)
        if not _asks_for_a_code(answer):
            return answer
        known = self._code
        if known is not None:
            answer = await self._with_code(known, method, url, headers, content)
            if not _asks_for_a_code(answer):
                return answer
        code = await self._second_factor(began)
        if code is None or code == known:
            return answer
        return await self._with_code(code, method, url, headers, content)

    async def _with_code(
        self, code: str, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> Answer:
        answer = await self._in_either_form(method, url, {**headers, "Heroku-Two-Factor-Code": code}, content)
        if self._code == code and _asks_for_a_code(answer):
            self._code = None  # it was wrong, or its time is over
        return answer

    async def _in_either_form(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        form = self._form
        answer = await self._transport.send(method, url, form=form, headers=headers, content=content)
        if answer.status != 401:
            return answer
        again = await self._transport.send(method, url, form=form.other, headers=headers, content=content)
        if again.status == 401:
            return answer
        self._form = form.other
        return again

    async def _second_factor(self, began: float) -> str | None:
        """The code. Requests that were under way together share one question and its answer."""
        if self._two_factor is None:
            return None
        async with self._asking:
            if self._asked_at < began:
                code = (await self._two_factor() or "").strip()
                self._code = code if _fits_a_header(code) else None
                self._asked_at = trio.current_time()
            return self._code


def _asks_for_a_code(answer: Answer) -> bool:
    return answer.status == 403 and said_by(answer).id == "two_factor"
