"""The jobs: HTTP threads hand them in, ask and cancel; the daemon's loop works on them and tells of them.

Owns the lock, the bounds and the turns: one slice at a time, running jobs one after the other. What a slice does is the
business of the works. Nothing here waits; `work()` says when it wants to be called again.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from balancerd.engine.moves import Move
from balancerd.jobs.account import add_waiting, merge_evictions, merge_migrations
from balancerd.jobs.ending import GO_ON, Ending, Pause, cancelled, failed
from balancerd.jobs.evicting import evict
from balancerd.jobs.means import Means
from balancerd.jobs.moving import Work, move, undo
from balancerd.jobs.record import EvictRequest, Job, JobRequest, JobState, MoveRequest
from balancerd.jobs.refusal import Refusal, Refused, check
from balancerd.jobs.run import Run
from balancerd.jobs.whole import move_whole
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome
from balancerd.model.report import TickReport

MOST_QUEUED = 16
MOST_RUNNING = 4
MOST_REMEMBERED = 64
"""Jobs that have ended and can still be asked about."""

SLICE_SECONDS = 1.0
"""How long one slice may last: so long the loop, and with it the watchdog, has to wait. Pages that were busy at its end
are not tried again, so short slices are no better."""


@dataclass(slots=True)
class _Entry:
    """A job that has not ended. `run` and `work` are there once it runs, and the loop's alone."""

    job: Job
    run: Run | None = None
    work: Work | None = None
    pause: Pause = GO_ON
    paused_at: float = 0.0
    knows_cancel: bool = False

    @property
    def next_at(self) -> float:
        at_once = self.job.cancel_requested and not self.knows_cancel
        return self.paused_at + (0.0 if at_once else self.pause.seconds)


