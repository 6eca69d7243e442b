"""Which issuer an identity's settings mean."""

from __future__ import annotations

from pathlib import Path

from mtlskit.config.values import IdentityConfig, IssuerKind
from mtlskit.errors import Code, ConfigError
from mtlskit.issuers.base import Issuer

__all__ = ["issuer_of"]


def issuer_of(identity: IdentityConfig, *, asked: bool = True) -> Issuer:
    """The issuer; not `asked` for a certificate, where one is brought by hand.

    Raises `ConfigError`: CONFIG_NOT_SUPPORTED for one that there is no client for yet, ISSUER_MISSING.
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
            raise ConfigError(
                Code.CONFIG_NOT_SUPPORTED,
                f"[identity.{identity.name}]: certificates from Heroku's API arrive in a later version",
                "for now take the three files from Heroku's dashboard and import them: mtlskit certs import"
                f" {identity.name} PREFIXpostgresql.crt --key PREFIXpostgresql.key",
            )
        case IssuerKind.FILES:
            raise ConfigError(
                Code.ISSUER_MISSING,
                f'[identity.{identity.name}]: issuer = "files" leaves its certificates to somebody else',
                "put the new files in place of the old ones: a running proxy loads them by itself; or name an issuer",
            )
