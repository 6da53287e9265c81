"""A machine that boots a fresh Debian with systemd as PID 1, in which balancerd is installed as its users do.

Owns how it is booted, asked and filled. Must not know what is tested there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.lab import debian, topology
from tests.lab.machine import Machine, Options, inside
from tests.lab.state import REPOSITORY, LabError, lab_directory
from tests.lab.workloads import binary, build

UNIT = "balancerd.service"
OUT = Path("/run/lab/out")
CONFIG = Path("/etc/balancerd/balancerd.yaml")
PYTHON = "3.11"
"""Debian 12's."""

CGROUP = Path("/sys/fs/cgroup/system.slice") / UNIT

STEADY = {
    "  stall_target: 5ms": "  stall_target: 50ms",
    "  stall_limit: null": "  stall_limit: 5s",
    "  scan_budget: 0.5%": "  scan_budget: 100%",
    "  read_timeout: 100ms": "  read_timeout: 10s",
    "  min_age: 5s": "  min_age: 1s",
    "  canary: true": "  canary: false",
    "tick_interval: 2s": "tick_interval: 1s",
}
"""What an emulated machine needs other than the shipped file says."""

OF_NOBODY = ("/run", "/tmp", "/var/log", "/var/cache/apt", "/var/lib/apt")
"""What ends with the boot, logs, and what apt keeps for itself as soon as it is called."""

IN_TIME = "[Service]\nWatchdogSec=20s\nTimeoutStartSec=300s\nRestartSec=1s\n"
"""A drop-in: a minute of the watchdog is long to wait for, and starting takes long here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is: the names of all files, but for OF_NOBODY; users and groups, by line."""

    files: frozenset[str]
    users: frozenset[str]

    def since(self, before: "Found") -> list[str]:
        """Return what there was not before."""
        return sorted(self.files - before.files) + sorted(self.users - before.users)


class Installed:
    """The machine, booted, with `more` packages of Debian; leaving the block ends it."""

    def __init__(self, *more: str) -> None:
        lab = lab_directory()
        build()
        root = debian.ensure_root(lab.packages, more)
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

    def look_around(self) -> Found:
        """Return what there is now."""
        left_out = " -o ".join(f"-path {folder}" for folder in OF_NOBODY)
        files = self.sh(f"find / -xdev \\( {left_out} \\) -prune -o -print").splitlines()
        users = self.sh("getent passwd; getent group").splitlines()
        return Found(files=frozenset(files), users=frozenset(users))

    def wait_for_bytes_in_prometheus(self, configuration: Path, least_bytes: int) -> None:
        """Have Debian's Prometheus scrape until it tells of as many moved bytes as the daemon does."""
        exposed = self.sh(
            """bash -c 'exec 3<>/dev/tcp/127.0.0.1/9923; printf "GET /metrics HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'"""
        )
        values = re.findall(r"^balancerd_migrated_bytes_total\{.*\} (\S+)$", exposed, re.MULTILINE)
        moved = sum(float(value) for value in values)
        assert moved >= least_bytes
        self.sh(f"sed 's/scrape_interval: 15s/scrape_interval: 5s/' {configuration} > /run/prometheus.yml")
        self.sh(
            "systemd-run --quiet --unit=scraper /usr/bin/prometheus --config.file=/run/prometheus.yml"
            " --storage.tsdb.path=/run/tsdb --web.listen-address=127.0.0.1:9090"
        )
        query = "GET /api/v1/query?query=sum(balancerd_migrated_bytes_total) HTTP/1.0\\r\\n\\r\\n"
        ask = f"""bash -c 'exec 3<>/dev/tcp/127.0.0.1/9090; printf "{query}" >&3; cat <&3' 2>/dev/null"""
        try:
            self.wait(f"{ask} | grep -q '\"{moved:.0f}\"'", 120.0, f"answer {moved:.0f}")
        finally:
            self.sh("systemctl stop scraper")

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


def newest_wheels(folder: Path) -> None:
    """Put the wheel of these very sources into a folder, with those of what it needs. Raises LabError."""
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    needed = ["--require-hashes", "--only-binary", ":all:", "-r", "deploy/requirements/run.txt"]
    for command in (
        ["make", "--no-print-directory", "wheel"],
        [*pip, "download", "--python-version", PYTHON, *needed, "-d", str(folder)],
    ):
        made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)
        if made.returncode:
            raise LabError(f"{command[0]} has failed: {(made.stdout + made.stderr).decode(errors='replace')[-3000:]}")
    (wheel,) = (REPOSITORY / "dist").glob("balancerd-*.whl")
    shutil.copy(wheel, folder)


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
