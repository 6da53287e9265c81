"""How many events of a PMU pass for each sample, so that samples stay within a share of one core. Pure.

One period holds for all threads: a page that one thread reads a thousand times as often as another is to have a
thousand times as many samples of it. At one rate for all, which the kernel would keep by itself (attr.freq), both
would have as many.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from balancerd.kernel.accesses.rate import WORTH_CHANGING
from balancerd.model.ids import ProcessId

CALMING = 0.9
"""What the shortest period that the kernel did not throttle falls to with each reading in which it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodBounds:
    """The periods that an event may have. `first` is for processes of which nothing is known.

    With a period of `least` the samples of a process that begins to work all of a sudden are still bearable. Each
    period is a multiple of `step`; an odd one where that is 1, so that loops do not keep in step with it.
    """

    first: int
    least: int
    most: int = 1 << 30
    step: int = 1


class PeriodGovernor:
    """One period for all threads of all processes, from how often the event happens in each process."""

    def __init__(self, bounds: PeriodBounds) -> None:
        self.bounds = bounds
        self.period = self._rounded(bounds.first)
        self._calm_period = 0.0
        self._events: dict[ProcessId, float] = {}
        self._busiest: dict[ProcessId, float] = {}
        self._new: set[ProcessId] = set()

    def expect(self, process: ProcessId) -> None:
        """Take note of a process of which nothing is known: until it is, no period is shorter than the first one."""
        self._new.add(process)
        self.period = max(self.period, self._rounded(self.bounds.first))

    def note(
        self,
        process: ProcessId,
        *,
        samples: float,
        busiest: float,
        seconds: float,
        at_period: int,
        is_throttled: bool,
    ) -> None:
        """Take note of how many samples came in some seconds, lost ones included, and how many from the busiest thread.

        Where the kernel throttled them there would have been more.
        """
        if seconds <= 0:
            return
        self._calm_period = max(self._calm_period, 2.0 * at_period) if is_throttled else CALMING * self._calm_period
        self._new.discard(process)
        self._events[process] = samples * at_period / seconds
        self._busiest[process] = busiest * at_period / seconds

    def forget_all_but(self, watched: AbstractSet[ProcessId]) -> None:
        """Count no longer who is not watched any more."""
        self._new &= watched
        for process in self._events.keys() - watched:
            del self._events[process], self._busiest[process]

    def choose(self, rate_hz: float, thread_hz: float) -> int:
        """Return the period from now on, for at most `rate_hz` samples of all and `thread_hz` of any one thread."""
        of_new = self.bounds.first if self._new else 0
        floor = max(max(self._busiest.values(), default=0.0) / thread_hz, self._calm_period, of_new)
        right = max(sum(self._events.values()) / rate_hz, floor)
        wanted = self._rounded(right)
        is_near = self.period / WORTH_CHANGING <= wanted <= self.period * WORTH_CHANGING
        if not is_near or self.period < min(floor, self.bounds.most):
            self.period = wanted
        return self.period

    def _rounded(self, period: float) -> int:
        bounds = self.bounds
        within = int(min(max(period, bounds.least), bounds.most))
        return within | 1 if bounds.step == 1 else -(-within // bounds.step) * bounds.step
