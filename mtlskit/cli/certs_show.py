"""`mtlskit certs show`: what is in a file of certificates, or in the files of an identity."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
  openssl s_client -connect db.example.com:443 -showcerts </dev/null |
    mtlskit certs show - --json

FILE is PEM in any order, PKCS #12 or DER. The exit status is 3 when a key does
not fit, or a certificate is outside its dates."""


def show(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="A file, an identity of the configuration, or - for standard input.",
        ),
    ],
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", show_default=False, help="A private key: does it fit?"),
    ] = None,
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
