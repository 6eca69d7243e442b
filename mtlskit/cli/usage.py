"""Wrong usage in the house's own words: a sentence, a hint and a code, as for every other error.

typer finds most slips itself and words them by the version of click or pydantic below it, after three lines of usage.
Here its exceptions are told apart by what they carry, and become a `ConfigError`. Recent versions of typer bring their
own copy of click and older ones use the real one, so neither is imported: the base of the exceptions is reached through
typer's public `BadParameter`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mtlskit.cli.render import INTERRUPTED, fail, flushed
from mtlskit.errors import Code, ConfigError

__all__ = ["Command", "Group", "Root", "harmless", "password_warning", "typed", "usage_error", "whole_number"]

_USAGE_ERROR: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "UsageError" and issubclass(base, Exception)
)


class Command(TyperCommand):
    """A command that refuses an option given twice, where only the last one would have counted."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        repeated = _repeated(self.params, args)
        if repeated is not None:
            raise ConfigError(Code.USAGE, f"{repeated} is given more than once", "give it once: it takes one value")
        try:
            return super().parse_args(ctx, args)
        except _USAGE_ERROR as exc:
            if getattr(exc, "ctx", None) is None:
                exc.ctx = ctx  # type: ignore[attr-defined]  # click's own attribute, which its parser does not know
            raise


class Group(TyperGroup):
    """A command that has commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if " ".join(args[:2]) in self.commands:  # a command of two words beside one of its first: `doctor explain`
            args = [" ".join(args[:2]), *args[2:]]
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, self.commands, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            hint = f"the commands are {', '.join(self.commands)}; see {ctx.command_path} --help"
            raise ConfigError(Code.USAGE, f"{harmless(name)}: there is no such command{meant}", hint)
        return super().resolve_command(ctx, args)


class Root(Group):
    """The root command: here, and nowhere else, wrong usage becomes a message and status 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        try:
            status = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except ConfigError as exc:
            fail(exc, as_json=_json_wanted(sys.argv[1:] if args is None else args))
            status = exc.exit_status
        except typer.Abort:
            status = INTERRUPTED
        except _USAGE_ERROR as exc:
            if type(exc).__name__ == "NoArgsIsHelpError":
                typer.echo(str(exc), err=True)
            else:
                fail(usage_error(exc), as_json=_json_wanted(sys.argv[1:] if args is None else args))
            status = ConfigError.exit_status
        # A command's own result (None) is no status; typer.Exit comes back as its number.
        sys.exit(flushed(status if isinstance(status, int) else 0))


def usage_error(exc: Exception) -> ConfigError:
    """typer's usage error `exc` as one of ours."""
    context = getattr(exc, "ctx", None)
    command = context.command_path if context is not None else "mtlskit"
    see = f"see {command} --help"
    parameter = getattr(exc, "param", None)
    option = getattr(exc, "option_name", None)
    match type(exc).__name__:
        case "NoSuchOption" if option is not None:
            return ConfigError(Code.USAGE, f"{option}: there is no such option{_meant(option, context)}", see)
        case "MissingParameter" if parameter is not None:
            return ConfigError(Code.USAGE, f"{_name(parameter)} is missing", f"add {_spelled(parameter)}")
        case "BadOptionUsage" if (parameter := _option(option, context)) is not None:
            if getattr(parameter, "is_flag", False):
                return ConfigError(Code.USAGE, f"{option} takes no value", f"write {option} alone")
            return ConfigError(Code.USAGE, f"{option} lacks its value", f"write {_spelled(parameter)}")
    message = harmless(str(getattr(exc, "message", "") or exc).strip().rstrip("."))
    about = f"{_name(parameter)}: " if parameter is not None else ""
    return ConfigError(Code.USAGE, about + message[:1].lower() + message[1:], see)


def whole_number(flag: str, text: str) -> int:
    """The number that `text` writes. Raises `ConfigError` (USAGE), which names `flag`.

    typer could convert it, and would word the complaint by the library below it.
    """
    digits = text.strip()
    # isascii: int() also takes digits of other scripts; the length keeps it from its own limit of 4,300.
    if digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= 18:
        return int(digits)
    raise ConfigError(Code.USAGE, f"{flag} {harmless(text)}: must be a whole number", f"write it in digits: {flag} 10")


def typed(context: Any, name: str) -> bool:
    """Whether the parameter `name` stood on the command line, and not in its variable."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def password_warning(flag: str, variable: str) -> str:
    """What to say about a password in the value of `flag`."""
    return (
        f"{flag} holds a password, which other users of this host can read in the process list;"
        f" hand the URL over in {variable}"
    )


def harmless(text: str) -> str:
    """What was given, shortened; an ellipsis for what may hold a password, such as a URL in the wrong place."""
    from mtlskit.config.origins import shown  # here, because help does not need it

    return text[:100] if shown(text) else "…"


def _repeated(parameters: Iterable[Any], args: Sequence[str]) -> str | None:
    """The first option with one value that `args` give twice."""
    single = {
        name: parameter
        for parameter in parameters
        if not getattr(parameter, "is_flag", False) and not getattr(parameter, "multiple", False)
        for name in parameter.opts
        if name.startswith("-")
    }
    valued = single | {
        name: parameter for parameter in parameters if getattr(parameter, "multiple", False) for name in parameter.opts
    }
    seen: Counter[str] = Counter()
    words = iter(args)
    for word in words:
        if word == "--":
            break
        name, equals, _ = word.partition("=")
        if not word.startswith("--") and len(word) > 2:
            name, equals = word[:2], "="  # -cFILE
        if name in valued and not equals:
            next(words, None)
        if name in single:
            parameter = single[name]
            seen[parameter.name] += 1
            if seen[parameter.name] > 1:
                return _name(parameter)
    return None


def _json_wanted(args: Sequence[str]) -> bool:
    """Whether JSON is wanted, for an error that arises before the options have been read."""
    if "--json" in args:
        return True
    pairs = zip(args, [*args[1:], ""], strict=True)
    given = [value for word, value in pairs if word == "--log"]
    given += [word.removeprefix("--log=") for word in args if word.startswith("--log=")]
    return (given or [os.environ.get("MTLSKIT_LOG", "")])[-1] == "json"


def _option(name: str | None, context: Any) -> Any:
    if name is None or context is None:
        return None
    return next((each for each in context.command.params if name in each.opts), None)


def _meant(option: str, context: Any) -> str:
    known = [name for each in context.command.params for name in each.opts] if context is not None else []
    near = get_close_matches(option, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _name(parameter: Any) -> str:
    """`--dir`, or the metavar of an argument."""
    options = [name for name in parameter.opts if name.startswith("--")]
    return str(options[0] if options else parameter.metavar or parameter.name)


def _spelled(parameter: Any) -> str:
    """`--dir DIR, or set MTLSKIT_SANDBOX_DIR`; an argument is only its metavar."""
    variable = f", or set {parameter.envvar}" if isinstance(parameter.envvar, str) else ""
    name, value = _name(parameter), str(parameter.metavar or "VALUE")
    return f"{name}{variable}" if name == value else f"{name} {value}{variable}"
