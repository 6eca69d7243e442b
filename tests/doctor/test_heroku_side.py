"""Heroku's side, with an API that says what no sandbox says: half answers, odd words, silence."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from mtlskit.config.values import IssuerConfig, IssuerKind, Login
from mtlskit.doctor.case import Case, Identified, Means
from mtlskit.doctor.checks.heroku import HerokuSide, look_at_heroku
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import from_flags
from mtlskit.errors import Code, ConfigError, HerokuError
from mtlskit.heroku.data_values import WaitStatus
from mtlskit.heroku.values import Addon, AddonKind, Credential, IpRule, KafkaCluster, RemoteCertificate, TlsEndpoint
from mtlskit.pki.authority import Authority
from mtlskit.pki.identity import CheckedPair

NAME = "postgresql-curved-12345"
PASSWORD = "never-to-be-shown"
ME = "203.0.113.7"
NASTY = "\x1b[31mgone\x1b[0m\r\n" + "x" * 5000


@pytest.fixture(autouse=True)
def _seen_as_me(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stranger is asked in these tests."""
    from ipaddress import IPv4Address

    from mtlskit.allowlist.my_ip import Answer, MyAddresses

    async def found(services: tuple[str, ...], **_more: Any) -> MyAddresses:
        address = IPv4Address(ME)
        return MyAddresses(frozenset([address]), tuple(Answer(each, address) for each in services))

    monkeypatch.setattr("mtlskit.doctor.heroku.asking.my_addresses", found)


class FakeApi:
    """Both APIs. What is an error is raised, what is `never` is not answered."""

    never = object()

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "addon": Addon("1", NAME, AddonKind.POSTGRES, "heroku-postgresql", "heroku-postgresql:private-0", "app"),
            "credential": Credential("default", "active", "db.example.com", 5432, "sales", "ann", PASSWORD),
            "tls_endpoint": TlsEndpoint(NAME, "Operational", "app"),
            "certificates": (),
            "ip_rules": (IpRule("1", "203.0.113.0/24", "office", "Authorized"),),
            "wait_status": WaitStatus(waiting=False, message="available"),
            "config_vars": {},
            "kafka_cluster": KafkaCluster("1", NAME, "available", "available", healthy=True),
        } | answers
        self.asked: list[str] = []

    platform = data = property(lambda self: self)

    def __getattr__(self, name: str) -> Any:
        async def answer(*_arguments: Any) -> Any:
            self.asked.append(name)
            await trio.lowlevel.checkpoint()
            found = self.answers[name]
            if found is self.never:
                await trio.sleep_forever()
            if isinstance(found, Exception):
                raise found
            return found

        return answer

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Any]:
        self.asked.append("opened")
        yield self


def case_of(
    api: Any, *, upstream: str = f"heroku:{NAME}", kind: str = "postgres", environ: Mapping[str, str] = {}
) -> Case:
    means = Means(heroku=None if api is None else api.opened, environ=environ)
    (case,) = from_flags(
        {"kind": kind, "upstream": [upstream], "cert": "a.crt", "key": "a.key", "ca": "ca.crt"}, means
    ).cases
    return case


def issued_by_addon(case: Case, store: Path | None = None) -> Case:
    assert case.identity is not None
    issuer = IssuerConfig(IssuerKind.HEROKU, addon=NAME)
    identity = dataclasses.replace(case.identity, name="app", issuer=issuer)
    return dataclasses.replace(case, identity=identity, config=dataclasses.replace(case.config, store=store))


@pytest.fixture
def pair() -> CheckedPair:
    issued = Authority.create("a CA", now=datetime.now(UTC)).issue_client("app", now=datetime.now(UTC))
    return CheckedPair((issued.certificate,), None)  # type: ignore[arg-type]


def of(side: HerokuSide, check: str) -> Finding:
    (found,) = [each for each in side.findings if each.check == check]
    return found


def codes(side: HerokuSide, verdict: Verdict) -> set[Code | None]:
    return {each.code for each in side.findings if each.verdict is verdict}


async def test_nobody_is_asked_where_no_addon_is_named() -> None:
    api = FakeApi()
    side = await look_at_heroku(case_of(api, upstream="db.example.com:5432"), Identified())
    assert api.asked == []
    assert [(each.check, each.because) for each in side.findings] == [
        ("heroku.skipped", "no add-on is named"),
        ("allowlist.skipped", "no add-on is named"),
    ]


