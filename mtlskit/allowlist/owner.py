"""Whose a rule is: the tag at the end of its description, which is all that a rule has room for.

`office [mtlskit:reporting/web-1]` belongs to the allowlist `reporting` as the host `web-1` keeps it. Only a tag at the
very end counts: one that a person quotes in the middle of a sentence makes nobody an owner. Tags are compared letter by
letter, so that two hosts never take each other's rules for their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["NOBODY", "Owner", "bare", "is_owner_part", "owner_of"]

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_OPENING = "[mtlskit:"
_TAG = re.compile(rf"\[mtlskit:(?P<name>{_PART.pattern})/(?P<id>{_PART.pattern})\]")


@dataclass(frozen=True)
class Owner:
    """An allowlist (`name`) as one host or one group of hosts (`id`) keeps it. Both empty: `NOBODY`.

    Raises `ValueError` for parts that no tag could hold (`is_owner_part`); the configuration has looked before.
    """

    name: str
    id: str

    def __post_init__(self) -> None:
        if (self.name or self.id) and not (is_owner_part(self.name) and is_owner_part(self.id)):
            raise ValueError("not the parts of an owner's tag")

    def __str__(self) -> str:
        return f"{self.name}/{self.id}" if self.name else ""

    @property
    def tag(self) -> str:
        """As it stands in a description; empty for `NOBODY`."""
        return f"{_OPENING}{self.name}/{self.id}]" if self.name else ""

    def tagged(self, description: str) -> str:
        """`description` with this owner's tag at its end, and no other's."""
        return f"{bare(description)} {self.tag}".strip()

    def owns(self, description: str) -> bool:
        """Whether a rule with `description` is this owner's. Nothing is `NOBODY`'s."""
        return owner_of(description) == self


NOBODY: Final = Owner("", "")
"""For rules made by hand: no allowlist ever takes them for its own, and removes them."""


def is_owner_part(text: str) -> bool:
    """Whether `text` can be an owner's name or id: letters, digits, `-`, `_` and `.`, at most 63."""
    return _PART.fullmatch(text) is not None


def owner_of(description: str) -> Owner | None:
    """The owner of a rule with `description`; None where it carries no tag."""
    return _split(description)[1]


def bare(description: str) -> str:
    """`description` without tags at its end, and without space around it."""
    rest, owner = _split(description)
    while owner is not None:
        rest, owner = _split(rest)
    return rest.strip()


def _split(description: str) -> tuple[str, Owner | None]:
    """What stands before the tag at the end, and the tag's owner. Found from the end, so that no text is slow."""
    text = description.rstrip()
    start = text.rfind(_OPENING)
    found = _TAG.fullmatch(text, start) if start >= 0 else None
    return (text[:start], Owner(found["name"], found["id"])) if found else (text, None)
