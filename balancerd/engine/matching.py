"""Which policy judges which process, by the `match` of policies in the configuration.

A policy with a match judges whom it matches, and of several of one kind the first has them: those of a later place
leave them alone. A policy that only observes takes nobody away from another, and nobody takes any from it. Verdicts are
worked out anew only when a process is another to a rule.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from balancerd.engine.rules import Rule, do_rules_see_the_same
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import ProcessId
from balancerd.model.sample import ProcessSample, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """What the configuration says: of each policy with a match its rules, and of each policy its kind, by name."""

    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


class Matching:
    """Parts the processes of a snapshot for each policy. `names` are the policies' in their order."""

    def __init__(self, names: Sequence[str], matches: Matches, observing: AbstractSet[str]) -> None:
        self._names = tuple(names)
        self._matches = matches
        self._observing = observing
        self._known: dict[ProcessId, tuple[ProcessSample, Mapping[str, Skip]]] = {}

    def part(self, name: str, now: Snapshot) -> tuple[Snapshot, tuple[Skip, ...]]:
        """Return the snapshot with the processes that a policy is to judge, and a skip for each of the others."""
        if not self._matches.rules:
            return now, ()
        skips = [skip for p in (*now.eligible, *now.idle) if (skip := self._objections(p).get(name)) is not None]
        if not skips:
            return now, ()
        not_its = {skip.process for skip in skips}
        return (
            replace(
                now,
                eligible=tuple(process for process in now.eligible if process.id not in not_its),
                idle=tuple(process for process in now.idle if process.id not in not_its),
            ),
            tuple(skips),
        )

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        if len(self._known) > len(alive):
            self._known = {id_: known for id_, known in self._known.items() if id_ in alive}

    def _objections(self, process: ProcessSample) -> Mapping[str, Skip]:
        """Return the skip of each policy that is not to judge a process."""
        known = self._known.get(process.id)
        if known is not None and (known[0] is process or do_rules_see_the_same(known[0], process)):
            return known[1]
        skips: dict[str, Skip] = {}
        taken: dict[str | None, str] = {}
        for name in self._names:
            kind, rules = self._matches.kinds.get(name), self._matches.rules.get(name, ())
            is_observing = name in self._observing
            if rules and not any(rule.matches(process) for rule in rules):
                skips[name] = Skip(by=name, process=process.id, reason=Reason.NOT_MATCHED)
            elif kind in taken and not is_observing:
                told = f"policy {taken[kind]}, of the same kind, judges it"
                skips[name] = Skip(by=name, process=process.id, reason=Reason.NOT_MATCHED, detail=told)
            elif rules and kind is not None and not is_observing:
                taken[kind] = name
        self._known[process.id] = (process, skips)
        return skips
