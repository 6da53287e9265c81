"""Packs items into nodes: best-fit decreasing, then a local search of moves and of swaps that is bounded by its steps.

An item is what may become of one process: each option adds memory and busy cores to nodes, or takes some away, and
costs something. What overflows the nodes' slack counts first, then what all costs together. Knows neither processes
nor time: the same items always give the same answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from balancerd.model.ids import NodeId

MOST_TRIES: Final = 24_000
"""Options that a search tries at most; each takes 4 us. What it has found by then is its answer."""

GIB: Final = 1 << 30
MOST_MAKE_WAY: Final = 3
"""So many items may make way for one."""

LEAST_OVER: Final = 1e-7
LEAST_COST: Final = 1e-12
"""Smaller differences are noise of the arithmetic. An overflow is in GiB and cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One thing that may become of an item: its cost, in any unit, and what each node gets, below 0 what it gives."""

    cost: float
    added_bytes: Mapping[NodeId, int] = field(default_factory=dict)
    added_cores: Mapping[NodeId, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    """What each node may get; below 0 it must give. A node that is not named takes anything."""

    memory_bytes: Mapping[NodeId, int]
    cpu_cores: Mapping[NodeId, float] = field(default_factory=dict)


Item = Sequence[Option]
"""Its options. The first is what becomes of it unless another is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """The option chosen of each item, by its number, what overflows (in GiB and cores), and what all costs."""

    chosen: tuple[int, ...]
    over: float
    cost: float

    def is_better_than(self, other: "Packing") -> bool:
        """Return whether less overflows, or the same at a lower cost."""
        return _is_better(self.over - other.over, self.cost - other.cost)


