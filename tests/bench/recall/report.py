"""RECALL.md from the kept boots and nothing else: no number in it is typed by hand.

Owns what is told and in which words. Must not know how boots are made.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from balancerd.kernel.accesses.registers import RegisterSource
from balancerd.model.sample import PAGE_BYTES
from tests.bench.locality.tables import MISSING, table
from tests.bench.recall import figures
from tests.bench.recall.figures import OWNER_RATIO
from tests.bench.recall.programs import PROGRAMS
from tests.bench.recall.record import Boot, Way
from tests.bench.recall.watching import BUDGET_RATIO, INTERVAL_SECONDS, WAYS

PAGE = Path(__file__).parents[1] / "RECALL.md"
MARK = "<!-- written by python -m tests.bench recall; do not edit -->"
MIB = 1 << 20

METHOD = f"""\
A plugin of the emulator sees every load and store of every virtual CPU, sends it through a model of the caches (32 KiB
for each CPU, 1 MiB for each node), and counts what gets through to memory by page and by the node of the CPU
(`tests/lab/oracle`). The programs run one after the other in a virtual machine with four nodes, their threads pinned
one to a node where there are several. The source `registers` runs in a process of its own on a CPU that they do not
use, with a budget of {BUDGET_RATIO:.0%} of a core and a read every {INTERVAL_SECONDS:.0f} s, as in the daemon. It
judges once, at the end. Nothing moves memory. Markers before and after bound the window of both. The oracle's pages
and the samples are compared by virtual address.

*Access*: a line of 64 bytes that the program's own code (not the kernel for it) read or wrote and that no cache held.
*Watched memory*: private mappings of data of 2 MiB and more. *Of a node*: a page of whose accesses in the window at
least {OWNER_RATIO:.0%} came from CPUs of that node. *Judged*: in a run of pages that the source gives to a node.

- **precision %**: of the bytes of runs, those in pages that are of the run's node. A page that nobody accessed in the
  window counts as wrong.
- **of used %**: the same without pages that nobody accessed in the window.
- **near %**: of the accesses to judged pages, those that came from the node that their page was given to.
- **recall %**: of the accesses to watched memory, those to judged pages.
- **owned recall %**: of the accesses to pages that are of a node, those to pages that were given to this very node.
  What all threads share is of no node, and should not be judged.
- **hit %**: of the addresses that samples told, those in a page that the sample's node accessed. Beside it, **used %**
  is how much of the watched memory in RAM had any access: what addresses by chance would hit at best.
- **watched %**: of the accesses to all mappings of the process, those to watched memory.
- **sure**: only the runs that the policy `access` would act on: 32 pages and more, or about eight samples a page.
- **decoded**: the instruction at the sampled place is read, which tells the very address; **registers**: it is not, and
  what registers point to is taken. The source works the first way; each way had a window of its own."""

CAUTION = f"""\
The daemon judges by the last {RegisterSource.lookback_seconds:.0f} s. The windows here are shorter, so the recall is
that of a process which somebody has just begun to watch.

Emulated programs do some twenty to fifty times less in a second than real ones, while samples come by time. So between
two samples less has happened here, and memory that is walked through is seen in smaller steps; how many samples a page
gets in a minute is the same as on a real machine. The emulator takes interrupts only between blocks of translated
code, so that samples fall on the first instruction of a block, and a loop of one block shows always the same
instruction, and if that one accesses nothing watched, and registers hold but the starts of arrays and an index,
nothing of it is seen. A real machine stops in between, most often at loads that wait for memory. So decoding has less
to win here. One boot each; a thread is sampled only while the host runs its virtual CPU."""

REPEAT = """\
    python -m tests.bench recall                    # all programs
    python -m tests.bench recall --program numpy    # one; the page is written from all that are kept
    python -m tests.bench recall --report           # only the page"""


