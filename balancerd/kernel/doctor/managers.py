"""Who else manages placement on this machine: the doctor's look at other managers, one check for each.

The daemon's own detection does the looking, once and without a daemon. The kernel's balancing has its check in `files`;
mempolicies are known to the daemon alone, for reading numa_maps of every process would be dear.
"""

from pathlib import Path

from balancerd.kernel.doctor.files import ROOT, Check, CheckStatus
from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import list_names, read_bytes
from balancerd.kernel.machine.topology import parse_ids
from balancerd.kernel.neighbours.watch import Neighbours
from balancerd.kernel.processes.status import parse_status
from balancerd.model.ids import format_id_list
from balancerd.model.manager import MACHINE_WIDE, REMEDY, Manager, ManagerFinding
from balancerd.model.topology import Topology


def other_managers(root: Path = ROOT) -> tuple[Check, ...]:
    """Look for every other manager; see balancerd.kernel.neighbours."""
    neighbours = Neighbours(procfs=root / "proc", sysfs=root / "sys", root=root, cgroupfs=root / "sys/fs/cgroup")
    findings = neighbours.look(Topology(nodes=(), node_of_cpu={}), 0.0)
    return (
        *(_judge(found) for found in findings if found.manager is not Manager.KERNEL_BALANCING),
        narrowed_affinities(root),
    )


def narrowed_affinities(root: Path = ROOT) -> Check:
    """How many processes may not run on every online CPU (Cpus_allowed_list of proc_pid_status(5))."""
    name = check_name(Manager.AFFINITY)
    path = str(root / "sys/devices/system/cpu/online")
    try:
        online = parse_ids(read_bytes(path), path)
        pids = [int(pid) for pid in list_names(str(root / "proc")) if pid.isdigit()]
    except (OSError, ParseError) as error:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen=f"unknown: {error}")
    narrowed = sorted(pid for pid in pids if _is_narrowed(str(root / f"proc/{pid}/status"), online))
    if not narrowed:
        return Check(name=name, status=CheckStatus.OK, seen="every process may run on every CPU")
    shown = ", ".join(map(str, narrowed[:5])) + (", ..." if len(narrowed) > 5 else "")
    return Check(
        name=name,
        status=CheckStatus.INFO,
        seen=f"processes that may run on some of the CPUs {format_id_list(online)} only: {len(narrowed)} (pid {shown})",
        fix=REMEDY[Manager.AFFINITY],
    )


def check_name(manager: Manager) -> str:
    """Return the name of the check about one manager."""
    return f"manager-{manager.value}"


def _judge(found: ManagerFinding) -> Check:
    name = check_name(found.manager)
    if found.active:
        is_rival = found.manager in MACHINE_WIDE
        return Check(
            name=name,
            status=CheckStatus.WARNING if is_rival else CheckStatus.INFO,
            seen=f"{found.detail}: two managers undo each other's work" if is_rival else found.detail,
            fix=found.fix,
        )
    if found.unreadable is not None:
        return Check(
            name=name,
            status=CheckStatus.UNKNOWN,
            seen=f"unknown, this cannot be read: {found.unreadable}",
            fix="try it with root's rights: sudo balancerctl doctor",
        )
    return Check(name=name, status=CheckStatus.OK, seen="not at work here")


def _is_narrowed(path: str, online: frozenset[int]) -> bool:
    """Return whether a process may not run everywhere; threads of the kernel, which have no memory, do not count."""
    try:
        text = read_bytes(path)
        allowed = parse_status(text, path).cpus_allowed
    except (OSError, ParseError):
        return False
    return allowed is not None and b"\nVmRSS:" in text and not online <= allowed
