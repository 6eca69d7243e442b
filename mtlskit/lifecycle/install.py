"""The second half of a rotation: from a version in the store to one that is proved, used, and alone.

    prove          connect to every tunnel's upstream with it
    before_switch  the operator's hook
    switch         `current` means the new version
    tell           the running proxies load it, and are seen to serve it
    after_switch   the operator's hook
    drain          wait for the sessions of the old certificate, if that is wanted
    revoke         take the old certificate back, if that is wanted, and only what this store has asked for

The operator's hook comes before anything is revoked: it may be what carries the new pair to other hosts.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from mtlskit.config.values import TunnelConfig
from mtlskit.errors import Code, MtlskitError, RotationError, StoreError
from mtlskit.lifecycle.hooks import run_hook
from mtlskit.lifecycle.prove import Proof, files_of, prove_tunnel
from mtlskit.lifecycle.taking_back import revoke_old
from mtlskit.lifecycle.work import Done, StillWaiting, Work
from mtlskit.store.identities import Version

__all__ = ["after_switch", "before_switch", "drain", "prove", "revoke", "switch", "tell"]

_DRAIN_PAUSE = 1.0  # seconds between two looks at the sessions that are left


def _new(work: Work) -> Version:
    version = work.target.stored.version_of(work.rotation.id)
    if version is None:
        raise StoreError(
            Code.STORE_DAMAGED,
            f"{work.target.stored.folder}: the version that rotation {work.rotation.id} has made is gone",
            f"begin anew: mtlskit certs rotate {work.target.name} --fresh",
        )
    return version


async def prove(work: Work) -> Done:
    """Fails if an endpoint refuses the new pair, or no endpoint of a tunnel could be asked.

    That a hook comes next is written down before it runs: it may carry the pair to other hosts, and fail, and be
    removed from the configuration afterwards.
    """
    hooked = bool(work.target.hooks.before_switch) or bool(work.rotation.facts("prove").get("hooked"))
    done = await _proved(work)
    return Done(done.told, {**done.facts, "hooked": hooked})


async def _proved(work: Work) -> Done:
    target = work.target
    if not work.wanted.prove:
        return Done("not proved, as asked", {"skipped": True})
    if not target.tunnels:
        return Done("no tunnel uses it, so there is nothing to prove", {"skipped": True})
    version, now = _new(work), work.tools.clock()
    found: dict[str, Sequence[Proof] | MtlskitError] = {}

    async def one(tunnel: TunnelConfig) -> None:
        try:
            old = tunnel.identity if work.begun.get("old_serial") else None
            located = await work.tools.located(tunnel)
            found[tunnel.name] = await prove_tunnel(located, files_of(tunnel.identity, version), now=now, old=old)
        except MtlskitError as exc:  # the pair cannot even be loaded, or Heroku not be asked: most often for all alike
            found[tunnel.name] = exc

    async with trio.open_nursery() as nursery:
        for tunnel in target.tunnels:
            nursery.start_soon(one, tunnel)
    proved: list[Proof] = []
    for tunnel in target.tunnels:
        proofs = found[tunnel.name]
        if isinstance(proofs, MtlskitError):
            raise proofs
        _judge(work, proofs)
        proved += [proof for proof in proofs if proof.error is None]
    told = "proved: " + "; ".join(f"{proof.endpoint} {proof.answer}" for proof in proved)
    return Done(told, {"proofs": [[proof.tunnel, proof.endpoint, proof.answer] for proof in proved]})


def _judge(work: Work, proofs: Sequence[Proof]) -> None:
    failed = [proof for proof in proofs if proof.error is not None]
    if refusal := next((proof for proof in failed if proof.refused), None):
        raise _unproved(work, refusal)
    if len(failed) == len(proofs):
        raise _unproved(work, failed[0])
    for proof in proofs:
        if proof.note:
            work.note(f"tunnel {proof.tunnel}: {proof.note}")
        if proof.error is not None:
            work.note(f"could not be proved at {proof.endpoint}: {proof.error.sentence}")


def _unproved(work: Work, proof: Proof) -> RotationError:
    error = proof.error
    reason, hint = (error.sentence, error.hint) if error is not None else ("", "")
    stays = "the old one goes on serving" if work.begun.get("old_serial") else "it is not used"
    return RotationError(
        Code.PROOF_FAILED,
        f"{work.target.name}: the new certificate does not work for tunnel {proof.tunnel}, so {stays}: {reason}"
        + (f" [{error.code}]" if error is not None else ""),
        f"{hint}{'; ' if hint else ''}then run it again: the same certificate is tried (--fresh: another one)",
    )


async def before_switch(work: Work) -> Done:
    """The operator's hook."""
    return await _hook(work, "before_switch")


async def after_switch(work: Work) -> Done:
    """The operator's hook."""
    return await _hook(work, "after_switch")


async def _hook(work: Work, hook: str) -> Done:
    target, version = work.target, _new(work)
    facts = {
        "rotation": work.rotation.id,
        "version": str(version.number),
        "serial": version.facts.serial,
        "old_serial": str(work.begun.get("old_serial", "")),
        "not_after": version.facts.not_after,
        "cert": str(version.cert),
        "key": str(version.key),
    }
    return Done(await run_hook(target.hooks, hook, target.name, facts, work.tools.emit))


async def switch(work: Work) -> Done:
    """The one step that changes what everybody reads."""
    version = _new(work)
    work.target.stored.switch(version)
    return Done(f"switched to version {version.number}", {"version": version.number})


async def tell(work: Work) -> Done:
    """Running proxies."""
    target = work.target
    serial = _new(work).facts.serial
    return Done(await work.tools.proxies.serve(target.name, target.identity.cert, serial))


async def drain(work: Work) -> Done:
    """Wait as long as is allowed; what is left then is no failure."""
    old = str(work.begun.get("old_serial", ""))
    if not old or not (work.target.identity.revoke_old or work.until is not None):
        return Done()
    while left := await _older_sessions(work):
        told = f"{left} session{'' if left == 1 else 's'} of older certificates to end"
        try:
            await work.pause(_DRAIN_PAUSE, told)
        except StillWaiting:
            if work.until is not None:
                work.note(f"the time is over, and there were still {told}")
            return Done(f"going on without waiting for {told}", {"left": left})
    if left is None:
        return Done("whether sessions use an older certificate is not known: no proxy tells", {"left": None})
    return Done("no session uses an older certificate", {"left": 0})


async def _older_sessions(work: Work) -> int | None:
    """Of any certificate but the new one: an earlier rotation may have left its sessions alone."""
    expected, serial = bool(work.target.tunnels), _new(work).facts.serial
    return await work.tools.proxies.sessions(work.target.identity.cert, serial, expected=expected, others=True)


async def revoke(work: Work) -> Done:
    """Only with `revoke_old`, only what this store asked for, and only when no session here uses it any more."""
    return await revoke_old(work, _new(work).facts.serial)
