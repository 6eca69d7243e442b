"""A rule or an endpoint is made once, however its calls fail: the fake API keeps count."""

from __future__ import annotations

import json

import httpx
import pytest
from trio.testing import MockClock

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.client import Heroku
from mtlskit.heroku.events import HerokuLookedUp
from mtlskit.heroku.values import AddonKind, IpRule
from mtlskit.telemetry import Event
from tests.support.api_client import CANARY, addon_json, assert_tells_no_secret, fake_heroku, patience

NAME = "postgresql-x"
PATH = f"/postgres/v0/databases/{NAME}/tls-endpoint"


class Api:
    """An add-on with an endpoint and rules. `troubles`: what becomes of each POST in turn, then they work."""

    def __init__(self, *troubles: str, plan: str = "heroku-postgresql:private-0") -> None:
        self.troubles = list(troubles)
        self.plan = plan
        self.rules: list[dict[str, str]] = []
        self.enabled = 0
        self.late: list[dict[str, str]] = []
        self.posts = 0
        self.gets = 0
        self.lookups_fail = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/addons"):
            return httpx.Response(200, json=addon_json(NAME, self.plan))
        if request.method == "POST":
            return self._post(request)
        self.gets += 1
        if self.lookups_fail:
            raise httpx.ReadError("")
        answer = httpx.Response(200, json=list(self.rules))
        if request.url.path == PATH:
            answer = httpx.Response(200, json={"status": "Provisioning"}) if self.enabled else missing()
        self.rules += self.late  # what a server that was still at work finishes after we looked
        self.late = []
        return answer

    def _post(self, request: httpx.Request) -> httpx.Response:
        self.posts += 1
        trouble = self.troubles.pop(0) if self.troubles else "works"
        if trouble.startswith("refuse"):
            return httpx.Response(int(trouble[6:]), json={"id": "invalid", "message": "No, that exists."})
        if trouble == "unsent":
            raise httpx.ConnectError("")
        if trouble in ("500", "lose-before"):
            return self._fail(trouble)
        if request.url.path == PATH:
            self.enabled += 1
            made = {"status": "Provisioning"}
        else:
            body = json.loads(request.content)
            made = {"id": str(len(self.rules) + 1), "status": "Authorizing", **body}
            (self.late if trouble == "late" else self.rules).append(made)
        if trouble in ("lose-after", "500-after", "late"):
            return self._fail(trouble)
        return httpx.Response(201, content=f"<html>{CANARY}") if trouble == "html" else httpx.Response(201, json=made)

    def _fail(self, trouble: str) -> httpx.Response:
        if trouble.startswith("500"):
            return httpx.Response(500, json={"message": "Internal error"})
        raise httpx.ReadError("")


def missing() -> httpx.Response:
    return httpx.Response(404, json={"id": "not_found", "message": "Not found."})


async def add(heroku: Heroku) -> IpRule:
    return await heroku.data.add_ip_rule(NAME, AddonKind.POSTGRES, "203.0.113.7/32", "office [mtlskit:a/1]")


@pytest.mark.parametrize(
    ("troubles", "posts"),
    [
        ([], 1),
        (["unsent"], 2),
        (["lose-before"], 2),
        (["lose-after"], 1),
        (["late"], 1),
        (["500"], 2),
        (["500-after"], 1),
        (["html"], 1),
        (["500", "500", "500", "500", "500", "500"], 7),
        (["lose-before", "500", "unsent", "lose-after"], 4),
        (["lose-before", "refuse422"], None),
    ],
    ids=lambda value: "-then-".join(value) if isinstance(value, list) else "",
)
async def test_a_rule_is_made_once(troubles: list[str], posts: int | None, autojump_clock: MockClock) -> None:
    api = Api(*troubles)
    async with fake_heroku(api) as heroku:
        if posts is None:
            with pytest.raises(HerokuError, match="No, that exists") as caught:
                await add(heroku)
            assert caught.value.code is Code.API_REFUSED
            return
        rule = await add(heroku)
    assert (rule.id, rule.cidr, rule.description) == ("1", "203.0.113.7/32", "office [mtlskit:a/1]")
    assert len(api.rules) == 1
    assert api.posts == posts


async def test_a_rule_that_is_there_already_is_found_when_a_second_is_refused() -> None:
    api = Api("refuse422")
    api.rules.append({"id": "9", "cidr": "203.0.113.7", "description": "office [mtlskit:a/1] ", "status": "Authorized"})
    async with fake_heroku(api) as heroku:
        assert (await add(heroku)).id == "9"


@pytest.mark.parametrize("other", [{"description": "someone's"}, {"cidr": "203.0.113.8/32"}, {"cidr": "rubbish"}])
async def test_another_rule_is_not_taken_for_it(other: dict[str, str], autojump_clock: MockClock) -> None:
    api = Api("lose-before")
    mine = {"id": "9", "cidr": "203.0.113.7/32", "description": "office [mtlskit:a/1]", "status": "Authorized"}
    api.rules.append(mine | other)
    async with fake_heroku(api) as heroku:
        assert (await add(heroku)).id == "2"


