"""What on the machine speaks against moving anything at the moment: pressure, and other managers at work."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from balancerd.model.manager import MACHINE_WIDE, Manager, ManagerFinding
from balancerd.model.sample import Pressure


def explain_pressure(
    pressure: Pressure, max_memory_ratio: float | None, max_cpu_ratio: float | None = None
) -> str | None:
    """Return which pressure is above its limit, and the figures; None when none is, or none is known or limited."""
    memory = ("memory", pressure.memory_ratio, max_memory_ratio)
    cpu = ("CPU", pressure.cpu_ratio, max_cpu_ratio)
    told = [
        f"{name} pressure {ratio:.1%} is above {limit:.1%}"
        for name, ratio, limit in (memory, cpu)
        if ratio is not None and limit is not None and ratio > limit
    ]
    return ", ".join(told) or None


def explain_other_manager(managers: Iterable[ManagerFinding], yield_to: AbstractSet[Manager]) -> str | None:
    """Return which machine-wide managers are at work to whom the daemon yields; None when none is."""
    told = [
        f"{found.manager.value}: {found.detail}"
        for found in managers
        if found.active and found.manager in MACHINE_WIDE and found.manager in yield_to
    ]
    return "; ".join(told) or None
