"""A team of which there is a perf log: what that says, and what of it has come true."""

import time
from dataclasses import dataclass

from tests.lab.workloads.perf_script import Pattern, perf_script
from tests.lab.workloads.team import MIB, Team

PART_MIB, OWN_MIB = 4, 2
"""Of each part the log tells that its thread uses the beginning. The rest is not in it, but for that of the last part,
which all threads use."""

PAGES = OWN_MIB * 256
NOISE = 0.1
SAMPLES_PER_PAGE = 5.0
N_SAMPLES = round(5 * PAGES * SAMPLES_PER_PAGE)

BUSY_PERCENT = 5
"""All four threads and who reads the log share one emulated CPU."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Pages: those that went where the pattern wants them, all that went elsewhere, those that should have gone."""

    right: int
    all: int
    wanted: int

    @property
    def precision(self) -> float:
        """Of what moved, what should have, and went to the right node."""
        return self.right / self.all

    @property
    def recall(self) -> float:
        """Of what should have moved, what did, to the right node."""
        return self.right / self.wanted


class Logged(Team):
    """Four threads on four nodes; main, on node 0, has touched all of it."""

    def __init__(self) -> None:
        super().__init__("base", PART_MIB, busy_percent=BUSY_PERCENT, how="calm")
        self.began = time.monotonic()
        self.owned = tuple((start, start + OWN_MIB * MIB) for start, _ in self.parts)
        self.others = tuple((start + OWN_MIB * MIB, end) for start, end in self.parts)

    def log(self) -> str:
        """What perf would print of accesses from when it was ready until now."""
        pattern = Pattern(pid=self.pid, tids=self.tids, owned=self.owned, shared=self.others[3:])
        seconds = (self.began, time.monotonic())
        return "".join(perf_script(pattern, seed=6, samples_per_page=SAMPLES_PER_PAGE, noise=NOISE, seconds=seconds))

    def home_shares(self) -> tuple[float, ...]:
        """The share of each thread's own pages that are on its node."""
        return tuple(held[thread] / PAGES for thread, held in enumerate(self.pages_by_node(self.owned)))

    def moved(self) -> Moved:
        """What has left node 0."""
        owned, others = self.pages_by_node(self.owned), self.pages_by_node(self.others)
        right = sum(held[thread] for thread, held in enumerate(owned) if thread)
        return Moved(right=right, all=sum(sum(held[1:]) for held in (*owned, *others)), wanted=3 * PAGES)
