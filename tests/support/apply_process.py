"""A process that applies five rules: `python -m tests.support.apply_process RULES.json STATE`.

Its rules lie in a file, which every call reads and writes anew, without any care for others: it is the turns that are
tried out here.
"""

from __future__ import annotations

import json
import secrets
import sys
from ipaddress import IPv4Network
from pathlib import Path

import trio

from mtlskit.allowlist.apply import apply
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Plan, Wanted, plan_addon
from mtlskit.allowlist.turns import turn
from mtlskit.heroku.values import AddonKind, IpRule

OWNER = Owner("office", "0123abcd")


class FileRules:
    """Implements `RuleApi`. A rule acts when it is listed for the second time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listed: set[str] = set()

    async def ip_rules(self, addon: str, kind: AddonKind, /) -> tuple[IpRule, ...]:
        await trio.lowlevel.checkpoint()
        acting, rules = set(self._listed), self._read()
        self._listed |= {rule["id"] for rule in rules}
        return tuple(
            IpRule(
                rule["id"], rule["cidr"], rule["description"], "Authorized" if rule["id"] in acting else "Authorizing"
            )
            for rule in rules
        )

    async def add_ip_rule(self, addon: str, kind: AddonKind, cidr: str, description: str, /) -> IpRule:
        rules = self._read()
        made = {"id": secrets.token_hex(4), "cidr": cidr, "description": description}
        self._path.write_text(json.dumps([*rules, made]))
        await trio.lowlevel.checkpoint()
        return IpRule(made["id"], cidr, description, "Authorizing")

    async def delete_ip_rule(self, addon: str, kind: AddonKind, rule_id: str, /) -> None:
        self._path.write_text(json.dumps([rule for rule in self._read() if rule["id"] != rule_id]))
        await trio.lowlevel.checkpoint()

    def _read(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(self._path.read_text())
        return found


async def main(rules: Path, state: Path) -> None:
    """Take the turn, look, plan, apply, and tell how many rules were added."""
    api = FileRules(rules)
    wanted = [Wanted(IPv4Network(f"203.0.113.{number}"), "office") for number in range(5)]
    async with turn(state, OWNER, wait=60):
        found = await api.ip_rules("db", AddonKind.POSTGRES)
        plan = plan_addon("db", AddonKind.POSTGRES, wanted, found, owner=OWNER, me=None)
        applied = await apply(api, Plan((plan,)), wait=60)
    print("added", len(applied.addons[0].added))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]))
