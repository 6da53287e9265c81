"""What else stands between balancerd and the kernel, by its files: capabilities, security modules, pressure, swap.

Owns no call: what is refused in fact, `probes` and `calls` find out. It must not know how a check is printed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from balancerd.kernel.doctor.files import CAP_SYS_NICE, CAP_SYS_PTRACE, ROOT, Check, CheckStatus, has_capability


class _Need(NamedTuple):
    name: str
    number: int
    what_for: str


NEEDS: Final = (  # include/uapi/linux/capability.h
    _Need("CAP_SYS_PTRACE", CAP_SYS_PTRACE, "seeing and moving the memory of other users' processes"),
    _Need("CAP_SYS_NICE", CAP_SYS_NICE, "moving shared pages (migrate.move_all), threads, and evicting"),
    _Need("CAP_PERFMON", 38, "watching accesses, where perf_event_paranoid is 2 or more (policies access, interleave)"),
    _Need("CAP_DAC_OVERRIDE", 1, "heat, by DAMON and by soft-dirty (accesses.heat)"),
    _Need("CAP_DAC_READ_SEARCH", 2, "reading what the kubelet, libvirt and units have placed, where only root may"),
)
ALWAYS: Final = frozenset({"CAP_SYS_PTRACE", "CAP_SYS_NICE"})
"""What the daemon needs whatever its configuration."""

CONFINING: Final = frozenset({"selinux", "apparmor", "smack", "tomoyo", "lockdown"})
"""Security modules that may refuse what capabilities allow; the others of the list only restrict programs that ask."""


def capabilities(root: Path = ROOT) -> tuple[Check, ...]:
    """Whether each capability that balancerd has a use for is in effect here (capabilities(7))."""
    return tuple(_capability(root, need) for need in NEEDS)


def security_modules(root: Path = ROOT) -> Check:
    """Which security modules are at work, and whether one confines this process (sys/kernel/security/lsm)."""
    name = "security-modules"
    path = root / "sys/kernel/security/lsm"
    try:
        modules = path.read_text(encoding="utf-8").strip().split(",")
    except FileNotFoundError:
        return Check(name=name, status=CheckStatus.INFO, seen="unknown: securityfs is not mounted")
    except OSError as error:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen=f"unknown: {error}")
    confining = [module for module in modules if module in CONFINING]
    label = _label(root)
    if label is not None and label != "unconfined":
        return Check(
            name=name,
            status=CheckStatus.INFO,
            seen=f"{', '.join(modules)}; this process is confined as {label}",
            fix="only if a check above is refused: allow it in that profile (ausearch -m avc; dmesg | grep apparmor)",
        )
    told = ", ".join(modules)
    return Check(name=name, status=CheckStatus.OK if not confining else CheckStatus.INFO, seen=told or "none")


def pressure(root: Path = ROOT) -> Check:
    """Whether the kernel tells of pressure, while which nothing is moved (Documentation/accounting/psi.rst)."""
    name = "pressure"
    try:
        (root / "proc/pressure/memory").read_text(encoding="ascii")
    except FileNotFoundError:
        return Check(
            name=name,
            status=CheckStatus.WARNING,
            seen="/proc/pressure does not exist: moves cannot wait while the machine is short of memory or CPU time",
            fix="boot with psi=1 (a kernel with CONFIG_PSI=y)",
        )
    except OSError as error:  # EOPNOTSUPP where it was switched off at boot
        seen = f"cannot be read ({error.strerror}): moves cannot wait while the machine is short of anything"
        return Check(name=name, status=CheckStatus.WARNING, seen=seen, fix="boot with psi=1")
    return Check(name=name, status=CheckStatus.OK, seen="the kernel tells of it")


def swap(root: Path = ROOT) -> Check:
    """Whether there is swap space: for the policy cold-eviction, and balancerctl evict (proc_swaps(5))."""
    name = "swap"
    try:
        lines = (root / "proc/swaps").read_text(encoding="utf-8").splitlines()[1:]
    except FileNotFoundError:
        return Check(name=name, status=CheckStatus.INFO, seen="not built into this kernel")
    except OSError as error:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen=f"unknown: {error}")
    if not lines:
        return Check(name=name, status=CheckStatus.INFO, seen="none: only memory of files can be evicted")
    return Check(name=name, status=CheckStatus.INFO, seen=", ".join(line.split()[0] for line in lines if line.split()))


def demotion(root: Path = ROOT) -> Check:
    """Whether the kernel demotes to slower memory by itself (Documentation/ABI/testing/sysfs-kernel-mm-numa)."""
    name = "kernel-demotion"
    told: Mapping[str, str] = {"true": "on", "1": "on", "false": "off", "0": "off"}
    try:
        text = (root / "sys/kernel/mm/numa/demotion_enabled").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return Check(name=name, status=CheckStatus.INFO, seen="not built into this kernel")
    except OSError as error:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen=f"unknown: {error}")
    return Check(name=name, status=CheckStatus.INFO, seen=told.get(text, f"unknown: {text!r}"))


def _capability(root: Path, need: _Need) -> Check:
    name = need.name.lower().replace("_", "-")
    held = has_capability(root, need.number)
    if held is None:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen="unknown: /proc/self/status does not tell")
    if held:
        return Check(name=name, status=CheckStatus.OK, seen=f"in effect: for {need.what_for}")
    drop_in = f"systemctl edit balancerd: [Service] AmbientCapabilities={need.name} CapabilityBoundingSet={need.name}"
    return Check(
        name=name,
        status=CheckStatus.INFO,
        seen=f"not in effect here; the daemon needs it for {need.what_for}",
        fix="the unit gives it to the daemon; try it with sudo balancerctl doctor" if need.name in ALWAYS else drop_in,
    )


def _label(root: Path) -> str | None:
    """Return what the security module calls this process, None where none does."""
    try:
        return (root / "proc/self/attr/current").read_text(encoding="utf-8").strip("\n\0 ") or None
    except OSError:
        return None
