"""Tags at the end of descriptions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.allowlist.owner import NOBODY, Owner, bare, is_owner_part, owner_of

OWNER = Owner("reporting", "web-1")
PARTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}", fullmatch=True)


@pytest.mark.parametrize(
    ("description", "owner", "rest"),
    [
        ("office [mtlskit:reporting/web-1]", OWNER, "office"),
        ("[mtlskit:reporting/web-1]", OWNER, ""),
        ("office[mtlskit:reporting/web-1] \n", OWNER, "office"),
        ("a [mtlskit:x/y] [mtlskit:reporting/web-1]", OWNER, "a"),
        ("office", None, "office"),
        ("", None, ""),
        ("[mtlskit:reporting/web-1] office", None, "[mtlskit:reporting/web-1] office"),
        ("[MTLSKIT:reporting/web-1]", None, "[MTLSKIT:reporting/web-1]"),
        ("[mtlskit:reporting]", None, "[mtlskit:reporting]"),
        ("[mtlskit:/web-1]", None, "[mtlskit:/web-1]"),
        ("[mtlskit:a b/web-1]", None, "[mtlskit:a b/web-1]"),
        ("[mtlskit:reporting/web-1]]", None, "[mtlskit:reporting/web-1]]"),
        ("[mtlskit:a/[mtlskit:reporting/web-1]", OWNER, "[mtlskit:a/"),
    ],
)
def test_whose_a_description_is(description: str, owner: Owner | None, rest: str) -> None:
    assert owner_of(description) == owner
    assert bare(description) == rest


@pytest.mark.parametrize(
    "other", [Owner("reporting", "web-2"), Owner("Reporting", "web-1"), Owner("web-1", "reporting")]
)
def test_another_host_is_another_owner(other: Owner) -> None:
    assert not OWNER.owns(other.tagged("office"))


def test_nobody_owns_nothing() -> None:
    assert NOBODY.tagged(" office ") == "office"
    assert (str(NOBODY), NOBODY.tag) == ("", "")
    assert not NOBODY.owns("office")
    assert not NOBODY.owns(NOBODY.tagged(""))


@pytest.mark.parametrize(
    "parts", [("", "a"), ("a", ""), ("a b", "c"), ("a/b", "c"), ("a]", "c"), ("-a", "b"), ("a" * 64, "b")]
)
def test_parts_that_no_tag_could_hold(parts: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="parts"):
        Owner(*parts)


@given(st.text(max_size=60), PARTS, PARTS)
def test_what_is_tagged_is_owned_and_can_be_read_again(text: str, name: str, number: str) -> None:
    owner = Owner(name, number)
    tagged = owner.tagged(text)
    assert is_owner_part(name)
    assert owner.owns(tagged)
    assert owner.tagged(tagged) == tagged
    assert bare(tagged) == bare(text)
    assert str(owner) == f"{name}/{number}"
