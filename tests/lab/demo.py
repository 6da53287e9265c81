"""`make run` on a machine with one node: inside the virtual one, a misplaced process comes home before your eyes.

Starts a process whose memory lies on the wrong node, and a well-placed neighbour; runs the daemon with its
defaults but for the minimum age; prints a line whenever something changed; then the summary.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.lab.service import Balancerd
from tests.lab.workloads import Hog, mib_by_node

MIB = 256
HOME, WRONG = 0, 2
PATIENCE_SECONDS = 120.0
BAR = 24


def main() -> int:
    """Run the demonstration; 0 when the memory came home whole and every page is accounted for."""
    print(subprocess.run(["numactl", "--hardware"], capture_output=True, text=True, check=True).stdout)
    print(f"A process of {MIB} MiB runs on node {HOME}; all its memory is on node {WRONG}. balancerd starts.\n")
    with (
        tempfile.TemporaryDirectory() as folder,
        Hog("base", 128, touch_cpu=1, spin_cpu=1, busy_percent=20) as neighbour,
        Hog("base", MIB, touch_cpu=WRONG, spin_cpu=HOME) as hog,
    ):
        before, neighbour_before = mib_by_node(hog.pid), mib_by_node(neighbour.pid)
        with Balancerd(Path(folder), overrides={"select.min_age": "5s"}) as daemon:
            watch(daemon, hog.pid)
            after, neighbour_after = mib_by_node(hog.pid), mib_by_node(neighbour.pid)
            history = daemon.explain(hog.pid)["history"]
            pages = daemon.check_accounts()
            status = daemon.stop()
        ended = hog.end()

    moved = sum(step["submitted_pages"] for step in history) * 4096 / 2**20
    seconds = sum(step["seconds"] for step in history)
    longest = max((step["longest_call_seconds"] or 0.0 for step in history), default=0.0)
    calls = sum(step["calls"] for step in history)
    failed = {name: count for name, count in pages.items() if name != "moved" and count}
    print("\nsummary             before      after")
    for node in sorted(before.keys() | after.keys()):
        print(f"  node {node}      {before.get(node, 0.0):9.1f}  {after.get(node, 0.0):9.1f} MiB")
    print(f"  moved       {moved:9.1f} MiB in {seconds:.1f} s of {calls} calls, the longest {longest * 1000:.1f} ms")
    print(f"  pages       {pages.get('moved', 0)} moved; failures by status: {failed or 'none'}")
    print(f"  neighbour   {'untouched' if neighbour_before == neighbour_after else 'CHANGED'}")
    print(f"  contents    {ended.told}")
    home = after.get(HOME, 0.0) / sum(after.values())
    ok = home >= 0.99 and neighbour_before == neighbour_after and ended.status == 0 and status == 0
    print(f"\n{home:.1%} of its memory is home. An emulated machine is 20 to 50 times slower than a real one.")
    return 0 if ok else 1


def watch(daemon: Balancerd, pid: int) -> None:
    """Print how the memory lies after each tick, until it is home."""
    started = time.monotonic()
    print(f"{'seconds':>8}  {'node 0':>7} {'node 1':>7} {'node 2':>7} {'node 3':>7}  {'local':^{BAR}}  why")
    last_tick = None
    while time.monotonic() - started < PATIENCE_SECONDS:
        tick = daemon.status()["tick"]["number"]
        if tick == last_tick:
            time.sleep(0.2)
            continue
        last_tick = tick
        process = daemon.explain(pid)
        held = mib_by_node(pid)
        local = held.get(HOME, 0.0) / sum(held.values())
        filled = round(local * BAR)
        columns = " ".join(f"{held.get(node, 0.0):7.1f}" for node in range(4))
        bar = "#" * filled + "." * (BAR - filled)
        print(
            f"{time.monotonic() - started:8.1f}  {columns}  {bar}  {process['reason']} {process['detail']}", flush=True
        )
        if process["reason"] == "well-placed":
            return


if __name__ == "__main__":
    sys.exit(main())
