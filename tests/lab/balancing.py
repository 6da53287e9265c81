"""The kernel's own balancing, with scans often enough for a test. Inside the guest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SWITCH = Path("/proc/sys/kernel/numa_balancing")
DEBUG = Path("/sys/kernel/debug/sched/numa_balancing")
EAGER = {
    DEBUG / "scan_delay_ms": "100",
    DEBUG / "scan_period_min_ms": "500",
    DEBUG / "scan_period_max_ms": "1000",
    SWITCH: "1",
}


def is_balancing() -> bool:
    """Whether the kernel balances now."""
    return SWITCH.read_text(encoding="ascii").strip() != "0"


@contextmanager
def eager_balancing() -> Iterator[None]:
    """Switch it on, and put everything back afterwards."""
    before = {path: path.read_text(encoding="ascii") for path in EAGER}
    try:
        for path, word in EAGER.items():
            path.write_text(word, encoding="ascii")
        yield
    finally:
        for path, word in before.items():
            path.write_text(word, encoding="ascii")
