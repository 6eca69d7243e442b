"""`mtlskit certs export`: an identity as the files that other programs want."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from mtlskit.cli.chosen import ConfigOption, identities_called, load
from mtlskit.cli.identities import files_of, read_material
from mtlskit.cli.options import JsonOption
from mtlskit.cli.passphrase import CommandOption, FileOption, PromptOption, VariableOption, read_passphrase
from mtlskit.cli.render import line, print_json, reported, warn
from mtlskit.cli.usage import harmless

if TYPE_CHECKING:
    from mtlskit.config.values import ProxyConfig, TunnelConfig
    from mtlskit.pki.export import Exported, ExportFormat
    from mtlskit.pki.material import CheckedMaterial
    from mtlskit.store.several import NewFile

__all__ = ["EXPORT_EPILOG", "FORMATS", "export"]

FORMATS = ("pem", "p12", "psql", "jdbc", "der")
"""`mtlskit.pki.export.ExportFormat`, written down again because help must not import cryptography."""

_ARCHIVES = (".p12", ".pfx")

EXPORT_EPILOG = """\b
Examples:
  mtlskit certs export reporting --format psql --out ~/.postgresql
  mtlskit certs export reporting --format jdbc --out jdbc \\
    --out-passphrase-file p12.passphrase
  mtlskit certs export --cert client.crt --key client.key \\
    --format p12 --out client.p12 --out-passphrase-prompt

\b
What is written:
  pem   client.crt (with its chain), client.key
  psql  postgresql.crt, postgresql.key: the names that psql looks for
  p12   client.p12 (PKCS #12), for Java, Windows and browsers
  jdbc  client.p12 as the PostgreSQL JDBC driver wants it
  der   client.der, client.pk8

With the server's CA at hand (--ca, or the identity's), root.crt as well."""

_OutFile = Annotated[
    Path | None,
    typer.Option(
        "--out-passphrase-file",
        metavar="FILE",
        help="Encrypt what is written; the passphrase is the first line of FILE.",
    ),
]
_OutVariable = Annotated[
    str | None, typer.Option("--out-passphrase-env", metavar="NAME", help="… is the value of this variable.")
]
_OutCommand = Annotated[
    str | None,
    typer.Option("--out-passphrase-command", metavar="COMMAND", help="… is the first line that COMMAND prints."),
]
_OutPrompt = Annotated[bool, typer.Option("--out-passphrase-prompt", help="… is asked for.")]


def export(
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            autocompletion=lambda: list(FORMATS),
            show_default=False,
            help=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", show_default=False, help="The folder; for p12 also FILE.p12 or FILE.pfx."),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="An identity of the configuration.")
    ] = None,
    cert: Annotated[
        list[Path] | None,
        typer.Option(
            "--cert",
            metavar="FILE",
            show_default=False,
            help="Instead of NAME: the certificate, or an archive with its key. Repeatable, for the chain.",
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", show_default=False, help="Its private key.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", show_default=False, help="The server's CA, to go along as root.crt."),
    ] = None,
    config: ConfigOption = None,
    passphrase_file: FileOption = None,
    passphrase_env: VariableOption = None,
    passphrase_command: CommandOption = None,
    passphrase_prompt: PromptOption = False,
    out_passphrase_file: _OutFile = None,
    out_passphrase_env: _OutVariable = None,
    out_passphrase_command: _OutCommand = None,
    out_passphrase_prompt: _OutPrompt = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write an identity as the files that psql, JDBC, Java, Windows or devices want."""
    with reported(as_json=as_json):
        from mtlskit.pki.export import ExportFormat
        from mtlskit.pki.export import export as exported_as
        from mtlskit.store.several import write_together

        _check_usage(form, out, name, cert, key)
        wanted = ExportFormat(form)
        secret = read_passphrase(passphrase_file, passphrase_env, passphrase_command, passphrase_prompt)
        source = _from_name(name, config, ca, secret) if name else _from_files(cert or [], key, ca, secret)
        new_secret = read_passphrase(
            out_passphrase_file,
            out_passphrase_env,
            out_passphrase_command,
            out_passphrase_prompt,
            new=True,
            option="--out-passphrase",
        )
        _check_passphrase(wanted, new_secret)
        exported = exported_as(source.material, wanted, passphrase=new_secret)
        files = _placed(exported, out)
        if len(files) > 1 or files[0].path != out:
            _make_folder(out)
        write_together(files, replace=force)
        notes = (*source.material.notes, *source.notes, *exported.notes)
        advice = _advice(wanted, files, source.server)
        _tell(files, notes, advice, encrypted=new_secret is not None, as_json=as_json)


@dataclass(frozen=True)
class _Source:
    """What is exported, the server that it is for, as ``HOST:PORT``, and what is to be said of both."""

    material: CheckedMaterial
    server: str = "HOST:5432"
    notes: tuple[str, ...] = ()


def _check_usage(form: str, out: Path, name: str | None, cert: list[Path] | None, key: Path | None) -> None:
    from mtlskit.errors import Code, ConfigError

    if form not in FORMATS:
        raise ConfigError(Code.USAGE, f"--format {harmless(form)}: not a format", f"use {', '.join(FORMATS)}")
    if name is not None and (cert or key is not None):
        raise ConfigError(Code.USAGE, "a name and --cert or --key exclude each other", "name the one or the other")
    if name is None and not cert:
        raise ConfigError(
            Code.USAGE, "nothing to export", "name an identity of the configuration, or files: --cert FILE --key FILE"
        )
    if form != "p12" and out.suffix in (*_ARCHIVES, ".crt", ".pem", ".key"):
        raise ConfigError(Code.USAGE, f"--out {harmless(str(out))}: {form} is several files", "name a folder")


