"""A tunnel that leads to a private address: VPC peering, PrivateLink, a VPN. Its add-on's IP rules are not asked then.

IP rules are held against the address with which the Internet sees this host, and a connection to a private address does
not come from there. Heroku is asked for the rules while the name is looked up, so what the rules say is put right when
both are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mtlskit.doctor.finding import Finding, Layer, Verdict, passed, skipped
from mtlskit.doctor.network.addresses import is_private

__all__ = ["on_private_way"]

_MOST = 3
"""Addresses in a sentence."""


def on_private_way(findings: Sequence[Finding], dialled: Sequence[str]) -> list[Finding]:
    """The findings, with the allowlist's in the light of where the tunnel leads to: `dialled` are all of its addresses.

    Where one of them is public, or none is known, they stay as they are: clients may go there.
    """
    if not dialled or not all(map(is_private, dialled)):
        return list(findings)
    where = ", ".join(dialled[:_MOST]) + (f" and {len(dialled) - _MOST} more" if len(dialled) > _MOST else "")
    return [_put_right(each, where, dialled) if each.layer is Layer.ALLOWLIST else each for each in findings]


def _put_right(finding: Finding, where: str, dialled: Sequence[str]) -> Finding:
    why = f"the way leads to a private address ({where})"
    if finding.check == "allowlist.rules" and finding.verdict is not Verdict.SKIPPED:
        seen = f"{why}: the IP rules of {finding.about} are not asked there"
        return passed(Layer.ALLOWLIST, finding.check, seen, about=finding.about, **finding.facts, private=list(dialled))
    if finding.verdict in (Verdict.WARN, Verdict.FAIL):  # of the address that others see, which does not matter there
        return skipped(Layer.ALLOWLIST, finding.check, f"{why}, where no rule is asked", about=finding.about)
    if finding.check == "allowlist.rules":
        return replace(finding, because=f"{why}, where no rule is asked")
    return finding
