"""A proxy does what the file said when it was started: what it does otherwise than the file says by now.

Only as far as its status tells: where it listens, where it leads, and with which certificate. Where these differ, the
other layers have looked at a way that no client takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from mtlskit.config.values import ListenAddress, TunnelKind, UnixAddress
from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.finding import Finding, Layer, Verdict, failed, warned
from mtlskit.doctor.local.commands import mended_first, restart_commands
from mtlskit.doctor.local.proxies import Found, Served, covers, same_path
from mtlskit.errors import Code, DoctorError
from mtlskit.pki.certificates import fingerprint_sha256
from mtlskit.telemetry.logs import printable

__all__ = ["Difference", "about_file", "changed", "differences", "has_moved"]

_LONG: Final = 400
"""Characters of what a proxy says."""


@dataclass(frozen=True)
class Difference:
    """One thing in which the running tunnel is another than the one of the file."""

    key: str
    """For scripts, and as the file has it: listen, upstream, cert."""
    running: str
    file: str
    words: tuple[str, str]
    """What the proxy does, and what the file does: ("leads to", "to")."""

    def __str__(self) -> str:
        return f"{self.words[0]} {self.running}, the file {self.words[1]} {self.file}"


def changed(served: Served) -> bool:
    """The proxy was started from this file, and the file says something else since."""
    return not served.other_file and bool(served.status.get("config_changed"))


def differences(case: Case, identified: Identified, served: Served) -> tuple[Difference, ...]:
    """None for a proxy of another file: it is asked only whether it leads to the same place."""
    if served.other_file:
        return ()
    found = (_listen(case, served), *_way(case, served.tunnel), _certificate(case, identified, served.tunnel))
    return tuple(each for each in found if each is not None)


def has_moved(case: Case, served: Served) -> bool:
    """By the file clients should come to where this tunnel does not listen."""
    return (
        changed(served)
        and bool(served.addresses)
        and getattr(case.tunnel.listen, "port", None) != 0
        and not any(covers(case.tunnel.listen, each) for each in served.addresses)
    )


def about_file(
    case: Case, found: Found, served: Served, differing: Sequence[Difference], there: Sequence[Finding]
) -> Finding | None:
    """Whether the proxy does as the file says. `there`: who has the address of a tunnel that has moved."""
    about, check = str(case.config.source), "local.config"
    facts: dict[str, Any] = {"differs": {each.key: {"running": each.running, "file": each.file} for each in differing}}
    if not differing:
        return _otherwise_changed(case, served) if changed(served) else None
    sentence = _sentence(case, found, served, differing, there)
    if not changed(served):
        hint = "the file is as it was at the start: a variable or the home folder in it is another one here than there"
        return warned(Layer.LOCAL, check, DoctorError(Code.LOCAL_OLD_CONFIG, sentence, hint), about=about, **facts)
    hint = mended_first(case, "restart the proxy for what is new in the file")
    error = DoctorError(Code.LOCAL_OLD_CONFIG, sentence, hint)
    served_there = bool(there) and all(each.verdict is not Verdict.FAIL for each in there)
    make = warned if served_there and all(each.key == "listen" for each in differing) else failed
    return make(Layer.LOCAL, check, error, about=about, commands=restart_commands(case, served.pid), **facts)


def _otherwise_changed(case: Case, served: Served) -> Finding:
    error = DoctorError(
        Code.LOCAL_OLD_CONFIG,
        f"{case.config.source} has changed since process {served.pid} was started, which does as it said then",
        mended_first(case, "restart the proxy for what is new in the file"),
    )
    commands = restart_commands(case, served.pid)
    return warned(Layer.LOCAL, "local.config", error, about=str(case.config.source), commands=commands)


def _sentence(
    case: Case, found: Found, served: Served, differing: Sequence[Difference], there: Sequence[Finding]
) -> str:
    others = [each for each in differing if each.key != "listen"]
    if not has_moved(case, served):
        return f"the running proxy (process {served.pid}) {'; it '.join(map(str, differing))}"
    at = f"the file says {case.tunnel.listen}"
    if found.stranger is not None and found.stranger.pid == served.pid:
        at += f", where its tunnel {_short(found.stranger.tunnel.get('name'))} listens"
    elif not there:
        at += ", where nothing listens"
    still = f"process {served.pid} still serves {case.name} on {_listed(served.addresses)}"
    return "; ".join((at, still, *(f"it {each}" for each in others)))


def _listen(case: Case, served: Served) -> Difference | None:
    """Port 0 is any. What is open to more hosts or fewer than the file says counts, too."""
    wanted, there = case.tunnel.listen, served.addresses
    if not there or getattr(wanted, "port", None) == 0 or any(_is(wanted, each) for each in there):
        return None
    return Difference("listen", _listed(there), str(wanted), ("listens on", "says"))


def _is(wanted: ListenAddress, there: ListenAddress) -> bool:
    """Of localhost a host may have one family only."""
    if isinstance(wanted, UnixAddress) or isinstance(there, UnixAddress):
        return covers(wanted, there)
    hosts = ("127.0.0.1", "::1") if wanted.host == "localhost" else (wanted.host,)
    return wanted.port == there.port and _ip(there.host) in map(_ip, hosts)


def _ip(host: str) -> str:
    """One spelling for each address."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host