async def test_what_an_addon_says_of_itself() -> None:
    side = await look_at_heroku(case_of(FakeApi()), Identified())
    assert codes(side, Verdict.FAIL) | codes(side, Verdict.WARN) == set()
    assert [str(each) for each in side.endpoints] == ["db.example.com:5432"]
    assert side.credentials is None  # the clients log in themselves
    assert of(side, "allowlist.rules").facts["in_force"] == 1


async def test_the_proxys_own_login_is_the_look_insides() -> None:
    case = case_of(FakeApi())
    case = dataclasses.replace(case, tunnel=dataclasses.replace(case.tunnel, login=Login.HEROKU))
    side = await look_at_heroku(case, Identified())
    assert side.credentials is not None
    assert (side.credentials.user, side.credentials.password) == ("ann", PASSWORD)
    assert PASSWORD not in repr(side)


async def test_heroku_is_not_to_be_asked() -> None:
    side = await look_at_heroku(issued_by_addon(case_of(None, upstream="db.example.com:5432")), Identified())
    assert {each.because for each in side.findings} == {"Heroku is not asked"}
    side = await look_at_heroku(case_of(None), Identified())
    assert of(side, "heroku.endpoint").code is Code.API_NOT_LOOKED
    assert codes(side, Verdict.FAIL) == set()


@pytest.mark.parametrize("code", [Code.API_NO_TOKEN, Code.API_HOST])
async def test_an_upstream_that_heroku_tells_fails_without_a_token(code: Code) -> None:
    api = FakeApi()

    @asynccontextmanager
    async def refused() -> AsyncIterator[Any]:
        raise ConfigError(code, "no", "do something")
        yield

    api.opened = refused  # type: ignore[method-assign]
    side = await look_at_heroku(case_of(api), Identified())
    assert (of(side, "heroku.endpoint").code, of(side, "heroku.endpoint").verdict) == (code, Verdict.FAIL)
    beside = await look_at_heroku(issued_by_addon(case_of(api, upstream="db.example.com:5432")), Identified())
    assert codes(beside, Verdict.FAIL) == set()
    if code is Code.API_NO_TOKEN:
        assert {each.because for each in beside.findings} == {"no token"}
    assert codes(beside, Verdict.WARN) == (set() if code is Code.API_NO_TOKEN else {Code.API_NOT_LOOKED})


