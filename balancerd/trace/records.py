"""A tick as one line of JSON, and back. Owns what is left out because the line before says it.

A survey tells a process that it did not read again by the very same object; that one is not written again, and read
back as the same object, too, for the engine goes by that. So each line can be read only after all before it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from balancerd.model.access import Accesses
from balancerd.model.decision import Skip
from balancerd.model.heat import Heats
from balancerd.model.ids import ProcessId
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    MigrationOutcome,
    MigrationStep,
    RunsNow,
    VerifyRequest,
)
from balancerd.model.sample import PlacementSample, ProcessSample, SampleRequest, Sampling, Survey
from balancerd.model.steering import SteerOutcome, SteerStep
from balancerd.model.topology import Topology
from balancerd.ports import SurveyScope
from balancerd.trace import canon
from balancerd.trace.cloak import Cloak
from balancerd.trace.codec import Coder, Json, coder_of, decode, decode_fields, encode
from balancerd.trace.form import MISUNDERSTOOD, TraceError
from balancerd.trace.tap import Event, Failure, RawTick

STICKY: Final = ("topology", "machine", "managers", "workload_bytes", "memory")
"""Fields of a survey that are written only when they have changed."""

_REQUESTS: Final = coder_of(tuple[SampleRequest, ...])
_PROCESSES: Final = coder_of(tuple[ProcessId, ...])
_PLACEMENTS: Final = coder_of(tuple[PlacementSample, ...])
_STICKY: Final[Mapping[str, Coder]] = {
    name: coder_of(hint) for name, hint in Survey.__annotations__.items() if name in STICKY
}
_NOWHERE: Final = Topology(nodes=(), node_of_cpu={})
_LIGHT: Final = frozenset({"now", "cpu", "wait", "stop", "moving", "next"})
"""Kinds whose question or answer is a number or a truth value."""

KINDS: Final = frozenset(
    {
        *_LIGHT,
        "tick",
        "claimed",
        "survey",
        "sample",
        "verify",
        "accesses",
        "heats",
        "begin",
        "rest",
        "end",
        "evict",
        "steer",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TickRecord:
    """One tick as a trace tells it: `number` is the daemon's, `digest` that of what it decided, None where it failed.

    Of migrations and evictions the answer to "end" and "evict" is what its outcome holds beside the step.
    """

    number: int
    events: tuple[Event, ...]
    digest: str | None
    failed: str | None


class LineWriter:
    """Writes ticks in their order."""

    def __init__(self, cloak: Cloak) -> None:
        self._cloak = cloak
        self._before: Survey | None = None
        self._number = 0

    def known(self, placements: Iterable[PlacementSample]) -> str:
        """Return the line with what was known before."""
        placed = tuple(placements)
        self._cloak.meet(placement.process for placement in placed)
        return _dump({"known": _PLACEMENTS.encode(placed, self._cloak)})

    def tick(self, tick: RawTick) -> str:
        """Return the line of one tick."""
        events = [self._event(event) for event in tick.events]
        self._number = self._number + 1 if tick.report is None else tick.report.number
        line: dict[str, Json] = {"tick": self._number, "events": events}
        if tick.report is not None:
            line["digest"] = canon.digest(canon.tell(tick.report, self._cloak, details=False))
        else:
            line["failed"] = tick.failed
        return _dump(line)

    def _event(self, event: Event) -> list[Json]:
        kind, question, answer = event
        if isinstance(answer, Failure):
            return [kind, question if kind == "end" else None, {"error": answer.error}]
        if kind in _LIGHT:
            return [kind, question if answer is None else answer]
        if isinstance(question, SurveyScope) and isinstance(answer, Survey):
            return [kind, encode(question, self._cloak), self._survey(answer)]
        if isinstance(answer, frozenset):
            return [kind, _PROCESSES.encode(sorted(answer), self._cloak)]
        if kind == "sample":
            return [kind, _REQUESTS.encode(question, self._cloak), encode(answer, self._cloak)]
        if kind in {"accesses", "heats"}:
            return [kind, _PROCESSES.encode(question, self._cloak), encode(answer, self._cloak)]
        if kind == "verify":
            written = encode(answer, self._cloak)
            return [kind, encode(question, self._cloak), {"skip" if isinstance(answer, Skip) else "runs": written}]
        if kind == "begin":
            return [kind, encode(question, self._cloak), answer]
        if kind == "rest":
            return [kind, question, answer]
        if kind == "end":
            return [kind, question, encode(answer, self._cloak)]
        if kind in {"evict", "steer"}:
            return [kind, encode(question, self._cloak), encode(answer, self._cloak)]
        return [kind]

    def _survey(self, survey: Survey) -> dict[str, Json]:
        before, self._before = self._before, survey
        cloak = self._cloak
        processes = survey.processes
        cloak.meet(process.id for process in processes)
        bare = replace(survey, processes=(), machine=None, managers=(), workload_bytes={}, memory={}, topology=_NOWHERE)
        written: dict[str, Json] = encode(bare, cloak)
        for name in STICKY:
            value = getattr(survey, name)
            written.pop(name, None)
            if before is None or (value is not (was := getattr(before, name)) and value != was):
                written[name] = _STICKY[name].encode(value, cloak)
        old = {} if before is None else {process.id: process for process in before.processes}
        changed = [process for process in processes if old.get(process.id) is not process]
        alive = {process.id for process in processes}
        gone = [process for process in old if process not in alive]
        written["processes"] = [encode(process, cloak) for process in changed]
        if gone:
            written["gone"] = _PROCESSES.encode(gone, cloak)
        if _expected(old, gone, changed) != [process.id for process in processes]:
            written["order"] = _PROCESSES.encode([process.id for process in processes], cloak)
        return written


class LineReader:
    """Reads ticks in their order. Raises TraceError for a line that is not one."""

    def __init__(self) -> None:
        self._before: Survey | None = None

    def known(self, line: str) -> tuple[PlacementSample, ...]:
        """Return what was known before."""
        found: tuple[PlacementSample, ...] = _understood(lambda: _PLACEMENTS.decode(_load(line)["known"]))
        return found

    def tick(self, line: str) -> TickRecord:
        """Return one tick."""
        record: TickRecord = _understood(lambda: self._tick(_load(line)))
        return record

    def end(self, line: str) -> str:
        """Read why it ended, from the last line."""
        return str(_understood(lambda: _load(line)["end"]))

    def _tick(self, told: Mapping[str, Json]) -> TickRecord:
        return TickRecord(
            number=told["tick"],
            events=tuple(self._event(*event) for event in told["events"]),
            digest=told.get("digest"),
            failed=told.get("failed"),
        )

    def _event(self, kind: str, question: Json = None, answer: Json = None) -> Event:
        if kind not in KINDS:
            raise TraceError(f"the trace tells of {kind!r:.40}, which this version does not know")
        if isinstance(answer, dict) and answer.keys() == {"error"}:
            return Event(kind, question, Failure(answer["error"]))
        if kind in {"wait", "moving", "next"}:
            return Event(kind, question)
        if kind in _LIGHT:
            return Event(kind, None, question)
        return Event(kind, *self._heavy(kind, question, answer))

    def _heavy(self, kind: str, question: Json, answer: Json) -> tuple[object, object]:
        match kind:
            case "survey":
                return decode(SurveyScope, question), self._survey(answer)
            case "claimed":
                return None, frozenset(_PROCESSES.decode(question))
            case "sample":
                return _REQUESTS.decode(question), decode(Sampling, answer)
            case "accesses":
                return _PROCESSES.decode(question), decode(Accesses, answer)
            case "heats":
                return _PROCESSES.decode(question), decode(Heats, answer)
            case "verify":
                told = decode(Skip, answer["skip"]) if "skip" in answer else decode(RunsNow, answer["runs"])
                return decode(VerifyRequest, question), told
            case "begin":
                return decode(MigrationStep, question), answer
            case "end":
                return question, decode_fields(MigrationOutcome, answer)
            case "evict":
                return decode(EvictionStep, question), decode_fields(EvictionOutcome, answer)
            case "steer":
                return decode(SteerStep, question), decode_fields(SteerOutcome, answer)
        return question, answer

    def _survey(self, told: dict[str, Json]) -> Survey:
        before = self._before
        sticky = {
            name: _STICKY[name].decode(told.pop(name)) if name in told else getattr(before, name) for name in STICKY
        }
        changed = [decode(ProcessSample, each) for each in told.pop("processes")]
        gone, order = _PROCESSES.decode(told.pop("gone", ())), told.pop("order", None)
        old = {} if before is None else {process.id: process for process in before.processes}
        ids = _expected(old, gone, changed) if order is None else _PROCESSES.decode(order)
        now = old | {process.id: process for process in changed}
        processes = tuple(now[process] for process in ids)
        survey = Survey(**decode_fields(Survey, told), **sticky, processes=processes)
        self._before = survey
        return survey


def _expected(
    old: Mapping[ProcessId, ProcessSample], gone: Iterable[ProcessId], changed: Iterable[ProcessSample]
) -> list[ProcessId]:
    """Return the order in which a survey tells: first those that it did not read again."""
    last = [process.id for process in changed]
    out = {*gone, *last}
    return [*(process for process in old if process not in out), *last]


def _dump(line: Mapping[str, Json]) -> str:
    return json.dumps(line, separators=(",", ":"))


def _load(line: str) -> dict[str, Any]:
    told = json.loads(line)
    if not isinstance(told, dict):
        raise TraceError("a line of the trace is no JSON object")
    return told


def _understood(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except MISUNDERSTOOD as error:
        told = f"{type(error).__name__}: {error!s:.200}"
        raise TraceError(f"a line of the trace cannot be understood: {told}") from error
