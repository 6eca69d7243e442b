"""An app's config vars: names may be told, values never."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = ["ConfigVars"]


class ConfigVars(Mapping[str, str]):
    """Name → value. Its `repr` has the names only: nearly every value is a secret, and none is known not to be one."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<ConfigVars {sorted(self._values)}>"
