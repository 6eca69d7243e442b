"""What is known of Heroku's APIs, as tests of whatever answers in their place.

By default that is the sandbox; with ``--live`` Heroku is asked the same (tests/contract/conftest.py). What these tests
make they remove again, also when they fail: one certificate, and IP rules for addresses that exist in documentation
only (RFC 5737).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mtlskit.heroku.values import MOST_RULES
from tests.contract.remote import Remote, moment

NOWHERE = "192.0.2.77/32"
RULE = {"id", "cidr", "description", "status", "created_at", "updated_at"}
CERTIFICATE = {"id", "name", "created_at", "updated_at", "expires_at", "status"}


@asynccontextmanager
async def _rule(remote: Remote, base: str, cidr: str = NOWHERE) -> AsyncIterator[dict[str, Any]]:
    """A rule that is gone afterwards."""
    answer = await remote.data.post(f"{base}/ip-rules", json={"cidr": cidr, "description": "mtlskit contract test"})
    assert answer.status_code == 201
    try:
        yield answer.json()
    finally:
        with trio.CancelScope(shield=True):
            gone = await remote.data.delete(f"{base}/ip-rules/{answer.json()['id']}")
    assert gone.status_code == 202
    assert gone.json()["cidr"] == cidr


async def test_an_endpoint(remote: Remote) -> None:
    found = await remote.get(remote.endpoint)
    assert found.keys() >= {"app", "addon", "status", "enabled_by", "active_ip_rules"}
    assert (found["addon"], found["status"]) == (remote.addon, "Operational")


async def test_both_forms_of_the_token(remote: Remote) -> None:
    for header in remote.authorizations:
        answer = await remote.bare.get(remote.endpoint, headers={"Authorization": header})
        assert answer.status_code == 200


async def test_no_token(remote: Remote) -> None:
    answer = await remote.bare.get(remote.endpoint)
    assert answer.status_code == 401
    assert answer.json()["message"]


async def test_an_addon_that_there_is_not(remote: Remote) -> None:
    for client, path in (
        (remote.data, "/postgres/v0/databases/postgresql-nowhere-00000/tls-endpoint"),
        (remote.platform, "/addons/postgresql-nowhere-00000"),
    ):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert answer.json()["message"]


async def test_a_list_of_certificates_has_no_keys(remote: Remote) -> None:
    found = await remote.get(f"{remote.endpoint}/certificates")
    assert found
    for each in found:
        assert each.keys() >= CERTIFICATE
        assert not each.get("private_key")
        assert not each.get("certificate_with_chain")
        assert moment(each["created_at"]) < moment(each["expires_at"])


async def test_a_certificate_from_its_making_to_its_end(remote: Remote) -> None:
    base = f"{remote.endpoint}/certificates"
    answer = await remote.data.post(base, json={})
    assert answer.status_code == 201
    one = f"{base}/{answer.json()['id']}"
    try:
        ready = await remote.until(one, {"ready"})
        key = load_pem_private_key(ready["private_key"].encode(), None)
        leaf = x509.load_pem_x509_certificates(ready["certificate_with_chain"].encode())[0]
        assert leaf.public_key() == key.public_key()
        assert 364 <= (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days <= 367
    finally:
        with trio.CancelScope(shield=True):
            gone = await remote.data.delete(one)
    assert (gone.status_code, gone.json()["id"]) == (202, answer.json()["id"])
    await remote.until_gone(one)
    states = {each["id"]: each["status"] for each in await remote.get(base)}
    assert states.get(answer.json()["id"]) in ("disabled", None)


async def test_a_rule_from_its_making_to_its_end(remote: Remote) -> None:
    async with _rule(remote, remote.endpoint) as made:
        one = f"{remote.endpoint}/ip-rules/{made['id']}"
        assert made.keys() >= RULE
        assert (made["cidr"], made["description"]) == (NOWHERE, "mtlskit contract test")
        assert moment(made["created_at"]) <= moment(made["updated_at"])
        acting = await remote.until(one, {"Authorized"})
        assert acting["id"] == made["id"]
        assert made["id"] in [rule["id"] for rule in await remote.get(f"{remote.endpoint}/ip-rules")]
    await remote.until_gone(one)


async def test_rules_of_kafka_are_the_same(cluster: Remote) -> None:
    async with _rule(cluster, cluster.cluster) as made:
        assert made.keys() >= RULE
        assert (await cluster.get(f"{cluster.cluster}/ip-rules/{made['id']}"))["cidr"] == NOWHERE
    await cluster.until_gone(f"{cluster.cluster}/ip-rules/{made['id']}")


@pytest.mark.parametrize("cidr", ["nonsense", "192.0.2.300/32", "192.0.2.0/40"])
async def test_what_is_no_network_is_refused(remote: Remote, cidr: str) -> None:
    answer = await remote.data.post(f"{remote.endpoint}/ip-rules", json={"cidr": cidr, "description": "mtlskit"})
    if answer.status_code == 201:  # nothing may be left, whatever was taken
        await remote.data.delete(f"{remote.endpoint}/ip-rules/{answer.json()['id']}")
    assert answer.status_code in (400, 422)
    assert answer.json()["message"]


async def test_logins(remote: Remote) -> None:
    base = f"/postgres/v0/databases/{remote.addon}/credentials"
    one = await remote.get(f"{base}/default")
    assert one.keys() >= {"uuid", "name", "state", "database", "host", "port", "credentials"}
    assert all(each.keys() >= {"user", "password", "state"} for each in one["credentials"])
    assert "default" in [each["name"] for each in await remote.get(base)]


async def test_a_database(remote: Remote) -> None:
    found = await remote.get(f"/client/v11/databases/{remote.addon}")
    assert found.keys() >= {"available_for_ingress", "waiting?", "leader", "resource_url", "info"}
    assert "Mutual TLS" in [row["name"] for row in found["info"]]


async def test_a_cluster(cluster: Remote) -> None:
    found = await cluster.get(cluster.cluster)
    assert found.keys() >= {"state", "topic_prefix", "shared_cluster", "limits", "formation", "customer_encryption_key"}
    assert found["state"].keys() >= {"message", "status", "degraded_brokers", "degraded_topics"}


async def test_an_addon_and_who_uses_it(remote: Remote) -> None:
    found = (await remote.platform.get(f"/addons/{remote.addon}")).json()
    assert found["name"] == remote.addon
    assert found["addon_service"]["name"] == "heroku-postgresql"
    assert found["plan"]["name"].startswith("heroku-postgresql:")
    attachments = (await remote.platform.get(f"/addons/{remote.addon}/addon-attachments")).json()
    assert remote.app in [each["app"]["name"] for each in attachments]
    assert found["config_vars"]
    values = (await remote.platform.get(f"/apps/{remote.app}/config-vars")).json()
    assert set(found["config_vars"]) <= values.keys()


async def test_lists_come_in_ranges(remote: Remote) -> None:
    first = await remote.platform.get("/addons", headers={"Range": "id ..; max=1"})
    assert len(first.json()) == 1
    assert first.status_code == (206 if "next-range" in first.headers else 200)
    if following := first.headers.get("next-range"):
        second = await remote.platform.get("/addons", headers={"Range": following})
        assert first.json()[0]["id"] not in [each["id"] for each in second.json()]


async def test_an_endpoint_goes_and_comes(expendable: Remote) -> None:
    gone = await expendable.data.delete(expendable.endpoint)
    assert (gone.status_code, gone.json()["status"]) == (202, "Deprovisioning")
    await expendable.until_gone(expendable.endpoint)
    made = await expendable.data.post(expendable.endpoint)
    assert (made.status_code, made.json()["status"]) == (201, "Provisioning")
    await expendable.until(expendable.endpoint, {"Operational"})
    certificates = await expendable.get(f"{expendable.endpoint}/certificates")
    assert "ready" in [each["status"] for each in certificates]


async def test_an_addon_has_60_rules_at_most(expendable: Remote) -> None:
    path = f"{expendable.endpoint}/ip-rules"
    for n in range(MOST_RULES - len(await expendable.get(path))):
        answer = await expendable.data.post(path, json={"cidr": f"192.0.2.{n}/32", "description": "mtlskit"})
        assert answer.status_code == 201
    answer = await expendable.data.post(path, json={"cidr": "198.51.100.1/32", "description": "mtlskit"})
    assert answer.status_code == 422


async def test_a_cidr_that_was_just_deleted_may_be_a_500(expendable: Remote) -> None:
    async with _rule(expendable, expendable.endpoint):
        pass
    body = {"cidr": NOWHERE, "description": "mtlskit"}
    statuses = []
    for _ in range(30):
        statuses.append((await expendable.data.post(f"{expendable.endpoint}/ip-rules", json=body)).status_code)
        if statuses[-1] == 201:
            break
        await expendable.pass_time()
    assert set(statuses) == {500, 201}


async def test_kafka_credentials_change_in_the_config_vars(expendable: Remote) -> None:
    path = f"/apps/{expendable.app}/config-vars"
    before = (await expendable.platform.get(path)).json()
    answer = await expendable.data.post(f"{expendable.cluster}/rotate-credentials")
    assert (answer.status_code, list(answer.json())) == (200, ["message"])
    after = (await expendable.platform.get(path)).json()
    assert before["KAFKA_CLIENT_CERT"] != after["KAFKA_CLIENT_CERT"]
    assert before["KAFKA_CLIENT_CERT_KEY"] != after["KAFKA_CLIENT_CERT_KEY"]


async def test_trusted_ranges_are_replaced_as_a_whole(expendable: Remote) -> None:
    path = "/spaces/sandbox/inbound-ruleset"
    rules = [{"action": "allow", "source": "192.0.2.0/24"}]
    assert (await expendable.platform.put(path, json={"rules": rules})).json()["rules"] == rules
    assert (await expendable.platform.get(path)).json()["rules"] == rules
    assert (await expendable.platform.get("/spaces/sandbox/nat")).json().keys() >= {"state", "sources"}
