"""`${NAME}` in the texts of a configuration, filled in from the environment.

Only values are filled in, never keys, and only once: what a variable holds is taken as it is. `$${` stands for a
literal `${`; every other `$` stands for itself, so that a password needs no escaping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mtlskit.config.origins import Origin, ValuePath, problem
from mtlskit.errors import Code, ConfigError

__all__ = ["interpolate_document", "interpolate_text"]

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

_DEPTH = 8
"""Tables within tables. The schema is four deep; deeper texts are refused with their keys, whatever they hold. Dotted
keys can nest far beyond what recursion can follow."""


def interpolate_document(
    document: Mapping[str, object], environ: Mapping[str, str], origin: Origin
) -> tuple[dict[str, object], list[ConfigError]]:
    """Fill in every text of `document`; returns the new document, and the problems found on the way."""
    problems: list[ConfigError] = []

    def walk(value: object, path: ValuePath) -> object:
        if isinstance(value, str):
            try:
                return interpolate_text(value, environ)
            except ConfigError as exc:
                problems.append(problem(origin, path, exc.sentence, exc.hint, code=exc.code))
                return value
        if len(path) >= _DEPTH:
            return value
        if isinstance(value, dict):
            return {key: walk(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner, (*path, number)) for number, inner in enumerate(value)]
        return value

    return {key: walk(value, (key,)) for key, value in document.items()}, problems


def interpolate_text(text: str, environ: Mapping[str, str]) -> str:
    """Fill in one text.

    Raises `ConfigError`: CONFIG_MISSING_VARIABLE for a variable that is not set or empty, CONFIG_BAD_VALUE for a `${`
    that names none.
    """

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name = match[1]
        if not match[0].endswith("}") or not _NAME.fullmatch(name):
            raise ConfigError(
                Code.CONFIG_BAD_VALUE,
                "after ${ comes the name of a variable and a closing brace",
                "write ${DATABASE_URL}; a literal ${ is written $${",
            )
        value = environ.get(name, "")
        if not value:
            state = "is empty" if name in environ else "is not set"
            raise ConfigError(
                Code.CONFIG_MISSING_VARIABLE,
                f"the environment variable {name} {state}",
                f"set it before the start: export {name}=…",
            )
        return value

    return _REFERENCE.sub(replace, text)
