"""Programs that watch processes, and the CPU time that each of their passes takes, seen from outside.

Owns starting and ending them. Must not know what they watch, nor which of them should win.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.lab.state import lab_directory

NUMAD_SECONDS = 5
LATER = ("unshare", "--time", "--fork", "--monotonic", "1000", "--boottime", "1000")
"""numad passes over everything in the first 300 s of uptime, so its clock is set ahead."""

NUMAD_PID = Path("/var/run/numad.pid")
START_SECONDS = 30.0
"""What numad is given to write its pid down."""

QUIET_SECONDS = 1.0
"""A program that used no CPU for so long has ended its pass."""

POLL_SECONDS = 0.1
PATIENCE_SECONDS = 120.0
_CPUCLOCK_SCHED = 2


def free_port() -> int:
    """A TCP port of this machine that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far with all its threads, those that have ended too, to the nanosecond.

    The clock's id is made as clock_getcpuclockid(3) does, include/linux/posix-timers_types.h.
    """
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def peak_rss_mib(pid: int) -> float:
    """The largest resident size so far (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no VmHWM")


def _nothing() -> None:
    pass


class Balancerd:
    """A daemon in observe mode, started from this environment; its log tells when a tick has ended."""

    def __init__(self, process: "subprocess.Popen[bytes]", socket: str, log: Path) -> None:
        self.socket = socket
        self.ticks: list[float] = []
        """CPU seconds of each tick, with all else that the process did since the tick before; first the start."""
        self.lines: list[dict[str, Any]] = []
        """What the log told of each tick that was waited for."""
        self.while_waiting: Callable[[], None] = _nothing
        """Called some times a second while a tick is awaited."""
        self._process = process
        self._path = log
        self._log = log.open(encoding="utf-8")
        self._cpu = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    def next_tick(self) -> dict[str, Any]:
        """Wait for the end of the next tick; gives its line of the log. Raises TimeoutError, RuntimeError."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        text = ""
        while True:
            text += self._log.readline()
            if text.endswith("\n"):
                line: dict[str, Any] = json.loads(text)
                text = ""
                if line["event"] == "tick failed":
                    raise RuntimeError(f"a tick failed: {line}")
                if line["event"] == "tick":
                    cpu = cpu_seconds(self.pid)
                    self.ticks.append(cpu - self._cpu)
                    self._cpu = cpu
                    self.lines.append(line)
                    return line
                continue
            if self._process.poll() is not None:
                raise RuntimeError(f"balancerd ended with {self._process.returncode}: {self._path.read_text()}")
            if time.monotonic() > deadline:
                raise TimeoutError("balancerd made no tick")
            self.while_waiting()
            time.sleep(POLL_SECONDS)

    def catch_up(self) -> None:
        """Pass over the ticks that nobody waited for, and wait for the end of the next."""
        self._log.read()
        self.next_tick()
        self.ticks.pop()

    def run_ticks(self, n: int) -> None:
        """Wait for the ends of so many ticks."""
        for _ in range(n):
            self.next_tick()

    def run_for(self, seconds: float, least_ticks: int = 1) -> None:
        """Wait for so long, and then for the end of a tick, but for so many at least: a loaded machine is slow."""
        end = time.monotonic() + seconds
        n = 0
        while n < least_ticks or time.monotonic() < end:
            self.next_tick()
            n += 1

    def begin_profile(self) -> None:
        """Let a daemon that was started with a profile count from now on."""
        self._process.send_signal(signal.SIGUSR1)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


@contextlib.contextmanager
def balancerd(folder: Path, settings: Sequence[str] = (), profile: Path | None = None) -> Iterator[Balancerd]:
    """Run the daemon with its defaults and `settings`; with `profile`, under a profiler that writes there."""
    socket, log = f"{folder}/control.sock", folder / "log"
    own = ("mode=observe", f"control.socket={socket}", "metrics.listen=127.0.0.1:0", "log.format=json")
    command = [str(Path(sys.executable).parent / "balancerd")]
    if profile is not None:
        command = [sys.executable, "-m", "tests.bench.profiled", str(profile)]
    for setting in (*own, *settings):
        command += ["--set", setting]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream)
    daemon = Balancerd(process, socket, log)
    try:
        yield daemon
    finally:
        daemon.end()


class Psutil:
    """A process that makes a pass with psutil on request; see psutil_pass.py."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def one_pass(self) -> dict[str, Any]:
        """Make a pass; gives its CPU seconds and what it saw."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told


@contextlib.contextmanager
def psutil(min_rss_bytes: int, min_cpu_cores: float) -> Iterator[Psutil]:
    """Run a process that passes with psutil, and has done so once."""
    command = [sys.executable, "-m", "tests.bench.psutil_pass", str(min_rss_bytes), str(min_cpu_cores)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        watcher = Psutil(process)
        watcher.one_pass()
        yield watcher


def command_pass(command: Sequence[str]) -> float:
    """Run a program that passes over the processes once and ends; gives its CPU seconds with its start and end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def find_tool(name: str, package: str) -> str | None:
    """Where a program is: installed, or in a package that the lab has unpacked; None: nowhere."""
    unpacked = lab_directory().packages / package / "usr/bin" / name
    return shutil.which(name) or (str(unpacked) if unpacked.exists() else None)


class Passes:
    """The passes of a program that makes them by itself, told apart by the quiet between them."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._polled_at = self._changed_at = time.monotonic()
        self._begin = self._last = cpu_seconds(pid)
        self._is_whole = False
        self.cpu: list[float] = []
        """CPU seconds of each pass that was watched from its beginning to its end."""

    def poll(self) -> None:
        """Look at its CPU time; to be called several times a second. What happens while nobody looks is not counted."""
        now, cpu = time.monotonic(), cpu_seconds(self._pid)
        if now - self._polled_at >= QUIET_SECONDS:
            self._is_whole = False
            self._changed_at = now
        elif cpu > self._last:
            self._changed_at = now
        elif now - self._changed_at >= QUIET_SECONDS:
            if self._is_whole and cpu > self._begin:
                self.cpu.append(cpu - self._begin)
            self._begin, self._is_whole = cpu, True
        self._polled_at, self._last = now, cpu


@contextlib.contextmanager
def numad(program: str = "numad", words: Sequence[str] = ()) -> Iterator[int]:
    """Run numad, with more options if any, which goes to the background by itself; gives its pid.

    Raises TimeoutError when it does not say that it runs.
    """
    subprocess.run([*LATER, program, "-S", "1", "-i", str(NUMAD_SECONDS), *words], check=True)
    end = time.monotonic() + START_SECONDS
    while (pid := _numad_pid()) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"{NUMAD_PID} names no numad")
        time.sleep(POLL_SECONDS)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _numad_pid() -> int | None:
    """Return the pid that numad has written down, while a numad has it; it leaves the file behind when it is killed."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = int(NUMAD_PID.read_text(encoding="ascii"))
        if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") == "numad\n":
            return pid
    return None
