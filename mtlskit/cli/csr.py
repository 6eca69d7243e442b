"""`mtlskit csr`: certificate requests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.options import JsonOption
from mtlskit.cli.passphrase import CommandOption, FileOption, PromptOption, VariableOption, read_passphrase
from mtlskit.cli.render import line, print_json, reported
from mtlskit.cli.usage import harmless

if TYPE_CHECKING:
    from mtlskit.pki.requests import RequestFacts, Wishes

__all__ = ["NEW_EPILOG", "SHOW_EPILOG", "new", "show"]

_USAGES = ("client", "server", "both")

NEW_EPILOG = """\b
Examples:
  mtlskit csr new --key client.key --subject CN=reporting --out client.csr
  mtlskit csr new --key client.key --subject CN=reporting,O=Example --san DNS:bi.example.com --out client.csr

Send FILE to whoever runs the CA. It holds no secret."""

SHOW_EPILOG = """\b
Examples:
  mtlskit csr show client.csr
  mtlskit csr show - --json < client.csr"""


def new(
    key: Annotated[Path, typer.Option("--key", metavar="FILE", show_default=False, help="The private key, PEM.")],
    subject: Annotated[
        str,
        typer.Option(
            "--subject", metavar="NAME", show_default=False, help="As in CN=reporting or CN=reporting,O=Example."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", show_default=False, help="Where the request goes.")],
    san: Annotated[
        list[str] | None,
        typer.Option(
            "--san",
            metavar="KIND:NAME",
            show_default=False,
            help="Another name: DNS:NAME, IP:ADDRESS, URI:URI or email:ADDRESS. As often as needed.",
        ),
    ] = None,
    usage: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="USE",
            autocompletion=lambda: list(_USAGES),
            show_default=False,
            help="What the certificate is to be for: client, server or both. Default: client.",
        ),
    ] = "client",
    passphrase_file: FileOption = None,
    passphrase_env: VariableOption = None,
    passphrase_command: CommandOption = None,
    passphrase_prompt: PromptOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the request if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a certificate request for a key: what a CA signs. The key stays where it is."""
    with reported(as_json=as_json):
        from mtlskit.net.files import read_private
        from mtlskit.pki.keys import load_private_key
        from mtlskit.pki.requests import load_request, make_request, request_facts
        from mtlskit.store.files import PUBLIC, write_file

        wishes = _wishes(subject, san or [], usage)
        passphrase = read_passphrase(passphrase_file, passphrase_env, passphrase_command, passphrase_prompt)
        private = load_private_key(read_private(key, "private key"), source=str(key), passphrase=passphrase)
        request = make_request(private, wishes)
        write_file(out, request, mode=PUBLIC, replace=force)
        facts = request_facts(load_request(request, source=str(out)))
        if as_json:
            print_json({"path": str(out), **_plain(facts)})
            return
        line(f"{out}: a request for {facts.subject}")
        line("next: send it to the CA; the certificate that comes back belongs to this key")


def show(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="PEM or DER; - is standard input.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a certificate request asks for, once its signature has been checked."""
    with reported(as_json=as_json):
        from mtlskit.net.files import MAX_FILE, read_public
        from mtlskit.pki.requests import load_request, request_facts

        data = sys.stdin.buffer.read(MAX_FILE + 1) if file == "-" else read_public(Path(file), "certificate request")
        source = "standard input" if file == "-" else file
        facts = request_facts(load_request(data, source=source))
        if as_json:
            print_json(_plain(facts))
            return
        for name, value in _rows(facts):
            line(f"{name:<12}{value}")


def _wishes(subject: str, san: list[str], usage: str) -> Wishes:
    from mtlskit.errors import Code, ConfigError
    from mtlskit.pki.requests import MAX_ALTERNATIVES, Usage, Wishes, alternative_name, subject_name

    if usage not in _USAGES:
        raise ConfigError(Code.USAGE, f"--for {harmless(usage)}: not a use", f"write {', '.join(_USAGES)}")
    if len(san) > MAX_ALTERNATIVES:
        raise ConfigError(Code.USAGE, f"--san is given {len(san)} times, {MAX_ALTERNATIVES} are the most", "drop some")
    try:
        name = subject_name(subject)
    except ValueError as exc:
        raise ConfigError(Code.USAGE, f"--subject {harmless(subject)}: {exc}", "see mtlskit csr new --help") from exc
    names = []
    for text in san:
        try:
            names.append(alternative_name(text))
        except ValueError as exc:
            raise ConfigError(Code.USAGE, f"--san {harmless(text)}: {exc}", "see mtlskit csr new --help") from exc
    usages = (Usage.CLIENT, Usage.SERVER) if usage == "both" else (Usage(usage),)
    return Wishes(name, tuple(names), usages)


def _plain(facts: RequestFacts) -> dict[str, object]:
    return {
        "subject": facts.subject,
        "names": list(facts.names),
        "usages": list(facts.usages),
        "key": facts.key,
        "spki_sha256": facts.spki_sha256,
        "signature": facts.signature,
    }


def _rows(facts: RequestFacts) -> list[tuple[str, str]]:
    return [
        ("Subject", facts.subject or "(empty)"),
        ("Names", ", ".join(facts.names) or "none"),
        ("Asks for", ", ".join(facts.usages) or "no special use"),
        ("Key", facts.key),
        ("Key pin", f"sha256/{facts.spki_sha256}"),
        ("Signature", f"good ({facts.signature})"),
    ]
