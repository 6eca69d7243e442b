"""The operator's programs around a rotation. Facts reach them by the environment, never by arguments.

A rotation that was killed repeats the step it was in, so a hook may run twice for one rotation; MTLSKIT_ROTATION is the
same then.
"""

from __future__ import annotations

from collections.abc import Mapping

from mtlskit.config.values import Hooks
from mtlskit.errors import Code, RotationError
from mtlskit.issuers.programs import ProgramFailed, run_program
from mtlskit.lifecycle.events import HookRan
from mtlskit.telemetry import Emit
from mtlskit.telemetry.logs import printable

__all__ = ["run_hook"]

_SHOWN = 500


async def run_hook(hooks: Hooks, hook: str, identity: str, facts: Mapping[str, str], emit: Emit) -> str:
    """Run the program of one hook, if there is one; a word on it for people.

    The program sees `facts` as MTLSKIT_NAME, and MTLSKIT_HOOK and MTLSKIT_IDENTITY. Raises `RotationError`
    (HOOK_FAILED).
    """
    argv: tuple[str, ...] = getattr(hooks, hook)
    if not argv:
        return ""
    variables = {"MTLSKIT_HOOK": hook, "MTLSKIT_IDENTITY": identity}
    variables |= {f"MTLSKIT_{name.upper()}": value for name, value in facts.items()}
    try:
        ran = await run_program(argv, variables=variables, seconds=hooks.timeout)
    except ProgramFailed as exc:
        raise RotationError(
            Code.HOOK_FAILED,
            f"{identity}: hook {hook}: {exc}",
            "the next run of the rotation runs the hook again; to go on without it, remove it from [hooks]",
        ) from exc
    lines = printable(" / ".join(ran.stdout.decode("utf-8", "replace").split("\n")).strip(" /"))
    emit(HookRan(identity=identity, hook=hook, program=argv[0], said=ran.said, printed=lines[-_SHOWN:]))
    return f"hook {hook} ran {argv[0]}"
