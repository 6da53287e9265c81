"""The machine as it lives: nodes with CPUs and memory, processes on them, and what happens when.

Time passes from event to event; between two of them everything goes on at the same rate, so that a process costs
nothing while nothing changes for it. Owns the accounts: memory of nodes, load, and seconds lost. It must not know the
engine, nor how schedulers choose.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from balancerd.engine.gate import cost_seconds
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.topology import LOCAL_DISTANCE, Node, NodeMemory, Topology
from balancerd.simulation.layout import Layout, Moved
from balancerd.simulation.process import Part, SimProcess, Thread
from balancerd.simulation.scenario import MachineSection

LEAST_CHANGE = 1e-9
"""Of load: what is less is the error of adding up."""


class OnChange(Protocol):
    """Hears of a process just after it changed, or ended."""

    def __call__(self, process: SimProcess, /, *, is_alive: bool) -> None:
        """Take note."""


@dataclass(slots=True, eq=False)
class SimNode:
    """One node. `demand_cores` is what its threads want together, `overload_seconds` what they did not get so far."""

    id: NodeId
    cpus: frozenset[CpuId]
    n_pages: int
    min_pages: int
    """Free memory that only the kernel itself may take."""
    high_pages: int
    used_pages: int
    demand_cores: float = 0.0
    overload_seconds: float = 0.0
    settled_at: float = 0.0
    members: dict[SimProcess, int] = field(default_factory=dict)
    """The processes that have threads here, and how many."""

    @property
    def free_pages(self) -> int:
        """Pages that nobody holds."""
        return self.n_pages - self.used_pages

    @property
    def room_pages(self) -> int:
        """Pages that a process or a move may still get."""
        return max(0, self.free_pages - self.min_pages)

    @property
    def idle_cores(self) -> float:
        """What its CPUs could still give; below zero when they are asked for more than they have."""
        return len(self.cpus) - self.demand_cores


@dataclass(slots=True)
class Accounts:
    """Sums since the beginning. CPU seconds: run, lost to remote memory, to moving, and to waiting for a CPU."""

    run_seconds: float = 0.0
    stall_seconds: float = 0.0
    moving_seconds: float = 0.0
    overload_seconds: float = 0.0
    moved_bytes: int = 0
    returned_bytes: int = 0
    hasty_bytes: int = 0
    """Of those returned, what had left a moment ago; see layout."""
    oscillated_bytes: int = 0
    """Of those returned, what had left since a thread of its process moved last: nothing was a cause to return."""
    births: int = 0
    refused_births: int = 0
    """Processes for which there was no memory."""
    thread_moves: int = 0

    @property
    def lost_seconds(self) -> float:
        """What it all cost."""
        return self.stall_seconds + self.moving_seconds + self.overload_seconds


class Machine:
    """Nodes and processes. `advance` lets time pass; everything else happens at the present."""

    def __init__(self, section: MachineSection) -> None:
        self.section = section
        self.now = 0.0
        self.surveyed_at = -1.0
        ids = [NodeId(n) for n in range(section.nodes)]
        self.topology = _topology(section, ids)
        self.extra: list[list[float]] = [
            [section.distance_between(i, j) / LOCAL_DISTANCE - 1.0 for j in ids] for i in ids
        ]
        self.nearest = [sorted(ids, key=list(zip(row, ids, strict=True)).__getitem__) for row in self.extra]
        self.nodes = [_node(section, node) for node in self.topology.nodes]
        self.scale = [1.0] * len(ids)
        self.processes: dict[ProcessId, SimProcess] = {}
        self.list: list[SimProcess] = []
        self.accounts = Accounts()
        self._rates = [0.0, 0.0, 0.0]
        """Busy, stalled and locally served cores of all processes together, since `_summed_at`."""
        self._summed_at = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._causes: list[float] = []
        self._numbers = itertools.count()
        self.on_change: OnChange = _ignore
        """Is told of each process that costs otherwise from now on, or no more."""

    def at(self, when: float, what: Callable[[], None], *, answers: bool = False) -> None:
        """Have something happen at a time to come. `answers`: it does nothing unless something else did before."""
        heapq.heappush(self._events, (when, next(self._numbers), what))
        if not answers:
            heapq.heappush(self._causes, when)

    def next_cause_at(self) -> float:
        """Return when something happens next that is no answer to anything before."""
        while self._causes and self._causes[0] <= self.now:
            heapq.heappop(self._causes)
        return self._causes[0] if self._causes else float("inf")

    def advance(self, now: float) -> None:
        """Let time pass until `now`."""
        while self._events and self._events[0][0] <= now:
            when, _, what = heapq.heappop(self._events)
            self.now = max(self.now, when)
            what()
        self.now = max(self.now, now)

    def room_for(self, node: NodeId, pages: int) -> int:
        """Return how many of so many pages the node has room for."""
        return min(pages, self.nodes[node].room_pages)

    def add(self, process: SimProcess, plan: Sequence[tuple[int, Part]], lies_on: Sequence[NodeId] | None) -> bool:
        """Give a process its memory and let it run. Without room for all of it on any node it is refused.

        `lies_on` says where it is to lie, in equal parts; else each part lies where its threads are. What finds no room
        lies on the nearest node that has some.
        """
        if sum(pages for pages, _ in plan) > sum(node.room_pages for node in self.nodes):
            self.accounts.refused_births += 1
            return False
        for pages, part in plan:
            part.layout = Layout(self._allocate(pages, self._wanted(process, part, lies_on)))
            part.born_on = dict(part.layout.pages_on)
            process.parts.append(part)
            process.n_pages += part.layout.n_pages
        process.enter_phase(process.phase)
        process.settled_at = self.now
        process.index = len(self.list)
        self.list.append(process)
        self.processes[process.id] = process
        self.accounts.births += 1
        for thread in process.threads:
            members = self.nodes[thread.node].members
            members[process] = members.get(process, 0) + 1
        self._load(process, +1.0)
        self._rerate(process)
        return True

    def remove(self, process: SimProcess) -> None:
        """End a process and take its memory back."""
        self.settle(process)
        self._load(process, -1.0)
        self._take_rates(process, (0.0, 0.0, 0.0))
        for node in process.nodes:
            del self.nodes[node].members[process]
        for part in process.parts:
            for node, pages in part.layout.pages_on.items():
                self.nodes[node].used_pages -= pages
        self.on_change(process, is_alive=False)
        last = self.list.pop()
        if last is not process:
            self.list[process.index], last.index = last, process.index
        del self.processes[process.id]
        process.is_alive = False

    def enter_phase(self, process: SimProcess, number: int) -> None:
        """Begin a phase of a process."""
        self._load(process, -1.0)
        process.enter_phase(number)
        self._load(process, +1.0)
        self._rerate(process)

    def move_thread(self, thread: Thread, node: NodeId) -> None:
        """Let a thread run elsewhere from now on."""
        if thread.node == node:
            return
        process, before = thread.process, thread.node
        self.settle(process)
        self._change_load(before, -thread.cpu_cores)
        members = self.nodes[before].members
        members[process] -= 1
        if not members[process]:
            del members[process]
        thread.node, process.rehomed_at = node, self.now
        there = self.nodes[node].members
        there[process] = there.get(process, 0) + 1
        self._change_load(node, thread.cpu_cores)
        self.accounts.thread_moves += 1
        self._rerate(process)

    def move_pages(self, process: SimProcess, part: Part, pages: range, target: NodeId, most_pages: int) -> Moved:
        """Move these pages of a part to a node, `most_pages` of them at most, which must have room for as many."""
        self.settle(process)
        moved = part.layout.move(pages, target, most_pages, self.now, calm_since=process.rehomed_at)
        if not moved.moved_pages:
            return moved
        for _, n_pages, source in moved.runs:
            self.nodes[source].used_pages -= n_pages
        self.nodes[target].used_pages += moved.moved_pages
        moved_bytes = moved.moved_pages * PAGE_BYTES
        self.accounts.moved_bytes += moved_bytes
        self.accounts.returned_bytes += moved.returned_pages * PAGE_BYTES
        self.accounts.hasty_bytes += moved.hasty_pages * PAGE_BYTES
        self.accounts.oscillated_bytes += moved.oscillated_pages * PAGE_BYTES
        self.accounts.moving_seconds += cost_seconds(moved_bytes, self.section.bandwidth_bytes_per_second)
        self._rerate(process)
        return moved

    def settle(self, process: SimProcess) -> None:
        """Bring the account of one process up to the present."""
        if process.settled_at <= self.surveyed_at:
            since = self.surveyed_at - process.settled_at
            process.run_mark_seconds = process.run_seconds + process.busy_cores * since
        seconds = self.now - process.settled_at
        process.run_seconds += process.busy_cores * seconds
        process.settled_at = self.now

    def settled(self) -> Accounts:
        """Return the accounts, brought up to the present."""
        self._sum_up()
        for node in self.nodes:
            self._settle_node(node)
        self.accounts.overload_seconds = sum(node.overload_seconds for node in self.nodes)
        return self.accounts

    def local_ratio(self) -> float | None:
        """Return the share of accesses that are local at the moment, None when nobody runs."""
        busy, _, local = self._rates
        return min(1.0, local / busy) if busy > LEAST_CHANGE else None

    def memory(self) -> dict[NodeId, NodeMemory]:
        """Return the memory of all nodes as /proc and /sys would tell it."""
        return {
            node.id: NodeMemory(
                node=node.id,
                total_bytes=node.n_pages * PAGE_BYTES,
                free_bytes=node.free_pages * PAGE_BYTES,
                inactive_file_bytes=0,
                high_watermark_bytes=node.high_pages * PAGE_BYTES,
            )
            for node in self.nodes
        }

    def _wanted(self, process: SimProcess, part: Part, lies_on: Sequence[NodeId] | None) -> list[NodeId]:
        if lies_on is not None:
            return list(lies_on)
        if part.owner is not None:
            return [process.threads[part.owner].node]
        return sorted(process.nodes)

    def _allocate(self, pages: int, nodes: Sequence[NodeId]) -> Iterable[tuple[int, NodeId]]:
        """Yield how many pages each node gives, in equal parts or, where it is full, its nearest ones."""
        left = pages
        for number, wanted in enumerate(nodes):
            share = left // (len(nodes) - number)
            left -= share
            for node in self.nearest[wanted]:
                given = self.room_for(node, share)
                share -= given
                self.nodes[node].used_pages += given
                yield given, node
                if not share:
                    break

    def _load(self, process: SimProcess, sign: float) -> None:
        self.settle(process)
        by_node: dict[NodeId, float] = {}
        for thread in process.threads:
            by_node[thread.node] = by_node.get(thread.node, 0.0) + thread.cpu_cores
        for node, cores in by_node.items():
            self._change_load(node, sign * cores)

    def _change_load(self, node_id: NodeId, cores: float) -> None:
        """Let a node have more or less to do. When it is too much, what all of its threads get changes."""
        node = self.nodes[node_id]
        self._settle_node(node)
        node.demand_cores = max(0.0, node.demand_cores + cores)
        n_cpus = len(node.cpus)
        scale = 1.0 if node.demand_cores <= n_cpus + LEAST_CHANGE else n_cpus / node.demand_cores
        if abs(scale - self.scale[node_id]) > LEAST_CHANGE:
            for process in node.members:
                self.settle(process)
            self.scale[node_id] = scale
            for process in node.members:
                self._rerate(process)

    def _settle_node(self, node: SimNode) -> None:
        over = max(0.0, node.demand_cores - len(node.cpus))
        if over > LEAST_CHANGE:
            node.overload_seconds += over * (self.now - node.settled_at)
        node.settled_at = self.now

    def _rerate(self, process: SimProcess) -> None:
        self._take_rates(process, process.rate(self.scale, self.extra))
        process.version += 1
        self.on_change(process, is_alive=True)

    def _take_rates(self, process: SimProcess, rates: tuple[float, float, float]) -> None:
        """Let a process run, stall and be served locally at other rates from now on."""
        self._sum_up()
        before = (process.busy_cores, process.stall_cores, process.local_cores)
        self._rates = [total + new - old for total, new, old in zip(self._rates, rates, before, strict=True)]
        process.busy_cores, process.stall_cores, process.local_cores = rates

    def _sum_up(self) -> None:
        seconds, self._summed_at = self.now - self._summed_at, self.now
        self.accounts.run_seconds += self._rates[0] * seconds
        self.accounts.stall_seconds += self._rates[1] * seconds


def _ignore(_process: SimProcess, /, *, is_alive: bool) -> None:
    del is_alive


def _topology(section: MachineSection, ids: Sequence[NodeId]) -> Topology:
    nodes = tuple(
        Node(
            id=n,
            cpus=frozenset(CpuId(n * section.cpus + cpu) for cpu in range(section.cpus)),
            total_bytes=section.memory_bytes,
            distances={m: section.distance_between(n, m) for m in ids},
        )
        for n in ids
    )
    return Topology(nodes=nodes, node_of_cpu={cpu: node.id for node in nodes for cpu in node.cpus})


def _node(section: MachineSection, node: Node) -> SimNode:
    """Return a node with the watermarks that the kernel would give it.

    mm/page_alloc.c: min_free_kbytes is the root of 16 times the kilobytes of all memory, at most 256 MiB, and the
    distance from one watermark to the next a thousandth of the node, unless a quarter of its part of min is more.
    """
    total_kib = section.memory_bytes * section.nodes >> 10
    min_bytes = min(int((16 * total_kib) ** 0.5), 262_144) * 1024 // section.nodes
    step_bytes = max(min_bytes // 4, section.memory_bytes // 1000)
    n_pages = section.memory_bytes // PAGE_BYTES
    return SimNode(
        id=node.id,
        cpus=node.cpus,
        n_pages=n_pages,
        min_pages=min_bytes // PAGE_BYTES,
        high_pages=(min_bytes + 2 * step_bytes) // PAGE_BYTES,
        used_pages=int(section.used_ratio * n_pages),
    )
