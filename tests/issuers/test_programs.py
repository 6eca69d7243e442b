"""Programs of the operator's: what they print, how they end, and that nothing of them is left."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from mtlskit.issuers import programs
from mtlskit.issuers.programs import MAX_OUTPUT, ProgramFailed, run_program

LONG = 60.0
"""Seconds; a safety net."""


def script(*lines: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(("import os, signal, subprocess, sys, time", *lines))]


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


async def failure(argv: list[str], *, stdin: bytes = b"", seconds: float = LONG) -> str:
    with pytest.raises(ProgramFailed) as caught:
        await run_program(argv, stdin=stdin, seconds=seconds)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def gone(pid: int) -> None:
    """Wait until a process has ended, or is only waited for by its parent."""
    with trio.fail_after(LONG):
        while _alive(pid):  # noqa: ASYNC110 - another process announces nothing
            await trio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_program_answers() -> None:
    variables = {"MTLSKIT_IDENTITY": "a b $HOME"}
    ran = await run_program(
        shell('cat; printf "%s" "$MTLSKIT_IDENTITY"; echo told >&2'), stdin=b"in\n", variables=variables, seconds=LONG
    )
    assert (ran.stdout, ran.said) == (b"in\na b $HOME", "told")


async def test_no_shell_reads_the_arguments() -> None:
    ran = await run_program([*script("print(sys.argv[1:])"), "$HOME; echo x", "*"], seconds=LONG)
    assert ran.stdout == b"['$HOME; echo x', '*']\n"


async def test_our_environment_is_passed_on() -> None:
    ran = await run_program(shell('printf "%s" "$PATH"'), variables={"OTHER": "x"}, seconds=LONG)
    assert ran.stdout == os.environ["PATH"].encode()


async def test_a_program_that_is_missing(tmp_path: Path) -> None:
    assert await failure([str(tmp_path / "none")]) == f"{tmp_path}/none: cannot be run: No such file or directory"
    (tmp_path / "plain").write_text("no program")
    assert "Permission denied" in await failure([str(tmp_path / "plain")])
    assert "null byte" in await failure(["/bin/true", "a\0b"])


async def test_how_a_program_ended() -> None:
    assert await failure(shell("exit 3")) == "/bin/sh: ended with status 3"
    assert await failure(shell("kill -KILL $$")) == "/bin/sh: ended by SIGKILL"
    assert await failure(shell("echo no rights >&2; exit 1")) == "/bin/sh: ended with status 1; it said: no rights"


async def test_the_end_of_the_error_stream_is_shown() -> None:
    said = await failure(shell("seq 1 5000 >&2; printf 'why\\033[2J\\377\\n\\n' >&2; exit 1"))
    assert said.endswith(r"it said: 4997 / 4998 / 4999 / 5000 / why\x1b[2J" + "\N{REPLACEMENT CHARACTER}")
    assert len(said) < 200


async def test_last_words_are_not_lost() -> None:
    for _ in range(50):
        assert (await failure(shell("echo why >&2; exit 1"))).endswith("it said: why")


async def test_input_that_is_not_read() -> None:
    ran = await run_program(shell("exec <&-; echo done"), stdin=b"x" * 1_000_000, seconds=LONG)
    assert ran.stdout == b"done\n"
    ran = await run_program(shell("echo done"), stdin=b"x" * 1_000_000, seconds=LONG)
    assert ran.stdout == b"done\n"


async def test_large_input_and_output_do_not_wait_for_each_other() -> None:
    data = b"x" * (MAX_OUTPUT - 1)
    ran = await run_program(["cat"], stdin=data, seconds=LONG)
    assert ran.stdout == data


async def test_too_much_output_ends_a_program() -> None:
    assert await failure(["yes"]) == f"yes: printed more than {MAX_OUTPUT} bytes"


async def test_too_much_on_the_error_stream_is_forgotten() -> None:
    ran = await run_program(script("sys.stderr.write('x' * 3_000_000 + '\\nend'); print('ok')"), seconds=LONG)
    assert ran.stdout == b"ok\n"
    assert ran.said.endswith("/ end")
    assert len(ran.said) < 5000


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL follows SIGTERM at once: who does not end by itself is not waited for."""
    monkeypatch.setattr(programs, "_GRACE", 0.0)


DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def family(pid: Path, *, parent: str = "", child: str = "", then: str = "time.sleep(600)") -> list[str]:
    """A program with a child, whose process id is in the file `pid` as soon as both are what they should be."""
    tell = f"open({str(pid) + '.new'!r}, 'w').write(str(os.getpid())); os.rename({str(pid) + '.new'!r}, {str(pid)!r})"
    body = f"import os, signal, time\n{child}\n{tell}\ntime.sleep(600)"
    start = f"subprocess.Popen([sys.executable, '-c', {body!r}])"
    return script(parent, start, f"while not os.path.exists({str(pid)!r}): time.sleep(0.01)", then)


@pytest.mark.parametrize(
    ("parent", "child", "then"),
    [
        ("", "", "time.sleep(600)"),
        (DEAF, DEAF, "time.sleep(600)"),
        ("", DEAF, "time.sleep(600)"),
        ("", "", ""),  # the program has ended, and its child holds the output
    ],
    ids=["obedient", "deaf", "deaf child", "orphan"],
)
async def test_whoever_is_cancelled_leaves_no_process(
    tmp_path: Path, impatient: None, parent: str, child: str, then: str
) -> None:
    pid = tmp_path / "pid"
    argv = family(pid, parent=parent, child=child, then=then)
    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_program, argv, seconds=LONG))
            while not pid.exists():  # noqa: ASYNC110 - another process announces nothing
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        await gone(int(pid.read_text()))


@pytest.mark.parametrize("then", ["wait", "exit 0"])
async def test_a_time_out_ends_the_program_and_its_children(tmp_path: Path, then: str) -> None:
    pid = tmp_path / "pid"
    said = await failure(shell(f"sleep 600 & echo $! > {pid}; echo half-way >&2; {then}"), seconds=2.0)
    assert said == "/bin/sh: not done within 2 s; it said: half-way"
    await gone(int(pid.read_text()))


async def test_a_child_that_lives_on_and_holds_the_error_stream_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    text = f"sleep 600 </dev/null >/dev/null & echo $! > {pid}; echo started; echo why >&2"
    ran = await run_program(shell(text), seconds=LONG)
    assert (ran.stdout, ran.said) == (b"started\n", "why")
    child = int(pid.read_text())
    assert _alive(child), "what a program starts for good is its own affair"
    os.kill(child, 9)
    await gone(child)


async def test_a_program_that_nothing_ends_is_let_go(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    opened: list[trio.Process] = []
    real = trio.lowlevel.open_process

    async def noting(*arguments: Any, **options: Any) -> trio.Process:
        opened.append(await real(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(trio.lowlevel, "open_process", noting)
    monkeypatch.setattr(programs, "_signal", lambda *_: None)  # as if the kernel could not, because of a disk
    monkeypatch.setattr(programs, "_LET_GO", 0.0)
    with trio.fail_after(LONG):
        assert await failure(["sleep", "600"], seconds=0.1) == "sleep: not done within 0.1 s"
    [process] = opened
    process.kill()
    await process.wait()
