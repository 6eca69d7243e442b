"""`mtlskit certs show`: what is in a file of certificates, in the files of an identity, or what a server presents."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlskit.cli.chosen import ConfigOption, identities_called, load
from mtlskit.cli.identities import files_of
from mtlskit.cli.options import JsonOption
from mtlskit.cli.passphrase import CommandOption, FileOption, PromptOption, VariableOption, read_passphrase
from mtlskit.cli.render import print_json, reported
from mtlskit.cli.usage import harmless

if TYPE_CHECKING:
    from datetime import datetime

    from mtlskit.config.values import ProxyConfig
    from mtlskit.pki.inspection import Inspection

__all__ = ["SHOW_EPILOG", "show"]

_NOT_GOOD = 3
"""The exit status when a key does not fit, or a certificate is outside its dates."""

SHOW_EPILOG = """\b
Examples:
  mtlskit certs show client.crt --key client.key
  mtlskit certs show reporting
  mtlskit certs show client.p12 --passphrase-prompt
  mtlskit certs show --connect db.example.com:5432 --ca root.crt
  mtlskit certs show --connect kafka.example.com:9096 --kind kafka --json

FILE is PEM in any order, PKCS #12 or DER. The exit status is 3 when a key does
not fit, a certificate is outside its dates, or a server is not to be trusted."""


def _far(flag: str, metavar: str, words: str) -> Any:
    """An option of --connect. No variable stands for it, as one that is set for tunnels would get in the way."""
    return typer.Option(flag, metavar=metavar, show_default=False, help=words)


def show(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="A file, an identity of the configuration, or - for standard input.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            show_default=False,
            help="A private key: does it fit? With --connect, that of --cert.",
        ),
    ] = None,
    connect: Annotated[
        str | None,
        typer.Option("--connect", metavar="HOST:PORT", show_default=False, help="Show what this server presents."),
    ] = None,
    kind: Annotated[
        str | None, _far("--kind", "KIND", "What it speaks: postgres, kafka or tcp. Default: postgres.")
    ] = None,
    negotiation: Annotated[
        str | None, _far("--negotiation", "HOW", "sslrequest, or direct for PostgreSQL 17 and later.")
    ] = None,
    server_name: Annotated[str | None, _far("--server-name", "NAME", "Ask for this name instead of HOST.")] = None,
    ca: Annotated[str | None, _far("--ca", "FILE", "Compare the server's chain with these CAs, PEM.")] = None,
    cert: Annotated[str | None, _far("--cert", "FILE", "Show the server this client certificate.")] = None,
    config: ConfigOption = None,
    passphrase_file: FileOption = None,
    passphrase_env: VariableOption = None,
    passphrase_command: CommandOption = None,
    passphrase_prompt: PromptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show certificates: names, uses, dates, fingerprints, the chain, and whether a key fits."""
    good = True
    with reported(as_json=as_json):
        from datetime import UTC, datetime

        from mtlskit.cli.certs_words import inspection_facts, tell_of
        from mtlskit.errors import Code, ConfigError

        if connect is not None:
            from mtlskit.cli.certs_connect import show_connected

            refuse_beside_connect(what, config)
            flags = {"kind": kind, "negotiation": negotiation, "ca": ca, "cert": cert, "key": key}
            good = show_connected(connect, flags, server_name, as_json=as_json)
            if not good:
                raise typer.Exit(_NOT_GOOD)
            return
        refuse_without_connect(kind, negotiation, server_name, ca, cert)
        if not what:
            raise ConfigError(Code.USAGE, "FILE is missing", "add FILE, or name a server with --connect HOST:PORT")
        if key is not None and len(what) > 1:
            raise ConfigError(Code.USAGE, "--key belongs to one file", "name one file, or leave --key out")
        passphrase = read_passphrase(passphrase_file, passphrase_env, passphrase_command, passphrase_prompt)
        reader = _Reader(config, key, passphrase, datetime.now(UTC))
        inspections = [reader.inspect(name) for name in what]
        good = all(inspection.good for inspection in inspections)
        if as_json:
            print_json({"good": good, "files": [inspection_facts(each) for each in inspections]})
        else:
            tell_of(inspections)
    if not good:
        raise typer.Exit(_NOT_GOOD)


def refuse_beside_connect(what: list[str] | None, config: Path | None) -> None:
    """A server is shown, or files. Raises ConfigError (USAGE)."""
    from mtlskit.errors import Code, ConfigError

    if what or config is not None:
        raise ConfigError(
            Code.USAGE, "--connect shows a server, and no files beside it", "leave FILE and --config out, or --connect"
        )


def refuse_without_connect(*given: object) -> None:
    """What belongs to a server. Raises ConfigError (USAGE)."""
    from mtlskit.errors import Code, ConfigError

    if any(each is not None for each in given):
        raise ConfigError(
            Code.USAGE,
            "--kind, --negotiation, --server-name, --ca and --cert belong to --connect",
            "name the server with --connect HOST:PORT, or leave them out",
        )


@dataclass
class _Reader:
    """Finds what was named and looks into it. The configuration is read when the first name is no file."""

    config: Path | None
    key: Path | None
    passphrase: bytes | None = field(repr=False)
    now: datetime
    _loaded: ProxyConfig | None = None

    def inspect(self, name: str) -> Inspection:
        from mtlskit.net.files import MAX_FILE, read_private, read_public
        from mtlskit.pki.inspection import inspect

        given = None if self.key is None else (str(self.key), read_private(self.key, "private key"))
        if name == "-":
            data = sys.stdin.buffer.read(MAX_FILE + 1)
            return inspect(data, source="standard input", now=self.now, passphrase=self.passphrase, key=given)
        if self._is_a_name(name):
            return self._inspect_identity(name, given)
        data = read_public(Path(name), "certificate file")
        return inspect(data, source=name, now=self.now, passphrase=self.passphrase, key=given)

    def _inspect_identity(self, name: str, given: tuple[str, bytes] | None) -> Inspection:
        from mtlskit.pki.inspection import inspect

        files = files_of(identities_called(self._configuration(name), [name])[0], passphrase=self.passphrase)
        key = given or (files.key_source, files.key)
        return inspect(files.cert, source=files.cert_source, now=self.now, passphrase=files.passphrase, key=key)

    def _is_a_name(self, text: str) -> bool:
        """A file goes before an identity of the same name; what is written as a path is never a name."""
        return not (os.path.lexists(text) or Path(text).name != text or Path(text).suffix)

    def _configuration(self, name: str) -> ProxyConfig:
        from mtlskit.errors import Code, ConfigError, IdentityError

        if self._loaded is None:
            try:
                self._loaded = load(self.config)
            except ConfigError as exc:
                if exc.code is not Code.CONFIG_NOT_FOUND or self.config is not None:
                    raise
                raise IdentityError(
                    Code.FILE_MISSING,
                    f"{harmless(name)}: there is no such file, and no configuration whose identity it could be",
                    "check the path, or name the configuration with --config FILE",
                ) from exc
        return self._loaded
