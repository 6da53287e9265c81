"""Programs that run beside the harness: on which CPU, until they are ready, and gone at the end.

Owns starting, moving and ending processes. Must not know what they compute.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

PATIENCE_SECONDS = 300.0
POLL_SECONDS = 0.2
END_SECONDS = 60.0
LAST_WORDS = 2000


def pinned(cpu: int, command: Sequence[str | Path]) -> list[str]:
    """Return the command that runs `command` on one CPU; its pid stays the same."""
    return ["taskset", "--cpu-list", str(cpu), *map(str, command)]


def unprivileged(command: Sequence[str | Path]) -> list[str]:
    """Return the command that runs `command` as nobody, where this is root; its pid stays the same."""
    if os.geteuid():
        return [*map(str, command)]
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *map(str, command)]


def descendants(pid: int) -> tuple[int, ...]:
    """Return a process and its children, and theirs."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text(encoding="ascii").split())
    return tuple(found)


def move(pids: Callable[[], Iterable[int]], cpu: int) -> None:
    """Pin all threads of processes to a CPU, those that are started meanwhile too."""
    moved: set[int] = set()
    while new := {tid for pid in pids() for tid in _tids(pid)} - moved:
        for tid in new:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(tid, {cpu})
        moved |= new


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path, kill_signal: int = signal.SIGKILL
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server whose words go to `log`. Whatever is left of it and its children at the end is ended by force."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=log.parent
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            _end(process, kill_signal)


def wait_until(is_ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server answers; raises RuntimeError with its last words when it ended, or did not in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_ready():
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {last_words(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not answer in time: {last_words(log)}")
        time.sleep(POLL_SECONDS)


def wait_for_end(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for a server that was asked to end; raises RuntimeError when it did not, or not well."""
    try:
        status = process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{process.args!r} did not end: {last_words(log)}") from error
    if status:
        raise RuntimeError(f"{process.args!r} ended with {status}: {last_words(log)}")


def output(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    """Run a command to its end in `folder`; returns what it said. Raises RuntimeError when it failed."""
    done = subprocess.run(command, env=dict(environment), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def last_words(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:]


def _end(process: "subprocess.Popen[bytes]", kill_signal: int) -> None:
    with contextlib.ExitStack() as stack:
        children = []
        for pid in descendants(process.pid)[1:]:
            with contextlib.suppress(ProcessLookupError):
                children.append(os.pidfd_open(pid))
                stack.callback(os.close, children[-1])
        process.send_signal(kill_signal)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, signal.SIGKILL)
            select.select([child], [], [], END_SECONDS)


def _tids(pid: int) -> list[int]:
    try:
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []
