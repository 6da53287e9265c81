"""One scenario under the engine, under nothing and at its optimum, beside each other, as one document.

Owns the figures by which policies are judged and what they mean. It must not know how they are shown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from balancerd.model.report import TickReport
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

    @property
    def to_nothing_ratio(self) -> float | None:
        """What all threads want to run and all losses, under the engine over under nothing; None: no work."""
        return self.engine.work_seconds / self.nothing.work_seconds if self.nothing.work_seconds > 0 else None

    @property
    def to_optimum_ratio(self) -> float | None:
        """The same over what it would take at the optimum; None when that is not known."""
        best = self.optimum_work_seconds
        return self.engine.work_seconds / best if best else None

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
    return Judgement(
        scenario=scenario,
        seed=seed,
        engine=run_engine(scenario, seed, means, listen),
        nothing=run_without(scenario, seed),
        optimum=optimum,
    )


def to_document(judgement: Judgement) -> dict[str, Any]:
    """Return all figures as plain data."""
    scenario, optimum = judgement.scenario, judgement.optimum
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
