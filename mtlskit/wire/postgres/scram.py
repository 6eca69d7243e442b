"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides, as bytes in and bytes out (RFC 5802, RFC 7677).

A conversation is four messages: client-first, server-first, client-final, server-final. Each side proves that it knows
the password without sending it, over an "auth message" that joins the first three. With PLUS the client-final also
carries channel-binding data, here `tls-server-end-point` (RFC 5929 section 4.1): the hash of the certificate that the
client saw. Whoever sits between two TLS connections shows the client another certificate than the server's own and
cannot hide it, and that is exactly why a tunnel has to strip PLUS from the offer.

The client's first bytes, the gs2 header, say what the client thinks of channel binding: `n` it cannot, `y` it could but
the server did not offer it, `p=…` it uses it. A server that did offer it and reads `y` knows that somebody between
has removed the offer, and refuses.

The client's side comes twice. `ScramExchange` leaves the derivation of the keys, milliseconds of computing that
another may do in a thread or has done before, to its user; `ScramClient` has the password and does it all.

Nothing here does I/O. Nonces and salts are arguments, so that the vectors of the RFC can be replayed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

__all__ = [
    "CHANNEL_BINDING",
    "SCRAM",
    "SCRAM_PLUS",
    "Challenge",
    "ScramClient",
    "ScramError",
    "ScramExchange",
    "ScramKeys",
    "ScramServer",
    "check_client_first",
    "new_nonce",
    "prepare_password",
    "server_end_point",
]

SCRAM: Final = "SCRAM-SHA-256"
SCRAM_PLUS: Final = "SCRAM-SHA-256-PLUS"
CHANNEL_BINDING: Final = "tls-server-end-point"

MAX_MESSAGE: Final = 4096
"""Bytes. Real messages are below 300; the bound keeps a stranger from making us parse more than a packet."""
MAX_ITERATIONS: Final = 1_000_000
"""A server that asks for more (about a second of hashing) could keep us busy for hours."""
_ITERATIONS: Final = 4096  # PostgreSQL's own default (scram_iterations)
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 18

PROTOCOL_VIOLATION: Final = "08P01"
INVALID_AUTHORIZATION: Final = "28000"
INVALID_PASSWORD: Final = "28P01"  # noqa: S105 - an SQLSTATE


class ScramError(Exception):
    """The conversation failed. `sqlstate` and the text are fit for an ErrorResponse and hold no secret."""

    def __init__(self, sqlstate: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail


@dataclass(frozen=True)
class ScramKeys:
    """What a server stores of a password (RFC 5802 section 3), plus the ClientKey that the other side needs."""

    salt: bytes
    iterations: int
    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def derive(cls, password: str, salt: bytes | None = None, iterations: int = _ITERATIONS) -> ScramKeys:
        """Derives the keys. About 3 ms of computing for 4096 iterations."""
        salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
        salted = hashlib.pbkdf2_hmac("sha256", prepare_password(password), salt, iterations)
        return cls(salt, iterations, _hmac(salted, b"Client Key"), _hmac(salted, b"Server Key"))

    @property
    def stored_key(self) -> bytes:
        """H(ClientKey)."""
        return hashlib.sha256(self.client_key).digest()

    def verifier(self) -> str:
        """The text PostgreSQL keeps in pg_authid.rolpassword, and takes in `PASSWORD '…'` in place of a password."""
        stored, server = base64.b64encode(self.stored_key).decode(), base64.b64encode(self.server_key).decode()
        return f"{SCRAM}${self.iterations}:{base64.b64encode(self.salt).decode()}${stored}:{server}"


class ScramServer:
    """The server's side of one conversation: `first`, then `final`.

    `binding` is the channel-binding data where the server has offered PLUS (over TLS), None where it has not. `plus`
    tells which mechanism the client selected. `keys` of a made-up password stand in for an unknown user, so that the
    answers do not tell which users exist.
    """

    def __init__(self, keys: ScramKeys, *, plus: bool, binding: bytes | None, nonce: str | None = None) -> None:
        self._keys = keys
        self._plus = plus
        self._binding = binding
        self._server_nonce = new_nonce() if nonce is None else nonce
        self._gs2 = b""
        self._nonce = ""
        self._auth_prefix = b""

    def first(self, client_first: bytes) -> bytes:
        """Takes the client-first-message, returns the server-first-message. Raises ScramError."""
        self._gs2, bare = _split_gs2(client_first)
        _check_gs2(self._gs2, plus=self._plus, offered=self._binding is not None)
        fields = _fields(bare, ("n", "r"))
        self._nonce = fields["r"] + self._server_nonce
        salt = base64.b64encode(self._keys.salt).decode()
        reply = f"r={self._nonce},s={salt},i={self._keys.iterations}".encode()
        self._auth_prefix = bare + b"," + reply + b","
        return reply

    def final(self, client_final: bytes) -> bytes:
        """Takes the client-final-message, returns the server-final-message. Raises ScramError."""
        fields = _fields(client_final, ("c", "r"))
        if "p" not in fields:
            raise _malformed("the client-final-message has no proof")
        expected = self._gs2 + (self._binding or b"") if self._plus else self._gs2
        if not hmac.compare_digest(_decode(fields["c"]), expected):
            raise ScramError(INVALID_AUTHORIZATION, "SCRAM channel binding check failed")
        if not hmac.compare_digest(fields["r"].encode(), self._nonce.encode()):
            raise _malformed("the nonce of the client-final-message is not the one agreed on")
        without_proof = client_final[: client_final.rindex(b",p=")]
        auth_message = self._auth_prefix + without_proof
        client_key = _xor(_decode(fields["p"]), _hmac(self._keys.stored_key, auth_message))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._keys.stored_key):
            raise ScramError(INVALID_PASSWORD, "password authentication failed")
        return b"v=" + base64.b64encode(_hmac(self._keys.server_key, auth_message))


