"""What watching costs: balancerd in observe mode beside numad, on the same processes at the same time.

    python -m tests.bench.bench_daemon [--idle 300] [--busy 20] [--seconds 60]

Idle processes sleep; busy ones use a few percent of a core and hold more than `select.min_rss`. Both daemons run
together over the same window, so that what disturbs one disturbs the other. CPU time per pass is that of
/proc/PID/stat over the window, divided by the passes that each made: ticks for balancerd, for numad one every five
seconds (-i 5). On a machine with one node numad does not look at processes, so run
it in the lab. Needs numad (Debian's package) and root. Prints a table, then one line of JSON.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from balancerd.control.client import ControlClient, ControlFailure

NUMAD_SECONDS = 5
LATER = ("unshare", "--time", "--fork", "--monotonic", "1000", "--boottime", "1000")
"""numad passes over everything in the first 300 s of uptime, so its clock is set ahead."""

BUSY_MIB = 80
BUSY = f"""
import time
memory = bytearray({BUSY_MIB} << 20)
for at in range(0, len(memory), 4096):
    memory[at] = 1
while True:
    end = time.process_time() + 0.006
    while time.process_time() < end:
        pass
    time.sleep(0.1)
"""


def main() -> int:
    """Run the comparison; 0 unless a daemon did not run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=300)
    parser.add_argument("--busy", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    if shutil.which("numad") is None:
        print("numad is not installed: apt-get install numad", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, load(given.idle, given.busy), numad() as theirs:
        socket = f"{folder}/control.sock"
        with balancerd(socket, Path(folder) / "log") as ours:
            client = ControlClient(socket)
            wait_ready(client)
            time.sleep(4 * NUMAD_SECONDS)  # both have seen everything twice
            before = client.get("/v1/status")["tick"]["number"], cpu_seconds(ours), cpu_seconds(theirs)
            time.sleep(given.seconds)
            after = client.get("/v1/status")["tick"]["number"], cpu_seconds(ours), cpu_seconds(theirs)
            status = client.get("/v1/status")
            rss_mib = {"balancerd": peak_rss_mib(ours), "numad": peak_rss_mib(theirs)}
    ticks, our_cpu, their_cpu = (b - a for a, b in zip(before, after, strict=True))
    passes = given.seconds / NUMAD_SECONDS
    result = {
        "bench": "observe",
        "idle": given.idle,
        "busy": given.busy,
        "seconds": given.seconds,
        "watched": status["counts"]["surveyed"],
        "balancerd": {
            "passes": ticks,
            "cpu_ms_per_pass": 1000 * our_cpu / ticks,
            "cpu_share": our_cpu / given.seconds,
            "peak_rss_mib": rss_mib["balancerd"],
        },
        "numad": {
            "passes": passes,
            "cpu_ms_per_pass": 1000 * their_cpu / passes,
            "cpu_share": their_cpu / given.seconds,
            "peak_rss_mib": rss_mib["numad"],
        },
        "cpu_per_pass_ratio": (our_cpu / ticks) / (their_cpu / passes) if their_cpu else None,
    }
    print(f"{'':12}{'passes':>8}{'CPU ms/pass':>14}{'share of a core':>18}{'peak RSS MiB':>15}")
    for name in ("balancerd", "numad"):
        row = result[name]
        assert isinstance(row, dict)
        print(
            f"{name:12}{row['passes']:8.0f}{row['cpu_ms_per_pass']:14.2f}"
            f"{row['cpu_share']:18.3%}{row['peak_rss_mib']:15.1f}"
        )
    print(f"ratio of CPU time per pass, balancerd / numad: {result['cpu_per_pass_ratio']}")
    print(json.dumps(result))
    return 0


@contextlib.contextmanager
def load(idle: int, busy: int) -> Iterator[None]:
    """Run so many idle and busy processes."""
    processes = [subprocess.Popen(["sleep", "100000"]) for _ in range(idle)]
    processes += [subprocess.Popen([sys.executable, "-S", "-E", "-c", BUSY]) for _ in range(busy)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


@contextlib.contextmanager
def balancerd(socket: str, log: Path) -> Iterator[int]:
    """Run the daemon in observe mode with its defaults; gives its pid."""
    command = [str(Path(sys.executable).parent / "balancerd"), "--set", "mode=observe"]
    command += ["--set", f"control.socket={socket}", "--set", "metrics.listen=127.0.0.1:0"]
    with log.open("w") as stream, subprocess.Popen(command, stderr=stream) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


@contextlib.contextmanager
def numad() -> Iterator[int]:
    """Run numad, which goes to the background by itself; gives its pid."""
    subprocess.run([*LATER, "numad", "-S", "1", "-i", str(NUMAD_SECONDS)], check=True)
    time.sleep(1)
    pid = int(Path("/var/run/numad.pid").read_text(encoding="ascii"))
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def wait_ready(client: ControlClient) -> None:
    """Return after the first tick."""
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(ControlFailure):
            if client.get("/v1/status")["tick"] is not None:
                return
        if time.monotonic() > end:
            raise TimeoutError("balancerd made no tick")
        time.sleep(0.1)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, in seconds; schedstat has it in nanoseconds, threads apart."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9


def peak_rss_mib(pid: int) -> float:
    """The largest resident size so far (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no VmHWM")


if __name__ == "__main__":
    sys.exit(main())
