"""How often the survey lists /proc, and reads the processes that are not busy: as often as the scan budget allows.

Large idle ones are read sooner when more CPUs are busy than before: one of them may be at work now.

Pure arithmetic over what earlier passes cost; CPU time is data.
"""

from dataclasses import dataclass

from balancerd.native.records import ProcessSurvey

LISTING_SECONDS = 4.0
IDLE_SECONDS = 4.0
SMALL_SECONDS = 10.0
KERNEL_SECONDS = 60.0
LONGEST_SECONDS = 120.0

READING_SHARE = 0.25
"""What of the scan budget reading small processes may take; large idle ones may take as much again, and threads."""

LISTING_SHARE = 0.15
"""What of the scan budget listing the processes may take."""

FEWEST_THREADS = 128
"""Of how many threads a file may be read in a pass, at least."""

RISE_CORES = 0.1
RISE_RATIO = 0.05
"""So many more busy CPUs than before are a rise: at least so many, and such a share of those that were busy."""

_SHORTEST_LOOK_SECONDS = 0.1
"""The kernel counts the time of CPUs in hundredths of a second; over less than this it says little."""

_LONGEST_PASS_SECONDS = 10.0

_LISTING_COST_RATIO = 0.1
"""What listing a process costs beside reading one: about 1 us and 10."""

_FEWEST_READS = 32
"""A pass that read fewer says little of what reading one costs."""

_NEW_WEIGHT = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Once in how many seconds processes are listed, large idle ones, small ones and kernel threads are read."""

    listing_seconds: float = LISTING_SECONDS
    idle_seconds: float = IDLE_SECONDS
    small_seconds: float = SMALL_SECONDS
    kernel_seconds: float = KERNEL_SECONDS


class TurnKeeper:
    """Remembers what reading one process costs, and how many there are of which sort."""

    def __init__(self) -> None:
        self._read_cost_seconds: float | None = None
        self._thread_cost_seconds: float | None = None
        self._n_all = 0
        self._n_kernel = 0

    def note(self, found: ProcessSurvey, cpu_seconds: float) -> None:
        """Take note of one pass and the CPU time that it took."""
        self._n_all, self._n_kernel = found.processes, found.kernel_threads
        if found.read < _FEWEST_READS:
            return
        self._read_cost_seconds = _learned(self._read_cost_seconds, cpu_seconds / found.read)

    def note_threads(self, n_read: int, cpu_seconds: float) -> None:
        """Take note of the CPU time that it took to read so many threads."""
        if n_read >= _FEWEST_READS:
            self._thread_cost_seconds = _learned(self._thread_cost_seconds, cpu_seconds / n_read)

    def most_threads(self, elapsed_seconds: float | None, budget_ratio: float | None) -> int | None:
        """Return how many threads a pass may read, so long after the one before; None: as many as there are."""
        cost = self._thread_cost_seconds
        if not cost or budget_ratio is None or elapsed_seconds is None:
            return None
        budget_seconds = READING_SHARE * budget_ratio * min(elapsed_seconds, _LONGEST_PASS_SECONDS)
        return max(FEWEST_THREADS, round(budget_seconds / cost))

    def turns(self, n_large: int, budget_ratio: float | None, *, at_work: bool = False) -> Turns:
        """Return how often to look, with so many large processes, within a share of one core; None bounds nothing.

        `at_work`: some idle process may be busy now, so that all are read as soon as the budget allows.
        """
        cost, shortest_idle_seconds = self._read_cost_seconds, 0.0 if at_work else IDLE_SECONDS
        if cost is None or budget_ratio is None:
            return Turns(idle_seconds=shortest_idle_seconds)
        reading, listing = READING_SHARE * budget_ratio, LISTING_SHARE * budget_ratio
        n_small = max(0, self._n_all - self._n_kernel - n_large)
        small_seconds = _within(SMALL_SECONDS, n_small * cost / reading)
        return Turns(
            listing_seconds=_within(LISTING_SECONDS, self._n_all * cost * _LISTING_COST_RATIO / listing),
            idle_seconds=_within(shortest_idle_seconds, n_large * cost / reading),
            small_seconds=small_seconds,
            kernel_seconds=max(KERNEL_SECONDS, small_seconds),
        )


class BusyCpus:
    """Tells when more CPUs are busy than there were."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._level: float | None = None
        self._has_risen = False

    def rose(self, now: float, busy: float | None) -> bool:
        """Whether more are busy since the last look than were at the quietest since the last rise, or were a look ago.

        A process that began in the middle of an interval was busy for a part of it: so a rise is told twice. False at
        first, where nobody knows how many are `busy`, and when looked at again at once.
        """
        if busy is None or (self._at is not None and now - self._at < _SHORTEST_LOOK_SECONDS):
            return False
        self._at, level = now, self._level
        had_risen, self._has_risen = self._has_risen, False
        if level is not None and busy - level >= max(RISE_CORES, RISE_RATIO * level):
            self._level, self._has_risen = busy, True
            return True
        self._level = busy if level is None else min(level, busy)
        return had_risen


def _learned(known: float | None, cost: float) -> float:
    return cost if known is None else known + _NEW_WEIGHT * (cost - known)


def _within(shortest_seconds: float, seconds: float) -> float:
    return min(LONGEST_SECONDS, max(shortest_seconds, seconds))
