"""access: the parts of a process's memory follow the threads that use them, on whichever nodes these run.

For processes that run on several nodes at the same time: where their threads run does not tell where a page belongs,
so their accesses are watched, and what the samples say for sure moves. A source of accesses judges which pages belong
to which node; this policy weighs what that would win: the hottest first, then the gate, one decision for each node.
What threads of several nodes share stays where it is.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from balancerd.engine.copying import move_cost_seconds
from balancerd.engine.gate import HORIZON_SECONDS, access_gain_cores, is_worth
from balancerd.engine.owned import movable_extents, whole_regions
from balancerd.model.access import REGION_BYTES, AccessMethod, AccessWindow
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.extent import Extent, joined, size_bytes
from balancerd.model.heat import HeatWindow
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES, ProcessSample, Snapshot, Window
from balancerd.policies.watching import Watching, WatchingOptions, format_mib
from balancerd.ports import PolicyContext

NEGLIGIBLE_RATIO = 0.01
"""Less than this share of a run elsewhere is well placed."""

MOST_EXTENTS = 4096
"""Of one decision; the hottest. The rest follows once these have moved."""

WARMTHS = 4
"""So many steps of known heat are told apart: finer ones are chance, and what samples say goes before them."""


class AccessOptions(WatchingOptions):
    """Options of an `access` policy."""

    processes: Literal["several-homes", "all"] = Field(
        default="several-homes",
        description="several-homes: those that run on several nodes at the same time. all: every busy large one.",
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """A run of pages that would move to its node: the addresses, and what that wins and costs."""

    node: NodeId
    extents: tuple[Extent, ...]
    away_bytes: Mapping[NodeId, int]
    gain: float
    cost: float
    warmth: float

    @property
    def rank(self) -> tuple[float, float, tuple[Extent, ...]]:
        """By which the hottest come first: in use by known heat, roughly; then what moving it wins for its cost."""
        return -round(self.warmth * WARMTHS), -self.gain / self.cost, self.extents


@dataclass(slots=True)
class _Sorted:
    """All runs of a window by what is to be done about them, in bytes but for the parts."""

    parts: list[_Part] = field(default_factory=list)
    placed: int = 0
    shared: int = 0
    unknown: int = 0
    not_worth: int = 0
    waiting: int = 0
    unsure: int = 0
    homeless: int = 0


class Access:
    """The policy; see the module's docstring. Remembers of each process how its run time is spread over the nodes."""

    def __init__(self, name: str, options: AccessOptions, context: PolicyContext) -> None:
        self._name = name
        self._bytes_per_second = context.migration_bytes_per_second
        self._watching = Watching(name, options, only_spread=options.processes == "several-homes")

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    def watch(self, snapshot: Snapshot) -> Iterable[ProcessId]:
        """Return the processes to watch, the busiest first."""
        self._watching.observe(snapshot)
        return self._watching.wanted(snapshot)

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible process, or one decision for each node that parts of it belong to."""
        self._watching.observe(window.now)
        return tuple(verdict for process in window.now.eligible for verdict in self._judge(process, window.now))

    def _judge(self, process: ProcessSample, now: Snapshot) -> Iterator[Verdict]:
        seen = self._watching.look(process, now)
        if isinstance(seen, Skip):
            yield seen
            return
        if not seen.window.runs:
            yield self._skip(process, *_explain_no_run(seen.window))
            return
        heat = now.heats.windows.get(process.id)
        found = self._sort(seen.window, heat, seen.cores, now)
        if not found.parts:
            yield self._skip(process, *_explain(found))
            return
        yield from self._decisions(process, found, now.survey.interval_seconds or 1.0)

    def _sort(self, window: AccessWindow, heat: HeatWindow | None, cores: float, now: Snapshot) -> _Sorted:
        """Part the runs; `cores` is how much of the process's CPU time goes to the accesses that all of them tell.

        `heat` orders them and nothing else: what it says of no run, or of none at all, is taken to be cold.
        """
        topology = now.survey.topology
        total = max(
            sum(run.weight for run in window.runs),
            sum(region.weight for region in window.regions),
        )
        found = _Sorted()
        huge = None if window.huge is None else tuple(part for each in window.huge for part in whole_regions(each))
        for run in window.runs:
            if not run.is_sure:
                found.unsure += run.end - run.start
                continue
            extents = movable_extents(run, huge)
            span = size_bytes(extents)
            found.shared += run.end - run.start - span
            if not span:
                continue
            if run.node not in topology.memory_nodes:
                found.homeless += span
                continue
            held = {n: p for n, p in (run.pages_by_node or {}).items() if p > 0 and n in topology.node_ids}
            present = sum(held.values())
            if present <= 0:
                found.unknown += span
                continue
            away = {node: pages for node, pages in held.items() if node != run.node}
            if sum(away.values()) < NEGLIGIBLE_RATIO * present:
                found.placed += span
                continue
            part_of_run = span / (run.end - run.start)
            away_bytes = {node: max(PAGE_BYTES, round(p * part_of_run * PAGE_BYTES)) for node, p in away.items()}
            # in the worst case the accesses of all others are local now, and will be as far as these are now
            share = (2 * run.node_weight - run.weight) * part_of_run / total if total > 0 else 0.0
            gain = access_gain_cores(cores, share, run.node, held, topology)
            cost = move_cost_seconds(away_bytes, run.node, now.copying, self._bytes_per_second)
            if not is_worth(gain, cost, HORIZON_SECONDS):
                found.not_worth += sum(away_bytes.values())
            elif gain * window.watched_seconds < cost:  # as follow-cpu waits with a home of which it knows little
                found.waiting += sum(away_bytes.values())
            else:
                warmth = 0.0 if heat is None else heat.ratio_within(run.start, run.end) or 0.0
                found.parts.append(_Part(run.node, extents, away_bytes, gain, cost, warmth))
        return found

    def _decisions(self, process: ProcessSample, found: _Sorted, interval_seconds: float) -> Iterator[Decision]:
        """Yield a decision for each node: of all parts the hottest, as many as can move until the next tick."""
        left_bytes = self._bytes_per_second * interval_seconds
        by_node: dict[NodeId, list[_Part]] = {}
        n_extents = 0
        for part in sorted(found.parts, key=lambda p: p.rank):
            if by_node and (left_bytes <= 0 or n_extents + len(part.extents) > MOST_EXTENTS):
                break
            left_bytes -= sum(part.away_bytes.values())
            n_extents += len(part.extents)
            by_node.setdefault(part.node, []).append(part)
        for node, parts in sorted(by_node.items()):
            source_bytes: dict[NodeId, int] = {}
            for part in parts:
                for source, away_bytes in part.away_bytes.items():
                    source_bytes[source] = source_bytes.get(source, 0) + away_bytes
            total_bytes = sum(source_bytes.values())
            extents = joined(extent for part in parts for extent in part.extents)
            gain, cost = sum(part.gain for part in parts), sum(part.cost for part in parts)
            yield Decision(
                policy=self._name,
                process=process.id,
                target=node,
                misplaced_bytes=total_bytes,
                gain_cores=gain,
                cost_seconds=cost,
                detail=f"{format_mib(total_bytes)} in {len(extents)} ranges that threads on node {node} use, "
                f"gain {gain:.3f} cores, cost {cost:.2f} s",
                extents=extents,
                source_bytes=source_bytes,
            )

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "") -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


def _explain_no_run(window: AccessWindow) -> tuple[Reason, str]:
    if window.method is AccessMethod.KERNEL_COUNTERS:
        return _explain_counters(window.local_ratio)
    mixed = sum(region.is_mixed for region in window.regions)
    if mixed and mixed == len(window.regions):
        return Reason.SHARED_ACCESS, f"{format_mib(mixed * REGION_BYTES)} belong to several nodes"
    told = f"{window.hits} of {window.samples} samples of {window.threads} threads told an address"
    return Reason.TOO_FEW_SAMPLES, f"{told}, watched for {window.watched_seconds:.0f} s"


def _explain_counters(local_ratio: float | None) -> tuple[Reason, str]:
    """Return what can be said without an address: whether there is anything to move."""
    if local_ratio is None:
        return Reason.TOO_FEW_SAMPLES, "the kernel has counted no hint faults of it yet"
    told = f"{local_ratio:.1%} of its hint faults were local by the kernel's counters"
    if local_ratio >= 1.0 - NEGLIGIBLE_RATIO:
        return Reason.WELL_PLACED, told
    return Reason.TOO_FEW_SAMPLES, f"{told}, which tell no addresses"


def _explain(found: _Sorted) -> tuple[Reason, str]:
    """Return why nothing is to move, by what there is most of."""
    told = (
        (found.placed, Reason.WELL_PLACED, "lie where the threads run that use them"),
        (found.not_worth, Reason.GAIN_BELOW_COST, "would cost more to move than they win"),
        (found.waiting, Reason.LOSS_BELOW_COST, "have not yet lost what moving them costs"),
        (found.shared, Reason.SHARED_ACCESS, "may be part of huge pages that others use, too"),
        (found.unsure, Reason.SHARED_ACCESS, "are scattered pages with few samples each, as of shared memory"),
        (found.homeless, Reason.HOME_WITHOUT_MEMORY, "are used from nodes without memory"),
        (found.unknown, Reason.TOO_FEW_SAMPLES, "are used by one node each, but where they lie is not known"),
    )
    _, reason, _ = max(told, key=lambda each: each[0])
    return reason, "; ".join(f"{format_mib(n)} {what}" for n, _, what in told if n)


class _Plugin:
    """What the entry point `access` refers to."""

    options = AccessOptions
    summary = "Moves the parts of a process's memory to the nodes whose threads use them, as watched accesses tell."

    def build(self, name: str, options: AccessOptions, context: PolicyContext) -> Access:
        """Return a fresh policy."""
        return Access(name, options, context)


plugin = _Plugin()
