"""RESULTS.md and the README's headline table, from the kept boots and nothing else.

Owns what is told and in which words; no number in it is typed by hand. Must not know how boots are made.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.bench.locality import compare, verdicts
from tests.bench.locality.compare import BOUND, NOTHING, NUMAD, RIVALS, Cell, Comparison
from tests.bench.locality.record import FOLDER, Boot, path_of, read_boots
from tests.bench.locality.tables import MISSING, beside, counted, table, told

RESULTS = Path(__file__).parents[1] / "RESULTS.md"
README = Path(__file__).parents[3] / "README.md"
BEGIN = "<!-- written by python -m tests.bench report; do not edit -->"
END = "<!-- end of what python -m tests.bench report writes -->"

HEADLINE_WORKLOADS = (
    *("single", "crossed", "parts", "redis", "hugetlb", "crowded"),
    *("phases", "shared", "numpy", "postgres"),
)
HEADLINE_ROWS = 6
LOG_LINES = 6
PERCENT, MIB, MILLISECOND, MILLION = 0.01, 1 << 20, 1e6, 1e6
SEEN_RATIO = 0.97
"""A rival under which fewer of bound's accesses are seen on the workload's CPUs has moved work away from them."""

METHOD = f"""\
Emulated machines have no NUMA latency, but emulation can count: a plugin of the emulator sees every access of every
virtual CPU, sends it through a model of the caches, and knows which node's memory the rest reaches
(`tests/lab/oracle`). Each boot is a fresh virtual machine of `tests/bench/locality/machine.toml`: four nodes in a
ring with distances of 10, 12, 21 and 31. The workload's CPUs are 0 to 3, one on each node. CPU 4, a second one of
node 3, is the house-keeper: the harness and the rival's daemon run there, and no workload. balancerd may copy on the
others, too, where they are idle (`migrate.copy_on`), as it may on a machine where nobody keeps it on one CPU. The host
has fewer CPUs than that, and runs the house-keeper first: a daemon with a CPU to itself does not slow down because
others are busy.
The work of a workload is fixed.

Memory is touched, all is looked at, and some seconds pass before the work begins.

The rivals: *nothing* (`kernel.numa_balancing=0`, no daemon), *kernel* (`=1`), *numad* (`-i 5`), *balancerd* (its
defaults), *balancerd+access* (with the policies `access` and `interleave` besides, which sample registers; to judge
the samples takes 20 to 50 times as long as on hardware, and may take half of CPU 4, which the host's CPUs then lack
elsewhere), *balancerd+hints* (the same policies, which see hint faults; the kernel's balancer is on and moves pages by
them, too),
*balancerd+kernel* (with the kernel's balancer on), *bound* (memory and threads where they belong from the start: the
best static binding). The kernel's balancer is switched on when the work begins: while memory is first touched it would
learn, from faults that are all local, to look rarely. Boots that are kept from before had it on from their start. Told
are medians over n boots and, in brackets, their range; a single boot has no range.

- **T / bound**: modelled memory time. Each access that reaches memory counts its distance / 10; T is their sum from
  the beginning of the work to its end, of user and kernel, on all CPUs, relative to the median of bound. The copying
  of pages and the rival's daemon are in it.
- **without own**: the same without the user class on CPU 4. That leaves out the daemon's own code (and the harness's,
  which sleeps), but not what it lets the kernel do.
- **remote %**, **last quarter %**: of the workload's accesses to memory (user class, CPUs 0 to 3), the share that
  went to another node; over the whole work, and over its last quarter.
- **gap closed %**: (C(nothing) - C) / (C(nothing) - C(bound)), where C is what one of the workload's accesses to
  memory costs. **in T %** is the same of T, with all that closing the gap cost. A gap below
  {compare.LEAST_GAP_RATIO:.0%} is none.
- **t90 s**: when C over a sliding 2 s came to within a tenth of the gap of bound, for good; in seconds of the guest
  since the work began.
- **lost s**: seconds of work that the workload lost in stretches of about half a second in which it made less than
  three quarters of its usual accesses to memory: threads that wait while memory moves. Nothing's is the host's doing.
- **late M/s**: the workload's accesses to memory in the last quarter of the time, in millions a second. All nodes are
  alike to an emulated CPU, so where this differs the host was faster or slower, or the rival hinders the workload all
  the time.
- **balance**: the loads and stores of the busiest workload CPU over their mean. One thread alone gives 4.
- **own CPU s**: user and system time of the rival's daemon.
- **kernel +**: what the kernel class cost more than under nothing, relative to T(bound). Copying costs by where it is
  done, and by how much at once (`python -m tests.bench copying`): the kernel clears all pages of a group before it
  copies into them, and what is more than the 1 MiB of a node's modelled cache it writes twice. A group has 512 pages
  with numad, and 128 with balancerd, or 512 where each waits long for the workload's CPUs (always 64 or 512 in the
  boots that are kept from before); the kernel's own balancer moves a page at a time.
- **moved MiB**, **twice MiB**: what the kernel migrated, and how much of it was not a page's one move from where it
  was to where it is.
