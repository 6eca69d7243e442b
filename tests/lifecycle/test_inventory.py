"""What is found of identities: in files, in the store, and where something is wrong with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mtlskit.config.loading import parse_config
from mtlskit.config.values import ProxyConfig
from mtlskit.errors import Code
from mtlskit.lifecycle.inventory import Condition, Inventory, Item, examine, take_stock
from mtlskit.pki.authority import Authority
from mtlskit.pki.keys import generate_key, private_key_pem
from mtlskit.store.files import write_file
from mtlskit.store.identities import Store, StoredIdentity, Version
from mtlskit.store.journal import DONE, FAILED, REVOKED, Journal
from tests.support.stored_identities import put_version

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Place:
    """A folder with a configuration, and a CA to fill it."""

    folder: Path
    authority: Authority

    @property
    def store(self) -> Path:
        return self.folder / "identities"

    def config(self, text: str) -> ProxyConfig:
        return parse_config(text, source=self.folder / "mtlskit.toml", environ={}, platform="linux")

    def put(self, name: str, *, age: timedelta = DAY, life: timedelta = 90 * DAY) -> tuple[StoredIdentity, Version]:
        return put_version(self.store, name, self.authority, begins=NOW - age, lifetime=life)

    def files(self, name: str, *, age: timedelta = DAY, life: timedelta = 90 * DAY) -> str:
        issued = self.authority.issue_client(name, now=NOW - age, lifetime=life)
        write_file(self.folder / f"{name}.crt", issued.cert_pem, replace=True)
        write_file(self.folder / f"{name}.key", issued.key_pem, replace=True)
        return f'[identity.{name}]\ncert = "{name}.crt"\nkey = "{name}.key"\n'


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test ca", now=NOW - 1000 * DAY)


@pytest.fixture
def place(tmp_path: Path, authority: Authority) -> Place:
    return Place(tmp_path, authority)


def ours(name: str, more: str = "") -> str:
    return f'[identity.{name}]\nissuer = "ca"\nca_dir = "ca"\n{more}'


def only(inventory: Inventory) -> Item:
    (item,) = inventory.items
    return item


def both(place: Place, text: str, now: datetime = NOW) -> Item:
    """What the quick and the close look agree upon."""
    config = place.config(text)
    quick, close = only(take_stock(config, now)), only(examine(config, config.identities, now))
    assert quick.condition == close.condition
    return close


TUNNELS = """\
[tunnel.one]
kind = "postgres"
listen = "127.0.0.1:1"
upstream = "db"
identity = "a"
[tunnel.two]
kind = "postgres"
listen = "127.0.0.1:2"
upstream = "db"
identity = "a"
"""


def test_a_good_one_of_each_kind(place: Place) -> None:
    _, version = place.put("a")
    config = place.config(ours("a") + place.files("b") + TUNNELS)
    for inventory in (take_stock(config, NOW), examine(config, config.identities, NOW)):
        a, b = inventory.items
        assert (a.name, a.issuer, a.condition, a.version) == ("a", "ca", Condition.FINE, 1)
        assert (a.subject, a.serial, a.tunnels) == ("CN=a", version.facts.serial, ("one", "two"))
        assert a.decision is not None
        assert a.decision.days_left == 89
        assert (a.todo, a.reason, a.rotating, a.warnings) == ("", "", False, ())
        assert (b.name, b.issuer, b.condition, b.version, b.tunnels) == ("b", "files", Condition.FINE, None, ())


@pytest.mark.parametrize(
    ("age", "more", "condition"),
    [
        (59 * DAY, "", Condition.FINE),
        (61 * DAY, "", Condition.DUE),
        (61 * DAY, 'renew_before = "10d"', Condition.FINE),
        (10 * DAY, 'renew_before = "90%"', Condition.DUE),
        (91 * DAY, "", Condition.EXPIRED),
        (-2 * DAY, "", Condition.NOT_YET_VALID),
    ],
)
def test_what_the_dates_say(place: Place, age: timedelta, more: str, condition: Condition) -> None:
    place.put("a", age=age)
    stored = both(place, ours("a", more))
    assert stored.condition is condition
    assert ("mtlskit certs rotate a" in stored.todo) == (condition in {Condition.DUE, Condition.EXPIRED})
    shutil.rmtree(place.store)
    files = both(place, place.files("a", age=age) + more)
    assert files.condition is condition
    assert (f"put new files in place of {place.folder / 'a.crt'}" in files.todo) == bool("rotate" in stored.todo)
    assert ("clock" in files.todo) == (condition is Condition.NOT_YET_VALID)


def test_nothing_yet_and_the_first_one_on_its_way(place: Place) -> None:
    item = both(place, ours("a"))
    assert (item.condition, item.todo) == (Condition.NONE_YET, "mtlskit certs issue a")
    stored = Store(place.store).identity("a")
    stored.prepare()
    rotation = Journal(stored.journal_path).begin(NOW)
    assert both(place, ours("a")).condition is Condition.PENDING
    Journal(stored.journal_path).note(rotation, DONE, NOW)
    assert both(place, ours("a")).condition is Condition.NONE_YET


def test_a_rotation_that_goes_on_is_told_beside_the_state(place: Place) -> None:
    stored, _ = place.put("a")
    journal = Journal(stored.journal_path)
    first = journal.note(journal.begin(NOW), DONE, NOW)
    assert not both(place, ours("a")).rotating
    journal.note(first, REVOKED, NOW)
    assert not both(place, ours("a")).rotating
    journal.note(journal.begin(NOW), "request", NOW, done="done")
    item = both(place, ours("a"))
    assert (item.condition, item.rotating, item.failed) == (Condition.FINE, True, "")
    assert item.todo == "mtlskit certs rotate a"


def test_why_a_rotation_came_no_further_is_told_until_it_does(place: Place) -> None:
    stored, _ = place.put("a")
    journal = Journal(stored.journal_path)
    rotation = journal.note(journal.begin(NOW), FAILED, NOW, at="prove", code="MTLS-ROT-001", reason="db refused it")
    assert both(place, ours("a")).failed == "db refused it"
    journal.note(rotation, "stage", NOW + DAY)
    item = both(place, ours("a"))
    assert (item.rotating, item.failed) == (True, "")


def other_key(folder: Path) -> None:
    (folder / "client.key").write_bytes(private_key_pem(generate_key()))


DAMAGES: list[tuple[Callable[[Path], object], Code]] = [
    (lambda folder: (folder / "client.crt").unlink(), Code.FILE_MISSING),
    (lambda folder: (folder / "client.key").unlink(), Code.FILE_MISSING),
    (lambda folder: (folder / "client.crt").write_text("-----BEGIN CERTIFICATE-----\nMII\n"), Code.PEM_DAMAGED),
    (lambda folder: (folder / "version.json").write_text("{"), Code.STORE_DAMAGED),
    (lambda folder: (folder / "version.json").unlink(), Code.STORE_DAMAGED),
    (lambda folder: folder.rename(folder.with_name("0009")), Code.STORE_DAMAGED),
]


@pytest.mark.parametrize(("damage", "code"), DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_one_hides_no_other(place: Place, damage: Callable[[Path], object], code: Code) -> None:
    _, version = place.put("a")
    place.put("b")
    damage(version.folder)
    config = place.config(ours("a") + ours("b"))
    for inventory in (take_stock(config, NOW), examine(config, config.identities, NOW)):
        a, b = inventory.items
        assert (a.condition, a.code, a.todo) == (Condition.DAMAGED, code, "mtlskit certs rotate a")
        assert str(place.store) in a.reason
        assert b.condition is Condition.FINE


def test_what_mends_a_damaged_journal_is_no_rotation(place: Place) -> None:
    stored, _ = place.put("a")
    stored.journal_path.write_text("no\n")
    item = both(place, ours("a"))
    assert (item.condition, item.code) == (Condition.DAMAGED, Code.STORE_DAMAGED)
    assert str(stored.journal_path) in item.reason
    assert item.todo.startswith("restore the file from a backup")


def test_a_version_that_holds_another_certificate(place: Place) -> None:
    _, version = place.put("a")
    issued = place.authority.issue_client("a", now=NOW, lifetime=DAY)
    version.cert.write_bytes(issued.cert_pem)
    item = both(place, ours("a"))
    assert (item.condition, item.code) == (Condition.DAMAGED, Code.STORE_DAMAGED)
    assert "not the certificate that was put there" in item.reason


def test_a_key_for_another_certificate_is_seen_from_close(place: Place) -> None:
    _, version = place.put("a")
    other_key(version.folder)
    config = place.config(ours("a"))
    assert only(take_stock(config, NOW)).condition is Condition.FINE
    item = only(examine(config, config.identities, NOW))
    assert (item.condition, item.code) == (Condition.DAMAGED, Code.KEY_MISMATCH)
    assert item.todo == "mtlskit certs rotate a"

    text = place.files("b")
    (place.folder / "b.key").write_bytes(private_key_pem(generate_key()))
    config = place.config(text)
    item = next(item for item in examine(config, config.identities, NOW).items if item.name == "b")
    assert item.code is Code.KEY_MISMATCH
    assert "issued together" in item.todo


def test_a_key_that_everybody_can_read_is_no_reason_to_rotate(place: Place) -> None:
    _, version = place.put("a")
    version.key.chmod(0o644)
    item = both(place, ours("a"))
    assert (item.condition, item.code) == (Condition.DAMAGED, Code.KEY_EXPOSED)
    assert item.todo.startswith("chmod 600")


def test_a_ca_that_cannot_be_read_is_seen_from_close(place: Place) -> None:
    place.put("a")
    config = place.config(ours("a", 'ca = "absent.crt"\n'))
    assert only(take_stock(config, NOW)).condition is Condition.FINE
    item = only(examine(config, config.identities, NOW))
    assert (item.condition, item.code) == (Condition.DAMAGED, Code.FILE_MISSING)
    assert "absent.crt" in item.reason
    assert "rotate" not in item.todo


def test_the_ca_of_a_tunnel_counts_too(place: Place) -> None:
    place.put("a")
    config = place.config(ours("a") + TUNNELS + 'ca = "absent.crt"\n')
    item = only(examine(config, config.identities, NOW))
    assert "absent.crt" in item.reason


def test_what_only_the_store_knows_comes_last(place: Place) -> None:
    place.put("old")
    Store(place.store).identity("empty").prepare()
    _, broken = place.put("broken")
    broken.cert.unlink()
    place.put("a")
    config = place.config(ours("a") + place.files("old"))
    a, files, bad, empty, old = take_stock(config, NOW).items
    assert [a.name, files.name, bad.name, empty.name, old.name] == ["a", "old", "broken", "empty", "old"]
    assert {bad.condition, empty.condition, old.condition} == {Condition.NOT_IN_FILE}
    assert (old.issuer, old.subject, old.version) == ("ca", "CN=old", 1)
    assert "remove" in old.todo
    assert bad.code is Code.FILE_MISSING
    assert (empty.subject, empty.reason) == ("", "")
    assert [item.name for item in examine(config, config.identities, NOW).items] == ["a", "old"]


def test_the_leaf_of_a_bundle_in_any_order(place: Place) -> None:
    text = place.files("a")
    path = place.folder / "a.crt"
    path.write_bytes(place.authority.cert_pem + path.read_bytes())
    item = both(place, text)
    assert (item.condition, item.subject) == (Condition.FINE, "CN=a")


def test_a_store_that_cannot_be_looked_through_is_told(place: Place) -> None:
    place.store.write_text("no folder")
    inventory = take_stock(place.config(place.files("a")), NOW)
    assert only(inventory).condition is Condition.FINE
    assert str(place.store) in inventory.reason


def test_warnings_are_seen_from_close(place: Place) -> None:
    text = place.files("a", age=61 * DAY) + 'renew_before = "10d"\n'
    config = place.config(text)
    item = only(examine(config, config.identities, NOW))
    assert item.condition is Condition.FINE
    assert any("expires on" in warning for warning in item.warnings)


def test_tunnels_from_flags_have_no_store(place: Place) -> None:
    text = place.files("a") + TUNNELS
    config = place.config(text)
    config = ProxyConfig(config.tunnels, identities=config.identities)
    assert only(take_stock(config, NOW)).condition is Condition.FINE