def _way(case: Case, tunnel: Mapping[str, Any]) -> Iterator[Difference]:
    """What it speaks, and where it leads. Of an add-on's address Heroku has the say, and not the file."""
    kind, addon, upstream = tunnel.get("kind"), tunnel.get("addon"), tunnel.get("upstream")
    if isinstance(kind, str) and kind != case.kind.value:
        yield Difference("kind", _short(kind), case.kind.value, ("speaks", "says"))
    theirs = addon.get("name") if isinstance(addon, Mapping) else None
    if theirs is None and case.tunnel.addon is None:
        wanted = [str(each) for each in case.tunnel.upstream]
        if isinstance(upstream, list) and upstream and sorted(map(str, upstream)) != sorted(wanted):
            yield Difference("upstream", _listed(upstream), ", ".join(wanted), ("leads to", "to"))
        return
    if theirs != case.tunnel.addon:
        running = _listed(upstream if isinstance(upstream, list) else ()) if theirs is None else f"heroku:{theirs}"
        file = ", ".join(map(str, case.tunnel.upstream)) if case.tunnel.addon is None else f"heroku:{case.tunnel.addon}"
        yield Difference("upstream", _short(running), file, ("leads to", "to"))
    elif isinstance(addon, Mapping) and case.kind is TunnelKind.POSTGRES:
        for key, wanted_word in (("credential", case.tunnel.credential), ("login", case.tunnel.login.value)):
            word = addon.get(key)
            if isinstance(word, str) and word != wanted_word:
                yield Difference(key, _short(word), wanted_word, (f"has {key}", "says"))


def _certificate(case: Case, identified: Identified, tunnel: Mapping[str, Any]) -> Difference | None:
    """Other files with the same certificate in them make no difference to anybody."""
    identity = tunnel.get("identity")
    theirs = identity.get("cert") if isinstance(identity, Mapping) else None
    if not isinstance(identity, Mapping) or not isinstance(theirs, str):
        return None
    wanted = case.tunnel.identity.cert.absolute()
    if same_path(theirs, wanted):
        return None
    pair = identified.pair
    if pair is not None and identity.get("fingerprint_sha256") == fingerprint_sha256(pair.leaf).hex():
        return None
    return Difference("cert", _short(theirs), str(wanted), ("serves the certificate of", "names"))


def _listed(values: Sequence[object]) -> str:
    return _short(", ".join(map(str, values)))


def _short(value: object) -> str:
    return "" if value is None else printable(str(value)[:_LONG])
