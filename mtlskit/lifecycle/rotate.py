"""Rotation: an identity gets a new certificate, by a journal of steps that bears to be killed between any two.

Whoever is killed leaves a working pair in `current`: the old one until the switch, which is one rename, and from then
on the new one, which was proved before. The next run reads the journal and goes on after the last step that is written
there; that step may have been done without being written down, so each bears to be done twice. A step that fails leaves
the rotation open in the same way: the next run tries it again with the same certificate, so that failures do not pile
up certificates at the issuer's. Where what was handed out can never do, the rotation is given up and the next run
begins anew; `fresh` asks for that.

One process at a time works on an identity. One that had to wait for another, and finds a new version when its turn
comes, has nothing to do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from mtlskit.errors import Code, MtlskitError, StoreError
from mtlskit.lifecycle import following, install, obtain
from mtlskit.lifecycle.due import decision_of, why_renewed
from mtlskit.lifecycle.events import (
    Rotated,
    RotationBegun,
    RotationFailed,
    RotationNoted,
    RotationResumed,
    RotationStepDone,
    RotationWaits,
)
from mtlskit.lifecycle.hooks import run_hook
from mtlskit.lifecycle.taking_back import ABANDONING, current_of, give_up, origin_of, pay_debts, settings_of
from mtlskit.lifecycle.target import PATIENCE, Outcome, Result, Target, Tools, Wanted
from mtlskit.lifecycle.work import Step, StillWaiting, UselessRotation, Work
from mtlskit.store.audit import write_audit
from mtlskit.store.identities import KEY, Version
from mtlskit.store.journal import BEGUN, DONE, FAILED, Journal, Rotation
from mtlskit.store.lock import FileLock

__all__ = ["STEPS", "rotate"]

STEPS: dict[str, Step] = {
    "key": obtain.make_key,
    "survey": obtain.survey,
    "request": obtain.request,
    "stage": obtain.stage,
    "prove": install.prove,
    "before_switch": install.before_switch,
    "switch": install.switch,
    "tell": install.tell,
    "after_switch": install.after_switch,
    "drain": install.drain,
    "revoke": install.revoke,
}
"""By the names under which the journal knows them, in their order."""

_LOCK_PAUSE = 0.1


async def rotate(target: Target, tools: Tools, wanted: Wanted) -> Outcome:
    """Replace the certificate of one identity, or go on with what an earlier run has left.

    Nothing is raised but for faults of ours: what goes wrong is the outcome, with the error in it.
    """
    run = _Run(target, tools, wanted)
    try:
        return await run.go()
    except MtlskitError as exc:
        return await run.failed(exc)


class _Run:
    def __init__(self, target: Target, tools: Tools, wanted: Wanted) -> None:
        self.target = target
        self.tools = tools
        self.wanted = wanted
        self.journal = Journal(target.stored.journal_path)
        self.until = None if wanted.wait is None else trio.current_time() + wanted.wait
        self.work: Work | None = None
        self.step = "begin"

    async def go(self) -> Outcome:
        stored = self.target.stored
        stored.prepare()
        before = self.journal.finished()
        async with _locked(self.target, self.tools):
            current = self._current()
            if current is not None and (idle := await self._idle(current, before)) is not None:
                return idle
            rotation = await self._rotation(current)
            self.work = Work(self.target, self.tools, self.wanted, rotation, self.until)
            try:
                return await self._walk(self.work)
            except StillWaiting as exc:
                return self._waiting(self.work, str(exc))
            except UselessRotation as exc:
                await give_up(self.target, self.tools, self.journal, self.work.rotation, exc.error.sentence)
                raise exc.error from exc

    async def failed(self, exc: MtlskitError) -> Outcome:
        """The outcome of a run that an error has ended; the operator's hook and the audit log hear of it."""
        name, rotation = self.target.name, self.work.rotation.id if self.work else ""
        reason = {"code": exc.code.value, "reason": exc.sentence, "hint": exc.hint}
        made = self._in_use()
        event = RotationFailed(identity=name, step=self.step, serial=made.facts.serial if made else "", **reason)
        self.tools.emit(event)
        facts = {"rotation": rotation, "step": self.step, "code": exc.code.value, "error": exc.sentence}
        for note in (
            await self._attempt_hook(facts),
            self._attempt(self._note_failure, exc),
            self._attempt(self._audit, "failed", step=self.step, code=exc.code.value, reason=exc.sentence),
        ):
            if note:
                self.tools.emit(RotationNoted(identity=name, note=note))
        return Outcome(
            name,
            Result.FAILED,
            event.told,
            rotation=rotation,
            version=made.number if made else None,
            serial=made.facts.serial if made else "",
            not_after=made.facts.not_after if made else "",
            step=self.step,
            error=exc,
            notes=tuple(self.work.notes) if self.work else (),
            old_serial=self._old_serial,
        )

    def _in_use(self) -> Version | None:
        """The version that this run has made, if it is in use in spite of a failure."""
        try:
            current = current_of(self.target)
        except StoreError:
            return None
        ours = current is not None and self.work is not None and current.facts.rotation == self.work.rotation.id
        return current if ours else None

    def _note_failure(self, exc: MtlskitError) -> None:
        left = self.journal.unfinished()
        facts = {"at": self.step, "code": exc.code.value, "reason": exc.sentence}
        # Once, while it stays the same: what is tried every hour for months must not fill the journal.
        ours = left is not None and self.work is not None and left.id == self.work.rotation.id
        if left is not None and ours and not facts.items() <= left.facts(FAILED).items():
            self.journal.note(left, FAILED, self.tools.clock(), **facts)

    # The way through.

    async def _walk(self, work: Work) -> Outcome:
        resumed = len(work.rotation.steps.keys() - {FAILED}) > 1
        for step, do in STEPS.items():
            # What an earlier run has proved, or was told not to, may be long ago: it is proved before the switch.
            again = step == "prove" and resumed and "switch" not in work.rotation.steps
            if step in work.rotation.steps and not again:
                continue
            self.step = step
            done = await do(work)
            work.rotation = self.journal.note(work.rotation, step, self.tools.clock(), **done.facts)
            if done.told:
                event = RotationStepDone(
                    identity=self.target.name, rotation=work.rotation.id, step=step, told=done.told
                )
                self.tools.emit(event)
        self.step = "end"
        # Here and not before: hooks may carry the new pair to other hosts first.
        await pay_debts(self.target, self.tools, self.journal, but=work.rotation.id)
        return self._finish(work)

    def _finish(self, work: Work) -> Outcome:
        stored = self.target.stored
        made = stored.version_of(work.rotation.id)
        current = current_of(self.target) if made is None else made
        version, facts = (current.number, current.facts) if current is not None else (None, None)
        serial, not_after = (facts.serial, facts.not_after) if facts is not None else ("", "")
        if made is not None and why_renewed(self.target, made, self.tools.clock()):
            work.note(f"the new certificate is due already: it lasts until {not_after[:16].replace('T', ' ')} UTC")
        self._audit("rotated", version=version, serial=serial, old_serial=self._old_serial, notes=work.notes)
        self.journal.note(work.rotation, DONE, self.tools.clock())
        stored.discard_pending(work.rotation.id)
        stored.sweep()
        event = Rotated(
            identity=self.target.name,
            rotation=work.rotation.id,
            version=version or 0,
            serial=serial,
            not_after=not_after,
            old_serial=self._old_serial,
        )
        self.tools.emit(event)
        return Outcome(
            self.target.name,
            Result.ROTATED,
            event.sentence(),
            rotation=work.rotation.id,
            version=version,
            serial=serial,
            not_after=not_after,
            left=int(work.rotation.facts("drain").get("left") or 0) if self.until is not None else 0,
            notes=tuple(work.notes),
            old_serial=self._old_serial,
        )

    def _waiting(self, work: Work | None, told: str) -> Outcome:
        self.tools.emit(RotationWaits(identity=self.target.name, waits_for=told))
        return Outcome(
            self.target.name,
            Result.WAITING,
            told,
            rotation=work.rotation.id if work else "",
            step=self.step,
            notes=tuple(work.notes) if work else (),
            old_serial=self._old_serial,
        )

    def _nothing(self, current: Version, why: str) -> Outcome:
        facts = current.facts
        return Outcome(
            self.target.name,
            Result.NOTHING_TO_DO,
            why,
            version=current.number,
            serial=facts.serial,
            not_after=facts.not_after,
        )

    # Which rotation it is.

    def _current(self) -> Version | None:
        try:
            return self.target.stored.current()
        except StoreError as exc:
            if exc.code is not Code.STORE_DAMAGED:
                raise
            note = f"what is in use is damaged, and is replaced: {exc.sentence}"
            self.tools.emit(RotationNoted(identity=self.target.name, note=note))
            return None

    def _done_by_another(self, before: str) -> bool:
        """Whether somebody else has finished a rotation since we looked, and nothing was brought by hand.

        By what is finished, not by `current`: whoever comes between another's switch and its end has seen the new one.
        """
        return self.wanted.material is None and self.journal.finished() != before and self.journal.unfinished() is None

    async def _idle(self, current: Version, before: str) -> Outcome | None:
        """How it ends where nothing is to be begun; None where something is.

        A credential that is followed is replaced when it has changed, and at no other time. Raises `RotationError`
        (ROTATION_REFUSED) for one that was to be replaced all the same.
        """
        why = "another process has just done it" if self._done_by_another(before) else ""
        if not why and self.journal.unfinished() is not None:
            return None
        if not why and await following.is_followed(self.tools, self.wanted, current, fine=bool(self._fine(current))):
            if self.wanted.by_name:
                raise following.refused(self.target)
            if await following.has_changed(self.target, self.tools, current):
                self.wanted = replace(self.wanted, reason=following.REASON)
                return None
            if told := following.stuck(self.target, current, self.tools.clock()):
                return self._waiting(None, told)
            why = following.SAME
        if not (why := why or self._fine(current)):
            return None
        paid = await pay_debts(self.target, self.tools, self.journal)
        return self._nothing(current, "; ".join([why, *paid]))

    def _fine(self, current: Version) -> str:
        """Why nothing is to be done, where only what is due is to be; empty where something is."""
        if not self.wanted.only_if_due:
            return ""
        return "" if why_renewed(self.target, current, self.tools.clock()) else "it is not due"

    async def _rotation(self, current: Version | None) -> Rotation:
        """The one that was left unfinished, or a new one."""
        left = self.journal.unfinished()
        if left is not None and (why := self._useless(left) or await self._overtaken(left)):
            await give_up(self.target, self.tools, self.journal, left, why)
            left = None
        self.target.stored.sweep(rotation=left.id if left else "")
        if left is not None:
            self.tools.emit(RotationResumed(identity=self.target.name, rotation=left.id, after=left.last))
            return left
        kind = str(self.target.identity.issuer.kind)
        old = current.facts if current is not None else None
        self._audit("rotation begun", reason=self.wanted.reason, issuer=kind, old_serial=old.serial if old else "")
        rotation = self.journal.begin(
            self.tools.clock(),
            reason=self.wanted.reason,
            issuer=kind,
            origin=origin_of(self.target.identity),
            settings=settings_of(self.target.identity),
            given=self.wanted.material is not None,
            reset=self.wanted.reset,
            old_version=current.number if current is not None else None,
            old_serial=old.serial if old else "",
            old_issuer=old.issuer if old else "",
            old_origin=old.origin if old else "",
            old_remote_id=old.remote_id if old else None,
            old_made_here=bool(old and old.made_here),
        )
        self.tools.emit(
            RotationBegun(identity=self.target.name, rotation=rotation.id, reason=self.wanted.reason, issuer=kind)
        )
        return rotation

    def _useless(self, left: Rotation) -> str:
        """Why an unfinished rotation is not gone on with; empty if it is."""
        if ABANDONING in left.steps:
            return str(left.facts(ABANDONING).get("reason"))
        if self.wanted.fresh:
            return "a fresh one was asked for"
        if self.wanted.material is not None:
            return "a certificate was brought by hand"
        if self.wanted.reset and not left.facts(BEGUN).get("reset"):
            return "a reset was asked for"
        begun, staged = left.facts(BEGUN), self.target.stored.version_of(left.id)
        if "switch" not in left.steps:
            if begun.get("issuer") != str(self.target.identity.issuer.kind):
                return f"the issuer was {begun.get('issuer')} then"
            if begun.get("settings", "") not in ("", settings_of(self.target.identity)):
                return "the identity's settings have changed since"
        if staged is None:
            if begun.get("given"):
                return "what was brought by hand is lost"
            gone = "spki_sha256" in left.facts("key") and not (self.target.stored.pending(left.id) / KEY).is_file()
            return "its key is gone" if gone else ""
        if staged.facts.followed:
            return ""  # another one is had only when the credential changes
        # A hook that fails for months must not keep its certificate from being renewed.
        due = decision_of(self.target, staged, self.tools.clock()).renew
        return "its certificate is due by now" if due else ""

    async def _overtaken(self, left: Rotation) -> str:
        """Why a copy that was staged, and is not in use yet, is of no use any more; empty where it is."""
        staged = self.target.stored.version_of(left.id)
        if staged is None or not staged.facts.followed or "switch" in left.steps or self.tools.following is None:
            return ""
        return following.REASON if await following.has_changed(self.target, self.tools, staged) else ""

    # Telling.

    @property
    def _old_serial(self) -> str:
        return str(self.work.begun.get("old_serial", "")) if self.work else ""

    def _audit(self, action: str, **facts: object) -> None:
        write_audit(self.target.store, action, self.target.name, now=self.tools.clock(), **facts)

    def _attempt(self, write: Callable[..., None], *args: object, **facts: object) -> str:
        """What went wrong while writing; a failure is told already, and must not be lost to a full disk."""
        try:
            write(*args, **facts)
        except MtlskitError as exc:
            return f"this could not be written down: {exc.sentence}"
        return ""

    async def _attempt_hook(self, facts: dict[str, str]) -> str:
        try:
            await run_hook(self.target.hooks, "failed", self.target.name, facts, self.tools.emit)
        except MtlskitError as exc:
            return exc.sentence
        return ""


@asynccontextmanager
async def _locked(target: Target, tools: Tools) -> AsyncIterator[None]:
    """Hold the identity's lock. Raises `StoreError` (STORE_BUSY) after `PATIENCE` seconds."""
    lock = FileLock(target.stored.lock_path)
    until = trio.current_time() + PATIENCE
    told = False
    while not lock.acquire():
        if trio.current_time() >= until:
            raise lock.busy(PATIENCE)
        if not told:
            tools.emit(RotationWaits(identity=target.name, waits_for=f"{lock.holder()}, which works on it"))
            told = True
        await trio.sleep(_LOCK_PAUSE)
    try:
        yield
    finally:
        lock.release()
