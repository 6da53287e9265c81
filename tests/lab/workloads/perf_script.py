"""A log of memory accesses as `perf script` prints it, of a known pattern with noise. Pure."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from balancerd.native import PAGE_BYTES

HEADER = """\
# ========
# arch : x86_64
# time of first sample : {first:.6f}
# time of last sample : {last:.6f}
# clockid frequency: 1000 MHz
# clockid: monotonic (1)
# ========
#
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Who uses what: thread I, on CPU I, the span [start, end) `owned[I]`, and all threads those of `shared`."""

    pid: int
    tids: Sequence[int]
    owned: Sequence[tuple[int, int]]
    shared: Sequence[tuple[int, int]] = ()


def perf_script(
    pattern: Pattern, *, seed: int, samples_per_page: float, noise: float, seconds: tuple[float, float]
) -> Iterator[str]:
    """Yield the lines. Noise is an access to any of these pages by any thread; `seconds` tell its begin and end."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    everybody = range(len(pattern.tids))
    users: dict[int, Sequence[int]] = {}
    for thread, span in enumerate(pattern.owned):
        users.update(dict.fromkeys(range(*span, PAGE_BYTES), (thread,)))
    for span in pattern.shared:
        users.update(dict.fromkeys(range(*span, PAGE_BYTES), everybody))
    pages = tuple(users)
    n_samples = round(samples_per_page * len(pages))
    first, last = seconds
    yield HEADER.format(first=first, last=last)
    for number in range(n_samples):
        page = rng.choice(pages)
        thread = rng.choice(everybody if rng.random() < noise else users[page])
        at = first + (last - first) * number / max(1, n_samples - 1)
        address = page + rng.randrange(512) * 8
        yield (
            f"{pattern.pid}/{pattern.tids[thread]} [{thread:03}] {at:12.6f}: {address:16x}      10268100142 "
            f"|OP LOAD|LVL L3 or L3 hit|SNP None|TLB L1 or L2 hit|LCK No|BLK  N/A {rng.randrange(20, 300):15} {0:15x}\n"
        )
