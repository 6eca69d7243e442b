"""From the table of an identity to an `IdentityConfig`: which issuer takes which keys, and where the files lie.

The texts that only a library can judge (a subject, another name) are checked in form here, and by the issuer when it
uses them: reading a configuration must not cost the import of a cryptography library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from mtlskit.config.addons import parse_addon
from mtlskit.config.durations import parse_duration
from mtlskit.config.fields import Surroundings, check_name, choice, each, one, path_at
from mtlskit.config.origins import Origin, ValuePath, named_at, problem, raise_first
from mtlskit.config.programs import parse_program
from mtlskit.config.renewal import parse_lifetime, parse_renew_before
from mtlskit.config.schema import EXAMPLES, IdentityTable, TunnelTable
from mtlskit.config.values import IdentityConfig, IssuerConfig, IssuerKind, RenewBefore
from mtlskit.errors import Code, ConfigError

__all__ = [
    "INLINE",
    "KEY_TYPES",
    "STORED_CERT",
    "STORED_KEY",
    "STORED_ROOT",
    "build_identity",
    "check_folders",
    "inline_identity",
]

_Value = TypeVar("_Value")

INLINE = ("cert", "key", "passphrase_file")
"""The keys of an identity that a tunnel may hold itself, beside `ca`, which a tunnel may always have."""

KEY_TYPES = ("ec-p256", "ec-p384", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096")
"""`mtlskit.pki.keys.KeyType`, written down again because the configuration lies below it; a test compares them."""

STORED_CERT = Path("current", "client.crt")
STORED_KEY = Path("current", "client.key")
STORED_ROOT = Path("current", "root.crt")
"""Where the store keeps the files that are in force, below the folder of the identity."""

MOST_NAMES = 100
"""Alternative names of one identity, as many as a request takes (`mtlskit.pki.requests.MAX_ALTERNATIVES`)."""

_REQUEST = ("subject", "san", "key_type")
_KEYS_OF: Mapping[IssuerKind, tuple[str, ...]] = MappingProxyType(
    {
        IssuerKind.FILES: ("cert", "key"),
        IssuerKind.CA: (*_REQUEST, "ca_dir", "ca_passphrase_file", "lifetime"),
        IssuerKind.CSR: _REQUEST,
        IssuerKind.COMMAND: (*_REQUEST, "command", "command_timeout"),
        IssuerKind.HEROKU: ("addon",),
    }
)
"""What each issuer takes. `ca`, `passphrase_file` and `renew_before` are for all."""

_REQUIRED: Mapping[IssuerKind, str] = MappingProxyType(
    {IssuerKind.CA: "ca_dir", IssuerKind.COMMAND: "command", IssuerKind.HEROKU: "addon"}
)
_CAN_REVOKE = frozenset({IssuerKind.CA, IssuerKind.HEROKU})

_LONGEST_TEXT = 1000
"""Characters of a subject or another name. Certificates hold up to 64 for a common name, 253 for a host."""
_SAN = re.compile(r"(?:dns|ip|uri|email):.+", re.IGNORECASE)
_SUBJECT_HINT = 'write it as RFC 4514 does: "CN=reporting" or "CN=reporting,O=Example"'
_SAN_HINT = 'write "DNS:NAME", "IP:ADDRESS", "URI:URI" or "email:ADDRESS"'


def build_identity(name: str, table: IdentityTable, store: Path, around: Surroundings) -> IdentityConfig:
    """The identity `[identity.NAME]`; what an issuer makes lies below `store`.

    Raises `ConfigError`: CONFIG_BAD_VALUE, CONFIG_MISSING_KEY.
    """
    path: ValuePath = ("identity", name)
    origin = around.origin
    check_name(path, origin)
    kind = one(table.issuer, lambda text: choice(text, IssuerKind, "unknown issuer"), (*path, "issuer"), origin)
    _check_keys(kind, table, path, origin)
    issuer = _issuer(kind, table, path, around)
    renew_before = None
    if table.renew_before is not None:
        renew_before = one(table.renew_before, parse_renew_before, (*path, "renew_before"), origin)
    _check_renewal(renew_before, issuer, path, origin)
    if kind is IssuerKind.FILES:
        cert, key = _pair(table, path, around)
    else:
        cert, key = store / name / STORED_CERT, store / name / STORED_KEY
    ca = path_at(table.ca, (*path, "ca"), around)
    if ca is None and kind is IssuerKind.HEROKU:
        ca = store / name / STORED_ROOT
    return IdentityConfig(
        name=name,
        cert=cert,
        key=key,
        ca=ca,
        passphrase_file=path_at(table.passphrase_file, (*path, "passphrase_file"), around),
        issuer=issuer,
        renew_before=renew_before,
        revoke_old=table.revoke_old,
    )


def inline_identity(name: str, table: TunnelTable, around: Surroundings) -> IdentityConfig:
    """The identity that the tunnel `name` holds itself. Raises `ConfigError`: CONFIG_BAD_VALUE, CONFIG_MISSING_KEY."""
    path: ValuePath = ("tunnel", name)
    cert, key = _pair(table, path, around)
    return IdentityConfig(
        name,
        cert,
        key,
        ca=path_at(table.ca, (*path, "ca"), around),
        passphrase_file=path_at(table.passphrase_file, (*path, "passphrase_file"), around),
    )


def check_folders(identities: Iterable[IdentityConfig], origin: Origin) -> None:
    """Refuse two identities whose folders in the store differ in case only, which macOS and Windows take for one.

    Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    taken: dict[str, str] = {}
    problems = []
    for identity in identities:
        if identity.issuer.kind is IssuerKind.FILES:
            continue
        other = taken.setdefault(identity.name.casefold(), identity.name)
        if other != identity.name:
            problems.append(
                problem(
                    origin,
                    ("identity", identity.name),
                    f"the name differs from {other} in case only, and both would have one folder on macOS and Windows",
                    "rename one of them",
                )
            )
    raise_first(problems)


