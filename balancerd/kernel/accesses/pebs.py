"""PEBS: Intel's PMU tells the address of loads that took long, and of stores, and what answered them.

Needs a PMU with PEBS, which few virtual machines have, and perf_event_open(2). Owns which events these are on a core, a
hybrid CPU, and one whose loads want an auxiliary event beside them (Sapphire Rapids; arch/x86/events/intel/core.c,
intel_pmu_hw_config).
"""

from pathlib import Path

from balancerd import native
from balancerd.kernel.accesses.period import PeriodBounds
from balancerd.kernel.accesses.pmu import DEVICES, Pmu, read_cpu, read_pmu
from balancerd.kernel.accesses.pmu_source import PmuSource, explain, openable
from balancerd.model.access import AccessMethod, Obstacle

NAMES = ("cpu", "cpu_core", "cpu_atom")
"""Of PMUs: one for all cores, or one for each of the two sorts of cores of a hybrid CPU."""

LATENCY_CYCLES = 64
"""Faster loads are not sampled. Memory takes some 200 and more, L2 some 15."""

PRECISE = 2
"""precise_ip, or less where the PMU offers less: 1 would do, as the address is that of the sampled load in any case."""

LOADS = PeriodBounds(first=10_007, least=2_003)

_VIRTUAL_FIX = (
    "have the hypervisor pass the PMU on with PEBS, which KVM does from Linux 6.0 and Ice Lake servers on (QEMU: -cpu "
    "host,pmu=on; libvirt: <cpu mode='host-passthrough'/> and <pmu state='on'/>); or run balancerd on the host"
)
_TAKE_OUT = "none: take pebs out of accesses.sources"
_HOST_FIX = "see dmesg | grep -i pebs: the kernel may be older than the CPU, or the microcode too old"


def find_events(root: Path = Path("/")) -> tuple[native.MemoryEvent, ...]:
    """Return the events of all PMUs that tell loads, none when there is no such PMU. Raises ParseError, OSError."""
    pmus = [pmu for name in NAMES if (pmu := read_pmu(root, name)) is not None]
    return tuple(event for pmu in pmus for event in _events_of(pmu))


def look(root: Path = Path("/")) -> tuple[native.MemoryEvent, ...] | Obstacle:
    """Find the events and try them on this very thread; return what is in the way when that does not work."""
    events = find_events(root)
    cpu = read_cpu(root)
    if not events:
        if cpu.vendor != "GenuineIntel":
            fix = "in accesses.sources, name ibs in place of pebs" if cpu.vendor == "AuthenticAMD" else _TAKE_OUT
            maker = cpu.vendor or "no x86 kind"
            return Obstacle(seen=f"only Intel's CPUs have PEBS, and this one is of {maker}", fix=fix)
        return Obstacle(seen=_what_is_missing(root), fix=_VIRTUAL_FIX if cpu.is_virtual else _HOST_FIX)
    try:
        return openable(events)
    except OSError as error:
        return explain(error, "mem-loads", _VIRTUAL_FIX if cpu.is_virtual else _HOST_FIX, root)


def find_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Return what is in the way and the exact remedy, None when nothing is."""
    found = look(root)
    return found if isinstance(found, Obstacle) else None


class PebsSource(PmuSource):
    """The AccessSource."""

    method = AccessMethod.PEBS
    bounds = LOADS

    def _look(self) -> tuple[native.MemoryEvent, ...] | Obstacle:
        return look()


def _events_of(pmu: Pmu) -> list[native.MemoryEvent]:
    loads = pmu.event("mem-loads")
    precise = pmu.capability("max_precise")
    if loads is None or precise == 0:
        return []
    if "ldlat" in pmu.formats:
        loads = {**loads, "ldlat": LATENCY_CYCLES}
    precise = PRECISE if precise is None else min(PRECISE, precise)
    auxiliary, stores = pmu.event("mem-loads-aux"), pmu.event("mem-stores")
    events = [native.MemoryEvent(pmu_type=pmu.type, configs=pmu.configs(loads), precise=precise)]
    if auxiliary is not None:
        events.insert(0, native.MemoryEvent(pmu_type=pmu.type, configs=pmu.configs(auxiliary), is_auxiliary=True))
    if stores is not None:
        configs = pmu.configs(stores)
        events.append(native.MemoryEvent(pmu_type=pmu.type, configs=configs, precise=precise, is_stores=True))
    return events


def _what_is_missing(root: Path) -> str:
    """Tell of an Intel CPU whether it has no PMU, one without PEBS, or one whose kernel does not know its loads."""
    found = [name for name in NAMES if read_pmu(root, name) is not None]
    if not found:
        return f"there is no PMU: neither of {', '.join(NAMES)} is in /{DEVICES}"
    pmu = read_pmu(root, found[0])
    if pmu is not None and pmu.capability("max_precise") == 0:
        return f"the PMU has no PEBS: 0 in /{DEVICES}/{found[0]}/caps/max_precise"
    return f"the PMU tells no loads: there is no /{DEVICES}/{found[0]}/events/mem-loads"