async def test_a_rule_that_the_api_fails_to_make_for_good(autojump_clock: MockClock) -> None:
    api = Api(*["500"] * 100)
    async with fake_heroku(api, patience=patience(recreate=60.0)) as heroku:
        with pytest.raises(HerokuError, match=r"given up after \d+ tries, and it is not there") as caught:
            await add(heroku)
    assert (caught.value.code, caught.value.status) == (Code.API_FAILED, 500)
    assert "run the same again later" in caught.value.hint
    assert api.rules == []


async def test_a_rule_that_is_lost_each_time_stays_uncertain(autojump_clock: MockClock) -> None:
    api = Api(*["lose-before"] * 100)
    async with fake_heroku(api, patience=patience(recreate=30.0)) as heroku:
        with pytest.raises(HerokuError) as caught:
            await add(heroku)
    assert caught.value.code is Code.API_UNCERTAIN


async def test_what_cannot_be_looked_up_is_not_repeated(autojump_clock: MockClock) -> None:
    api = Api("lose-after")
    api.lookups_fail = True
    async with fake_heroku(api) as heroku:
        with pytest.raises(HerokuError, match="and it could not be looked up: postgresql-x: IP rules:") as caught:
            await add(heroku)
    assert caught.value.code is Code.API_UNCERTAIN
    assert api.posts == 1


async def test_a_refusal_stands_even_if_nothing_can_be_looked_up(autojump_clock: MockClock) -> None:
    api = Api("refuse422")
    api.lookups_fail = True
    async with fake_heroku(api) as heroku:
        with pytest.raises(HerokuError, match="No, that exists") as caught:
            await add(heroku)
    assert caught.value.code is Code.API_REFUSED


async def test_a_refusal_that_is_one_is_told_once_by_its_error(autojump_clock: MockClock) -> None:
    told: list[Event] = []
    async with fake_heroku(Api("refuse422"), emit=told.append) as heroku:
        with pytest.raises(HerokuError, match="No, that exists"):
            await add(heroku)
    assert not any(isinstance(event, HerokuLookedUp) for event in told)


async def test_looking_up_is_told(autojump_clock: MockClock) -> None:
    told: list[Event] = []
    async with fake_heroku(Api("lose-after"), emit=told.append) as heroku:
        await add(heroku)
    [event] = [event for event in told if isinstance(event, HerokuLookedUp)]
    assert (event.about, event.found) == ("postgresql-x: letting in 203.0.113.7/32", True)
    assert event.sentence().count("letting in") == 1


@pytest.mark.parametrize(
    ("troubles", "posts"),
    [([], 1), (["lose-after"], 1), (["500-after"], 1), (["lose-before"], 2), (["500", "500"], 3), (["html"], 1)],
)
async def test_an_endpoint_is_enabled_once(troubles: list[str], posts: int, autojump_clock: MockClock) -> None:
    api = Api(*troubles)
    async with fake_heroku(api) as heroku:
        assert (await heroku.data.enable_tls(NAME)).status == "Provisioning"
    assert (api.enabled, api.posts) == (1, posts)


async def test_an_endpoint_that_is_enabled_already_is_returned() -> None:
    api = Api("refuse422")
    api.enabled = 1
    async with fake_heroku(api) as heroku:
        assert (await heroku.data.enable_tls(NAME)).status == "Provisioning"


@pytest.mark.parametrize("status", [400, 404, 409, 422])
@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("heroku-postgresql:standard-0", "only Private and Shield plans have mutual TLS"),
        ("heroku-postgresql:private-advanced-0", "Heroku Postgres Advanced has no mutual TLS"),
        ("papertrail:choklad", "postgresql-x is papertrail, neither Heroku Postgres nor Heroku Kafka"),
    ],
)
async def test_a_plan_without_mutual_tls_says_why(status: int, plan: str, words: str) -> None:
    async with fake_heroku(Api(f"refuse{status}", plan=plan)) as heroku:
        with pytest.raises(HerokuError, match=words) as caught:
            await heroku.data.enable_tls(NAME)
        assert caught.value.code is Code.API_NO_MTLS
        with pytest.raises(HerokuError, match=words):
            await heroku.data.tls_endpoint(NAME)


@pytest.mark.parametrize("plan", ["heroku-postgresql:shield-4", "heroku-postgresql:private-l-0", "heroku-postgresql:"])
async def test_a_refusal_on_a_plan_that_has_it_is_the_apis_own(plan: str) -> None:
    async with fake_heroku(Api("refuse409", plan=plan)) as heroku:
        with pytest.raises(HerokuError, match="No, that exists") as caught:
            await heroku.data.enable_tls(NAME)
    assert caught.value.code is Code.API_REFUSED