async def test_a_token_that_is_not_found_in_time(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()

    @asynccontextmanager
    async def never() -> AsyncIterator[Any]:
        await trio.sleep_forever()
        yield

    api.opened = never  # type: ignore[method-assign]
    side = await look_at_heroku(case_of(api), Identified())
    assert of(side, "heroku.endpoint").code is Code.API_UNREACHABLE
    assert trio.current_time() <= Means().deadline


async def test_one_question_without_an_answer_leaves_the_others(autojump_clock: trio.testing.MockClock) -> None:
    side = await look_at_heroku(case_of(FakeApi(ip_rules=FakeApi.never)), Identified())
    unknown = of(side, "heroku.api")
    assert (unknown.code, unknown.verdict) == (Code.API_NOT_LOOKED, Verdict.WARN)
    assert "its IP rules" in unknown.seen
    assert of(side, "heroku.endpoint").verdict is Verdict.PASS
    assert of(side, "allowlist.rules").because == "heroku.api"
    assert side.endpoints


async def test_nothing_is_answered_at_all(autojump_clock: trio.testing.MockClock) -> None:
    answers = dict.fromkeys(("addon", "credential"), FakeApi.never)
    side = await look_at_heroku(case_of(FakeApi(**answers)), Identified())
    assert of(side, "heroku.endpoint").code is Code.API_UNREACHABLE
    assert codes(side, Verdict.WARN) == set()  # one reason is enough
    assert of(side, "allowlist.rules").because == "heroku.endpoint"


@pytest.mark.parametrize(
    ("endpoint", "commands"),
    [
        (None, (f"mtlskit heroku enable {NAME} --wait",)),
        ("Provisioning", (f"mtlskit heroku wait {NAME}",)),
        ("Deprovisioning", (f"mtlskit heroku wait {NAME} --gone", f"mtlskit heroku enable {NAME} --wait")),
        (NASTY, (f"mtlskit heroku wait {NAME}",)),
    ],
)
async def test_an_endpoint_that_is_not_in_operation(endpoint: str | None, commands: tuple[str, ...]) -> None:
    found = None if endpoint is None else TlsEndpoint(NAME, endpoint)
    gone = HerokuError(Code.API_NOT_ENABLED, "mutual TLS is not enabled", status=404)
    more = {"certificates": gone, "ip_rules": gone} if endpoint is None else {}
    side = await look_at_heroku(case_of(FakeApi(tls_endpoint=found, **more)), Identified())
    down = of(side, "heroku.endpoint")
    assert (down.code, down.commands) == (Code.API_ENDPOINT_DOWN, commands)
    assert down.seen.isprintable()
    assert len(down.seen) < 1000
    assert codes(side, Verdict.WARN) == set()


@pytest.mark.parametrize(
    ("plan", "code"),
    [("heroku-postgresql:standard-0", Code.API_NO_MTLS), ("heroku-postgresql:private-0", Code.API_ENDPOINT_DOWN)],
)
async def test_a_plan_is_blamed_for_what_it_cannot_have(plan: str, code: Code) -> None:
    addon = Addon("1", NAME, AddonKind.POSTGRES, "heroku-postgresql", plan, "app")
    side = await look_at_heroku(case_of(FakeApi(addon=addon, tls_endpoint=None)), Identified())
    assert codes(side, Verdict.FAIL) == {code}


async def test_an_endpoint_that_works_says_more_than_the_name_of_a_plan() -> None:
    addon = Addon("1", NAME, AddonKind.POSTGRES, "heroku-postgresql", "heroku-postgresql:brand-new-9", "app")
    side = await look_at_heroku(case_of(FakeApi(addon=addon)), Identified())
    assert codes(side, Verdict.FAIL) == set()


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (WaitStatus(False, "customer encryption key revoked", failed=True), Code.API_KEY_REVOKED, Verdict.FAIL),
        (WaitStatus(False, "the KMS key cannot be used", failed=True), Code.API_KEY_REVOKED, Verdict.FAIL),
        (WaitStatus(False, "a foreign key is broken", failed=True), Code.API_ENDPOINT_DOWN, Verdict.WARN),
        (WaitStatus(False, NASTY, failed=True), Code.API_ENDPOINT_DOWN, Verdict.WARN),
        (WaitStatus(True, "preparing (95% completed)"), Code.API_ENDPOINT_DOWN, Verdict.WARN),
        (WaitStatus(False, "the encryption key was rotated"), None, Verdict.PASS),
    ],
)
async def test_what_heroku_says_of_an_addons_condition(status: WaitStatus, code: Code | None, verdict: Verdict) -> None:
    side = await look_at_heroku(case_of(FakeApi(wait_status=status)), Identified())
    (found,) = [each for each in side.findings if each.check in ("heroku.key", "heroku.condition")]
    assert (found.code, found.verdict) == (code, verdict)
    assert found.seen.isprintable()


def remote(pair: CheckedPair, status: str, *, later: float = 0.4, id: str = "1") -> RemoteCertificate:  # noqa: A002
    return RemoteCertificate(id, status, expires_at=pair.not_after + timedelta(seconds=later))


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([("ready", 0.4)], Verdict.PASS),
        ([("pending", 0.4)], Verdict.PASS),
        ([("disabled", 0.4)], Verdict.FAIL),
        ([("disabling", 0.4), ("ready", 86400.0)], Verdict.FAIL),
        ([("disabled", 0.4), ("ready", 1.0)], Verdict.SKIPPED),  # which of the two is ours?
        ([("ready", 86400.0)], Verdict.SKIPPED),
        ([("disabled", 86400.0)], Verdict.FAIL),  # whichever ours is, it has ended
        ([], Verdict.FAIL),
    ],
)
async def test_our_certificate_by_its_end(pair: CheckedPair, found: list[tuple[str, float]], verdict: Verdict) -> None:
    api = FakeApi(certificates=[remote(pair, status, later=later) for status, later in found])
    side = await look_at_heroku(issued_by_addon(case_of(api)), Identified(pair=pair))
    finding = of(side, "heroku.certificate")
    assert finding.verdict is verdict
    if verdict is Verdict.FAIL:
        assert (finding.code, finding.commands) == (Code.API_CERTIFICATE_GONE, ("mtlskit certs rotate app",))


