"""One scenario under the engine, under nothing and at its optimum, beside each other, as one document.

Owns the figures by which policies are judged and what they mean. It must not know how they are shown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from balancerd.model.report import TickReport
from balancerd.simulation.hindsight import Bounds, Hindsight
from balancerd.simulation.machine import Machine
from balancerd.simulation.optimum import NoSolverError, Optimum, find_optimum
from balancerd.simulation.run import Means, Run, run_engine, run_without
from balancerd.simulation.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What came of a scenario. The same chance rules both runs, so that threads are at the same places in both."""

    scenario: Scenario
    seed: int
    engine: Run
    nothing: Run
    optimum: Optimum
    bounds: Bounds | None
    """What moving memory alone could have cost; None: not asked for."""

    @property
    def lost_ratio(self) -> float | None:
        """What is lost under the engine over what is lost under nothing; None: nothing is lost under nothing."""
        lost = self.nothing.accounts.lost_seconds
        return self.engine.accounts.lost_seconds / lost if lost > 0 else None

    @property
    def to_nothing_ratio(self) -> float | None:
        """What all threads want to run and all losses, under the engine over under nothing; None: no work."""
        return self.engine.work_seconds / self.nothing.work_seconds if self.nothing.work_seconds > 0 else None

    @property
    def to_optimum_ratio(self) -> float | None:
        """The same over what it would take at the optimum; None when that is not known."""
        return self.to_ratio(self.optimum.lost_seconds)

    @property
    def foresight_lost_seconds(self) -> float | None:
        """What is lost when memory moves as the future will have it, and the threads as they did; None: not known."""
        return None if self.bounds is None else self._with_waiting(self.bounds.foresight_seconds)

    @property
    def waiting_lost_seconds(self) -> float | None:
        """What is lost under the best rules that do not know the future; None: not known."""
        return None if self.bounds is None else self._with_waiting(self.bounds.waiting_seconds)

    def to_ratio(self, lost_seconds: float | None) -> float | None:
        """Return the same over what it would take if so much were lost; None when that is not known."""
        if lost_seconds is None:
            return None
        accounts = self.nothing.accounts
        work = accounts.run_seconds + accounts.overload_seconds + lost_seconds
        return self.engine.work_seconds / work if work > 0 else None

    def _with_waiting(self, lost_seconds: float) -> float:
        """Threads wait for CPUs wherever their memory is."""
        return lost_seconds + self.nothing.accounts.overload_seconds

    @property
    def optimum_work_seconds(self) -> float | None:
        """What all threads want to run, and what is lost at the optimum; None when that is not known."""
        lost, accounts = self.optimum.lost_seconds, self.nothing.accounts
        return None if lost is None else accounts.run_seconds + accounts.overload_seconds + lost


def judge(
    scenario: Scenario,
    seed: int,
    means: Means,
    *,
    with_optimum: bool = True,
    listen: Callable[[TickReport], None] | None = None,
) -> Judgement:
    """Run a scenario twice, and look for its optimum."""
    optimum = Optimum(lost_seconds=None, is_exact=False, why_not="not asked for")
    if with_optimum:
        try:
            optimum = find_optimum(scenario, seed)
        except NoSolverError as error:
            optimum = Optimum(lost_seconds=None, is_exact=False, why_not=str(error))
    watchers: list[Hindsight] = []

    def watch(machine: Machine) -> None:
        if with_optimum:
            watchers.append(Hindsight(machine))

    return Judgement(
        scenario=scenario,
        seed=seed,
        engine=run_engine(scenario, seed, means, listen),
        nothing=run_without(scenario, seed, watch),
        optimum=optimum,
        bounds=watchers[0].bounds() if watchers else None,
    )


def to_document(judgement: Judgement) -> dict[str, Any]:
    """Return all figures as plain data."""
    scenario, optimum = judgement.scenario, judgement.optimum
    foresight, waiting = judgement.foresight_lost_seconds, judgement.waiting_lost_seconds
    return {
        "title": scenario.title,
        "duration_seconds": scenario.duration_seconds,
        "nodes": scenario.machine.nodes,
        "scheduler": scenario.scheduler.kind,
        "seed": judgement.seed,
        "engine": {**_figures(judgement.engine), "policy_errors": dict(judgement.engine.policy_errors)},
        "nothing": _figures(judgement.nothing),
        "optimum": {
            "lost_seconds": optimum.lost_seconds,
            "work_seconds": judgement.optimum_work_seconds,
            "exact": optimum.is_exact,
            "why_not": optimum.why_not,
        },
        "memory_alone": {
            "foresight": {"lost_seconds": foresight, "to_ratio": judgement.to_ratio(foresight)},
            "waiting": {"lost_seconds": waiting, "to_ratio": judgement.to_ratio(waiting)},
        },
        "lost_ratio": judgement.lost_ratio,
        "to_nothing_ratio": judgement.to_nothing_ratio,
        "to_optimum_ratio": judgement.to_optimum_ratio,
    }


def _figures(run: Run) -> Mapping[str, Any]:
    accounts = run.accounts
    return {
        "work_seconds": run.work_seconds,
        "run_seconds": accounts.run_seconds,
        "lost_seconds": accounts.lost_seconds,
        "stall_seconds": accounts.stall_seconds,
        "moving_seconds": accounts.moving_seconds,
        "overload_seconds": accounts.overload_seconds,
        "load_ratio": run.load_ratio,
        "processes": run.processes,
        "resident_bytes": run.resident_bytes,
        "births": accounts.births,
        "refused_births": accounts.refused_births,
        "thread_moves": accounts.thread_moves,
        "ticks": run.ticks,
        "moved_bytes": accounts.moved_bytes,
        "moved_bytes_per_hour": run.moved_bytes_per_hour,
        "steady_ratio_per_hour": run.steady_ratio_per_hour,
        "returned_bytes": accounts.returned_bytes,
        "hasty_bytes": accounts.hasty_bytes,
        "oscillated_bytes": accounts.oscillated_bytes,
        "course": [
            {
                "at_seconds": moment.at_seconds,
                "local_ratio": moment.local_ratio,
                "moved_bytes": moment.moved_bytes,
                "lost_seconds": moment.lost_seconds,
                "free_bytes": {str(node): free for node, free in moment.free_bytes.items()},
            }
            for moment in run.moments
        ],
    }
