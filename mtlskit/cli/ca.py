"""`mtlskit ca`: a small certificate authority in a folder."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.asking import agreed
from mtlskit.cli.ca_places import DirOption, check_place, hand_out
from mtlskit.cli.ca_words import counted, day, entry_facts, fingerprint_text, names_of, root_facts, table, tell_of_list
from mtlskit.cli.options import JsonOption
from mtlskit.cli.passphrase import CommandOption, FileOption, PromptOption, VariableOption, read_passphrase
from mtlskit.cli.render import line, print_json, reported
from mtlskit.cli.spans import end_text
from mtlskit.cli.usage import harmless

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from mtlskit.store.authority_folder import AuthorityFolder

__all__ = [
    "CRL_EPILOG",
    "INIT_EPILOG",
    "LIST_EPILOG",
    "REVOKE_EPILOG",
    "SIGN_EPILOG",
    "crl",
    "init",
    "list_issued",
    "revoke",
    "sign",
]

_KINDS = ("ec-p256", "ec-p384", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096")
_PROFILES = ("client", "server")
_REASONS = (
    *("unspecified", "key-compromise", "affiliation-changed", "superseded"),
    *("cessation-of-operation", "privilege-withdrawn"),
)
"""Written down again, because help must not import cryptography; a test compares them with the enums."""

INIT_EPILOG = """\b
Examples:
  mtlskit ca init --dir ca --subject "CN=our ca"
  mtlskit ca init --dir ca --subject "CN=our ca,O=Example" --passphrase-prompt

DIR is made (0700) where it is missing, and must be empty. The root may sign
certificates of clients and servers and revocation lists, and no other CA."""

SIGN_EPILOG = """\b
Examples:
  mtlskit ca sign client.csr --dir ca --profile client --out client.crt
  mtlskit ca sign db.csr --dir ca --profile server --lifetime 90d --out db.crt

What a request asks for is a wish: names are taken as far as the profile allows,
the rest is left out, and told. Each certificate is kept in DIR/issued too."""

REVOKE_EPILOG = """\b
Examples:
  mtlskit ca revoke old.crt --dir ca --reason superseded
  mtlskit ca revoke 3f9c0a72 --dir ca --reason key-compromise --yes

Writes DIR/ca.crl anew. A server refuses the certificate once it has loaded the
list."""

LIST_EPILOG = """\b
Examples:
  mtlskit ca list --dir ca
  mtlskit ca list --dir ca --json"""

CRL_EPILOG = """\b
Examples:
  mtlskit ca crl --dir ca
  mtlskit ca crl --dir ca --lifetime 30d --out /srv/root.crl --force

A list that is out of date makes servers refuse every client: with a short
lifetime, run this from cron."""


def init(
    folder: DirOption,
    subject: Annotated[
        str, typer.Option("--subject", metavar="NAME", show_default=False, help="Its name, as in CN=our ca,O=Example.")
    ],
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
    lifetime: Annotated[
        str | None, typer.Option("--lifetime", metavar="TIME", help="How long it lasts. Default: ten years.")
    ] = None,
    passphrase_file: FileOption = None,
    passphrase_env: VariableOption = None,
    passphrase_command: CommandOption = None,
    passphrase_prompt: PromptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a CA: a key, a root certificate and an empty revocation list, in a folder of their own."""
    with reported(as_json=as_json):
        from mtlskit.errors import Code, ConfigError
        from mtlskit.pki.authority import ROOT_LIFETIME
        from mtlskit.pki.certificates import fingerprint_sha256, subject_text
        from mtlskit.pki.keys import KeyType
        from mtlskit.pki.requests import subject_name
        from mtlskit.store.authority_folder import AuthorityFolder

        _one_of("--type", kind, _KINDS)
        try:
            name = subject_name(subject)
        except ValueError as exc:
            raise ConfigError(
                Code.USAGE, f"--subject {harmless(subject)}: {exc}", "see mtlskit ca init --help"
            ) from exc
        lasts = _lifetime(lifetime) or ROOT_LIFETIME
        passphrase = read_passphrase(passphrase_file, passphrase_env, passphrase_command, passphrase_prompt, new=True)
        made = AuthorityFolder.init(
            folder, name, now=_now(), lifetime=lasts, kind=KeyType(kind), passphrase=passphrase
        ).certificate
        if as_json:
            facts = {"subject": subject_text(made), "type": kind, "encrypted": passphrase is not None}
            print_json(
                {"dir": str(folder), **facts, **root_facts(folder, made.not_valid_after_utc, fingerprint_sha256(made))}
            )
            return
        line(f"{folder}: a new CA, {subject_text(made)}, good until {end_text(made.not_valid_after_utc, _now())}")
        line(f"fingerprint (SHA-256): {fingerprint_text(fingerprint_sha256(made))}")
        line(f"hand out {folder / 'ca.crt'}: whoever trusts it trusts every certificate that this CA signs")
        line(f"keep {folder / 'ca.key'} to yourself, and a copy of the whole folder in a safe place")
        line(f"next: mtlskit ca sign client.csr --dir {folder} --profile client --out client.crt")


