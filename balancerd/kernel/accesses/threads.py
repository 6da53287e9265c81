"""Which threads of a process are sampled: all of them, or of many those that run at all, or of very many those most."""

from collections.abc import Set as AbstractSet

from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.files import list_names, read_bytes
from balancerd.kernel.processes.status import parse_stat

MOST_THREADS = 128
"""Of one process. Each takes a descriptor and a ring."""

FEW_THREADS = 8
"""So many are sampled whether they run or not. All of more would share the room for rings with those that sleep, as
most of a Java program's do, and could be sampled the less often."""

LEAST_RATIO = 0.01
"""Of what the busiest thread ran: who ran less is not missed."""

CHOICE_SECONDS = 30.0
MANY_CHOICE_SECONDS = 10.0
"""How long a choice among very many, or just many, threads stands; to make it costs some 15 us for each of them."""


class ThreadChoice:
    """Chooses among the threads of one process. Remembers how long each had run when it chose last."""

    def __init__(self, pid: int, procfs: str = "/proc", most: int = MOST_THREADS, few: int = FEW_THREADS) -> None:
        self._directory = f"{procfs}/{pid}/task"
        self._most = most
        self._few = few
        self._ticks: dict[int, int] = {}
        self._chosen: frozenset[int] = frozenset()
        self._chosen_at = float("-inf")

    def choose(self, now: float) -> frozenset[int]:
        """Return the threads to sample from now on. Raises ProcessGoneError, and OSError otherwise."""
        try:
            tids = frozenset(map(int, list_names(self._directory)))
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"{self._directory} is gone") from error
        if len(tids) <= self._few:
            return tids
        if now - self._chosen_at >= (MANY_CHOICE_SECONDS if len(tids) <= self._most else CHOICE_SECONDS):
            self._chosen, self._chosen_at = self._busiest(tids), now
        return self._chosen & tids

    def _busiest(self, tids: AbstractSet[int]) -> frozenset[int]:
        """Return those that ran most since the last choice, none that hardly ran, and none that has ended meanwhile."""
        before, self._ticks = self._ticks, {}
        for tid in tids:
            path = f"{self._directory}/{tid}/stat"
            try:
                self._ticks[tid] = parse_stat(read_bytes(path), path).cpu_ticks
            except (FileNotFoundError, ProcessLookupError):
                continue
        ran = {tid: ticks - before.get(tid, 0) for tid, ticks in self._ticks.items()}
        least = max(1.0, LEAST_RATIO * max(ran.values(), default=0))
        running = [tid for tid, ticks in ran.items() if ticks >= least]
        return frozenset(sorted(running, key=lambda tid: (-ran[tid], tid))[: self._most])
