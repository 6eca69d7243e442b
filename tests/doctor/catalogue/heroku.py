"""Faults of Heroku's side: the sandbox's API and its gateway, which obeys that API, before a real PostgreSQL."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from mtlskit.config.values import HerokuConfig
from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_file, from_flags, heroku_door
from mtlskit.errors import Code
from mtlskit.heroku.data_values import WaitStatus
from mtlskit.pki.certificates import load_certificates, serial_text, spki_sha256, subject_text
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.credentials import ClientIdentity
from mtlskit.sandbox.space import SpaceOptions
from mtlskit.store.identities import Material, Store, VersionFacts
from tests.doctor.catalogue.base import Fault, Stage
from tests.support.space import RunningSpace, running_space, until

FAST: Final = 100_000.0
"""So fast that nothing takes time."""
SLOW: Final = 0.001
"""So slow that nothing ever is done."""
OUTSIDE: Final = "203.0.113.9"
"""Where the space sees this host come from, once it has moved."""

SILENT: Final = frozenset({Code.TLS_TIMEOUT, Code.TCP_TIMEOUT, Code.UPSTREAM_CLOSED})
"""How it ends where the gateway says nothing."""

Break = Callable[[RunningSpace], None]


@dataclass(frozen=True)
class Setting:
    """What is built for one fault."""

    api: Mapping[str, Any]
    upstream: str = "heroku:{addon}"
    """What the tunnel leads to; {addon}, {kafka}, {common} and {gateway} are filled in."""
    environ: Mapping[str, str | None] | None = None
    breaks: Break | None = None
    kind: str = "postgres"
    certificate: Callable[[RunningSpace, Path], ClientIdentity] | None = None
    issuer: bool = False
    """The identity is from the add-on, by a file; the upstream is not."""
    keys: str = ""
    """More of the tunnel's keys, by a file."""
    wrap: Callable[[Any], Any] | None = None
    """Stands before the API: for what the sandbox's does not say."""


def means_of(environ: Mapping[str, str], wrap: Callable[[Any], Any] | None = None) -> Means:
    """Short steps, with the APIs of `environ`."""
    door = heroku_door(HerokuConfig(), environ)

    @asynccontextmanager
    async def wrapped() -> AsyncIterator[Any]:
        async with door() as heroku:
            yield heroku if wrap is None else wrap(heroku)

    return Means(environ=environ, heroku=wrapped, step=2, deadline=10)


@contextmanager
def broken(stage: Stage, setting: Setting) -> Iterator[Gathered]:
    """A space of its own before the shared database, a tunnel to it, and what breaks it."""
    shared: RunningSpace = stage.fixture("shared_space")
    api = replace(ApiOptions(speed_up=FAST), **setting.api)
    with running_space(SpaceOptions(stage.folder / "space", shared.space.direct_url, api=api)) as live:
        client = live.space.client if setting.certificate is None else setting.certificate(live, stage.folder)
        if setting.breaks is not None:
            setting.breaks(live)
        environ = {
            name: value for name, value in live.space.environment().items() if name.startswith(("HEROKU", "MTLSKIT_"))
        }
        for name, value in (setting.environ or {}).items():
            environ.pop(name, None)
            if value is not None:
                environ[name] = value
        yield _gathered(live, stage.folder, client, setting, means_of(environ, setting.wrap))