def sign(
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", show_default=False, help="PEM or DER; - is standard input.")
    ],
    folder: DirOption,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", show_default=False, help="Where the certificate goes.")],
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            metavar="PROFILE",
            autocompletion=lambda: list(_PROFILES),
            show_default=False,
            help="What it is for: client or server. Default: client.",
        ),
    ] = "client",
    lifetime: Annotated[
        str | None,
        typer.Option("--lifetime", metavar="TIME", help="How long it lasts. Default: client 365d, server 397d."),
    ] = None,
    passphrase_file: FileOption = None,
    passphrase_env: VariableOption = None,
    passphrase_command: CommandOption = None,
    passphrase_prompt: PromptOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Issue a certificate for a request, once its signature has been checked."""
    with reported(as_json=as_json):
        from mtlskit.net.files import MAX_FILE, read_public
        from mtlskit.pki.profiles import Profile
        from mtlskit.store.authority_folder import AuthorityFolder

        _one_of("--profile", profile, _PROFILES)
        lasts = _lifetime(lifetime)
        check_place(out, force=force)
        authority = AuthorityFolder.open(folder)
        data = sys.stdin.buffer.read(MAX_FILE + 1) if request == "-" else read_public(Path(request), "request")
        source = "standard input" if request == "-" else request
        passphrase = read_passphrase(passphrase_file, passphrase_env, passphrase_command, passphrase_prompt)
        authority = AuthorityFolder.open(folder, passphrase)
        signed = authority.sign(data, Profile(profile), now=_now(), lifetime=lasts, source=source)
        hand_out(signed, out, folder, force=force)
        if as_json:
            print_json({"path": str(out), **entry_facts(signed.entry, _now()), "notes": list(signed.notes)})
            return
        entry = signed.entry
        line(
            f"{out}: {entry.subject or 'a certificate'}, for {profile}s, good until {end_text(entry.not_after, _now())}"
        )
        line(f"serial: {entry.serial}")
        if names := names_of(entry):
            line(f"names: {', '.join(names)}")
        for note in signed.notes:
            line(f"note: {note}")
        line(f"next: send {out} back, with {folder / 'ca.crt'} as the CA to trust; it belongs to the request's key")


def revoke(
    what: Annotated[
        str,
        typer.Argument(metavar="SERIAL|FILE", show_default=False, help="A serial in hexadecimal, or a certificate."),
    ],
    folder: DirOption,
    reason: Annotated[
        str,
        typer.Option(
            "--reason",
            metavar="REASON",
            autocompletion=lambda: list(_REASONS),
            show_default=False,
            help=f"{', '.join(_REASONS[:-1])} or {_REASONS[-1]}. Default: unspecified.",
        ),
    ] = "unspecified",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    passphrase_file: FileOption = None,
    passphrase_env: VariableOption = None,
    passphrase_command: CommandOption = None,
    passphrase_prompt: PromptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke a certificate, for good, and write the revocation list anew."""
    with reported(as_json=as_json):
        from mtlskit.errors import Code, ConfigError
        from mtlskit.pki.revocation import Reason
        from mtlskit.store.authority_folder import AuthorityFolder

        try:
            why = Reason.named(reason)
        except ValueError as exc:
            raise ConfigError(
                Code.USAGE, f"--reason {harmless(reason)}: {exc}", "see mtlskit ca revoke --help"
            ) from exc
        authority = AuthorityFolder.open(folder)
        found = authority.find(_serial(what, authority))
        if not yes and not agreed(f"Revoke {found.subject or 'the certificate'} (serial {found.serial}) for good?"):
            line("nothing was revoked")
            raise typer.Exit(1)
        passphrase = read_passphrase(passphrase_file, passphrase_env, passphrase_command, passphrase_prompt)
        now = _now()
        entry = AuthorityFolder.open(folder, passphrase).revoke(found.serial, now=now, reason=why)
        if as_json:
            print_json(
                {**entry_facts(entry, now), "crl": str(folder / "ca.crl"), "already": found.revoked_at is not None}
            )
            return
        since = f" since {day(entry.revoked_at)}" if found.revoked_at is not None and entry.revoked_at else ""
        line(f"{entry.subject or 'the certificate'}, serial {entry.serial}: revoked{since} ({entry.reason})")
        line(f"next: let every server load {folder / 'ca.crl'} again; until then it accepts the certificate")


