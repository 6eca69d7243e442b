"""Inside Postgres: how one logs in, whether we can, and how it goes there.

One session for everything. Without a user, one is made up of the certificate's common name: what the server wants of
it, and whether it takes anybody at all, is seen even so, and nothing else that it says of it counts as a failure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

import trio
from cryptography.x509.oid import NameOID

from mtlskit.config.values import Endpoint, Login, Negotiation
from mtlskit.doctor.case import Case, Credentials, Identified
from mtlskit.doctor.checks.revocation import revoked_server
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.postgres.credentials import Found, find_credentials
from mtlskit.doctor.postgres.inside import Inside
from mtlskit.doctor.postgres.refusals import Refusal, refusal_of
from mtlskit.doctor.postgres.session import CLEAR_TEXT, MD5, Entry, Session
from mtlskit.errors import Code, IdentityError, MtlskitError, UpstreamError, UpstreamLost, UpstreamRefusedUs
from mtlskit.net.dial import POSTGRES_ALPN
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from mtlskit.pki.certificates import bounded_text
from mtlskit.wire.postgres.scram import SCRAM, SCRAM_PLUS

__all__ = ["look_inside_postgres"]

_METHODS, _LOGIN, _CERTIFICATE = "postgres.methods", "postgres.login", "postgres.certificate"
_INSIDE = "postgres.inside"
"""Stands for all that needs a session, where there is none."""
_ANY_DATABASE = "postgres"
"""Where a made-up user knocks: nearly every server has it (PostgreSQL docs, "Template Databases")."""


async def look_inside_postgres(
    case: Case, endpoint: Endpoint, identified: Identified, credentials: Credentials | None
) -> tuple[Finding, ...]:
    """Layer POSTGRES. `identified.snapshot` is there. `credentials` are the add-on's; else it finds some itself."""
    snapshot = identified.snapshot
    if snapshot is None:
        return (skipped(Layer.POSTGRES, _LOGIN, "identity", about=str(endpoint)),)
    found = await trio.to_thread.run_sync(find_credentials, case, endpoint, credentials, abandon_on_cancel=True)
    common_name = _common_name(snapshot)
    who = found.credentials or Credentials(common_name or "mtlskit", _ANY_DATABASE, source="")
    visit = _Visit(case, endpoint, snapshot, found, who, common_name)
    try:
        session = await Session.open(case, endpoint, snapshot)
    except UpstreamError as exc:
        return (failed(Layer.POSTGRES, "postgres.connect", exc, about=str(endpoint)),)
    polite = False
    try:
        # What is looked up is the certificate of this session: behind one name there may be servers with several.
        try:
            revoked = await revoked_server(case, session.chain)
        except IdentityError as exc:  # it cannot be read, so nobody knows whose it is
            return (warned(Layer.POSTGRES, _LOGIN, exc, about=str(endpoint)),)
        if revoked is not None:
            return revoked, *_not_entered(endpoint, revoked)
        findings = await visit.run(session)
        polite = True
    finally:
        await session.close(politely=polite)
    return findings


def _not_entered(endpoint: Endpoint, revoked: Finding) -> tuple[Finding, ...]:
    """Somebody else may have the key of that server: it is told no user and no password."""
    return tuple(
        skipped(Layer.POSTGRES, check, revoked.check, about=str(endpoint), seen="no login: its certificate is revoked")
        for check in (_LOGIN, _INSIDE)
    )