def _gathered(live: RunningSpace, folder: Path, client: ClientIdentity, setting: Setting, means: Means) -> Gathered:
    upstream = setting.upstream.format(
        addon=live.space.addon,
        kafka=live.space.kafka_addon,
        common=live.space.addon.replace("sandbox", "common"),
        gateway=str(live.space.gateway_address),
    )
    if not setting.issuer and not setting.keys:
        files = {"cert": str(client.cert), "key": str(client.key), "ca": str(live.space.ca)}
        return from_flags({"kind": setting.kind, "upstream": [upstream], **files}, means)
    path = folder / "mtlskit.toml"
    issuer = f'issuer = "heroku"\naddon = "{live.space.addon}"\n' if setting.issuer else ""
    files_of = "" if setting.issuer else f'cert = "{client.cert}"\nkey = "{client.key}"\n'
    if setting.issuer:
        stored(folder / "identities", client)
    path.write_text(
        f'[identity.app]\n{issuer}{files_of}ca = "{live.space.ca}"\n\n'
        f'[tunnel.reporting]\nkind = "{setting.kind}"\nlisten = "127.0.0.1:0"\nidentity = "app"\n'
        f'upstream = "{upstream}"\n{setting.keys}'
    )
    gathered = from_file(path, [], means)
    # The local side has faults of its own.
    return replace(gathered, cases=tuple(replace(case, of_file=False) for case in gathered.cases))


def stored(store: Path, client: ClientIdentity) -> None:
    """As the store keeps a pair that was imported."""
    chain = client.cert.read_bytes()
    leaf = load_certificates(chain, source="the space's client")[0]
    facts = VersionFacts(
        issuer="heroku",
        serial=serial_text(leaf),
        subject=subject_text(leaf),
        not_before=leaf.not_valid_before_utc.isoformat(),
        not_after=leaf.not_valid_after_utc.isoformat(),
        spki_sha256=spki_sha256(leaf).hex(),
        created_at=datetime.now(UTC).isoformat(),
    )
    identity = Store(store).identity("app")
    identity.switch(identity.stage(Material(chain, client.key.read_bytes()), facts))


# What breaks it.


def enable(live: RunningSpace) -> None:
    live.call("POST", live.endpoint(), status=201)


def disable(live: RunningSpace) -> None:
    live.call("DELETE", live.endpoint(), status=202)


def moved(live: RunningSpace) -> None:
    live.call("POST", "/sandbox/move", {"from": "127.0.0.1", "to": OUTSIDE}, status=200)


def switched_on(*faults: str, then: Break | None = None) -> Break:
    """Faults of the sandbox, as `--fault` has them."""

    def breaks(live: RunningSpace) -> None:
        for fault in faults:
            name, *details = fault.split(",")
            kind, _, value = name.partition("=")
            more = dict(detail.split("=") for detail in details)
            body: dict[str, Any] = {"name": kind, "value": value, **more}
            live.call("POST", "/sandbox/faults", body, status=201)
        if then is not None:
            then(live)

    return breaks


def rule_that_waits(live: RunningSpace) -> None:
    moved(live)
    live.call("POST", live.endpoint("/ip-rules"), {"cidr": f"{OUTSIDE}/32", "description": "office"}, status=201)


def handed_out(live: RunningSpace, folder: Path) -> ClientIdentity:
    """A certificate of the API's, saved to files."""
    made = live.call("POST", live.endpoint("/certificates"), {}, status=201)["id"]
    one = live.endpoint(f"/certificates/{made}")
    until(lambda: bool(live.call("GET", one, status=200)["status"] == "ready"))
    found = live.call("GET", one, status=200)
    identity = ClientIdentity(folder / "their.crt", folder / "their.key", 0)
    identity.cert.write_text(found["certificate_with_chain"])
    identity.key.touch(0o600)
    identity.key.write_text(found["private_key"])
    return identity


def handed_out_and_deleted(live: RunningSpace, folder: Path) -> ClientIdentity:
    """The same, and then every certificate is deleted there."""
    identity = handed_out(live, folder)
    for each in live.call("GET", live.endpoint("/certificates"), status=200):
        if each["status"] == "ready":
            live.call("DELETE", live.endpoint(f"/certificates/{each['id']}"), status=202)
    return identity


def kafka_pair_before_a_reset(live: RunningSpace, folder: Path) -> ClientIdentity:
    """The Kafka add-on's pair, saved to files, and then its credentials are reset."""
    identity = ClientIdentity(folder / "their.crt", folder / "their.key", 0)
    for source, target in zip(live.space.kafka_pair, (identity.cert, identity.key), strict=True):
        shutil.copy(source, target)
        target.chmod(0o600)
    path = f"/data/kafka/v0/clusters/{live.space.kafka_addon}/rotate-credentials"
    live.call("POST", path, status=200)
    return identity