def list_issued(folder: DirOption, as_json: JsonOption = False) -> None:
    """Show every certificate that the CA has issued, and whether its revocation list is in order."""
    with reported(as_json=as_json):
        from mtlskit.pki.certificates import fingerprint_sha256, subject_text
        from mtlskit.store.authority_folder import AuthorityFolder

        authority = AuthorityFolder.open(folder)
        entries, now, root = authority.entries(), _now(), authority.certificate
        ends, unlisted = authority.list_lasts_until(), authority.unlisted(entries, now)
        if as_json:
            crl = {
                "path": str(folder / "ca.crl"),
                "next_update": ends.isoformat() if ends else None,
                "missing": [entry.serial for entry in unlisted],
            }
            facts = root_facts(folder, root.not_valid_after_utc, fingerprint_sha256(root))
            certificates = [entry_facts(entry, now) for entry in entries]
            print_json({"subject": subject_text(root), **facts, "crl": crl, "certificates": certificates})
            return
        line(f"{subject_text(root)}, good until {end_text(root.not_valid_after_utc, now)}: {len(entries)} issued")
        for row in table(entries, now):
            line(row)
        tell_of_list(folder, ends, len(unlisted), now)


def crl(
    folder: DirOption,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", show_default=False, help="Write it there too.")
    ] = None,
    lifetime: Annotated[
        str | None, typer.Option("--lifetime", metavar="TIME", help="How long it counts. Default: 365d.")
    ] = None,
    passphrase_file: FileOption = None,
    passphrase_env: VariableOption = None,
    passphrase_command: CommandOption = None,
    passphrase_prompt: PromptOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the revocation list anew, DIR/ca.crl."""
    with reported(as_json=as_json):
        from mtlskit.pki.authority import LIST_LIFETIME
        from mtlskit.store.authority_folder import AuthorityFolder
        from mtlskit.store.files import PUBLIC, write_file

        lasts = _lifetime(lifetime) or LIST_LIFETIME
        passphrase = read_passphrase(passphrase_file, passphrase_env, passphrase_command, passphrase_prompt)
        written = AuthorityFolder.open(folder, passphrase).write_list(_now(), lasts)
        if out is not None:
            write_file(out, written.pem, mode=PUBLIC, replace=force)
        path, serials = out or folder / "ca.crl", [entry.serial for entry in written.entries]
        if as_json:
            print_json({"path": str(path), "next_update": written.next_update.isoformat(), "revoked": serials})
            return
        ends = end_text(written.next_update, _now())
        line(f"{path}: {counted(len(serials), 'revoked certificate')}, good until {ends}")


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _one_of(flag: str, value: str, values: tuple[str, ...]) -> None:
    from mtlskit.errors import Code, ConfigError

    if value not in values:
        raise ConfigError(Code.USAGE, f"{flag} {harmless(value)}: there is no such one", f"write {', '.join(values)}")


def _lifetime(text: str | None) -> timedelta | None:
    """None where none was given. A second is the least that a certificate can tell."""
    from datetime import timedelta

    from mtlskit.config.durations import parse_duration
    from mtlskit.errors import Code, ConfigError

    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ConfigError as exc:
        raise ConfigError(Code.USAGE, f"--lifetime {harmless(text)}: {exc.sentence}", exc.hint) from exc
    if seconds < 1:
        raise ConfigError(Code.USAGE, f"--lifetime {harmless(text)}: less than a second", 'write "90d", for instance')
    return timedelta(seconds=seconds)


def _serial(text: str, authority: AuthorityFolder) -> str:
    from mtlskit.errors import Code, ConfigError, IdentityError
    from mtlskit.net.files import read_public
    from mtlskit.pki.certificates import is_issued_by, issuer_text, load_certificates, serial_text, subject_text

    digits = text.replace(":", "").lower().removeprefix("0x")
    is_file = False
    with suppress(OSError, ValueError):
        is_file = Path(text).exists()
    if is_file:
        certificate = load_certificates(read_public(Path(text), "certificate"), source=text)[0]
        if not is_issued_by(certificate, authority.certificate):
            raise IdentityError(
                Code.CA_UNKNOWN_SERIAL,
                f"{text}: {subject_text(certificate)} was issued by {issuer_text(certificate)}, not by this CA",
                "ask the CA that issued it",
            )
        return serial_text(certificate)
    if re.fullmatch(r"[0-9a-f]{1,40}", digits):
        return f"{int(digits, 16):x}"
    raise ConfigError(
        Code.USAGE,
        f"{harmless(text)}: neither a file nor a serial in hexadecimal",
        f"see the serials: mtlskit ca list --dir {authority.folder}",
    )
