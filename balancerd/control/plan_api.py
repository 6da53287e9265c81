"""What would be moved now, for `balancerctl plan`: pure, from the last tick's report.

GET /v1/plan
    schema, tick, mode, age_seconds (null before the first tick), moves: by state, the most gain for its cost first:
        [{pid, start_ticks, comm, workload, policy, action ("migrate", "evict", "steer": threads move), from: {node:
        bytes} (null where the policy names no nodes), to (null for an eviction), bytes, seconds (in the kernel's calls,
        as the gate expects it), cost_seconds (of CPU time, the application's disturbance included), gain_cores,
        confidence, state, reason, reason_text, detail, needs}]
    confidence  the share of these bytes that is misplaced with 95 % certainty, as far as the sample tells: 1 where
                every page was asked for; null for parts of a process, which were seen in use, and for evictions
    state       "moving" (a step of it was made in this tick), "waits" (the plan turned it down for now), "observed"
                (the policy, or the daemon, only observes), "refused" (the policy's own gate refuses it)
    needs       what would have to change for it to be made ("" when nothing is known)
"""

from collections.abc import Iterable, Mapping

from balancerd.control.api import SCHEMA, Json, workloads_by_process
from balancerd.control.state import View
from balancerd.engine.gate import DISTURBANCE
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.engine.workloads import workload_of
from balancerd.model.decision import REASON_TEXT, Decision, Eviction, Reason, Skip, Steer, Wanted
from balancerd.model.ids import NodeId
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.sample import PlacementSample
from balancerd.model.workload import Workload

STATES = MOVING, WAITS, OBSERVED, REFUSED = "moving", "waits", "observed", "refused"


def plan(view: View, *, now: float) -> Json:
    """Answer GET /v1/plan at monotonic second `now`."""
    report = view.report
    if report is None or view.told_at is None:
        return {"schema": SCHEMA, "tick": None, "mode": None, "age_seconds": None, "moves": []}
    workloads = workloads_by_process(report)
    rows = [row for each in report.processes for row in _rows(report, each, workloads.get(each.process.id))]
    rows.sort(key=lambda row: (STATES.index(row["state"]), -_merit(row), row["pid"], row["policy"]))
    return {
        "schema": SCHEMA,
        "tick": report.number,
        "mode": report.mode,
        "age_seconds": round(now - view.told_at, 6),
        "moves": rows,
    }


def _rows(report: TickReport, process: ProcessReport, workload: Workload | None) -> Iterable[Json]:
    for verdict in process.verdicts:
        wanted = verdict.wanted if isinstance(verdict, Skip) else verdict
        if wanted is None:
            continue
        if isinstance(verdict, Skip):
            state, reason, detail, needs = REFUSED, verdict.reason, verdict.detail, verdict.needs
        else:
            state, reason, detail, needs = _standing(report, process, verdict)
        sample = process.process
        yield {
            "pid": sample.id.pid,
            "start_ticks": sample.id.start_ticks,
            "comm": sample.comm,
            "workload": (workload or workload_of(sample)).name,
            "policy": wanted.policy,
            **_what(wanted, process.placement),
            "state": state,
            "reason": reason.value,
            "reason_text": REASON_TEXT[reason],
            "detail": detail,
            "needs": needs,
        }


def _standing(report: TickReport, process: ProcessReport, wanted: Wanted) -> tuple[str, Reason, str, str]:
    """Return what became of a decision in this tick, why, and what it waits for."""
    skips = [v for v in process.verdicts if isinstance(v, Skip) and v.by in {"plan", "tick"}]
    observed = next((s for s in skips if s.reason is Reason.OBSERVE_MODE and _names(s, wanted.policy)), None)
    if observed is not None:
        return OBSERVED, wanted.reason, wanted.detail, "mode: enforce"
    begun = {(outcome.step.process, outcome.step.policy) for outcome in report.outcomes}
    begun |= {(outcome.step.process, outcome.step.policy) for outcome in report.evictions}
    begun |= {(outcome.step.process, outcome.step.policy) for outcome in report.steers if not outcome.is_release}
    if (wanted.process, wanted.policy) in begun:
        is_observed = report.mode != "enforce"
        return OBSERVED if is_observed else MOVING, wanted.reason, wanted.detail, "mode: enforce" if is_observed else ""
    turned_down = next((s for s in skips if s.reason is not Reason.OBSERVE_MODE), None)
    if turned_down is None:  # threads are held on
        return MOVING if isinstance(wanted, Steer) else WAITS, wanted.reason, wanted.detail, ""
    return WAITS, turned_down.reason, turned_down.detail, turned_down.needs


def _names(observed: Skip, policy: str) -> bool:
    return observed.detail.partition(";")[0] == f"policy {policy}"


def _what(wanted: Wanted, placement: PlacementSample | None) -> Json:
    if isinstance(wanted, Eviction):
        nothing = dict.fromkeys(("from", "to", "seconds", "cost_seconds", "gain_cores", "confidence"))
        return {"action": "evict", "bytes": wanted.evict_bytes, **nothing}
    if isinstance(wanted, Steer):
        nothing = dict.fromkeys(("from", "seconds", "confidence"))
        gain, cost = round(wanted.gain_cores, 6), round(wanted.cost_seconds, 6)
        return {"action": "steer", "bytes": 0, "to": wanted.target, "cost_seconds": cost, "gain_cores": gain, **nothing}
    return {
        "action": "migrate",
        "bytes": wanted.misplaced_bytes,
        "from": _from(wanted, placement),
        "to": wanted.target,
        "seconds": round(wanted.cost_seconds / DISTURBANCE, 6),
        "cost_seconds": round(wanted.cost_seconds, 6),
        "gain_cores": round(wanted.gain_cores, 6),
        "confidence": _confidence(wanted, placement),
    }


def _from(wanted: Decision, placement: PlacementSample | None) -> dict[str, int] | None:
    held: Mapping[NodeId, int] | None = wanted.source_bytes
    if held is None and placement is not None and wanted.extents is None:
        held = movable_bytes_by_node(placement)
    if held is None:
        return None
    sources = held.keys() if wanted.sources is None else wanted.sources
    return {str(node): held[node] for node in sorted(sources) if node != wanted.target and held.get(node)}


def _confidence(wanted: Decision, placement: PlacementSample | None) -> float | None:
    if placement is None or wanted.extents is not None or wanted.misplaced_bytes <= 0:
        return None
    if placement.exact:
        return 1.0
    if not placement.intervals:
        return None
    if wanted.sources is None:
        home = placement.intervals.get(wanted.target)
        least = 1.0 if home is None else 1.0 - home.high
    else:
        least = sum(placement.intervals[node].low for node in wanted.sources if node in placement.intervals)
    total = sum(placement.bytes_by_node.values())
    return round(max(0.0, min(1.0, least * total / wanted.misplaced_bytes)), 4)


def _merit(row: Json) -> float:
    gain, cost = row["gain_cores"], row["cost_seconds"]
    return 0.0 if gain is None else gain / cost if cost else float(gain)
