"""`mtlskit keys`: private keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtlskit.cli.options import JsonOption
from mtlskit.cli.passphrase import CommandOption, FileOption, PromptOption, VariableOption, read_passphrase
from mtlskit.cli.render import line, print_json, reported
from mtlskit.cli.usage import harmless

__all__ = ["NEW_EPILOG", "new"]

_KINDS = ("ec-p256", "ec-p384", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096")
"""`mtlskit.pki.KeyType`, written down again because help must not import cryptography; a test compares them."""

NEW_EPILOG = """\b
Examples:
  mtlskit keys new --out client.key
  mtlskit keys new --out client.key --type rsa-3072 --passphrase-command 'pass show client-key'

The file is PKCS #8 PEM, mode 0600, written whole or not at all. Without --force nothing is overwritten."""


def new(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", show_default=False, help="Where the key goes.")],
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            metavar="TYPE",
            autocompletion=lambda: list(_KINDS),
            show_default=False,
            help=f"{', '.join(_KINDS[:-1])} or {_KINDS[-1]}. Default: ec-p256.",
        ),
    ] = "ec-p256",
    passphrase_file: FileOption = None,
    passphrase_env: VariableOption = None,
    passphrase_command: CommandOption = None,
    passphrase_prompt: PromptOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a private key. It never leaves this host: the CA gets a request, made by `mtlskit csr new`."""
    with reported(as_json=as_json):
        from base64 import b64encode

        from mtlskit.errors import Code, ConfigError
        from mtlskit.pki.keys import KeyType, generate_key, private_key_pem, spki_sha256_of_key
        from mtlskit.store.files import write_file

        if kind not in _KINDS:
            raise ConfigError(Code.USAGE, f"--type {harmless(kind)}: not a type of key", f"use {', '.join(_KINDS)}")
        passphrase = read_passphrase(passphrase_file, passphrase_env, passphrase_command, passphrase_prompt, new=True)
        key = generate_key(KeyType(kind))
        write_file(out, private_key_pem(key, passphrase), replace=force)
        if as_json:
            pin = b64encode(spki_sha256_of_key(key)).decode("ascii")
            print_json({"path": str(out), "type": kind, "encrypted": passphrase is not None, "spki_sha256": pin})
            return
        encrypted = ", encrypted" if passphrase is not None else ""
        line(f"{out}: a new key ({kind}{encrypted}) that only its owner can read")
        line(f"next: mtlskit csr new --key {out} --subject CN=NAME --out {out.with_suffix('.csr')}")
