"""The kernel's own balancing, with scans often enough for a test. Inside the guest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SWITCH = Path("/proc/sys/kernel/numa_balancing")
DEBUG = Path("/sys/kernel/debug/sched/numa_balancing")


def is_balancing() -> bool:
    """Whether the kernel balances now."""
    return SWITCH.read_text(encoding="ascii").strip() != "0"


@contextmanager
def eager_balancing(*, delay_ms: int = 100, least_ms: int = 500, most_ms: int = 1000) -> Iterator[None]:
    """Switch it on, its scans so long after the start and apart, and put everything back afterwards."""
    eager = {
        DEBUG / "scan_delay_ms": str(delay_ms),
        DEBUG / "scan_period_min_ms": str(least_ms),
        DEBUG / "scan_period_max_ms": str(most_ms),
        SWITCH: "1",
    }
    before = {path: path.read_text(encoding="ascii") for path in eager}
    try:
        for path, word in eager.items():
            path.write_text(word, encoding="ascii")
        yield
    finally:
        for path, word in before.items():
            path.write_text(word, encoding="ascii")
