"""Whether a policy's moves of a process may be trusted: a part first, the rest once that has stayed; what came of it.

The first move of a process by a policy begins with a part of what is misplaced. When the next look at the process finds
that part where it was moved, more follows, then all of it. When it is not there it goes back, and the policy leaves the
process alone for a while. A process of a program that was moved well before is moved at once. It must not know budgets,
nor how pages move. Times are those of snapshots and outcomes.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from balancerd.engine.holds import doubled
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.model.decision import Decision, Reason, Skip, Wanted
from balancerd.model.extent import Extent, joined
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.judged import JudgedMove, MoveResult
from balancerd.model.migration import MigrationOutcome, MovedRun
from balancerd.model.sample import PAGE_BYTES, PlacementSample, ProcessSample, Snapshot

BY = "plan"

STAGES = (0.05, 0.25)
"""Shares of what is misplaced that have moved, and must have stayed, before more does."""

TRIAL_SECONDS = 0.5
"""Behind a part the next look comes so soon: who undoes moves at once has undone it by then, and others do so later."""

LEAST_BYTES = 64 << 20
"""A part is no smaller: less is within what a sample can tell."""

FALLEN_RATIO = 0.8
"""So much of what was moved must be found at the target."""

REACHED_RATIO = 0.9
"""A part counts as moved when so much of it is; the rest may be pages that cannot."""

OPERATORS_WORD = frozenset({Reason.RULE, Reason.CPUSET, Reason.DRAIN, Reason.COMMAND, Reason.ROLLBACK})
"""Why memory moves whatever that wins: nothing is tried first."""

LATEST_SECONDS = 60.0
"""What is seen later may have many causes: such a move is not judged."""

MOST_PROGRAMS = 1024
MOST_RUNS = 1024
MOST_RETURNS = 3
"""In so many ticks it is tried to move back what did not help."""

_GOING_ON = frozenset({None, Reason.STOPPING, Reason.PRESSURE, Reason.CHANGED})

Key = tuple[ProcessId, str]
Program = tuple[str, str | None, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """What may be planned: decisions, some of them only in part, and returns; who must wait; and what was judged."""

    wanted: tuple[Wanted, ...]
    skips: tuple[Skip, ...]
    judged: tuple[JudgedMove, ...]
    kept: tuple[Skip, ...] = ()
    """Decisions of these policies that hold their process, and wait."""

    def without_waiting(self, wanted: Iterable[Wanted]) -> list[Wanted]:
        """Return the wanted but for those of processes that must all wait: what they began does not go on."""
        waiting = {skip.process for skip in self.skips} - {each.process for each in self.wanted}
        return [each for each in wanted if each.process not in waiting]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """How much of a process lies away from a target, of how much, and how far that may be off."""

    away_bytes: int
    total_bytes: int
    error_bytes: float


@dataclass(slots=True)
class _Move:
    """One move under way; `stage` counts the parts that have stayed, up to len(STAGES): then nothing holds it up."""

    target: NodeId
    sources: frozenset[NodeId] | None
    planned_bytes: int
    before: _Look
    stage: int
    moved_bytes: int = 0
    moved_at: float = 0.0
    stays: bool = True
    """Whether the mover found what it moved at the target, right after."""
    is_over: bool = False
    runs: tuple[MovedRun, ...] = ()

    @property
    def is_trial(self) -> bool:
        return self.stage < len(STAGES)

    @property
    def stage_bytes(self) -> int:
        """How much may have moved at this stage, in all."""
        return max(LEAST_BYTES, round(STAGES[self.stage] * self.planned_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Distrust:
    until: float
    strikes: int
    detail: str


@dataclass(slots=True)
class _Return:
    runs: tuple[MovedRun, ...]
    detail: str
    tries: int = 0


class Trust:
    """By process and policy: moves under way, trust and distrust; and the programs that were moved well."""

    def __init__(self, cooldown_seconds: float, *, canary: bool) -> None:
        self._cooldown_seconds = cooldown_seconds
        self._canary = canary
        self._moves: dict[Key, _Move] = {}
        self._trusted: set[Key] = set()
        self._programs: dict[Program, None] = {}
        self._distrust: dict[Key, _Distrust] = {}
        self._returns: dict[Key, _Return] = {}

    def obey(self, cooldown_seconds: float, *, canary: bool) -> None:
        """Go on under another configuration."""
        self._cooldown_seconds, self._canary = cooldown_seconds, canary

    @property
    def tried_at(self) -> float | None:
        """When a part has moved last of which it is to be seen whether it stays; None: nothing is being tried."""
        tried = (move.moved_at for move in self._moves.values() if move.is_trial and move.moved_bytes)
        return max(tried, default=None)

    def review(self, now: Snapshot, wanted: Iterable[Wanted]) -> Reviewed:
        """Judge what has moved by what is known now, and say what of the wanted may move in this tick."""
        asked = tuple(wanted)
        processes = {process.id: process for process in now.survey.processes}
        wanted_now = {(each.process, each.policy): each for each in asked if isinstance(each, Decision)}
        judged = [
            found
            for key in tuple(self._moves)
            if (found := self._judge(key, now, processes.get(key[0]), is_wanted=key in wanted_now)) is not None
        ]
        able: list[Wanted] = [*self._decide_returns(now)]
        going_back = {each.process for each in able}
        skips: list[Skip] = []
        for each in asked:
            skip = self._objection(each, now.taken_at, going_back)
            if skip is not None:
                skips.append(skip)
            else:
                able.append(self._part_of(each, now, processes) if isinstance(each, Decision) else each)
        return Reviewed(wanted=tuple(able), skips=tuple(skips), judged=tuple(judged))

    def note(self, outcome: MigrationOutcome, now: float) -> None:
        """Take note of one step."""
        step = outcome.step
        key = (step.process, step.policy)
        if outcome.moved_pages:
            self.forget_moves(step.process, but=step.policy)
        if step.reason is Reason.ROLLBACK:
            if outcome.resume_at is None and outcome.stopped_by is None and len(self._targets_left(key)) <= 1:
                self._returns.pop(key, None)
            return
        move = self._moves.get(key)
        if move is None or step.is_part or move.target != step.target:
            return
        move.is_over = outcome.resume_at is None or outcome.stopped_by not in _GOING_ON
        moved_bytes = outcome.moved_pages * PAGE_BYTES
        if moved_bytes:
            move.moved_bytes += moved_bytes
            move.moved_at = now
            found = outcome.verified
            asked = 0 if found is None else found.on_target_pages + found.elsewhere_pages
            move.stays = found is None or found.on_target_pages >= FALLEN_RATIO * asked
            if move.is_trial:
                move.runs = (*move.runs, *outcome.moved_runs)[:MOST_RUNS]

    def forget_moves(self, process: ProcessId, *, but: str | None = None) -> None:
        """Judge the moves of a process no more, but those of one policy: somebody else of us has moved it."""
        for known in (self._moves, self._returns):
            for key in [key for key in known if key[0] == process and key[1] != but]:
                del known[key]

    def revoke(self, process: ProcessId) -> None:
        """Trust nobody with a process any more: what was moved came back later."""
        self._trusted = {key for key in self._trusted if key[0] != process}

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone; programs stay."""
        for known in (self._moves, self._distrust, self._returns):
            for key in [key for key in known if key[0] not in alive]:
                del known[key]
        if any(process not in alive for process, _ in self._trusted):
            self._trusted = {key for key in self._trusted if key[0] in alive}

    def _judge(self, key: Key, now: Snapshot, process: ProcessSample | None, *, is_wanted: bool) -> JudgedMove | None:
        """Judge what has moved since it was judged last; None while nothing is to be said."""
        move, placement = self._moves[key], now.placements.get(key[0])
        if not move.moved_bytes:
            if not is_wanted or move.is_over:
                del self._moves[key]
            return None
        is_fresh = placement is not None and placement.taken_at > move.moved_at
        if is_wanted and not move.is_over and not move.is_trial:
            return None
        if now.taken_at - move.moved_at > LATEST_SECONDS:
            del self._moves[key]
            return None
        if placement is None or (not is_fresh and not (is_wanted and move.is_trial and not move.is_over)):
            return None  # it is looked at soon: whose memory moves comes first
        look = _look(placement, move.target, move.sources)
        growth_bytes = max(0, look.total_bytes - move.before.total_bytes)
        fallen_bytes = move.before.away_bytes + growth_bytes - look.away_bytes
        missing_bytes = FALLEN_RATIO * move.moved_bytes - fallen_bytes
        has_stayed = missing_bytes <= look.error_bytes + move.before.error_bytes if is_fresh else move.stays
        if has_stayed and is_wanted and not move.is_over:
            while move.is_trial and move.moved_bytes >= REACHED_RATIO * move.stage_bytes:
                move.stage += 1
            return None
        return self._end(key, move, fallen_bytes, process, now.taken_at, has_stayed=has_stayed)

    def _end(
        self,
        key: Key,
        move: _Move,
        fallen_bytes: int,
        process: ProcessSample | None,
        now: float,
        *,
        has_stayed: bool,
    ) -> JudgedMove:
        del self._moves[key]
        ran = {} if process is None else process.run_seconds or {}
        runs_there = max(ran, key=lambda node: ran[node]) == move.target if ran else True
        told = f"{fallen_bytes >> 20} of {move.moved_bytes >> 20} MiB moved to node {move.target} are there"
        if not has_stayed:
            result = MoveResult.WORSE
            strikes = (self._distrust[key].strikes if key in self._distrust else 0) + 1
            until = now + doubled(2 * self._cooldown_seconds, strikes)
            self._distrust[key] = _Distrust(until=until, strikes=strikes, detail=told)
            self._trusted.discard(key)
            if process is not None:
                self._programs.pop(_program(process, key[1]), None)
            if move.is_trial and move.runs:
                self._returns[key] = _Return(move.runs, told)
        elif not runs_there:
            result, told = MoveResult.NEUTRAL, f"{told}; it runs elsewhere now"
        else:
            result = MoveResult.IMPROVED
            self._distrust.pop(key, None)
            self._trusted.add(key)
            if process is not None:
                self._programs.pop(_program(process, key[1]), None)
                self._programs[_program(process, key[1])] = None
                for oldest in list(self._programs)[: max(0, len(self._programs) - MOST_PROGRAMS)]:
                    del self._programs[oldest]
        return JudgedMove(
            process=key[0],
            policy=key[1],
            target=move.target,
            result=result,
            moved_bytes=move.moved_bytes,
            fallen_bytes=fallen_bytes,
            is_trial=move.is_trial,
            at=now,
            detail=told,
        )

    def _objection(self, wanted: Wanted, now: float, going_back: AbstractSet[ProcessId]) -> Skip | None:
        if not isinstance(wanted, Decision) or wanted.reason in OPERATORS_WORD:
            return None
        held = self._distrust.get((wanted.process, wanted.policy))
        if wanted.process in going_back:
            told = "what was moved goes back first"
            return Skip(by=BY, process=wanted.process, reason=Reason.NOT_TRUSTED, detail=told)
        if held is None or now >= held.until:
            return None
        rest = f"{held.until - now:.0f} s"
        return Skip(
            by=BY,
            process=wanted.process,
            reason=Reason.NOT_TRUSTED,
            detail=f"policy {wanted.policy}: {held.detail}; again in {rest}",
            needs=f"{rest} more of rest",
        )

    def _part_of(self, wanted: Decision, now: Snapshot, processes: Mapping[ProcessId, ProcessSample]) -> Decision:
        """Return the decision, bound to as much as may move at the stage of its move."""
        if wanted.reason in OPERATORS_WORD or wanted.extents is not None:
            return wanted
        key = (wanted.process, wanted.policy)
        move = self._moves.get(key)
        if move is None or move.target != wanted.target or not move.moved_bytes:
            process = processes.get(wanted.process)
            stage = 0 if self._must_try(wanted, process) else len(STAGES)
            before = _look(now.placements[wanted.process], wanted.target, wanted.sources)
            move = self._moves[key] = _Move(wanted.target, wanted.sources, wanted.misplaced_bytes, before, stage)
        elif move.is_trial and not self._must_try(wanted, processes.get(wanted.process)):
            move.stage = len(STAGES)  # another process of its program has come to its end meanwhile
        if not move.is_trial:
            return wanted
        stage_bytes = max(PAGE_BYTES, move.stage_bytes - move.moved_bytes)
        most_bytes = stage_bytes if wanted.most_bytes is None else min(stage_bytes, wanted.most_bytes)
        return replace(wanted, most_bytes=most_bytes)

    def _must_try(self, wanted: Decision, process: ProcessSample | None) -> bool:
        if not self._canary or wanted.misplaced_bytes <= LEAST_BYTES:
            return False
        if (wanted.process, wanted.policy) in self._trusted:
            return False
        return process is None or _program(process, wanted.policy) not in self._programs

    def _decide_returns(self, now: Snapshot) -> Iterable[Decision]:
        """Yield what moves back to where it came from, a decision for each node."""
        for key, back in tuple(self._returns.items()):
            back.tries += 1
            if back.tries > MOST_RETURNS or key[0] not in now.placements:
                del self._returns[key]
                continue
            for source, target in self._targets_left(key):
                runs = [run for run in back.runs if (run.source, run.target) == (source, target)]
                size_bytes = sum(run.end - run.start for run in runs)
                yield Decision(
                    policy=key[1],
                    process=key[0],
                    target=source,
                    misplaced_bytes=size_bytes,
                    gain_cores=0.0,
                    cost_seconds=0.0,
                    reason=Reason.ROLLBACK,
                    detail=back.detail,
                    extents=joined(Extent(run.start, run.end) for run in runs),
                    source_bytes={target: size_bytes},
                    sources=frozenset({target}),
                )

    def _targets_left(self, key: Key) -> list[tuple[NodeId, NodeId]]:
        back = self._returns.get(key)
        return [] if back is None else sorted({(run.source, run.target) for run in back.runs})


def _program(process: ProcessSample, policy: str) -> Program:
    return process.comm, process.cgroup, policy


def _look(placement: PlacementSample, target: NodeId, sources: frozenset[NodeId] | None) -> _Look:
    held = movable_bytes_by_node(placement)
    away = sum(size for node, size in held.items() if node != target and (sources is None or node in sources))
    total = sum(held.values())
    interval = placement.intervals.get(target)
    if placement.exact:
        error = 0.0
    elif interval is not None:
        error = interval.half_width
    else:
        error = max(1, placement.present_pages) ** -0.5
    return _Look(away_bytes=away, total_bytes=total, error_bytes=error * total)
