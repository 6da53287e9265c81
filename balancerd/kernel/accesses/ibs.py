"""IBS: AMD's CPUs follow one instruction in so many, and tell the address of those that load or store.

Needs the PMU ibs_op, which hypervisors do not pass on, and a kernel that lets it watch single threads and tells what
answered an access: Linux 6.2 and newer do both (arch/x86/events/amd/ibs.c). Owns how ibs_op is asked.
"""

import errno
from pathlib import Path

from balancerd import native
from balancerd.kernel.accesses.period import PeriodBounds
from balancerd.kernel.accesses.pmu import DEVICES, Cpu, read_cpu, read_pmu
from balancerd.kernel.accesses.pmu_source import PmuSource, explain, openable
from balancerd.model.access import AccessMethod, Obstacle
from balancerd.model.ids import ProcessId

NAME = "ibs_op"

OPS = PeriodBounds(first=1 << 22, least=1 << 20, most=1 << 26, step=16)
"""Of instructions, of which a thread has up to some 4e9 a second. The lowest four bits cannot be set, and more than 27
bits not be counted."""

MISSES = PeriodBounds(first=1 << 18, least=1 << 16, most=1 << 26, step=16)
"""The same where only those become samples that no cache answered: a few in a hundred at most."""

_MAKERS = frozenset({"AuthenticAMD", "HygonGenuine"})
_TAKE_OUT = "take ibs out of accesses.sources"
_MISSES_ONLY = "l3missonly"
_WISHES = ("cnt_ctl", _MISSES_ONLY)
"""Count instructions and not cycles, which tells more of those that wait; and let the CPU leave out itself what its
caches answered (Zen 4 and newer)."""


def find_events(root: Path = Path("/")) -> tuple[native.MemoryEvent, ...]:
    """Return the one event, none when there is no such PMU. Raises ParseError, OSError."""
    pmu = read_pmu(root, NAME)
    if pmu is None:
        return ()
    configs = pmu.configs({name: 1 for name in _WISHES if name in pmu.formats})
    return (native.MemoryEvent(pmu_type=pmu.type, configs=configs),)


def find_bounds(root: Path = Path("/")) -> PeriodBounds:
    """Return the periods that ibs_op may have here. Raises ParseError, OSError."""
    pmu = read_pmu(root, NAME)
    return MISSES if pmu is not None and _MISSES_ONLY in pmu.formats else OPS


def look(root: Path = Path("/")) -> tuple[native.MemoryEvent, ...] | Obstacle:
    """Find the event and try it on this very thread; return what is in the way when that does not work."""
    events = find_events(root)
    if not events:
        return _explain_none(read_cpu(root))
    try:
        return openable(events)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return Obstacle(
                seen=f"perf_event_open(2) of {NAME}: EINVAL: it cannot watch single threads",
                fix="boot Linux 6.2 or newer",
            )
        return explain(error, NAME, f"see dmesg | grep -i ibs; or {_TAKE_OUT}", root)


def find_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Return what is in the way and the exact remedy, None when nothing is."""
    found = look(root)
    return found if isinstance(found, Obstacle) else None


class IbsSource(PmuSource):
    """The AccessSource."""

    method = AccessMethod.IBS
    bounds = OPS

    def _look(self) -> tuple[native.MemoryEvent, ...] | Obstacle:
        return look()

    def _make_rings(self, process: ProcessId, n_threads: int) -> native.ThreadRings:
        self._loads.bounds = find_bounds()
        return super()._make_rings(process, n_threads)


def _explain_none(cpu: Cpu) -> Obstacle:
    if cpu.vendor not in _MAKERS:
        fix = "in accesses.sources, name pebs in place of ibs" if cpu.vendor == "GenuineIntel" else f"none: {_TAKE_OUT}"
        return Obstacle(seen=f"only AMD's CPUs have IBS, and this one is of {cpu.vendor or 'no x86 kind'}", fix=fix)
    none = f"there is no {NAME} in /{DEVICES}"
    if cpu.is_virtual:
        return Obstacle(
            seen=f"{none}: this is a virtual machine, and hypervisors do not pass IBS on",
            fix=f"run balancerd on the host; or {_TAKE_OUT}, and name registers",
        )
    if "ibs" not in cpu.flags:
        return Obstacle(
            seen=f"{none}, and no ibs among the flags of /proc/cpuinfo",
            fix="switch IBS on in the firmware's setup, which some call instruction-based sampling; or " + _TAKE_OUT,
        )
    return Obstacle(
        seen=f"{none}, though the CPU has IBS",
        fix="see dmesg | grep -i ibs; boot a kernel with CONFIG_PERF_EVENTS=y and CONFIG_CPU_SUP_AMD=y",
    )