def _check_keys(kind: IssuerKind, table: IdentityTable, path: ValuePath, origin: Origin) -> None:
    """Whether the keys are those of the issuer `kind`; the first that is not is named, with what to do."""
    allowed = _KEYS_OF[kind]
    for other, keys in _KEYS_OF.items():
        for key in keys:
            if key in allowed or getattr(table, key) is None:
                continue
            raise _misplaced(key, other, kind, path, origin)
    required = _REQUIRED.get(kind)
    if required is not None and getattr(table, required) is None:
        raise problem(
            origin,
            path,
            f'issuer "{kind}" needs {origin.name_of(required)}',
            f"add {origin.spell(required, EXAMPLES[required])}",
            code=Code.CONFIG_MISSING_KEY,
        )
    if table.revoke_old and kind not in _CAN_REVOKE:
        raise problem(
            origin,
            (*path, "revoke_old"),
            f'issuer "{kind}" has no way to revoke a certificate',
            "leave revoke_old out, and tell whoever issued it",
        )


def _misplaced(key: str, owner: IssuerKind, kind: IssuerKind, path: ValuePath, origin: Origin) -> ConfigError:
    if owner is IssuerKind.FILES:
        return problem(
            origin,
            (*path, key),
            f'issuer "{kind}" makes certificate and key, and the store keeps them: {key} has no place here',
            f'leave {key} out, or write issuer = "files"',
        )
    *before, last = [f'"{each}"' for each, keys in _KEYS_OF.items() if key in keys]
    owners = f"{', '.join(before)} or {last}" if before else last
    ours = f'is "{kind}"' if origin.written((*path, "issuer")) is not None else f'is not written, which means "{kind}"'
    return problem(
        origin,
        (*path, key),
        f"{key} belongs to issuer {owners}, and the issuer here {ours}",
        f'leave {key} out, or write issuer = "{owner}"',
    )


