"""What the kernel's files say about this machine's fitness for balancerd: the doctor's probes that only read.

Owns the record of one check, and every probe that needs no syscall of its own. Each takes the root of the file system,
so that a test can give it another one, changes nothing, needs no privilege, and reports as unknown what it cannot read.
It must not know how a check is printed.
"""

import enum
from dataclasses import dataclass
from pathlib import Path

from balancerd.model.ids import format_id_list, parse_id_list

ROOT = Path("/")
CAP_SYS_PTRACE = 19  # include/uapi/linux/capability.h
CAP_SYS_NICE = 23


class CheckStatus(enum.StrEnum):
    """How a check ended. Only `FAILURE` keeps balancerd from working."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at: what was seen, and the exact remedy where one is needed (None elsewhere)."""

    name: str
    status: CheckStatus
    seen: str
    fix: str | None = None


def numa_nodes(root: Path = ROOT) -> Check:
    """How many NUMA nodes are online, and which of them have memory (sysfs-devices-system-node)."""
    name = "numa-nodes"
    directory = root / "sys/devices/system/node"
    try:
        online = parse_id_list(_text(directory / "online"))
        with_memory = parse_id_list(_text(directory / "has_memory"))
        with_cpus = parse_id_list(_text(directory / "has_cpu"))
    except FileNotFoundError as error:
        return Check(
            name=name,
            status=CheckStatus.FAILURE,
            seen=f"{error.filename} does not exist: the kernel was built without CONFIG_NUMA, or /sys is not mounted",
            fix="boot a kernel with CONFIG_NUMA=y (the kernels of all distributions for servers have it)",
        )
    except (OSError, ValueError) as error:
        return _unknown(name, error)
    seen = (
        f"{len(online)} online ({format_id_list(online)}), {len(with_memory)} with memory, {len(with_cpus)} with CPUs"
    )
    if len(with_memory) > 1:
        return Check(name=name, status=CheckStatus.OK, seen=seen)
    return Check(
        name=name,
        status=CheckStatus.WARNING,
        seen=f"{seen}: there is nothing to balance",
        fix="none needed on a machine with one node; give a virtual machine a guest NUMA topology",
    )


def numa_maps(root: Path = ROOT) -> Check:
    """Whether /proc/PID/numa_maps exists and can be read: the mempolicies of mappings are there (numa(7))."""
    name = "numa-maps"
    try:
        lines = _text(root / "proc/self/numa_maps").splitlines()
    except FileNotFoundError:
        return Check(
            name=name,
            status=CheckStatus.FAILURE,
            seen="/proc/self/numa_maps does not exist: mempolicies of other programs could not be respected",
            fix="boot a kernel with CONFIG_NUMA=y and CONFIG_PROC_PAGE_MONITOR=y",
        )
    except OSError as error:
        return _unknown(name, error)
    return Check(name=name, status=CheckStatus.OK, seen=f"readable, {len(lines)} mappings in this process")


def other_processes(root: Path = ROOT) -> Check:
    """Whether other users' processes can be seen in /proc, or a hidepid mount hides them (proc(5))."""
    name = "proc-visible"
    try:
        _text(root / "proc/1/stat")
    except (FileNotFoundError, PermissionError):
        options = _proc_mount_options(root)
        return Check(
            name=name,
            status=CheckStatus.WARNING,
            seen=f"/proc/1/stat cannot be read; /proc is mounted {options or 'with unknown options'}",
            fix="as root: mount -o remount,hidepid=0 /proc (the daemon itself sees them with CAP_SYS_PTRACE)",
        )
    except OSError as error:
        return _unknown(name, error)
    return Check(name=name, status=CheckStatus.OK, seen="other users' processes can be seen")


def kernel_balancing(root: Path = ROOT) -> Check:
    """The mode of the kernel's own balancing: 0 off, 1 on, 2 promotes from slow memory (sysctl/kernel.rst)."""
    name = "kernel-numa-balancing"
    try:
        mode = _text(root / "proc/sys/kernel/numa_balancing").strip()
    except FileNotFoundError:
        return Check(name=name, status=CheckStatus.INFO, seen="not built into this kernel")
    except OSError as error:
        return _unknown(name, error)
    if mode == "0":
        return Check(name=name, status=CheckStatus.OK, seen="off (kernel.numa_balancing=0)")
    return Check(
        name=name,
        status=CheckStatus.WARNING,
        seen=f"on (kernel.numa_balancing={mode}): the kernel moves pages too, and may undo what balancerd does",
        fix="as root: sysctl -w kernel.numa_balancing=0 (and in /etc/sysctl.d to keep it)",
    )


