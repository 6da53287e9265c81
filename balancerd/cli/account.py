"""What a job has done, in words: a line while it runs, an account of every page when it has ended. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from balancerd.cli import words
from balancerd.cli.exits import ExitCode
from balancerd.cli.options import Document
from balancerd.model.sample import PAGE_BYTES

_EVICTION_TEXT: Final = (
    ("evicted_pages", "evicted", "out of memory now"),
    ("kept_pages", "kept", "advised and still there: locked, in use, shared, or without room in swap"),
    ("absent_pages", "absent", "not in memory before"),
    ("other_pages", "other", "of a kind that cannot be evicted"),
)


def progress(job: Document) -> str:
    """Return how far a job has come, one line."""
    if job["state"] == "queued":
        return f"job {job['id']} waits for its turn"
    if job.get("whole"):
        return f"job {job['id']}: one call for the whole process, for {words.age(job['seconds'])} so far"
    parts = [words.size(job["done_bytes"])]
    if job["total_bytes"]:
        share = words.percent(min(1.0, job["done_bytes"] / job["total_bytes"]))
        parts = [f"{words.size(job['done_bytes'])} of about {words.size(job['total_bytes'])} ({share})"]
    if job["rate_bytes_per_second"]:
        parts.append(f"{words.size(_rounded(job['rate_bytes_per_second']))}/s")
    if job["eta_seconds"] is not None:
        parts.append(f"{words.age(round(job['eta_seconds']))} left")
    parts += [f"{pages} {status}" for status, pages in _failed(job["pages"])]
    if job["waiting_for"] is not None:
        parts.append(f"waiting: {job['waiting_for']}")
    return ", ".join(parts)


def exit_code(job: Document) -> ExitCode:
    """Return OK for a job that is done, or that had nothing to do; FAILURE when it failed or all of its pages did."""
    if job["state"] != "done":
        return ExitCode.FAILURE
    eviction = job["eviction"]
    if eviction is not None:
        in_vain = eviction["advised_pages"] and not eviction["evicted_pages"] and not job["cold_only"]
    else:
        in_vain = job["submitted_pages"] and not job["moved_bytes"]
    return ExitCode.FAILURE if in_vain else ExitCode.OK


def tell(job: Document) -> Iterator[str]:
    """Yield the lines of the account: what was done, then every page that it was not done to, by status."""
    yield _headline(job)
    if job["whole_move"] is not None:
        yield from _tell_whole(job["whole_move"])
    elif job["eviction"] is not None:
        yield from _tell_eviction(job)
    else:
        yield from _tell_move(job)
    if job["throttled_seconds"]:
        waits = ", ".join(
            f"{words.age(seconds)} {cause}" for cause, seconds in sorted(job["throttled_seconds"].items())
        )
        yield f"  waited: {waits}"
    if job["calls"]:
        longest = words.age(job["longest_call_seconds"])
        stalls = f", {words.count(job['stalls'], 'stall')}" if job["stalls"] else ""
        yield f"  {words.count(job['calls'], 'call')}, the longest {longest}{stalls}"
    if job["move"] is not None and job["moved_bytes"]:
        yield f"  undo: balancerctl undo {job['move']}"


def _headline(job: Document) -> str:
    took = "" if job["seconds"] is None else f" after {words.age(job['seconds'])}"
    head = f"job {job['id']} ({job['kind']} {job['pid']} {job['comm']}): {job['state']}{took}: {_done(job)}"
    why = "; ".join(part for part in (_reason(job), job["detail"]) if part)
    return f"{head}; {why}" if why else head


def _done(job: Document) -> str:
    eviction, whole = job["eviction"], job["whole_move"]
    if eviction is not None:
        verb, pages = ("marked", "advised_pages") if job["cold_only"] else ("evicted", "evicted_pages")
        return f"{verb} {words.size(eviction[pages] * PAGE_BYTES)}"
    if whole is not None:
        return f"moved {words.size(job['done_bytes'])}"
    if not job["moved_bytes"] and not job["submitted_pages"] and job["state"] == "done":
        return "nothing to move"
    return f"moved {words.size(job['moved_bytes'])}"


def _reason(job: Document) -> str:
    return "" if job["reason"] is None else f"{job['reason']}, {job['reason_text']}"


def _tell_move(job: Document) -> Iterator[str]:
    moved = job["pages"].get("moved", 0)
    if moved:
        yield f"  {words.count(moved, 'page')} moved{_where(job)}"
    for status, pages in _failed(job["pages"]):
        yield f"  {words.count(pages, 'page')} not moved, {status}: {words.status_text(status)}"
    if job["on_target_pages"]:
        yield f"  {words.count(job['on_target_pages'], 'page')} there already"
    for status, pages in _failed(job["passed_over"]):
        yield f"  {words.count(pages, 'page')} passed over, {status}: {words.status_text(status)}"
    if job["held_back_bytes"]:
        yield f"  about {words.size(job['held_back_bytes'])} held back for a mempolicy (--ignore-mempolicy moves them)"
    if job["retried_pages"]:
        yield f"  {words.count(job['retried_pages'], 'page')} tried more than once"
    verified = job["verified"]
    if verified is not None and verified["asked_pages"]:
        others = ", ".join(
            f"{verified[key]} {word}"
            for key, word in (("elsewhere_pages", "elsewhere"), ("absent_pages", "gone"), ("unknown_pages", "unknown"))
            if verified[key]
        )
        told = f"{verified['on_target_pages']} of {words.count(verified['asked_pages'], 'page')} looked at again"
        yield f"  verified: {told} are there{f'; {others}' if others else ''}"


def _where(job: Document) -> str:
    pairs = job["target_of"]
    ways = [
        f"{pages} from node {node}{f' to {pairs[node]}' if node in pairs else ''}"
        for node, pages in job["moved_from"].items()
    ]
    return f": {', '.join(ways)}" if ways else ""


def _tell_eviction(job: Document) -> Iterator[str]:
    if job["cold_only"]:
        yield f"  {words.count(job['eviction']['advised_pages'], 'page')} first to go when memory becomes scarce"
        return
    for key, word, meaning in _EVICTION_TEXT:
        if job["eviction"][key]:
            yield f"  {words.count(job['eviction'][key], 'page')} {word}: {meaning}"


def _tell_whole(whole: Document) -> Iterator[str]:
    before, after = whole["before_bytes"], whole["after_bytes"]
    for node in sorted({*before, *after}, key=int):
        yield f"  node {node}: {words.size(before.get(node, 0))} before, {words.size(after.get(node, 0))} after"
    left = whole["not_moved_pages"]
    told = "not told" if left is None else words.count(left, "page")
    yield f"  not moved: {told}; the call took {words.age(whole['seconds'])}"


def _failed(pages: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(s, n) for s, n in sorted(pages.items(), key=lambda item: (-item[1], item[0])) if n and s != "moved"]


def _rounded(rate_bytes: int) -> int:
    """Return a rate in whole MiB, or what it is below one."""
    return rate_bytes if rate_bytes < 1 << 20 else rate_bytes >> 20 << 20