@pytest.mark.parametrize(
    ("listed", "verdict"), [("ready", Verdict.PASS), ("disabled", Verdict.FAIL), (None, Verdict.FAIL)]
)
async def test_our_certificate_by_the_id_that_the_store_has(
    pair: CheckedPair, tmp_path: Path, listed: str | None, verdict: Verdict
) -> None:
    from mtlskit.pki.certificates import certificates_pem
    from mtlskit.store.identities import Material, Store, VersionFacts

    identity = Store(tmp_path).identity("app")
    text = pair.not_after.isoformat()
    facts = VersionFacts("heroku", pair.serial, "CN=app", text, text, "", text, remote_id="ours", origin=NAME)
    identity.switch(identity.stage(Material(certificates_pem(pair.chain), b""), facts))
    # Another one that ends when ours does must not be taken for it.
    certificates = [remote(pair, "ready", id="other")]
    if listed is not None:
        certificates.append(remote(pair, listed, id="ours", later=99999))
    case = issued_by_addon(case_of(FakeApi(certificates=certificates)), store=tmp_path)
    side = await look_at_heroku(case, Identified(pair=pair))
    assert of(side, "heroku.certificate").verdict is verdict


async def test_a_kafka_whose_credentials_were_reset(pair: CheckedPair) -> None:
    other = Authority.create("another", now=datetime.now(UTC)).issue_client("kafka", now=datetime.now(UTC))
    pem = other.cert_pem.decode("ascii")
    names = ("KAFKA_URL", "KAFKA_TRUSTED_CERT", "KAFKA_CLIENT_CERT", "KAFKA_CLIENT_CERT_KEY", "KAFKA_PREFIX")
    values = ("kafka+ssl://b1.example.com:9096,kafka+ssl://b2.example.com:9096", pem, pem, "KEY", "shared-1.")
    addon = Addon("1", NAME, AddonKind.KAFKA, "heroku-kafka", "heroku-kafka:basic-0", "app", config_vars=names)
    api = FakeApi(
        addon=addon,
        config_vars=dict(zip(names, values, strict=True)),
        ip_rules=HerokuError(Code.API_NO_MTLS, "the plan has none", status=422),
        kafka_cluster=KafkaCluster("1", NAME, "available", "one broker is down", healthy=False),
    )
    side = await look_at_heroku(case_of(api, kind="kafka"), Identified(pair=pair))
    assert codes(side, Verdict.FAIL) == {Code.API_CERTIFICATE_GONE}  # a basic plan speaks mutual TLS
    assert codes(side, Verdict.WARN) == {Code.API_ENDPOINT_DOWN}
    assert of(side, "allowlist.rules").because == "its plan has no IP rules"
    assert (len(side.endpoints), side.prefix) == (2, "shared-1.")
    assert "KEY" not in repr(side)


@pytest.mark.parametrize(
    ("rules", "code", "verdict"),
    [
        ([("0.0.0.0/0", "Authorized")], None, Verdict.PASS),
        ([(f"{ME}/32", "AUTHORIZED")], None, Verdict.PASS),
        ([("203.0.113.0/24", "Authorizing")], Code.ALLOW_PENDING, Verdict.FAIL),
        ([("198.51.100.0/24", "Authorized")], Code.ALLOW_NOT_LET_IN, Verdict.FAIL),
        (
            [("::/0", "Authorized"), ("203.0.113.7/24", "Authorized"), (NASTY, "Authorized")],
            Code.ALLOW_NOT_LET_IN,
            Verdict.FAIL,
        ),
        ([], Code.ALLOW_NOT_LET_IN, Verdict.FAIL),
    ],
)
async def test_whether_the_rules_let_this_host_in(
    rules: list[tuple[str, str]], code: Code | None, verdict: Verdict
) -> None:
    found = tuple(IpRule(str(n), cidr, "", status) for n, (cidr, status) in enumerate(rules))
    side = await look_at_heroku(case_of(FakeApi(ip_rules=found)), Identified())
    finding = of(side, "allowlist.rules")
    assert (finding.code, finding.verdict) == (code, verdict)
    if code is Code.ALLOW_NOT_LET_IN:
        assert finding.commands == (f"mtlskit allowlist add {ME}/32 --addon {NAME} --wait",)


async def test_services_that_cannot_be_believed_are_not_asked() -> None:
    case = case_of(FakeApi(), environ={"MTLSKIT_MY_IP": "ftp://example.com/"})
    side = await look_at_heroku(case, Identified())
    assert of(side, "allowlist.my-ip").code is Code.CONFIG_BAD_VALUE
    assert of(side, "allowlist.rules").because == "allowlist.my-ip"


async def test_two_addons_are_both_looked_at() -> None:
    api = FakeApi()
    case = issued_by_addon(case_of(api, upstream="heroku:postgresql-other-1"))
    side = await look_at_heroku(case, Identified())
    assert {each.about for each in side.findings if each.check == "heroku.endpoint"} == {"postgresql-other-1", NAME}
    assert len([each for each in side.findings if each.check == "allowlist.my-ip"]) == 1