def closed_port() -> str:
    """An address of this host on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"http://127.0.0.1:{found.getsockname()[1]}"


def says_of_itself(message: str, *, failed: bool = True) -> Callable[[Any], Any]:
    """The API, but for what it says of the add-on's condition."""

    def wrap(heroku: Any) -> Any:
        async def wait_status(addon: str, kind: Any) -> WaitStatus:
            await heroku.data.wait_status(addon, kind)
            return WaitStatus(waiting=not failed, message=message, failed=failed)

        names = ("tls_endpoint", "certificates", "certificate", "ip_rules", "credential", "kafka_cluster")
        data = SimpleNamespace(wait_status=wait_status, **{name: getattr(heroku.data, name) for name in names})
        return SimpleNamespace(platform=heroku.platform, data=data)

    return wrap


def _fault(
    id: str,  # noqa: A002 - its name
    title: str,
    code: Code,
    *,
    also: frozenset[Code] = frozenset(),
    verdict: Verdict = Verdict.FAIL,
    seen: str = "",
    warnings: frozenset[Code] = frozenset(),
    api: Mapping[str, Any] | None = None,
    **setting: Any,
) -> Fault:
    build = partial(broken, setting=Setting(api or {}, **setting))
    return Fault(id, title, code, build, also=also, verdict=verdict, seen=seen, warnings=warnings)


