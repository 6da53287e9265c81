"""What the kernel itself tells of the memory of whole workloads: when each is asked again, and what it told last.

Reading memory.numa_stat makes the kernel add up the counters of all CPUs for that cgroup, so it is done now and then.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from balancerd.model.ids import NodeId
from balancerd.model.sample import ProcessSample
from balancerd.ports import Clock

ASK_SECONDS: Final = 20.0
MOST_AT_ONCE: Final = 16

ReadBytes = Callable[[Iterable[str]], Mapping[str, Mapping[NodeId, int]]]


class WorkloadAccounts:
    """Remembers the bytes by node of the cgroups of workloads that run; `read` reads those of some cgroups."""

    def __init__(self, clock: Clock, read: ReadBytes) -> None:
        self._clock = clock
        self._read = read
        self._asked_at: dict[str, float] = {}
        self._told: dict[str, Mapping[NodeId, int]] = {}

    def of(self, processes: Iterable[ProcessSample]) -> Mapping[str, Mapping[NodeId, int]]:
        """Return what is known of the cgroups of these processes' workloads, asking for some of them again.

        Only the cgroups of processes that run now are asked for, the longest unasked first. The mapping is a new one
        whenever anything in it changes.
        """
        now = self._clock.now()
        present: set[str] = set()
        running: set[str] = set()
        for process in processes:
            cgroup = None if process.workload is None else process.workload.cgroup
            if cgroup is not None and cgroup != "/":
                present.add(cgroup)
                if process.run_seconds is not None:
                    running.add(cgroup)
        gone = self._asked_at.keys() - present
        for cgroup in gone:
            del self._asked_at[cgroup]
        due = [cgroup for cgroup in running if now - self._asked_at.get(cgroup, float("-inf")) >= ASK_SECONDS]
        due.sort(key=lambda cgroup: (self._asked_at.get(cgroup, float("-inf")), cgroup))
        del due[MOST_AT_ONCE:]
        if due or gone:
            read = self._read(due) if due else {}
            kept = {cgroup: told for cgroup, told in self._told.items() if cgroup in present and cgroup not in due}
            self._told = kept | dict(read)
            self._asked_at.update(dict.fromkeys(due, now))
        return self._told
