"""One simulated process: its threads, its memory, and what it loses at the moment by where they are.

Owns the arithmetic of stalls by the model of the gate. It must not know time, schedulers, or who moves what.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from balancerd.engine.gate import STALL_SHARE
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES
from balancerd.simulation.layout import Layout
from balancerd.simulation.scenario import GroupSection

FIRST_ADDRESS = 0x7F00_0000_0000
GAP_BYTES = 2 << 20
"""Between two mappings, so that no range of one reaches into the next."""


@dataclass(slots=True, eq=False)
class Thread:
    """A thread and where it runs."""

    process: "SimProcess"
    node: NodeId
    cpu_cores: float = 0.0
    """What it wants."""


@dataclass(slots=True, eq=False)
class Part:
    """One mapping. `owner` is the thread that alone uses it, None: all do; a foreign one is mapped by others, too.

    `weight` is its share of all accesses of the process, in the present phase; `born_on` is where its pages lay first.
    """

    start: int
    layout: Layout
    base_weight: float
    begin_ratio: float
    end_ratio: float
    owner: int | None = None
    is_foreign: bool = False
    weight: float = 0.0
    born_on: dict[NodeId, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.start + self.layout.n_pages * PAGE_BYTES


@dataclass(slots=True, eq=False)
class SimProcess:
    """A process; its cores hold since `settled_at`, `run_seconds` are up to then."""

    id: ProcessId
    group: GroupSection
    born_at: float
    threads: list[Thread] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    n_pages: int = 0
    phase: int = 0
    settled_at: float = 0.0
    busy_cores: float = 0.0
    stall_cores: float = 0.0
    local_cores: float = 0.0
    run_seconds: float = 0.0
    run_mark_seconds: float = 0.0
    """What had run when the last survey was made, if it was settled since."""
    version: int = 0
    """Counts what changes of it: a survey need not tell it anew when nothing does."""
    rehomed_at: float = float("-inf")
    """When a thread of it moved last."""
    index: int = 0
    """Its place in the machine's list."""
    is_alive: bool = True
    held_on: NodeId | None = None
    """The node on which its threads are held, None: none."""

    @property
    def nodes(self) -> frozenset[NodeId]:
        """The nodes on which it has a thread."""
        return frozenset(thread.node for thread in self.threads)

    def pages_on(self) -> dict[NodeId, int]:
        """Return its pages by node."""
        found: dict[NodeId, int] = {}
        for part in self.parts:
            for node, pages in part.layout.pages_on.items():
                found[node] = found.get(node, 0) + pages
        return found

    def busy_by_node(self, scale: Sequence[float]) -> dict[NodeId, float]:
        """Return the cores that run on each node; `scale` is the part of what is wanted that a node can give."""
        busy: dict[NodeId, float] = {}
        for thread in self.threads:
            busy[thread.node] = busy.get(thread.node, 0.0) + thread.cpu_cores * scale[thread.node]
        return busy

    def rate(self, scale: Sequence[float], extra: Sequence[Sequence[float]]) -> tuple[float, float, float]:
        """Return busy cores, cores lost to remote memory, and busy cores times the local share of accesses.

        `extra` is the extra distance from node to node, 0 for local, 1.1 at a distance of 21.
        """
        by_node = self.busy_by_node(scale)
        busy = sum(by_node.values())
        lost = local = 0.0
        n_owners = len(self.threads)
        for part in self.parts:
            if not part.weight or not part.layout.n_pages:
                continue
            share = part.weight / part.layout.n_pages
            if part.owner is None:
                users: Iterable[tuple[NodeId, float]] = by_node.items()
            else:
                owner = self.threads[part.owner]
                users = ((owner.node, owner.cpu_cores * scale[owner.node] * n_owners),)
            for i, cores in users:
                row, used = extra[i], cores * share
                for j, pages in part.layout.pages_on.items():
                    if i == j:
                        local += used * pages
                    else:
                        lost += used * pages * row[j]
        return busy, lost * STALL_SHARE * self.group.memory_bound_ratio, local

    def stall_by_node(self, part: Part, scale: Sequence[float], extra: Sequence[Sequence[float]]) -> list[float]:
        """Return the cores that accesses to a mapping would lose if all of it lay on each of the nodes."""
        if part.owner is None:
            users = self.busy_by_node(scale)
        else:
            owner = self.threads[part.owner]
            users = {owner.node: owner.cpu_cores * scale[owner.node] * len(self.threads)}
        each = part.weight * STALL_SHARE * self.group.memory_bound_ratio
        return [each * sum(cores * extra[i][j] for i, cores in users.items()) for j in range(len(extra))]

    def enter_phase(self, number: int) -> None:
        """Begin a phase: how much CPU threads want from now on, and which memory they use."""
        self.phase = number
        phases = self.group.phases
        phase = phases[number] if phases else None
        cores = self.group.cpu_cores if phase is None else phase.cpu_cores
        for thread in self.threads:
            thread.cpu_cores = cores
        low, high = (0.0, 1.0) if phase is None else (phase.from_ratio, phase.to_ratio)
        for part in self.parts:
            used = max(0.0, min(high, part.end_ratio) - max(low, part.begin_ratio))
            part.weight = part.base_weight * used / ((high - low) * (part.end_ratio - part.begin_ratio))


def cut_points(group: GroupSection) -> list[float]:
    """Return where the memory of such processes must be cut so that each phase uses whole mappings."""
    return sorted({0.0, 1.0, *(p.from_ratio for p in group.phases), *(p.to_ratio for p in group.phases)})


def plan_parts(group: GroupSection) -> list[tuple[int, Part]]:
    """Return the mappings of such a process, without pages yet, and how many each is to have."""
    shared = 1.0 - group.private_ratio - group.foreign_ratio
    owners: list[tuple[float, int | None, bool]] = [(shared, None, False)]
    owners += [(group.private_ratio / group.threads, thread, False) for thread in range(group.threads)]
    owners += [(group.foreign_ratio, None, True)]
    points = cut_points(group)
    found: list[tuple[int, Part]] = []
    at = FIRST_ADDRESS
    total = group.memory_bytes // PAGE_BYTES
    for ratio, owner, is_foreign in owners:
        for low, high in itertools.pairwise(points):
            pages = round(total * ratio * (high - low))
            if not pages:
                continue
            weight = ratio * (high - low)
            found.append((pages, Part(at, Layout(()), weight, low, high, owner=owner, is_foreign=is_foreign)))
            at += pages * PAGE_BYTES + GAP_BYTES
    return found
