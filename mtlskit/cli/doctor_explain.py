"""`mtlskit doctor explain`: what a client's error text means here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlskit.cli.options import JsonOption
from mtlskit.cli.render import print_json, reported

if TYPE_CHECKING:
    from mtlskit.doctor.explain.known import Explanation

__all__ = ["EPILOG", "at_a_terminal", "explain"]

EPILOG = """\b
Examples:
  mtlskit doctor explain "SSL error: tlsv1 alert unknown ca"
  mtlskit doctor explain MTLS-TLS-003
  psql -h 127.0.0.1 -p 6432 app 2>&1 | mtlskit doctor explain -

The texts of libpq, JDBC, Kafka's clients, OpenSSL and other TLS libraries are known, and the codes of mtlskit's own
errors. The status is 1 for a text that is not known. Nobody is asked, and nothing is looked at: that does
`mtlskit doctor`."""


def explain(
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", show_default=False, help="The whole message, or - for standard input."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what an error text means, and what to do about it.

    TEXT is the whole message, or - for standard input; a pipe is read without it.
    """
    with reported(as_json=as_json):
        from mtlskit.cli.doctor_view import show_explanations
        from mtlskit.doctor.explain.recognise import explain as explanations_of
        from mtlskit.errors import Code, ConfigError

        if not text and at_a_terminal():
            raise ConfigError(
                Code.USAGE, "TEXT is missing", 'paste the message in quotes: mtlskit doctor explain "…"; or pipe it in'
            )
        found = explanations_of(" ".join(text) if text and text != ["-"] else _read())
        if as_json:
            print_json({"schema": 1, "explanations": [_facts(each) for each in found]})
        else:
            show_explanations(found)


def at_a_terminal() -> bool:
    """Whether somebody sits there, and nothing is piped in."""
    return sys.stdin.isatty()


def _read() -> str:
    """The end of standard input, where errors stand; not more of it at once than is looked at."""
    from mtlskit.doctor.explain.recognise import MOST_TEXT

    kept = b""
    while chunk := sys.stdin.buffer.read(MOST_TEXT):
        kept = (kept + chunk)[-MOST_TEXT:]
    return kept.decode("utf-8", "replace")


def _facts(explanation: Explanation) -> dict[str, Any]:
    from mtlskit.doctor.explain.pages import place

    return {
        "code": explanation.code.value,
        "says": explanation.says,
        "meaning": explanation.meaning,
        "hint": explanation.hint,
        "commands": list(explanation.commands),
        "section": place(explanation.code),
    }
