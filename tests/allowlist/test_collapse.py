"""Joined ranges: their descriptions and origins. What they cover is in `test_plan_properties`."""

from __future__ import annotations

from ipaddress import IPv4Network

from mtlskit.allowlist.collapse import collapse
from mtlskit.allowlist.plan import Wanted


def want(cidr: str, description: str, origin: str = "file") -> Wanted:
    return Wanted(IPv4Network(cidr), description, origin)


def test_neighbours_are_joined_and_both_described() -> None:
    joined = collapse([want("198.51.100.1", "b"), want("203.0.113.0/24", "c"), want("198.51.100.0", "a")])
    assert joined == (want("198.51.100.0/31", "a + b"), want("203.0.113.0/24", "c"))


def test_what_lies_within_another_goes_into_it() -> None:
    assert collapse([want("198.51.100.0/24", "office"), want("198.51.100.7", "office")]) == (
        want("198.51.100.0/24", "office"),
    )


def test_ranges_that_only_touch_stay_apart() -> None:
    apart = (want("198.51.100.1", "a"), want("198.51.100.2", "b"))
    assert collapse(apart) == apart


def test_a_published_list_is_not_hidden_by_what_is_beside_it() -> None:
    (joined,) = collapse([want("198.51.100.0", "a", "file"), want("198.51.100.1", "b", "list:vendor.txt")])
    assert joined.origin == "list:vendor.txt"
    (joined,) = collapse([want("198.51.100.0", "a", "my-ip"), want("198.51.100.1", "b", "file")])
    assert joined.origin == "my-ip"


def test_many_descriptions_are_counted() -> None:
    (joined,) = collapse([want(f"198.51.100.{number}", f"host number {number}") for number in range(64)])
    assert joined.cidr == IPv4Network("198.51.100.0/26")
    assert joined.description.startswith("host number 0 + host number 1 + ")
    assert joined.description.endswith(" more")
    assert len(joined.description) <= 200
    (joined,) = collapse([want("198.51.100.0", "x" * 300), want("198.51.100.1", "y")])
    assert joined.description == f"{'x' * 199}…"


def test_nothing() -> None:
    assert collapse([]) == ()
