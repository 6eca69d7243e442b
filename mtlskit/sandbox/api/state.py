"""The state: what there is, kept in `api.json`, and what only lasts as long as the space runs (moves, faults).

`change` is the only place where the world becomes another. It has no await, and it writes the file before it takes the
new world: whoever was told of a change finds it after a crash. Keys and chains of certificates are files of their own
in `api/`, so that the file of the state holds no secret.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from mtlskit.errors import Code, SandboxError
from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.admission import Admission, Doorkeeper, external_address
from mtlskit.sandbox.api.answers import ApiRefusal, not_found
from mtlskit.sandbox.api.clock import Durations, utc_now
from mtlskit.sandbox.api.faults import Faults
from mtlskit.sandbox.api.hooks import Brokers
from mtlskit.sandbox.api.model import AddonRecord, EndpointRecord, RuleRecord, World
from mtlskit.store.files import write_file

__all__ = ["APP", "OWNER", "ApiState"]

APP: Final = "sandbox"
"""The app that all add-ons belong to."""
OWNER: Final = "sandbox@example.com"
_MOST_MOVES: Final = 256


@dataclass
class ApiState:
    """The state of one space's API. Use it from trio's thread only."""

    path: Path
    durations: Durations
    clock: Callable[[], datetime]
    world: World
    faults: Faults
    moves: dict[str, str]
    brokers: Brokers | None = None
    """The Kafka behind the Kafka add-on, while there is one."""
    _doors: dict[str, Doorkeeper] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        addon: str,
        addons: int = 1,
        bare: bool = False,
        speed_up: float = 300,
        clock: Callable[[], datetime] = utc_now,
    ) -> Self:
        """The state in `path` (`api.json`), or a fresh one. `addon`: the Postgres add-on that the gateway stands for.

        A fresh one has an operational endpoint and one rule, for this machine; a `bare` one has neither. `addons` - 1
        more Postgres add-ons are made where there are fewer; those that there are stay. Raises SandboxError
        (SANDBOX_DIR) for a file that cannot be read, IdentityError (FILE_UNWRITABLE), ValueError for a `speed_up` that
        is not positive.
        """
        world = _read(path)
        state = cls(path, Durations().sped_up(speed_up), clock, world or World(), Faults(), {})
        made = _fresh_addons(addon, addons, {each.name for each in state.world.addons}, clock())
        if bare:
            made = [each.model_copy(update={"endpoint": None, "rules": ()}) for each in made]
        if made or world is None:
            state.change(state.world.model_copy(update={"addons": (*state.world.addons, *made)}))
        return state

    @property
    def first(self) -> AddonRecord:
        """The add-on that the gateway stands for."""
        return self.world.addons[0]

    @property
    def files(self) -> Path:
        """The folder of keys and chains."""
        return self.path.with_name("api")

    def now(self) -> datetime:
        """The state's clock."""
        return self.clock()

    def change(self, world: World) -> None:
        """Take another world, once it is on the disk. Raises IdentityError (FILE_UNWRITABLE)."""
        write_file(self.path, world.model_dump_json(indent=1).encode() + b"\n", replace=True)
        self.world, self._doors = world, {}

    def change_addon(self, addon: AddonRecord, **update: object) -> AddonRecord:
        """Give an add-on other values. `addon` must have been read since the last await."""
        changed = addon.model_copy(update=update)
        addons = tuple(changed if each.id == addon.id else each for each in self.world.addons)
        self.change(self.world.model_copy(update={"addons": addons}))
        return changed

    def addon(self, reference: str, kind: AddonKind | None = None) -> AddonRecord:
        """By name or id. Raises ApiRefusal (404)."""
        for each in self.world.addons:
            if reference in (each.name, each.id) and kind in (None, each.kind):
                return each
        raise not_found("Couldn't find that add-on.")

    @property
    def kafka(self) -> AddonRecord:
        """The Kafka add-on."""
        return next(each for each in self.world.addons if each.kind is AddonKind.KAFKA)

    def admits(self, address: str, now: datetime | None = None, *, addon: AddonRecord | None = None) -> Admission:
        """Whether a peer at `address` may come in to an add-on, or else to the first one."""
        addon = addon or self.first
        door = self._doors.get(addon.id) or self._doors.setdefault(addon.id, Doorkeeper(addon))
        answer = door.admits(self.external(address), now or self.clock())
        if not answer.allowed and self.faults.standing("reset") is not None:
            return Admission(False, answer.reason, reset=True)
        return answer

    def external(self, address: str) -> str:
        """What the world sees of a peer at `address`."""
        return external_address(address, self.moves)

    def move(self, here: str, there: str) -> None:
        """From now on the world sees `there` where `here` connects. Raises ApiRefusal (422)."""
        try:
            source, target = str(IPv4Address(external_address(here, {}))), str(IPv4Address(there))
        except ValueError as exc:
            raise ApiRefusal(422, "invalid_params", f"A move is from one IPv4 address to another: {exc}.") from exc
        if source not in self.moves and len(self.moves) >= _MOST_MOVES:
            raise ApiRefusal(422, "invalid_params", f"{_MOST_MOVES} addresses have moved already.")
        self.moves[source] = target


def _read(path: Path) -> World | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _unusable(path, exc.strerror or str(exc)) from exc
    try:
        world = World.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unusable(path, f"{where}: {first['msg']}" if where else first["msg"]) from exc
    if not world.addons or world.format != 1:
        raise _unusable(path, "it was written by another version")
    return world


def _unusable(path: Path, reason: str) -> SandboxError:
    return SandboxError(
        Code.SANDBOX_DIR,
        f"{path}, the state of the sandbox's API, cannot be used: {reason}",
        f"put it aside, and the sandbox begins with a fresh one: mv {path} {path}.old",
    )


def _fresh_addons(first: str, count: int, known: set[str], now: datetime) -> list[AddonRecord]:
    number = "".join(character for character in first if character.isdigit()) or "10000"
    postgres = [
        (first if n == 0 else f"postgresql-sandbox-{number}-{n + 1}", "DATABASE" if n == 0 else f"DATABASE_{n + 1}")
        for n in range(count)
    ]
    made = [
        _addon(name, AddonKind.POSTGRES, "private-0", attachment, now)
        for name, attachment in postgres
        if name not in known
    ]
    if (name := f"kafka-sandbox-{number}") not in known:
        made.append(_addon(name, AddonKind.KAFKA, "private-standard-0", "KAFKA", now))
    if (name := f"postgresql-common-{number}") not in known:
        made.append(_addon(name, AddonKind.POSTGRES, "standard-0", "COMMON_DATABASE", now, mtls=False))
    return made


def _addon(name: str, kind: AddonKind, plan: str, attachment: str, now: datetime, *, mtls: bool = True) -> AddonRecord:
    rule = RuleRecord(
        id=str(uuid.uuid4()),
        cidr="127.0.0.1/32",
        description="this machine (made by the sandbox)",
        created_at=now,
        acts_at=now,
    )
    has_endpoint = mtls and kind is AddonKind.POSTGRES
    return AddonRecord(
        id=str(uuid.uuid4()),
        name=name,
        kind=kind,
        plan=plan,
        attachment=attachment,
        created_at=now,
        mtls=mtls,
        endpoint=EndpointRecord(ready_at=now) if has_endpoint else None,
        rules=(rule,) if mtls else (),
    )