- **p99.9 ms**, **longest ms**: of the gaps from one round of a thread's loop to the next, of the thread that fares
  worst; for real programs, of the times of their requests. Behind it, the ratio to nothing's. The host runs several
  virtual CPUs on each of its own in turn, a few milliseconds each, which lengthens them too, the more the slower it
  is: a gap is not judged where the late M/s of whoever has the longer one are {verdicts.SLOWER_HOST_RATIO} times fewer.

A `-` was not measured, or has nothing to be told relative to. Seconds are the emulator's, and depend on the host:
compare ratios."""

REPEAT = """\
    make bench                                     # all benchmarks, then this page
    python -m tests.bench locality --missing       # the boots that are not kept yet; may be stopped and continued
    python -m tests.bench locality --workload single --rival balancerd --boots 1 --seconds 120
    python -m tests.bench report                   # this page, and the table in the README"""


MUST_SHOW = """\
By medians. balancerd is its defaults, which leave alone a process whose threads run on several nodes; "with access" is
*balancerd+access* in its place, where that was measured."""


def results(boots: Sequence[Boot]) -> str:
    """Return all of RESULTS.md."""
    comparisons = compare.compare(boots)
    parts = [
        "# How much remote access is left, and what removing it costs",
        BEGIN,
        "## Summary",
        f"T / bound, as defined below; n is the number of boots.\n\n{summary(comparisons, RIVALS, with_n=True)}",
        "## What it must show",
        MUST_SHOW,
        _verdicts(verdicts.verdicts(comparisons)),
        "## What was measured, and how",
        METHOD,
        "## The machine",
        _machine(boots),
        "## The workloads",
        *(_workload(it) for it in comparisons),
        "## What numad logged",
        _numad_log(comparisons),
        "## How to repeat it",
        REPEAT,
    ]
    return "\n\n".join(parts) + "\n"


def headline(boots: Sequence[Boot]) -> str:
    """Return what stands in the README between BEGIN and END."""
    comparisons = compare.compare(boots)
    measured = {it.workload: it for it in comparisons if any(cell.to_bound for cell in it.cells.values())}
    chosen = [measured[name] for name in HEADLINE_WORKLOADS if name in measured][:HEADLINE_ROWS]
    n = [cell.seconds.n for it in chosen for cell in it.cells.values()]
    boots_told = (
        f"{min(n)} to {max(n)} boots" if len({*n}) > 1 else f"{n[0]} boot{'s' * (n[0] > 1)}" if n else "no boot"
    )
    return (
        f"{summary(chosen, [rival for rival in RIVALS if any(rival in it.cells for it in chosen)])}\n\n"
        "Modelled memory time relative to the best static binding, with the kernel's and the daemon's own accesses:\n"
        f"medians of {boots_told} each, in an emulated machine. [All of it](tests/bench/RESULTS.md)."
    )


