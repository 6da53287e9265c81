"""How fast memory may move: token buckets for the machine, each process and each pair of nodes, and one for eviction.

A bucket fills with time up to what one tick may take, and is emptied by what outcomes say was really done, if need be
below zero: over a long time no rate is exceeded. Owns the arithmetic; it must not know policies, holds or room.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome
from balancerd.model.sample import PAGE_BYTES

LEAST_CAPACITY_BYTES = 4 << 20
"""A bucket holds at least two THPs, whatever its rate: a step that takes less is not worth its calls."""

NodePair: TypeAlias = tuple[NodeId, NodeId]
"""From where to where."""

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The rates of one configuration. Buckets hold what `interval_seconds` bring, the time from tick to tick."""

    machine_bytes_per_second: float
    process_bytes_per_second: float
    node_pair_bytes_per_second: float
    evict_bytes_per_second: float
    interval_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What may move now, and the bucket that allows no more: its Reason, and when it lets a step begin."""

    budget_bytes: int
    reason: Reason
    detail: str = ""


class Budgets:
    """All buckets. Spending is the engine's and the commands' alone, after the facts; new buckets are full."""

    def __init__(self, rates: Rates) -> None:
        self._machine: _Buckets[None] = _Buckets()
        self._processes: _Buckets[ProcessId] = _Buckets()
        self._pairs: _Buckets[NodePair] = _Buckets()
        self._evictions: _Buckets[None] = _Buckets()
        self.set_rates(rates)

    def set_rates(self, rates: Rates) -> None:
        """Fill at other rates from now on; what was spent stays spent."""
        seconds = rates.interval_seconds
        self._machine.set_rate(rates.machine_bytes_per_second, seconds)
        self._processes.set_rate(rates.process_bytes_per_second, seconds)
        self._pairs.set_rate(rates.node_pair_bytes_per_second, seconds)
        self._evictions.set_rate(rates.evict_bytes_per_second, seconds)

    def draft(self, now: float) -> "Draft":
        """Return what is allowed at `now`, for promises of which the buckets learn only once they were kept."""
        return Draft(self._machine, self._processes, self._pairs, now)

    def allowed_eviction_bytes(self, now: float) -> int:
        """Return how much may be evicted now; never below 0."""
        return max(0, int(self._evictions.level(None, now)))

    def spend(self, outcome: MigrationOutcome, now: float) -> None:
        """Take from the buckets what was submitted, and of each pair of nodes what moved."""
        step = outcome.step
        targets = step.target_of or {}
        moved = {
            (source, targets.get(source, step.target)): pages * PAGE_BYTES
            for source, pages in outcome.moved_from.items()
        }
        self.spend_bytes(step.process, outcome.submitted_pages * PAGE_BYTES, moved, now)

    def spend_bytes(self, process: ProcessId, size_bytes: int, moved: Mapping[NodePair, int], now: float) -> None:
        """Take `size_bytes` from machine and process, and `moved` bytes from the pairs."""
        self._machine.spend(None, size_bytes, now)
        self._processes.spend(process, size_bytes, now)
        for pair, moved_bytes in moved.items():
            self._pairs.spend(pair, moved_bytes, now)

    def spend_eviction(self, outcome: EvictionOutcome, now: float) -> None:
        """Take what was advised."""
        self._evictions.spend(None, outcome.advised_pages * PAGE_BYTES, now)

    def forget_full(self, now: float) -> None:
        """Drop the buckets that are full again, those of processes that are gone among them: nothing is lost."""
        for buckets in (self._machine, self._processes, self._pairs, self._evictions):
            buckets.forget_full(now)


class Draft:
    """What the buckets allow at one moment, less what was promised since. It changes no bucket."""

    def __init__(
        self, machine: "_Buckets[None]", processes: "_Buckets[ProcessId]", pairs: "_Buckets[NodePair]", now: float
    ) -> None:
        self._machine, self._processes, self._pairs = machine, processes, pairs
        self._now = now
        self._promised_bytes = 0
        self._promised_to: dict[ProcessId, int] = {}
        self._promised_between: dict[NodePair, int] = {}

    def allow(self, process: ProcessId, wanted: Mapping[NodePair, int]) -> Allowance:
        """Return the least of what machine, process and the pairs of nodes in `wanted` (bytes) allow.

        A pair whose bucket holds less than is wanted binds. When none does, they may move all that they hold: samples
        err, and a step need not stop short of its last pages.
        """
        levels = {
            Reason.MIGRATION_BUDGET: self._machine.level(None, self._now) - self._promised_bytes,
            Reason.PROCESS_BUDGET: self._processes.level(process, self._now) - self._promised_to.get(process, 0),
        }
        rates = {Reason.MIGRATION_BUDGET: self._machine.rate, Reason.PROCESS_BUDGET: self._processes.rate}
        between = {pair: self._left_between(pair) for pair in wanted}
        if between:
            short = any(between[pair] < wanted[pair] for pair in wanted)
            levels[Reason.NODE_PAIR_BUDGET] = sum(
                max(0.0, min(left, wanted[pair]) if short else left) for pair, left in between.items()
            )
            rates[Reason.NODE_PAIR_BUDGET] = self._pairs.rate
        reason = min(levels, key=lambda r: levels[r])
        fullest = max(between.values()) if reason is Reason.NODE_PAIR_BUDGET else levels[reason]
        detail = f"again in {max(0.0, LEAST_CAPACITY_BYTES / 2 - fullest) / rates[reason]:.1f} s"
        if reason is Reason.NODE_PAIR_BUDGET:
            detail = ", ".join(f"node {source} to {target}" for source, target in sorted(between)) + f"; {detail}"
        return Allowance(budget_bytes=max(0, int(levels[reason])), reason=reason, detail=detail)

    def promise(self, process: ProcessId, wanted: Mapping[NodePair, int], size_bytes: int) -> None:
        """Set `size_bytes` aside, of each pair of nodes no more than is wanted and there."""
        self._promised_bytes += size_bytes
        self._promised_to[process] = self._promised_to.get(process, 0) + size_bytes
        for pair, wanted_bytes in wanted.items():
            part = max(0, min(size_bytes, wanted_bytes, int(self._left_between(pair))))
            self._promised_between[pair] = self._promised_between.get(pair, 0) + part
            size_bytes -= part

    def _left_between(self, pair: NodePair) -> float:
        return self._pairs.level(pair, self._now) - self._promised_between.get(pair, 0)


class _Buckets(Generic[Key]):
    """Buckets of one rate, by key. One that is not there is full."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._capacity = 0.0
        self._kept: dict[Key, tuple[float, float]] = {}

    def set_rate(self, bytes_per_second: float, interval_seconds: float) -> None:
        self.rate = bytes_per_second
        self._capacity = max(bytes_per_second * interval_seconds, float(LEAST_CAPACITY_BYTES))

    def level(self, key: Key, now: float) -> float:
        if key not in self._kept:
            return self._capacity
        tokens, at = self._kept[key]
        return min(self._capacity, tokens + self.rate * max(0.0, now - at))

    def spend(self, key: Key, size_bytes: float, now: float) -> None:
        if size_bytes:
            at = self._kept[key][1] if key in self._kept else now
            self._kept[key] = (self.level(key, now) - size_bytes, max(at, now))

    def forget_full(self, now: float) -> None:
        for key in [key for key in self._kept if self.level(key, now) >= self._capacity]:
            del self._kept[key]
