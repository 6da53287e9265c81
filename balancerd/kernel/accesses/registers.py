"""Register sampling: a timer shows the registers of a running thread, and those that point into data are its accesses.

Needs no PMU and no hint faults, only perf_event_open(2) (kernel.perf_event_paranoid, CAP_PERFMON). Owns how often
threads are sampled. What becomes of the samples is the business of rings.py.
"""

from pathlib import Path

from balancerd import native
from balancerd.kernel.accesses.obstacles import find_perf_obstacle
from balancerd.kernel.accesses.rate import LEAST_HZ, Governor, most_hz, ring_pages
from balancerd.kernel.accesses.rings import EXPECTED_SECONDS, Drained, RingSource, Surroundings, Watched
from balancerd.model.access import AccessMethod, Obstacle
from balancerd.model.ids import ProcessId


def find_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Try to sample this very thread; return what is in the way and the exact remedy, None when nothing is."""
    return find_perf_obstacle(native.PerfKind.REGISTERS, root)


class RegisterSource(RingSource):
    """The AccessSource. Its `budget_ratio` is for sampling, too, here and in the processes that are watched."""

    method = AccessMethod.REGISTERS

    def __init__(self, around: Surroundings, *, table_bytes: int, budget_ratio: float) -> None:
        super().__init__(around, table_bytes=table_bytes, budget_ratio=budget_ratio)
        self._governor = Governor(budget_ratio)

    def _find_obstacle(self) -> Obstacle | None:
        return find_obstacle()

    def _make_rings(self, process: ProcessId, n_threads: int) -> native.ThreadRings:
        pages = ring_pages(n_threads)
        self._governor.expect(process, n_threads)
        return native.ThreadRings(
            native.PerfKind.REGISTERS, frequency_hz=self._choose_hz(pages, EXPECTED_SECONDS), ring_pages=pages
        )

    def _drain(self, process: ProcessId, watched: Watched) -> Drained:
        rings = watched.rings
        reading = rings.read(watched.table, watched.ranges, pid=process.pid)
        if rings.tids:
            taken = reading.samples + reading.lost + reading.cut
            self._governor.note(process, samples=taken, seconds=watched.seconds, at_hz=rings.frequency_hz)
        chosen_hz = self._choose_hz(rings.ring_pages, watched.seconds or EXPECTED_SECONDS)
        frequency_hz = max(LEAST_HZ, int(chosen_hz * watched.interest.ratio))
        if frequency_hz != rings.frequency_hz:
            rings.set_frequency(frequency_hz)
        return Drained(
            samples=reading.samples,
            hits=reading.with_access + reading.repeated,
            cut=reading.lost + reading.cut,
            throttled=reading.throttled,
        )

    def _forget_closed(self) -> None:
        self._governor.forget_all_but(self._watched.keys())

    def _choose_hz(self, pages: int, seconds: float) -> int:
        self._governor.budget_ratio = self.budget_ratio
        return self._governor.choose(most_hz(pages, seconds))