class Jobs:
    """All jobs of one daemon. `wake` ends the loop's wait, `on_end` is told of each job that has ended.

    While it `is_halted` jobs wait where they are; they can be cancelled.
    """

    def __init__(
        self,
        means: Means,
        *,
        own_pid: int,
        wake: Callable[[], None],
        should_stop: Callable[[], bool],
        on_end: Callable[[Job], None],
        is_halted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_halted = is_halted
        self._means = means
        self._own_pid = own_pid
        self._wake = wake
        self._should_stop = should_stop
        self._on_end = on_end
        self._lock = threading.Lock()
        self._whole_move = threading.Lock()
        self._last_id = 0
        self._active: dict[int, _Entry] = {}
        self._ended: dict[int, Job] = {}
        self._moves: tuple[Move, ...] = ()
        self._outcomes: list[MigrationOutcome] = []
        self._evictions: list[EvictionOutcome] = []

    # for any thread

    def submit(self, request: JobRequest) -> Job:
        """Queue a job. Raises Refused, with what is wrong with it."""
        means = self._means
        target = check(request, means.machine, self.moves(), self._own_pid)
        now = means.clock.now()
        with self._lock:
            other = next((e.job for e in self._active.values() if e.job.process == target.process), None)
            if other is not None:
                raise Refused(Refusal.CONFLICT, f"process {target.process.pid} has job {other.id} already")
            if sum(e.job.state is JobState.QUEUED for e in self._active.values()) >= MOST_QUEUED:
                raise Refused(Refusal.CONFLICT, f"{MOST_QUEUED} jobs are waiting already")
            self._last_id += 1
            job = Job(
                id=self._last_id,
                request=request,
                process=target.process,
                comm=target.comm,
                state=JobState.QUEUED,
                submitted_at=now,
                target_of=target.target_of,
            )
            self._active[job.id] = _Entry(job)
        self._wake()
        return job

    def cancel(self, job_id: int) -> Job | None:
        """Have a job end after the call at hand; return it, None when there is none such. One that ended stays so."""
        with self._lock:
            entry = self._active.get(job_id)
            if entry is None:
                return self._ended.get(job_id)
            entry.job = replace(entry.job, cancel_requested=True)
            job = entry.job
        self._wake()
        return job

    def find(self, job_id: int) -> Job | None:
        """Return a job that is not forgotten yet, or None."""
        with self._lock:
            entry = self._active.get(job_id)
            return self._ended.get(job_id) if entry is None else entry.job

    def all(self) -> tuple[Job, ...]:
        """Return every job that is not forgotten, in the order in which they were handed in."""
        with self._lock:
            jobs = {**self._ended, **{job_id: entry.job for job_id, entry in self._active.items()}}
        return tuple(jobs[job_id] for job_id in sorted(jobs))

    def claimed(self) -> frozenset[ProcessId]:
        """Return the processes that nobody else should move now."""
        with self._lock:
            return frozenset(entry.job.process for entry in self._active.values())

    def moves(self) -> tuple[Move, ...]:
        """Return the recent moves, policies' and commands', as of the last tick or slice."""
        with self._lock:
            return self._moves

    # for the loop

    def use(self, means: Means) -> None:
        """Go on under another configuration, from the next slice on."""
        self._means = means

    def work(self, until: float) -> float | None:
        """Run one slice of the job whose turn it is, hardly longer than SLICE_SECONDS or to monotonic second `until`.

        Returns when to call again, at the latest; None when there is nothing to do before somebody wakes the loop.
        """
        self._begin_queued()
        now = self._means.clock.now()
        entry = min(self._at_work(), key=_next_at, default=None)
        if entry is not None and entry.next_at <= now:
            self._slice(entry, min(until, now + SLICE_SECONDS))
            self._begin_queued()
        return min((each.next_at for each in self._at_work()), default=None)

    def add_to(self, report: TickReport) -> TickReport:
        """Return the report of a tick with what was done for jobs since the one before."""
        self._publish_moves()
        outcomes, self._outcomes = self._outcomes, []
        evictions, self._evictions = self._evictions, []
        if not outcomes and not evictions:
            return report
        moves: dict[tuple[int, NodeId], list[MigrationOutcome]] = {}
        for outcome in outcomes:
            moves.setdefault((outcome.step.move_id, outcome.step.target), []).append(outcome)
        evicted: dict[ProcessId, list[EvictionOutcome]] = {}
        for eviction in evictions:
            evicted.setdefault(eviction.step.process, []).append(eviction)
        return replace(
            report,
            outcomes=(*report.outcomes, *map(merge_migrations, moves.values())),
            evictions=(*report.evictions, *map(merge_evictions, evicted.values())),
        )

    def stop(self) -> None:
        """End all jobs where they are, for the daemon ends."""
        for entry in tuple(self._active.values()):
            self._end(entry, cancelled())

    def _begin_queued(self) -> None:
        with self._lock:
            free = MOST_RUNNING - sum(e.work is not None for e in self._active.values())
            queued = [e for e in self._active.values() if e.work is None]
        for entry in queued:
            if entry.job.cancel_requested:
                self._end(entry, cancelled())
            elif self._means.kernel.mode != "enforce":
                self._end(entry, failed(Reason.OBSERVE_MODE))
            elif free > 0 and not self._is_halted():
                free -= 1
                self._begin(entry)

    def _at_work(self) -> tuple[_Entry, ...]:
        halted = self._is_halted()
        with self._lock:
            at_work = tuple(entry for entry in self._active.values() if entry.work is not None)
            for entry in at_work if halted else ():
                entry.job = replace(entry.job, waiting_for=Reason.HALTED)
        return tuple(entry for entry in at_work if not halted or entry.job.cancel_requested)

    def _begin(self, entry: _Entry) -> None:
        now = self._means.clock.now()
        entry.paused_at = now
        entry.run = Run(
            means=lambda: self._means,
            should_stop=lambda: entry.job.cancel_requested or self._should_stop(),
            request=entry.job.request,
            process=entry.job.process,
            target_of=dict(entry.job.target_of),
        )
        entry.work = self._work(entry.run)
        with self._lock:
            entry.job = replace(entry.job, state=JobState.RUNNING, started_at=now)

    def _work(self, run: Run) -> Work:
        request = run.request
        if isinstance(request, MoveRequest):
            return move_whole(run, request, self._whole_move) if request.whole else move(run, request)
        return evict(run, request) if isinstance(request, EvictRequest) else undo(run, request)

    def _slice(self, entry: _Entry, deadline: float) -> None:
        """Resume the work until it pauses or ends. Whatever it raises ends the job and nothing else."""
        run, work = entry.run, entry.work
        if run is None or work is None:
            return
        now = self._means.clock.now()
        if entry.pause.reason is not None:
            run.account = add_waiting(run.account, entry.pause.reason.value, now - entry.paused_at)
        run.deadline = deadline
        entry.knows_cancel = entry.job.cancel_requested
        try:
            entry.pause = next(work)
        except StopIteration as end:
            self._end(entry, end.value)
        except PermissionError as error:
            self._end(entry, failed(Reason.NO_ACCESS, str(error)))
        except Exception as error:  # noqa: BLE001 - a job that fails must not take the daemon with it
            self._end(entry, Ending(state=JobState.FAILED, detail=f"{type(error).__name__}: {error}"))
        else:
            entry.paused_at = self._means.clock.now()
            with self._lock:
                entry.job = replace(_told(entry.job, run), waiting_for=entry.pause.reason)
        self._outcomes += run.outcomes
        self._evictions += run.evictions
        run.outcomes.clear()
        run.evictions.clear()
        self._publish_moves()

    def _end(self, entry: _Entry, ending: Ending) -> None:
        if entry.work is not None:
            entry.work.close()
        notes = () if entry.run is None else tuple(entry.run.notes)
        by_request = entry.job.cancel_requested and ending.state is JobState.CANCELLED
        job = replace(
            entry.job if entry.run is None else _told(entry.job, entry.run),
            state=ending.state,
            reason=None if by_request else ending.reason,
            detail="; ".join(part for part in (ending.detail, *notes) if part),
            ended_at=self._means.clock.now(),
            waiting_for=None,
        )
        with self._lock:
            self._active.pop(job.id, None)
            self._ended[job.id] = job
            while len(self._ended) > MOST_REMEMBERED:
                del self._ended[next(iter(self._ended))]
        self._on_end(job)

    def _publish_moves(self) -> None:
        moves = self._means.memory.moves.recent()
        with self._lock:
            self._moves = moves


def _told(job: Job, run: Run) -> Job:
    return replace(
        job,
        move_id=run.move_id,
        total_bytes=run.total_bytes,
        done_bytes=run.done_bytes,
        account=run.account,
        whole=run.whole,
    )


def _next_at(entry: _Entry) -> float:
    return entry.next_at
