"""The gate's bytes per second, from what moves of this machine have really taken. Pure; time is data.

A rate starts as what the kernel's version lets expect, and is drawn to what is measured as more is moved; what was
measured long ago counts little. It is believed within bounds only: a machine whose CPUs are busy, or emulated, copies
at a small part of its rate, and is as slow in all that a move would win.
"""

from collections.abc import Mapping

from balancerd.engine.budgets import NodePair
from balancerd.engine.gate import cost_seconds
from balancerd.model.copying import Copying, PairCopied
from balancerd.model.ids import NodeId
from balancerd.model.migration import MigrationOutcome
from balancerd.model.sample import PAGE_BYTES

LEAST_BYTES = 16 << 20
"""A step that moved less tells of its calls, not of copying."""

MOST_BYTES_PER_SECOND = float(16 << 30)
"""No core copies as fast: such a step was not timed."""

PRIOR_BYTES = float(256 << 20)
"""The expectation counts as much as so many bytes measured."""

HALF_BYTES = float(4 << 30)
HALF_SECONDS = 3600.0
"""After so many bytes more, or so long, what was measured counts half."""

LOWEST_RATIO = 0.5
HIGHEST_RATIO = 4.0
"""No less and no more of the expected rate is believed. Emulated CPUs copy at a thirtieth of it, and a move that is
taken to cost thirty times as much would never be made there; one that is taken to cost twice as much waits a little."""

ALONE_RATIO = 0.9
"""A step tells of one pair of nodes when so much of it came from one node."""


class CopyRates:
    """What was measured. Mutated only by the engine, after the facts."""

    def __init__(self) -> None:
        self._all = (0.0, 0.0)
        self._pairs: dict[NodePair, tuple[float, float]] = {}
        self._at = 0.0

    def note(self, outcome: MigrationOutcome, now: float) -> None:
        """Take note of one step, if it moved enough."""
        moved_bytes, seconds = float(outcome.moved_pages * PAGE_BYTES), sum(outcome.call_seconds)
        if moved_bytes < LEAST_BYTES or moved_bytes >= MOST_BYTES_PER_SECOND * seconds:
            return
        self._fade(now)
        self._all = _added(self._all, moved_bytes, seconds)
        source, pages = max(outcome.moved_from.items(), key=lambda item: (item[1], -item[0]), default=(None, 0))
        if source is not None and pages * PAGE_BYTES >= ALONE_RATIO * moved_bytes:
            targets = outcome.step.target_of or {}
            pair = (source, targets.get(source, outcome.step.target))
            self._pairs[pair] = _added(self._pairs.get(pair, (0.0, 0.0)), moved_bytes, seconds)

    def told(self) -> Copying:
        """Return what was measured, for those who decide."""
        return Copying(
            copied_bytes=self._all[0],
            seconds=self._all[1],
            pairs=tuple(
                PairCopied(source=source, target=target, copied_bytes=copied, seconds=seconds)
                for (source, target), (copied, seconds) in sorted(self._pairs.items())
            ),
        )

    def restore(self, told: Copying) -> None:
        """Go on from what was measured before, as a replay does."""
        self._all = (told.copied_bytes, told.seconds)
        self._pairs = {(pair.source, pair.target): (pair.copied_bytes, pair.seconds) for pair in told.pairs}

    def _fade(self, now: float) -> None:
        share = 0.5 ** (max(0.0, now - self._at) / HALF_SECONDS) if self._at else 1.0
        self._at = now
        self._all = (self._all[0] * share, self._all[1] * share)
        self._pairs = {pair: (copied * share, seconds * share) for pair, (copied, seconds) in self._pairs.items()}


def copy_rate(copying: Copying, expected: float, source: NodeId, target: NodeId) -> float:
    """Return the bytes per second to reckon with between two nodes, where `expected` is what the kernel lets expect."""
    rate = machine_rate(copying, expected)
    for pair in copying.pairs:
        if (pair.source, pair.target) == (source, target):
            rate = _drawn(rate, pair.copied_bytes, pair.seconds)
    return _bounded(rate, expected)


def machine_rate(copying: Copying, expected: float) -> float:
    """Return the same of all nodes together."""
    return _bounded(_drawn(expected, copying.copied_bytes, copying.seconds), expected)


def move_cost_seconds(moved: Mapping[NodeId, int], target: NodeId, copying: Copying, expected: float) -> float:
    """Return the CPU seconds that moving so many bytes from each node to the target costs."""
    return sum(cost_seconds(size, copy_rate(copying, expected, source, target)) for source, size in moved.items())


def _added(before: tuple[float, float], moved_bytes: float, seconds: float) -> tuple[float, float]:
    share = 0.5 ** (moved_bytes / HALF_BYTES)
    return before[0] * share + moved_bytes, before[1] * share + seconds


def _bounded(rate: float, expected: float) -> float:
    return min(max(rate, LOWEST_RATIO * expected), HIGHEST_RATIO * expected)


def _drawn(expected: float, copied_bytes: float, seconds: float) -> float:
    """Return a rate between that expected and that measured, by how much was."""
    return (PRIOR_BYTES + copied_bytes) / (PRIOR_BYTES / expected + seconds)