def page(boots: Sequence[Boot]) -> str:
    """Return all of RECALL.md."""
    parts = [
        "# Precision and recall of register sampling",
        MARK,
        summary(boots),
        "## What was measured, and how",
        METHOD,
        CAUTION,
        "## The runs that the policy acts on",
        table(TITLES, _rows(boots, sure=True), words=2),
        "## The windows",
        windows(boots),
        "## The programs",
        "\n".join(f"- **{boot.program}**: {boot.summary}; {boot.mib} MiB" for boot in _ordered(boots)),
        "## The machine",
        "\n".join(_machine(boots)),
        "## How to repeat it",
        REPEAT,
    ]
    return "\n\n".join(parts) + "\n"


TITLES = ("program", "way", "precision %", "of used %", "near %", "recall %", "owned recall %", "judged MiB")


def summary(boots: Sequence[Boot]) -> str:
    """Return the table of all runs, and of the samples' addresses."""
    titles = (*TITLES, "hit %", "used %", "watched %")
    rows = [
        [*row, *(_percent(value) for value in (figures.hit_rate(it), _used(way), _watched(way)))]
        for row, way in zip(_rows(boots, sure=False), _ways(boots), strict=True)
        for it in [way.figures]
    ]
    return table(titles, rows, words=2)


def windows(boots: Sequence[Boot]) -> str:
    """Return how much was sampled and counted."""
    titles = ("program", "way", "s", "Hz", "threads", "samples", "with address", "lost", "accesses", "used MiB")
    rows = []
    for boot in _ordered(boots):
        for name, way in _ways_of(boot):
            it, found = way.sampling, way.figures
            rows.append(
                [
                    boot.program,
                    name,
                    f"{it.seconds:.0f}",
                    *map(str, (it.hertz, it.threads, it.samples)),
                    _percent(it.hits / it.samples if it.samples else None) + " %",
                    str(it.lost),
                    f"{found.accesses:,}",
                    _mib(found.used_pages),
                ]
            )
    return table(titles, rows, words=2)


def _rows(boots: Sequence[Boot], *, sure: bool) -> list[list[str]]:
    rows = []
    for boot in _ordered(boots):
        for name, way in _ways_of(boot):
            found = way.figures
            it = found.sure if sure else found.every
            told = (
                figures.precision(it),
                figures.used_precision(it),
                figures.near_share(it),
                figures.recall(it, found),
                figures.owned_recall(it, found),
            )
            rows.append([boot.program, name, *map(_percent, told), _mib(it.pages)])
    return rows


def _ordered(boots: Iterable[Boot]) -> list[Boot]:
    order = list(PROGRAMS)
    return sorted(boots, key=lambda boot: order.index(boot.program) if boot.program in order else len(order))


def _ways_of(boot: Boot) -> list[tuple[str, Way]]:
    return [(name, boot.ways[name]) for name in WAYS if name in boot.ways]


def _ways(boots: Iterable[Boot]) -> list[Way]:
    return [way for boot in _ordered(boots) for _, way in _ways_of(boot)]


def _used(way: Way) -> float | None:
    return figures.ratio(way.figures.used_pages, way.figures.present_pages)


def _watched(way: Way) -> float | None:
    return figures.ratio(way.figures.accesses, way.figures.process_accesses)


def _machine(boots: Sequence[Boot]) -> Iterable[str]:
    yield f"- Linux {_all(boot.kernel for boot in boots)}, on hosts with {_all(str(b.host_cpus) for b in boots)} CPUs"
    yield f"- programs: {_all(f'{name} {version}' for boot in boots for name, version in boot.versions.items())}"
    yield f"- commits (+: with changes): {_all(boot.commit for boot in boots)}"
    again = [f"{boot.program} ({boot.attempts} attempts)" for boot in boots if boot.attempts > 1]
    yield f"- machines that were lost and booted again: {', '.join(again) or 'none'}"
    missing = PROGRAMS.keys() - {boot.program for boot in boots}
    yield f"- programs that were not measured: {_all(missing) or 'none'}"
    lost = [boot.program for boot in boots if any(way.lost_accesses for way in boot.ways.values())]
    yield f"- programs of which the oracle had no room for some pages: {', '.join(lost) or 'none'}"


def _all(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words)))


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def _mib(pages: int) -> str:
    return f"{pages * PAGE_BYTES / MIB:.1f}"
