"""Which issuer an identity's settings mean."""

from __future__ import annotations

from pathlib import Path

from mtlskit.config.values import IdentityConfig, IssuerKind
from mtlskit.errors import Code, ConfigError
from mtlskit.issuers.base import Issuer
from mtlskit.issuers.heroku_api import OpenHeroku

__all__ = ["issuer_of"]


def issuer_of(identity: IdentityConfig, *, asked: bool = True, heroku: OpenHeroku | None = None) -> Issuer:
    """The issuer; not `asked` for a certificate, where one is brought by hand. `heroku` is the way to its API.

    Raises `ConfigError` (ISSUER_MISSING).
    """
    issuer = identity.issuer
    match issuer.kind:
        case IssuerKind.CA:
            from mtlskit.issuers.ca import CaIssuer

            return CaIssuer(issuer.ca_dir or Path(), issuer.lifetime, issuer.ca_passphrase_file)
        case IssuerKind.CSR:
            from mtlskit.issuers.csr import CsrIssuer

            return CsrIssuer()
        case IssuerKind.COMMAND:
            from mtlskit.issuers.command import CommandIssuer

            return CommandIssuer(issuer.command, issuer.command_timeout)
        case IssuerKind.HEROKU if not asked:
            from mtlskit.issuers.csr import CsrIssuer

            return CsrIssuer("heroku")
        case IssuerKind.HEROKU:
            from mtlskit.issuers.heroku_addon import HerokuAddonIssuer

            if heroku is None:
                raise ValueError("who asks Heroku says how to reach it")
            return HerokuAddonIssuer(issuer.addon or "", heroku, issuer.addon_named_by)
        case IssuerKind.FILES:
            raise ConfigError(
                Code.ISSUER_MISSING,
                f'[identity.{identity.name}]: issuer = "files" leaves its certificates to somebody else',
                "put the new files in place of the old ones: a running proxy loads them by itself; or name an issuer",
            )
