"""Identities of every shape that work: neither a failure nor a warning."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import trio

from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import diagnose, from_file, from_flags
from tests.doctor.catalogue.base import Stage, told_of
from tests.doctor.catalogue.places import Flags, Place, means, placed
from tests.services.pki import PASSPHRASE
from tests.support.own_authority import OwnAuthority
from tests.support.tls_servers import echoing, listening


def _chained(place: Place) -> Flags:
    return {"cert": place.pki.client_chained.cert, "key": place.pki.client_chained.key}


def _locked(place: Place) -> Flags:
    pair = place.pki.client_locked
    return {"cert": pair.cert, "key": pair.key, "passphrase_file": place.write("phrase", f"{PASSPHRASE}\n")}


def _in_one_file(place: Place) -> Flags:
    both = place.write("both.pem", place.key.read_bytes() + place.cert.read_bytes())
    return {"cert": both, "key": both}


def _for_a_group(place: Place) -> Flags:
    return {"key": place.write("group.key", place.key.read_bytes(), 0o640)}


def _backwards(place: Place) -> Flags:
    blocks = place.pki.client_chained.cert.read_bytes().split(b"-----END CERTIFICATE-----\n")
    turned = b"".join(block + b"-----END CERTIFICATE-----\n" for block in (blocks[1], blocks[0]))
    return {"cert": place.write("turned.crt", turned), "key": place.pki.client_chained.key}


def _old_anchors_too(place: Place) -> Flags:
    both = place.pki.stranger_ca.read_bytes() + place.pki.server_ca.read_bytes()
    return {"ca": place.write("anchors.crt", both)}


def _by_a_link(place: Place) -> Flags:
    folder = place.folder / "versions"
    folder.mkdir()
    for path in (place.cert, place.key):
        shutil.copy2(path, folder)
    (place.folder / "live").symlink_to(folder)
    return {"cert": place.folder / "live" / "client.crt", "key": place.folder / "live" / "client.key"}


@pytest.mark.parametrize(
    "make", [_chained, _locked, _in_one_file, _for_a_group, _backwards, _old_anchors_too, _by_a_link]
)
def test_nothing_is_found(make: Callable[[Place], Flags], stage: Stage) -> None:
    with placed(stage) as place:
        (diagnosis,) = trio.run(diagnose, from_flags(place.flags(**make(place)), means())).diagnoses
    assert {each.verdict for each in diagnosis.findings} <= {Verdict.PASS, Verdict.SKIPPED}, told_of(diagnosis)


def test_a_stored_identity_of_our_own_authority(stage: Stage) -> None:
    own = OwnAuthority.make(stage.folder)
    own.issue("reporting")
    with listening(echoing(own.server_context())) as port:
        own.configure(port)
        (diagnosis,) = trio.run(diagnose, from_file(own.file, (), means())).diagnoses
    troubled: list[Any] = [each.check for each in diagnosis.findings if each.code]
    assert troubled == ["local.proxy"], told_of(diagnosis)  # no proxy runs for it
