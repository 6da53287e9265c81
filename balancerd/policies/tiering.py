"""tiering: memory-only nodes keep what is used little, and nodes with CPUs what is used much.

By heat, or by samples of accesses where nobody looks at heat. What is hot and lies on a memory-only node goes to the
node where its threads run, if that pays; what is cold leaves a node with CPUs only while that one lacks room. What is
in between stays. Where memory lies is an estimate, so that what becomes no less by asking is left alone for a while.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from balancerd.config.fields import Ratio, between
from balancerd.config.units import format_ratio
from balancerd.engine.copying import move_cost_seconds
from balancerd.engine.gate import HORIZON_SECONDS, is_worth
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.engine.pieces import Piece, pieces
from balancerd.engine.room import SMALLEST_STEP_BYTES, Room, nearest
from balancerd.engine.swings import PATIENCE_SECONDS
from balancerd.engine.tiers import BINS, fast_nodes, is_cold, mean_extra_latency, slow_nodes, spare_bytes, threshold
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.extent import joined
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.machine import Machine
from balancerd.model.sample import PAGE_BYTES, ProcessSample, Snapshot, Window
from balancerd.policies.tiered import Move, Seen, Wishes, extents_of, hottest_waiting, parts_to_ask_for
from balancerd.policies.warming import Warming, WarmingOptions
from balancerd.policies.watching import format_mib
from balancerd.ports import PolicyContext

LEAST_RATIO = 0.01
"""Less than this share of its memory in the wrong place is noise of the sample."""


class TieringOptions(WarmingOptions):
    """Options of a `tiering` policy."""

    headroom_ratio: Annotated[Ratio, between(0.0, 0.9, format_ratio)] = Field(
        default=0.02,
        description="Share of a node with CPUs to keep free beside watermark and reserve, by demoting cold memory.",
    )


class Tiering:
    """The policy; see the module's docstring. Remembers heat and wishes of each process, and where it runs."""

    def __init__(self, name: str, options: TieringOptions, context: PolicyContext) -> None:
        self._name = name
        self._options = options
        self._warming = Warming(name, options)
        self._watermark_ratio = context.watermark_ratio
        self._bytes_per_second = context.migration_bytes_per_second
        self._memories: dict[ProcessId, Wishes] = {}
        self._machine: Machine | None = None

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    def watch(self, snapshot: Snapshot) -> Iterable[ProcessId]:
        """Return those with memory on slow nodes, or whose home lacks room: the busiest first."""
        self._observe(snapshot)
        slow = slow_nodes(snapshot.survey.topology, self._machine)
        if not slow:
            return ()
        short = frozenset(node for node, spare in self._spare(snapshot).items() if spare < 0)
        wanted = [p for p in snapshot.eligible if self._is_concerned(p, snapshot, slow | short)]
        return tuple(p.id for p in sorted(wanted, key=lambda p: (-(p.cpu_cores or 0.0), p.id)))

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible process, or one decision for each way that parts of it go."""
        now = window.now
        self._observe(now)
        topology = now.survey.topology
        slow, fast = slow_nodes(topology, self._machine), fast_nodes(topology)
        looks = [self._look(process, now, slow, fast) for process in now.eligible]
        seen = [each for each in looks if isinstance(each, Seen)]
        limits = self._thresholds(seen, now, slow, fast)
        self._demote(seen, limits, now, slow)
        self._promote(seen, limits, now, slow, fast)
        verdicts: list[Verdict] = []
        for look in looks:
            verdicts += self._conclude(look, now, slow) if isinstance(look, Seen) else [look]
        return tuple(verdicts)

    def _observe(self, now: Snapshot) -> None:
        self._warming.observe(now)
        self._machine = now.survey.machine or self._machine
        alive = {process.id for process in now.survey.processes}
        self._memories = {process: memory for process, memory in self._memories.items() if process in alive}

    def _spare(self, now: Snapshot) -> dict[NodeId, int]:
        """Return what each node has beyond what it is to keep free."""
        watermark, headroom = self._watermark_ratio, self._options.headroom_ratio
        fast = fast_nodes(now.survey.topology)
        return {n: spare_bytes(m, watermark, headroom) for n, m in now.survey.memory.items() if n in fast}

    def _is_concerned(self, process: ProcessSample, now: Snapshot, nodes: frozenset[NodeId]) -> bool:
        placement = now.placements.get(process.id)
        if placement is None or process.rss_bytes < self._options.min_rss_bytes:
            return False
        held = movable_bytes_by_node(placement)
        return sum(held.get(node, 0) for node in nodes) >= LEAST_RATIO * sum(held.values()) > 0

    def _look(
        self, process: ProcessSample, now: Snapshot, slow: frozenset[NodeId], fast: frozenset[NodeId]
    ) -> Seen | Skip:
        """Return what is known of a process, or why that is not enough."""
        if not slow or not fast:
            return self._skip(process, Reason.ONE_TIER)
        warmed = self._warming.look(process, now)
        if isinstance(warmed, Skip):
            return replace(warmed, holds=self._will_be_known(process, now, slow))
        if not warmed.run:
            return self._skip(process, Reason.NO_HOME)
        memory = self._memories.setdefault(process.id, Wishes())
        held = movable_bytes_by_node(warmed.placement)
        away, total = sum(held.get(node, 0) for node in slow), sum(held.values())
        memory.up.look(away, total, now.taken_at)
        memory.down.look(total - away, total, now.taken_at)
        topology = now.survey.topology
        extra = {node: mean_extra_latency(warmed.run, node, topology, self._machine) for node in slow | fast}
        return Seen(warmed, memory, pieces(warmed.placement, warmed.regions), held, extra)

    def _will_be_known(self, process: ProcessSample, now: Snapshot, slow: frozenset[NodeId]) -> bool:
        """Return whether memory on slow nodes, and otherwise on one node, is to wait until its heat is known."""
        placement = now.placements.get(process.id)
        if placement is None or process.id not in now.heats.windows:
            return False
        held = movable_bytes_by_node(placement)
        least = LEAST_RATIO * sum(held.values())
        away = sum(size for node, size in held.items() if node in slow)
        return away >= least > 0 and sum(size >= least for node, size in held.items() if node not in slow) <= 1

    def _thresholds(
        self, seen: Iterable[Seen], now: Snapshot, slow: frozenset[NodeId], fast: frozenset[NodeId]
    ) -> dict[NodeId, int]:
        """Return for each home the lowest bin whose memory, with all that is hotter, fits there."""
        bins = {node: [0.0] * BINS for node in now.survey.topology.node_ids}
        there: dict[NodeId, float] = dict.fromkeys(bins, 0.0)
        for each in seen:
            for piece in each.pieces:
                on_home = piece.held.get(each.home, 0.0)
                there[each.home] += on_home
                bins[each.home][piece.bin] += on_home + sum(piece.held.get(node, 0.0) for node in slow)
        spare = self._spare(now)
        return {node: threshold(bins[node], there[node] + spare.get(node, 0)) if node in fast else 0 for node in bins}

    def _demote(
        self,
        seen: Iterable[Seen],
        limits: Mapping[NodeId, int],
        now: Snapshot,
        slow: frozenset[NodeId],
    ) -> None:
        """Let the coldest memory leave the nodes that lack room, as much as they lack.

        What would be brought up again leaves only where something much hotter waits for its place.
        """
        lacking = {node: -spare for node, spare in self._spare(now).items() if spare < 0}
        room = Room(now.survey, self._watermark_ratio)
        waiting = hottest_waiting(seen, slow) if lacking else {}
        moves = [
            self._move(each, part, frozenset({node}), now)
            for each in (seen if lacking else ())
            for piece in each.pieces
            if is_cold(piece.bin, limits[each.home]) or (limits[each.home] and piece.is_idle)
            for node in sorted(piece.held.keys() & lacking.keys())
            for part in parts_to_ask_for(piece, each.memory.down)
        ]
        for whole in sorted(moves, key=lambda move: (move.piece.heat, move.seen.process.id, move.piece.extent)):
            each, (node,) = whole.seen, whole.sources
            if lacking[node] < SMALLEST_STEP_BYTES:
                continue
            allowed = nearest(node, _allowed(each.process, slow), now.survey.topology)
            target = room.take(allowed, min(whole.n_bytes, lacking[node]))
            if target is None:
                each.full += whole.n_bytes
                continue
            if whole.piece.bin >= waiting.get(each.home, 0) - 1 and self._is_used(whole, target, now):
                each.in_use += whole.n_bytes
                continue
            part = whole.piece.first(lacking[node] / whole.n_bytes)
            move = self._move(each, part, whole.sources, now, to=target)
            lacking[node] -= move.n_bytes
            each.moves.setdefault((Reason.DEMOTION, target), []).append(move)

    def _is_used(self, move: Move, target: NodeId, now: Snapshot) -> bool:
        """Return whether it was in use lately, and would lose half of what brings it back, or more, on a target."""
        each, piece = move.seen, move.piece
        if piece.is_idle:
            return False
        loss = -each.gain(piece, move.sources, target)
        cost = self._move(each, piece, move.sources, now, to=target).cost
        return is_worth(2.0 * loss, cost, HORIZON_SECONDS)

    def _promote(
        self,
        seen: Iterable[Seen],
        limits: Mapping[NodeId, int],
        now: Snapshot,
        slow: frozenset[NodeId],
        fast: frozenset[NodeId],
    ) -> None:
        """Let memory leave the slow nodes that is worth a fast one: what is hot, and into headroom nothing else."""
        room, spare = Room(now.survey, self._watermark_ratio), self._spare(now)
        found: list[Move] = []
        for each in seen:
            targets = each.nearest(_allowed(each.process, fast))
            for piece in each.pieces if targets else ():
                sources = frozenset(piece.held.keys() & slow)
                if not sources or is_cold(piece.bin, limits[each.home]) or not piece.is_steady:
                    continue
                for part in parts_to_ask_for(piece, each.memory.up):
                    gain = each.gain(part, sources, targets[0])
                    move = self._move(each, part, sources, now, to=targets[0], gain=gain)
                    if not is_worth(gain, move.cost, HORIZON_SECONDS):
                        each.not_worth += move.n_bytes
                    elif gain * each.warmed.watched_seconds < move.cost:  # as access waits
                        each.waiting += move.n_bytes
                    else:
                        found.append(move)
        left = dict.fromkeys((id(move.seen) for move in found), self._bytes_per_tick(now))
        for move in sorted(found, key=lambda move: (-move.gain / move.cost, move.seen.process.id, move.piece.extent)):
            each = move.seen
            if left[id(each)] <= 0:
                continue
            is_hot, worst = move.piece.bin >= limits[each.home], min(each.extra[node] for node in move.sources)
            targets = [n for n in each.nearest(_allowed(each.process, fast)) if each.extra[n] < worst]
            target = room.take([n for n in targets if is_hot or spare.get(n, 0) >= move.n_bytes], move.n_bytes)
            if target is None:
                each.full += move.n_bytes
            else:
                spare[target] = spare.get(target, 0) - move.n_bytes
                left[id(each)] -= move.n_bytes
                each.moves.setdefault((Reason.PROMOTION, target), []).append(move)

    def _move(
        self,
        seen: Seen,
        piece: Piece,
        sources: frozenset[NodeId],
        now: Snapshot,
        *,
        to: NodeId | None = None,
        gain: float = 0.0,
    ) -> Move:
        """Return a move with its cost; that of one of which it is not known where `to` is not told."""
        away = {node: max(PAGE_BYTES, round(piece.held[node])) for node in sources}
        cost = 0.0 if to is None else move_cost_seconds(away, to, now.copying, self._bytes_per_second)
        return Move(seen, piece, sources, sum(away.values()), gain, cost)

    def _bytes_per_tick(self, now: Snapshot) -> float:
        return self._bytes_per_second * (now.survey.interval_seconds or 1.0)

    def _conclude(self, each: Seen, now: Snapshot, slow: frozenset[NodeId]) -> Iterator[Verdict]:
        """Yield what is to happen with one process, after a look at what was wanted of it before."""
        memory, at = each.memory, now.taken_at
        away = sum(size for node, size in each.held.items() if node in slow)
        total = sum(each.held.values())
        # memory on a wrong node with CPUs is for follow-cpu, unless it is there for want of room
        elsewhere = sum(size for node, size in each.held.items() if node not in slow and node != each.home)
        is_full = Room(now.survey, self._watermark_ratio).left(each.home) < SMALLEST_STEP_BYTES
        holds = away >= LEAST_RATIO * total and (elsewhere < LEAST_RATIO * total or is_full)
        up, down = (extents_of(each, reason) for reason in (Reason.PROMOTION, Reason.DEMOTION))
        pause = memory.swings.want(up, down, at)
        if pause:
            up = down = ()
        # while memory of one process goes both ways, what is left tells less
        patience = PATIENCE_SECONDS * (3.0 if up and down else 1.0)
        memory.up.want(up, away, at, patience)
        memory.down.want(down, total - away, at, patience)
        if pause:
            told = f"{memory.swings.told}; again in {pause:.0f} s"
            yield self._skip(each.process, Reason.PING_PONG, told, holds=holds)
        elif each.moves:
            for (reason, target), moves in sorted(each.moves.items()):
                yield self._decision(each, reason, target, moves, holds=holds)
        else:
            yield self._skip(each.process, *_explain(each, away), holds=holds)

    def _decision(self, each: Seen, reason: Reason, target: NodeId, moves: Iterable[Move], *, holds: bool) -> Decision:
        chosen = tuple(moves)
        source_bytes: dict[NodeId, int] = {}
        for move in chosen:
            for node in sorted(move.sources):
                source_bytes[node] = source_bytes.get(node, 0) + round(move.piece.held[node])
        n_bytes = max(PAGE_BYTES, sum(source_bytes.values()))
        gain, cost = sum(move.gain for move in chosen), sum(move.cost for move in chosen)
        extents = joined(move.piece.extent for move in chosen)
        what = "hot" if reason is Reason.PROMOTION else "cold"
        return Decision(
            policy=self._name,
            process=each.process.id,
            target=target,
            misplaced_bytes=n_bytes,
            gain_cores=gain,
            cost_seconds=cost,
            reason=reason,
            detail=f"{format_mib(n_bytes)} {what} on node {format_id_list(source_bytes)}, in {len(extents)} ranges, "
            f"gain {gain:.3f} cores, cost {cost:.2f} s",
            extents=extents,
            source_bytes=source_bytes,
            sources=frozenset(source_bytes),
            holds=holds,
        )

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "", *, holds: bool = False) -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail, holds=holds)


def _allowed(process: ProcessSample, nodes: frozenset[NodeId]) -> frozenset[NodeId]:
    return nodes if process.mems_allowed is None else nodes & process.mems_allowed


def _explain(each: Seen, away_bytes: int) -> tuple[Reason, str]:
    """Return why nothing is to move, by what there is most of."""
    told = (
        (each.full, Reason.TARGET_FULL, "should move, and find no room"),
        (each.not_worth, Reason.GAIN_BELOW_COST, "on slow nodes would cost more to move than they win"),
        (each.waiting, Reason.LOSS_BELOW_COST, "on slow nodes have not yet lost what moving them costs"),
        (each.in_use, Reason.GAIN_BELOW_COST, "on a node that lacks room are used too much to leave it"),
    )
    most, reason, _ = max(told, key=lambda each: each[0])
    if most < LEAST_RATIO * sum(each.held.values()):
        return Reason.IN_ITS_TIER, f"{format_mib(away_bytes)} on slow nodes"
    return reason, "; ".join(f"{format_mib(round(n))} {what}" for n, _, what in told if n)


class _Plugin:
    """What the entry point `tiering` refers to."""

    options = TieringOptions
    summary = "Moves memory that is used much to nodes with CPUs, and what is hardly used to memory-only nodes."

    def build(self, name: str, options: TieringOptions, context: PolicyContext) -> Tiering:
        """Return a fresh policy."""
        return Tiering(name, options, context)


plugin = _Plugin()
