"""An answer that is no success, as an error: what the API said, the id that its support asks for, and what to do.

The API's own message is the best that can be told, so it is told: shortened, printable, and with the token taken out,
should a server ever repeat it. A body that is not the API's JSON is never quoted: whatever wrote it did not mean it for
us, and where an intermediary garbles an answer it may hold a key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import httpx

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.token import VARIABLE, Token
from mtlskit.heroku.token_forms import clean
from mtlskit.heroku.transport import Answer

__all__ = [
    "Said",
    "clean",
    "is_the_apis",
    "json_of",
    "kind_of_body",
    "refusal",
    "rubbish",
    "said_by",
    "told",
    "uncertain",
]

_STATUS_PAGE: Final = "https://status.heroku.com tells of troubles on Heroku's side; then run the same again"


@dataclass(frozen=True)
class Said:
    """`id` and `message` of an error answer; empty where it has none."""

    id: str = ""
    message: str = ""


NOT_JSON: Final = object()
"""What `json_of` returns for a body that is none: never a value of JSON."""


def json_of(body: bytes) -> Any:
    """The body as a value, or `NOT_JSON`.

    Python's own errors carry the whole text along, so they end here and nothing is chained to them.
    """
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        return NOT_JSON


def said_by(answer: Answer) -> Said:
    """What an error answer says."""
    value = json_of(answer.body)
    if not isinstance(value, dict):
        return Said()
    found = {key: value.get(key) for key in ("id", "message", "error")}
    message = found["message"] or found["error"]
    return Said(
        id=found["id"] if isinstance(found["id"], str) else "",
        message=message if isinstance(message, str) else "",
    )


def told(answer: Answer, token: Token) -> str:
    """`"Cidr is invalid" (422 invalid_params, request 1234)`, with whatever of it came."""
    said = said_by(answer)
    facts = " ".join(part for part in (str(answer.status), clean(said.id, token, most=60)) if part)
    request = f", request {answer.request_id}" if answer.request_id else ""
    message = f'"{clean(said.message, token)}"' if said.message else f"no message, {kind_of_body(answer)}"
    return f"{message} ({facts}{request})"


def is_the_apis(answer: Answer) -> bool:
    """Whether an error answer can be the API's own. Only then does its 404 mean that something is not there."""
    return not answer.body or isinstance(json_of(answer.body), dict)


def kind_of_body(answer: Answer) -> str:
    """What came instead of a JSON object, without any of it."""
    if not answer.body:
        return "an empty answer"
    return f"{len(answer.body)} bytes of {answer.content_type or 'no named type'}"


def refusal(answer: Answer, about: str, token: Token) -> HerokuError:
    """The error for an answer of 300 or more that is not repeated any more."""
    if answer.status in (404, 410) and not is_the_apis(answer):
        return rubbish(answer, about, "the API's own answer", token)
    code, words, hint = _meaning(answer, token)
    return HerokuError(
        code,
        f"{about}: {words}: {told(answer, token)}",
        hint,
        status=answer.status,
        request_id=answer.request_id,
    )


def _meaning(answer: Answer, token: Token) -> tuple[Code, str, str]:
    status = answer.status
    if status == 401:
        return (
            Code.API_TOKEN_REFUSED,
            f"the token from {token.source} is refused",
            "it has expired or was revoked: "
            + (
                "set HEROKU_API_KEY to another (heroku authorizations:create makes one that lasts), and restart what"
                " was started with the old one"
                if token.source == VARIABLE
                else "heroku login, or set HEROKU_API_KEY (heroku authorizations:create makes a token that lasts)"
            ),
        )
    if status == 403 and said_by(answer).id == "two_factor":
        return (
            Code.API_TWO_FACTOR,
            "a second factor is asked for",
            "run it on a terminal, where the code can be typed, or use a token that needs none: "
            "heroku authorizations:create",
        )
    if status == 403:
        return (
            Code.API_FORBIDDEN,
            f"the token from {token.source} may not do this",
            "ask an admin of the app's team for the permission, or use a token of somebody who has it: heroku whoami",
        )
    if status in (404, 410):
        return Code.API_NOT_FOUND, "not found", "look at its name: heroku addons --all"
    if status == 429:
        return Code.API_BUSY, "too many requests", "wait some minutes, then run the same again"
    if status >= 500 or status == 408:
        return Code.API_FAILED, "Heroku's API failed", _STATUS_PAGE
    if status < 400:
        return _redirected(answer, token)
    return Code.API_REFUSED, "Heroku says no", "change what the message names, then run the same again"


def _redirected(answer: Answer, token: Token) -> tuple[Code, str, str]:
    try:
        target = httpx.URL(answer.location)
        place = f"{target.scheme}://{target.host}" if target.host else "another path"
    except (httpx.InvalidURL, UnicodeError):  # UnicodeError: a host that looks like an IDN, and is none
        place = "somewhere else"
    return (
        Code.API_RUBBISH,
        f"it sends us to {clean(place, token, most=100)}, and a token is not taken along",
        "set HEROKU_HOST and HEROKU_DATA_HOST to the APIs themselves; a login page of this network may be in between",
    )


def rubbish(answer: Answer, about: str, expected: str, token: Token) -> HerokuError:
    """The error for a success whose content cannot be used. `expected` says what should have come, without values."""
    request = f", request {answer.request_id}" if answer.request_id else ""
    return HerokuError(
        Code.API_RUBBISH,
        f"{about}: expected {clean(expected, token)}; got {kind_of_body(answer)} (status {answer.status}{request})",
        "see that HEROKU_HOST and HEROKU_DATA_HOST name Heroku's APIs, and that no login page of this network answers",
        status=answer.status,
        request_id=answer.request_id,
    )


def uncertain(about: str, reason: str, *, status: int | None = None, request_id: str = "") -> HerokuError:
    """The error for a request that may have taken effect, and was not repeated for that reason."""
    return HerokuError(
        Code.API_UNCERTAIN,
        f"{about}: {reason}; whether it took effect is not known, so it was not repeated",
        "look whether it is there before you run the same again: mtlskit heroku status",
        status=status,
        request_id=request_id,
    )