FAULTS: tuple[Fault, ...] = (
    _fault(
        "heroku-token-refused",
        "The upstream is an add-on, and Heroku refuses the token",
        Code.API_TOKEN_REFUSED,
        environ={"HEROKU_API_KEY": "long-expired"},
        seen="HEROKU_API_KEY",
    ),
    _fault(
        "heroku-token-missing",
        "The upstream is an add-on, and there is no token to ask with",
        Code.API_NO_TOKEN,
        environ={"HEROKU_API_KEY": None},
        seen="HEROKU_API_KEY",
    ),
    _fault(
        "heroku-two-factor",
        "Heroku asks for a second factor",
        Code.API_TWO_FACTOR,
        breaks=switched_on("two-factor"),
    ),
    _fault(
        "heroku-mtls-not-enabled",
        "Mutual TLS was never enabled for the add-on",
        Code.API_ENDPOINT_DOWN,
        api={"bare": True},
        also=SILENT,
        seen="is not enabled",
    ),
    _fault(
        "heroku-provisioning",
        "The add-on's endpoint is still being made",
        Code.API_ENDPOINT_DOWN,
        api={"bare": True, "speed_up": SLOW},
        breaks=enable,
        also=SILENT | {Code.ALLOW_NOT_LET_IN},
        seen="Provisioning",
    ),
    _fault(
        "heroku-disabled-in-use",
        "Somebody has disabled the add-on's endpoint while it was in use",
        Code.API_ENDPOINT_DOWN,
        api={"speed_up": SLOW},
        breaks=disable,
        also=SILENT | {Code.API_CERTIFICATE_GONE, Code.TLS_CLIENT_CERTIFICATE_REVOKED},
        seen="taken down",
    ),
    _fault(
        "heroku-certificate-disabled",
        "Our certificate was deleted at Heroku",
        Code.API_CERTIFICATE_GONE,
        certificate=handed_out_and_deleted,
        also=frozenset({Code.TLS_CLIENT_CERTIFICATE_REVOKED, Code.CERTIFICATE_REVOKED}),
        seen="disab",
    ),
    _fault(
        "heroku-plan-without-mtls",
        "The add-on's plan has no mutual TLS",
        Code.API_NO_MTLS,
        upstream="heroku:{common}",
        seen="standard-0",
    ),
    _fault(
        "heroku-addon-unknown",
        "There is no such add-on",
        Code.API_NOT_FOUND,
        upstream="heroku:postgresql-nobodys-1",
        seen="postgresql-nobodys-1",
    ),
    _fault(
        "heroku-addon-of-the-other-kind",
        "A Postgres tunnel names a Kafka add-on",
        Code.CONFIG_BAD_VALUE,
        upstream="heroku:{kafka}",
        seen="is a kafka add-on",
    ),
    _fault(
        "heroku-credential-unknown",
        "The tunnel names a credential that the add-on does not have",
        Code.API_NOT_FOUND,
        upstream="heroku:{addon}/reporting",
        seen="reporting",
    ),
    _fault(
        "heroku-api-fails",
        "Heroku's API fails, and it has to say where the add-on is",
        Code.API_FAILED,
        breaks=switched_on("500"),
    ),
    _fault(
        "heroku-api-fails-beside",
        "Heroku's API fails, and the tunnel does without it",
        Code.API_NOT_LOOKED,
        breaks=switched_on("500"),
        upstream="{gateway}",
        issuer=True,
        verdict=Verdict.WARN,
    ),
    _fault(
        "heroku-api-unreachable",
        "Heroku's API cannot be reached",
        Code.API_UNREACHABLE,
        environ={"HEROKU_HOST": closed_port(), "HEROKU_DATA_HOST": closed_port()},
    ),
    _fault(
        "heroku-api-hangs",
        "Heroku's API takes the question and never answers",
        Code.API_UNREACHABLE,
        breaks=switched_on("hang"),
    ),
    _fault(
        "heroku-login-page",
        "A login page of this network answers instead of Heroku's API",
        Code.API_RUBBISH,
        breaks=switched_on("html"),
    ),
    _fault(
        "heroku-key-revoked",
        "The customer's own key that the add-on is encrypted with was revoked",
        Code.API_KEY_REVOKED,
        wrap=says_of_itself("Unavailable: the customer encryption key is not accessible"),
        seen="customer encryption key",
    ),
    _fault(
        "heroku-kafka-credentials-reset",
        "The Kafka add-on's credentials were reset, and the files hold the old ones",
        Code.API_CERTIFICATE_GONE,
        kind="kafka",
        upstream="heroku:{kafka}",
        certificate=kafka_pair_before_a_reset,
        also=frozenset({Code.TLS_CLIENT_CERTIFICATE_REVOKED, Code.CERTIFICATE_REVOKED}),
        seen="by now",
    ),
    _fault(
        "heroku-addon-unwell",
        "Heroku says that the add-on has failed",
        Code.API_ENDPOINT_DOWN,
        wrap=says_of_itself("Recovery In-progress"),
        verdict=Verdict.WARN,
        seen="Recovery In-progress",
    ),
    _fault(
        "allowlist-silent",
        "No IP rule lets this host in, and the server says nothing",
        Code.ALLOW_NOT_LET_IN,
        breaks=moved,
        also=SILENT,
        seen=OUTSIDE,
    ),
    _fault(
        "allowlist-reset",
        "No IP rule lets this host in, and the server resets its connections",
        Code.ALLOW_NOT_LET_IN,
        breaks=switched_on("reset", then=moved),
        also=SILENT | {Code.TCP_RESET},
        seen=OUTSIDE,
    ),
    _fault(
        "allowlist-pending",
        "The rule for this host is not in force yet",
        Code.ALLOW_PENDING,
        breaks=switched_on("slow-rules", then=rule_that_waits),
        also=SILENT,
        seen=OUTSIDE,
    ),
    _fault(
        "allowlist-services-disagree",
        "The services that tell this host its address disagree",
        Code.ALLOW_MY_IP_DISAGREE,
        breaks=switched_on("echo-disagree"),
        verdict=Verdict.WARN,
        warnings=frozenset({Code.ALLOW_NOT_LET_IN}),
        seen="127.0.0.99",
    ),
    _fault(
        "allowlist-my-ip-unknown",
        "No service tells this host its address",
        Code.ALLOW_MY_IP_UNKNOWN,
        environ={"MTLSKIT_MY_IP": f"{closed_port()}/ip"},
        verdict=Verdict.WARN,
    ),
)
