"""What the engine remembers from tick to tick and through a reload: holds, budgets, moves, accounts, its own cost."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from balancerd.engine.budgets import Budgets, Rates
from balancerd.engine.copying import CopyRates
from balancerd.engine.ledger import Ledger
from balancerd.engine.moves import MoveLog
from balancerd.engine.owners import Owners
from balancerd.engine.pause import Pause
from balancerd.engine.returns import Returns
from balancerd.engine.scan import ScanBudget
from balancerd.engine.trust import Reviewed, Trust
from balancerd.engine.workloads import Workloads
from balancerd.model.decision import Decision, Wanted
from balancerd.model.ids import ProcessId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome
from balancerd.model.sample import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """One for the life of the daemon; each configuration's engine goes on with it."""

    ledger: Ledger
    budgets: Budgets
    moves: MoveLog
    returns: Returns
    scan: ScanBudget
    workloads: Workloads = field(default_factory=Workloads)
    copying: CopyRates = field(default_factory=CopyRates)
    trust: Trust
    pause: Pause = field(default_factory=Pause)
    owners: Owners = field(default_factory=Owners)

    def obey(
        self, *, cooldown_seconds: float, rates: Rates, move_all: bool, scan_budget_ratio: float, canary: bool = False
    ) -> None:
        """Go on under another configuration; what has happened is kept."""
        self.ledger.set_cooldown(cooldown_seconds)
        self.budgets.set_rates(rates)
        self.scan.set_ratio(scan_budget_ratio)
        self.trust.obey(cooldown_seconds, canary=canary)
        if move_all:
            self.ledger.release_shared()

    def record(self, outcome: MigrationOutcome, now: float) -> None:
        """Take note of one step of a policy's move."""
        for move_id in self.ledger.record(outcome, now):
            self.moves.end(move_id, now)
        self.budgets.spend(outcome, now)
        self.moves.record(outcome.step.move_id, outcome, now)
        self.returns.note(outcome, now)
        self.copying.note(outcome, now)
        self.trust.note(outcome, now)
        self.pause.note(outcome, now)
        if outcome.moved_pages:
            self.owners.note_memory(outcome.step.process, now)

    def review(self, now: Snapshot, wanted: Iterable[Wanted]) -> Reviewed:
        """Return what of the wanted may be planned, by what came of earlier moves."""
        self.pause.look(now.survey)
        asked = tuple(wanted)
        able, paused = self.pause.part(asked, now.taken_at)
        waiting = {skip.process: skip for skip in paused}
        kept = tuple(
            replace(waiting[each.process], by=each.policy, holds=True)
            for each in asked
            if isinstance(each, Decision) and each.holds and each.process in waiting
        )
        reviewed = self.trust.review(now, able)
        return replace(reviewed, skips=paused + reviewed.skips, kept=kept)

    def record_eviction(self, outcome: EvictionOutcome, now: float) -> None:
        """Take note of one step of a policy's eviction."""
        self.ledger.record_eviction(outcome, now)
        self.budgets.spend_eviction(outcome, now)

    def record_command(self, outcome: MigrationOutcome, now: float) -> None:
        """Take note of one step of an operator's move: it spends and can be undone, but no hold or check follows."""
        self.budgets.spend(outcome, now)
        self.moves.record(outcome.step.move_id, outcome, now)
        self.returns.forget(outcome.step.process)
        self.trust.forget_moves(outcome.step.process)
        if outcome.moved_pages:
            self.owners.note_memory(outcome.step.process, now)

    def forget_all_but(self, alive: frozenset[ProcessId], now: float) -> None:
        """Drop what is known of processes that are gone; moves stay, and buckets until they are full."""
        for move_id in self.ledger.forget_all_but(alive):
            self.moves.end(move_id, now)
        self.returns.forget_all_but(alive)
        self.trust.forget_all_but(alive)
        self.owners.forget_all_but(alive)
        self.budgets.forget_full(now)


def new_memory(
    *, cooldown_seconds: float, rates: Rates, scan_budget_ratio: float, canary: bool = False
) -> EngineMemory:
    """Return a memory in which nothing has happened yet."""
    return EngineMemory(
        ledger=Ledger(cooldown_seconds),
        budgets=Budgets(rates),
        moves=MoveLog(),
        returns=Returns(),
        scan=ScanBudget(scan_budget_ratio),
        trust=Trust(cooldown_seconds, canary=canary),
    )
