"""What the APIs send becomes frozen values, whichever of its forms it comes in."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.parsing import parse_time
from mtlskit.heroku.values import AddonKind, Attachment, InboundRule, IpRule, Space, SpaceNat
from tests.support.api_client import CANARY, DATA, PLATFORM, addon_json, assert_tells_no_secret, fake_heroku

PG = "/postgres/v0/databases/postgresql-x"
KAFKA = "/data/kafka/v0/clusters/kafka-x"

MOMENT = datetime(2024, 7, 31, 1, 16, 17, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-07-31T01:16:17Z", MOMENT),
        ("2024-07-31T01:16:17.250Z", MOMENT.replace(microsecond=250_000)),
        ("2024-07-31T03:16:17+02:00", MOMENT),
        ("2024-07-31 01:16:17 +0000", MOMENT),
        ("2024-07-31 01:16:17 UTC", MOMENT),
        ("2024-07-30 18:16:17 -0700", MOMENT),
        ("2024-07-31T01:16:17", MOMENT),
        ("2024-07-31", None),
        ("", None),
        ("yesterday", None),
        ("2024-13-31T01:16:17Z", None),
        ("0001-01-01T00:00:00+14:00", None),
    ],
)
def test_timestamps_in_every_form(text: str, moment: datetime | None) -> None:
    assert parse_time(text) == moment


async def test_an_endpoint_with_names_or_objects() -> None:
    body = {"app": {"name": "shop"}, "addon": "postgresql-x", "status": "Operational", "enabled_by": {"email": "a@b"}}
    async with fake_heroku({f"GET {PG}/tls-endpoint": body | {"certificate_authority_chain": "PEM"}}) as heroku:
        endpoint = await heroku.data.tls_endpoint("postgresql-x")
    assert endpoint is not None
    assert (endpoint.addon, endpoint.app, endpoint.enabled_by) == ("postgresql-x", "shop", "a@b")
    assert (endpoint.operational, endpoint.authorities) == (True, "PEM")


async def test_an_endpoint_of_an_unknown_status_and_with_nothing_else() -> None:
    async with fake_heroku({f"GET {PG}/tls-endpoint": {"status": "Meditating", "new": [1]}}) as heroku:
        endpoint = await heroku.data.tls_endpoint("postgresql-x")
    assert endpoint is not None
    assert (endpoint.addon, endpoint.status, endpoint.operational) == ("postgresql-x", "Meditating", False)


async def test_rules_with_ids_as_numbers_and_missing_fields() -> None:
    rules = [
        {"id": 7, "cidr": "203.0.113.7/32", "description": None, "status": "Authorized"},
        {"id": "b", "cidr": "198.51.100.0/24", "created_at": "2024-07-31 01:16:17 +0000", "updated_at": "soon"},
    ]
    async with fake_heroku({f"GET {KAFKA}/ip-rules": rules}) as heroku:
        found = await heroku.data.ip_rules("kafka-x", AddonKind.KAFKA)
    assert found == (
        IpRule("7", "203.0.113.7/32", "", "Authorized"),
        IpRule("b", "198.51.100.0/24", "", "", created_at=MOMENT),
    )


async def test_a_certificate_has_its_key_and_does_not_show_it() -> None:
    body = {"id": "c1", "status": "ready", "expires_at": "2024-07-31T01:16:17Z", "private_key": CANARY}
    answers = {f"GET {PG}/tls-endpoint/certificates/c1": body | {"certificate_with_chain": "PEM"}}
    async with fake_heroku(answers) as heroku:
        found = await heroku.data.certificate("postgresql-x", "c1")
        missing = await heroku.data.certificate("postgresql-x", "c2")
    assert found is not None
    assert (found.private_key, found.certificate_with_chain, found.expires_at) == (CANARY, "PEM", MOMENT)
    assert CANARY not in repr(found)
    assert missing is None


CREDENTIAL = {
    "uuid": "u",
    "name": "default",
    "state": "active",
    "database": "d1",
    "host": "db.example.com",
    "port": "5432",
    "credentials": [
        {"user": "old", "password": "x", "state": "revoking"},
        {"user": "u1", "password": CANARY, "state": "active"},
    ],
}


async def test_a_credential_is_its_active_login() -> None:
    listed = [CREDENTIAL, CREDENTIAL | {"name": "archived", "port": 5433, "credentials": []}]
    answers = {f"GET {PG}/credentials/default": CREDENTIAL, f"GET {PG}/credentials": listed}
    async with fake_heroku(answers) as heroku:
        one = await heroku.data.credential("postgresql-x")
        both = await heroku.data.credentials("postgresql-x")
    assert (one.user, one.password, one.port) == ("u1", CANARY, 5432)
    assert CANARY not in repr(one)
    assert [(each.name, each.user, each.port) for each in both] == [("default", "u1", 5432), ("archived", "", 5433)]


async def test_a_credential_that_is_not_there_names_those_that_are() -> None:
    answers = {f"GET {PG}/credentials": [CREDENTIAL], "GET /addons/postgresql-x": addon_json("postgresql-x")}
    async with fake_heroku(answers) as heroku:
        with pytest.raises(HerokuError) as caught:
            await heroku.data.credential("postgresql-x", "defualt")
    assert caught.value.code is Code.API_NOT_FOUND
    assert caught.value.hint == "it has these credentials: default"
    assert_tells_no_secret(caught.value)


async def test_a_cluster_and_what_it_waits_for() -> None:
    state = {"status": "Available", "message": "fine", "healthy?": True, "waiting?": False}
    answers = {
        f"GET {KAFKA}": {"state": state, "topic_prefix": "wabash-1.", "shared_cluster": True, "addon": {"name": "k"}},
        f"GET {KAFKA}/wait_status": {"waiting?": True, "message": "preparing"},
        "GET /client/v11/databases/postgresql-x/wait_status": {"waiting?": False, "message": "no", "error?": True},
    }
    async with fake_heroku(answers) as heroku:
        cluster = await heroku.data.kafka_cluster("kafka-x")
        waiting = await heroku.data.wait_status("kafka-x", AddonKind.KAFKA)
        failed = await heroku.data.wait_status("postgresql-x", AddonKind.POSTGRES)
    assert (cluster.id, cluster.name, cluster.status, cluster.healthy) == ("kafka-x", "k", "Available", True)
    assert (cluster.waiting, cluster.topic_prefix, cluster.shared) == (False, "wabash-1.", True)
    assert (waiting.waiting, waiting.message, waiting.failed) == (True, "preparing", False)
    assert (failed.waiting, failed.failed) == (False, True)


async def test_an_addon_that_was_removed_has_no_state() -> None:
    answers = {f"GET {KAFKA}/wait_status": httpx.Response(410, json={"message": "deprovisioned"})}
    async with fake_heroku(answers) as heroku:
        with pytest.raises(HerokuError, match='it has been removed: "deprovisioned"') as caught:
            await heroku.data.wait_status("kafka-x", AddonKind.KAFKA)
    assert (caught.value.code, caught.value.status) == (Code.API_NOT_FOUND, 410)


async def test_the_platforms_objects() -> None:
    answers = {
        "GET /addons/postgresql-x/addon-attachments": [{"name": "DATABASE", "app": {"name": "shop"}}],
        "GET /spaces/s": {"name": "s", "state": "allocated", "shield": True, "region": {"name": "virginia"}},
        "GET /spaces/s/nat": {"state": "enabled", "sources": ["198.51.100.1", "198.51.100.2"]},
        "GET /spaces/s/inbound-ruleset": {"rules": [{"action": "allow", "source": "0.0.0.0/0"}]},
    }
    async with fake_heroku(answers) as heroku:
        assert await heroku.platform.attachments("postgresql-x") == (Attachment("shop", "DATABASE"),)
        assert await heroku.platform.space("s") == Space("s", "allocated", shield=True, region="virginia")
        assert await heroku.platform.space_nat("s") == SpaceNat("enabled", ("198.51.100.1", "198.51.100.2"))
        assert await heroku.platform.inbound_ruleset("s") == (InboundRule("allow", "0.0.0.0/0"),)


@pytest.mark.parametrize(
    ("plan", "kind"),
    [
        ("heroku-postgresql:private-0", AddonKind.POSTGRES),
        ("heroku-kafka:private-standard-0", AddonKind.KAFKA),
        ("papertrail:choklad", None),
    ],
)
async def test_an_addon_knows_its_kind(plan: str, kind: AddonKind | None) -> None:
    async with fake_heroku({"GET /addons/a": addon_json("a", plan)}) as heroku:
        addon = await heroku.platform.addon("a")
    assert (addon.kind, addon.plan, addon.app, addon.config_vars) == (kind, plan, "shop", ("DATABASE_URL",))


async def test_config_vars_are_a_mapping_that_shows_names_only() -> None:
    async with fake_heroku({"GET /apps/shop/config-vars": {"A": CANARY, "B": "2", "C": None}}) as heroku:
        found = await heroku.platform.config_vars("shop")
    assert dict(found) == {"A": CANARY, "B": "2"}
    assert (repr(found), str(found)) == ("<ConfigVars ['A', 'B']>", "<ConfigVars ['A', 'B']>")


async def test_lists_in_parts_are_read_to_their_end() -> None:
    ranges: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        ranges.append(request.headers.get("Range"))
        number = len(ranges)
        if number == 3:
            return httpx.Response(200, json=[addon_json("a3")])
        return httpx.Response(206, json=[addon_json(f"a{number}")], headers={"Next-Range": f"id ]a{number}.."})

    async with fake_heroku(answer) as heroku:
        addons = await heroku.platform.addons()
    assert [addon.name for addon in addons] == ["a1", "a2", "a3"]
    assert ranges == [None, "id ]a1..", "id ]a2.."]


async def test_a_list_that_never_ends_is_rubbish() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(206, json=[addon_json("a")], headers={"Next-Range": "id ]a.."})

    async with fake_heroku(answer) as heroku:
        with pytest.raises(HerokuError, match="expected a list that ends"):
            await heroku.platform.addons()


async def test_names_stay_one_segment_of_the_path() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json=addon_json("a"))

    async with fake_heroku(answer) as heroku:
        await heroku.platform.addon("../apps/shop?x=1#y\n")
        for name in ("", ".", ".."):
            with pytest.raises(HerokuError, match="is no name of anything at Heroku"):
                await heroku.platform.addon(name)
    assert asked == [f"{PLATFORM}/addons/..%2Fapps%2Fshop%3Fx%3D1%23y%0A"]


HTML = httpx.Response(200, html=f"<html>{CANARY}</html>", headers={"Request-Id": "req-9"})


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (HTML, r"expected a JSON object; got \d+ bytes of text/html; charset=utf-8 \(status 200, request req-9\)"),
        (httpx.Response(200, content=f'{{"id": "c1", "private_key": "{CANARY}'.encode()), "expected a JSON object"),
        (httpx.Response(200, content=b"\xff" + CANARY.encode()), "expected a JSON object"),
        (httpx.Response(200, content=b"[" * 200_000), "expected a JSON object; got 200000 bytes of no named type"),
        (httpx.Response(200, content=b""), "got an empty answer"),
        (httpx.Response(200, json=[CANARY]), "expected the answer to be a JSON object, not a list"),
        (httpx.Response(200, content=b"null"), "expected the answer to be a JSON object, not null"),
        (httpx.Response(200, json={"id": "c1"}), "`status` of the answer to be text, not nothing"),
        (httpx.Response(200, json={"id": [CANARY], "status": "x"}), "`id` of the answer to be text, not a list"),
        (httpx.Response(200, json={"id": True, "status": "x"}), "`id` of the answer to be text, not true or false"),
        (httpx.Response(404, html=f"<html>{CANARY}</html>"), "expected the API's own answer; got .* of text/html"),
    ],
)
async def test_rubbish_is_told_by_its_kind_and_never_shown(response: httpx.Response, words: str) -> None:
    async with fake_heroku({f"GET {PG}/tls-endpoint/certificates/c1": response}) as heroku:
        with pytest.raises(HerokuError, match=words) as caught:
            await heroku.data.certificate("postgresql-x", "c1")
    assert caught.value.code is Code.API_RUBBISH
    assert caught.value.sentence.startswith("postgresql-x: certificate c1: ")
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": CANARY}, "a JSON list"),
        ([CANARY], "entry 1 of the list to be a JSON object, not text"),
        ([{"id": "1", "cidr": "192.0.2.0/24"}, {"id": "2"}], "`cidr` of entry 2 of the list to be text, not nothing"),
    ],
)
async def test_a_list_of_the_wrong_shape_names_entry_and_field(body: object, words: str) -> None:
    async with fake_heroku({f"GET {PG}/tls-endpoint/ip-rules": body}) as heroku:
        with pytest.raises(HerokuError, match=words) as caught:
            await heroku.data.ip_rules("postgresql-x", AddonKind.POSTGRES)
    assert caught.value.code is Code.API_RUBBISH
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        CREDENTIAL | {"port": CANARY},
        CREDENTIAL | {"credentials": CANARY},
        CREDENTIAL | {"credentials": [CANARY]},
        CREDENTIAL | {"credentials": []},
        CREDENTIAL | {"credentials": [{"user": 5, "password": [CANARY]}]},
    ],
)
async def test_a_credential_of_the_wrong_shape_shows_nothing(body: object) -> None:
    async with fake_heroku({f"GET {PG}/credentials/default": body}) as heroku:
        with pytest.raises(HerokuError) as caught:
            await heroku.data.credential("postgresql-x")
    assert caught.value.code is Code.API_RUBBISH
    assert_tells_no_secret(caught.value)


async def test_config_vars_of_the_wrong_shape_show_nothing() -> None:
    async with fake_heroku({"GET /apps/shop/config-vars": {"A": CANARY, "B": {"c": CANARY}}}) as heroku:
        with pytest.raises(HerokuError, match="`B` of the answer to be text, not an object") as caught:
            await heroku.platform.config_vars("shop")
    assert_tells_no_secret(caught.value)


async def test_each_api_has_its_host() -> None:
    hosts: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(f"{request.url.scheme}://{request.url.host}")
        return httpx.Response(200, json=[])

    async with fake_heroku(answer) as heroku:
        await heroku.platform.addons()
        await heroku.data.certificates("postgresql-x")
    assert hosts == [PLATFORM, DATA]


async def test_what_is_taken_down_is_told_once_more() -> None:
    answers = {
        f"DELETE {PG}/tls-endpoint": httpx.Response(202, json={"status": "Deprovisioning", "addon": "postgresql-x"}),
        f"DELETE {PG}/tls-endpoint/certificates/c1": httpx.Response(202, json={"id": "c1", "status": "disabling"}),
        f"DELETE {KAFKA}/ip-rules/r1": httpx.Response(202),
    }
    async with fake_heroku(answers) as heroku:
        endpoint = await heroku.data.disable_tls("postgresql-x")
        await heroku.data.delete_certificate("postgresql-x", "c1")
        await heroku.data.delete_ip_rule("kafka-x", AddonKind.KAFKA, "r1")
    assert endpoint is not None
    assert endpoint.ending


async def test_an_endpoint_taken_down_without_a_word() -> None:
    async with fake_heroku({f"DELETE {PG}/tls-endpoint": httpx.Response(202)}) as heroku:
        assert await heroku.data.disable_tls("postgresql-x") is None


async def test_one_rule() -> None:
    rule = {"id": "r1", "cidr": "192.0.2.0/24", "description": "x", "status": "Authorized"}
    async with fake_heroku({f"GET {PG}/tls-endpoint/ip-rules/r1": rule}) as heroku:
        found = await heroku.data.ip_rule("postgresql-x", AddonKind.POSTGRES, "r1")
        missing = await heroku.data.ip_rule("postgresql-x", AddonKind.POSTGRES, "r2")
    assert found is not None
    assert found.authorized
    assert missing is None


async def test_rotations_say_what_the_api_says() -> None:
    rotated = httpx.Response(200, json={"message": "Rotating the\ncredentials."})
    answers = {
        f"POST {KAFKA}/rotate-credentials": rotated,
        f"POST {PG}/credentials/a%20b/credentials_rotation": rotated,
    }
    async with fake_heroku(answers) as heroku:
        assert await heroku.data.rotate_kafka_credentials("kafka-x") == "Rotating the credentials"
        await heroku.data.rotate_credential("postgresql-x", "a b")


async def test_a_page_for_a_missing_addon_is_no_proof_that_it_is_missing() -> None:
    async with fake_heroku({"GET /addons/a": httpx.Response(404, html="<html>Log in")}) as heroku:
        with pytest.raises(HerokuError) as caught:
            await heroku.platform.addon("a")
    assert caught.value.code is Code.API_RUBBISH