def transparent_huge_pages(root: Path = ROOT) -> Check:
    """The mode of transparent huge pages: they move about three times faster, and may be split (transhuge.rst)."""
    name = "transparent-huge-pages"
    try:
        text = _text(root / "sys/kernel/mm/transparent_hugepage/enabled")
    except FileNotFoundError:
        return Check(name=name, status=CheckStatus.INFO, seen="not built into this kernel")
    except OSError as error:
        return _unknown(name, error)
    chosen = text.partition("[")[2].partition("]")[0]
    return Check(name=name, status=CheckStatus.INFO, seen=chosen or f"unknown: {text.strip()!r}")


def hugetlb_pools(root: Path = ROOT) -> Check:
    """The pools of hugetlb pages by size: such pages move only to nodes whose pool has free ones (hugetlbpage.rst)."""
    name = "hugetlb-pools"
    try:
        sizes = sorted((root / "sys/kernel/mm/hugepages").iterdir(), key=lambda path: (len(path.name), path.name))
        pools = {path.name.removeprefix("hugepages-"): int(_text(path / "nr_hugepages")) for path in sizes}
    except FileNotFoundError:
        return Check(name=name, status=CheckStatus.INFO, seen="not built into this kernel")
    except (OSError, ValueError) as error:
        return _unknown(name, error)
    filled = [f"{count} pages of {size}" for size, count in pools.items() if count]
    return Check(name=name, status=CheckStatus.INFO, seen=", ".join(filled) or "empty")


def cgroup_version(root: Path = ROOT) -> Check:
    """Which cgroup hierarchy is mounted: workloads are named after their cgroup, version 2 counts memory by node."""
    name = "cgroup"
    directory = root / "sys/fs/cgroup"
    try:
        entries = {path.name for path in directory.iterdir()}
    except OSError as error:
        return _unknown(name, error)
    if "cgroup.controllers" in entries:
        return Check(name=name, status=CheckStatus.OK, seen="version 2")
    if "unified" in entries:
        return Check(name=name, status=CheckStatus.INFO, seen="versions 1 and 2 (hybrid)")
    if entries & {"cpuset", "memory", "systemd"}:
        return Check(name=name, status=CheckStatus.INFO, seen="version 1")
    return Check(name=name, status=CheckStatus.UNKNOWN, seen="unknown: no hierarchy on /sys/fs/cgroup")


def seccomp(root: Path = ROOT) -> Check:
    """Whether this process runs under a seccomp filter, which may refuse move_pages whatever the capabilities."""
    name = "seccomp"
    mode = status_field(root, "Seccomp")
    if mode is None:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen="unknown: /proc/self/status does not tell")
    if mode == "0":
        return Check(name=name, status=CheckStatus.OK, seen="no filter on this process")
    return Check(name=name, status=CheckStatus.INFO, seen=f"mode {mode}: a filter is on this process; see move-pages-*")


def perf_paranoia(root: Path = ROOT) -> Check:
    """What perf_event_open allows: from level 2 on, sources of accesses need CAP_PERFMON (perf-security.rst)."""
    name = "perf-event-paranoid"
    try:
        level = _text(root / "proc/sys/kernel/perf_event_paranoid").strip()
    except FileNotFoundError:
        return Check(name=name, status=CheckStatus.INFO, seen="perf events are not built into this kernel")
    except OSError as error:
        return _unknown(name, error)
    return Check(name=name, status=CheckStatus.INFO, seen=level)


def has_capability(root: Path, number: int) -> bool | None:
    """Whether this process has the capability in effect (capabilities(7)); None when that is unknown."""
    mask = status_field(root, "CapEff")
    try:
        return None if mask is None else bool(int(mask, 16) >> number & 1)
    except ValueError:
        return None


def status_field(root: Path, field: str) -> str | None:
    """One field of /proc/self/status as text (proc_pid_status(5)), None when there is none."""
    try:
        lines = _text(root / "proc/self/status").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:")), None)


def _proc_mount_options(root: Path) -> str | None:
    """The super block options of /proc: the last field of its line in mountinfo (proc_pid_mountinfo(5))."""
    try:
        lines = _text(root / "proc/self/mountinfo").splitlines()
    except OSError:
        return None
    return next((line.split()[-1] for line in lines if line.split()[4:5] == ["/proc"]), None)


def _unknown(name: str, error: Exception) -> Check:
    return Check(name=name, status=CheckStatus.UNKNOWN, seen=f"unknown: {error}")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")