@dataclass(frozen=True)
class Challenge:
    """What the server wants the keys to be derived with."""

    salt: bytes
    iterations: int


class ScramExchange:
    """The client's side of one conversation without the password: `first`, `challenge`, `prove`, `verify`.

    `binding` given: PLUS. Without it the gs2 flag is `y` where `able` says that we could bind and saw no offer, else
    `n`. PostgreSQL takes the user from the StartupMessage and ignores the one in SCRAM, so libpq sends an empty one.
    """

    def __init__(
        self, *, binding: bytes | None = None, able: bool = False, nonce: str | None = None, username: str = ""
    ) -> None:
        self._binding = binding
        self._client_nonce = new_nonce() if nonce is None else nonce
        self._gs2 = (b"y,," if able else b"n,,") if binding is None else f"p={CHANNEL_BINDING},,".encode()
        name = username.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={name},r={self._client_nonce}".encode()
        self._server_first = b""
        self._nonce = b""
        self._server_signature = b""

    def first(self) -> bytes:
        """The client-first-message."""
        return self._gs2 + self._bare

    def challenge(self, server_first: bytes) -> Challenge:
        """Takes the server-first-message, tells what to derive the keys with. Raises ScramError."""
        fields = _fields(server_first, ("r", "s", "i"))
        if not fields["r"].startswith(self._client_nonce) or fields["r"] == self._client_nonce:
            raise _malformed("the server's nonce does not extend ours")
        iterations = int(fields["i"]) if fields["i"].isascii() and fields["i"].isdigit() else 0
        if not 1 <= iterations <= MAX_ITERATIONS:
            raise _malformed("the server's iteration count is out of range")
        self._server_first, self._nonce = server_first, fields["r"].encode()
        return Challenge(_decode(fields["s"]), iterations)

    def prove(self, keys: ScramKeys) -> bytes:
        """Takes the keys that belong to the challenge, returns the client-final-message."""
        channel = base64.b64encode(self._gs2 + (self._binding or b""))
        without_proof = b"c=" + channel + b",r=" + self._nonce
        auth_message = self._bare + b"," + self._server_first + b"," + without_proof
        self._server_signature = _hmac(keys.server_key, auth_message)
        proof = _xor(keys.client_key, _hmac(keys.stored_key, auth_message))
        return without_proof + b",p=" + base64.b64encode(proof)

    def verify(self, server_final: bytes) -> None:
        """Checks that the server knows the password too. Raises ScramError."""
        if not server_final.startswith(b"v="):
            raise ScramError(INVALID_PASSWORD, "the server refused the password")
        signature = _decode(server_final[2:].decode("ascii", "replace"))
        if not self._server_signature or not hmac.compare_digest(signature, self._server_signature):
            raise ScramError(INVALID_PASSWORD, "the server could not prove that it knows the password")


class ScramClient(ScramExchange):
    """The client's side of one conversation: `first`, `final`, `verify`."""

    def __init__(
        self, password: str, *, binding: bytes | None = None, nonce: str | None = None, username: str = ""
    ) -> None:
        super().__init__(binding=binding, nonce=nonce, username=username)
        self._password = password

    def final(self, server_first: bytes) -> bytes:
        """Takes the server-first-message, returns the client-final-message. Raises ScramError."""
        wanted = self.challenge(server_first)
        return self.prove(ScramKeys.derive(self._password, wanted.salt, wanted.iterations))


