"""The command line's root: global options, and the commands by name.

Start-up is felt, so this module and those of the commands import nothing heavy: trio, cryptography and pydantic are
imported inside the commands that need them, and help is plain text (rich costs another 100 ms).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from mtlskit.cli import (
    allowlist_change,
    allowlist_list,
    allowlist_plan,
    allowlist_watch,
    ca,
    certs_convert,
    certs_import,
    certs_list,
    certs_revoke,
    certs_rotate,
    certs_show,
    certs_watch,
    control,
    csr,
    demo,
    doctor,
    doctor_explain,
    heroku,
    keys,
    my_ip,
    proxy,
    sandbox,
)
from mtlskit.cli.render import line
from mtlskit.cli.usage import Command, Group, Root

__all__ = ["app", "main"]

app = typer.Typer(
    name="mtlskit",
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# "\b" keeps the lines of a paragraph as they are.
EPILOG = """\b
Exit status:
  0    done, or stopped by a signal
  1    it failed
  2    wrong usage or configuration, or nothing could start
  3    it has looked, and something needs attention
  130  interrupted before it had begun"""


def _version(value: bool) -> None:
    if value:
        from mtlskit import __version__

        line(f"mtlskit {__version__}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Plain Postgres clients to databases behind mutual TLS.

    Start with `mtlskit demo`, which shows all of it on this machine.
    """


_GROUPS = {
    "allowlist": "Who may connect: Heroku's IP rules.",
    "heroku": "Mutual TLS of Heroku add-ons.",
    "certs": "Certificates: show, issue, rotate.",
    "keys": "Make private keys.",
    "csr": "Make and show certificate requests.",
    "ca": "Run a small certificate authority.",
}

_COMMANDS: tuple[tuple[str, Callable[..., None], str, str], ...] = (
    ("demo", demo.demo, demo.EPILOG, "Show all of it on this machine, in seconds."),
    ("proxy", proxy.proxy, proxy.EPILOG, "Take plain connections, forward them over mutual TLS."),
    ("status", control.status, control.STATUS_EPILOG, "Show the running proxies."),
    ("reload", control.reload, control.RELOAD_EPILOG, "Have them read their certificates again."),
    ("stop", control.stop, control.STOP_EPILOG, "Stop the running proxy."),
    ("doctor", doctor.doctor, doctor.EPILOG, "Say why it does not connect, and what to do."),
    ("doctor explain", doctor_explain.explain, doctor_explain.EPILOG, "Say what a client's error text means."),
    ("sandbox", sandbox.sandbox, sandbox.EPILOG, "Run a database that demands mutual TLS, to try with."),
    ("heroku status", heroku.status, heroku.STATUS_EPILOG, "Show endpoint, certificates and rules."),
    ("heroku enable", heroku.enable, heroku.ENABLE_EPILOG, "Turn mutual TLS on."),
    ("heroku wait", heroku.wait, heroku.WAIT_EPILOG, "Wait until it is there, or gone."),
    ("heroku disable", heroku.disable, heroku.DISABLE_EPILOG, "Turn it off, for good."),
    ("allowlist list", allowlist_list.list_rules, allowlist_list.EPILOG, "Show the rules of add-ons."),
    ("allowlist add", allowlist_change.add, allowlist_change.ADD_EPILOG, "Let ranges of addresses in."),
    ("allowlist remove", allowlist_change.remove, allowlist_change.REMOVE_EPILOG, "Take rules away."),
    ("allowlist plan", allowlist_plan.plan, allowlist_plan.PLAN_EPILOG, "Show what the file would change."),
    ("allowlist apply", allowlist_plan.apply, allowlist_plan.APPLY_EPILOG, "Make the rules what the file says."),
    ("allowlist watch", allowlist_watch.watch, allowlist_watch.EPILOG, "Follow this host's changing address."),
    ("allowlist my-ip", my_ip.my_ip, my_ip.EPILOG, "The same as mtlskit my-ip."),
    ("my-ip", my_ip.my_ip, my_ip.EPILOG, "Show this host's external address."),
    ("certs list", certs_list.list_identities, certs_list.LIST_EPILOG, "Show every identity and its state."),
    ("certs check", certs_list.check, certs_list.CHECK_EPILOG, "Tell by status if one is due."),
    ("certs show", certs_show.show, certs_show.SHOW_EPILOG, "Show what a file or identity holds."),
    ("certs issue", certs_rotate.issue, certs_rotate.ISSUE_EPILOG, "Get an identity's first certificate."),
    ("certs rotate", certs_rotate.rotate, certs_rotate.ROTATE_EPILOG, "Replace certificates."),
    ("certs watch", certs_watch.watch, certs_watch.EPILOG, "Keep certificates renewed, as a service."),
    ("certs import", certs_import.import_, certs_import.EPILOG, "Take in a certificate issued elsewhere."),
    ("certs export", certs_convert.export, certs_convert.EXPORT_EPILOG, "Write files for psql, JDBC, …"),
    ("certs revoke", certs_revoke.revoke, certs_revoke.EPILOG, "Take a certificate back, for good."),
    ("keys new", keys.new, keys.NEW_EPILOG, "Make a private key."),
    ("csr new", csr.new, csr.NEW_EPILOG, "Make a request for a key."),
    ("csr show", csr.show, csr.SHOW_EPILOG, "Show what a request asks for."),
    ("ca init", ca.init, ca.INIT_EPILOG, "Make a CA in a folder."),
    ("ca sign", ca.sign, ca.SIGN_EPILOG, "Issue a certificate for a request."),
    ("ca revoke", ca.revoke, ca.REVOKE_EPILOG, "Revoke a certificate."),
    ("ca list", ca.list_issued, ca.LIST_EPILOG, "Show what was issued."),
    ("ca crl", ca.crl, ca.CRL_EPILOG, "Write the revocation list anew."),
)
"""In the order in which help shows them."""


def _register() -> None:
    groups: dict[str, typer.Typer] = {}
    for words, command, epilog, summary in _COMMANDS:
        group, _, name = words.rpartition(" ")
        if group and group not in _GROUPS:  # a command of two words, beside one of its first: see usage.Group
            group, name = "", words
        if group and group not in groups:
            groups[group] = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help=_GROUPS[group])
            app.add_typer(groups[group], name=group)
        parent = groups[group] if group else app
        parent.command(name, cls=Command, epilog=epilog, short_help=summary, hidden=" " in name)(command)


_register()


def main() -> None:
    """The `mtlskit` command."""
    app()
