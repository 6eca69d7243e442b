"""`mtlskit certs revoke`: take a certificate of an identity back, for good."""

from __future__ import annotations

from typing import Annotated

import typer

from mtlskit.cli.asking import agreed
from mtlskit.cli.chosen import ConfigOption, identities_called, load, stored_target, tools_for
from mtlskit.cli.options import JsonOption
from mtlskit.cli.render import line, print_json, reported
from mtlskit.cli.usage import harmless

__all__ = ["EPILOG", "revoke"]

EPILOG = """\b
Examples:
  mtlskit certs revoke reporting --serial 3f9c0a72 --yes
  mtlskit certs revoke reporting --id 419d4386-691f-4b40-8a7e-0d5e6f2c9b11

`mtlskit certs list` and the store's journals know the serials, `mtlskit certs list --remote` Heroku's ids. For Heroku,
a revocation acts at once."""


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The identity.")],
    serial: Annotated[
        str | None, typer.Option("--serial", metavar="HEX", show_default=False, help="The certificate's serial number.")
    ] = None,
    remote_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", show_default=False, help="Or what `certs list --remote` calls it."),
    ] = None,
    in_use: Annotated[
        bool, typer.Option("--in-use", help="Revoke it even though the identity uses it now: nothing connects then.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a certificate that this store has asked for. This cannot be undone."""
    with reported(as_json=as_json):
        import trio

        from mtlskit.errors import Code, ConfigError
        from mtlskit.lifecycle.revoking import find_certificate, refused, revoke_certificate, serial_called
        from mtlskit.telemetry import silent

        if (serial is None) == (remote_id is None):
            raise ConfigError(Code.USAGE, "say which certificate, in one way", "--serial HEX, or --id ID")

        loaded = load(config)
        identity = identities_called(loaded, [name])[0]
        target, tools = stored_target(loaded, identity), tools_for(loaded, identity, silent)
        wanted = _hexadecimal(serial) if serial is not None else serial_called(target, harmless(remote_id or ""))
        known = find_certificate(target, wanted)
        if known.current and not in_use:
            raise refused(target, known)
        shared = "" if known.made_here else " This store did not ask for it, so other hosts may use it."
        if not yes and not agreed(f"Revoke serial {known.serial} of {name} for good?{shared}"):
            line("nothing was revoked")
            raise typer.Exit(1)

        async def work() -> str:
            return await revoke_certificate(target, tools, known.serial, in_use=in_use)

        told = trio.run(work)
        if as_json:
            print_json({"identity": name, "serial": known.serial, "told": told})
        else:
            line(f"{name}: {told}")


def _hexadecimal(text: str) -> str:
    from mtlskit.errors import Code, ConfigError

    digits = text.replace(":", "").lower().removeprefix("0x").lstrip("0")
    if not digits or len(digits) > 40 or set(digits) - set("0123456789abcdef"):
        raise ConfigError(
            Code.USAGE, f"--serial {harmless(text)}: no serial in hexadecimal", "see the serials: mtlskit certs list"
        )
    return digits
