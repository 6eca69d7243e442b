"""The PEM blocks of a file (RFC 7468), whatever stands around them.

Files in the wild have text between the blocks, CRLF, indentation from YAML, a byte-order mark. All that is skipped, as
OpenSSL would or would not; what is handed on are clean blocks. What is refused is refused by its name: people put the
request where the certificate belongs, a PKCS #12 archive where PEM belongs, and a one-line `\\n`-escaped secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from mtlskit.errors import Code, IdentityError
from mtlskit.pki import der

__all__ = ["CERTIFICATE_LABELS", "MAX_BYTES", "PRIVATE_KEY_LABELS", "Block", "describe_blocks", "scan"]

MAX_BYTES = 1024 * 1024
"""A whole system trust store is some 220 kB; a megabyte is no identity but a wrong path."""

CERTIFICATE_LABELS = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
PRIVATE_KEY_LABELS = frozenset({"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"})

_BEGIN = re.compile(r"-----BEGIN ([A-Z0-9][A-Z0-9 #]*)-----")
_END = re.compile(r"-----END ([A-Z0-9][A-Z0-9 #]*)-----")
_BASE64_LINE = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_HEADER = re.compile(r"[A-Za-z0-9-]+:")

_KINDS = {
    "CERTIFICATE": "a certificate",
    "X509 CERTIFICATE": "a certificate",
    "TRUSTED CERTIFICATE": "an OpenSSL trusted certificate",
    "CERTIFICATE REQUEST": "a certificate request",
    "NEW CERTIFICATE REQUEST": "a certificate request",
    "X509 CRL": "a revocation list",
    "PKCS7": "a PKCS #7 bundle",
    "CMS": "a PKCS #7 bundle",
    "PUBLIC KEY": "a public key",
    "RSA PUBLIC KEY": "a public key",
    "SSH2 PUBLIC KEY": "an SSH public key",
    "OPENSSH PRIVATE KEY": "an OpenSSH private key",
    "DSA PRIVATE KEY": "a DSA private key",
    "EC PARAMETERS": "curve parameters",
    "DH PARAMETERS": "Diffie-Hellman parameters",
} | dict.fromkeys(PRIVATE_KEY_LABELS, "a private key")


@dataclass(frozen=True)
class Block:
    """One PEM block. `line` is where its BEGIN stands, from 1; `headers` are RFC 1421's (legacy encrypted keys)."""

    label: str
    line: int
    der: bytes = field(repr=False)
    headers: tuple[str, ...] = ()

    @property
    def encrypted(self) -> bool:
        """Whether a passphrase is needed: PKCS #8 says so in the label, the legacy form in its first header."""
        return self.label == "ENCRYPTED PRIVATE KEY" or any("ENCRYPTED" in header for header in self.headers)

    def pem(self) -> bytes:
        """The block again, in the shape that every reader takes."""
        encoded = base64.b64encode(self.der).decode("ascii")
        head = [*self.headers, ""] if self.headers else []
        body = [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
        lines = [f"-----BEGIN {self.label}-----", *head, *body, f"-----END {self.label}-----", ""]
        return "\n".join(lines).encode("ascii")


def scan(data: bytes, *, source: str, wanted: str) -> tuple[Block, ...]:
    """All blocks of `data`, at least one. `wanted` ("a certificate") completes the sentence of an error.

    Raises `IdentityError`: PEM_TOO_LARGE, PEM_WRONG_KIND (no PEM at all), PEM_DAMAGED (with block and line).
    """
    if len(data) > MAX_BYTES:
        raise IdentityError(
            Code.PEM_TOO_LARGE,
            f"{source} has {len(data)} bytes, more than the {MAX_BYTES} that are read as PEM",
            f"give a file that holds {wanted} and little else",
        )
    blocks = _Scanner(source).scan(data.removeprefix(b"\xef\xbb\xbf").decode("latin-1"))
    if not blocks:
        raise _no_pem(data, source, wanted)
    return blocks


def describe_blocks(blocks: tuple[Block, ...]) -> str:
    """What the blocks are, once each, as words that fit after "holds"."""
    return " and ".join(dict.fromkeys(_KINDS.get(block.label, f"a {block.label} block") for block in blocks))


class _Scanner:
    """Goes over the lines once. Every way to be damaged becomes an error that names the block and the line."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._blocks: list[Block] = []

    def scan(self, text: str) -> tuple[Block, ...]:
        label, start = "", 0
        body: list[tuple[int, str]] = []
        # Not splitlines(): it also breaks at form feeds and the like, and the line numbers would not be the editor's.
        for number, raw in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
            line = raw.strip()
            if begin := _BEGIN.fullmatch(line):
                if label:
                    raise self._damaged(label, start, f"the next block begins in line {number} before its END line")
                label, start, body = begin[1], number, []
            elif label and (end := _END.fullmatch(line)):
                if end[1] != label:
                    raise self._damaged(label, start, f"line {number} ends {_shown(end[1])} instead")
                self._blocks.append(self._finish(label, start, body))
                label = ""
            elif label:
                body.append((number, line))
            elif "-----BEGIN " in line:
                raise self._odd_begin(line, number)
        if label:
            raise self._damaged(label, start, f"the file ends in line {number} before its END line")
        return tuple(self._blocks)

    def _finish(self, label: str, start: int, body: list[tuple[int, str]]) -> Block:
        headers: list[str] = []
        if body and _HEADER.match(body[0][1]):
            while body and body[0][1]:
                headers.append(body.pop(0)[1])
        lines = [(number, line) for number, line in body if line]
        if not lines:
            raise self._damaged(label, start, "nothing stands between its BEGIN and END lines")
        for position, (number, line) in enumerate(lines, 1):
            # Padding closes the data, so it may stand on the last line only.
            if not _BASE64_LINE.fullmatch(line) or ("=" in line and position < len(lines)):
                raise self._damaged(label, start, f"line {number} is not base64")
        try:
            decoded = base64.b64decode("".join(line for _, line in lines), validate=True)
        except binascii.Error as exc:
            raise self._damaged(label, start, f"base64 is missing before line {lines[-1][0] + 1}") from exc
        if not all(header.isascii() for header in headers):
            raise self._damaged(label, start, f"line {start + 1} is not ASCII")
        return Block(label, start, decoded, tuple(headers))

    def _odd_begin(self, line: str, number: int) -> IdentityError:
        if "\\n" in line:
            return IdentityError(
                Code.PEM_DAMAGED,
                f"{self._source}, line {number}: the line breaks of the PEM are written as \\n",
                f"write them as line breaks: printf '%b' \"$(cat {self._source})\" > NEW_FILE",
            )
        return IdentityError(
            Code.PEM_DAMAGED,
            f"{self._source}, line {number}: a PEM block begins here but its BEGIN line is not a line of its own",
            "take the file from its origin again: line breaks were lost or the line was changed",
        )

    def _damaged(self, label: str, start: int, what: str) -> IdentityError:
        number = len(self._blocks) + 1
        return IdentityError(
            Code.PEM_DAMAGED,
            f"{self._source}: block {number} ({_shown(label)}, from line {start}) is damaged: {what}",
            "take the file from its origin again",
        )


def _shown(label: str) -> str:
    """A label as an error may show it: a damaged file can hold a line of any length."""
    return label if len(label) <= 40 else f"{label[:40]}…"


def _no_pem(data: bytes, source: str, wanted: str) -> IdentityError:
    if not data.strip():
        return IdentityError(Code.PEM_WRONG_KIND, f"{source} is empty", f"it must hold {wanted} as PEM")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return IdentityError(
            Code.PEM_WRONG_KIND,
            f"{source} is UTF-16 text",
            f"convert it: iconv -f UTF-16 -t ASCII {source} > NEW_FILE",
        )
    if data.startswith(b"\xfe\xed\xfe\xed"):
        hint = f"convert it: keytool -importkeystore -srckeystore {source} -destkeystore NEW.p12 -deststoretype PKCS12"
        return IdentityError(Code.PEM_WRONG_KIND, f"{source} is a Java keystore, not PEM", hint)
    kind = der.describe(data)
    if kind is None:
        return IdentityError(
            Code.PEM_WRONG_KIND,
            f"{source} holds no PEM block (no line that begins with -----BEGIN)",
            f"it must hold {wanted} as PEM",
        )
    return IdentityError(Code.PEM_WRONG_KIND, f"{source} holds {kind}, not PEM", _conversion(kind, source))


def _conversion(kind: str, source: str) -> str:
    command = {
        "a PKCS #12 archive": f"openssl pkcs12 -in {source} -nodes -out NEW_FILE",
        "a PKCS #7 bundle": f"openssl pkcs7 -inform DER -in {source} -print_certs -out NEW_FILE",
        "a DER certificate": f"openssl x509 -inform DER -in {source} -out NEW_FILE",
        "a DER certificate request": "",
    }.get(kind, f"openssl pkey -inform DER -in {source} -out NEW_FILE")
    return f"convert it: {command}" if command else "give the certificate that was issued for the request"