async def test_a_lost_deletion_of_the_endpoint_is_finished(autojump_clock: MockClock) -> None:
    steps: list[httpx.Response | Exception] = [httpx.ReadError(""), missing()]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/addons"):
            return httpx.Response(200, json=addon_json(NAME))
        step = steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async with fake_heroku(answer) as heroku:
        assert await heroku.data.disable_tls(NAME) is None
    assert steps == []


NEEDS_ENDPOINT = ["certificates", "create_certificate", "ip_rules", "add_ip_rule"]


async def call(heroku: Heroku, name: str, addon: str = NAME) -> object:
    more: dict[str, tuple[object, ...]] = {
        "ip_rules": (AddonKind.POSTGRES,),
        "add_ip_rule": (AddonKind.POSTGRES, "192.0.2.0/24", "x"),
        "wait_status": (AddonKind.KAFKA,),
    }
    return await getattr(heroku.data, name)(addon, *more.get(name, ()))


@pytest.mark.parametrize("name", NEEDS_ENDPOINT)
async def test_what_needs_the_endpoint_says_that_it_is_not_enabled(name: str) -> None:
    async with fake_heroku({f"GET /addons/{NAME}": addon_json(NAME)}) as heroku:
        with pytest.raises(HerokuError, match="mutual TLS is not enabled") as caught:
            await call(heroku, name)
    assert caught.value.code is Code.API_NOT_ENABLED
    assert caught.value.hint == f"mtlskit heroku enable {NAME}"


EVERY = [
    *NEEDS_ENDPOINT,
    "tls_endpoint",
    "enable_tls",
    "disable_tls",
    "credential",
    "credentials",
    "rotate_credential",
    "kafka_cluster",
    "rotate_kafka_credentials",
    "wait_status",
]


@pytest.mark.parametrize("name", EVERY)
async def test_an_unknown_addon_comes_with_the_near_matches(name: str) -> None:
    listed = [addon_json("postgresql-crystal-1"), addon_json("papertrail-2", "papertrail:choklad")]
    async with fake_heroku({"GET /addons": listed}) as heroku:
        with pytest.raises(HerokuError, match="not found") as caught:
            await call(heroku, name, "postgresql-cristal-1")
    assert caught.value.code is Code.API_NOT_FOUND
    assert "did you mean postgresql-crystal-1?" in caught.value.hint


@pytest.mark.parametrize("name", EVERY)
async def test_if_the_platform_cannot_be_asked_that_is_said(name: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.heroku.com":
            return httpx.Response(403, json={"id": "forbidden", "message": "No scope."})
        return missing()

    async with fake_heroku(answer) as heroku:
        with pytest.raises(HerokuError, match=r'could not be asked: add-on postgresql-x: .*"No scope"') as caught:
            await call(heroku, name)
    assert caught.value.code is Code.API_NOT_FOUND
    assert_tells_no_secret(caught.value)


async def test_near_matches_that_cannot_be_asked_for() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/apps":
            return httpx.Response(403, json={"message": "No scope."})
        return missing()

    async with fake_heroku(answer) as heroku:
        with pytest.raises(HerokuError) as caught:
            await heroku.platform.config_vars("shpo")
    assert caught.value.code is Code.API_NOT_FOUND
    assert "what is there could not be asked" in caught.value.hint


async def test_apps_and_spaces_have_near_matches_too() -> None:
    async with fake_heroku({"GET /apps": [{"name": "shop"}], "GET /spaces": [{"name": "acme-space"}]}) as heroku:
        with pytest.raises(HerokuError) as app:
            await heroku.platform.config_vars("shpo")
        with pytest.raises(HerokuError) as space:
            await heroku.platform.space_nat("acme-spce")
    assert "did you mean shop?" in app.value.hint
    assert "did you mean acme-space?" in space.value.hint


async def test_an_endpoint_that_is_not_enabled_asks_for_the_addon_once() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=addon_json(NAME)) if request.url.path == f"/addons/{NAME}" else missing()

    async with fake_heroku(answer) as heroku:
        assert await heroku.data.tls_endpoint(NAME) is None
        assert await heroku.data.tls_endpoint(NAME) is None
        assert await heroku.data.disable_tls(NAME) is None
    assert asked.count(f"/addons/{NAME}") == 1


@pytest.mark.parametrize("name", ["certificates", "create_certificate", "ip_rules", "add_ip_rule", "disable_tls"])
async def test_a_refusal_whose_reason_nobody_knows_is_the_apis_own(name: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == f"/addons/{NAME}":
            return httpx.Response(200, json=addon_json(NAME))
        if name == "add_ip_rule" and request.method == "GET":
            return httpx.Response(200, json=[])
        return httpx.Response(422, json={"id": "invalid_params", "message": "At most 60 rules."})

    async with fake_heroku(answer) as heroku:
        with pytest.raises(HerokuError, match="At most 60 rules") as caught:
            await call(heroku, name)
    assert (caught.value.code, caught.value.status) == (Code.API_REFUSED, 422)
    assert caught.value.__cause__ is not caught.value
