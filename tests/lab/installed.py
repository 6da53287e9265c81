"""A machine that boots a fresh Debian with systemd as PID 1, and in which balancerd is installed from its package.

Owns how it is booted, asked and filled. Must not know what is tested there.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.lab import debian, topology
from tests.lab.machine import Machine, Options, inside
from tests.lab.state import REPOSITORY, LabError, lab_directory
from tests.lab.workloads import binary, build

UNIT = "balancerd.service"
OUT = Path("/run/lab/out")
CONFIG = Path("/etc/balancerd/balancerd.yaml")
CGROUP = Path("/sys/fs/cgroup/system.slice") / UNIT

STEADY = {
    "  stall_target: 5ms": "  stall_target: 50ms",
    "  stall_limit: null": "  stall_limit: 5s",
    "  scan_budget: 0.5%": "  scan_budget: 100%",
    "  read_timeout: 100ms": "  read_timeout: 10s",
    "  min_age: 5s": "  min_age: 1s",
    "  canary: true": "  canary: false",
    "tick_interval: 2s": "tick_interval: 1s",
    "    kind: follow-cpu\n": "    kind: follow-cpu\n  - name: stuck\n    kind: stuck\n",
}
"""What an emulated machine needs other than the shipped file says, and the policy that can hang."""

IN_TIME = "[Service]\nWatchdogSec=20s\nTimeoutStartSec=300s\nRestartSec=1s\n"
"""A drop-in: a minute of the watchdog is long to wait for, and starting takes long here."""


class Installed:
    """The machine, booted; leaving the block ends it."""

    def __init__(self) -> None:
        lab = lab_directory()
        build()
        self.package = newest_package()
        root = debian.ensure_root(lab.packages)
        self._options = Options(root=root, systemd_unit="basic.target")
        self.machine = Machine(topology.load("two-nodes"), options=self._options, lab=lab)

    def __enter__(self) -> Self:
        self.machine.boot()
        return self

    def __exit__(self, *_error: object) -> None:
        self.machine.shutdown()

    def sh(self, script: str, *, seconds: float = 120.0, status: int | None = 0) -> str:
        """Run a script of sh(1) inside; return what it printed. AssertionError unless it ends with `status`."""
        ended = self.machine.run(["sh", "-c", script], cwd=Path("/"), timeout_seconds=seconds)
        told = ended.stdout.decode()
        assert status is None or ended.exit_status == status, (script, ended.exit_status, told, ended.stderr.decode())
        return told

    def put(self, path: Path, text: str) -> None:
        """Write a file inside."""
        (self.machine.out / "put").write_text(text, encoding="utf-8")
        self.sh(f"mkdir -p {path.parent} && cp {OUT}/put {path} && chmod 644 {path}")

    def hand_over(self, path: Path) -> Path:
        """Copy a file of this machine to where the inside can read it; return where that is."""
        shutil.copy(path, self.machine.out / path.name)
        return OUT / path.name

    def inside(self, path: Path) -> str:
        """Where a file of this machine is inside."""
        return inside(path, self._options)

    def show(self, *names: str, unit: str = UNIT) -> dict[str, str]:
        """Properties of a unit, as systemctl(1) shows them."""
        told = self.sh(f"systemctl show {' '.join(f'-p {name}' for name in names)} {unit}")
        return dict(line.split("=", 1) for line in told.splitlines())

    def cpu_seconds(self) -> float:
        """The CPU time that the unit has used."""
        return int(self.show("CPUUsageNSec")["CPUUsageNSec"]) / 1e9

    def journal(self, *matches: str, unit: str = UNIT) -> list[dict[str, Any]]:
        """Entries of the journal that are of a unit, or about it, oldest first."""
        told = self.sh(f"journalctl -q -o json -u {unit} {' '.join(matches)}")
        return [json.loads(line) for line in told.splitlines()]

    def wait(self, condition: str, seconds: float, what: str) -> None:
        """Wait inside until a condition of sh(1) holds. AssertionError with the unit's journal after `seconds`."""
        script = f"until {condition}; do sleep 0.1; done"
        ended = self.machine.run(["sh", "-c", script], cwd=Path("/"), timeout_seconds=seconds)
        if ended.exit_status:
            raise AssertionError(f"no {what} within {seconds} s: {self.sh(f'journalctl -u {UNIT} | tail -n 30')}")

    def hog(self, name: str, mib: int) -> int:
        """Start a unit of root's whose memory is on node 0 while it runs on node 1; return its pid."""
        self.sh(f"systemd-run --quiet --unit={name} {self.inside(binary('hog'))} base {mib} 0 1 30")
        self.wait(f"journalctl -q -u {name} | grep -q ready", 60.0, "memory")
        return int(self.show("MainPID", unit=name)["MainPID"])

    def wait_for_pages(self, pid: int, node: int, seconds: float) -> None:
        """Wait until thousands of pages of one mapping are on a node."""
        self.wait(f"grep -q ' N{node}=[0-9]\\{{4\\}}' /proc/{pid}/numa_maps", seconds, f"move to node {node}")

    def mib_by_node(self, pid: int) -> dict[int, float]:
        """A process's memory by node in MiB, see proc_pid_numa_maps(5)."""
        held: dict[int, float] = {}
        for node, pages in re.findall(r" N(\d+)=(\d+)", self.sh(f"cat /proc/{pid}/numa_maps")):
            held[int(node)] = held.get(int(node), 0.0) + int(pages) / 256
        return held

    def configure(self, changes: Mapping[str, str]) -> None:
        """Write the configuration: the shipped file with lines changed."""
        text = (REPOSITORY / "config/balancerd.yaml").read_text(encoding="utf-8")
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self.put(CONFIG, text)


def newest_package() -> Path:
    """What `make deb` has built of these very sources; it is built if need be. Raises LabError."""
    made = subprocess.run(["make", "--no-print-directory", "deb"], cwd=REPOSITORY, capture_output=True, check=False)
    if made.returncode:
        raise LabError(f"make deb has failed: {(made.stdout + made.stderr).decode(errors='replace')[-3000:]}")
    (package,) = (REPOSITORY / "dist").glob("balancerd_*.deb")
    return package


def later_version(package: Path, version: str, folder: Path, changed: Mapping[Path, str]) -> Path:
    """Pack the package again as another version, in which files have other texts; return where."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    told = control.read_text(encoding="utf-8")
    control.write_text(re.sub(r"^Version: .*$", f"Version: {version}", told, flags=re.MULTILINE), encoding="utf-8")
    for path, text in changed.items():
        (tree / path.relative_to("/")).write_text(text, encoding="utf-8")
    target = folder / f"balancerd_{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", tree, target],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    shutil.rmtree(tree)
    return target