def new_nonce() -> str:
    """A fresh nonce: 18 random bytes as base64, which holds no comma."""
    return base64.b64encode(secrets.token_bytes(_NONCE_BYTES)).decode()


def server_end_point(certificate: x509.Certificate) -> bytes:
    """The `tls-server-end-point` data of a server certificate (RFC 5929 section 4.1).

    The hash is that of the certificate's signature, with SHA-256 in place of MD5 and SHA-1. A signature without a hash
    of its own (Ed25519) is undefined in the RFC: SHA-256 too, and libpq refuses to bind to such a certificate.
    """
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    return certificate.fingerprint(algorithm)


def prepare_password(password: str) -> bytes:
    """SASLprep (RFC 4013), as PostgreSQL and libpq do it, because what matters is to come to the same keys.

    Where the password does not obey it, its bytes as they are. Unlike in the RFC, what is prohibited is looked for
    before the normalization; and a zero width space, which is in two tables, becomes a space.
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if stringprep.in_table_c12(char) or not stringprep.in_table_b1(char)
    )
    if not mapped or _prohibited(mapped):
        return password.encode()
    return unicodedata.normalize("NFKC", mapped).encode()


_PROHIBITED = (
    stringprep.in_table_a1,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def _prohibited(text: str) -> bool:
    if any(table(char) for char in text for table in _PROHIBITED):
        return True
    if not any(stringprep.in_table_d1(char) for char in text):
        return False
    # Right-to-left text: no left-to-right letters in it, and it begins and ends with a right-to-left one.
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not ends or any(stringprep.in_table_d2(char) for char in text)


def check_client_first(client_first: bytes, *, plus: bool, offered: bool) -> None:
    """Checks what a client-first-message says of channel binding, as a server over TLS must. Raises ScramError.

    `plus`: the client selected SCRAM-SHA-256-PLUS. `offered`: it had been offered to it.
    """
    gs2, _ = _split_gs2(client_first)
    _check_gs2(gs2, plus=plus, offered=offered)


def _split_gs2(client_first: bytes) -> tuple[bytes, bytes]:
    """Splits a client-first-message into gs2 header (both commas included) and the rest."""
    if len(client_first) > MAX_MESSAGE:
        raise _malformed("the message is too long")
    flag, comma, rest = client_first.partition(b",")
    authzid, second, bare = rest.partition(b",")
    if not comma or not second:
        raise _malformed("the message has no gs2 header")
    if authzid:
        raise ScramError("0A000", "client uses authorization identity, but it is not supported")
    return flag + b",,", bare


def _check_gs2(gs2: bytes, *, plus: bool, offered: bool) -> None:
    flag = gs2[:-2]
    if plus:
        if flag != f"p={CHANNEL_BINDING}".encode():
            raise _malformed(f"{SCRAM_PLUS} was selected, and the message does not bind to {CHANNEL_BINDING}")
    elif flag == b"y":
        if offered:
            raise ScramError(
                INVALID_AUTHORIZATION,
                "SCRAM channel binding negotiation error",
                f"The client says that {SCRAM_PLUS} was not offered, but it was: something between has removed it.",
            )
    elif flag != b"n":
        raise _malformed(f"{SCRAM} was selected, and the message asks for channel binding")


def _fields(message: bytes, order: tuple[str, ...]) -> dict[str, str]:
    """Parses `a=…,b=…`. The fields of `order` must come first, in that order; extensions may follow."""
    if len(message) > MAX_MESSAGE:
        raise _malformed("the message is too long")
    try:
        text = message.decode()
    except UnicodeDecodeError as exc:
        raise _malformed("the message is not UTF-8") from exc
    pairs = [part.partition("=") for part in text.split(",")]
    names = tuple(name for name, _, _ in pairs)
    if names[: len(order)] != order or len(set(names)) != len(names) or not all(equals for _, equals, _ in pairs):
        raise _malformed(f"the message does not begin with the fields {', '.join(order)}")
    if "m" in names:
        raise ScramError("0A000", "SCRAM message with an extension that must be understood and is not")
    fields = {name: value for name, _, value in pairs}
    if not fields["r"] or not fields["r"].isprintable() or not fields["r"].isascii():
        raise _malformed("the nonce is empty or not printable")
    return fields


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _malformed("a field is not base64") from exc


def _malformed(detail: str) -> ScramError:
    return ScramError(PROTOCOL_VIOLATION, "malformed SCRAM message", f"{detail[0].upper()}{detail[1:]}.")


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    if len(left) != len(right):
        raise _malformed("the proof has the wrong length")
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
