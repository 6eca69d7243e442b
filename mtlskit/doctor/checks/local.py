"""The local side: is the proxy there, what does it serve, is the door ours, and does a plain client get through."""

from __future__ import annotations

from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.finding import Finding, Layer, skipped
from mtlskit.doctor.local.door import at_the_door, unusable_folder, who_is_there, without_proxy
from mtlskit.doctor.local.insisting import insists
from mtlskit.doctor.local.outdated import about_file, differences, has_moved
from mtlskit.doctor.local.proxies import Found, find_proxies
from mtlskit.doctor.local.proxy import about_proxy, tunnel_failed

__all__ = ["look_at_local_side"]


async def look_at_local_side(case: Case, identified: Identified) -> tuple[Finding, ...]:
    """Layer LOCAL. Only called for a tunnel of a file."""
    found = await find_proxies(case)
    findings = [unusable_folder(found), *await _of_tunnel(case, identified, found), insists(case)]
    return tuple(finding for finding in findings if finding is not None)


async def _of_tunnel(case: Case, identified: Identified, found: Found) -> tuple[Finding, ...]:
    served = found.served
    if served is None:
        return await without_proxy(case, found)
    differing = differences(case, identified, served)
    moved = has_moved(case, served)
    there = await who_is_there(case, found, served) if moved else ()
    of_file = about_file(case, found, served, differing, there)
    about = (*there, *about_proxy(case, identified, served, of_file, differing))
    if moved:  # the door that is open is not the one that clients are told
        client = () if there else (skipped(Layer.LOCAL, "local.client", "local.config"),)
        return *about, *client
    if tunnel_failed(served):
        return *about, skipped(Layer.LOCAL, "local.client", "local.tunnel")
    return *about, await at_the_door(case, served)
