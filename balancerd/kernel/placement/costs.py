"""Whether reading numa_maps is cheaper than a sample. Knows prices, and what each process's last reading cost.

The kernel walks all page tables of the process for numa_maps: time in proportion to its pages, unless they are huge.
"""

from collections.abc import Set as AbstractSet

from balancerd.model.ids import ProcessId

_LONGEST_SECONDS = 2e-3
"""The walk holds the mmap lock of the process: never for longer than this."""

_SECONDS_PER_PAGE = 50e-9
"""Of base pages, 30 to 50 ns; of those in transparent huge pages 0.3 to 0.6 ns, once a reading has shown it."""

_SECONDS_PER_VMA = 1e-6
_SECONDS_PER_QUESTION = 250e-9


class NumaMapsCosts:
    """Predicts the seconds of the next reading of each process."""

    def __init__(self) -> None:
        self._seconds_per_page: dict[ProcessId, float] = {}

    def is_cheaper(self, process: ProcessId, *, resident_pages: int, n_vmas: int, questions: int) -> bool:
        """Return whether reading numa_maps will take less time than so many questions, and is short at all."""
        per_page = self._seconds_per_page.get(process, _SECONDS_PER_PAGE)
        seconds = resident_pages * per_page + n_vmas * _SECONDS_PER_VMA
        return seconds < min(_LONGEST_SECONDS, questions * _SECONDS_PER_QUESTION)

    def learn(self, process: ProcessId, *, present_pages: int, n_vmas: int, seconds: float) -> None:
        """Remember what a reading cost that found so many pages."""
        if present_pages:
            own = max(0.0, seconds - n_vmas * _SECONDS_PER_VMA)
            self._seconds_per_page[process] = own / present_pages

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is remembered of processes that are not in `alive`."""
        for process in tuple(self._seconds_per_page):
            if process not in alive:
                self._seconds_per_page.pop(process, None)
