"""`mtlskit certs import`: a certificate that was issued elsewhere becomes an identity's next version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.certs_rotate import (
    FreshOption,
    NoProveOption,
    TimeoutOption,
    WaitOption,
    progress,
    run_rotations,
    wanted_of,
)
from mtlskit.cli.chosen import ConfigOption, identities_called, load, stored_target
from mtlskit.cli.options import JsonOption, LogOption, QuietOption, wants_json
from mtlskit.cli.passphrase import CommandOption, FileOption, PromptOption, VariableOption, read_passphrase
from mtlskit.cli.render import reported

if TYPE_CHECKING:
    from mtlskit.errors import Code, IdentityError
    from mtlskit.lifecycle.target import Target
    from mtlskit.store.identities import Material

__all__ = ["EPILOG", "import_"]

EPILOG = """\b
Examples:
  mtlskit certs import reporting client.crt chain.crt      what came back for the request (issuer = "csr")
  mtlskit certs import reporting client.crt --key client.key --ca root.crt
  mtlskit certs import reporting bundle.p12 --passphrase-prompt

FILEs are PEM, DER or PKCS #12, in any order. The pair is checked and proved as in a rotation before it is used."""


def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The identity.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE", hidden=True)],
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", show_default=False, help="The private key.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", show_default=False, help="The server's CAs, to be kept with the pair."),
    ] = None,
    passphrase_file: FileOption = None,
    passphrase_env: VariableOption = None,
    passphrase_command: CommandOption = None,
    passphrase_prompt: PromptOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = "15m",
    no_prove: NoProveOption = False,
    fresh: FreshOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    log: LogOption = "text",
    quiet: QuietOption = False,
) -> None:
    """Take a certificate into the store, prove it, and switch to it.

    Without a key, it is the answer to the request that a rotation of this identity has made.
    """
    with reported(as_json=as_json or wants_json(log)):
        from dataclasses import replace

        from mtlskit.issuers.csr import bring_answer

        emit = progress(log, quiet=quiet)
        loaded = load(config)
        identity = identities_called(loaded, [name])[0]
        target = stored_target(loaded, identity)
        passphrase = read_passphrase(passphrase_file, passphrase_env, passphrase_command, passphrase_prompt)
        wanted = wanted_of("imported", wait, timeout, prove=not no_prove, fresh=fresh)
        checked = _read(files, key, ca, passphrase, target, fresh=fresh)
        if checked.pending is not None:
            bring_answer(checked.pending, checked.material.cert_pem, checked.material.root_pem)
        else:
            wanted = replace(wanted, material=checked.material)
        run_rotations(loaded, [identity], wanted, emit, as_json=as_json, log=log)


def _pending_key(target: Target) -> Path | None:
    """The key of the request that waits for an answer."""
    from mtlskit.config.values import IssuerKind
    from mtlskit.store.identities import KEY
    from mtlskit.store.journal import Journal

    left = Journal(target.stored.journal_path).unfinished()
    if target.identity.issuer.kind not in (IssuerKind.CSR, IssuerKind.COMMAND):
        return None  # the others fetch what they have signed themselves
    if left is None or "request" not in left.steps or "stage" in left.steps:
        return None
    path = target.stored.pending(left.id) / KEY
    return path if path.exists() else None


def _lack_a_key(files: list[Path], passphrase: bytes | None) -> bool:
    """Whether `files` hold certificates, and nothing is wrong with them but that there is no key. Raises
    `IdentityError`.
    """
    from mtlskit.net.files import read_public
    from mtlskit.pki.bundles import read_bundle

    bundles = [
        read_bundle(read_public(path, "certificate file"), source=str(path), passphrase=passphrase) for path in files
    ]
    return all(bundle.key is None for bundle in bundles) and any(bundle.certificates for bundle in bundles)


def _unasked(target: Target, code: Code) -> IdentityError:
    """A certificate came alone, and there is no request that it could be the answer to."""
    from mtlskit.config.values import IssuerKind
    from mtlskit.errors import IdentityError

    asks = target.identity.issuer.kind in (IssuerKind.CSR, IssuerKind.COMMAND)
    return IdentityError(
        code,
        f"no request of {target.name} is waiting for a certificate, and no key came along",
        f"mtlskit certs rotate {target.name} makes a request; or give --key FILE"
        if asks
        else "give --key FILE as well",
    )


@dataclass(frozen=True)
class _Read:
    material: Material
    pending: Path | None
    """The folder of the request that this answers."""


def _read(
    files: list[Path], key: Path | None, ca: Path | None, passphrase: bytes | None, target: Target, *, fresh: bool
) -> _Read:
    """The pair, and whether it is the answer to a request of ours: then the key is the one that was made for it.

    Raises `IdentityError`, and `ConfigError` where a pair of its own would make a request useless that a person may be
    signing.
    """
    from mtlskit.cli.identities import read_material
    from mtlskit.config.values import IssuerKind
    from mtlskit.errors import Code, ConfigError, IdentityError
    from mtlskit.lifecycle.obtain import passphrase_of
    from mtlskit.net.files import read_private
    from mtlskit.pki.keys import load_private_key, public_key_der
    from mtlskit.store.identities import Material

    pending = None if fresh else _pending_key(target)
    try:
        checked = read_material(files, key, ca=ca, passphrase=passphrase)
    except IdentityError as exc:
        if key is not None or exc.code is not Code.PEM_WRONG_KIND:
            raise
        if pending is None:
            if fresh or not _lack_a_key(files, passphrase):
                raise
            raise _unasked(target, exc.code) from exc
        # No key came along: it is the one that was made for the request.
        checked = read_material(files, pending, ca=ca, passphrase=passphrase_of(target.identity))
    material = Material(checked.cert_pem, checked.key_pem, checked.root_pem)
    if pending is None:
        return _Read(material, None)
    secret = passphrase_of(target.identity)
    ours = load_private_key(read_private(pending, "private key"), source=str(pending), passphrase=secret)
    if public_key_der(checked.pair.key) == public_key_der(ours):
        return _Read(material, pending.parent)
    if target.identity.issuer.kind is IssuerKind.CSR:
        raise ConfigError(
            Code.ROTATION_REFUSED,
            f"{target.name}: a request is waiting to be signed, and this is a pair of its own",
            f"import the certificate for {pending.with_name('client.csr')}, or say --fresh to give the request up",
        )
    return _Read(material, None)
