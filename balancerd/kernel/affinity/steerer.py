"""Narrows the affinities of a process's threads to a node, and gives them back. Owns which ones are narrowed.

Each is in the journal before it is narrowed, so that whoever comes after this daemon can give it back. Nothing is ever
given back over somebody else's change. It must not know why threads move, nor where memory lies.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Protocol

from balancerd.kernel.affinity.cpusets import read_cpuset_cpus, read_possible_cpus
from balancerd.kernel.affinity.journal import Entry, InUseError, Journal, JournalError
from balancerd.kernel.clock import boottime_seconds
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.files import list_names, read_bytes
from balancerd.kernel.processes.identity import check_identity
from balancerd.kernel.processes.status import Stat, parse_stat
from balancerd.model.decision import Reason
from balancerd.model.ids import CpuId, ProcessId
from balancerd.model.steering import SteerKind, SteerOutcome, SteerStep, ThreadFate, nothing_steered
from balancerd.ports import Clock

SEEN_SECONDS: Final = 0.02
"""For so long a kick waits until threads were seen on the node. Those that run are there when the call returns
(set_cpus_allowed_ptr() in kernel/sched/core.c); those that sleep may not come for long."""

LOOK_SECONDS: Final = 0.002

ROUNDS: Final = 4
"""Threads may be made while others are looked at; those made last are found in another round."""

_FATE_OF_ERROR: Final = {
    errno.ESRCH: ThreadFate.VANISHED,
    errno.EPERM: ThreadFate.NOT_PERMITTED,
    errno.EINVAL: ThreadFate.INVALID,
}
"""See sched_setaffinity(2)."""

_REASON_OF_FATE: Final = {
    ThreadFate.OWN_AFFINITY: Reason.OWN_AFFINITY,
    ThreadFate.OUTSIDE: Reason.OUTSIDE_AFFINITY,
    ThreadFate.VANISHED: Reason.EXITED,
    ThreadFate.NOT_PERMITTED: Reason.AFFINITY_REFUSED,
    ThreadFate.INVALID: Reason.AFFINITY_REFUSED,
    ThreadFate.FAILED: Reason.AFFINITY_REFUSED,
}
"""Why nothing was done, when every thread that was not there ended so; the first of these that one has."""


class AffinityCalls(Protocol):
    """The two system calls; the module os has them."""

    def sched_getaffinity(self, pid: int, /) -> set[int]:
        """Return the CPUs that a thread may run on."""
        ...

    def sched_setaffinity(self, pid: int, mask: Iterable[int], /) -> None:
        """Set them."""
        ...


class Steerer:
    """Steers threads. Without a `journal` it refuses to. `tell` is given what an operator must know, a sentence."""

    def __init__(
        self,
        clock: Clock,
        journal: Journal | None,
        tell: Callable[[str], None],
        *,
        procfs: str = "/proc",
        sysfs: str = "/sys",
        calls: AffinityCalls = os,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._tell = tell
        self._procfs = procfs
        self._sysfs = sysfs
        self._calls = calls
        self._held: dict[ProcessId, dict[int, Entry]] = {}
        self._is_written = False
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")

    def steer(self, step: SteerStep) -> SteerOutcome:
        """Carry out one step. Whatever goes wrong with a thread is its fate, and never stops the others."""
        began = self._clock.now()
        fates: Counter[ThreadFate] = Counter()
        stopped_by, detail = None, ""
        try:
            if step.kind is SteerKind.RELEASE:
                self._release(step.process, fates)
                self._write_after()
            elif self._journal is None:
                return nothing_steered(step, Reason.NO_JOURNAL, "no state directory")
            else:
                check_identity(step.process, self._procfs)
                self._narrow(step, fates)
                stopped_by = _reason(fates)
        except (ProcessGoneError, FileNotFoundError, ProcessLookupError) as error:
            self._held.pop(step.process, None)
            self._write_after()
            stopped_by, detail = Reason.EXITED, str(error)
        except JournalError as error:
            stopped_by, detail = Reason.NO_JOURNAL, str(error)
        except (ParseError, OSError) as error:
            stopped_by, detail = Reason.UNREADABLE, str(error)
        return SteerOutcome(
            step=step,
            threads={fate: number for fate, number in fates.items() if number},
            held_threads=len(self._held.get(step.process, {})),
            seconds=self._clock.now() - began,
            stopped_by=stopped_by,
            detail=detail,
        )

    def recover(self) -> None:
        """Give back what a daemon before has left narrowed; the journal of a daemon that runs is left to it."""
        journal = self._journal
        if journal is None:
            return
        try:
            entries = journal.read()
        except InUseError as error:
            self._journal = None
            self._tell(f"{journal.path}: {error}; no threads are moved: give each daemon a state_directory of its own")
            return
        except JournalError as error:
            self._put_aside(journal, str(error))
            return
        except OSError as error:
            self._journal = None
            self._tell(f"{journal.path}: cannot read it: {error.strerror}; no threads are moved until that is mended")
            return
        for entry in entries:
            self._held.setdefault(entry.process, {})[entry.tid] = entry
        self._is_written = journal.path.exists()
        if entries:
            fates = self.restore_all()
            told = ", ".join(f"{number} {fate.value}" for fate, number in sorted(fates.items()))
            self._tell(f"{journal.path}: a daemon before has left {len(entries)} threads with an affinity: {told}")

    def restore_all(self) -> Counter[ThreadFate]:
        """Give everything back; return what became of the threads."""
        fates: Counter[ThreadFate] = Counter()
        for process in tuple(self._held):
            try:
                self._release(process, fates)
            except (ProcessGoneError, ParseError, OSError):
                fates[ThreadFate.VANISHED] += len(self._held.pop(process, {}))
        self._write_after()
        return fates

    def _put_aside(self, journal: Journal, problem: str) -> None:
        fix = "threads that a daemon before had pinned stay so: `taskset -acp 0-N PID` with all CPUs frees a process's"
        try:
            aside = journal.put_aside()
        except OSError as error:
            self._journal = None
            self._tell(f"{journal.path}: {problem}; it cannot be put aside ({error.strerror}): remove it; {fix}")
        else:
            self._tell(f"{journal.path}: {problem}; it is kept as {aside}; {fix}")

    def _narrow(self, step: SteerStep, fates: Counter[ThreadFate]) -> None:
        process = step.process
        met: set[int] = set()
        narrowed: list[Entry] = []
        cpuset = read_cpuset_cpus(process.pid, self._procfs, self._sysfs)
        for _ in range(ROUNDS):
            wanted = self._choose(step, cpuset, met, narrowed, fates)
            if not wanted:
                break
            self._write((*self._entries(), *wanted))
            for entry in wanted:
                fate = self._set(entry.tid, entry.ours)
                if fate is not None:
                    fates[fate] += 1
                    continue
                narrowed.append(entry)
                self._held.setdefault(process, {})[entry.tid] = entry
                if step.kind is SteerKind.PIN:
                    fates[ThreadFate.PINNED] += 1
            if step.kind is SteerKind.KICK:
                self._await(process, [entry.tid for entry in narrowed], cpuset, fates)
        if step.kind is SteerKind.KICK:
            fates[ThreadFate.UNSEEN] = len(self._held.get(process, {}))
            self._free_inherited(process, narrowed, met, fates)
        self._write_after()

    def _choose(
        self,
        step: SteerStep,
        cpuset: frozenset[CpuId],
        met: set[int],
        narrowed: Sequence[Entry],
        fates: Counter[ThreadFate],
    ) -> list[Entry]:
        """Return what is to be narrowed of threads that were not met yet; the others have their fate.

        Those made since by threads that are `narrowed` have inherited that: they have no affinity of their own.
        """
        held = self._held.get(step.process, {})
        found: list[Entry] = []
        at_ticks = int(boottime_seconds() * self._ticks_per_second)
        for tid in self._tids(step.process):
            if tid in met:
                continue
            stat = self._stat(step.process, tid)
            try:
                before = frozenset(map(CpuId, self._calls.sched_getaffinity(tid)))
            except OSError as error:
                met.add(tid)
                fates[_FATE_OF_ERROR.get(error.errno or 0, ThreadFate.FAILED)] += 1
                continue
            if stat is not None and _find_parent(narrowed, before, stat.start_ticks) is not None:
                continue
            met.add(tid)
            ours, known = before & step.cpus, held.get(tid)
            if stat is None:
                fates[ThreadFate.VANISHED] += 1
            elif known is not None and known.start_ticks == stat.start_ticks:
                fates[ThreadFate.PINNED if step.kind is SteerKind.PIN else ThreadFate.UNSEEN] += 1
            elif not cpuset <= before and not step.own_affinity:
                fates[ThreadFate.OWN_AFFINITY] += 1
            elif not ours:
                fates[ThreadFate.OUTSIDE] += 1
            elif ours == before or (step.kind is SteerKind.KICK and stat.last_cpu in ours):
                fates[ThreadFate.THERE] += 1
            else:
                found.append(
                    Entry(
                        process=step.process,
                        tid=tid,
                        start_ticks=stat.start_ticks,
                        before=before,
                        ours=ours,
                        whole=cpuset <= before,
                        at_ticks=at_ticks,
                    )
                )
        return found

    def _await(
        self, process: ProcessId, tids: Iterable[int], cpuset: frozenset[CpuId], fates: Counter[ThreadFate]
    ) -> None:
        """Give affinities back as soon as each thread was seen; who is not seen in time keeps it until a later step."""
        held = self._held.get(process, {})
        end = self._clock.now() + SEEN_SECONDS
        while left := [tid for tid in tids if tid in held]:
            for tid in left:
                stat = self._stat(process, tid)
                if stat is None or stat.last_cpu in held[tid].ours:
                    fate = self._restore(held.pop(tid), cpuset)
                    fates[ThreadFate.MOVED if fate is ThreadFate.RESTORED else fate] += 1
            now = self._clock.now()
            if not held or now >= end:
                break
            self._clock.wait_until(min(end, now + LOOK_SECONDS))
        if not held:
            self._held.pop(process, None)

    def _release(self, process: ProcessId, fates: Counter[ThreadFate]) -> None:
        """Give everything of a process back, that of threads made since, too. Raises ProcessGoneError, OSError."""
        held = self._held.get(process)
        if held is None:
            return
        check_identity(process, self._procfs)
        cpuset = self._cpuset_if_known(process)
        given = tuple(held.values())
        its: Counter[ThreadFate] = Counter(self._restore(entry, cpuset) for entry in given)
        del self._held[process]
        self._free_inherited(process, given, held, its)
        if its[ThreadFate.CHANGED]:
            told = f"{its[ThreadFate.CHANGED]} threads of process {process.pid} have another affinity by now"
            self._tell(f"{told}, which somebody else has chosen: it is left alone")
        fates.update(its)

    def _free_inherited(
        self, process: ProcessId, given: Sequence[Entry], known: Iterable[int], fates: Counter[ThreadFate]
    ) -> None:
        """Give threads back what they would have: those made while the affinity was narrowed have inherited it."""
        met = {*known, *(entry.tid for entry in given)}
        for _ in range(ROUNDS if given else 0):
            heirs = list(self._heirs(process, given, met))
            if not heirs:
                return
            for entry in heirs:
                met.add(entry.tid)
                fates[self._restore(entry, None)] += 1

    def _heirs(self, process: ProcessId, given: Sequence[Entry], known: set[int]) -> Iterator[Entry]:
        for tid in self._tids(process):
            stat = None if tid in known else self._stat(process, tid)
            if stat is None:
                continue
            try:
                cpus = frozenset(map(CpuId, self._calls.sched_getaffinity(tid)))
            except OSError:
                continue
            parent = _find_parent(given, cpus, stat.start_ticks)
            if parent is not None:
                yield replace(parent, tid=tid, start_ticks=stat.start_ticks)

    def _restore(self, entry: Entry, cpuset: frozenset[CpuId] | None) -> ThreadFate:
        """Give one thread its affinity back, if it still has the one that it was given here.

        Where nobody had chosen one, all CPUs are asked for, of which the kernel takes what the cpuset allows: it
        remembers what was asked for since 6.2, and a wider cpuset could not have its effect.
        """
        stat = self._stat(entry.process, entry.tid)
        if stat is None or stat.start_ticks != entry.start_ticks:
            return ThreadFate.VANISHED
        try:
            now = frozenset(map(CpuId, self._calls.sched_getaffinity(entry.tid)))
            if now != entry.ours and (cpuset is None or now != entry.ours & cpuset):
                return ThreadFate.CHANGED
            self._calls.sched_setaffinity(entry.tid, self._possible(entry) if entry.whole else entry.before)
        except OSError as error:
            return _FATE_OF_ERROR.get(error.errno or 0, ThreadFate.FAILED)
        return ThreadFate.RESTORED

    def _possible(self, entry: Entry) -> frozenset[CpuId]:
        try:
            return read_possible_cpus(self._sysfs)
        except (OSError, ParseError):
            return entry.before

    def _set(self, tid: int, cpus: frozenset[CpuId]) -> ThreadFate | None:
        try:
            self._calls.sched_setaffinity(tid, cpus)
        except OSError as error:
            return _FATE_OF_ERROR.get(error.errno or 0, ThreadFate.FAILED)
        return None

    def _cpuset_if_known(self, process: ProcessId) -> frozenset[CpuId] | None:
        try:
            return read_cpuset_cpus(process.pid, self._procfs, self._sysfs)
        except (OSError, ParseError):
            return None

    def _tids(self, process: ProcessId) -> list[int]:
        return sorted(map(int, list_names(f"{self._procfs}/{process.pid}/task")))

    def _stat(self, process: ProcessId, tid: int) -> Stat | None:
        """Return what a thread is at the moment, None when it is gone. Raises ParseError."""
        path = f"{self._procfs}/{process.pid}/task/{tid}/stat"
        try:
            return parse_stat(read_bytes(path), path)
        except (FileNotFoundError, ProcessLookupError):
            return None

    def _entries(self) -> Iterator[Entry]:
        return (entry for held in self._held.values() for entry in held.values())

    def _write(self, entries: Iterable[Entry]) -> None:
        """Write down what will be narrowed. Raises JournalError."""
        if self._journal is None:
            raise JournalError("no state directory")
        try:
            self._is_written = True
            self._journal.write(entries)
        except OSError as error:
            raise JournalError(f"{self._journal.path}: {error.strerror}") from error

    def _write_after(self) -> None:
        """Write down what is left; when that fails, the file tells too much, which is found out at the next start."""
        if self._journal is None or not self._is_written:
            return
        entries = tuple(self._entries())
        try:
            self._journal.write(entries)
            self._is_written = bool(entries)
        except OSError as error:
            self._tell(f"{self._journal.path}: {error.strerror}")


def _find_parent(given: Sequence[Entry], cpus: frozenset[CpuId], start_ticks: int) -> Entry | None:
    """Return an entry of which a thread has the affinity, if it was made after that was given."""
    return next((entry for entry in given if entry.ours == cpus and start_ticks >= entry.at_ticks), None)


def _reason(fates: Counter[ThreadFate]) -> Reason | None:
    """Return why no thread was steered, None when one was, or all were there."""
    steered = fates[ThreadFate.MOVED] + fates[ThreadFate.UNSEEN] + fates[ThreadFate.PINNED]
    return None if steered else next((reason for fate, reason in _REASON_OF_FATE.items() if fates[fate]), None)
