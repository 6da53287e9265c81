"""Identities, and sets of them as the kernel writes them."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple, NewType

NodeId = NewType("NodeId", int)
"""A NUMA node number as the kernel uses it; numbers may be sparse."""

CpuId = NewType("CpuId", int)
"""A logical CPU number as the kernel uses it."""

LARGEST_ID: Final = (1 << 16) - 1
"""Kernels are built for 8192 CPUs and 1024 nodes at most; a range must not fill memory because of a slip."""

_ITEM = re.compile(r"(\d{1,20})(?:-(\d{1,20})(?::(\d{1,20})/(\d{1,20}))?)?")


class ProcessId(NamedTuple):
    """One process for its whole life: a pid alone may be used again, pid and start time may not.

    `start_ticks` is field 22 of /proc/PID/stat (clock ticks after boot), see proc_pid_stat(5). A tuple, since it is the
    key of nearly every mapping and a tuple's hash costs a tenth of a dataclass's.
    """

    pid: int
    start_ticks: int


def parse_id_list(text: str) -> frozenset[int]:
    """Return the numbers in the kernel's list format, such as "0-3,8" or "0-31:2/8".

    An empty text is the empty set. Raises ValueError when the text is anything else; see
    bitmap_parselist() in the kernel's lib/bitmap-str.c and cpuset(7), "List format".
    """
    numbers: set[int] = set()
    for item in text.strip().split(","):
        if not item and len(text.strip()) == 0:
            continue
        match = _ITEM.fullmatch(item.strip())
        if match is None:
            raise ValueError(f"{item[:40]!r} is not a number or a range such as 0-3")
        first, last, used, group = (int(g) if g is not None else None for g in match.groups())
        if first is None or (last is not None and last < first):
            raise ValueError(f"the range {item!r} runs backwards")
        if max(first, last or 0) > LARGEST_ID:
            raise ValueError(f"{item!r} goes beyond {LARGEST_ID}, the largest number there can be")
        whole = range(first, (first if last is None else last) + 1)
        if used is None or group is None:
            numbers.update(whole)
        elif group == 0:
            raise ValueError(f"{item!r} has groups of no size")
        else:
            numbers.update(n for n in whole if (n - first) % group < used)
    return frozenset(numbers)


def format_id_list(numbers: Iterable[int]) -> str:
    """Write numbers in the kernel's list format: {0, 1, 2, 8} is "0-2,8"; nothing is ""."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
