"""What the best placement would cost: the exact optimum of a moment, as a mixed-integer program for HiGHS.

Each process gets a set of nodes, over which its threads are spread evenly, and memory on any nodes. Processes that are
alike are one variable that counts them. It costs what the simulated machine charges: stalls, CPUs that are asked for
too much, and the moving of memory from where it was born, spread over the duration. SciPy comes with the extra
`balancerd[optimum]`. Must not know the engine.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from balancerd.engine.gate import STALL_SHARE, cost_seconds
from balancerd.model.ids import NodeId
from balancerd.model.sample import PAGE_BYTES
from balancerd.simulation.machine import Machine
from balancerd.simulation.process import SimProcess
from balancerd.simulation.run import build_machine
from balancerd.simulation.scenario import GroupSection, Scenario

MOMENTS: Final = 12
"""So many moments are solved, evenly spread over the duration; those that are alike only once."""

MOST_SET_NODES: Final = 8
"""On larger machines sets of more than two nodes are left out, but for the set of all: there would be 2^n."""

MOST_CHOICES: Final = 40_000
"""More of them are not tried: it would take hours."""

SOLVE_SECONDS: Final = 20.0
GAP_RATIO: Final = 1e-4
GIB: Final = 1 << 30
GIB_OF_A_PAGE: Final = PAGE_BYTES / GIB

Distribution = tuple[tuple[NodeId, int], ...]


class NoSolverError(Exception):
    """SciPy is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """CPU seconds that the best placement loses over the whole duration; below it nobody can come, if it `is_exact`.

    If not, larger sets of nodes were left out, or time was up and it is the solver's bound. `why_not` tells why there
    is none at all.
    """

    lost_seconds: float | None
    is_exact: bool = True
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Processes that are alike: what they want, and where their memory was born. Foreign memory stays there."""

    group: GroupSection
    phase: int
    cpu_cores: float
    born_on: Distribution
    foreign_on: Distribution
    shared_pages: int
    private_pages: int


@dataclass(frozen=True, slots=True)
class _Choice:
    """One set of nodes for the threads of one kind of process."""

    kind: int
    nodes: tuple[NodeId, ...]


def find_optimum(scenario: Scenario, seed: int) -> Optimum:
    """Return the optimum of a scenario, averaged over moments of its life with nobody who moves memory.

    Raises NoSolverError.
    """
    if find_spec("scipy") is None:
        raise NoSolverError("SciPy is not installed: pip install 'balancerd[optimum]'")
    machine = build_machine(scenario, seed)
    known: dict[tuple[tuple[_Kind, int], ...], tuple[float, bool] | str] = {}
    total, is_exact = 0.0, True
    for number in range(MOMENTS):
        machine.advance((number + 0.5) * scenario.duration_seconds / MOMENTS)
        kinds = _kinds(machine)
        if kinds not in known:
            known[kinds] = _solve(machine, kinds, scenario.duration_seconds)
        found = known[kinds]
        if isinstance(found, str):
            return Optimum(lost_seconds=None, is_exact=False, why_not=found)
        total += found[0] / MOMENTS
        is_exact = is_exact and found[1]
    return Optimum(lost_seconds=total, is_exact=is_exact)


def _kinds(machine: Machine) -> tuple[tuple[_Kind, int], ...]:
    counts: dict[_Kind, int] = {}
    for process in machine.list:
        kind = _kind(process)
        counts[kind] = counts.get(kind, 0) + 1
    return tuple(sorted(counts.items(), key=repr))


def _kind(process: SimProcess) -> _Kind:
    born: dict[NodeId, int] = {}
    foreign: dict[NodeId, int] = {}
    shared = private = 0
    for part in process.parts:
        held = foreign if part.is_foreign else born
        for node, pages in part.born_on.items():
            held[node] = held.get(node, 0) + pages
        shared += 0 if part.is_foreign or part.owner is not None else part.layout.n_pages
        private += 0 if part.owner is None else part.layout.n_pages
    cores = process.threads[0].cpu_cores
    return _Kind(
        process.group,
        process.phase,
        cores,
        tuple(sorted(born.items())),
        tuple(sorted(foreign.items())),
        shared,
        private,
    )


def _sets(kind: _Kind, machine: Machine) -> Iterator[tuple[NodeId, ...]]:
    """Yield the sets of nodes that a process may have, as large as it has threads at most."""
    group = kind.group
    nodes = [node.id for node in machine.nodes if group.allowed is None or node.id in group.allowed]
    largest = min(len(nodes), group.threads)
    for size in range(1, largest + 1):
        if len(nodes) <= MOST_SET_NODES or size <= 2 or size == len(nodes):
            yield from itertools.combinations(nodes, size)


def _solve(machine: Machine, kinds: Sequence[tuple[_Kind, int]], seconds: float) -> tuple[float, bool] | str:
    """Return the CPU seconds that the best placement loses, and whether that is exact; or why it is not known."""
    choices = [_Choice(k, nodes) for k, (kind, _) in enumerate(kinds) for nodes in _sets(kind, machine)]
    if len(choices) * len(machine.nodes) > MOST_CHOICES:
        return f"{len(choices)} choices of nodes are too many to try"
    if not choices:
        return 0.0, True
    program = _Program(machine, kinds, choices, seconds)
    found = program.solve()
    whole = all(len(machine.nodes) <= MOST_SET_NODES or kind.group.threads <= 2 for kind, _ in kinds)
    return found if isinstance(found, str) else (found[0], found[1] and whole)


class _Program:
    """The program: for each choice how many take it, and the GiB on each node; for each kind and node those that came.

    It costs CPU seconds over the duration; in pages and cores, numbers would be below the solver's tolerances.
    """

    def __init__(
        self, machine: Machine, kinds: Sequence[tuple[_Kind, int]], choices: Sequence[_Choice], seconds: float
    ) -> None:
        self._machine, self._kinds, self._choices = machine, kinds, choices
        self._seconds = seconds
        n_nodes = len(machine.nodes)
        self._n_choices = len(choices)
        # variables: a count for each choice, then what is held by choice and node, what came by kind and node, overload
        self._held_at = self._n_choices
        self._came_at = self._held_at + self._n_choices * n_nodes
        self._over_at = self._came_at + len(kinds) * n_nodes
        self._n = self._over_at + n_nodes
        self._rows: list[tuple[dict[int, float], float, float]] = []

    def solve(self) -> tuple[float, bool] | str:
        """Return the least cost, and whether it is proven; or why there is none."""
        # Here and not at the top: it is an extra, and takes long to import.
        import numpy as np  # noqa: PLC0415
        from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415
        from scipy.sparse import csr_array  # noqa: PLC0415

        cost, upper, integral = self._variables()
        self._constrain()
        data: list[float] = []
        row_of: list[int] = []
        column_of: list[int] = []
        for number, (row, _, _) in enumerate(self._rows):
            data += row.values()
            column_of += row.keys()
            row_of += [number] * len(row)
        matrix = csr_array((data, (row_of, column_of)), shape=(len(self._rows), self._n))
        lows, highs = ([row[side] for row in self._rows] for side in (1, 2))
        found: Any = milp(
            c=np.array(cost),
            integrality=np.array(integral),
            bounds=Bounds(0.0, np.array(upper)),
            constraints=LinearConstraint(matrix, np.array(lows), np.array(highs)),
            options={"time_limit": SOLVE_SECONDS, "mip_rel_gap": GAP_RATIO},
        )
        if found.x is not None and found.status == 0:
            return float(found.fun), True
        bound = getattr(found, "mip_dual_bound", None)
        if found.status == 1 and bound is not None:
            return max(0.0, float(bound)), False
        return "the memory of all processes does not fit beside the watermarks"

    def _variables(self) -> tuple[list[float], list[float], list[int]]:
        """Return cost, upper bound, and whether it is whole, of each variable."""
        cost, upper = [0.0] * self._n, [float("inf")] * self._n
        integral = [1] * self._n_choices + [0] * (self._n - self._n_choices)
        per_gib = cost_seconds(GIB, self._machine.section.bandwidth_bytes_per_second)
        for number, choice in enumerate(self._choices):
            kind, count = self._kinds[choice.kind]
            upper[number] = float(count)
            away = self._extra_from(choice.nodes)
            cores = kind.cpu_cores * kind.group.threads * STALL_SHARE * kind.group.memory_bound_ratio
            foreign = sum(pages for _, pages in kind.foreign_on)
            total = max(1, kind.shared_pages + kind.private_pages + foreign) * GIB_OF_A_PAGE
            lost = cores * self._seconds / total
            cost[number] = lost * sum(pages * GIB_OF_A_PAGE * away[node] for node, pages in kind.foreign_on)
            for node in range(len(away)):
                cost[self._held(number, node)] = lost * away[node]
        for number in range(len(self._kinds) * len(self._machine.nodes)):
            cost[self._came_at + number] = per_gib
        for node in range(len(self._machine.nodes)):
            cost[self._over_at + node] = self._seconds
        return cost, upper, integral

    def _constrain(self) -> None:
        nodes, infinity = self._machine.nodes, float("inf")
        cpu: list[dict[int, float]] = [{self._over_at + node: -1.0} for node in range(len(nodes))]
        memory: list[dict[int, float]] = [{} for _ in nodes]
        taken: list[dict[int, float]] = [{} for _ in self._kinds]
        came: list[list[dict[int, float]]] = [
            [{self._came(k, node): -1.0} for node in range(len(nodes))] for k in range(len(self._kinds))
        ]
        for number, choice in enumerate(self._choices):
            kind, _ = self._kinds[choice.kind]
            taken[choice.kind][number] = 1.0
            for used in choice.nodes:
                cpu[used][number] = kind.cpu_cores * kind.group.threads / len(choice.nodes)
            whole = {self._held(number, node): 1.0 for node in range(len(nodes))}
            self._rows.append(({**whole, number: -kind.shared_pages * GIB_OF_A_PAGE}, 0.0, 0.0))
            private = kind.private_pages * GIB_OF_A_PAGE / len(choice.nodes)
            for node in range(len(nodes)):
                memory[node][self._held(number, node)] = 1.0
                came[choice.kind][node][self._held(number, node)] = 1.0
            for used in choice.nodes if private else ():
                memory[used][number] = private
                came[choice.kind][used][number] = private
        for k, (kind, count) in enumerate(self._kinds):
            self._rows.append((taken[k], float(count), float(count)))
            born = dict(kind.born_on)
            for node in range(len(nodes)):
                self._rows.append((came[k][node], -infinity, count * born.get(NodeId(node), 0) * GIB_OF_A_PAGE))
        fixed = self._foreign_pages()
        for node, its in enumerate(nodes):
            self._rows.append((cpu[node], -infinity, float(len(its.cpus))))
            system = int(self._machine.section.used_ratio * its.n_pages)
            room = its.n_pages - its.high_pages - system - fixed[node]
            self._rows.append((memory[node], -infinity, room * GIB_OF_A_PAGE))

    def _foreign_pages(self) -> Mapping[int, int]:
        found = dict.fromkeys(range(len(self._machine.nodes)), 0)
        for kind, count in self._kinds:
            for node, pages in kind.foreign_on:
                found[node] += count * pages
        return found

    def _extra_from(self, nodes: Sequence[NodeId]) -> list[float]:
        """Return the mean extra distance to each node from some nodes."""
        extra = self._machine.extra
        return [sum(extra[i][j] for i in nodes) / len(nodes) for j in range(len(extra))]

    def _held(self, choice: int, node: int) -> int:
        return self._held_at + choice * len(self._machine.nodes) + node

    def _came(self, kind: int, node: int) -> int:
        return self._came_at + kind * len(self._machine.nodes) + node
