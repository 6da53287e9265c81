"""What a tick decided, as text: the same decisions give the same bytes, whoever writes them down.

Verdicts in the order in which they fell, then the plan: steps, evictions, and what was turned down. What moving came to
is no decision, and neither are the seconds that were left for it. Numbers with a fraction have nine digits, so that the
last bit of one C library's exp() is not another decision.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Protocol

from balancerd.model.decision import Decision, Reason, Skip, Steer, Verdict
from balancerd.model.extent import Extent
from balancerd.model.ids import ProcessId, format_id_list
from balancerd.model.migration import Range
from balancerd.model.report import TickReport

DIGEST_DIGITS = 16


class Names(Protocol):
    """How processes and addresses are called in the text."""

    def number(self, process: ProcessId) -> int:
        """Return the number of a process."""
        ...

    def shift_bytes(self, process: ProcessId) -> int:
        """Return how far its addresses are shifted."""
        ...


class OwnNames:
    """Those of the trace: a process is called by its pid."""

    def number(self, process: ProcessId) -> int:
        """Return the pid."""
        return process.pid

    def shift_bytes(self, process: ProcessId) -> int:
        """Return 0."""
        del process
        return 0


def tell(report: TickReport, names: Names, *, details: bool) -> Iterator[str]:
    """Yield a line for each decision of a tick; with `details` also the words that a verdict was explained with.

    Those hold names, so that they are others where a trace is recorded than where it is replayed; and there a look is
    missed that was not taken then, which is told with `details` only, too: it changes what is known, and no decision.
    """
    rejected = report.plan.rejected
    for verdict in report.verdicts[: len(report.verdicts) - len(rejected)]:
        if not details and verdict.reason is Reason.NOT_RECORDED:
            continue
        yield f"verdict {_tell_verdict(verdict, names)}{_detail(verdict.detail, details)}"
    for step in report.plan.steps:
        yield (
            f"step {names.number(step.process)} {step.policy} to node {step.target} {step.reason.value}, "
            f"{_tell_ranges(step.process, step.ranges, names)} from "
            f"{_address(step.process, step.resume_at, names):x}, at most {step.budget_bytes} B"
        )
    for steer in report.plan.steers:
        yield (
            f"steer {names.number(steer.process)} {steer.policy} {steer.kind.value} to node {steer.target} "
            f"CPUs {format_id_list(steer.cpus)}{', own affinity' * steer.own_affinity}"
        )
    for eviction in report.plan.evictions:
        yield (
            f"evict {names.number(eviction.process)} {eviction.policy} {'cold' if eviction.cold_only else 'out'}, "
            f"{_tell_ranges(eviction.process, eviction.ranges, names)} from "
            f"{_address(eviction.process, eviction.resume_at, names):x}, at most {eviction.budget_bytes} B"
        )
    for skip in rejected:
        yield f"rejected {_tell_verdict(skip, names)}{_detail(skip.detail, details)}"
    for policy, error in report.policy_errors.items():
        yield f"error {policy} {error.partition(':')[0]}{_detail(error, details)}"


def digest(lines: Iterable[str]) -> str:
    """Return the digest of some lines."""
    hashed = sha256()
    for line in lines:
        hashed.update(line.encode("utf-8", "backslashreplace") + b"\n")
    return hashed.hexdigest()[:DIGEST_DIGITS]


def _tell_verdict(verdict: Verdict, names: Names) -> str:
    number = names.number(verdict.process)
    if isinstance(verdict, Skip):
        return f"{number} {verdict.by} skip {verdict.reason.value}{', holds' * verdict.holds}"
    if isinstance(verdict, Decision):
        parts = ""
        if verdict.extents is not None:
            parts = f", {_tell_ranges(verdict.process, verdict.extents, names)}"
        sources = "".join(
            f", {n_bytes} B from {node}" for node, n_bytes in sorted((verdict.source_bytes or {}).items())
        )
        if verdict.sources is not None:
            sources += f", only from {format_id_list(verdict.sources)}"
        most = "" if verdict.most_bytes is None else f", at most {verdict.most_bytes} B"
        most += ", holds" * verdict.holds
        return (
            f"{number} {verdict.policy} to node {verdict.target} {verdict.reason.value}, {verdict.misplaced_bytes} B, "
            f"gain {verdict.gain_cores:.9g}, cost {verdict.cost_seconds:.9g}{parts}{sources}{most}"
        )
    if isinstance(verdict, Steer):
        return (
            f"{number} {verdict.policy} {'pin' if verdict.pin else 'kick'} to node {verdict.target} "
            f"{verdict.reason.value}, CPUs {format_id_list(verdict.cpus)}, gain {verdict.gain_cores:.9g}, "
            f"cost {verdict.cost_seconds:.9g}{', own affinity' * verdict.own_affinity}"
        )
    out = "cold" if verdict.cold_only else "out"
    parts = "" if verdict.extents is None else f", {_tell_ranges(verdict.process, verdict.extents, names)}"
    return f"{number} {verdict.policy} {out} {verdict.reason.value}, {verdict.evict_bytes} B{parts}"


def _tell_ranges(process: ProcessId, ranges: Iterable[Range | Extent], names: Names) -> str:
    shift = names.shift_bytes(process)
    told = [f"{each.start + shift:x}-{each.end + shift:x}" for each in ranges]
    return f"{len(told)} ranges {digest(told)[:8]}"


def _address(process: ProcessId, address: int, names: Names) -> int:
    return address + names.shift_bytes(process) if address else 0


def _detail(text: str, details: bool) -> str:
    return f" | {text}" if details and text else ""