@dataclass(frozen=True)
class _Visit:
    """One session, and what is made of it."""

    case: Case
    endpoint: Endpoint
    snapshot: IdentitySnapshot
    found: Found
    who: Credentials
    common_name: str

    @property
    def made_up(self) -> bool:
        """Nobody has named a user."""
        return self.found.credentials is None

    @property
    def about(self) -> str:
        return str(self.endpoint)

    @property
    def user(self) -> str:
        return bounded_text(self.who.user) + (" (made up from the certificate)" if self.made_up else "")

    async def run(self, session: Session) -> tuple[Finding, ...]:
        broken: UpstreamError | None = None
        try:
            await session.enter(self.who, self.case.tunnel.login, older=not self.found.doubt)
        except UpstreamError as exc:
            broken = exc
        except ValueError:  # a NUL, or bytes that are no text: the protocol has no way to say them
            broken = UpstreamRefusedUs(
                Code.PG_LOGIN_REFUSED,
                f"the user, the database or the password of {self.who.source} cannot be sent to a server",
                "look at the variables, or at the password file: something in them is no text",
            )
        entry = session.entry
        findings = [*self._trouble(entry)]
        if entry.asked or entry.accepted:
            findings.append(self._methods(entry))
        if not entry.ready:
            rest = skipped(Layer.POSTGRES, _INSIDE, _LOGIN, about=self.about)
            return (*findings, self._not_in(entry, broken), rest)
        inside = Inside(self.case, self.endpoint, session, self.snapshot.serial)
        findings.append(self._in(entry, None if entry.used else await inside.system_user()))
        findings += await inside.look()
        if inside.certificate_unseen:
            demanded = await self._demanded()
            findings = [self._unseen(each, demanded) if each.check == _CERTIFICATE else each for each in findings]
        return tuple(findings)

    def _trouble(self, entry: Entry) -> tuple[Finding, ...]:
        """A password file that would have helped, where a password was wanted."""
        trouble = self.found.trouble
        if trouble is None or not entry.lacking:
            return ()
        return (warned(Layer.POSTGRES, "postgres.passfile", trouble, about=self.about, commands=_chmod(trouble)),)

    def _methods(self, entry: Entry) -> Finding:
        """What the server wants of this user, and what becomes of it on the way."""
        facts: dict[str, Any] = {"asked": [bounded_text(each) for each in entry.asked], "user": self.user}
        asked = " or ".join(bounded_text(each) for each in entry.asked)
        if not entry.asked:
            seen = f"asks {self.user} for no password: it trusts, or goes by the certificate"
            return passed(Layer.POSTGRES, _METHODS, f"the server {seen}", about=self.about, **facts)
        if {CLEAR_TEXT, MD5} & set(entry.asked):
            return self._weak(asked, facts)
        by_proxy = self.case.tunnel.login is not Login.CLIENT
        if set(entry.asked) == {SCRAM_PLUS} and not by_proxy:
            error = UpstreamRefusedUs(
                Code.PG_ONLY_CHANNEL_BINDING,
                f"the server offers {self.user} nothing but {SCRAM_PLUS}, which no client behind the tunnel can use",
                "let it offer SCRAM-SHA-256 as well, or connect directly",
            )
            return failed(Layer.POSTGRES, _METHODS, error, about=self.about, **facts)
        seen = f"the server asks {self.user} for {asked}"
        if SCRAM_PLUS in entry.asked and not by_proxy:
            seen += f"; the tunnel takes {SCRAM_PLUS} out of the offer, as its clients cannot bind to our TLS"
        return passed(Layer.POSTGRES, _METHODS, seen, about=self.about, **facts)

    def _weak(self, asked: str, facts: dict[str, Any]) -> Finding:
        error = UpstreamRefusedUs(
            Code.PG_WEAK_LOGIN,
            f"the server asks {self.user} for {asked}",
            "TLS protects it on the way, the server's memory does not: with password_encryption = 'scram-sha-256', set"
            " the password anew, and write scram-sha-256 in pg_hba.conf",
        )
        return warned(Layer.POSTGRES, _METHODS, error, about=self.about, **facts)

    def _in(self, entry: Entry, system_user: str | None) -> Finding:
        """The login has succeeded: how."""
        if entry.used == SCRAM_PLUS:
            how = f"{SCRAM_PLUS}, bound to the server's certificate (tls-server-end-point)"
        elif entry.used:
            how = entry.used
        else:
            kind = (system_user or "").partition(":")[0]
            how = f"its certificate ({bounded_text(kind)})" if kind else "no password"
        facts: dict[str, Any] = {
            "user": self.user,
            "database": bounded_text(self.who.database),
            "method": entry.used or how,
        }
        if entry.used:
            facts["source"] = self.who.source
        seen = f"{self.user} is let into {facts['database']} by {how}"
        if self.who.source and entry.used:
            seen += f"; user and password are from {bounded_text(self.who.source)}"
        return passed(Layer.POSTGRES, _LOGIN, seen, about=self.about, **facts)

    def _not_in(self, entry: Entry, broken: UpstreamError | None) -> Finding:
        if broken is not None:
            return failed(Layer.POSTGRES, _LOGIN, broken, about=self.about)
        if entry.refusal is not None:
            return self._refused(entry)
        if not self.who.password:
            return skipped(Layer.POSTGRES, _LOGIN, self.found.missing, about=self.about, seen="not tried")
        if entry.withheld:
            return self._withheld(entry)
        if self.case.tunnel.login is Login.CLIENT:
            asked = " or ".join(bounded_text(each) for each in entry.asked)
            because = f"no login by {asked}"
            seen = f"not tried: mtlskit does not speak {asked}; clients may"
            return skipped(Layer.POSTGRES, _LOGIN, because, about=self.about, seen=seen)
        asked = " or ".join(bounded_text(each) for each in entry.asked) or "no mechanism"
        error = UpstreamRefusedUs(
            Code.PG_LOGIN_METHOD,
            f"the server asks for {asked}, and the proxy logs in with SCRAM-SHA-256 only",
            'an old password may be stored as an MD5 hash: rotate the credential, or set login = "client"',
        )
        rotate = (f"heroku pg:credentials:rotate {self.case.tunnel.addon}",) if self.case.tunnel.addon else ()
        return failed(Layer.POSTGRES, _LOGIN, error, about=self.about, commands=rotate)

    def _withheld(self, entry: Entry) -> Finding:
        """The server would learn a password that may be another's."""
        because = f"no login by {entry.asked[0]}"
        seen = (
            f"not tried: the server asks for {entry.asked[0]}, and {bounded_text(self.found.doubt)};"
            f" if it is this one's, set PGHOST={bounded_text(self.endpoint.host)} and PGPORT={self.endpoint.port}"
        )
        return skipped(Layer.POSTGRES, _LOGIN, because, about=self.about, seen=seen)

    def _refused(self, entry: Entry) -> Finding:
        fields = entry.refusal
        assert fields is not None  # noqa: S101 - asked before
        refusal: Refusal = refusal_of(
            fields,
            where=self.about,
            who=self.who,
            common_name=self.common_name,
            password_known=entry.proven,
            by_scram=entry.used in (SCRAM, SCRAM_PLUS),
            key=str(self.case.identity.key) if self.case.identity else "",
        )
        if self.made_up and refusal.about_user:
            seen = f"not tried; of {self.user} the server says: {refusal.error.sentence}"
            return skipped(Layer.POSTGRES, _LOGIN, self.found.missing, about=self.about, seen=seen)
        error, tell = refusal.error, failed
        if not self.found.sure and refusal.about_user:
            hint = f"PGUSER and PGPASSWORD may be for another server: set PGHOST and PGPORT as well; {error.hint}"
            error, tell = type(error)(error.code, error.sentence, hint), warned
        return tell(
            Layer.POSTGRES,
            _LOGIN,
            error,
            about=self.about,
            commands=refusal.commands if self.case.of_file else (),  # they would not know these flags
            sqlstate=bounded_text(fields.sqlstate[:5]),
        )

    async def _demanded(self) -> bool:
        """Whether something on the way insists on a client certificate, though the server itself has not seen ours."""
        identity = self.case.identity
        if identity is None:
            return False
        try:
            stranger = await trio.to_thread.run_sync(self._without_certificate, abandon_on_cancel=True)
            session = await Session.open(self.case, self.endpoint, stranger)
        except MtlskitError:
            return True
        try:
            await session.enter(Credentials(self.who.user, self.who.database), Login.CLIENT)
        except UpstreamLost:
            return True  # cut off: under TLS 1.3 the refusal comes after the handshake
        except UpstreamRefusedUs:
            return True
        except (UpstreamError, ValueError):
            return False
        else:
            return False
        finally:
            await session.close(politely=session.entry.ready)

    def _without_certificate(self) -> IdentitySnapshot:
        identity = self.case.identity
        assert identity is not None  # noqa: S101 - asked before
        used = self.snapshot
        alpn = _alpn_of(self.case)
        return load_snapshot(identity, verify=used.verify, alpn=alpn, now=self.case.means.now(), show=False)

    def _unseen(self, finding: Finding, demanded: bool) -> Finding:
        """The server has not seen our certificate: a gateway may have looked at it, and else nobody has."""
        if demanded:
            return replace(finding, seen=f"{finding.seen}; what stands before it insists on a client certificate")
        error = UpstreamRefusedUs(
            Code.PG_CERTIFICATE_UNUSED,
            f"{self.endpoint} has seen no client certificate in this session, and lets clients without one come as far",
            "on the server, ssl_ca_file names the CA of the clients, and clientcert=verify-ca in pg_hba.conf demands a"
            " certificate",
        )
        return warned(Layer.POSTGRES, _CERTIFICATE, error, about=self.about, **finding.facts)


def _alpn_of(case: Case) -> tuple[str, ...]:
    return (POSTGRES_ALPN,) if case.tunnel.negotiation is Negotiation.DIRECT else ()


def _chmod(trouble: MtlskitError) -> tuple[str, ...]:
    path, colon, _ = trouble.sentence.partition(": ")
    return (f"chmod 600 {quote(path)}",) if colon and path.isprintable() else ()


def _common_name(snapshot: IdentitySnapshot) -> str:
    names = snapshot.pair.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    return name if name.isprintable() and len(name) <= 63 else ""