def _issuer(kind: IssuerKind, table: IdentityTable, path: ValuePath, around: Surroundings) -> IssuerConfig:
    if table.san is not None and len(table.san) > MOST_NAMES:
        raise problem(around.origin, (*path, "san"), f"more than {MOST_NAMES} names", "leave some out")

    def read(key: str, parse: Callable[[Any], _Value], default: _Value) -> _Value:
        value = getattr(table, key)
        return default if value is None else one(value, parse, (*path, key), around.origin)

    return IssuerConfig(
        kind=kind,
        subject=read("subject", _subject, None),
        san=each(table.san or (), _san, (*path, "san"), around.origin),
        key_type=read("key_type", _key_type, IssuerConfig.key_type),
        ca_dir=path_at(table.ca_dir, (*path, "ca_dir"), around),
        ca_passphrase_file=path_at(table.ca_passphrase_file, (*path, "ca_passphrase_file"), around),
        lifetime=read("lifetime", parse_lifetime, None),
        command=parse_program(table.command, (*path, "command"), around),
        command_timeout=read("command_timeout", parse_duration, IssuerConfig.command_timeout),
        addon=read("addon", parse_addon, None),
        addon_named_by=named_at(around.origin, (*path, "addon")) if table.addon is not None else "",
    )


def _check_renewal(renew_before: RenewBefore | None, issuer: IssuerConfig, path: ValuePath, origin: Origin) -> None:
    """A certificate that is due as soon as it is issued would be replaced for ever."""
    if renew_before is None or renew_before.seconds is None or issuer.lifetime is None:
        return
    if renew_before.seconds >= issuer.lifetime:
        raise problem(
            origin,
            (*path, "renew_before"),
            "no shorter than lifetime: each new certificate would be due at once",
            'write a shorter one, or a share of the life: renew_before = "33%"',
        )


def _pair(table: IdentityTable | TunnelTable, path: ValuePath, around: Surroundings) -> tuple[Path, Path]:
    cert = path_at(table.cert, (*path, "cert"), around)
    key = path_at(table.key, (*path, "key"), around)
    if cert is None or key is None:
        raise _no_identity(cert, key, path, around.origin)
    return cert, key


def _no_identity(cert: Path | None, key: Path | None, path: ValuePath, origin: Origin) -> ConfigError:
    code = Code.CONFIG_MISSING_KEY
    both = " and ".join(origin.spell(name, EXAMPLES[name]) for name in ("cert", "key"))
    if cert is None and key is None:
        return problem(origin, path, "a client certificate and its key are missing", f"add {both}", code=code)
    lacking = "key" if key is None else "cert"
    return problem(origin, path, f"{origin.name_of(lacking)} is missing", f"a client identity takes {both}", code=code)


def _subject(text: str) -> str:
    _check_text(text, "the subject", _SUBJECT_HINT)
    if "=" not in text or text.lstrip().startswith("/"):
        raise ConfigError(Code.CONFIG_BAD_VALUE, "not the subject of a certificate", _SUBJECT_HINT)
    return text.strip()


def _san(text: str) -> str:
    _check_text(text, "the name", _SAN_HINT)
    if not _SAN.fullmatch(text.strip()):
        raise ConfigError(Code.CONFIG_BAD_VALUE, "not another name of a certificate", _SAN_HINT)
    return text.strip()


def _check_text(text: str, what: str, hint: str) -> None:
    if not text.strip():
        raise ConfigError(Code.CONFIG_BAD_VALUE, f"{what} is empty", hint)
    if len(text) > _LONGEST_TEXT:
        raise ConfigError(Code.CONFIG_BAD_VALUE, f"{what} is longer than {_LONGEST_TEXT} characters", hint)
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise ConfigError(Code.CONFIG_BAD_VALUE, f"{what} holds a control character", hint)


def _key_type(text: str) -> str:
    if text not in KEY_TYPES:
        listed = ", ".join(f'"{each}"' for each in KEY_TYPES)
        raise ConfigError(Code.CONFIG_BAD_VALUE, "not a type of key", f"use one of {listed}")
    return text
