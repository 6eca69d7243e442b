"""Faults of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mtlskit.doctor.gather import Gathered, from_file
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Fault, Stage
from tests.doctor.catalogue.places import NOT_RUNNING, by_file, means


@contextmanager
def _no_file(stage: Stage) -> Iterator[Gathered]:
    yield from_file(stage.folder / "mtlskit.toml", (), means())


FAULTS: tuple[Fault, ...] = (
    Fault(
        "cfg-no-file",
        "The configuration file is not there",
        Code.CONFIG_NOT_FOUND,
        _no_file,
        seen="there is no such file",
    ),
    Fault(
        "cfg-not-toml",
        "A text without quotes in the configuration",
        Code.CONFIG_SYNTAX,
        by_file(lambda place: "[tunnel.reporting]\nkind = postgres\n"),
        seen="mtlskit.toml:2:",
    ),
    Fault(
        "cfg-unknown-key",
        "A misspelled key in the configuration",
        Code.CONFIG_UNKNOWN_KEY,
        by_file(lambda place: place.table(upstrem="x:1")),
        seen='did you mean "upstream"',
    ),
    Fault(
        "cfg-missing-key",
        "A tunnel without an upstream",
        Code.CONFIG_MISSING_KEY,
        by_file(lambda place: place.table(upstream="")),
        seen="upstream is missing",
    ),
    Fault(
        "cfg-no-variable",
        "A variable that this shell does not have",
        Code.CONFIG_MISSING_VARIABLE,
        by_file(lambda place: place.table(upstream="${REPORTING_URL}")),
        seen="REPORTING_URL is not set",
    ),
    Fault(
        "cfg-no-ca",
        'No CA file for verify = "ca"',
        Code.CONFIG_BAD_VALUE,
        by_file(lambda place: place.table(ca="", verify="ca")),
        seen="needs a CA file",
    ),
    Fault(
        "cfg-open-door",
        "A listener for the whole network that lets everybody in",
        Code.CONFIG_OPEN_DOOR,
        by_file(lambda place: place.table(listen="0.0.0.0:16432")),
        seen="allow_clients",
    ),
    Fault(
        "cfg-no-identity",
        "A tunnel names an identity that the file does not have",
        Code.CONFIG_UNKNOWN_NAME,
        by_file(lambda place: place.table(cert="", key="", identity="reportign")),
        seen="no identity of this name",
    ),
    Fault(
        "cfg-same-listener",
        "Two tunnels listen on one port",
        Code.CONFIG_DUPLICATE_LISTENER,
        by_file(lambda place: place.table("one") + place.table("two")),
        seen="both listen on",
        also=NOT_RUNNING,
    ),
    Fault(
        "cfg-one-of-two",
        "One of two tunnels is described wrongly",
        Code.CONFIG_BAD_VALUE,
        by_file(lambda place: place.table("one") + place.table("two", port=16433, kind="postgrs")),
        seen="tunnel.two.kind",
        also=NOT_RUNNING,
    ),
)
