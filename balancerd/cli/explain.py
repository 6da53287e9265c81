"""`balancerctl explain PID`: the story of one process, from who it is to what happens next.

Owns the order and the sentences of the story. It must not know how the daemon is reached.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

from balancerd.cli import words
from balancerd.cli.options import Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import Column, aligned, escape, write, write_json

SHOWN_MOVES: Final = 5
SHOWN_MAPPINGS: Final = 5


@click.command(
    short_help="Tell the story of one process, and what happens next.",
    epilog="""\b
Examples:
  balancerctl explain 4242
  balancerctl explain "$(pidof redis-server)"
  balancerctl explain 4242 --json | jq '.process.verdicts'
""",
)
@click.argument("pid", type=click.IntRange(min=1))
@socket_option
@json_option
@click.pass_obj
def explain(settings: Settings, pid: int, *, as_json: bool) -> None:
    """Tell what balancerd knows about process PID, what it decided and why, what it did, and what happens next.

    In JSON: the answer of the daemon to GET /v1/processes/PID, the process with "state" and "next_text".
    """
    document = ask(settings, f"/v1/processes/{pid}")
    if as_json:
        process = document["process"]
        reason = process["reason"]
        told = {**process, "state": words.state(reason), "next_text": words.next_step(reason)}
        write_json({**document, "process": told})
        return
    for line in story(document):
        write(line)


def story(document: Document) -> Iterator[str]:
    """Tell what GET /v1/processes/PID answered, line by line, safe to print."""
    process = document["process"]
    for tell in (_tell_who, _tell_memory, _tell_running):
        yield from tell(process)
    yield from _tell_verdicts(document)
    for tell in (_tell_policies, _tell_moves):
        yield from tell(process)
    yield ""
    yield "What happens next"
    yield f"  {words.next_step(process['reason'])}"
    for line in _conditions(process):
        yield f"  {line}"


def _tell_who(process: Document) -> Iterator[str]:
    yield f"Process {process['pid']} ({escape(process['comm'])})"
    cores = process["cpu_cores"]
    facts = [
        ("user", None if process["uid"] is None else f"uid {process['uid']}"),
        ("cgroup", process["cgroup"]),
        ("workload", f"{process['workload']} ({process['workload_kind']})"),
        ("age", words.age(process["age_seconds"])),
        ("memory", f"{words.size(process['rss_bytes'])} resident"),
        ("CPU", None if cores is None else f"{cores:.2f} cores, {words.count(process['threads'], 'thread')}"),
        ("may run on", None if process["cpus_allowed"] is None else f"CPUs {process['cpus_allowed']}"),
        ("may hold", None if process["mems_allowed"] is None else f"memory on nodes {process['mems_allowed']}"),
    ]
    for name, fact in facts:
        yield f"  {name:12}{escape(fact or 'not known')}"


def _tell_memory(process: Document) -> Iterator[str]:
    yield ""
    placement, held = process["placement"], process["bytes_by_node"]
    if placement is None or held is None:
        yield "Where its memory is: not known"
        return
    yield f"Where its memory is ({_how(placement)}, {words.age(placement['age_seconds'])} ago)"
    total, intervals = sum(held.values()), placement["share_intervals"]
    for node in sorted({*held, *intervals}, key=int):
        share = words.percent(held.get(node, 0) / total if total else None)
        yield f"  node {node:7}{words.size(held.get(node, 0))}, {share}{_interval(intervals.get(node))}"
    wait = process["next_look_seconds"]
    if wait is not None:
        yield (
            f"  looked at again {f'in {words.age(wait)}' if wait else 'at one of the next ticks'}, or when it changes"
        )
    mappings = [each for each in placement["vmas"] if _bytes_away(each, process["run_ratio"])][:SHOWN_MAPPINGS]
    if mappings:
        columns = [Column(title=title) for title in ("MAPPING", "KIND", "NODE:BYTES", "MEMPOLICY", "NAME")]
        rows = [[escape(cell) for cell in _mapping(each)] for each in mappings]
        yield "  the mappings with most memory away from where it runs:"
        for line in aligned(columns, rows):
            yield f"    {line}"


def _how(placement: Document) -> str:
    """Return how the placement was found: "estimated by a sample of 2048 pages, with 95 % intervals"."""
    verb = "exactly" if placement["exact"] else "estimated"
    sure = ", with 95 % intervals" if placement["share_intervals"] and not placement["exact"] else ""
    return f"{verb} by {words.method(placement['method'], placement['queried_pages'])}{sure}"


def _interval(bounds: Sequence[float] | None) -> str:
    """Return the bounds of a share in tenths of a percent, rounded outwards; "" when it is exact, or none are known."""
    if bounds is None or bounds[0] == bounds[1]:
        return ""
    low, high = math.floor(bounds[0] * 1000 + 1e-9) / 10, math.ceil(bounds[1] * 1000 - 1e-9) / 10
    return f" ({low:.1f}% to {high:.1f}%)"


def _bytes_away(mapping: Document, run_ratio: Mapping[str, float] | None) -> int:
    """How much of a mapping is not on the node where the process runs most; all of it when that is not known."""
    home = max(run_ratio, key=lambda node: (run_ratio[node], -int(node))) if run_ratio else None
    return sum(held for node, held in mapping["bytes_by_node"].items() if node != home)


def _mapping(mapping: Document) -> tuple[str, ...]:
    return (
        f"{mapping['start']}-{mapping['end']}",
        mapping["kind"] + (" shared" if mapping["shared"] else ""),
        " ".join(f"{node}:{words.size(held)}" for node, held in mapping["bytes_by_node"].items()),
        mapping["mempolicy"] or "not read",
        mapping["name"],
    )


def _tell_running(process: Document) -> Iterator[str]:
    yield ""
    yield "Where it runs"
    run, local = process["run_ratio"], process["local_ratio"]
    if not run:
        yield "  not known, or not at all since the tick before"
    for node, share in (run or {}).items():
        yield f"  node {node:7}{words.percent(share)} of its run time"
    if local is not None:
        yield f"  {words.percent(local)} of its memory lies where it runs"


def _tell_verdicts(document: Document) -> Iterator[str]:
    process = document["process"]
    verdicts = process["verdicts"]
    yield ""
    yield "What was decided" + ("" if document["tick"] is None else f" in tick {document['tick']}")
    lines = [(each["by"], _verdict(each)) for each in verdicts]
    if not lines:
        lines = [("nobody", "nothing was said about it")]
    elif all(each["by"] != "select" for each in verdicts):
        lines.insert(0, ("select", "let it through for a closer look"))
    for number, (by, text) in enumerate(lines, start=1):
        yield f"  {number}. {escape(by)}: {text}"
    detail = f" ({escape(process['detail'])})" if process["detail"] else ""
    yield f"  so: {words.state(process['reason'])}, {escape(process['reason'])}{detail}"


def _tell_policies(process: Document) -> Iterator[str]:
    """Tell of each policy of the stack what it said, and where it is written; nothing to a daemon that knows none."""
    stack = process.get("policies") or ()
    if not stack:
        return
    yield ""
    yield "What each policy said"
    for policy in stack:
        at = f", {escape(policy['at'])}" if policy["at"] else ", by default"
        mode = ", only observing" if policy["observing"] else ""
        yield f"  {escape(policy['name'])} ({escape(policy['kind'])}{at}{mode})"
        said = [each for each in process["verdicts"] if each["by"] == policy["name"]]
        for each in said:
            yield f"    {_verdict(each)}"
            yield from (f"    {line}" for line in _would(each))
        if policy["disabled"]:
            yield f"    is asked no more: {escape(policy['disabled'])}"
        elif not said:
            yield "    was not asked about it, or had nothing to say"


def _would(verdict: Document) -> list[str]:
    """Return what a verdict that leaves the process alone would do otherwise, and what it needs for that."""
    lines = []
    if wanted := verdict.get("wanted"):
        lines.append(
            f"otherwise {words.size(wanted['misplaced_bytes'])} to node {wanted['target']}: "
            f"gain {wanted['gain_cores']:.3f} cores, cost {wanted['cost_seconds']:.2f} s"
        )
    if verdict.get("needs"):
        lines.append(f"needs {escape(verdict['needs'])}")
    return lines


def _conditions(process: Document) -> list[str]:
    """Return what decided, where that is written, and what would have to change, as far as the daemon tells."""
    deciding = process.get("deciding")
    if deciding is None:
        return []
    lines = []
    if deciding["setting"]:
        where = f"at {deciding['at']}" if deciding["at"] else "which has its default"
        lines.append(f"Decided by {escape(deciding['by'])}: {escape(deciding['setting'])}, {escape(where)}.")
    if deciding["needs"]:
        lines.append(f"Needed: {escape(deciding['needs'])}.")
    return lines


def _verdict(verdict: Document) -> str:
    why = f"{escape(verdict['reason'])}, {escape(verdict['reason_text'])}"
    if verdict["detail"]:
        why += f" ({escape(verdict['detail'])})"
    if verdict["action"] == "evict":
        return f"evict {words.size(verdict['evict_bytes'])}: {why}"
    if verdict["action"] == "steer":
        return (
            f"{'hold its threads on' if verdict['pin'] else 'move its threads to'} node {verdict['target']}: {why}; "
            f"costs {verdict['cost_seconds']:.2f} s of CPU time, wins {verdict['gain_cores']:.3f} cores"
        )
    if verdict["action"] != "migrate":
        return f"leave it alone: {why}"
    gain = f", wins {verdict['gain_cores']:.3f} cores" if verdict["gain_cores"] else ", whatever it wins"
    return (
        f"move {words.size(verdict['misplaced_bytes'])} to node {verdict['target']}: {why}; "
        f"costs {verdict['cost_seconds']:.2f} s of CPU time{gain}"
    )


def _tell_moves(process: Document) -> Iterator[str]:
    yield ""
    history = process["history"]
    yield "What was done" if history else "What was done: nothing"
    for move in history[:SHOWN_MOVES]:
        yield from _tell_move(move)
    if len(history) > SHOWN_MOVES:
        yield f"  and {words.count(len(history) - SHOWN_MOVES, 'earlier move')} (--json tells all that is kept)"
    if judged := process.get("judged"):
        what = "the trial" if judged["is_trial"] else "the last move"
        yield (
            f"  {what} by {escape(judged['policy'])}, judged {words.age(judged['age_seconds'])} ago: "
            f"{escape(judged['result'])} ({escape(judged['detail'])})"
        )


def _tell_move(move: Document) -> Iterator[str]:
    moved = move["pages"].get("moved", 0)
    calls = words.count(move["calls"], "call")
    longest = "" if move["longest_call_seconds"] is None else f", the longest {words.age(move['longest_call_seconds'])}"
    yield (
        f"  tick {move['tick']}, {words.age(move['age_seconds'])} ago, by {escape(move['policy'])}: "
        f"{moved} of {words.count(move['submitted_pages'], 'page')} moved to node {move['target']} "
        f"in {words.age(move['seconds'])} ({calls}{longest})"
    )
    for node, pages in move["moved_from"].items():
        yield f"    {words.count(pages, 'page')} came from node {node}"
    for status, pages in sorted(move["pages"].items(), key=lambda item: (-item[1], item[0])):
        if pages and status != "moved":
            yield f"    {words.count(pages, 'page')} {escape(status)}: {words.status_text(status)}"
    if move["stopped_by"] is not None:
        yield f"    ended early: {escape(move['stopped_by'])}"
    if move["detail"]:
        yield f"    {escape(move['detail'])}"
