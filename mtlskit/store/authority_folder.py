"""A small CA on disk.

    DIR/              0700
      ca.crt          the root: the trust anchor to hand out
      ca.key          0600, its key, encrypted if there is a passphrase
      ledger.jsonl    0600, what was issued and revoked, see `mtlskit.store.ledger`
      issued/         SERIAL.crt for each certificate, for people and other programs
      ca.crl          the current revocation list
      lock            held by whoever changes something

The order of writing makes a kill harmless at any point. A certificate is in the ledger before anybody gets it, and its
copy in `issued/` is made from the ledger, by the next one to hold the lock if need be. A revocation is in the ledger
before it is in the list, and repeating it writes the list. While the folder is being made, a file `unfinished-ca`
stands in it; whoever finds it after a kill may make the CA anew, since nothing was handed out.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.authority import LIST_LIFETIME, ROOT_LIFETIME, Answer, Authority
from mtlskit.pki.certificates import certificates_pem, load_certificates, serial_text, spki_sha256, subject_text
from mtlskit.pki.keys import KeyType, private_key_pem
from mtlskit.pki.profiles import Profile
from mtlskit.pki.requests import load_request
from mtlskit.pki.revocation import Reason
from mtlskit.store.files import PUBLIC, flush_folder, write_file
from mtlskit.store.ledger import Entry, Ledger, State
from mtlskit.store.lock import held

__all__ = ["AuthorityFolder", "RevocationList", "Signed"]

CERT, KEY, LIST, LEDGER, ISSUED, LOCK = "ca.crt", "ca.key", "ca.crl", "ledger.jsonl", "issued", "lock"
_UNFINISHED = "unfinished-ca"
_LEFT_BY_KILL = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # as write_file names what it has not finished

PATIENCE = 30.0
"""Seconds to wait for another process. Each holds the lock for some milliseconds."""

KEPT_ON_LIST = timedelta(days=7)
"""How long a revoked certificate stays on the list when it has expired: the clocks of servers may be wrong."""

_MAX_REQUEST_ID = 256
_MAX_FILE = 64 * 1024 * 1024  # of a list: a million lines


@dataclass(frozen=True)
class Signed:
    """A certificate that was issued. `cert_pem` is the leaf alone, `serial` lower-case hexadecimal."""

    cert_pem: bytes
    serial: str
    notes: tuple[str, ...]
    entry: Entry
    repeated: bool = False
    """It had been issued before, for the same request."""


@dataclass(frozen=True)
class RevocationList:
    """A list as it was written. `pem` is what servers read."""

    pem: bytes
    entries: tuple[Entry, ...]
    next_update: datetime


@dataclass(frozen=True)
class AuthorityFolder:
    """A CA that lives in a folder. Its key is read when it is needed, so that listing asks for no passphrase."""

    folder: Path
    certificate: x509.Certificate
    passphrase: bytes | None = field(default=None, repr=False)

    @classmethod
    def init(
        cls,
        folder: Path,
        subject: x509.Name,
        *,
        now: datetime,
        lifetime: timedelta = ROOT_LIFETIME,
        kind: KeyType = KeyType.EC_P256,
        passphrase: bytes | None = None,
    ) -> AuthorityFolder:
        """Make a CA in a folder that is missing or empty. A half-made one is made anew.

        Raises `IdentityError` (CA_FOLDER_TAKEN, FILE_UNWRITABLE), `StoreError`, and ValueError for an empty subject.
        """
        authority = Authority.self_signed(subject, now=now, lifetime=lifetime, kind=kind)
        _make_folder(folder)
        _refuse_taken(folder)
        with held(folder / LOCK, wait=PATIENCE):
            _refuse_taken(folder)  # somebody else may have been making it
            write_file(folder / _UNFINISHED, b"a CA is being made here\n", replace=True)
            write_file(folder / KEY, private_key_pem(authority.key, passphrase), replace=True)
            _make_folder(folder / ISSUED)
            write_file(folder / LEDGER, b"", replace=True)
            write_file(folder / LIST, authority.revocation_list((), now=now), mode=PUBLIC, replace=True)
            write_file(folder / CERT, authority.cert_pem, mode=PUBLIC, replace=True)
            with _writing(folder):
                (folder / _UNFINISHED).unlink()
            flush_folder(folder)  # it must not come back in a power cut: the CA would be made anew, with another key
        flush_folder(folder.parent)
        return cls(folder, authority.certificate, passphrase)

    @classmethod
    def open(cls, folder: Path, passphrase: bytes | None = None) -> AuthorityFolder:
        """The CA in `folder`. Raises `IdentityError`: CA_FOLDER_MISSING, FILE_UNREADABLE, those of the reader."""
        with suppress(PermissionError):  # of the folder: the read that follows says so
            if (folder / _UNFINISHED).exists():
                raise _no_ca(folder, "holds a CA that was only half made")
        path = folder / CERT
        return cls(folder, load_certificates(_read(path, folder), source=str(path))[0], passphrase)

    def entries(self) -> tuple[Entry, ...]:
        """Every certificate that was issued, oldest first. Raises `StoreError`."""
        return Ledger(self.folder / LEDGER).entries()

    def find(self, serial: str, entries: tuple[Entry, ...] | None = None) -> Entry:
        """The certificate with this serial. Raises `IdentityError` (CA_UNKNOWN_SERIAL) and `StoreError`."""
        for entry in self.entries() if entries is None else entries:
            if entry.serial == serial:
                return entry
        raise IdentityError(
            Code.CA_UNKNOWN_SERIAL,
            f"{self.folder}: this CA has issued no certificate with the serial {serial}",
            f"see what it has issued: mtlskit ca list --dir {self.folder}",
        )

    def sign(
        self,
        csr: bytes,
        profile: Profile,
        *,
        now: datetime,
        lifetime: timedelta | None = None,
        request_id: str | None = None,
        source: str = "the request",
    ) -> Signed:
        """Issue a certificate for a request, as far as the profile's policy grants it.

        The same request with the same `request_id` (at most 256 characters, ValueError) gives the certificate that was
        issued before, while that is valid.
        Raises `IdentityError`: what `Authority.sign_request` does, and those of the CA's own files; `StoreError`.
        """
        if len(request_id or "") > _MAX_REQUEST_ID:
            raise ValueError("the id of a request is a short one")
        # Checked before the lock is taken, and before the key is opened: most of what is wrong is in the request.
        encoded = load_request(csr, source=source).public_bytes(serialization.Encoding.DER)
        request_sha256 = hashlib.sha256(encoded).hexdigest()
        with self._held() as entries:
            wanted = (request_id, request_sha256, profile)
            for entry in reversed(entries) if request_id is not None else ():
                same = (entry.request_id, entry.request_sha256, entry.profile) == wanted
                if same and entry.state(now) is State.VALID:
                    return Signed(_pem(entry), entry.serial, entry.notes, entry, repeated=True)
            answer = self._authority().sign_request(csr, profile, now=now, lifetime=lifetime, source=source)
            entry = _entry(answer, profile, request_sha256, request_id, now)
            Ledger(self.folder / LEDGER).add(entry)
            write_file(self._copy(entry), answer.cert_pem, mode=PUBLIC, replace=True)
        return Signed(answer.cert_pem, entry.serial, entry.notes, entry)

    def revoke(
        self,
        serial: str,
        *,
        now: datetime,
        reason: Reason = Reason.UNSPECIFIED,
        lifetime: timedelta = LIST_LIFETIME,
    ) -> Entry:
        """Revoke a certificate and write the list anew. One that is revoked already keeps its date and its reason.

        Raises `IdentityError` (CA_UNKNOWN_SERIAL, those of the CA's own files) and `StoreError`.
        """
        with self._held() as entries:
            found = self.find(serial, entries)
            authority = self._authority()  # opened first: a wrong passphrase changes nothing
            if found.revoked_at is None:
                Ledger(self.folder / LEDGER).revoke(serial, now, reason)
                entries = self.entries()
            self._write_list(authority, entries, now, lifetime)
        return self.find(serial, entries)

    def write_list(self, now: datetime, lifetime: timedelta = LIST_LIFETIME) -> RevocationList:
        """Write the list anew, good until `now + lifetime`. Raises `IdentityError` and `StoreError`."""
        with self._held() as entries:
            return self._write_list(self._authority(), entries, now, lifetime)

    def list_lasts_until(self) -> datetime | None:
        """The next update that `ca.crl` promises; None where there is no list that can be read."""
        found = self._list()
        return found.next_update_utc if found is not None else None

    def unlisted(self, entries: tuple[Entry, ...], now: datetime) -> tuple[Entry, ...]:
        """Which of `entries` are revoked and not on `ca.crl`: the list was lost, or a kill came between."""
        found = self._list()
        listed = {revoked.serial_number for revoked in found} if found is not None else set()
        return tuple(entry for entry in _to_be_listed(entries, now) if int(entry.serial, 16) not in listed)

    def _write_list(
        self, authority: Authority, entries: tuple[Entry, ...], now: datetime, lifetime: timedelta
    ) -> RevocationList:
        listed = _to_be_listed(entries, now)
        lines = [line for entry in listed if (line := entry.revoked()) is not None]
        pem = authority.revocation_list(lines, now=now, lifetime=lifetime, above=self._list_number())
        write_file(self.folder / LIST, pem, mode=PUBLIC, replace=True)
        ends = x509.load_pem_x509_crl(pem).next_update_utc
        return RevocationList(pem, listed, ends or now + lifetime)

    def _list(self) -> x509.CertificateRevocationList | None:
        with suppress(OSError, ValueError), (self.folder / LIST).open("rb") as file:
            return x509.load_pem_x509_crl(file.read(_MAX_FILE))
        return None

    def _list_number(self) -> int:
        found = self._list()
        with suppress(x509.ExtensionNotFound, ValueError):
            if found is not None:
                return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        return 0

    def _authority(self) -> Authority:
        cert, key = self.folder / CERT, self.folder / KEY
        return Authority.load(
            _read(cert, self.folder),
            _read(key, self.folder, private=True),
            source=str(cert),
            key_source=str(key),
            passphrase=self.passphrase,
        )

    @contextmanager
    def _held(self) -> Iterator[tuple[Entry, ...]]:
        """The lock, and the entries. What a kill has left undone is done first."""
        with held(self.folder / LOCK, wait=PATIENCE):
            for folder in (self.folder, self.folder / ISSUED):
                _remove_leftovers(folder)
            entries = self.entries()
            copies = _names(self.folder / ISSUED)
            for entry in entries:
                if self._copy(entry).name not in copies:
                    _make_folder(self.folder / ISSUED)
                    write_file(self._copy(entry), _pem(entry), mode=PUBLIC, replace=True)
            yield entries

    def _copy(self, entry: Entry) -> Path:
        return self.folder / ISSUED / f"{entry.serial}.crt"


def _entry(answer: Answer, profile: Profile, request_sha256: str, request_id: str | None, now: datetime) -> Entry:
    certificate = answer.certificate
    return Entry(
        serial=serial_text(certificate),
        subject=subject_text(certificate) if list(certificate.subject) else "",
        profile=profile,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        spki_sha256=b64encode(spki_sha256(certificate)).decode("ascii"),
        request_sha256=request_sha256,
        request_id=request_id,
        issued_at=now.astimezone(UTC).replace(microsecond=0),
        notes=answer.notes,
        certificate=certificate.public_bytes(serialization.Encoding.DER),
    )


def _to_be_listed(entries: tuple[Entry, ...], now: datetime) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry.revoked_at is not None and now < entry.not_after + KEPT_ON_LIST)


def _pem(entry: Entry) -> bytes:
    return certificates_pem([x509.load_der_x509_certificate(entry.certificate)])


def _names(folder: Path) -> set[str]:
    if not folder.exists():
        return set()
    with _writing(folder):
        return set(os.listdir(folder))  # noqa: PTH208 - names alone, of which there may be a hundred thousand


def _remove_leftovers(folder: Path) -> None:
    for name in _names(folder):
        if _LEFT_BY_KILL.fullmatch(name):
            with suppress(OSError):
                (folder / name).unlink()


def _make_folder(folder: Path) -> None:
    with _writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name != "nt" and not _names(folder):
            folder.chmod(0o700)


def _refuse_taken(folder: Path) -> None:
    names = {name for name in _names(folder) - {LOCK} if not _LEFT_BY_KILL.fullmatch(name)}
    if names and _UNFINISHED not in names:
        what = "holds a CA already" if CERT in names else "is not empty"
        raise IdentityError(
            Code.CA_FOLDER_TAKEN, f"{folder} {what}, and nothing was written", "name another folder with --dir"
        )


def _no_ca(folder: Path, what: str) -> IdentityError:
    return IdentityError(
        Code.CA_FOLDER_MISSING,
        f"{folder} {what}",
        f"name the folder of a CA, or make one: mtlskit ca init --dir {folder} --subject CN=NAME",
    )


def _read(path: Path, folder: Path, *, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(_MAX_FILE)
    except FileNotFoundError as exc:
        raise _no_ca(folder, f"holds no CA: there is no {path.name} in it") from exc
    except (OSError, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise IdentityError(
            Code.FILE_UNREADABLE, f"{path}: cannot be read: {reason}", f"see `ls -ld {folder} {path}`"
        ) from exc
    if private and os.name == "posix" and mode & 0o007:
        raise IdentityError(
            Code.KEY_EXPOSED,
            f"{path}: the CA's key is open to every user of this host (mode {stat.S_IMODE(mode):04o})",
            f"chmod 600 {path}; if others have had a login here, the CA has to be replaced",
        )
    return data


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as exc:  # ValueError: the path has a null character in it
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise IdentityError(
            Code.FILE_UNWRITABLE,
            f"{path}: cannot be written: {reason}",
            f"check that the folder is there, has room, and is yours to write to; see `ls -ld {path.parent}`",
        ) from exc