def pack(items: Sequence[Item], slack: Slack, most_tries: int = MOST_TRIES) -> Packing:
    """Return the best packing found: from what there is, from the largest item down, and from who would lose most."""
    compiled = _compile(items, slack)
    everything = range(len(items))
    starts: tuple[Sequence[int] | None, ...] = (
        None,
        sorted(everything, key=lambda i: (-compiled.size(i), i)),
        sorted(everything, key=lambda i: (-compiled.regret(i), i)),
    )
    found: list[Packing] = []
    for start in starts:
        state = _State(compiled, most_tries // len(starts))
        if start is not None:
            state.place(start)
        state.search()
        found.append(Packing(chosen=tuple(state.chosen), over=state.over(), cost=state.cost()))
    best = found[0]
    for each in found[1:]:
        best = each if each.is_better_than(best) else best
    return best


@dataclass(frozen=True, slots=True)
class _Choice:
    """An option in numbers: for each dimension that it touches (memory, then cores, of a node) what it adds there."""

    cost: float
    added: tuple[tuple[int, float], ...]


_NOTHING = _Choice(0.0, ())


@dataclass(frozen=True, slots=True)
class _Compiled:
    items: tuple[tuple[_Choice, ...], ...]
    slack: tuple[float, ...]

    def size(self, number: int) -> float:
        """Return the largest part of any node's slack that an item takes, by the option that takes least."""
        return min(
            max((amount / max(self.slack[at], LEAST_OVER) for at, amount in choice.added), default=0.0)
            for choice in self.items[number]
        )

    def regret(self, number: int) -> float:
        """Return what an item loses that does not get its cheapest option, for what it takes."""
        costs = sorted(choice.cost for choice in self.items[number])
        return (costs[1] - costs[0]) / max(self.size(number), LEAST_OVER) if len(costs) > 1 else 0.0


def _compile(items: Sequence[Item], slack: Slack) -> _Compiled:
    touched = dict.fromkeys(node for item in items for option in item for node in (*option.added_bytes,))
    memory_at = {node: at for at, node in enumerate(dict.fromkeys((*slack.memory_bytes, *touched)))}
    touched = dict.fromkeys(node for item in items for option in item for node in (*option.added_cores,))
    cores_at = {node: len(memory_at) + at for at, node in enumerate(dict.fromkeys((*slack.cpu_cores, *touched)))}
    infinity = float("inf")
    return _Compiled(
        tuple(
            tuple(
                _Choice(
                    option.cost,
                    (
                        *((memory_at[node], amount / GIB) for node, amount in option.added_bytes.items()),
                        *((cores_at[node], cores) for node, cores in option.added_cores.items()),
                    ),
                )
                for option in item
            )
            for item in items
        ),
        (
            *(slack.memory_bytes[node] / GIB if node in slack.memory_bytes else infinity for node in memory_at),
            *(slack.cpu_cores.get(node, infinity) for node in cores_at),
        ),
    )


class _State:
    """One choice for each item, and how much of each node's slack is left."""

    def __init__(self, compiled: _Compiled, most_tries: int) -> None:
        self._items = compiled.items
        self._left = list(compiled.slack)
        self._tries = most_tries
        self.chosen = [0] * len(self._items)
        for item in self._items:
            self._take(item[0], 1.0)

    def over(self) -> float:
        return sum(-left for left in self._left if left < 0)

    def cost(self) -> float:
        return sum(item[number].cost for item, number in zip(self._items, self.chosen, strict=True))

    def place(self, order: Iterable[int]) -> None:
        """Take everything out, and give one item after the other its best option; of equals the tightest."""
        for item, number in zip(self._items, self.chosen, strict=True):
            self._take(item[number], -1.0)
        for number in order:
            item = self._items[number]
            ranked = []
            for new, choice in enumerate(item):
                over, cost = self._change(_NOTHING, choice)
                left = min((self._left[at] - amount for at, amount in choice.added), default=0.0)
                ranked.append((round(over, 6), cost, left, new))
            self.chosen[number] = min(ranked)[-1]
            self._take(item[self.chosen[number]], 1.0)

    def search(self) -> None:
        """Move and swap until nothing gets better, or all tries are used up."""
        while self._tries > 0 and (self._move_all() or self._swap_any()):
            pass

    def _move_all(self) -> bool:
        """Let each item take its best option; return whether any took another one."""
        has_moved = False
        for number in range(len(self._items)):
            if self._tries <= 0:
                break
            new = self._best_of(number)
            if new != self.chosen[number]:
                self._choose(number, new)
                has_moved = True
        return has_moved

    def _best_of(self, number: int) -> int:
        item, old = self._items[number], self.chosen[number]
        best, best_over, best_cost = old, 0.0, 0.0
        for new, choice in enumerate(item):
            if new == old:
                continue
            over, cost = self._change(item[old], choice)
            if _is_better(over - best_over, cost - best_cost):
                best, best_over, best_cost = new, over, cost
        return best

    def _swap_any(self) -> bool:
        """Let items take an option for which others must make way, if all together get better by it.

        Returns whether any did.
        """
        has_swapped = False
        users = self._users()
        for number in sorted(range(len(self._items)), key=self._wish):
            for new in range(len(self._items[number])):
                if self._tries <= 0:
                    return has_swapped
                if new != self.chosen[number] and self._swap_for(number, new, users):
                    has_swapped = True
                    users = self._users()
        return has_swapped

    def _swap_for(self, number: int, new: int, users: Mapping[int, Sequence[int]]) -> bool:
        """Give an item that option, and those that overflow its nodes then their best; undo it if all is not better."""
        item, old = self._items[number], self.chosen[number]
        over, cost = self._change(item[old], item[new])
        if over <= LEAST_OVER and cost >= -LEAST_COST:
            return False  # it needs nobody's place, and wins nothing by itself
        self._choose(number, new)
        undo = [(number, old)]
        for _ in range(MOST_MAKE_WAY):
            way = self._way_for(item[new], {done for done, _ in undo}, users)
            if way is None:
                break
            other, its_new, more_over, more_cost = way
            undo.append((other, self.chosen[other]))
            self._choose(other, its_new)
            over, cost = over + more_over, cost + more_cost
            if _is_better(over, cost):
                return True
        for other, its_old in reversed(undo):
            self._choose(other, its_old)
        return False

    def _way_for(
        self, choice: _Choice, done: AbstractSet[int], users: Mapping[int, Sequence[int]]
    ) -> tuple[int, int, float, float] | None:
        """Return whose other option frees the nodes of a choice best: who, which, and what that changes; or None."""
        full = [at for at, _ in choice.added if self._left[at] < 0]
        best: tuple[int, int, float, float] | None = None
        for other in dict.fromkeys(other for at in full for other in users.get(at, ())):
            if self._tries <= 0:
                break
            its, its_old = self._items[other], self.chosen[other]
            way = its_old if other in done else self._best_of(other)
            if way != its_old:
                over, cost = self._change(its[its_old], its[way])
                if best is None or _is_better(over - best[2], cost - best[3]):
                    best = other, way, over, cost
        return best

    def _users(self) -> dict[int, list[int]]:
        """Return by dimension the items that could take less of it than they do."""
        users: dict[int, list[int]] = {}
        for number, item in enumerate(self._items):
            if len(item) > 1:
                for at in {at for choice in item for at, _ in choice.added}:
                    users.setdefault(at, []).append(number)
        return users

    def _wish(self, number: int) -> tuple[float, int]:
        """Rank first who would win most if there were room everywhere."""
        item = self._items[number]
        return min(choice.cost for choice in item) - item[self.chosen[number]].cost, number

    def _choose(self, number: int, new: int) -> None:
        self._take(self._items[number][self.chosen[number]], -1.0)
        self._take(self._items[number][new], 1.0)
        self.chosen[number] = new

    def _take(self, choice: _Choice, sign: float) -> None:
        for at, amount in choice.added:
            self._left[at] -= sign * amount

    def _change(self, old: _Choice, new: _Choice) -> tuple[float, float]:
        """Return by how much overflow and cost would change."""
        self._tries -= 1
        more: dict[int, float] = {}
        for at, amount in old.added:
            more[at] = more.get(at, 0.0) - amount
        for at, amount in new.added:
            more[at] = more.get(at, 0.0) + amount
        over = 0.0
        for at, amount in more.items():
            left = self._left[at]
            after = left - amount
            if left < 0:
                over += left
            if after < 0:
                over -= after
        return over, new.cost - old.cost


def _is_better(over: float, cost: float) -> bool:
    return over < -LEAST_OVER or (over <= LEAST_OVER and cost < -LEAST_COST)