def _check_passphrase(form: ExportFormat, passphrase: bytes | None) -> None:
    from mtlskit.errors import Code, ConfigError
    from mtlskit.pki.export import NEEDS_PASSPHRASE

    if passphrase is None and form in NEEDS_PASSPHRASE:
        raise ConfigError(
            Code.USAGE,
            f"--format {form.value} needs a passphrase: Java opens no archive without one",
            "add --out-passphrase-file FILE, or one of its kind; see mtlskit certs export --help",
        )


def _from_name(name: str, config: Path | None, ca: Path | None, passphrase: bytes | None) -> _Source:
    from datetime import UTC, datetime

    from mtlskit.net.files import read_public
    from mtlskit.pki.material import gather

    loaded = load(config)
    identity = identities_called(loaded, [name])[0]
    tunnel, notes = _tunnel_of(loaded, name)
    if identity.ca is not None or ca is not None:
        notes = ()
    elif tunnel is not None:
        identity = replace(identity, ca=tunnel.identity.ca)
    files = files_of(identity, passphrase=passphrase)
    roots = None
    if ca is not None:
        roots = (str(ca), read_public(ca, "CA file"))
    elif files.ca is not None and files.ca_source is not None:
        roots = (files.ca_source, files.ca)
    material = gather(
        [(files.cert_source, files.cert), (files.key_source, files.key)],
        now=datetime.now(UTC),
        passphrase=files.passphrase,
        roots=roots,
        strict=False,  # it serves already
    )
    # Where Heroku tells the upstream, nobody is asked for an example's sake.
    server = str(tunnel.upstream[0]) if tunnel is not None and tunnel.upstream else _Source.server
    return _Source(material, server, notes)


def _from_files(cert: Sequence[Path], key: Path | None, ca: Path | None, passphrase: bytes | None) -> _Source:
    return _Source(read_material(cert, key, ca=ca, passphrase=passphrase, strict=False))


def _tunnel_of(config: ProxyConfig, name: str) -> tuple[TunnelConfig | None, tuple[str, ...]]:
    """The first tunnel that uses the identity, and a note where others that use it trust another CA than that one."""
    tunnels = [tunnel for tunnel in config.tunnels if tunnel.identity.name == name]
    if not tunnels:
        return None, ()
    first = tunnels[0]
    others = [tunnel for tunnel in tunnels if tunnel.identity.ca != first.identity.ca]
    if not others:
        return first, ()
    told = ", ".join(f"{_trusted(tunnel)} for {tunnel.name}" for tunnel in (first, *others))
    return first, (f"the tunnels trust different CAs: {told}; what is written is for {first.name}",)


def _trusted(tunnel: TunnelConfig) -> str:
    return "the system's roots" if tunnel.identity.ca is None else str(tunnel.identity.ca)


def _placed(exported: Exported, out: Path) -> list[NewFile]:
    """The files with their paths. An archive may be named itself; what would lie beside it then is left out."""
    from mtlskit.store.several import NewFile

    if out.suffix in _ARCHIVES and not out.is_dir():
        archive = exported.files[0]
        return [NewFile(out, archive.data, archive.secret)]
    return [NewFile(out / file.name, file.data, file.secret) for file in exported.files]


def _make_folder(folder: Path) -> None:
    from mtlskit.errors import Code, IdentityError

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, ValueError) as exc:  # ValueError: the path has a null character in it
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise IdentityError(
            Code.FILE_UNWRITABLE, f"{folder}: cannot be made: {reason}", "name another folder, or make it first"
        ) from exc


def _advice(form: ExportFormat, files: Sequence[NewFile], server: str) -> str:
    """How the files are used: a command, or an URL."""
    paths = {file.path.name: str(file.path.absolute()) for file in files}
    root = paths.get("root.crt", "FILE")
    host, _, port = server.rpartition(":")
    if form.value == "psql":
        return (
            f'psql "host={host.strip("[]")} port={port} dbname=DATABASE user=USER sslmode=verify-full'
            f' sslcert={paths["postgresql.crt"]} sslkey={paths["postgresql.key"]} sslrootcert={root}"'
        )
    if form.value == "jdbc":
        return (
            f"jdbc:postgresql://{server}/DATABASE?sslmode=verify-full&sslkey={quote(paths['client.p12'])}"
            f"&sslpassword=PASSPHRASE&sslrootcert={quote(root)}"
        )
    return ""


def _tell(files: Sequence[NewFile], notes: Sequence[str], advice: str, *, encrypted: bool, as_json: bool) -> None:
    if as_json:
        written = [{"path": str(file.path), "secret": file.secret} for file in files]
        print_json({"files": written, "encrypted": encrypted, "notes": list(notes), "use": advice or None})
        return
    for note in notes:
        warn(note)
    for file in files:
        secret = f"the key, {'encrypted, ' if encrypted else ''}only its owner can read it" if file.secret else "public"
        line(f"{file.path}: {secret}")
    if advice:
        line(f"use:  {advice}")