def inserted(readme: str, block: str) -> str:
    """Put `block` between BEGIN and END, each of which is there once; the rest stays. ValueError when they are not."""
    before, found_begin, rest = readme.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found_begin and found_end) or BEGIN in rest or END in before + after:
        raise ValueError(f"the page needs these two lines, each once and in this order:\n{BEGIN}\n{END}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def summary(comparisons: Iterable[Comparison], rivals: Sequence[str], *, with_n: bool = False) -> str:
    """Return T / bound of each workload under each of these rivals."""

    def cell(it: Comparison, rival: str) -> str:
        found = it.cells.get(rival)
        if found is None or found.to_bound is None:
            return MISSING
        return told(found.to_bound, 2) + (f", n={found.to_bound.n}" if with_n else "")

    rows = [[it.workload, *(cell(it, rival) for rival in rivals)] for it in comparisons]
    return table(["workload", *rivals], rows)


def _verdicts(all_of_them: Iterable[verdicts.Verdict]) -> str:
    rows = []
    for it in all_of_them:
        by_answer = {
            answer: [
                f"{name} {outcome.told}".rstrip() for name, outcome in it.outcomes.items() if outcome.holds is answer
            ]
            for answer in (True, False, None)
        }
        rows.append([it.requirement, _answer(it), *(", ".join(names) or MISSING for names in by_answer.values())])
    return table(["requirement", "verdict", "holds on", "fails on", "not measured"], rows, words=5)


def _answer(verdict: verdicts.Verdict) -> str:
    known = [outcome for outcome in verdict.outcomes.values() if outcome.holds is not None]
    if verdict.holds is None:
        return "not measured"
    if not verdict.holds:
        return "**no**"
    return "yes" if len(known) == len(verdict.outcomes) else f"yes, on {len(known)} of {len(verdict.outcomes)}"


def _machine(boots: Sequence[Boot]) -> str:
    cpus = " or ".join(map(str, sorted({boot.host_cpus for boot in boots})))
    versions = Counter(f"{name} {version}" for boot in boots for name, version in boot.versions.items())
    kernels = Counter(boot.result.kernel for boot in boots)
    again = [f"{_name(boot)} ({boot.attempts} attempts)" for boot in boots if boot.attempts > 1]
    first = sum(boot.is_house_first for boot in boots)
    lines = [
        f"- an emulated machine on a host with {cpus} CPUs, each virtual CPU a thread of its own",
        f"- boots in which the host ran the house-keeper first: {first} of {len(boots)}",
        f"- Linux (boots): {counted(kernels)}",
        f"- programs (boots): {counted(versions)}",
        f"- commits (boots; + had changes): {counted(Counter(boot.commit for boot in boots))}",
        f"- machines that were lost and booted again: {', '.join(again) or 'none'}",
    ]
    return "\n".join(lines)


Column = tuple[str, Callable[[Cell, Cell | None], str]]
"""A title, and what stands under it for a rival, given nothing's cell."""

COLUMNS: tuple[Column, ...] = (
    ("n", lambda cell, _: str(cell.seconds.n)),
    ("T / bound", lambda cell, _: told(cell.to_bound, 3)),
    ("without own", lambda cell, _: told(cell.to_bound_without_own, 3)),
    ("remote %", lambda cell, _: told(cell.remote_ratio, 1, unit=PERCENT)),
    ("last quarter %", lambda cell, _: told(cell.last_quarter_remote_ratio, 1, unit=PERCENT)),
    ("gap closed %", lambda cell, _: told(cell.closed_ratio, 1, unit=PERCENT)),
    ("in T %", lambda cell, _: told(cell.closed_time_ratio, 1, unit=PERCENT)),
    ("t90 s", lambda cell, _: told(cell.closed_seconds, 1)),
    ("lost s", lambda cell, _: told(cell.lost_seconds, 1)),
    ("late M/s", lambda cell, _: told(cell.late_rate, 2, unit=MILLION)),
    ("balance", lambda cell, _: told(cell.balance_ratio, 2)),
    ("own CPU s", lambda cell, _: told(cell.cpu_seconds, 1)),
    ("kernel +", lambda cell, _: told(cell.kernel_to_bound, 3)),
    ("moved MiB", lambda cell, _: told(cell.moved_bytes, unit=MIB)),
    ("twice MiB", lambda cell, _: told(cell.moved_twice_bytes, unit=MIB)),
    ("p99.9 ms", lambda cell, base: beside(cell.p999_ns, base.p999_ns if base else None, 2, unit=MILLISECOND)),
    ("longest ms", lambda cell, base: beside(cell.longest_ns, base.longest_ns if base else None, 1, unit=MILLISECOND)),
)


def _workload(it: Comparison) -> str:
    nothing = it.cells.get(NOTHING)
    seconds = [cell.seconds for cell in it.cells.values()]
    shortest, longest = min(one.low for one in seconds), max(one.high for one in seconds)
    rows = []
    for rival in dict.fromkeys((*RIVALS, *it.cells)):
        cell = it.cells.get(rival)
        rows.append([rival, *(told_by(cell, nothing) if cell else MISSING for _, told_by in COLUMNS)])
    parts = [
        f"### {it.workload}",
        f"{it.summary}; {it.mib} MiB, {it.work} units of work, done in {shortest:.0f} to {longest:.0f} s.",
        table(["rival", *(title for title, _ in COLUMNS)], rows),
        *_notes(it),
    ]
    return "\n\n".join(parts)


def _notes(it: Comparison) -> Iterable[str]:
    bound = it.cells.get(BOUND)
    for cell in it.cells.values() if bound else ():
        seen_ratio = cell.accesses.median / bound.accesses.median if bound and bound.accesses.median else 1
        if seen_ratio < SEEN_RATIO:
            yield (
                f"Under {cell.rival} CPUs 0 to 3 made {seen_ratio:.0%} of bound's accesses to memory. Where work ran "
                "on CPU 4 instead, its remote share, gap closed and *without own* leave that out; T has it."
            )
    if it.left_out:
        yield f"Left out, since they had other work or memory: {', '.join(map(_name, it.left_out))}."


def _numad_log(comparisons: Iterable[Comparison]) -> str:
    parts = []
    for it in comparisons:
        cell = it.cells.get(NUMAD)
        if cell is None:
            continue
        boot = cell.boots[0]
        lines = boot.result.lines[:LOG_LINES]
        rest = f"; the first {LOG_LINES} of them" if len(boot.result.lines) > LOG_LINES else ""
        parts.append(f"{_name(boot)}: {boot.result.moves} moves, {len(boot.result.lines)} lines kept{rest}")
        if lines:
            parts.append("\n".join(f"    {line}" for line in lines))
    return "\n\n".join(parts) or "It was not measured."


def _name(boot: Boot) -> str:
    return path_of(Path(), boot.workload, boot.rival, boot.boot).stem


def main() -> int:
    """Write both pages from what is kept; 1 when nothing is."""
    boots = read_boots(FOLDER)
    if not boots:
        print(f"no boot is kept in {FOLDER}: python -m tests.bench locality makes some", file=sys.stderr)
        return 1
    readme = inserted(README.read_text(encoding="utf-8"), headline(boots))
    RESULTS.write_text(results(boots), encoding="utf-8")
    README.write_text(readme, encoding="utf-8")
    print(f"{RESULTS} and {README}, from {len(boots)} boots")
    return 0


if __name__ == "__main__":
    sys.exit(main())
